//! The settings of `empg sft`: those of a training run, but with an optimiser and steps of its own,
//! because presets speak of reinforcement.

use empg_train::{Config, SftConfig};
use toml::{Table, Value};

use super::{
    CommonArgs, SettingsError, finish, fits, in_file, in_set, keys, merge, said, stacked,
    unreadable,
};
use crate::models;

/// Flags of `empg sft` that stand over keys of the configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct SftFlags {
    /// `model.path`.
    pub(crate) model: Option<String>,
    /// `steps`.
    pub(crate) steps: Option<u64>,
    /// `seed`.
    pub(crate) seed: Option<u64>,
    /// `optim.lr`.
    pub(crate) lr: Option<f64>,
    /// Environments beside the configuration's, whose keys mean something too.
    pub(crate) also: Vec<String>,
}

/// What `empg sft` is to do.
#[derive(Clone, Debug)]
pub(crate) struct SftSettings {
    /// Environment, model, evaluation; `steps`, `seed` and `optim` are fine-tuning's.
    pub(crate) config: Config,
    /// The same for the trainer, with what the configuration has no keys for.
    pub(crate) sft: SftConfig,
    /// Whether a model was named; else a new one is made.
    pub(crate) named: bool,
    /// Whether it is a language model.
    pub(crate) language_model: bool,
    /// `steps` of the file, where nothing else said any: they are left to the training run.
    pub(crate) left: Option<Value>,
}

/// The settings of fine-tuning: its own defaults in the place of the presets' optimiser and steps,
/// then the file, `--set` and the flags. A file may be one that `empg train` reads too, so its
/// `steps` do not count here, and keys that only reinforcement knows are passed over; those of
/// `--set` are refused.
///
/// # Errors
/// As [`layered`](super::layered) and [`finish`]; a key of `--set` that means nothing here, adapters
/// without a model.
pub(crate) fn resolve_sft(
    common: CommonArgs,
    flags: SftFlags,
) -> Result<SftSettings, SettingsError> {
    let SftFlags { model, steps, seed, lr, also } = flags;
    let mut above = in_file(&common)?;
    let left = above.remove("steps");
    let set = in_set(&common)?;
    let left = left.filter(|_| steps.is_none() && !set.contains_key("steps"));
    let mut named = Vec::new();
    leaves("", &set, &mut named);
    if let Some(key) = named.iter().find(|key| !serves(key)) {
        let instead =
            if key == "eval.every" { " (--eval-every N evaluates on the way)" } else { "" };
        return Err(SettingsError::Conflict(format!(
            "--set {key}: fine-tuning has no use for it{instead}; leave it out. In a file that \
             train reads too it may stay"
        )));
    }
    let bearing = said(&common, &set);
    merge(&mut above, set);

    let path = above.get("model").and_then(|t| t.get("path")).and_then(Value::as_str);
    let model = model.or_else(|| path.map(str::to_owned));
    let language_model = model.as_deref().is_some_and(models::is_language_model);
    let mut sft = if language_model { SftConfig::language_model() } else { SftConfig::default() };
    let mut config = stacked(common, None, model.as_deref(), own(&sft)?, above)?;
    let envs = std::iter::once(&config.env.name).chain(&also).map(String::as_str);
    let envs: Vec<&str> = envs.collect();
    // Those of --also are played without data.
    let (data, rules): (Vec<_>, Vec<_>) =
        bearing.into_iter().partition(|(key, _)| ["env.data", "env.corpus"].contains(&key.name));
    fits(&data, &envs[..1])?;
    fits(&rules, &envs)?;
    let named = model.is_some();
    if let Some(model) = model {
        config.model.path = model;
    } else if config.model.lora.is_some() {
        let what = "model.lora: adapters need a model that they belong to: name it with --model \
                    (tiny is the embedded policy)";
        return Err(SettingsError::Conflict(what.into()));
    }
    if let Some(steps) = steps {
        config.steps = steps;
    }
    if let Some(seed) = seed {
        config.seed = seed;
    }
    if let Some(lr) = lr {
        config.optim.lr = lr;
    }
    let config = finish(config)?;
    sft.seed = config.seed;
    sft.steps = config.steps;
    sft.optim = config.optim.clone();
    sft.threads = config.threads;
    sft.rollout = config.rollout.clone();
    sft.model = config.model.clone();
    sft.micro_batch_tokens = config.algo.micro_batch_tokens;
    Ok(SftSettings { config, sft, named, language_model, left })
}

