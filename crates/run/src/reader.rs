//! The reader: a finished run, or one that is being written.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::checkpoint::{State, read_checked};
use crate::layout::{
    ANALYSES, CONFIG, CREATED, METRICS, PANELS, PROMPT, TIMINGS, check_name, trajectory_file,
};
use crate::{CheckpointRef, Machine, Manifest, Result, RunError, TrajectoryRow, jsonl, trajectory};

/// Length and time of change of a file: equal while nobody writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    bytes: u64,
    changed: Option<SystemTime>,
}

impl FileStamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self { bytes: meta.len(), changed: meta.modified().ok() })
    }
}

/// A run as it was when it was opened. It takes no lock and changes nothing.
#[derive(Clone, Debug)]
pub struct Run {
    root: PathBuf,
    manifest: Manifest,
}

impl Run {
    /// Opens a run.
    ///
    /// # Errors
    /// [`RunError::NotARun`], [`RunError::OtherFormat`], [`RunError::Manifest`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let root = path.as_ref().to_owned();
        let manifest = Manifest::read(&root)?;
        Ok(Self { root, manifest })
    }

    /// Looks again at what is committed.
    ///
    /// # Errors
    /// As [`Run::open`].
    pub fn refresh(&mut self) -> Result<()> {
        self.manifest = Manifest::read(&self.root)?;
        Ok(())
    }

    /// The run's directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// What is committed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether a process writes the run now. Where locks cannot be asked for (some network file
    /// systems), the answer is no.
    pub fn is_being_written(&self) -> bool {
        self.being_written().unwrap_or(false)
    }

    /// When the run was created, in seconds since 1970; unknown where that file is gone.
    pub fn created(&self) -> Option<f64> {
        self.creation()?.get("unix_seconds")?.as_f64()
    }

    /// What the run was started on; unknown for runs of older versions.
    pub fn machine(&self) -> Option<Machine> {
        serde_json::from_value(self.creation()?.get_mut("machine")?.take()).ok()
    }

    fn creation(&self) -> Option<Value> {
        let bytes = fs::read(self.root.join(CREATED)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The resolved configuration, TOML.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn config(&self) -> Result<String> {
        let path = self.root.join(CONFIG);
        fs::read_to_string(&path).map_err(|e| RunError::io("read", &path, 0, e))
    }

    /// The state of the configuration's file, which changes when the run goes on with other
    /// settings; `None` where there is no such file.
    pub fn config_stamp(&self) -> Option<FileStamp> {
        FileStamp::of(&self.root.join(CONFIG))
    }

    /// The template of the environment's messages, where the run began with one of its own.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn prompt(&self) -> Result<Option<String>> {
        let path = self.root.join(PROMPT);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RunError::io("read", &path, 0, error)),
        }
    }

    /// The committed lines of `metrics.jsonl`.
    ///
    /// # Errors
    /// A file that has lost or changed committed lines.
    pub fn metrics(&self) -> Result<Vec<Map<String, Value>>> {
        let path = self.root.join(METRICS);
        // A run that is resumed just now may have been cut back to an earlier step.
        let mut prefix = self.manifest.metrics;
        for attempt in 0.. {
            let bytes = jsonl::read_or_empty(&path)?;
            let committed = usize::try_from(prefix.bytes).ok().and_then(|len| bytes.get(..len));
            match committed.filter(|bytes| crc32fast::hash(bytes) == prefix.crc32) {
                Some(committed) => return jsonl::parse(&path, committed),
                None if attempt == 0 => prefix = Manifest::read(&self.root)?.metrics,
                None => break,
            }
        }
        Err(RunError::corrupt(&path, "committed lines are missing or changed"))
    }

    /// The lines of `timings.jsonl` up to the last committed step.
    ///
    /// # Errors
    /// A line that is no JSON object.
    pub fn timings(&self) -> Result<Vec<Map<String, Value>>> {
        let path = self.root.join(TIMINGS);
        let mut lines = jsonl::parse(&path, &jsonl::read_or_empty(&path)?)?;
        let last = self.manifest.step;
        lines.retain(|line| {
            let step = line.get("step").and_then(Value::as_u64);
            step.zip(last).is_some_and(|(step, last)| step <= last)
        });
        Ok(lines)
    }

    /// The kept checkpoints, by step.
    ///
    /// # Errors
    /// A damaged `state.json`.
    pub fn checkpoints(&self) -> Result<Vec<CheckpointRef>> {
        self.manifest
            .checkpoints
            .iter()
            .map(|entry| Ok(CheckpointRef::new(&self.root, State::read(&self.root, entry)?)))
            .collect()
    }

    /// The checkpoint with the highest score, where one has a score.
    ///
    /// # Errors
    /// A damaged `state.json`.
    pub fn best(&self) -> Result<Option<CheckpointRef>> {
        self.manifest.best.map_or(Ok(None), |step| find(&self.root, &self.manifest, step))
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// A damaged `state.json`.
    pub fn last(&self) -> Result<Option<CheckpointRef>> {
        let step = self.manifest.checkpoints.last().map(|c| c.step);
        step.map_or(Ok(None), |step| find(&self.root, &self.manifest, step))
    }

    /// Training steps that have trajectories.
    pub fn trajectory_steps(&self) -> impl Iterator<Item = u64> + '_ {
        self.manifest.trajectories.iter().map(|t| t.step)
    }

    /// The agent steps of a training step.
    ///
    /// # Errors
    /// [`RunError::NoTrajectories`] where none were recorded; a missing or damaged file.
    pub fn trajectories(&self, step: u64) -> Result<Vec<TrajectoryRow>> {
        let (path, bytes) = self.recorded(step)?;
        trajectory::decode(bytes, &path)
    }

    /// How many episodes were recorded of a training step, without reading what is in them.
    ///
    /// # Errors
    /// As [`Run::trajectories`].
    pub fn recorded_episodes(&self, step: u64) -> Result<usize> {
        let (path, bytes) = self.recorded(step)?;
        trajectory::episodes(bytes, &path)
    }

    fn recorded(&self, step: u64) -> Result<(PathBuf, Vec<u8>)> {
        let entry = self
            .manifest
            .trajectories
            .iter()
            .find(|t| t.step == step)
            .ok_or_else(|| RunError::NoTrajectories { path: self.root.clone(), step })?;
        let path = trajectory_file(&self.root, step);
        let bytes = read_checked(&path, entry.bytes, entry.crc32)?;
        Ok((path, bytes))
    }

    /// Names of the panels, sorted.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn panels(&self) -> Result<Vec<String>> {
        self.names(PANELS)
    }

    /// The lines of a panel.
    ///
    /// # Errors
    /// A name that is not plain, a missing file, a line that is no JSON object.
    pub fn panel(&self, name: &str) -> Result<Vec<Map<String, Value>>> {
        self.lines(PANELS, name)
    }

    /// Names of the tables that the trainer computed for analyses, sorted.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn analyses(&self) -> Result<Vec<String>> {
        self.names(ANALYSES)
    }

    /// The lines of such a table.
    ///
    /// # Errors
    /// A name that is not plain, a missing file, a line that is no JSON object.
    pub fn analysis(&self, name: &str) -> Result<Vec<Map<String, Value>>> {
        self.lines(ANALYSES, name)
    }

    /// The state of such a table's file; `None` where there is none.
    pub fn analysis_stamp(&self, name: &str) -> Option<FileStamp> {
        check_name(name).ok()?;
        FileStamp::of(&self.root.join(ANALYSES).join(format!("{name}.jsonl")))
    }

    fn names(&self, folder: &str) -> Result<Vec<String>> {
        let folder = self.root.join(folder);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(RunError::io("list", &folder, 0, error)),
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".jsonl")?.to_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    fn lines(&self, folder: &str, name: &str) -> Result<Vec<Map<String, Value>>> {
        check_name(name)?;
        let path = self.root.join(folder).join(format!("{name}.jsonl"));
        let bytes = fs::read(&path).map_err(|e| RunError::io("read", &path, 0, e))?;
        jsonl::parse(&path, &bytes)
    }
}

/// The checkpoint of a step that the manifest names.
pub(crate) fn find(root: &Path, manifest: &Manifest, step: u64) -> Result<Option<CheckpointRef>> {
    let Some(entry) = manifest.checkpoint(step) else { return Ok(None) };
    Ok(Some(CheckpointRef::new(root, State::read(root, entry)?)))
}
