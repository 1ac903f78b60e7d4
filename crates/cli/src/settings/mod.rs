//! Settings: defaults, then the environment's preset, then a file, then `--set`, then flags.

mod keys;
mod layer;
mod sft;
mod show;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use empg_env::EnvOptions;
use empg_run::Run;
use empg_train::config::{AlgoConfig, ConfigError};
use empg_train::{Config, Script};
use toml::{Table, Value};

use crate::models;

pub(crate) use layer::SettingsError;
pub(crate) use layer::merge;
use layer::{Origin, assignment, parse, read};
pub(crate) use sft::{SftFlags, SftSettings, resolve_sft};
pub(crate) use show::{commented, template};

/// The presets, by the name of the environment that they are for. The first is the default.
const PRESETS: &[(&str, &str)] = &[
    ("households", include_str!("../../presets/households.toml")),
    ("alfworld", include_str!("../../presets/alfworld.toml")),
    ("webshop", include_str!("../../presets/webshop.toml")),
    ("search", include_str!("../../presets/search.toml")),
    ("openenv", include_str!("../../presets/openenv.toml")),
    ("stdio", include_str!("../../presets/stdio.toml")),
];

/// What differs for language models, whatever the environment.
const LANGUAGE_MODEL: &str = include_str!("../../presets/language-model.toml");

/// What every command that plays episodes lets one set.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct CommonArgs {
    /// Settings file (TOML); `empg config init` writes one
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, e.g. optim.lr=1e-4; may be repeated (`empg config show` lists all)
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Settings")]
    pub(crate) set: Vec<String>,
    /// Environment: households, webshop, search (generated without --data), alfworld, or elsewhere:
    /// openenv, stdio
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Option<String>,
    /// Folder with the environment's data
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Passages of search, where they lie outside of --data, or a retriever's address
    #[arg(long, value_name = "FILE|URL")]
    pub(crate) corpus: Option<PathBuf>,
    /// The server of openenv
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The program of stdio, with its arguments
    #[arg(long, value_name = "COMMAND")]
    pub(crate) command: Option<String>,
    /// Worker threads; 0 means one per core
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Compute type
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<Dtype>,
    /// Where to compute
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<Device>,
}

/// Compute types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// The best for the device
    Auto,
    /// 32-bit floating point
    F32,
    /// bfloat16 factors, f32 weights and sums
    Bf16,
}

/// Devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// The best there is
    Auto,
    /// The processor
    Cpu,
}

/// Training recipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algo {
    /// Group-relative policy optimisation
    Grpo,
    /// GRPO with clip-higher, token-mean loss and dynamic sampling
    Dapo,
}

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// Use it
    On,
    /// Leave it out
    Off,
}

/// Flags of a training run that change its configuration.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TrainingArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// Policy to start from: tiny (embedded), a model's folder or GGUF file, an id on the Hugging Face
    /// Hub, or a run (its newest checkpoint)
    #[arg(long, value_name = "tiny|DIR|GGUF|HF-id|RUN")]
    pub(crate) model: Option<String>,
    /// Recipe
    #[arg(long)]
    pub(crate) algo: Option<Algo>,
    /// Entropy modulation of the advantages
    #[arg(long, value_name = "on|off")]
    pub(crate) empg: Option<Switch>,
    /// Batches that are played and learned from
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<u64>,
    /// Seed of the run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub(crate) seed: Option<u64>,
}

impl From<ConfigError> for SettingsError {
    fn from(error: ConfigError) -> Self {
        Self::Refused { key: error.key, what: error.what }
    }
}

/// The configuration of a training run.
///
/// # Errors
/// Files that cannot be read, unknown keys, values that no run could train with.
pub(crate) fn resolve(args: TrainingArgs) -> Result<Config, SettingsError> {
    let TrainingArgs { mut common, model, algo, empg, steps, seed } = args;
    if let Some(algo) = algo {
        let name = if algo == Algo::Grpo { "grpo" } else { "dapo" };
        common.set.push(format!("algo.name={name}"));
    }
    let mut config = layered(common, None, model.as_deref())?;
    if let Some(model) = model {
        config.model.path = model;
    }
    if let Some(empg) = empg {
        config.empg.enabled = empg == Switch::On;
    }
    if let Some(steps) = steps {
        config.steps = steps;
    }
    if let Some(seed) = seed {
        config.seed = seed;
    }
    finish(config)
}

