//! From the settings to an environment's tasks.

use std::sync::Arc;

use anyhow::Context as _;
use empg_env::{EnvOptions, TaskSet};
use empg_train::config::EnvConfig;

use crate::settings::SettingsError;

/// Opens the environment. The trainer and the evaluation limit turns themselves.
pub(crate) fn open(env: &EnvConfig) -> anyhow::Result<Arc<dyn TaskSet>> {
    let data_version = env.data_version.parse().map_err(|_| SettingsError::Refused {
        key: "env.data_version",
        what: format!("is {:?}, must be \"2.1.1\" or \"2.1.2+\"", env.data_version),
    })?;
    let options = EnvOptions { data_version, max_steps: None, ..EnvOptions::default() };
    empg_env::open(&env.name, env.data.as_deref(), options)
        .with_context(|| format!("cannot open the environment {}", env.name))
}
