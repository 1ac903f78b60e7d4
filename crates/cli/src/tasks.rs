//! From the settings to an environment's tasks.

use std::sync::Arc;

use anyhow::Context as _;
use empg_env::{EnvOptions, Source, TaskSet};
use empg_train::config::EnvConfig;

use crate::settings::SettingsError;

/// Opens the environment. The trainer and the evaluation limit turns themselves.
pub(crate) fn open(env: &EnvConfig) -> anyhow::Result<Arc<dyn TaskSet>> {
    empg_env::open(&env.name, env.data.as_deref(), options(env)?)
        .with_context(|| format!("cannot open the environment {}", env.name))
}

/// Task sets for demonstrations: of an environment that generates whole worlds, `worlds` of them,
/// without the one that [`open`] gives.
pub(crate) fn worlds(env: &EnvConfig, worlds: u64) -> anyhow::Result<Vec<Arc<dyn TaskSet>>> {
    if env.data.is_some() {
        return Ok(vec![open(env)?]);
    }
    let options = options(env)?;
    (1..=worlds.max(1))
        .map(|seed| {
            let source = Source::generated(&env.name, seed)
                .with_context(|| format!("cannot generate a world of {}", env.name))?;
            Ok(source.tasks(options))
        })
        .collect()
}

fn options(env: &EnvConfig) -> anyhow::Result<EnvOptions> {
    let data_version = env.data_version.parse().map_err(|_| SettingsError::Refused {
        key: "env.data_version",
        what: format!("is {:?}, must be \"2.1.1\" or \"2.1.2+\"", env.data_version),
    })?;
    Ok(EnvOptions { data_version, max_steps: None, ..EnvOptions::default() })
}
