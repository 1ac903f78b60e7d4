//! Which environment a run plays.

use std::path::PathBuf;
use std::time::Duration;

use empg_env::EnvOptions;
use empg_env::remote::{OpenEnvOptions, StdioOptions};
use empg_env::search::{Protocol, SearchOptions};
use empg_env::webshop::{Mode, Splits, WebshopOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ConfigError;

/// Which environment, and how it is set up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnvConfig {
    /// `households`, `webshop`, `search` (generated, no data needed), `alfworld`, or elsewhere:
    /// `openenv`, `stdio`.
    pub name: String,
    /// Folder with the environment's data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Deep Search: the passages, where they do not lie in the data folder, or a retriever's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corpus: Option<PathBuf>,
    /// Which wording of ALFWorld: `2.1.1` or `2.1.2+`.
    pub data_version: String,
    /// How WebShop prints a page: `text` or `text_rich`.
    pub mode: Mode,
    /// WebShop: people's instructions instead of synthetic ones.
    pub human_goals: bool,
    /// WebShop: seed of prices and of the goals' order.
    pub goal_seed: u32,
    /// WebShop: whose splits of the goals.
    pub splits: Splits,
    /// Deep Search: whose texts and rules.
    pub protocol: Protocol,
    /// Deep Search: passages of a search.
    pub topk: usize,
    /// OpenEnv: the server's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A child process: program and arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Elsewhere: longest wait for an answer, in seconds.
    pub timeout: f64,
    /// OpenEnv: how often a connection that cannot be had is tried again.
    pub retries: u32,
    /// Elsewhere: environments at a time; 0 means 64 sessions of a server, 16 processes.
    pub sessions: usize,
    /// Elsewhere: tasks of each split; 0 means without end.
    pub tasks: u64,
    /// OpenEnv: the action's field that takes the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action_field: Option<String>,
    /// Elsewhere: the observation's field that is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observation_field: Option<String>,
    /// Elsewhere: what is added to every reset.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub reset: Map<String, Value>,
}

impl EnvConfig {
    /// How a server is asked; `None` where no address is given.
    pub fn openenv(&self) -> Option<OpenEnvOptions> {
        let mut options = OpenEnvOptions::new(self.url.as_ref()?);
        options.action_field.clone_from(&self.action_field);
        options.observation_field.clone_from(&self.observation_field);
        options.reset.clone_from(&self.reset);
        options.timeout = self.patience();
        options.retries = self.retries;
        if self.sessions > 0 {
            options.sessions = self.sessions;
        }
        options.tasks = (self.tasks > 0).then_some(self.tasks);
        Some(options)
    }

    /// How a program is asked; `None` where none is given.
    pub fn stdio(&self) -> Option<StdioOptions> {
        let mut options = StdioOptions::new(self.command.as_ref()?);
        options.observation_field.clone_from(&self.observation_field);
        options.reset.clone_from(&self.reset);
        options.timeout = self.patience();
        if self.sessions > 0 {
            options.sessions = self.sessions;
        }
        options.tasks = (self.tasks > 0).then_some(self.tasks);
        Some(options)
    }

    fn patience(&self) -> Duration {
        Duration::try_from_secs_f64(self.timeout).unwrap_or(Duration::from_mins(1))
    }

    /// How the environment plays; turns are limited elsewhere.
    ///
    /// # Errors
    /// An unknown wording of ALFWorld.
    pub fn options(&self) -> Result<EnvOptions, ConfigError> {
        let data_version = self.data_version.parse().map_err(|_| ConfigError {
            key: "env.data_version",
            what: format!("is {:?}, must be \"2.1.1\" or \"2.1.2+\"", self.data_version),
        })?;
        Ok(EnvOptions {
            data_version,
            max_steps: None,
            webshop: WebshopOptions {
                mode: self.mode,
                human_goals: self.human_goals,
                env_seed: self.goal_seed,
                splits: self.splits,
            },
            search: SearchOptions {
                protocol: self.protocol,
                topk: self.topk,
                ..SearchOptions::default()
            },
        })
    }
}

impl Default for EnvConfig {
    fn default() -> Self {
        let (shop, search) = (WebshopOptions::default(), SearchOptions::default());
        Self {
            name: "households".into(),
            data: None,
            corpus: None,
            data_version: "2.1.2+".into(),
            mode: shop.mode,
            human_goals: shop.human_goals,
            goal_seed: shop.env_seed,
            splits: shop.splits,
            protocol: search.protocol,
            topk: search.topk,
            url: None,
            command: None,
            timeout: 60.0,
            retries: 4,
            sessions: 0,
            tasks: 0,
            action_field: None,
            observation_field: None,
            reset: Map::new(),
        }
    }
}
