//! `empg eval`: a fixed panel of tasks, played with a policy.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, ValueEnum};
use empg::{End, Limit};
use empg_env::Split;
use empg_train::{Config, Episode, Panel, evaluation_settings};

use crate::models::{self, Which};
use crate::settings::{self, CommonArgs};
use crate::{failure, interrupt, output, progress, table, tasks};

/// Arguments of `empg eval`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  empg eval --model tiny                       the embedded policy, untrained
  empg eval --model runs/NAME                  the last checkpoint of a run, its own settings
  empg eval --model runs/NAME --checkpoint best --episodes 512 --panel-seed 7
  empg eval --model runs/NAME --env alfworld --data DIR --split seen --episodes 0
  empg eval --model tiny --episodes 16 --show 2")]
pub(crate) struct EvalArgs {
    /// Policy: tiny (embedded), a model's folder or GGUF file, an id on the Hugging Face Hub, or a run;
    /// without it model.path of the settings [default: tiny]
    #[arg(long, value_name = "tiny|DIR|GGUF|HF-id|RUN")]
    model: Option<String>,
    /// Which checkpoint of a run: last, best or a step
    #[arg(long, value_name = "WHICH", default_value = "last")]
    checkpoint: Which,
    /// Tasks to play; without it the last of eval.splits
    #[arg(long)]
    split: Option<SplitName>,
    /// Episodes; 0 means the whole split
    #[arg(long, value_name = "N")]
    episodes: Option<usize>,
    /// Chooses the tasks and the sampling; the same number gives the same episodes
    #[arg(long, value_name = "N")]
    panel_seed: Option<u64>,
    /// Sampling temperature; 0 takes the most probable token
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Turns of an episode
    #[arg(long, value_name = "N")]
    max_turns: Option<usize>,
    /// Print so many of the episodes as conversations
    #[arg(long, value_name = "N", default_value_t = 0)]
    show: usize,
    #[command(flatten)]
    common: CommonArgs,
}

/// Splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SplitName {
    /// What the policy learns from
    Train,
    /// Held-out tasks like those of training
    #[value(alias = "valid_seen")]
    Seen,
    /// Held-out tasks in rooms unlike those of training
    #[value(alias = "valid_unseen")]
    Unseen,
}

/// Runs the command.
pub(crate) fn run(args: EvalArgs, json: bool) -> anyhow::Result<()> {
    let EvalArgs {
        model,
        checkpoint,
        split,
        episodes,
        panel_seed,
        temperature,
        max_turns,
        show,
        common,
    } = args;
    let model = match model {
        Some(model) => model,
        None => settings::named_model(&common)?.unwrap_or_else(|| "tiny".to_owned()),
    };
    let located = models::locate(&model, checkpoint)?;
    let mut config = settings::layered(common, located.run.as_ref(), Some(&model))?;
    if let Some(episodes) = episodes {
        config.eval.episodes = episodes;
    }
    if let Some(panel_seed) = panel_seed {
        config.eval.panel_seed = panel_seed;
    }
    if let Some(temperature) = temperature {
        config.eval.temperature = temperature;
    }
    if let Some(max_turns) = max_turns {
        config.eval.max_turns = max_turns;
    }
    if let Some(split) = split {
        config.eval.splits = vec![match split {
            SplitName::Train => Split::Train,
            SplitName::Seen => Split::Seen,
            SplitName::Unseen => Split::Unseen,
        }];
    }
    let config = settings::finish(config)?;
    // The run whose words these are: it, or the one around the checkpoint.
    let prompt = config.rollout.template.as_ref().and_then(|_| run_of(Path::new(&model)));
    let tasks = tasks::open(&config.env)?;
    let split = config.eval.splits.last().copied().unwrap_or(Split::Unseen);
    let panel = Panel::choose(&*tasks, split, config.eval.episodes, config.eval.panel_seed)?;

    let stop = Arc::new(AtomicBool::new(false));
    let spinner = progress::spinner(header(&located.name, &config, &panel));
    interrupt::watch(Arc::clone(&stop), spinner.clone(), "stopping");
    let played = panel.play(&located.policy, &*tasks, &evaluation_settings(&config), &stop);
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let (evaluation, episodes) = played.map_err(|error| match &prompt {
        Some(run) => failure::in_prompt(error.into(), run),
        None => error.into(),
    })?;
    if let Some(why) = &evaluation.failure {
        if evaluation.failed == evaluation.episodes {
            anyhow::bail!("every episode failed; the first: {why}");
        }
        crate::say!("warning: {} episodes failed; the first: {why}", evaluation.failed);
    }

    let conversations = conversations(&episodes[..show.min(episodes.len())]);
    if json {
        crate::say_part!("{conversations}");
        output::line(&table::json(&[evaluation]).to_string())?;
    } else {
        output::text(&conversations)?;
        output::text(&table::single(&evaluation))?;
        output::line(&format!(
            "{:.1} turns an episode, {:.1} % of the commands without effect, {} episodes cut off by a \
             limit",
            evaluation.turns,
            evaluation.ineffective * 100.0,
            evaluation.truncated
        ))?;
    }
    Ok(())
}

/// The run that a path names, or in which a checkpoint lies.
fn run_of(model: &Path) -> Option<PathBuf> {
    let model = std::path::absolute(model).ok()?;
    let mut around = model.ancestors().step_by(2).take(2);
    around.find(|folder| folder.join("manifest.json").exists()).map(Path::to_owned)
}

fn header(model: &str, config: &Config, panel: &Panel) -> String {
    format!(
        "{model} plays {} {} tasks of {} (panel seed {}, temperature {})",
        panel.tasks.len(),
        table::split_name(panel.split),
        config.env.name,
        panel.seed,
        config.eval.temperature,
    )
}

/// How an episode ended, in words.
fn ended(end: &End) -> String {
    let limit = match end {
        End::Truncated(Limit::Turns) => "turns",
        End::Truncated(Limit::ContextTokens) => "context tokens",
        End::Truncated(Limit::EpisodeTokens) => "episode tokens",
        End::Truncated(Limit::Stuck) => "stuck",
        other => return other.to_string(),
    };
    format!("truncated ({limit})")
}

fn conversations(episodes: &[Episode]) -> String {
    let mut text = String::new();
    for episode in episodes {
        let outcome = if episode.won { "won" } else { "not won" };
        let _ = writeln!(
            text,
            "━━ {} · {} · {outcome} after {} turns · {}",
            episode.kind,
            episode.trajectory.task(),
            episode.turns.len(),
            ended(episode.trajectory.end()),
        );
        for turn in &episode.turns {
            let mark = if turn.effect { "" } else { "   (no effect)" };
            let _ = writeln!(text, "{}\n> {}{mark}", turn.observation.trim_end(), turn.action);
        }
        text.push('\n');
    }
    text
}
