//! From the settings to an environment's tasks.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use empg_env::remote::{Notice, OpenEnvOptions, OpenEnvSet, REMOTE, StdioOptions, StdioSet};
use empg_env::{Source, TaskSet};
use empg_train::config::EnvConfig;

/// Opens the environment. The trainer and the evaluation limit turns themselves.
pub(crate) fn open(env: &EnvConfig) -> anyhow::Result<Arc<dyn TaskSet>> {
    if let Some(source) = elsewhere(env)? {
        return Ok(source.tasks(env.options()?)?);
    }
    empg_env::open(&env.name, env.data.as_deref(), env.corpus.as_deref(), env.options()?)
        .with_context(|| format!("cannot open the environment {}", env.name))
}

/// The environment where it is played elsewhere and one knows where: a server, a program.
pub(crate) fn elsewhere(env: &EnvConfig) -> anyhow::Result<Option<Source>> {
    let tell = || Notice::to(|what| crate::say!("{what}"));
    let source = match env.name.as_str() {
        "openenv" => env.openenv().map(|options| {
            OpenEnvSet::connect(OpenEnvOptions { notice: tell(), ..options }).map(Source::OpenEnv)
        }),
        "stdio" => env.stdio().map(|options| {
            StdioSet::start(StdioOptions { notice: tell(), ..options }).map(Source::Stdio)
        }),
        _ => None,
    };
    source.transpose().with_context(|| format!("cannot open the environment {}", env.name))
}

/// Task sets for demonstrations: of an environment that generates whole worlds, `worlds` of them,
/// without the one that [`open`] gives.
pub(crate) fn worlds(env: &EnvConfig, worlds: u64) -> anyhow::Result<Vec<Arc<dyn TaskSet>>> {
    if REMOTE.contains(&env.name.as_str()) {
        bail!(
            "nobody can show how {} is played: sft needs an environment with an expert",
            env.name
        );
    }
    if env.data.is_some() {
        return Ok(vec![open(env)?]);
    }
    let options = env.options()?;
    (1..=worlds.max(1))
        .map(|seed| {
            let source = Source::generated(&env.name, seed)
                .with_context(|| format!("cannot generate a world of {}", env.name))?;
            Ok(source.tasks(options)?)
        })
        .collect()
}
