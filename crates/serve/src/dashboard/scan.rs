//! Which runs are in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Runs that are shown at most.
const MOST: usize = 5000;

/// A run that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its path within the folder, with `/` between parts; `.` for the folder itself.
    pub(super) id: String,
    /// Where it is.
    pub(super) path: PathBuf,
    /// Changes whenever something was committed, and when the run goes on with other settings.
    pub(super) stamp: Stamp,
}

/// Times of change and lengths of a run's small files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// When something was committed last.
    pub(super) committed: Option<SystemTime>,
    /// When settings were written last.
    pub(super) configured: Option<SystemTime>,
    /// When a writer began or went on last.
    pub(super) begun: Option<SystemTime>,
    lengths: [u64; 2],
}

/// Looks for runs in the folder and in the folders within it; what was passed over is told.
pub(super) fn scan(root: &Path) -> (Vec<Found>, Vec<String>) {
    let (mut found, mut notices) = (Vec::new(), Vec::new());
    if let Some(stamp) = stamp(root, root) {
        found.push(Found { id: ".".to_owned(), path: root.to_owned(), stamp });
    }
    within(root, root, "", 1, &mut found, &mut notices);
    found.sort_by(|a, b| a.id.cmp(&b.id));
    if found.len() > MOST {
        notices.push(format!("{} runs are here; the first {MOST} are shown", found.len()));
        found.truncate(MOST);
    }
    (found, notices)
}

fn within(
    root: &Path,
    folder: &Path,
    prefix: &str,
    deeper: u32,
    found: &mut Vec<Found>,
    notices: &mut Vec<String>,
) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            notices.push(format!("{}: {error}", if prefix.is_empty() { "." } else { prefix }));
            return;
        }
    };
    for entry in entries.flatten() {
        // A name that is no text could not be asked for.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        let id = format!("{prefix}{name}");
        if kind.is_symlink() {
            if path.is_dir() && !is_within(root, &path) {
                notices.push(format!("{id}: a link that leads out of the folder is not followed"));
                continue;
            }
            if !path.is_dir() {
                continue;
            }
        } else if !kind.is_dir() {
            continue;
        }
        if let Some(stamp) = stamp(root, &path) {
            found.push(Found { id, path, stamp });
        } else if deeper > 0 && !kind.is_symlink() {
            within(root, &path, &format!("{id}/"), deeper - 1, found, notices);
        }
    }
}

/// The stamp of a run; `None` where there is no run, or a file of it is a link that leads
/// out of the folder.
fn stamp(root: &Path, run: &Path) -> Option<Stamp> {
    let manifest = run.join("manifest.json");
    let meta = fs::symlink_metadata(&manifest).ok()?;
    (meta.is_file() || is_within(root, &manifest))
        .then(|| fs::metadata(&manifest).ok())
        .flatten()
        .filter(fs::Metadata::is_file)
        .map(|meta| {
            let config = fs::metadata(run.join("config.toml")).ok();
            let lock = fs::metadata(run.join("run.lock")).ok();
            Stamp {
                committed: meta.modified().ok(),
                configured: config.as_ref().and_then(|config| config.modified().ok()),
                begun: lock.and_then(|lock| lock.modified().ok()),
                lengths: [meta.len(), config.map_or(0, |config| config.len())],
            }
        })
}

/// Whether a path, with all links followed, stays in the folder. What does not exist does.
pub(super) fn is_within(root: &Path, path: &Path) -> bool {
    match path.canonicalize() {
        Ok(real) => real.starts_with(root),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// The first of a run's files that is a link out of the folder.
pub(super) fn leads_out(root: &Path, run: &Path) -> Option<&'static str> {
    [
        "config.toml",
        "metrics.jsonl",
        "timings.jsonl",
        "analyses",
        "analyses/entropy-dynamics.jsonl",
        "panels",
        "trajectories",
        "checkpoints",
    ]
    .into_iter()
    .find(|name| !is_within(root, &run.join(name)))
}
