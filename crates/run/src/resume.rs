//! Continuing a run: back to its newest complete checkpoint.

use std::fs;
use std::path::Path;

use crate::checkpoint::State;
use crate::layout::{
    ANALYSES, CHECKPOINTS, CONFIG, METRICS, PANELS, PARTIAL, TIMINGS, TRAJECTORIES, parse_step,
};
use crate::manifest::{Manifest, Prefix};
use crate::storage::{Disk, Storage};
use crate::writer::lock;
use crate::{CheckpointRef, Result, RunDir, RunError, events, jsonl};

impl RunDir {
    /// Opens a run to continue it after its newest complete checkpoint, which is given back: the
    /// next step to commit is the one after it. Everything later (lines, trajectories, damaged
    /// checkpoints, leftovers of a kill) is removed, because the same steps will be computed
    /// again. Without any checkpoint the run starts again at its beginning, and `None` is given.
    /// [`RunDir::warnings`] tells which damaged checkpoints were passed over.
    ///
    /// # Errors
    /// [`RunError::NotARun`], [`RunError::OtherFormat`], [`RunError::Manifest`],
    /// [`RunError::Locked`]; [`RunError::NoUsableCheckpoint`] where checkpoints are recorded and
    /// all of them are damaged, [`RunError::Corrupt`] where `metrics.jsonl` lost committed lines,
    /// [`RunError::Io`] where a checkpoint cannot be read, which does not say that it is damaged:
    /// in these three cases nothing is changed.
    pub fn resume(path: impl AsRef<Path>) -> Result<(Self, Option<CheckpointRef>)> {
        Self::resume_on(Box::new(Disk), path.as_ref())
    }

    pub(crate) fn resume_on(
        storage: Box<dyn Storage>,
        root: &Path,
    ) -> Result<(Self, Option<CheckpointRef>)> {
        // Before the lock, which would leave its file in a directory that is no run.
        Manifest::read(root)?;
        let lock = lock(root)?;
        let manifest = Manifest::read(root)?;
        let config = root.join(CONFIG);
        let config =
            fs::read_to_string(&config).map_err(|e| RunError::io("read", &config, 0, e))?;

        let mut warnings = Vec::new();
        let checkpoint = newest_complete(root, &manifest, &mut warnings)?;
        let (step, metrics) = match &checkpoint {
            Some((state, _)) => (Some(state.step), state.metrics),
            None => (None, Prefix::default()),
        };
        check_metrics(root, metrics)?;

        let events = events::path_in(root, events::now())?;
        let mut run = Self {
            root: root.to_owned(),
            storage,
            config,
            events,
            events_bytes: 0,
            timings_bytes: 0,
            keep: crate::writer::KEEP,
            warnings,
            manifest,
            _lock: lock,
        };
        // The manifest first: were we killed now, the rest would be leftovers of no step.
        let past = run.manifest.rewound(step, metrics);
        if past.encode()? != run.manifest.encode()? {
            run.put_manifest(past)?;
        }
        run.clean_up()?;
        run.missing_trajectories();
        Ok((run, checkpoint.map(|(_, checkpoint)| checkpoint)))
    }

    /// Removes what the manifest does not name and cuts the appended files.
    fn clean_up(&mut self) -> Result<()> {
        let step = self.manifest.step;
        let cut = |run: &mut Self, path: &Path, len: u64| {
            run.storage.truncate(path, len).map_err(|e| RunError::io("cut", path, 0, e))
        };
        cut(self, &self.root.join(METRICS), self.manifest.metrics.bytes)?;

        let timings = self.root.join(TIMINGS);
        self.timings_bytes = jsonl::prefix_up_to(&jsonl::read_or_empty(&timings)?, step);
        cut(self, &timings, self.timings_bytes)?;

        let path = self.events.clone();
        self.events_bytes = events::prefix_up_to(&jsonl::read_or_empty(&path)?, step);
        if self.events_bytes == 0 {
            self.start_events(events::now())?;
        } else {
            cut(self, &path, self.events_bytes)?;
        }

        let manifest = self.manifest.clone();
        self.sweep("", |_| false)?;
        self.sweep(PANELS, |_| false)?;
        self.sweep(ANALYSES, |_| false)?;
        self.sweep(CHECKPOINTS, |name| {
            parse_step(name).is_some_and(|s| manifest.checkpoint(s).is_none())
        })?;
        self.sweep(TRAJECTORIES, |name| {
            name.strip_suffix(".parquet")
                .and_then(parse_step)
                .is_some_and(|s| manifest.trajectories.iter().all(|t| t.step != s))
        })
    }

    /// Removes unfinished entries of a folder, and those that `leftover` names. Whatever else
    /// someone put there stays.
    fn sweep(&mut self, folder: &str, leftover: impl Fn(&str) -> bool) -> Result<()> {
        let folder = self.root.join(folder);
        self.storage.create_dir(&folder).map_err(|e| RunError::io("create", &folder, 0, e))?;
        let entries = fs::read_dir(&folder).map_err(|e| RunError::io("list", &folder, 0, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| RunError::io("list", &folder, 0, e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(PARTIAL) || leftover(name) {
                let path = entry.path();
                self.storage.remove(&path).map_err(|e| RunError::io("remove", &path, 0, e))?;
            }
        }
        Ok(())
    }

    /// Warns of recorded trajectories that are gone: nothing continues from them.
    fn missing_trajectories(&mut self) {
        for entry in &self.manifest.trajectories {
            let path = crate::layout::trajectory_file(&self.root, entry.step);
            let length = fs::metadata(&path).map(|m| m.len()).ok();
            if length != Some(entry.bytes) {
                self.warnings.push(format!("{} is missing or damaged", path.display()));
            }
        }
    }
}

/// The newest checkpoint whose files are all as they were written. Passes over others with a
/// warning.
fn newest_complete(
    root: &Path,
    manifest: &Manifest,
    warnings: &mut Vec<String>,
) -> Result<Option<(State, CheckpointRef)>> {
    let mut reasons = Vec::new();
    for entry in manifest.checkpoints.iter().rev() {
        let complete = State::read(root, entry).and_then(|state| {
            let checkpoint = CheckpointRef::new(root, state.clone());
            checkpoint.verify().map(|()| (state, checkpoint))
        });
        match complete {
            Ok(found) => {
                let after = format!("passed over, continuing after step {}", entry.step);
                warnings.extend(reasons.into_iter().map(|reason| format!("{reason}; {after}")));
                return Ok(Some(found));
            }
            Err(error @ RunError::Corrupt { .. }) => reasons.push(error.to_string()),
            // Missing rights, too many open files, a disk that fails: the checkpoint may be whole,
            // and going on without it would remove it.
            Err(error) => return Err(error),
        }
    }
    if reasons.is_empty() {
        Ok(None)
    } else {
        Err(RunError::NoUsableCheckpoint { path: root.to_owned(), reasons })
    }
}

/// Checks that `metrics.jsonl` begins with what was committed.
fn check_metrics(root: &Path, prefix: Prefix) -> Result<()> {
    let path = root.join(METRICS);
    let bytes = jsonl::read_or_empty(&path)?;
    let committed = usize::try_from(prefix.bytes).ok().and_then(|len| bytes.get(..len));
    match committed {
        Some(committed) if crc32fast::hash(committed) == prefix.crc32 => Ok(()),
        Some(_) => Err(RunError::corrupt(&path, "committed lines were changed")),
        None => Err(RunError::corrupt(
            &path,
            format!("it has {} bytes where {} were committed", bytes.len(), prefix.bytes),
        )),
    }
}