/// What the environment, the model and the recipe of these arguments decide, without anything else
/// that they say.
///
/// # Errors
/// As [`resolve`].
pub(crate) fn usual(args: &TrainingArgs) -> Result<Config, SettingsError> {
    let mut above = in_file(&args.common)?;
    merge(&mut above, in_set(&args.common)?);
    let named = |section: &str, leaf: &str| text_at(&above, section, leaf).map(str::to_owned);
    let name = named("algo", "name").map(|name| format!("algo.name={name}"));
    let common = CommonArgs {
        env: args.common.env.clone().or_else(|| named("env", "name")),
        set: name.into_iter().collect(),
        ..CommonArgs::default()
    };
    resolve(TrainingArgs {
        common,
        model: args.model.clone().or_else(|| named("model", "path")),
        algo: args.algo,
        ..TrainingArgs::default()
    })
}

/// The settings below the flags, with the common flags on top: open keys are still open. `run` is
/// the configuration of the run that a checkpoint belongs to; it stands where the preset would,
/// unless another environment is asked for. `model` is the policy that a flag names: language models
/// have a preset of their own on top of the environment's.
///
/// # Errors
/// Files that cannot be read, unknown keys and environments.
pub(crate) fn layered(
    args: CommonArgs,
    run: Option<&Config>,
    model: Option<&str>,
) -> Result<Config, SettingsError> {
    let mut above = in_file(&args)?;
    let set = in_set(&args)?;
    let said = said(&args, &set);
    reopen(&mut above, &set);
    merge(&mut above, set);
    let config = stacked(args, run, model, Table::new(), above)?;
    fits(&said, &[&config.env.name])?;
    Ok(config)
}

/// The model that the settings name below the flags.
///
/// # Errors
/// Files that cannot be read, unknown keys.
pub(crate) fn named_model(args: &CommonArgs) -> Result<Option<String>, SettingsError> {
    let mut above = in_file(args)?;
    merge(&mut above, in_set(args)?);
    Ok(text_at(&above, "model", "path").map(str::to_owned))
}

/// Refuses flags that bear on other environments than this one only.
///
/// # Errors
/// As said.
pub(crate) fn flags_fit(args: &CommonArgs, env: &str) -> Result<(), SettingsError> {
    fits(&said(args, &Table::new()), &[env])
}

/// What flags and `--set` say of the environment: the key, and how it was said.
fn said(args: &CommonArgs, set: &Table) -> Vec<(&'static keys::Key, String)> {
    let flags = [
        ("data", args.data.is_some()),
        ("corpus", args.corpus.is_some()),
        ("url", args.url.is_some()),
        ("command", args.command.is_some()),
    ];
    let flags = flags.into_iter().filter(|flag| flag.1);
    let flags = flags.map(|(leaf, _)| (format!("env.{leaf}"), format!("--{leaf}")));
    let set = set.get("env").and_then(Value::as_table).into_iter().flat_map(Table::keys);
    let set = set.map(|leaf| (format!("env.{leaf}"), format!("--set env.{leaf}")));
    flags.chain(set).filter_map(|(name, how)| Some((keys::find(&name)?, how))).collect()
}

/// Whether what was said for this command bears on one of its environments. In a file, keys of others
/// may stand: files serve several commands.
fn fits(said: &[(&'static keys::Key, String)], envs: &[&str]) -> Result<(), SettingsError> {
    for (key, how) in said {
        let bears = key.environments();
        if !bears.is_empty() && !bears.iter().any(|name| envs.contains(name)) {
            return Err(SettingsError::Conflict(format!(
                "{how} bears on {} only, and the environment is {}: leave it out or choose another \
                 (--env)",
                bears.join(", "),
                envs.join(", ")
            )));
        }
    }
    Ok(())
}

/// A file that names a recipe speaks of that one: where `--set` asks for another, what the file says
/// in the recipe's place is the other's to decide.
fn reopen(file: &mut Table, set: &Table) {
    let other = match (text_at(file, "algo", "name"), text_at(set, "algo", "name")) {
        (Some(named), Some(asked)) => named != asked,
        _ => false,
    };
    if other && let Some(algo) = file.get_mut("algo").and_then(Value::as_table_mut) {
        algo.retain(|leaf, _| !AlgoConfig::OF_RECIPE.contains(&leaf));
    }
}

/// Text under a key of a section.
fn text_at<'a>(table: &'a Table, section: &str, leaf: &str) -> Option<&'a str> {
    table.get(section)?.get(leaf)?.as_str()
}

