//! Which environment, where its data lies, and how it is played.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use empg_env::remote::REMOTE;
use empg_env::search::{Found, Protocol, Retriever, SearchOptions, retriever};
use empg_env::webshop::{Catalogue, Mode, Splits, WebshopOptions};
use empg_env::{EnvOptions, Source};
use empg_train::config::EnvConfig;
use serde::de::DeserializeOwned;
use serde::de::value::{Error, StrDeserializer};

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
        let elsewhere = REMOTE.contains(&name);
        if !elsewhere && (url.is_some() || command.is_some()) {
            anyhow::bail!("--url belongs to openenv, --command to stdio");
        }
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
    data: Option<PathBuf>,
    /// search: the file of passages, a folder with their vectors (passages.npy, queries.npy and
    /// queries.jsonl beside the file), or a retriever's address (http://HOST:PORT/retrieve); the
    /// file in the data folder where left out
    #[arg(long, value_name = "FILE|DIR|URL")]
    corpus: Option<PathBuf>,
}

/// How webshop and search are played.
#[derive(Args, Debug)]
pub(crate) struct RuleArgs {
    /// webshop: seed of prices and of the goals' order
    #[arg(long, value_name = "N", default_value_t = 0)]
    env_seed: u32,
    /// webshop: people's instructions instead of synthetic ones
    #[arg(long)]
    human_goals: bool,
    /// webshop: how a page is printed, text or text_rich
    #[arg(long, default_value = "text", value_parser = named::<Mode>)]
    mode: Mode,
    /// webshop: whose splits of the goals, verl-agent or original
    #[arg(long, default_value = "verl-agent", value_parser = named::<Splits>)]
    splits: Splits,
    /// search: whose texts and rules, verl-agent or search-r1
    #[arg(long, default_value = "verl-agent")]
    protocol: Protocol,
    /// search: passages of a search
    #[arg(long, value_name = "N", default_value_t = 3)]
    topk: usize,
}

/// A value by the name that it has in files.
fn named<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    T::deserialize(StrDeserializer::<Error>::new(name)).map_err(|e| e.to_string())
}

impl RuleArgs {
    /// The options of an environment.
    pub(crate) fn options(&self, which: &Which) -> EnvOptions {
        let Self { env_seed, human_goals, mode, splits, protocol, topk } = *self;
        let usual = match which.data.data {
            Some(_) => EnvOptions::of(&which.env),
            None => EnvOptions::generated(&which.env),
        };
        EnvOptions {
            webshop: WebshopOptions { mode, human_goals, env_seed, splits },
            search: SearchOptions { protocol, topk, ..SearchOptions::default() },
            ..usual
        }
    }
}

impl Which {
    /// Loads the environment.
    pub(crate) fn open(&self) -> anyhow::Result<Source> {
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
