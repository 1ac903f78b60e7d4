//! Environments by name.

use std::path::Path;
use std::sync::Arc;

use crate::alfworld::{AlfworldSet, DataVersion};
use crate::households::HouseholdSet;
use crate::remote::{OpenEnvSet, REMOTE, StdioSet};
use crate::search::{SearchOptions, SearchSet, retriever};
use crate::webshop::{Catalogue, WebshopOptions, WebshopSet};
use crate::{EnvError, TaskSet};

/// The environments that [`open`] knows.
pub const NAMES: [&str; 4] = ["alfworld", "households", "webshop", "search"];

/// How episodes are played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnvOptions {
    /// Which of ALFWorld's texts.
    pub data_version: DataVersion,
    /// After how many steps an episode is truncated; `None`: never.
    pub max_steps: Option<u32>,
    /// How WebShop is played.
    pub webshop: WebshopOptions,
    /// How Deep Search is played.
    pub search: SearchOptions,
}

impl EnvOptions {
    /// What the users of the environment's data start from: 50 steps, WebShop 15, Deep Search 4.
    pub fn of(env: &str) -> Self {
        let max_steps = match env {
            "webshop" => 15,
            "search" => 4,
            _ => 50,
        };
        Self { max_steps: Some(max_steps), ..Self::default() }
    }

    /// The same where the tasks are generated: 6 in Deep Search, whose questions take up to four facts
    /// and the answer.
    pub fn generated(env: &str) -> Self {
        match env {
            "search" => Self { max_steps: Some(6), ..Self::default() },
            _ => Self::of(env),
        }
    }
}

impl Default for EnvOptions {
    /// Data version 2.1.2+ and 50 steps.
    fn default() -> Self {
        Self {
            data_version: DataVersion::default(),
            max_steps: Some(50),
            webshop: WebshopOptions::default(),
            search: SearchOptions::default(),
        }
    }
}

/// An environment whose data is loaded; task sets with any options share it.
#[derive(Clone, Debug)]
pub enum Source {
    /// ALFWorld's games.
    Alfworld(AlfworldSet),
    /// Generated households.
    Households,
    /// A shop.
    Webshop(Arc<Catalogue>),
    /// Questions over a corpus.
    Search(SearchSet),
    /// Whatever an OpenEnv server plays.
    OpenEnv(OpenEnvSet),
    /// Whatever a program plays that speaks one JSON object a line.
    Stdio(StdioSet),
}

impl Source {
    /// Loads an environment by name. `data` is the folder of its data: ALFWorld needs one, WebShop
    /// and Deep Search are generated without. `corpus` names Deep Search's passages where they lie
    /// elsewhere, or a retriever's address; without `data` the generated questions are asked there.
    ///
    /// # Errors
    /// An unknown name, a missing folder, data that cannot be read.
    pub fn open(name: &str, data: Option<&Path>, corpus: Option<&Path>) -> Result<Self, EnvError> {
        match name {
            "openenv" => {
                let what = "openenv needs the server's address: --url http://HOST:PORT (env.url)";
                Err(EnvError::Failed(what.to_owned()))
            }
            "stdio" => {
                let what = "stdio needs the program: --command 'PROGRAM ARGUMENT…' (env.command)";
                Err(EnvError::Failed(what.to_owned()))
            }
            "alfworld" => {
                let folder = data.ok_or_else(needs_data)?;
                let EnvOptions { data_version, max_steps, .. } = EnvOptions::default();
                Ok(Self::Alfworld(AlfworldSet::load(folder, data_version, max_steps)?))
            }
            "webshop" => match data {
                Some(folder) => Ok(Self::Webshop(Catalogue::load(folder)?)),
                None => Self::generated(name, 0),
            },
            "search" => match data {
                Some(folder) => Ok(Self::Search(SearchSet::load(folder, corpus)?)),
                None => match corpus {
                    Some(corpus) => Self::generated(name, 0)?.over(corpus),
                    None => Self::generated(name, 0),
                },
            },
            _ => Self::generated(name, 0),
        }
    }

    /// An environment that needs no data, generated from a seed. Households are without end: one
    /// seed is like another.
    ///
    /// # Errors
    /// An unknown name, an environment that is not generated.
    pub fn generated(name: &str, seed: u64) -> Result<Self, EnvError> {
        match name {
            "households" => Ok(Self::Households),
            "webshop" => Ok(Self::Webshop(Catalogue::generated(seed)?)),
            "search" => {
                let EnvOptions { search, max_steps, .. } = EnvOptions::generated(name);
                Ok(Self::Search(SearchSet::generated(seed, search, max_steps)))
            }
            "alfworld" => Err(needs_data()),
            _ => Err(EnvError::Failed(format!(
                "no environment is called {name:?}: there are {}, and elsewhere {}",
                NAMES.join(", "),
                REMOTE.join(", ")
            ))),
        }
    }

