//! What can go wrong with a run directory, where, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a run directory could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// No space is left for a file.
    #[error(
        "the disk is full: {bytes} bytes of {} could not be written; every committed step is \
         kept: free some space (or copy the run to a larger disk) and continue it with --resume",
        path.display()
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// Size of the write.
        bytes: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// A new run was asked for where one is.
    #[error(
        "{} holds a run already: continue it with --resume {}, or choose another directory",
        path.display(), path.display()
    )]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// A new run was asked for in a directory with other content.
    #[error(
        "{} is not empty and holds no run that --resume could continue (found {found}): choose \
         another directory",
        path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One of the entries that are not a run's.
        found: String,
    },
    /// There is no manifest.
    #[error(
        "{} is not a run: it has no manifest.json (a run that was stopped before its start was \
         recorded is simply started again)",
        path.display()
    )]
    NotARun {
        /// The directory.
        path: PathBuf,
    },
    /// The run was written in another format.
    #[error(
        "{} has run format {found}, this program reads and writes format {supported}: use the \
         release of empg that wrote it",
        path.display()
    )]
    OtherFormat {
        /// The manifest.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// Ours.
        supported: u32,
    },
    /// A manifest that is not what was written.
    #[error(
        "{} is damaged (line {line}, column {column}: {reason}): restore it from a copy of the \
         run; nothing else in the directory has been touched",
        path.display()
    )]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Line of the error, from 1.
        line: usize,
        /// Column of the error, from 1; 0 where the line is empty.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// Another process writes the run.
    #[error("{} is being written by another process: wait for it or stop it", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A step that does not come after the last one.
    #[error("step {step} cannot be committed after step {last}: steps only increase")]
    StepOrder {
        /// The step.
        step: u64,
        /// The last committed one.
        last: u64,
    },
    /// A name that cannot be a file of a checkpoint or a panel.
    #[error("`{name}` cannot be used as a file name: {reason}")]
    FileName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A score that cannot be compared.
    #[error("the score of checkpoint {step} is {score}: it must be finite")]
    Score {
        /// The checkpoint's step.
        step: u64,
        /// The score.
        score: f64,
    },
    /// A trajectory row whose lists differ in length.
    #[error(
        "trajectory row {row} (task {task}, turn {turn}) has {tokens} tokens, {logprobs} \
         log-probabilities and {entropies} entropies: one of each per token"
    )]
    UnevenRow {
        /// Index of the row.
        row: usize,
        /// Its task.
        task: String,
        /// Its turn.
        turn: u32,
        /// Tokens.
        tokens: usize,
        /// Log-probabilities.
        logprobs: usize,
        /// Entropies.
        entropies: usize,
    },
    /// A committed file that is not as it was written.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A line that is not a JSON object.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The manifest names checkpoints, and none of them is complete.
    #[error(
        "no checkpoint of {} is complete, so it cannot be resumed; nothing was changed. {}",
        path.display(), reasons.join("; ")
    )]
    NoUsableCheckpoint {
        /// The directory.
        path: PathBuf,
        /// What is wrong with each, newest first.
        reasons: Vec<String>,
    },
    /// The step has no trajectories.
    #[error("{} has no trajectories of step {step}", path.display())]
    NoTrajectories {
        /// The directory.
        path: PathBuf,
        /// The step.
        step: u64,
    },
}

impl RunError {
    /// An error of the system on `path`; a full disk becomes [`RunError::DiskFull`] with the size
    /// of the write that failed.
    pub(crate) fn io(action: &'static str, path: &Path, bytes: u64, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, bytes, source }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// Shorthand for [`RunError::Corrupt`].
    pub(crate) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), reason: reason.into() }
    }
}
