//! The writer: one commit per step.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::value::RawValue;

use crate::checkpoint::State;
use crate::layout::{
    ANALYSES, CHECKPOINTS, CONFIG, CREATED, LOCK, MANIFEST, METRICS, PANELS, PROMPT, TIMINGS,
    TRAJECTORIES, check_name, checkpoint_dir, is_kept_by_a_start, is_replaced_by_a_start, partial,
    trajectory_file,
};
use crate::machine::Machine;
use crate::manifest::{Manifest, TrajectoryEntry, encode};
use crate::storage::{Disk, Storage, write_whole};
use crate::{CheckpointRef, Result, RunError, StepRecord, events, jsonl, trajectory};

/// Checkpoints kept by default, besides the best.
pub(crate) const KEEP: usize = 2;

/// How long a lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A run that this process, and no other, writes.
pub struct RunDir {
    pub(crate) root: PathBuf,
    pub(crate) storage: Box<dyn Storage>,
    pub(crate) manifest: Manifest,
    pub(crate) config: String,
    pub(crate) events: PathBuf,
    pub(crate) events_bytes: u64,
    pub(crate) timings_bytes: u64,
    pub(crate) keep: usize,
    pub(crate) warnings: Vec<String>,
    /// Held, not read: the system lets go of it when the process ends, however it ends.
    pub(crate) _lock: File,
}

impl std::fmt::Debug for RunDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunDir").field("root", &self.root).finish_non_exhaustive()
    }
}

impl RunDir {
    /// Starts a run in a directory that is missing or empty (or holds what a start that was
    /// killed left). `config_toml` is the resolved configuration; `info` are facts about the run
    /// (the program's version, the environment, the seed), and must hold no clock reading, path
    /// or host name, because the manifest repeats them.
    ///
    /// # Errors
    /// [`RunError::Exists`] where a run is, [`RunError::NotEmpty`] where something else is,
    /// [`RunError::Locked`], and whatever the system refuses.
    pub fn create(
        path: impl AsRef<Path>,
        config_toml: &str,
        info: &serde_json::Value,
    ) -> Result<Self> {
        Self::create_on(Box::new(Disk), path.as_ref(), config_toml, info)
    }

    pub(crate) fn create_on(
        mut storage: Box<dyn Storage>,
        root: &Path,
        config_toml: &str,
        info: &serde_json::Value,
    ) -> Result<Self> {
        storage.create_dir(root).map_err(|e| RunError::io("create", root, 0, e))?;
        refuse_occupied(root)?;
        let lock = lock(root)?;
        // Another process may have finished its start between the look and the lock.
        refuse_occupied(root)?;

        let seconds = events::now();
        let info = RawValue::from_string(info.to_string()).map_err(|e| RunError::Io {
            action: "encode",
            path: root.join(MANIFEST),
            source: e.into(),
        })?;
        let mut run = Self {
            root: root.to_owned(),
            storage,
            manifest: Manifest::new(info),
            config: config_toml.to_owned(),
            events: events::path_in(root, seconds)?,
            events_bytes: 0,
            timings_bytes: 0,
            keep: KEEP,
            warnings: Vec::new(),
            _lock: lock,
        };
        for folder in [PANELS, ANALYSES, TRAJECTORIES, CHECKPOINTS] {
            let path = root.join(folder);
            run.storage.create_dir(&path).map_err(|e| RunError::io("create", &path, 0, e))?;
        }
        let created = serde_json::json!({ "unix_seconds": seconds, "machine": Machine::here() });
        let created = encode(&created, Path::new(CREATED))?;
        write_whole(run.storage.as_mut(), &root.join(CREATED), &created)?;
        write_whole(run.storage.as_mut(), &root.join(CONFIG), config_toml.as_bytes())?;
        run.append(METRICS, 0, &[])?;
        run.append(TIMINGS, 0, &[])?;
        run.start_events(seconds)?;
        run.sync_dir(root)?;
        let manifest = run.manifest.clone();
        run.put_manifest(manifest)?;
        if let Some(parent) = root.parent().filter(|p| !p.as_os_str().is_empty()) {
            run.sync_dir(parent)?;
        }
        Ok(run)
    }

    /// How many of the newest checkpoints stay, besides the best; at least one. The default is 2.
    /// While a commit writes the next one, up to `last + 2` checkpoints are on the disk.
    pub fn set_keep(&mut self, last: usize) {
        self.keep = last.max(1);
    }

    /// The run's directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The resolved configuration that the run was started with.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// What is committed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The last committed step.
    pub fn last_step(&self) -> Option<u64> {
        self.manifest.step
    }

    /// What was wrong and could be worked around, in the order in which it was found.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The best checkpoint, where one has a score.
    ///
    /// # Errors
    /// A damaged `state.json`.
    pub fn best(&self) -> Result<Option<CheckpointRef>> {
        self.manifest
            .best
            .map_or(Ok(None), |step| crate::reader::find(&self.root, &self.manifest, step))
    }

