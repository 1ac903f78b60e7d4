//! `empg train`: the main job.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use empg_env::{Split, TaskSet};
use empg_run::{CheckpointRef, Run, RunDir};
use empg_track::Status;
use empg_train::config::Recipe;
use empg_train::{Config, Policy, Summary, TrainError, Trainer};
use serde_json::json;

use crate::progress::{Live, duration};
use crate::settings::{self, SettingsError, TrainingArgs};
use crate::track::{Following, Tracker};
use crate::{estimate, failure, interrupt, models, output, table, tasks};

/// Arguments of `empg train`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  empg train                                   generated households, tiny, DAPO + EMPG
  empg train --algo grpo --empg off --seed 1   the plain baseline
  empg train --env alfworld --data ~/.cache/alfworld
  empg train --env openenv --url http://127.0.0.1:8000
  empg train --env stdio --command 'python my_env.py'
  empg train --set optim.lr=1e-4 --set rollout.group_size=16 --out runs/wide
  empg train --model runs/NAME                 a new run from the newest checkpoint of another
  empg train --track mlflow=http://127.0.0.1:5000
  empg train --resume runs/NAME                continue after Ctrl-C or a crash
  empg train --resume runs/NAME --steps 200    train a finished run further")]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    training: TrainingArgs,
    /// Run directory [default: runs/ENV-ALGO[-empg]-sSEED, with a number if that is taken]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Mirror the run while it is written: mlflow=URL, or mlflow (MLFLOW_TRACKING_URI); may be
    /// repeated
    #[arg(long, value_name = "TRACKER")]
    track: Vec<String>,
    /// Continue this run from its newest complete checkpoint; --data, --corpus, --url and --command say
    /// where its environment is by now
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = [
            "config", "set", "env", "model", "algo", "empg", "seed", "threads", "dtype", "device",
            "out",
        ]
    )]
    resume: Option<PathBuf>,
}

/// A run that is ready to go on.
struct Prepared {
    config: Config,
    dir: RunDir,
    trainer: Trainer,
    trackers: Vec<Tracker>,
}

/// Runs the command.
pub(crate) fn run(args: TrainArgs, json: bool) -> anyhow::Result<()> {
    let TrainArgs { training, out, track, resume } = args;
    let started = Instant::now();
    let prepared = match resume {
        Some(dir) => continued(&dir, training, track).map_err(|e| failure::in_prompt(e, &dir))?,
        None => fresh(training, out, track)?,
    };
    let Prepared { config, mut dir, mut trainer, trackers } = prepared;
    dir.set_keep(config.checkpoint.keep);
    let told = dir.warnings().len();

    let mut live = Live::new(trainer.steps_done(), config.steps, config.eval.every);
    interrupt::watch(
        trainer.stop_flag(),
        live.bar(),
        "stopping: what is under way is brought to an end (Ctrl-C again ends at once)",
    );
    let following = Following::start(dir.path(), trackers, live.bar().as_ref());
    let outcome = trainer.run(Some(&mut dir), &mut live);
    live.finish();
    following.finish(match &outcome {
        Ok(_) => Status::Finished,
        Err(TrainError::Interrupted) => Status::Stopped,
        Err(_) => Status::Failed,
    });
    for warning in dir.warnings().iter().skip(told) {
        crate::say!("warning: {warning}");
    }
    let path = output::quoted(dir.path().display());
    match outcome {
        Ok(summary) => {
            let seconds = started.elapsed().as_secs_f64();
            report(dir.path(), &summary, seconds, json)
        }
        Err(TrainError::Interrupted) => {
            let done = dir.last_step().map_or("before its first evaluation".to_owned(), |s| {
                format!("after step {s} of {}", config.steps)
            });
            crate::say!("interrupted {done}; continue with: empg train --resume {path}");
            Err(TrainError::Interrupted.into())
        }
        Err(error) => Err(failure::in_prompt(error.into(), dir.path())).with_context(|| {
            format!(
                "training stopped; what is committed can be continued: empg train --resume {path}"
            )
        }),
    }
}