/// What the settings file says.
fn in_file(args: &CommonArgs) -> Result<Table, SettingsError> {
    args.config.as_deref().map_or_else(|| Ok(Table::new()), read)
}

/// What all `--set` say together.
fn in_set(args: &CommonArgs) -> Result<Table, SettingsError> {
    let mut set = Table::new();
    for text in &args.set {
        merge(&mut set, assignment(text)?);
    }
    Ok(set)
}

/// The layers as [`layered`] has them: `own` are a command's own defaults, over the preset, and
/// `above` is what file and `--set` say.
fn stacked(
    args: CommonArgs,
    run: Option<&Config>,
    model: Option<&str>,
    own: Table,
    above: Table,
) -> Result<Config, SettingsError> {
    let CommonArgs { config: _, set: _, env, data, corpus, url, command, threads, dtype, device } =
        args;
    let with_data = data.is_some() || text_at(&above, "env", "data").is_some();
    let name = env.as_deref().or(text_at(&above, "env", "name"));
    let name = name.or(run.map(|r| r.env.name.as_str())).unwrap_or(PRESETS[0].0);
    let mut table = match run {
        Some(run) if run.env.name == name => show::table(run).map_err(|e| unreadable(&e))?,
        _ => {
            let mut table = preset(name)?;
            if name == "search" && with_data {
                // The preset's turns are those that generated questions take.
                let turns = EnvOptions::of(name).max_steps.map(i64::from);
                if let (Some(turns), Some(Value::Table(rollout))) =
                    (turns, table.get_mut("rollout"))
                {
                    rollout.insert("max_turns".into(), turns.into());
                }
            }
            if model.or(text_at(&above, "model", "path")).is_some_and(models::is_language_model) {
                merge(&mut table, parse(LANGUAGE_MODEL, &Origin::Preset("language-model"))?);
            }
            table
        }
    };
    // The words that the run began with, unless others are asked for.
    let prompt = above.get("rollout").and_then(|t| t.get("prompt"));
    let template = run.filter(|run| run.env.name == name && prompt.is_none());
    let template = template.and_then(|run| run.rollout.template.clone());
    merge(&mut table, own);
    merge(&mut table, above);
    let mut resolved: Config = table.try_into().map_err(|e| unreadable(&e.into()))?;
    resolved.rollout.template = template;
    if let Some(env) = env {
        resolved.env.name = env;
    }
    if let Some(data) = data {
        resolved.env.data = Some(data);
    }
    if let Some(corpus) = corpus {
        resolved.env.corpus = Some(corpus);
    }
    if let Some(url) = url {
        resolved.env.url = Some(url);
    }
    if let Some(command) = command {
        resolved.env.command = Some(command);
    }
    if let Some(threads) = threads {
        resolved.threads = threads;
    }
    if let Some(dtype) = dtype {
        resolved.model.dtype = match dtype {
            Dtype::Auto => "auto".into(),
            Dtype::F32 => "f32".into(),
            Dtype::Bf16 => "bf16".into(),
        };
    }
    if let Some(device) = device {
        resolved.model.device = match device {
            Device::Auto => "auto".into(),
            Device::Cpu => "cpu".into(),
        };
    }
    Ok(resolved)
}

/// Makes paths absolute, so that the run can be resumed from anywhere, and checks every value.
///
/// # Errors
/// The first value that no run could train with.
pub(crate) fn finish(mut config: Config) -> Result<Config, SettingsError> {
    if let Some(data) = &mut config.env.data
        && let Ok(absolute) = std::path::absolute(&*data)
    {
        *data = absolute;
    }
    if let Some(corpus) = &mut config.env.corpus
        && !corpus.to_string_lossy().contains("://")
        && let Ok(absolute) = std::path::absolute(&*corpus)
    {
        *corpus = absolute;
    }
    if Script::is_file(&config.rollout.prompt)
        && std::path::Path::new(&config.rollout.prompt).exists()
        && let Ok(absolute) = std::path::absolute(&config.rollout.prompt)
    {
        config.rollout.prompt = absolute.display().to_string();
    }
    // The embedded policy and an id on the Hub name no path.
    if config.model.path != "tiny"
        && std::path::Path::new(&config.model.path).exists()
        && let Ok(absolute) = std::path::absolute(&config.model.path)
    {
        config.model.path = absolute.display().to_string();
    }
    Ok(config.resolve()?)
}