    /// Makes a step durable: its files first, the manifest last. After an error nothing of the
    /// step is recorded, everything before it stays, and the same step may be committed again.
    ///
    /// # Errors
    /// A step that is not after the last one, names, scores and rows that cannot be written, a
    /// full disk ([`RunError::DiskFull`]), and whatever else the system refuses.
    pub fn commit(&mut self, record: &StepRecord<'_>) -> Result<()> {
        if let Some(last) = self.manifest.step.filter(|&last| record.step <= last) {
            return Err(RunError::StepOrder { step: record.step, last });
        }
        let mut next = self.manifest.clone();
        next.step = Some(record.step);
        let staged = self.stage(record, &mut next).and_then(|lengths| {
            let dropped = next.drop_checkpoints(self.keep);
            self.put_manifest(next).map(|()| (lengths, dropped))
        });
        match staged {
            Ok(((timings, events), dropped)) => {
                self.timings_bytes = timings;
                self.events_bytes = events;
                self.remove_checkpoints(&dropped);
                Ok(())
            }
            Err(error) => {
                self.take_back(record.step);
                Err(error)
            }
        }
    }

    /// Writes `prompt.jinja` whole: the template of the environment's messages, where the
    /// configuration names a file, which may change or be elsewhere when the run goes on.
    ///
    /// # Errors
    /// A full disk, and whatever else the system refuses.
    pub fn write_prompt(&mut self, template: &str) -> Result<()> {
        let root = self.root.clone();
        self.write_aside(&root, PROMPT, template.as_bytes())
    }

    /// Writes `panels/NAME.jsonl` whole, replacing one of that name. `name` has no ending.
    ///
    /// # Errors
    /// A name that is not plain, a full disk, and whatever else the system refuses.
    pub fn write_panel(&mut self, name: &str, jsonl: &[u8]) -> Result<()> {
        self.write_lines(PANELS, name, jsonl)
    }

    /// Writes `analyses/NAME.jsonl` whole, replacing one of that name: a table that only the
    /// trainer could compute. `name` has no ending.
    ///
    /// # Errors
    /// As [`write_panel`](Self::write_panel).
    pub fn write_analysis(&mut self, name: &str, jsonl: &[u8]) -> Result<()> {
        self.write_lines(ANALYSES, name, jsonl)
    }

    fn write_lines(&mut self, folder: &str, name: &str, jsonl: &[u8]) -> Result<()> {
        check_name(name)?;
        let folder = self.root.join(folder);
        self.write_aside(&folder, &format!("{name}.jsonl"), jsonl)
    }

    /// A file that the manifest does not name.
    fn write_aside(&mut self, folder: &Path, file: &str, bytes: &[u8]) -> Result<()> {
        let path = folder.join(file);
        let written = write_whole(self.storage.as_mut(), &path, bytes);
        if written.is_err() {
            let _ = self.storage.remove(&partial(&path));
        }
        written?;
        self.sync_dir(folder)
    }

    /// Everything of a step but the manifest; gives the lengths that `timings.jsonl` and the
    /// event file then have.
    fn stage(&mut self, record: &StepRecord<'_>, next: &mut Manifest) -> Result<(u64, u64)> {
        let metrics = jsonl::line(record.step, &record.metrics);
        next.metrics = next.metrics.with_line(&metrics);
        let state = match &record.checkpoint {
            Some(files) => Some((State::new(record.step, files, next.metrics)?, files)),
            None => None,
        };
        if let Some(rows) = record.trajectories {
            let path = trajectory_file(&self.root, record.step);
            let bytes = trajectory::encode(rows, &path)?;
            write_whole(self.storage.as_mut(), &path, &bytes)?;
            self.sync_dir(&self.root.join(TRAJECTORIES))?;
            next.trajectories.push(TrajectoryEntry {
                step: record.step,
                rows: rows.len() as u64,
                bytes: bytes.len() as u64,
                crc32: crc32fast::hash(&bytes),
            });
        }
        if let Some((state, files)) = state {
            let encoded = state.encode()?;
            self.write_checkpoint(record.step, &files.files, &encoded)?;
            next.checkpoints.push(state.entry(&encoded));
        }
        let timings = jsonl::line(record.step, &record.timings);
        let event =
            events::scalars(events::now(), record.step, &[&record.metrics, &record.timings]);
        self.append(METRICS, self.manifest.metrics.bytes, &metrics)?;
        self.append(TIMINGS, self.timings_bytes, &timings)?;
        let (path, at) = (self.events.clone(), self.events_bytes);
        let size = event.len() as u64;
        self.storage
            .append(&path, at, &event)
            .map_err(|e| RunError::io("append to", &path, size, e))?;
        Ok((self.timings_bytes + timings.len() as u64, at + size))
    }