fn fresh(
    training: TrainingArgs,
    out: Option<PathBuf>,
    track: Vec<String>,
) -> anyhow::Result<Prepared> {
    let mut config = settings::resolve(training)?;
    config.model.path = models::settle(&config.model.path)?;
    if !track.is_empty() {
        config.record.track = track;
    }
    let trackers = Tracker::all(&config.record.track)?;
    let tasks = tasks::open(&config.env)?;
    let policy = models::open(&config.model.path)?;
    let path = out.unwrap_or_else(|| free_name(&config));
    announce("training", &config, &*tasks, &policy, &path);
    let info = json!({
        "empg": env!("CARGO_PKG_VERSION"),
        "env": config.env.name,
        "algo": recipe(&config),
        "seed": config.seed,
        "parameters": policy.model.params.len(),
    });
    let text = settings::commented(&config)?;
    // Before the directory: a configuration that cannot be trained leaves nothing behind.
    let trainer = Trainer::new(config.clone(), tasks, policy)?;
    let dir = RunDir::create(&path, &text, &info)?;
    Ok(Prepared { config, dir, trainer, trackers })
}

fn continued(path: &Path, training: TrainingArgs, track: Vec<String>) -> anyhow::Result<Prepared> {
    if !path.is_dir() {
        bail!(
            "there is no run directory {}: runs lie in runs/ unless --out named another",
            path.display()
        );
    }
    let (dir, checkpoint) = RunDir::resume(path)?;
    let file = path.join("config.toml");
    let recorded = settings::of_run(dir.config(), file.clone())?;
    settings::flags_fit(&training.common, &recorded.env.name)?;
    let mut config = recorded.clone();
    if let Some(steps) = training.steps {
        let done = checkpoint.as_ref().map_or(0, |c| c.step);
        // Without an evaluation of its last step an older one would stand for it.
        let unevaluated = steps == done && done < recorded.steps && {
            let metrics = Run::open(path)?.metrics()?;
            !metrics.last().is_some_and(|line| line.contains_key("eval"))
        };
        if steps < done || unevaluated {
            let how = if unevaluated { "; empg eval plays it as it is" } else { "" };
            return Err(SettingsError::Conflict(format!(
                "--steps {steps}: {} has done {done} steps already{how}",
                path.display()
            ))
            .into());
        }
        config.steps = steps;
    }
    if let Some(data) = training.common.data {
        config.env.data = Some(data);
    }
    if let Some(corpus) = training.common.corpus {
        config.env.corpus = Some(corpus);
    }
    if let Some(url) = training.common.url {
        config.env.url = Some(url);
    }
    if let Some(command) = training.common.command {
        config.env.command = Some(command);
    }
    if !track.is_empty() {
        config.record.track = track;
    }
    let config = settings::finish(config)?;
    let trackers = Tracker::all(&config.record.track)?;
    let tasks = tasks::open(&config.env)?;
    let policy = models::open(&config.model.path)?;
    announce(&resumption(checkpoint.as_ref(), &config), &config, &*tasks, &policy, path);
    for warning in dir.warnings() {
        crate::say!("warning: {warning}");
    }
    let trainer = match &checkpoint {
        Some(checkpoint) => Trainer::resume(config.clone(), tasks, policy, checkpoint)?,
        None => Trainer::new(config.clone(), tasks, policy)?,
    };
    // Only what has proved to work replaces what the run was started with.
    if config != recorded {
        rewrite(&file, &settings::commented(&config)?)?;
    }
    Ok(Prepared { config, dir, trainer, trackers })
}

fn resumption(checkpoint: Option<&CheckpointRef>, config: &Config) -> String {
    match checkpoint.map(|c| c.step) {
        Some(step) if step >= config.steps => {
            format!("finished already ({step} steps; --steps N trains further):")
        }
        Some(step) => format!("continuing after step {step} of {}:", config.steps),
        None => "starting again, nothing had been committed:".into(),
    }
}

/// Replaces a file by one rename.
fn rewrite(path: &Path, text: &str) -> anyhow::Result<()> {
    let replace = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().suffix(".tmp").tempfile_in(folder)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    replace().with_context(|| format!("cannot write {}", path.display()))
}

/// The first run directory of the default name that does not exist.
fn free_name(config: &Config) -> PathBuf {
    let algo = match config.algo.name {
        Recipe::Grpo => "grpo",
        Recipe::Dapo => "dapo",
    };
    let empg = if config.empg.enabled { "-empg" } else { "" };
    let name = format!("{}-{algo}{empg}-s{}", config.env.name, config.seed);
    let first = Path::new("runs").join(&name);
    let numbered = (2..).map(|n: u64| Path::new("runs").join(format!("{name}-{n}")));
    std::iter::once(first).chain(numbered).find(|p| !p.exists()).unwrap_or_default()
}

