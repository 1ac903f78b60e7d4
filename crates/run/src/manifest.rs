//! `manifest.json`: the one file that says what of a run is committed.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::layout::MANIFEST;
use crate::{Result, RunError};

/// The version of the run directory's format that this crate writes and reads.
pub const FORMAT: u32 = 1;

/// The committed part of an appended file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its number of lines.
    pub lines: u64,
    /// CRC-32 (IEEE) of its bytes.
    pub crc32: u32,
}

impl Prefix {
    /// The prefix with one more line, its newline included.
    pub(crate) fn with_line(self, line: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new_with_initial_len(self.crc32, self.bytes);
        hasher.update(line);
        Self {
            bytes: self.bytes + line.len() as u64,
            lines: self.lines + 1,
            crc32: hasher.finalize(),
        }
    }
}

/// A committed trajectory file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrajectoryEntry {
    /// The training step.
    pub step: u64,
    /// Agent steps in it.
    pub rows: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// CRC-32 (IEEE) of the file.
    pub crc32: u32,
}

/// A committed checkpoint. Its `state.json` lists the files; the manifest vouches for that list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointEntry {
    /// The training step.
    pub step: u64,
    /// What the best checkpoint is chosen by; higher is better.
    #[serde(deserialize_with = "exact")]
    pub score: Option<f64>,
    /// Length of `state.json` in bytes.
    pub state_bytes: u64,
    /// CRC-32 (IEEE) of `state.json`.
    pub state_crc32: u32,
}

/// `manifest.json`. Nothing in it depends on a clock, a path or a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The last committed step; none before the first commit.
    pub step: Option<u64>,
    /// Step of the checkpoint with the highest score, the earliest of equals.
    pub best: Option<u64>,
    /// The committed part of `metrics.jsonl`.
    pub metrics: Prefix,
    /// Checkpoints that are kept, by step.
    pub checkpoints: Vec<CheckpointEntry>,
    /// Trajectory files, by step.
    pub trajectories: Vec<TrajectoryEntry>,
    info: Box<RawValue>,
}

impl Manifest {
    /// The manifest of a run that has no step yet.
    pub(crate) fn new(info: Box<RawValue>) -> Self {
        Self {
            format: FORMAT,
            step: None,
            best: None,
            metrics: Prefix::default(),
            checkpoints: Vec::new(),
            trajectories: Vec::new(),
            info,
        }
    }

    /// What the run's creator recorded about it.
    pub fn info(&self) -> serde_json::Value {
        serde_json::from_str(self.info.get()).unwrap_or_default()
    }

    /// The checkpoint of a step.
    pub fn checkpoint(&self, step: u64) -> Option<&CheckpointEntry> {
        self.checkpoints.iter().find(|c| c.step == step)
    }

    /// Sets [`Manifest::best`] from the scores.
    pub(crate) fn choose_best(&mut self) {
        let mut best: Option<(f64, u64)> = None;
        for checkpoint in &self.checkpoints {
            if let Some(score) = checkpoint.score
                && best.is_none_or(|(highest, _)| score > highest)
            {
                best = Some((score, checkpoint.step));
            }
        }
        self.best = best.map(|(_, step)| step);
    }

    /// Drops every checkpoint but the `last` newest and the best; gives the steps of those
    /// dropped. The newest always stays.
    pub(crate) fn drop_checkpoints(&mut self, last: usize) -> Vec<u64> {
        self.choose_best();
        let first_kept = self.checkpoints.len().saturating_sub(last.max(1));
        let best = self.best;
        let (mut index, mut dropped) = (0, Vec::new());
        self.checkpoints.retain(|c| {
            let keep = index >= first_kept || Some(c.step) == best;
            index += 1;
            if !keep {
                dropped.push(c.step);
            }
            keep
        });
        dropped
    }

    /// The manifest as it was when `step` was the last one (none: before the first), as far as
    /// it can be known; `metrics` is the prefix at that step.
    pub(crate) fn rewound(&self, step: Option<u64>, metrics: Prefix) -> Self {
        let mut past = self.clone();
        let within = |s: u64| step.is_some_and(|last| s <= last);
        past.step = step;
        past.metrics = metrics;
        past.checkpoints.retain(|c| within(c.step));
        past.trajectories.retain(|t| within(t.step));
        past.choose_best();
        past
    }

