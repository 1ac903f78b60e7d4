//! `empg sft`: supervised fine-tuning on the observing expert's episodes; how `tiny` is made.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use empg_env::Split;
use empg_llm::{ModelConfig, check_folder, write_files};
use empg_train::config::{EnvConfig, Schedule};
use empg_train::{
    Config, Evaluation, ExpertDemonstrations, Panel, Policy, Practice, SftConfig, SftStep, Stage,
    TrainError, evaluation_settings, fine_tune, policy_files, tiny_preset_tokenizer,
    with_vocabulary,
};
use serde_json::json;

use super::export::room_for_model;
use crate::progress::{duration, steps_bar};
use crate::settings::{self, CommonArgs, SettingsError, SftFlags, SftSettings};
use crate::{interrupt, models, output, table, tasks};

/// One line of JSON for every step, beside the model.
const STEPS_FILE: &str = "sft.jsonl";
/// One line of JSON for the batch of every step.
const BATCHES_FILE: &str = "batches.jsonl";

/// Arguments of `empg sft`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  empg sft --preset tiny --stage grounded --out models/grounded
  empg sft --preset tiny --stage cold-start --init models/grounded --steps 600 --out models/tiny
  empg sft --also webshop --also search --init models/grounded --out models/three
  empg sft --init tiny --steps 100 --out models/more
  empg sft --model DIR --env alfworld --data DATA --out models/agent   a language model
  empg train --model models/tiny

Settings are layered as in train: defaults, --config, --set, flags. The
defaults of [optim] and of steps are fine-tuning's own, whatever a preset says:
2000 steps at 2e-3 after 100 of warm-up, for language models 100 at 1e-4 after
5, both with a cosine. A file may be one that train reads too: its [optim],
[model] and seed hold here as well, its steps are the training run's (give
--steps), and what only reinforcement knows is passed over. In --set such keys
are refused.")]
pub(crate) struct SftArgs {
    /// Shape and tokenizer of a new model
    #[arg(long, default_value = "tiny")]
    preset: Preset,
    /// Which expert is imitated
    #[arg(long, default_value = "grounded")]
    stage: StageName,
    /// Imitate experts of these generated environments as well, in turn with --env
    #[arg(long, value_name = "ENV")]
    also: Vec<String>,
    /// Generated catalogues and worlds that demonstrations come from; none of them is the one that
    /// training and evaluation use
    #[arg(long, value_name = "N", default_value_t = 8)]
    worlds: u64,
    /// Start from a model instead of a new one: tiny, a checkpoint directory, a run (its newest
    /// checkpoint), a language model. A model whose vocabulary is the beginning of the preset's gets
    /// rows for the other tokens [default: model.path of the settings, if they name one]
    #[arg(long, visible_alias = "init", value_name = "MODEL")]
    model: Option<String>,
    /// Folder for the model
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace a model that is there already
    #[arg(long)]
    force: bool,
    /// Optimiser steps [default: 2000; 100 for language models]
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Seed of the weights and of the demonstrations [default: seed of the settings, else 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Peak learning rate [default: optim.lr]
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    /// Tokens of a batch
    #[arg(long, value_name = "N")]
    batch_tokens: Option<usize>,
    /// Weight of the observations' tokens in the loss; the agent's have 1
    #[arg(long, value_name = "X")]
    observation_weight: Option<f32>,
    /// Every so many steps the policy plays itself and the expert corrects it (DAgger); 0 means
    /// never
    #[arg(long, value_name = "N", default_value_t = 0)]
    practice_every: u64,
    /// Share of a demonstration's turns with noise that is seen but not imitated
    #[arg(long, value_name = "X")]
    noise: Option<f64>,
    /// Writes what every step learns from to batches.jsonl in the folder: contexts and the tokens
    /// learned in them, to train others on the same
    #[arg(long)]
    save_batches: bool,
    /// Evaluates and saves every so many steps as well; 0 means at the end only
    #[arg(long, value_name = "N", default_value_t = 0)]
    eval_every: u64,
    #[command(flatten)]
    common: CommonArgs,
}

/// Shapes of new models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// The embedded policy's
    Tiny,
}

/// Experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StageName {
    /// The clean expert
    Grounded,
    /// The expert with admissible mistakes, for reinforcement to unlearn
    ColdStart,
}