/// What fine-tuning has defaults of its own for, as a layer.
fn own(sft: &SftConfig) -> Result<Table, SettingsError> {
    let optim = Table::try_from(&sft.optim).map_err(|e| unreadable(&e.into()))?;
    let steps = Value::Integer(sft.steps.cast_signed());
    Ok(Table::from_iter([("steps".into(), steps), ("optim".into(), Value::Table(optim))]))
}

/// The keys that a layer sets.
fn leaves(prefix: &str, layer: &Table, found: &mut Vec<String>) {
    for (name, value) in layer {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(section) if keys::find(&key).is_none() => leaves(&key, section, found),
            _ => found.push(key),
        }
    }
}

/// Whether a key means anything to fine-tuning: to the demonstrations, the practice, the optimiser or
/// the evaluation.
fn serves(key: &str) -> bool {
    match key.split_once('.') {
        Some(("env" | "model" | "optim", _)) | None => true,
        Some(("rollout", leaf)) => !matches!(leaf, "groups" | "group_size"),
        Some(("algo", leaf)) => leaf == "micro_batch_tokens",
        Some(("eval", leaf)) => leaf != "every",
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use empg_train::config::Schedule;

    use super::*;

    fn resolved(file: Option<&Path>, set: &[&str], flags: SftFlags) -> SftSettings {
        try_resolved(file, set, flags).unwrap()
    }

    fn try_resolved(
        file: Option<&Path>,
        set: &[&str],
        flags: SftFlags,
    ) -> Result<SftSettings, SettingsError> {
        let common = CommonArgs {
            config: file.map(Path::to_owned),
            set: set.iter().map(|s| (*s).to_owned()).collect(),
            ..CommonArgs::default()
        };
        resolve_sft(common, flags)
    }

    #[test]
    fn presets_do_not_bear_on_the_optimiser() {
        let tiny = resolved(None, &[], SftFlags::default());
        assert_eq!((tiny.sft.optim, tiny.sft.steps), (SftConfig::default().optim, 2000));
        assert!(!tiny.named);
        // What cannot be found is a language model until it is opened.
        let flags = SftFlags { model: Some("no/such".into()), ..SftFlags::default() };
        let model = resolved(None, &[], flags);
        let own = SftConfig::language_model();
        assert_eq!((model.sft.optim, model.sft.steps), (own.optim, own.steps));
        assert_eq!(model.sft.micro_batch_tokens, 2048);
    }

    #[test]
    fn a_file_that_train_reads_too_says_all_but_the_steps() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let text = "steps = 20\nseed = 7\n[optim]\nlr = 0.5\nwarmup = 1\nschedule = \"linear\"\n\
                    [model]\npath = \"tiny\"\nlora = { rank = 2 }\n[empg]\nk = 2.0\n";
        std::fs::write(&file, text).unwrap();
        let read = resolved(Some(&file), &[], SftFlags::default());
        assert_eq!((read.sft.steps, read.sft.seed, read.sft.optim.lr), (2000, 7, 0.5));
        assert_eq!((read.sft.optim.warmup, read.sft.optim.schedule), (1, Schedule::Linear));
        assert_eq!(read.sft.optim.weight_decay, SftConfig::default().optim.weight_decay);
        assert!(read.named && !read.language_model && read.config.model.path == "tiny");
        assert_eq!(read.left, Some(Value::Integer(20)));

        let set = resolved(Some(&file), &["steps=3", "optim.lr=0.25"], SftFlags::default());
        assert_eq!((set.sft.steps, set.sft.optim.lr, set.sft.seed), (3, 0.25, 7));
        assert_eq!(set.left, None);
        let flags =
            SftFlags { steps: Some(4), lr: Some(0.125), seed: Some(9), ..SftFlags::default() };
        let flags = resolved(Some(&file), &["steps=3", "optim.lr=0.25"], flags);
        assert_eq!((flags.sft.steps, flags.sft.optim.lr, flags.sft.seed), (4, 0.125, 9));
    }

    #[test]
    fn what_means_nothing_here_is_refused_where_it_is_said_for_this_command() {
        for set in ["empg.k=2", "rollout.groups=3", "algo={clip_high=0.3}", "eval.every=5"] {
            let error = try_resolved(None, &[set], SftFlags::default()).unwrap_err().to_string();
            assert!(error.contains("--set") && error.contains("no use"), "{error}");
        }
        for set in ["model.dtype=bf16", "rollout.context={window=2}", "algo.micro_batch_tokens=9"] {
            try_resolved(None, &[set], SftFlags::default()).unwrap();
        }
        let error = try_resolved(None, &["model.lora={rank=2}"], SftFlags::default()).unwrap_err();
        assert!(error.to_string().contains("--model"), "{error}");
    }
}
