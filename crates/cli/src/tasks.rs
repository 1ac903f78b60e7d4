//! From the settings to an environment's tasks.

use std::sync::Arc;

use anyhow::Context as _;
use empg_env::{Source, TaskSet};
use empg_train::config::EnvConfig;

/// Opens the environment. The trainer and the evaluation limit turns themselves.
pub(crate) fn open(env: &EnvConfig) -> anyhow::Result<Arc<dyn TaskSet>> {
    empg_env::open(&env.name, env.data.as_deref(), env.corpus.as_deref(), env.options()?)
        .with_context(|| format!("cannot open the environment {}", env.name))
}

/// Task sets for demonstrations: of an environment that generates whole worlds, `worlds` of them,
/// without the one that [`open`] gives.
pub(crate) fn worlds(env: &EnvConfig, worlds: u64) -> anyhow::Result<Vec<Arc<dyn TaskSet>>> {
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