/// The configuration that a run directory holds in `file`, with the template that the run keeps; runs
/// of older versions keep none, and read it where they did.
///
/// # Errors
/// A file that was changed into something that is no configuration, a template that cannot be read.
pub(crate) fn of_run(text: &str, file: PathBuf) -> Result<Config, SettingsError> {
    let run = file.parent().map_or_else(PathBuf::new, PathBuf::from);
    let table = parse(text, &Origin::File(file))?;
    let config: Result<Config, _> = table.try_into();
    let mut config = config.map_err(|e| unreadable(&e.into()))?;
    let kept = Run::open(run).and_then(|run| run.prompt());
    config.rollout.template = kept.map_err(|e| SettingsError::Conflict(e.to_string()))?;
    Ok(config)
}

fn preset(name: &str) -> Result<Table, SettingsError> {
    let Some((name, text)) = PRESETS.iter().find(|(n, _)| *n == name) else {
        let names: Vec<&str> = PRESETS.iter().map(|(n, _)| *n).collect();
        return Err(SettingsError::Conflict(format!(
            "there is no environment {name:?}; this build has {}",
            names.join(", ")
        )));
    };
    parse(text, &Origin::Preset(name))
}

/// An error that the check of every layer should have caught with a better text.
fn unreadable(error: &anyhow::Error) -> SettingsError {
    SettingsError::Conflict(format!("the settings do not go together: {error}"))
}

