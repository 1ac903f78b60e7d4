//! Which environment, where its data lies, and how it is played.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use empg_env::alfworld::DataVersion;
use empg_env::remote::REMOTE;
use empg_env::search::{Found, Protocol, Retriever, SearchOptions, retriever};
use empg_env::webshop::{Catalogue, Mode, Splits, WebshopOptions};
use empg_env::{EnvOptions, NAMES, Source, TaskSet};
use empg_train::config::EnvConfig;
use serde::de::DeserializeOwned;
use serde::de::value::{Error, StrDeserializer};

use crate::settings::SettingsError;
use crate::tasks;

/// The environment of a command.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// alfworld, households, webshop, search, or elsewhere: openenv, stdio
    pub(crate) env: String,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// Where an environment is played that is played elsewhere.
#[derive(Args, Debug)]
pub(crate) struct RemoteArgs {
    /// openenv: the server's address
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// stdio: the program, with its arguments
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
    /// openenv, stdio: longest wait for an answer
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// openenv: the action's field that takes the text
    #[arg(long, value_name = "NAME")]
    action_field: Option<String>,
    /// openenv, stdio: the observation's field that is read
    #[arg(long, value_name = "NAME")]
    observation_field: Option<String>,
}

impl RemoteArgs {
    fn settings(&self, name: &str) -> anyhow::Result<EnvConfig> {
        let Self { url, command, timeout, action_field, observation_field } = self;
        let timeout = timeout.unwrap_or(EnvConfig::default().timeout);
        if !(timeout.is_finite() && (0.001..=86_400.0).contains(&timeout)) {
            anyhow::bail!("--timeout {timeout}: must lie between 0.001 and 86400 seconds");
        }
        Ok(EnvConfig {
            name: name.to_owned(),
            url: url.clone(),
            command: command.clone(),
            timeout,
            action_field: action_field.clone(),
            observation_field: observation_field.clone(),
            ..EnvConfig::default()
        })
    }
}

/// Where an environment's data lies.
#[derive(Args, Debug)]
pub(crate) struct DataArgs {
    /// The folder of the environment's data; webshop and search are generated where left out
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// search: the file of passages, a folder with their vectors (passages.npy, queries.npy and
    /// queries.jsonl beside the file), or a retriever's address (http://HOST:PORT/retrieve); the
    /// file in the data folder where left out
    #[arg(long, value_name = "FILE|DIR|URL")]
    pub(super) corpus: Option<PathBuf>,
}

/// How webshop and search are played.
#[derive(Args, Debug)]
pub(crate) struct RuleArgs {
    /// webshop: seed of prices and of the goals' order [default: 0]
    #[arg(long, value_name = "N")]
    env_seed: Option<u32>,
    /// webshop: people's instructions instead of synthetic ones
    #[arg(long)]
    human_goals: bool,
    /// webshop: how a page is printed, text or text_rich [default: text]
    #[arg(long, value_parser = named::<Mode>)]
    mode: Option<Mode>,
    /// webshop: whose splits of the goals, verl-agent or original [default: verl-agent]
    #[arg(long, value_parser = named::<Splits>)]
    splits: Option<Splits>,
    /// search: whose texts and rules, verl-agent or search-r1 [default: verl-agent]
    #[arg(long)]
    protocol: Option<Protocol>,
    /// search: passages of a search [default: 3]
    #[arg(long, value_name = "N")]
    topk: Option<usize>,
}

/// A value by the name that it has in files.
fn named<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    T::deserialize(StrDeserializer::<Error>::new(name)).map_err(|e| e.to_string())
}

/// Refuses a flag that was given and bears on other environments.
///
/// # Errors
/// As said.
pub(crate) fn fits(env: &str, flag: &str, given: bool, on: &[&str]) -> Result<(), SettingsError> {
    if !given || on.contains(&env) {
        return Ok(());
    }
    let on = on.join(", ");
    let what = format!("{flag} bears on {on} only, and the environment is {env}: leave it out");
    Err(SettingsError::Conflict(what))
}

