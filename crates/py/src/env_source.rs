//! From Python's options to an environment's tasks; data that is open already is shared.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use empg_env::alfworld::DataVersion;
use empg_env::search::{Protocol, SearchOptions};
use empg_env::webshop::{Mode, Splits, WebshopOptions};
use empg_env::{EnvError, EnvOptions, Source, Split, TaskSet};
use pyo3::PyResult;
use pyo3::exceptions::PyValueError;

use crate::env_errors;

/// What data an environment is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Which {
    pub(crate) name: String,
    pub(crate) data: Option<PathBuf>,
    pub(crate) corpus: Option<PathBuf>,
    /// Seed of a generated world.
    pub(crate) world: u64,
}

static OPEN: Mutex<Vec<(Which, Weak<Source>)>> = Mutex::new(Vec::new());

impl Which {
    /// The data, which is read only where no other environment of this process holds it.
    pub(crate) fn open(&self) -> Result<Arc<Source>, EnvError> {
        // Held while reading: two environments made at once read once.
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, source)| source.strong_count() > 0);
        let shared = open.iter().find(|(which, _)| which == self);
        if let Some(source) = shared.and_then(|(_, source)| source.upgrade()) {
            return Ok(source);
        }
        let source = match (&self.data, &self.corpus) {
            (None, corpus) if self.name != "alfworld" => {
                let world = Source::generated(&self.name, self.world)?;
                match corpus {
                    Some(corpus) => world.over(corpus)?,
                    None => world,
                }
            }
            (data, corpus) => Source::open(&self.name, data.as_deref(), corpus.as_deref())?,
        };
        let source = Arc::new(source);
        open.push((self.clone(), Arc::downgrade(&source)));
        Ok(source)
    }
}

/// How episodes are played, as Python names it.
pub(crate) struct Rules<'a> {
    pub(crate) max_steps: Option<i64>,
    pub(crate) data_version: &'a str,
    pub(crate) mode: &'a str,
    pub(crate) human_goals: bool,
    pub(crate) goal_seed: u32,
    pub(crate) splits: &'a str,
    pub(crate) protocol: &'a str,
    pub(crate) topk: usize,
    pub(crate) observation_tokens: usize,
}

impl Rules<'_> {
    pub(crate) fn options(&self, env: &str, generated: bool) -> PyResult<EnvOptions> {
        let usual = if generated { EnvOptions::generated(env) } else { EnvOptions::of(env) };
        let max_steps = match self.max_steps {
            None => usual.max_steps,
            Some(-1) => None,
            Some(steps) => match u32::try_from(steps) {
                Ok(steps @ 1..) => Some(steps),
                _ => {
                    return Err(PyValueError::new_err(format!(
                        "max_steps is {steps}: it is a positive number, or -1 for no limit"
                    )));
                }
            },
        };
        if self.topk == 0 {
            return Err(PyValueError::new_err("topk is 0: a search gives at least one passage"));
        }
        Ok(EnvOptions {
            data_version: DataVersion::from_str(self.data_version)
                .map_err(PyValueError::new_err)?,
            max_steps,
            webshop: WebshopOptions {
                mode: one_of(
                    "mode",
                    self.mode,
                    [("text", Mode::Text), ("text_rich", Mode::TextRich)],
                )?,
                human_goals: self.human_goals,
                env_seed: self.goal_seed,
                splits: one_of(
                    "splits",
                    self.splits,
                    [("verl-agent", Splits::VerlAgent), ("original", Splits::Original)],
                )?,
            },
            search: SearchOptions {
                protocol: Protocol::from_str(self.protocol).map_err(PyValueError::new_err)?,
                topk: self.topk,
                observation_tokens: self.observation_tokens,
            },
        })
    }
}

/// The value of a name.
pub(crate) fn one_of<T, const N: usize>(
    what: &str,
    name: &str,
    values: [(&str, T); N],
) -> PyResult<T> {
    let names = values.each_ref().map(|(name, _)| *name).join(", ");
    values
        .into_iter()
        .find(|(other, _)| *other == name)
        .map(|(_, value)| value)
        .ok_or_else(|| PyValueError::new_err(format!("{what} is {name:?}: it is one of {names}")))
}

/// A split by its name; ALFWorld's own names are understood too.
pub(crate) fn split(name: &str) -> PyResult<Split> {
    match name {
        "valid_seen" => Ok(Split::Seen),
        "valid_unseen" => Ok(Split::Unseen),
        _ => one_of(
            "split",
            name,
            [("train", Split::Train), ("seen", Split::Seen), ("unseen", Split::Unseen)],
        ),
    }
}

/// The tasks of a source, with the data that they hold on to.
pub(crate) fn tasks(source: &Source, options: EnvOptions) -> PyResult<Arc<dyn TaskSet>> {
    source.tasks(options).map_err(|e| env_errors::env(&e))
}