/// `DAPO + EMPG`.
fn recipe(config: &Config) -> String {
    let name = match config.algo.name {
        Recipe::Grpo => "GRPO",
        Recipe::Dapo => "DAPO",
    };
    let empg = &config.empg;
    let half = match (empg.enabled, empg.k == 0.0, empg.zeta == 0.0) {
        (false, _, _) => return name.to_owned(),
        (true, true, false) => " (bonus only)",
        (true, false, true) => " (scaling only)",
        _ => "",
    };
    format!("{name} + EMPG{half}")
}

/// Says what is about to happen, and what it will need.
fn announce(what: &str, config: &Config, tasks: &dyn TaskSet, policy: &Policy, path: &Path) {
    let model = &policy.model;
    let parameters = model.params.len();
    let millions = parameters as f64 / 1e6;
    let need = estimate::estimate(config, model);
    let splits: Vec<String> = config
        .eval
        .splits
        .iter()
        .map(|&split| {
            let all = tasks.len(split);
            let wanted = config.eval.episodes as u64;
            let n = match all {
                Some(all) if wanted == 0 || wanted > all => all,
                _ => wanted,
            };
            format!("{n} {}", table::split_name(split))
        })
        .collect();
    let training =
        tasks.len(Split::Train).map_or("generated without end".to_owned(), |n| n.to_string());
    crate::say!(
        "{what} {} ({millions:.1} M parameters) with {}",
        config.model.path,
        recipe(config)
    );
    crate::say!(
        "  environment  {}: training tasks {training}, evaluation {}",
        config.env.name,
        splits.join(" + ")
    );
    crate::say!(
        "  work         {} steps of {} tasks × {} rollouts, seed {}, {} threads",
        config.steps,
        config.rollout.groups,
        config.rollout.group_size,
        config.seed,
        config.threads
    );
    crate::say!(
        "  needs        up to {} of memory, {} of disk",
        estimate::size(need.memory),
        estimate::size(need.disk)
    );
    crate::say!("  run          {}", path.display());
    if let Some(available) = estimate::available_memory().filter(|&a| a < need.memory) {
        crate::say!(
            "warning: only {} of memory are available; fewer or shorter episodes at a time need \
             less: rollout.groups, rollout.max_context_tokens, algo.micro_batch_tokens",
            estimate::size(available)
        );
    }
}

/// Seconds by phase.
fn phases(summary: &Summary) -> Vec<(String, serde_json::Value)> {
    let t = &summary.seconds;
    [
        ("rollout", t.rollout),
        ("credit", t.credit),
        ("reference", t.reference),
        ("update", t.update),
        ("evaluate", t.evaluate),
        ("commit", t.commit),
    ]
    .map(|(name, seconds)| (name.to_owned(), json!(seconds)))
    .into()
}

/// The comparison on stdout.
fn report(path: &Path, summary: &Summary, seconds: f64, json: bool) -> anyhow::Result<()> {
    if summary.before.is_empty() {
        bail!("the run has no evaluation from before training");
    }
    if json {
        let line = json!({
            "run": path.display().to_string(),
            "seconds": seconds,
            "before": table::json(&summary.before),
            "after": table::json(&summary.after),
            "steps": summary.steps,
            "phases": phases(summary).into_iter().collect::<serde_json::Map<_, _>>(),
        });
        output::line(&line.to_string())?;
        return Ok(());
    }
    for (before, after) in summary.before.iter().zip(&summary.after) {
        output::line(&table::comparison(before, after))?;
    }
    let steps = if summary.steps == 1 { "step" } else { "steps" };
    output::line(&format!("{} {steps}, {}", summary.steps, duration(seconds)))?;
    let parts: Vec<String> = phases(summary)
        .iter()
        .map(|(name, s)| format!("{name} {:.1} s", s.as_f64().unwrap_or(0.0)))
        .collect();
    crate::say!("phases: {}", parts.join(", "));
    output::line(&format!("run: {}", path.display()))?;
    crate::say!("play it again with: empg eval --model {}", output::quoted(path.display()));
    Ok(())
}
