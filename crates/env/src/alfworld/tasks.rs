//! ALFWorld's games as a set of tasks.

use std::path::Path;
use std::sync::Arc;

use super::command::DataVersion;
use super::episode::{AlfworldEnv, GameSource};
use super::game::Game;
use super::{official, packed};
use crate::households::{self, ExpertStyle};
use crate::{Demonstration, Env, EnvError, Expert, Manner, Showing, Split, Task, TaskSet};

/// The names of the splits' folders, in the order of [`Split`].
const SPLITS: [&str; 3] = ["train", "valid_seen", "valid_unseen"];

/// The games of a data folder. Clones share them.
#[derive(Clone, Debug)]
pub struct AlfworldSet {
    games: Arc<Games>,
    version: DataVersion,
    max_steps: Option<u32>,
}

/// Games by split, each split in the order of its identifiers.
#[derive(Debug)]
struct Games([Vec<Arc<Game>>; 3]);

impl AlfworldSet {
    /// Reads every game of a folder: the packed `games.jsonl.gz` first, then the layout that
    /// `alfworld-download` makes (`json_2.1.1/<split>/<task>/<trial>/`); a game in both is taken
    /// once. The folder may also be the one above (`<folder>/alfworld`).
    ///
    /// Episodes use the texts of `version` and end after `max_steps` (ALFWorld's agents: 50).
    ///
    /// # Errors
    /// A folder without games; a file that cannot be read, is truncated, or holds a game of
    /// another domain or grammar: the error names file and line.
    pub fn load(
        folder: impl AsRef<Path>,
        version: DataVersion,
        max_steps: Option<u32>,
    ) -> Result<Self, EnvError> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            return Err(packed::data(folder, None, &"no such folder"));
        }
        let mut games = Games::read(folder)?;
        if games.is_empty() && folder.join("alfworld").is_dir() {
            games = Games::read(&folder.join("alfworld"))?;
        }
        if games.is_empty() {
            let what = "no ALFWorld game here: expected games.jsonl.gz or \
                        json_2.1.1/<split>/<task>/<trial>/game.tw-pddl; `pip install alfworld` \
                        and `alfworld-download --data-dir FOLDER` fetch them";
            return Err(packed::data(folder, None, &what));
        }
        Ok(Self { games: Arc::new(games), version, max_steps })
    }

    /// The same games with other texts and another limit.
    #[must_use]
    pub fn with(&self, version: DataVersion, max_steps: Option<u32>) -> Self {
        Self { games: Arc::clone(&self.games), version, max_steps }
    }

    /// The games of a split, in the order of their identifiers.
    pub fn games(&self, split: Split) -> &[Arc<Game>] {
        &self.games.0[split as usize]
    }

    /// The game of a task such as `valid_seen/<task>/<trial>`.
    ///
    /// # Errors
    /// An unknown task; the error names the nearest.
    pub fn game(&self, task: &str) -> Result<Arc<Game>, EnvError> {
        self.games.game(task)
    }
}

impl Games {
    fn read(folder: &Path) -> Result<Self, EnvError> {
        let mut games = Self([const { Vec::new() }; 3]);
        if folder.join(packed::FILE).is_file() {
            games.add(packed::load(folder)?, &folder.join(packed::FILE))?;
        }
        for root in official::roots(folder, &SPLITS)? {
            let mut trials = Vec::new();
            for split in SPLITS {
                trials.extend(official::trials(&root, split)?);
            }
            trials.retain(|trial| games.position(&trial.id).is_none());
            games.add(official::load(&trials)?, &root)?;
        }
        Ok(games)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    fn add(&mut self, new: Vec<Game>, from: &Path) -> Result<(), EnvError> {
        for game in new {
            let split = split_of(game.id()).ok_or_else(|| {
                packed::data(from, None, &format!("{} is in no known split", game.id()))
            })?;
            self.0[split].push(Arc::new(game));
        }
        for games in &mut self.0 {
            games.sort_by(|a, b| a.id().cmp(b.id()));
            games.dedup_by(|a, b| a.id() == b.id());
        }
        Ok(())
    }

    fn position(&self, id: &str) -> Option<(usize, usize)> {
        let split = split_of(id)?;
        let found = self.0[split].binary_search_by(|game| game.id().cmp(id));
        found.ok().map(|i| (split, i))
    }

    /// The identifier that shares the longest beginning with `id`.
    fn nearest(&self, id: &str) -> Option<&str> {
        let shared =
            |other: &str| id.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let near = self.0.iter().flat_map(|games| {
            let at = games.partition_point(|game| game.id() < id);
            games[at.saturating_sub(1)..(at + 1).min(games.len())].iter().map(|game| game.id())
        });
        near.max_by_key(|other| shared(other))
    }
}

fn split_of(id: &str) -> Option<usize> {
    let (split, _) = id.split_once('/')?;
    SPLITS.iter().position(|name| *name == split)
}

impl GameSource for Games {
    fn game(&self, task: &str) -> Result<Arc<Game>, EnvError> {
        let (split, i) = self.position(task).ok_or_else(|| EnvError::UnknownTask {
            task: task.to_owned(),
            set: "alfworld".to_owned(),
            hint: self.nearest(task).map(|near| format!("the nearest is {near:?}")),
        })?;
        Ok(Arc::clone(&self.0[split][i]))
    }
}

impl TaskSet for AlfworldSet {
    fn name(&self) -> &'static str {
        "alfworld"
    }

    fn len(&self, split: Split) -> Option<u64> {
        Some(self.games(split).len() as u64)
    }

    fn task(&self, split: Split, index: u64) -> Result<Task, EnvError> {
        let games = self.games(split);
        let game = usize::try_from(index).ok().and_then(|i| games.get(i));
        let game = game.ok_or_else(|| EnvError::UnknownTask {
            task: format!("number {index} of {}", SPLITS[split as usize]),
            set: "alfworld".to_owned(),
            hint: Some(format!("the split has {} games", games.len())),
        })?;
        Ok(Task { id: game.id().to_owned(), kind: game.kind().as_str().to_owned() })
    }

    fn find(&self, id: &str) -> Result<Task, EnvError> {
        let game = self.game(id)?;
        Ok(Task { id: id.to_owned(), kind: game.kind().as_str().to_owned() })
    }

    fn make(&self) -> Box<dyn Env> {
        let games: Arc<dyn GameSource> = Arc::<Games>::clone(&self.games);
        Box::new(AlfworldEnv::from_source(games, self.version, self.max_steps))
    }

    fn expert(&self, manner: Manner, seed: u64) -> Option<Box<dyn Expert>> {
        Some(Box::new(households::Expert::new(&ExpertStyle::of(manner), seed)))
    }

    fn demonstrate(
        &self,
        task: &str,
        seed: u64,
        showing: &Showing,
    ) -> Result<Option<Demonstration>, EnvError> {
        households::demonstrate(&mut *self.make(), task, seed, showing).map(Some)
    }
}
