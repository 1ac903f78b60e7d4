//! Checkpoints: the caller's files and `state.json`, which says that they are all there.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::layout::{STATE, check_name, checkpoint_dir};
use crate::manifest::{CheckpointEntry, FORMAT, Prefix, encode, exact};
use crate::{Result, RunError};

/// The files of a checkpoint that is to be written.
#[derive(Clone, Debug, Default)]
pub struct CheckpointFiles {
    /// Plain file names and contents; `state.json` is added by the run.
    pub files: Vec<(String, Vec<u8>)>,
    /// What the best checkpoint is chosen by; higher is better. Without one it is never the best.
    pub score: Option<f64>,
}

/// A file of a checkpoint, as `state.json` records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name in the checkpoint's folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// CRC-32 (IEEE) of its content.
    pub crc32: u32,
}

/// `state.json`: what the checkpoint holds, and what `metrics.jsonl` held when it was made, so
/// that a resumed run rewinds to exactly there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) format: u32,
    pub(crate) step: u64,
    #[serde(deserialize_with = "exact")]
    pub(crate) score: Option<f64>,
    pub(crate) metrics: Prefix,
    pub(crate) files: Vec<FileEntry>,
}

impl State {
    /// The state of a checkpoint at `step`, after whose line `metrics.jsonl` is `metrics`.
    ///
    /// # Errors
    /// Names that are not plain, are used twice or are `state.json`; a score that is not finite.
    pub(crate) fn new(step: u64, files: &CheckpointFiles, metrics: Prefix) -> Result<Self> {
        let mut entries: Vec<FileEntry> = Vec::with_capacity(files.files.len());
        for (name, bytes) in &files.files {
            check_name(name)?;
            let refuse = |reason| RunError::FileName { name: name.clone(), reason };
            if name == STATE {
                return Err(refuse("the run directory writes this file itself"));
            }
            if entries.iter().any(|e| e.name == *name) {
                return Err(refuse("it is used twice in one checkpoint"));
            }
            let (name, crc32) = (name.clone(), crc32fast::hash(bytes));
            entries.push(FileEntry { name, bytes: bytes.len() as u64, crc32 });
        }
        if let Some(score) = files.score.filter(|s| !s.is_finite()) {
            return Err(RunError::Score { step, score });
        }
        Ok(Self { format: FORMAT, step, score: files.score, metrics, files: entries })
    }

    /// The bytes of `state.json`.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        encode(self, Path::new(STATE))
    }

    /// What the manifest records of it.
    pub(crate) fn entry(&self, encoded: &[u8]) -> CheckpointEntry {
        CheckpointEntry {
            step: self.step,
            score: self.score,
            state_bytes: encoded.len() as u64,
            state_crc32: crc32fast::hash(encoded),
        }
    }

    /// Reads `state.json` of a committed checkpoint and compares it with the manifest's record.
    pub(crate) fn read(root: &Path, entry: &CheckpointEntry) -> Result<Self> {
        let path = checkpoint_dir(root, entry.step).join(STATE);
        let bytes = read_checked(&path, entry.state_bytes, entry.state_crc32)?;
        serde_json::from_slice(&bytes).map_err(|e| RunError::corrupt(&path, e.to_string()))
    }
}

/// A committed checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointRef {
    /// The training step after which it was made.
    pub step: u64,
    /// What the best is chosen by.
    pub score: Option<f64>,
    /// Its folder.
    pub dir: PathBuf,
    /// Its files, `state.json` not among them, in the order in which they were given.
    pub files: Vec<FileEntry>,
}

impl CheckpointRef {
    pub(crate) fn new(root: &Path, state: State) -> Self {
        let dir = checkpoint_dir(root, state.step);
        Self { step: state.step, score: state.score, dir, files: state.files }
    }

    /// The content of a file, compared with its recorded length and checksum.
    ///
    /// # Errors
    /// A name that the checkpoint does not have; a file that is missing or damaged.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.dir.join(name);
        let entry = self
            .files
            .iter()
            .find(|e| e.name == name)
            .ok_or_else(|| RunError::corrupt(&path, "the checkpoint has no such file"))?;
        read_checked(&path, entry.bytes, entry.crc32)
    }

    /// Reads every file once and compares it with its record.
    ///
    /// # Errors
    /// The first file that is missing or damaged.
    pub fn verify(&self) -> Result<()> {
        self.files.iter().try_for_each(|entry| {
            read_checked(&self.dir.join(&entry.name), entry.bytes, entry.crc32).map(drop)
        })
    }
}

/// Reads a file whose length and CRC-32 are known.
pub(crate) fn read_checked(path: &Path, len: u64, crc32: u32) -> Result<Vec<u8>> {
    let found = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Err(RunError::corrupt(path, "it is missing"));
        }
        Err(error) => return Err(RunError::io("read", path, 0, error)),
    };
    if found != len {
        return Err(RunError::corrupt(path, format!("it has {found} bytes instead of {len}")));
    }
    let bytes = fs::read(path).map_err(|e| RunError::io("read", path, 0, e))?;
    if bytes.len() as u64 != len || crc32fast::hash(&bytes) != crc32 {
        return Err(RunError::corrupt(path, "its content does not match its checksum"));
    }
    Ok(bytes)
}