    fn write_checkpoint(
        &mut self,
        step: u64,
        files: &[(String, Vec<u8>)],
        state: &[u8],
    ) -> Result<()> {
        let target = checkpoint_dir(&self.root, step);
        let unfinished = partial(&target);
        let failed = |path: &Path, size: usize| {
            let path = path.to_owned();
            move |e| RunError::io("write", &path, size as u64, e)
        };
        for leftover in [&unfinished, &target] {
            self.storage.remove(leftover).map_err(|e| RunError::io("remove", leftover, 0, e))?;
        }
        self.storage.create_dir(&unfinished).map_err(failed(&target, 0))?;
        let own = std::iter::once((crate::layout::STATE, state));
        for (name, bytes) in files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).chain(own) {
            self.storage
                .write(&unfinished.join(name), bytes)
                .map_err(failed(&target.join(name), bytes.len()))?;
        }
        self.sync_dir(&unfinished)?;
        self.storage.rename(&unfinished, &target).map_err(failed(&target, 0))?;
        self.sync_dir(&self.root.join(CHECKPOINTS))
    }

    /// Renames the manifest into place; from there on `next` is what is committed.
    pub(crate) fn put_manifest(&mut self, next: Manifest) -> Result<()> {
        let bytes = next.encode()?;
        write_whole(self.storage.as_mut(), &self.root.join(MANIFEST), &bytes)?;
        self.manifest = next;
        // The step is recorded already; a folder that cannot be synced takes nothing back.
        if let Err(error) = self.storage.sync_dir(&self.root) {
            self.warnings.push(format!("cannot sync {}: {error}", self.root.display()));
        }
        Ok(())
    }

    /// Removes what a failed commit has written, as far as the system lets it: what stays is not
    /// committed and is overwritten or removed later.
    fn take_back(&mut self, step: u64) {
        let checkpoint = checkpoint_dir(&self.root, step);
        let trajectories = trajectory_file(&self.root, step);
        let manifest = self.root.join(MANIFEST);
        for path in [
            &partial(&checkpoint),
            &checkpoint,
            &partial(&trajectories),
            &trajectories,
            &partial(&manifest),
        ] {
            let _ = self.storage.remove(path);
        }
        for (path, len) in [
            (self.root.join(METRICS), self.manifest.metrics.bytes),
            (self.root.join(TIMINGS), self.timings_bytes),
            (self.events.clone(), self.events_bytes),
        ] {
            let _ = self.storage.truncate(&path, len);
        }
    }

    /// Removes checkpoints that the manifest no longer names.
    fn remove_checkpoints(&mut self, steps: &[u64]) {
        for &step in steps {
            let path = checkpoint_dir(&self.root, step);
            if let Err(error) = self.storage.remove(&path) {
                self.warnings.push(format!("cannot remove {}: {error}", path.display()));
            }
        }
    }

    pub(crate) fn start_events(&mut self, seconds: f64) -> Result<()> {
        let header = events::header(seconds);
        let path = self.events.clone();
        let size = header.len() as u64;
        self.storage
            .append(&path, 0, &header)
            .map_err(|e| RunError::io("write", &path, size, e))?;
        self.events_bytes = size;
        Ok(())
    }

    fn append(&mut self, name: &str, at: u64, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        let size = bytes.len() as u64;
        self.storage.append(&path, at, bytes).map_err(|e| RunError::io("append to", &path, size, e))
    }

    pub(crate) fn sync_dir(&mut self, path: &Path) -> Result<()> {
        self.storage.sync_dir(path).map_err(|e| RunError::io("sync", path, 0, e))
    }
}

/// Takes the lock of the run in `root`.
pub(crate) fn lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| RunError::io("open", &path, 0, e))?;
    // A killed process lets go of its lock only once its memory is given back.
    let patience = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => {
                // Whoever looks sees since when the run is written; nothing depends on it.
                let _ = file.set_modified(SystemTime::now());
                return Ok(file);
            }
            Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(RunError::Locked { path: root.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(RunError::io("lock", &path, 0, error)),
        }
    }
}

/// Refuses a directory with a run or with foreign content. Files of a run's names are someone
/// else's, too, unless they are what a start that was killed left: that has its lock before
/// anything else, and then says when it was created.
fn refuse_occupied(root: &Path) -> Result<()> {
    if root.join(MANIFEST).exists() {
        return Err(RunError::Exists { path: root.to_owned() });
    }
    let created = root.join(CREATED);
    let begun = root.join(LOCK).exists() && (created.exists() || partial(&created).exists());
    let entries = fs::read_dir(root).map_err(|e| RunError::io("list", root, 0, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| RunError::io("list", root, 0, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = is_kept_by_a_start(&name) || (begun && is_replaced_by_a_start(&name));
        if !ours {
            return Err(RunError::NotEmpty { path: root.to_owned(), found: name });
        }
    }
    for folder in [TRAJECTORIES, CHECKPOINTS, PANELS, ANALYSES] {
        if fs::read_dir(root.join(folder)).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(RunError::NotEmpty { path: root.to_owned(), found: folder.to_owned() });
        }
    }
    Ok(())
}