/// Runs the command.
pub(crate) fn run(args: SftArgs, json: bool) -> anyhow::Result<()> {
    let SftArgs {
        preset: Preset::Tiny,
        stage,
        also,
        worlds,
        model,
        out,
        force,
        steps,
        seed,
        lr,
        batch_tokens,
        observation_weight,
        practice_every,
        noise,
        save_batches,
        eval_every,
        common,
    } = args;
    let started = Instant::now();
    let settings =
        settings::resolve_sft(common, SftFlags { model, steps, seed, lr, also: also.clone() })?;
    let SftSettings { mut config, mut sft, named, language_model, left } = settings;
    // Before what takes long; its games lie in --data, which is --env's.
    if also.iter().any(|name| name == "alfworld") {
        let what = "--also alfworld: it plays generated environments, and alfworld needs --data \
                    FOLDER; give --env alfworld --data FOLDER, and the others to --also";
        return Err(SettingsError::Conflict(what.to_owned()).into());
    }
    config.rollout.read_prompt()?;
    sft.rollout.template.clone_from(&config.rollout.template);
    config.model.path = models::settle(&config.model.path)?;
    sft.model.path.clone_from(&config.model.path);
    sft.batch_tokens = batch_tokens.unwrap_or(sft.batch_tokens);
    sft.practice_every = practice_every;
    sft.observation_weight = observation_weight.unwrap_or(sft.observation_weight);
    if !(0.0..=1.0).contains(&noise.unwrap_or_default()) {
        return Err(SettingsError::Conflict("--noise must lie between 0 and 1".into()).into());
    }
    if !(sft.observation_weight.is_finite() && sft.observation_weight >= 0.0) {
        let what = "--observation-weight must be 0 or above".to_owned();
        return Err(SettingsError::Conflict(what).into());
    }
    if sft.steps == 0 || sft.batch_tokens == 0 || !(sft.optim.lr.is_finite() && sft.optim.lr > 0.0)
    {
        let what = "--steps, --batch-tokens and --lr must be above 0".to_owned();
        return Err(SettingsError::Conflict(what).into());
    }

    let mut envs = vec![tasks::worlds(&config.env, worlds)?];
    let tasks = tasks::open(&config.env)?;
    let base = config.model.path.as_str();
    let mut policy = match named {
        false => Policy::untrained(tiny_preset_tokenizer()?, sft.seed)?,
        true if language_model => models::open(base)?,
        true => {
            let policy = models::open(base)?;
            let shape = policy.model.config.clone();
            let policy = with_vocabulary(policy, tiny_preset_tokenizer()?, sft.seed)?;
            // What grew is frozen beside adapters, and their file would name the model without it.
            if config.model.lora.is_some() && policy.model.config != shape {
                return Err(outgrown(base, &shape, &policy.model.config));
            }
            policy
        }
    };
    policy.adapt(config.model.lora.as_ref(), base, sft.seed)?;
    check_folder(&out, policy.model.adapters.is_some())
        .map_err(|e| SettingsError::Conflict(format!("--out {e}")))?;
    room_for_model(&out, force)?;
    policy.script(&config.rollout, &config.env.name)?;
    let stage = match stage {
        StageName::Grounded => Stage::Grounded,
        StageName::ColdStart => Stage::ColdStart,
    };
    let mut showing = stage.showing();
    showing.noise = noise.unwrap_or(showing.noise);
    showing.admissible = config.rollout.admissible;
    for name in &also {
        let env = EnvConfig { name: name.clone(), data: None, corpus: None, ..config.env.clone() };
        envs.push(tasks::worlds(&env, worlds)?);
    }
    let demonstrations = ExpertDemonstrations { envs, split: Split::Train, showing };
    let practice = Practice {
        tasks: &*tasks,
        split: Split::Train,
        manner: stage.manner(),
        rollout: config.rollout.clone(),
    };
    let split = config.eval.splits.last().copied().unwrap_or(Split::Unseen);
    let panel = Panel::choose(&*tasks, split, config.eval.episodes, config.eval.panel_seed)?;
    let base = if named { base } else { "a new model" };
    let envs = std::iter::once(&config.env.name).chain(&also).cloned().collect::<Vec<_>>();
    announce(base, &policy, &sft, stage, &envs.join(", "));
    if let Some(steps) = left {
        crate::say!(
            "  steps        those of the file, {steps}, are the training run's; --steps N sets these"
        );
    }

    let stop = Arc::new(AtomicBool::new(false));
    let bar = steps_bar(sft.steps);
    interrupt::watch(Arc::clone(&stop), bar.clone(), "stopping: the model is saved as it is");
    let say = |line: &str| {
        if let Some(bar) = &bar {
            bar.println(line);
        } else {
            crate::say!("{line}");
        }
    };
    let mut last = SftStep::default();
    let mut steps_file = Lines::new(&out, STEPS_FILE);
    let mut batches_file = Lines::new(&out, BATCHES_FILE);
    let mut unwritten = None;
    let mut tokens = 0usize;
    let trained = Instant::now();
    let outcome = fine_tune(
        &mut policy,
        &demonstrations,
        Some(&practice),
        &sft,
        &stop,
        &mut |policy, step, batch| {
            last = *step;
            tokens += step.tokens;
            let mut written = steps_file.push(step);
            if save_batches {
                written = written.and_then(|()| {
                    batches_file.push(&json!({ "step": step.step, "sequences": batch.sequences() }))
                });
            }
            if let Err(error) = written {
                unwritten = Some(error);
                return Ok(false);
            }
            let seconds = trained.elapsed().as_secs_f64();
            let line = format!(
                "loss {:.3}  confident {:>3.0} %  observations {:.3}  {:.0} tok/s  {} left",
                step.loss,
                step.confident * 100.0,
                step.observation_loss,
                tokens as f64 / seconds,
                duration(seconds / step.step as f64 * (sft.steps - step.step) as f64),
            );
            match &bar {
                Some(bar) => {
                    bar.set_position(step.step);
                    bar.set_message(line);
                }
                None if step.step.is_multiple_of(20) => {
                    crate::say!("step {}/{}  {line}", step.step, sft.steps);
                }
                None => {}
            }
            if eval_every > 0 && step.step.is_multiple_of(eval_every) && step.step < sft.steps {
                let evaluation = play(&panel, policy, &*tasks, &config, &stop)?;
                say(&format!("step {}: {}", step.step, sentence(&evaluation)));
                write_files(&out, &policy_files(policy)?)?;
            }
            Ok(true)
        },
    );
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    // Interrupted or not, what was learned is kept.
    let interrupted = match outcome {
        Ok(()) => false,
        Err(TrainError::Interrupted) => true,
        Err(error) => return Err(error.into()),
    };
    save(&out, &policy)?;
    if let Some(error) = unwritten {
        return Err(error);
    }
    if interrupted {
        crate::say!("interrupted after step {}; the model is in {}", last.step, out.display());
        return Err(TrainError::Interrupted.into());
    }
    let evaluation = play(&panel, &policy, &*tasks, &config, &stop)?;
    let seconds = started.elapsed().as_secs_f64();
    if json {
        let mut line = table::json(std::slice::from_ref(&evaluation));
        line["out"] = json!(out.display().to_string());
        line["steps"] = json!(last.step);
        line["loss"] = json!(last.loss);
        line["ineffective"] = json!(evaluation.ineffective);
        line["seconds"] = json!(seconds);
        output::line(&line.to_string())?;
    } else {
        output::text(&table::single(&evaluation))?;
        output::line(&format!(
            "{:.1} % of the commands without effect; {} steps, {}",
            evaluation.ineffective * 100.0,
            last.step,
            duration(seconds)
        ))?;
        output::line(&format!("model: {}", out.display()))?;
    }
    Ok(())
}

