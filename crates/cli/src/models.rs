//! From what `--model` says to a policy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use empg_llm::{
    ADAPTER_CONFIG_FILE, CHAT_TEMPLATE, ChatTemplate, GenerationConfig, LoadedModel, TURN_END,
    adapter_base, load_path,
};
use empg_run::{CheckpointRef, Run};
use empg_train::{Config, Policy, tiny};

use crate::hub::{self, HubId};
use crate::{output, settings};

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

/// What stands in the tokenizer of `tiny` and of models that were trained from nothing here, and in no
/// language model's: a role's header as one token.
const HEADER: &str = "\"<|im_start|>user\\n\"";

/// Whether a model is a language model rather than one of the embedded policy's kind. Looks at the
/// tokenizer only; what cannot be found or read is one, or an error later.
pub(crate) fn is_language_model(path: &str) -> bool {
    let dir = Path::new(path);
    if path == "tiny" {
        return false;
    }
    let dir = Run::open(dir)
        .ok()
        .and_then(|run| run.last().ok().flatten())
        .map_or_else(|| dir.to_owned(), |checkpoint| checkpoint.dir);
    let text = std::fs::read_to_string(dir.join("tokenizer.json"));
    text.map_or(true, |text| !text.contains(HEADER))
}

/// A policy from whatever [`load`] takes.
pub(crate) fn open(model: &str) -> anyhow::Result<Policy> {
    if model == "tiny" {
        return tiny().context("loading the embedded policy");
    }
    Ok(load(model)?.into())
}

/// A model with all that comes with it, from `tiny`, a directory, a GGUF file or an id on the
/// Hugging Face Hub. What exists as a path is never taken for an id.
pub(crate) fn load(model: &str) -> anyhow::Result<LoadedModel> {
    if model == "tiny" {
        let Policy { model, tokenizer, side, .. } = open(model)?;
        let chat_template = Some(ChatTemplate::new(CHAT_TEMPLATE, BTreeMap::new())?);
        let eos = tokenizer.token_id(TURN_END).into_iter().collect();
        let generation = GenerationConfig { eos, ..GenerationConfig::default() };
        return Ok(LoadedModel { model, tokenizer, chat_template, generation, side });
    }
    read(&resolve(model)?)
}

/// Where a model lies, which is downloaded where it has to be.
fn resolve(model: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(model);
    if path.exists() {
        return Ok(path.to_owned());
    }
    match HubId::parse(model) {
        Some(id) => hub::fetch(&id),
        None => bail!(
            "there is no model {model:?}: give `tiny`, a folder with config.json, tokenizer.json \
             and safetensors, a .gguf file, or an id like Qwen/Qwen2.5-0.5B-Instruct"
        ),
    }
}

fn read(path: &Path) -> anyhow::Result<LoadedModel> {
    load_folder(path).with_context(|| format!("loading the model in {}", path.display()))
}

/// The model of a folder or a file, or the adapters in a folder beside the model that they name.
fn load_folder(path: &Path) -> anyhow::Result<LoadedModel> {
    if !path.join(ADAPTER_CONFIG_FILE).exists() {
        return Ok(load_path(path)?);
    }
    let Some(base) = adapter_base(path)?.model else {
        bail!("{ADAPTER_CONFIG_FILE} does not say which model the adapters belong to");
    };
    let loaded = if base == "tiny" {
        load(&base)?
    } else {
        let from = resolve(&base)?;
        if from.join(ADAPTER_CONFIG_FILE).exists() {
            bail!(
                "the adapters belong to {base}, which holds adapters of its own: merge those first \
                 (empg export --model {} --out DIR); a whole model that lies beside adapters \
                 needs a folder of its own",
                output::quoted(&base)
            );
        }
        load_path(&from).with_context(|| format!("loading the adapters' model {base}"))?
    };
    Ok(loaded.with_adapters(path)?)
}

/// A policy from whatever [`load`] takes, or a run.
pub(crate) fn locate(path: &str, which: Which) -> anyhow::Result<Located> {
    let dir = Path::new(path);
    let (loaded, checkpoint) = load_any(path, which)?;
    let policy = loaded.into();
    let Some(checkpoint) = checkpoint else {
        let run = if path == "tiny" { None } else { run_around(dir) };
        return Ok(Located { policy, name: path.to_owned(), run });
    };
    let run = Run::open(dir)?;
    Ok(Located {
        policy,
        name: checkpoint.dir.display().to_string(),
        run: Some(settings::of_run(&run.config()?, dir.join("config.toml"))?),
    })
}

/// A model with all that comes with it from whatever [`load`] takes, or a run's checkpoint.
pub(crate) fn load_any(
    path: &str,
    which: Which,
) -> anyhow::Result<(LoadedModel, Option<CheckpointRef>)> {
    let dir = Path::new(path);
    if path == "tiny" || !dir.join("manifest.json").exists() {
        if which != Which::Last {
            bail!("--checkpoint chooses among those of a run, and {path} is no run: leave it out");
        }
        return Ok((load(path)?, None));
    }
    let checkpoint = checkpoint_of(&Run::open(dir)?, which)?;
    Ok((load_folder(&checkpoint.dir)?, Some(checkpoint)))
}

/// What to train from: of a run its newest checkpoint, by an absolute path that means the same after the
/// run has gone on; anything else as it is.
pub(crate) fn settle(path: &str) -> anyhow::Result<String> {
    let dir = Path::new(path);
    if path == "tiny" || !dir.join("manifest.json").exists() {
        return Ok(path.to_owned());
    }
    let checkpoint = checkpoint_of(&Run::open(dir)?, Which::Last)?;
    Ok(std::path::absolute(checkpoint.dir)?.display().to_string())
}

/// A checkpoint of a run, found undamaged.
fn checkpoint_of(run: &Run, which: Which) -> anyhow::Result<CheckpointRef> {
    let checkpoint = match which {
        Which::Last => run.last()?,
        Which::Best => run.best()?,
        Which::Step(step) => run.checkpoints()?.into_iter().find(|c| c.step == step),
    };
    let Some(checkpoint) = checkpoint else {
        let kept: Vec<String> =
            run.manifest().checkpoints.iter().map(|c| c.step.to_string()).collect();
        let kept = if kept.is_empty() { "none yet".to_owned() } else { kept.join(", ") };
        bail!("{} has no such checkpoint (kept: {kept})", run.path().display());
    };
    checkpoint.verify()?;
    Ok(checkpoint)
}

/// The configuration of the run in which a checkpoint directory lies.
fn run_around(checkpoint: &Path) -> Option<Config> {
    let dir: PathBuf = std::path::absolute(checkpoint).ok()?.parent()?.parent()?.to_owned();
    let run = Run::open(&dir).ok()?;
    settings::of_run(&run.config().ok()?, dir.join("config.toml")).ok()
}
