//! From what `--model` says to a policy.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use empg_llm::is_gguf;
use empg_run::Run;
use empg_train::{Config, Policy, load_policy, tiny};

use crate::settings;

/// A policy, and where it comes from.
#[derive(Debug)]
pub(crate) struct Located {
    /// Weights and tokenizer.
    pub(crate) policy: Policy,
    /// What it is called in output.
    pub(crate) name: String,
    /// The configuration of the run that made it.
    pub(crate) run: Option<Config>,
}

/// Which checkpoint of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Which {
    /// The newest.
    #[default]
    Last,
    /// The one with the highest evaluation.
    Best,
    /// That of a step.
    Step(u64),
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "last" => Ok(Self::Last),
            "best" => Ok(Self::Best),
            _ => text
                .parse()
                .map(Self::Step)
                .map_err(|_| "write last, best or a step's number".into()),
        }
    }
}

/// A policy from `tiny` or a checkpoint directory.
pub(crate) fn open(path: &str) -> anyhow::Result<Policy> {
    if path == "tiny" {
        return tiny().context("loading the embedded policy");
    }
    let dir = Path::new(path);
    if !dir.is_dir() && !(is_gguf(dir) && dir.exists()) {
        bail!(
            "there is no model {path:?}: give `tiny`, a GGUF file or a folder with config.json, \
             model.safetensors and tokenizer.json"
        );
    }
    load_policy(dir).with_context(|| format!("loading the model in {}", dir.display()))
}

/// A policy from `tiny`, a checkpoint directory or a run.
pub(crate) fn locate(path: &str, which: Which) -> anyhow::Result<Located> {
    let dir = Path::new(path);
    if path == "tiny" {
        return Ok(Located { policy: open(path)?, name: path.to_owned(), run: None });
    }
    if !dir.join("manifest.json").exists() {
        return Ok(Located { policy: open(path)?, name: path.to_owned(), run: run_around(dir) });
    }
    let run = Run::open(dir)?;
    let checkpoint = match which {
        Which::Last => run.last()?,
        Which::Best => run.best()?,
        Which::Step(step) => run.checkpoints()?.into_iter().find(|c| c.step == step),
    };
    let Some(checkpoint) = checkpoint else {
        let kept: Vec<String> =
            run.manifest().checkpoints.iter().map(|c| c.step.to_string()).collect();
        let kept = if kept.is_empty() { "none yet".to_owned() } else { kept.join(", ") };
        bail!("{} has no such checkpoint (kept: {kept})", dir.display());
    };
    checkpoint.verify()?;
    Ok(Located {
        policy: load_policy(&checkpoint.dir)?,
        name: checkpoint.dir.display().to_string(),
        run: Some(settings::of_run(&run.config()?, dir.join("config.toml"))?),
    })
}

/// The configuration of the run in which a checkpoint directory lies.
fn run_around(checkpoint: &Path) -> Option<Config> {
    let dir: PathBuf = std::path::absolute(checkpoint).ok()?.parent()?.parent()?.to_owned();
    let run = Run::open(&dir).ok()?;
    settings::of_run(&run.config().ok()?, dir.join("config.toml")).ok()
}
