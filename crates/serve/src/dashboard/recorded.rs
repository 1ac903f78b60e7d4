//! Recorded steps of runs, read when asked for and kept as long as memory allows.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use empg_report::episodes::{Episode, Vocabulary, of_rows};
use empg_run::{Run, TrajectoryEntry, TrajectoryRow};

use super::board::RunView;
use super::scan::is_within;
use super::summaries::{StepSummary, summary};

/// Vocabularies that are kept.
const VOCABULARIES: usize = 16;
/// Summaries of steps that are kept.
const SUMMARIES: usize = 20_000;

/// A run's directory, a training step, the checksum of its file.
type Key = (PathBuf, u64, u32);

/// A recorded step.
#[derive(Debug)]
pub(super) struct StepFile {
    pub(super) rows: Vec<TrajectoryRow>,
    /// The rows of each episode.
    pub(super) episodes: Vec<Range<usize>>,
    bytes: usize,
}

impl StepFile {
    fn new(rows: Vec<TrajectoryRow>) -> Self {
        let mut episodes: Vec<Range<usize>> = Vec::new();
        let key = |r: &TrajectoryRow| (r.step, r.group, r.rollout);
        for (i, row) in rows.iter().enumerate() {
            match episodes.last_mut() {
                Some(last) if key(&rows[last.start]) == key(row) => last.end = i + 1,
                _ => episodes.push(i..i + 1),
            }
        }
        let bytes = rows
            .iter()
            .map(|r| {
                let text = r.task.len() + r.kind.len() + r.observation.len() + r.action.len();
                size_of::<TrajectoryRow>() + text + r.end.len() + 12 * r.tokens.len()
            })
            .sum();
        Self { rows, episodes, bytes }
    }
}

/// What was read.
#[derive(Debug)]
pub(super) struct Recorded {
    /// Bytes of step files that are kept, about.
    memory: usize,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// With the time of their last use.
    files: HashMap<Key, (u64, Arc<StepFile>)>,
    summaries: HashMap<Key, Arc<StepSummary>>,
    vocabularies: HashMap<PathBuf, (u64, Arc<Vocabulary>)>,
    uses: u64,
}

impl Recorded {
    pub(super) fn new(memory: usize) -> Self {
        Self { memory, cache: Mutex::default() }
    }

    /// The summary of a recorded step.
    ///
    /// # Errors
    /// In words: a file that is missing, damaged or elsewhere.
    pub(super) fn summary(
        &self,
        root: &Path,
        run: &RunView,
        entry: &TrajectoryEntry,
    ) -> Result<Arc<StepSummary>, String> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (run.path.clone(), entry.step, entry.crc32);
        if let Some(found) = cache.summaries.get(&key) {
            return Ok(Arc::clone(found));
        }
        let file = cache.file(root, run, entry, self.memory)?;
        let made = Arc::new(summary(&file));
        if cache.summaries.len() >= SUMMARIES {
            cache.summaries.clear();
        }
        cache.summaries.insert(key, Arc::clone(&made));
        Ok(made)
    }

    /// A recorded step.
    ///
    /// # Errors
    /// As [`Self::summary`].
    pub(super) fn file(
        &self,
        root: &Path,
        run: &RunView,
        entry: &TrajectoryEntry,
    ) -> Result<Arc<StepFile>, String> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.file(root, run, entry, self.memory)
    }

    /// One episode; `None` where the step has no such rollout.
    ///
    /// # Errors
    /// As [`Self::summary`].
    pub(super) fn episode(
        &self,
        root: &Path,
        run: &RunView,
        entry: &TrajectoryEntry,
        group: u32,
        rollout: u32,
    ) -> Result<Option<Episode>, String> {
        let file = self.file(root, run, entry)?;
        let range = file.episodes.iter().find(|range| {
            let first = &file.rows[range.start];
            (first.group, first.rollout) == (group, rollout)
        });
        let Some(range) = range else { return Ok(None) };
        let vocabulary = self.vocabulary(root, run);
        let name = run.data.as_ref().map_or("", |data| data.name.as_str());
        Ok(of_rows(name, &file.rows[range.clone()], &vocabulary).into_iter().next())
    }

    /// A run's vocabulary. It does not change while a run goes on, but there may be none at first.
    fn vocabulary(&self, root: &Path, run: &RunView) -> Arc<Vocabulary> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((version, found)) = cache.vocabularies.get(&run.path)
            && (*version == run.version || !found.is_empty())
        {
            return Arc::clone(found);
        }
        let read = Run::open(&run.path).ok().filter(|open| {
            let last = open.last().ok().flatten();
            last.is_some_and(|last| is_within(root, &last.dir.join("tokenizer.json")))
        });
        let vocabulary = Arc::new(read.map(|run| Vocabulary::of_run(&run)).unwrap_or_default());
        if cache.vocabularies.len() >= VOCABULARIES {
            cache.vocabularies.clear();
        }
        cache.vocabularies.insert(run.path.clone(), (run.version, Arc::clone(&vocabulary)));
        vocabulary
    }
}

impl Cache {
    /// Reads a step's file, one at a time: several readers of one large file would need the memory
    /// of several.
    fn file(
        &mut self,
        root: &Path,
        run: &RunView,
        entry: &TrajectoryEntry,
        memory: usize,
    ) -> Result<Arc<StepFile>, String> {
        self.uses += 1;
        let now = self.uses;
        let key = (run.path.clone(), entry.step, entry.crc32);
        if let Some((used, file)) = self.files.get_mut(&key) {
            *used = now;
            return Ok(Arc::clone(file));
        }
        let path = run.path.join("trajectories").join(format!("step-{:06}.parquet", entry.step));
        if !is_within(root, &path) {
            return Err(format!("step {}: a link that leads out of the folder", entry.step));
        }
        let open = Run::open(&run.path).map_err(|error| error.to_string())?;
        let rows = open.trajectories(entry.step).map_err(|error| error.to_string())?;
        let file = Arc::new(StepFile::new(rows));
        self.files.insert(key, (now, Arc::clone(&file)));
        let mut held: usize = self.files.values().map(|(_, file)| file.bytes).sum();
        while held > memory && self.files.len() > 1 {
            let oldest = self.files.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            if let Some((_, gone)) = self.files.remove(&oldest) {
                held -= gone.bytes;
            }
        }
        Ok(file)
    }
}