    /// The same questions over other passages, or a retriever by its address; only Deep Search has
    /// any.
    ///
    /// # Errors
    /// Passages that cannot be read, an address that cannot be used.
    pub fn over(self, corpus: &Path) -> Result<Self, EnvError> {
        Ok(match self {
            Self::Search(set) => Self::Search(set.over(retriever(corpus)?)),
            source => source,
        })
    }

    /// The tasks, played with these options.
    ///
    /// # Errors
    /// Options that the data does not serve: people's goals of a shop that has none.
    pub fn tasks(&self, options: EnvOptions) -> Result<Arc<dyn TaskSet>, EnvError> {
        let EnvOptions { data_version, max_steps, webshop, search } = options;
        Ok(match self {
            Self::Alfworld(set) => Arc::new(set.with(data_version, max_steps)),
            Self::Households => Arc::new(HouseholdSet::new(data_version, max_steps)),
            Self::Webshop(shop) => Arc::new(WebshopSet::new(Arc::clone(shop), webshop, max_steps)?),
            Self::Search(set) => Arc::new(set.with(search, max_steps)),
            Self::OpenEnv(set) => Arc::new(set.with(max_steps)),
            Self::Stdio(set) => Arc::new(set.with(max_steps)),
        })
    }
}

fn needs_data() -> EnvError {
    let what = "alfworld needs --data FOLDER: the folder that `alfworld-download` fills";
    EnvError::Failed(what.to_owned())
}

/// The tasks of an environment by name: [`Source::open`], then [`Source::tasks`].
///
/// # Errors
/// As [`Source::open`].
pub fn open(
    name: &str,
    data: Option<&Path>,
    corpus: Option<&Path>,
    options: EnvOptions,
) -> Result<Arc<dyn TaskSet>, EnvError> {
    Source::open(name, data, corpus)?.tasks(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Questions;

    fn questions(source: Source) -> Arc<Questions> {
        match source {
            Source::Search(set) => Arc::clone(set.questions()),
            source => panic!("{source:?}"),
        }
    }

    #[test]
    fn a_world_keeps_its_questions_over_other_passages() {
        let dir = tempfile::tempdir().unwrap();
        let corpus = dir.path().join("corpus.jsonl");
        std::fs::write(&corpus, "{\"id\": \"0\", \"contents\": \"\\\"A\\\"\\nb\"}\n").unwrap();
        let first = |source| questions(source).all()[0].question.clone();
        let world = Source::generated("search", 7).unwrap();
        let over = world.clone().over(&corpus).unwrap();
        let usual = Source::open("search", None, Some(&corpus)).unwrap();
        assert_eq!(first(over), first(world));
        assert_eq!(first(usual), first(Source::generated("search", 0).unwrap()));
        let missing = Source::generated("search", 0).unwrap().over(&dir.path().join("none"));
        assert!(missing.is_err());
    }

    #[test]
    fn what_is_not_generated_says_what_it_needs() {
        for error in [Source::generated("alfworld", 1), Source::open("alfworld", None, None)] {
            assert!(error.unwrap_err().to_string().starts_with("alfworld needs --data FOLDER"));
        }
        let unknown = Source::generated("chess", 0).unwrap_err().to_string();
        assert!(unknown.contains("no environment is called \"chess\""), "{unknown}");
    }

    #[test]
    fn generated_questions_get_the_turns_that_they_take() {
        let steps = |options: EnvOptions| options.max_steps;
        assert_eq!(steps(EnvOptions::of("search")), Some(4));
        assert_eq!(steps(EnvOptions::generated("search")), Some(6));
        for env in ["webshop", "households", "alfworld"] {
            assert_eq!(EnvOptions::generated(env), EnvOptions::of(env));
        }
        let set = match Source::generated("search", 0).unwrap() {
            Source::Search(set) => set,
            source => panic!("{source:?}"),
        };
        let four = set.questions().all().iter().position(|q| q.source == "4 hops").unwrap();
        let task = set.task(crate::Split::Train, four as u64).unwrap();
        let showing = crate::Showing {
            manner: crate::Manner::Clean,
            noise: 0.0,
            max_turns: 30,
            admissible: false,
        };
        let played = set.demonstrate(&task.id, 0, &showing).unwrap().unwrap();
        assert!(played.won && played.turns.len() == 5, "{played:?}");
    }
}