/// Threads of a command: all cores for 0.
pub(crate) fn threads(given: usize) -> Result<usize, SettingsError> {
    const MOST: usize = 1024;
    match given {
        0 => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        1..=MOST => Ok(given),
        _ => Err(SettingsError::Conflict(format!("--threads is {given}, must be at most {MOST}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(set: &[&str]) -> CommonArgs {
        CommonArgs { set: set.iter().map(|s| (*s).to_owned()).collect(), ..CommonArgs::default() }
    }

    #[test]
    fn every_preset_resolves() {
        for (name, _) in PRESETS {
            let args = CommonArgs { env: Some((*name).to_owned()), ..CommonArgs::default() };
            let config = finish(layered(args, None, None).unwrap()).unwrap();
            assert_eq!(config.env.name, *name);
        }
    }

    #[test]
    fn flags_stand_over_set_over_file_over_preset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "steps = 3\nseed = 3\nthreads = 3\n[optim]\nlr = 0.5\n").unwrap();
        let mut args = common(&["seed=4", "threads=4"]);
        args.config = Some(path);
        args.threads = Some(5);
        let config = resolve(TrainingArgs { common: args, ..TrainingArgs::default() }).unwrap();
        assert_eq!((config.steps, config.seed, config.threads), (3, 4, 5));
        assert_eq!(config.optim.lr, 0.5);
    }

    #[test]
    fn the_recipe_decides_what_is_left_open() {
        let args = TrainingArgs { algo: Some(Algo::Grpo), ..TrainingArgs::default() };
        assert_eq!(resolve(args).unwrap().algo.clip_high, Some(0.2));
        let args =
            TrainingArgs { common: common(&["algo.clip_high=0.3"]), ..TrainingArgs::default() };
        assert_eq!(resolve(args).unwrap().algo.clip_high, Some(0.3));
    }

    #[test]
    fn another_recipe_than_a_file_names_decides_for_itself() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let with = |algo: Option<Algo>, set: &[&str]| {
            let common = CommonArgs { config: Some(file.clone()), ..common(set) };
            resolve(TrainingArgs { common, algo, ..TrainingArgs::default() }).unwrap().algo
        };
        // As a run records it: all is decided.
        let dapo = resolve(TrainingArgs::default()).unwrap();
        std::fs::write(&file, commented(&dapo).unwrap()).unwrap();
        let plain = TrainingArgs { algo: Some(Algo::Grpo), ..TrainingArgs::default() };
        let grpo = resolve(plain).unwrap().algo;
        assert_eq!(with(Some(Algo::Grpo), &[]), grpo);
        assert_eq!(with(None, &["algo.name=grpo"]), grpo);
        assert_eq!(with(Some(Algo::Dapo), &[]), dapo.algo);
        assert_eq!(with(Some(Algo::Grpo), &["algo.clip_high=0.28"]).clip_high, Some(0.28));
        // A file without a recipe speaks of any.
        std::fs::write(&file, "[algo]\nclip_high = 0.25\n").unwrap();
        assert_eq!(with(Some(Algo::Grpo), &[]).clip_high, Some(0.25));
        // A file to edit leaves open what the recipe, the environment and the model decide.
        let args = || TrainingArgs { common: common(&["optim.lr=0.5"]), ..TrainingArgs::default() };
        let text = template(&resolve(args()).unwrap(), &usual(&args()).unwrap()).unwrap();
        assert!(text.contains("\nlr = 0.5\n") && text.contains("\n# clip_high = 0.28\n"), "{text}");
        std::fs::write(&file, text.replace("name = \"dapo\"", "name = \"grpo\"")).unwrap();
        assert_eq!(with(None, &[]), grpo);
        std::fs::write(&file, text).unwrap();
        let common = CommonArgs {
            config: Some(file.clone()),
            env: Some("webshop".into()),
            ..CommonArgs::default()
        };
        let shop = resolve(TrainingArgs { common, ..TrainingArgs::default() }).unwrap();
        assert_eq!((shop.optim.lr, shop.rollout.max_turns), (0.5, 15));
    }

    #[test]
    fn questions_have_the_turns_of_their_kind() {
        let turns = |data: Option<&str>| {
            let env = Some("search".into());
            let args = CommonArgs { env, data: data.map(Into::into), ..CommonArgs::default() };
            layered(args, None, None).unwrap().rollout.max_turns
        };
        assert_eq!((turns(None), turns(Some("D"))), (6, 4));
    }

    #[test]
    fn the_environment_of_set_chooses_the_preset() {
        let config = layered(common(&["env.name=alfworld"]), None, None).unwrap();
        assert_eq!(config.rollout.max_turns, 50);
        let error = layered(common(&["env.name=chess"]), None, None).unwrap_err().to_string();
        assert!(error.contains("chess") && error.contains("households"), "{error}");
    }

    #[test]
    fn what_bears_on_other_environments_is_refused_where_it_is_said_for_this_command() {
        let with = |change: &dyn Fn(&mut CommonArgs)| {
            let mut args = CommonArgs::default();
            change(&mut args);
            layered(args, None, None)
        };
        let error = |change: &dyn Fn(&mut CommonArgs)| with(change).unwrap_err().to_string();
        let url = error(&|a| a.url = Some("http://127.0.0.1:1".into()));
        assert!(url.contains("--url") && url.contains("openenv"), "{url}");
        assert!(error(&|a| a.data = Some("D".into())).contains("alfworld, webshop, search"));
        assert!(error(&|a| a.corpus = Some("C".into())).contains("--corpus"));
        assert!(error(&|a| a.command = Some("true".into())).contains("stdio"));
        assert!(error(&|a| a.set = vec!["env.topk=5".into()]).contains("--set env.topk"));
        with(&|a| a.set = vec!["env.topk=5".into(), "env.name=search".into()]).unwrap();
        with(&|a| (a.env, a.corpus) = (Some("search".into()), Some("C".into()))).unwrap();

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "[env]\ntopk = 5\n[model]\npath = \"M\"\n").unwrap();
        assert_eq!(with(&|a| a.config = Some(file.clone())).unwrap().env.topk, 5);
        let args = CommonArgs { config: Some(file), ..CommonArgs::default() };
        assert_eq!(named_model(&args).unwrap().as_deref(), Some("M"));
        let set = CommonArgs { set: vec!["model.path=S".into()], ..args };
        assert_eq!(named_model(&set).unwrap().as_deref(), Some("S"));
    }

    #[test]
    fn values_that_cannot_train_are_refused_by_name() {
        for (set, key) in [
            ("empg.k=-1", "empg.k"),
            ("empg.zeta=nan", "empg.zeta"),
            ("rollout.group_size=1", "rollout.group_size"),
            ("rollout.temperature=0", "rollout.temperature"),
        ] {
            let args = TrainingArgs { common: common(&[set]), ..TrainingArgs::default() };
            let error = resolve(args).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