impl RuleArgs {
    /// The options of an environment.
    ///
    /// # Errors
    /// Flags that bear on another one.
    pub(crate) fn options(&self, which: &Which) -> Result<EnvOptions, SettingsError> {
        let Self { env_seed, human_goals, mode, splits, protocol, topk } = *self;
        let env = which.env.as_str();
        fits(env, "--env-seed", env_seed.is_some(), &["webshop"])?;
        fits(env, "--human-goals", human_goals, &["webshop"])?;
        fits(env, "--mode", mode.is_some(), &["webshop"])?;
        fits(env, "--splits", splits.is_some(), &["webshop"])?;
        fits(env, "--protocol", protocol.is_some(), &["search"])?;
        fits(env, "--topk", topk.is_some(), &["search"])?;
        let usual = match which.data.data {
            Some(_) => EnvOptions::of(env),
            None => EnvOptions::generated(env),
        };
        let (webshop, search) = (WebshopOptions::default(), SearchOptions::default());
        Ok(EnvOptions {
            webshop: WebshopOptions {
                mode: mode.unwrap_or(webshop.mode),
                human_goals,
                env_seed: env_seed.unwrap_or(webshop.env_seed),
                splits: splits.unwrap_or(webshop.splits),
            },
            search: SearchOptions {
                protocol: protocol.unwrap_or(search.protocol),
                topk: topk.unwrap_or(search.topk),
                ..search
            },
            ..usual
        })
    }
}

impl Which {
    /// Refuses flags that bear on another environment; a name that nothing knows is refused later.
    ///
    /// # Errors
    /// As said.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let Self { env, data: DataArgs { data, corpus }, remote } = self;
        let RemoteArgs { url, command, timeout, action_field, observation_field } = remote;
        if !NAMES.contains(&env.as_str()) && !REMOTE.contains(&env.as_str()) {
            return Ok(());
        }
        if data.is_some() && !["alfworld", "webshop", "search"].contains(&env.as_str()) {
            crate::say!("note: {env} reads no data: --data has no effect");
        }
        fits(env, "--corpus", corpus.is_some(), &["search"])?;
        fits(env, "--url", url.is_some(), &["openenv"])?;
        fits(env, "--command", command.is_some(), &["stdio"])?;
        fits(env, "--timeout", timeout.is_some(), &["openenv", "stdio"])?;
        fits(env, "--action-field", action_field.is_some(), &["openenv"])?;
        fits(env, "--observation-field", observation_field.is_some(), &["openenv", "stdio"])
    }

    /// The tasks, as `play` and `serve env` play them.
    pub(crate) fn tasks(
        &self,
        rules: &RuleArgs,
        data_version: Option<DataVersion>,
        max_steps: Option<u32>,
    ) -> anyhow::Result<Arc<dyn TaskSet>> {
        let options = rules.options(self)?;
        let words = ["alfworld", "households"];
        fits(&self.env, "--data-version", data_version.is_some(), &words)?;
        let data_version = data_version.unwrap_or_default();
        let max_steps = max_steps.or(options.max_steps);
        Ok(self.open()?.tasks(EnvOptions { data_version, max_steps, ..options })?)
    }

    /// Loads the environment.
    pub(crate) fn open(&self) -> anyhow::Result<Source> {
        self.check()?;
        let DataArgs { data, corpus } = &self.data;
        if corpus.is_some() && (self.env != "search" || data.is_none()) {
            anyhow::bail!("--corpus belongs to search, beside --data DIR with the questions");
        }
        if let Some(source) = tasks::elsewhere(&self.remote.settings(&self.env)?)? {
            return Ok(source);
        }
        let source = Source::open(&self.env, data.as_deref(), corpus.as_deref())?;
        match &source {
            Source::Search(set) => note(set.notices()),
            Source::Webshop(catalogue) => note(catalogue.notes()),
            _ => {}
        }
        Ok(source)
    }
}

impl DataArgs {
    /// The shop of the folder, or the generated one.
    pub(crate) fn catalogue(&self) -> anyhow::Result<Arc<Catalogue>> {
        let catalogue = match &self.data {
            Some(data) => Catalogue::load(data)?,
            None => Catalogue::generated(0)?,
        };
        note(catalogue.notes());
        Ok(catalogue)
    }

    /// The file of passages, or the retriever's address; `None` where the generated world is meant.
    pub(crate) fn corpus(&self) -> anyhow::Result<Option<PathBuf>> {
        Ok(match (&self.corpus, &self.data) {
            (Some(corpus), _) => Some(corpus.clone()),
            (None, Some(data)) => Some(Found::look(data)?.corpus(data)?.to_owned()),
            (None, None) => None,
        })
    }

    /// The retriever over the passages, over those of the generated world where none are named.
    pub(crate) fn retriever(&self) -> anyhow::Result<Arc<dyn Retriever>> {
        if let Some(corpus) = self.corpus()? {
            let (retriever, notices) = retriever(&corpus)?;
            note(&notices);
            return Ok(retriever);
        }
        match Source::generated("search", 0)? {
            Source::Search(set) => Ok(Arc::clone(set.retriever())),
            _ => None.context("the generated world has no passages"),
        }
    }
}

/// Tells what a loader found notable.
pub(super) fn note(notices: &[String]) {
    for notice in notices {
        crate::say!("note: {notice}");
    }
}