/// Why there can be no new adapters on a model that has to grow first.
fn outgrown(base: &str, is: &ModelConfig, becomes: &ModelConfig) -> anyhow::Error {
    let what = format!(
        "model.lora: {base} has {} tokens and {} positions and would get {} and {} here, which \
         adapters are not saved with: fine-tune it without model.lora first (empg sft --model {} \
         --out DIR), then with it on --model DIR",
        is.vocab_size,
        is.max_position_embeddings,
        becomes.vocab_size,
        becomes.max_position_embeddings,
        output::quoted(base),
    );
    SettingsError::Conflict(what).into()
}

/// Says what is about to happen.
fn announce(base: &str, policy: &Policy, sft: &SftConfig, stage: Stage, envs: &str) {
    crate::say!(
        "fine-tuning {base} ({:.1} M parameters) on the {} expert in {envs}: {} steps of {} tokens, \
         {} threads, seed {}",
        policy.model.params.len() as f64 / 1e6,
        if stage == Stage::Grounded { "clean" } else { "careless" },
        sft.steps,
        sft.batch_tokens,
        sft.threads,
        sft.seed,
    );
    let optim = &sft.optim;
    crate::say!(
        "  optimiser    learning rate {}, {} steps of warm-up, then {}; weight decay {}",
        optim.lr,
        optim.warmup,
        match optim.schedule {
            Schedule::Constant => "constant",
            Schedule::Cosine => "half a cosine",
            Schedule::Linear => "a straight line",
        },
        optim.weight_decay,
    );
}

fn play(
    panel: &Panel,
    policy: &Policy,
    tasks: &dyn empg_env::TaskSet,
    config: &Config,
    stop: &AtomicBool,
) -> Result<Evaluation, TrainError> {
    Ok(panel.play(policy, tasks, &evaluation_settings(config), stop)?.0)
}

/// A file of JSON lines beside the model, which the first line begins anew.
struct Lines {
    path: PathBuf,
    file: Option<File>,
}

impl Lines {
    fn new(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(name), file: None }
    }

    fn push(&mut self, line: &impl serde::Serialize) -> anyhow::Result<()> {
        self.write(&serde_json::to_string(line)?)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        let file = if let Some(file) = self.file.take() {
            file
        } else {
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            File::create(&self.path)?
        };
        writeln!(self.file.insert(file), "{line}")
    }
}

fn sentence(evaluation: &Evaluation) -> String {
    format!(
        "{}, {:.1} % of the commands without effect",
        table::sentence(evaluation),
        evaluation.ineffective * 100.0
    )
}

fn save(out: &Path, policy: &Policy) -> anyhow::Result<()> {
    write_files(out, &policy_files(policy)?)
        .with_context(|| format!("cannot save the model in {}", out.display()))
}
