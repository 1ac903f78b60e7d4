//! All runs, and what is told when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;

use empg_report::run_data::RunData;
use empg_run::TrajectoryEntry;
use serde_json::json;
use tokio::sync::broadcast;

use super::live_run::{Line, LiveRun};
use super::scan::scan;

/// Changes that a slow page may be behind before it has to ask for everything.
const BEHIND: usize = 256;

/// A change, as pages are told.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) name: &'static str,
    pub(super) data: Arc<str>,
}

/// A run, as requests see it.
#[derive(Clone, Debug)]
pub(super) struct RunView {
    pub(super) path: PathBuf,
    /// Changes with the run.
    pub(super) version: u64,
    pub(super) data: Option<Arc<RunData>>,
    pub(super) recorded: Arc<Vec<TrajectoryEntry>>,
    pub(super) line: Line,
}

/// All runs, as requests see them.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) version: u64,
    pub(super) runs: BTreeMap<String, RunView>,
    /// What was passed over, in words.
    pub(super) notices: Vec<String>,
}

/// The runs of a folder.
#[derive(Debug)]
pub(super) struct Board {
    root: PathBuf,
    /// Another one for every server: versions begin anew with it.
    boot: String,
    /// Locked while the folder is looked at only.
    runs: Mutex<BTreeMap<String, LiveRun>>,
    shown: RwLock<Shown>,
    changes: broadcast::Sender<Change>,
}

impl Board {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            boot: format!("{:016x}", RandomState::new().hash_one(())),
            runs: Mutex::default(),
            shown: RwLock::default(),
            changes: broadcast::Sender::new(BEHIND),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What tells this board from one that was at the same address before.
    pub(super) fn boot(&self) -> &str {
        &self.boot
    }

    pub(super) fn len(&self) -> usize {
        self.shown().runs.len()
    }

    pub(super) fn shown(&self) -> RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run by the name under which it was found.
    pub(super) fn run(&self, id: &str) -> Option<RunView> {
        self.shown().runs.get(id).cloned()
    }

    /// Changes from now on.
    pub(super) fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Looks at the folder on a thread of its own until the board is gone.
    pub(super) fn keep_looking(board: &Arc<Self>, interval: Duration) {
        let board: Weak<Self> = Arc::downgrade(board);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(interval);
                let Some(board) = board.upgrade() else { return };
                board.look();
            }
        });
    }

    /// Looks at the folder once and tells what changed.
    pub(super) fn look(&self) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let (found, notices) = scan(&self.root);
        let here: BTreeSet<&str> = found.iter().map(|f| f.id.as_str()).collect();
        let gone: Vec<String> =
            runs.keys().filter(|id| !here.contains(id.as_str())).cloned().collect();
        for id in gone {
            runs.remove(&id);
            self.tell("gone", |shown, _| {
                shown.runs.remove(&id);
                json!({ "id": id }).to_string()
            });
        }
        for found in found {
            let id = found.id.clone();
            let run = match runs.get_mut(&id) {
                Some(run) => {
                    if !run.look(&self.root, found.stamp) {
                        continue;
                    }
                    run
                }
                None => runs.entry(id.clone()).or_insert(LiveRun::new(&self.root, found)),
            };
            self.tell("run", |shown, version| {
                let view = RunView {
                    path: run.found.path.clone(),
                    version,
                    data: run.data.clone(),
                    recorded: Arc::clone(&run.recorded),
                    line: run.line.clone(),
                };
                let data = serde_json::to_string(&view.line).unwrap_or_default();
                shown.runs.insert(id, view);
                data
            });
        }
        if self.shown().notices != notices {
            self.tell("notices", |shown, _| {
                let data = serde_json::to_string(&notices).unwrap_or_default();
                shown.notices = notices;
                data
            });
        }
    }

    /// Changes what is shown, and tells it.
    fn tell(&self, name: &'static str, change: impl FnOnce(&mut Shown, u64) -> String) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.version += 1;
        let version = shown.version;
        let data = change(&mut shown, version).into();
        // Nobody may be listening.
        let _ = self.changes.send(Change { version, name, data });
    }
}