    /// The bytes of `manifest.json`.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        encode(self, Path::new(MANIFEST))
    }

    /// Reads `manifest.json` of the run in `root`.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let path = root.join(MANIFEST);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(RunError::NotARun { path: root.to_owned() });
            }
            Err(error) => return Err(RunError::io("read", &path, 0, error)),
        };
        Self::decode(&path, &bytes)
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u64,
        }
        let damaged = |error: &serde_json::Error| RunError::Manifest {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
            reason: error.to_string(),
        };
        // The version first: another version may have other fields.
        let Version { format } = serde_json::from_slice(bytes).map_err(|e| damaged(&e))?;
        if format != u64::from(FORMAT) {
            return Err(RunError::OtherFormat {
                path: path.to_owned(),
                found: format,
                supported: FORMAT,
            });
        }
        serde_json::from_slice(bytes).map_err(|e| damaged(&e))
    }
}

/// JSON with a newline at its end; the same bytes for the same value.
pub(crate) fn encode<T: Serialize>(value: &T, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| RunError::Io {
        action: "encode",
        path: path.to_owned(),
        source: e.into(),
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A number read back to the bit (`serde_json` alone may miss the last one), so that a manifest
/// that is read and written again keeps its bytes.
pub(crate) fn exact<'de, D: Deserializer<'de>>(source: D) -> Result<Option<f64>, D::Error> {
    let Some(raw) = Option::<Box<RawValue>>::deserialize(source)? else { return Ok(None) };
    raw.get().trim().parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(scores: &[Option<f64>]) -> Manifest {
        let info = RawValue::from_string(r#"{"b":1,"a":0.1}"#.to_owned()).unwrap();
        let mut manifest = Manifest::new(info);
        for (step, &score) in scores.iter().enumerate() {
            manifest.checkpoints.push(CheckpointEntry {
                step: step as u64,
                score,
                state_bytes: 1,
                state_crc32: 2,
            });
        }
        manifest
    }

    fn kept(manifest: &Manifest) -> Vec<u64> {
        manifest.checkpoints.iter().map(|c| c.step).collect()
    }

    #[test]
    fn best_and_last_are_always_kept() {
        let mut m = manifest(&[Some(0.1), Some(0.9), Some(0.9), None, Some(0.2)]);
        assert_eq!(m.drop_checkpoints(0), [0, 2, 3]);
        assert_eq!(kept(&m), [1, 4]);
        assert_eq!(m.best, Some(1), "the earliest of equals");

        let mut m = manifest(&[None, None, None]);
        assert_eq!(m.drop_checkpoints(2), [0]);
        assert_eq!((kept(&m), m.best), (vec![1, 2], None));
    }

    #[test]
    fn decoding_and_encoding_keeps_every_byte() {
        let scores = [0.1 + 0.2, 1.0 / 3.0, 2.2250738585072014e-308, -0.0, 5e-324, 1.0];
        let mut m = manifest(&scores.map(Some));
        m.choose_best();
        let bytes = m.encode().unwrap();
        let again = Manifest::decode(Path::new(MANIFEST), &bytes).unwrap();
        assert_eq!(again.encode().unwrap(), bytes);
        assert_eq!(again.checkpoints, m.checkpoints);
    }

    #[test]
    fn every_truncation_is_an_error_that_says_where() {
        let bytes = manifest(&[Some(0.5)]).encode().unwrap();
        let whole = bytes.len() - 1;
        for len in 0..whole {
            match Manifest::decode(Path::new("m"), &bytes[..len]) {
                Err(RunError::Manifest { .. }) => {}
                other => panic!("{len}: {other:?}"),
            }
        }
    }

    #[test]
    fn another_version_is_named_even_with_other_fields() {
        let error = Manifest::decode(Path::new("m"), br#"{"format":2,"new":[]}"#).unwrap_err();
        assert!(matches!(error, RunError::OtherFormat { found: 2, supported: 1, .. }));
        let text = error.to_string();
        assert!(text.contains("format 2") && text.contains("format 1"), "{text}");
    }

    #[test]
    fn the_running_checksum_is_that_of_the_whole() {
        let prefix = Prefix::default().with_line(b"{\"a\":1}\n").with_line(b"{}\n");
        assert_eq!(prefix.crc32, crc32fast::hash(b"{\"a\":1}\n{}\n"));
        assert_eq!((prefix.bytes, prefix.lines), (11, 2));
    }
}
