//! The layout that `alfworld-download` makes: `json_2.1.1/<split>/<task>/<trial>/`, each trial with
//! `game.tw-pddl` and `traj_data.json`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::thread;

use serde::Deserialize;

use super::error::GameError;
use super::game::Game;
use super::packed::{data, is_task};
use super::rules::{Domain, Grammar, domain_name, task_sentence};
use crate::EnvError;

/// What `game.tw-pddl` holds; other keys do not matter.
#[derive(Deserialize)]
struct GameFile<'a> {
    #[serde(borrow)]
    pddl_domain: Cow<'a, str>,
    #[serde(borrow)]
    grammar: Cow<'a, str>,
    #[serde(borrow)]
    pddl_problem: Cow<'a, str>,
    solvable: Option<bool>,
}

/// A directory that may hold a game, and the task's identifier.
pub(crate) struct Trial {
    pub(crate) id: String,
    folder: PathBuf,
}

/// The folders in `root` that hold splits: itself, or a `json_2.*` in it.
pub(crate) fn roots(root: &Path, splits: &[&str]) -> Result<Vec<PathBuf>, EnvError> {
    let mut roots = Vec::new();
    if splits.iter().any(|split| root.join(split).is_dir()) {
        roots.push(root.to_owned());
    }
    roots.extend(
        folders(root)?
            .into_iter()
            .filter(|(name, _)| name.starts_with("json_2."))
            .map(|(_, path)| path),
    );
    Ok(roots)
}

/// The trials of a split that ALFWorld's loader keeps, by path; whether they are solvable is in
/// the game file.
pub(crate) fn trials(root: &Path, split: &str) -> Result<Vec<Trial>, EnvError> {
    let mut trials = Vec::new();
    for (task, path) in folders(&root.join(split))? {
        for (trial, folder) in folders(&path)? {
            let id = format!("{split}/{task}/{trial}");
            let complete =
                folder.join("traj_data.json").is_file() && folder.join("game.tw-pddl").is_file();
            if complete && is_task(&id) {
                trials.push(Trial { id, folder });
            }
        }
    }
    Ok(trials)
}

/// The folders in a folder by name; none where it does not exist.
fn folders(path: &Path) -> Result<Vec<(String, PathBuf)>, EnvError> {
    let listing = match std::fs::read_dir(path) {
        Ok(listing) => listing,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(data(path, None, &e)),
    };
    let mut folders = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|e| data(path, None, &e))?;
        if entry.path().is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            folders.push((name, entry.path()));
        }
    }
    folders.sort();
    Ok(folders)
}

/// Reads the trials' games, on two threads; unsolvable ones are left out.
pub(crate) fn load(trials: &[Trial]) -> Result<Vec<Game>, EnvError> {
    let (first, second) = trials.split_at(trials.len() / 2);
    let read = |trials: &[Trial]| -> Result<Vec<Game>, EnvError> {
        let games = trials.iter().map(Trial::load);
        games.filter_map(Result::transpose).collect()
    };
    let (first, second) = thread::scope(|scope| {
        let other = scope.spawn(|| read(second));
        (read(first), other.join())
    });
    let mut games = first?;
    games.extend(second.map_err(|_| EnvError::Failed("a parsing thread failed".to_owned()))??);
    Ok(games)
}

impl Trial {
    fn load(&self) -> Result<Option<Game>, EnvError> {
        let path = self.folder.join("game.tw-pddl");
        let bytes = std::fs::read(&path).map_err(|e| data(&path, None, &e))?;
        parse(&self.id, &bytes).map_err(|what| match what {
            Refusal::Json(e) => data(&path, Some(e.line()), &format!("not a game file: {e}")),
            Refusal::Game(e) => data(&path, None, &e),
        })
    }
}

enum Refusal {
    Json(serde_json::Error),
    Game(GameError),
}

/// Reads the bytes of a `game.tw-pddl`; `None` where it says that it is not solvable.
fn parse(id: &str, bytes: &[u8]) -> Result<Option<Game>, Refusal> {
    let file: GameFile<'_> = serde_json::from_slice(bytes).map_err(Refusal::Json)?;
    if file.solvable != Some(true) {
        return Ok(None);
    }
    let name = format!("{:?} in pddl_domain", domain_name(&file.pddl_domain));
    let domain = Domain::recognise(&name, &file.pddl_domain).map_err(Refusal::Game)?;
    let name = format!("of domain {:?}", domain_name(&file.pddl_domain));
    let grammar = Grammar::recognise(&name, &file.grammar).map_err(Refusal::Game)?;
    let task = task_sentence(&file.grammar).unwrap_or_default();
    let game = Game::parse_with(id, &file.pddl_problem, task, domain.with(grammar));
    game.map(Some).map_err(Refusal::Game)
}
