//! The run directory of a training run: writer and reader side by side.
//!
//! ```text
//! runs/NAME/ config.toml manifest.json metrics.jsonl timings.jsonl events.out.tfevents.*
//!            panels/NAME.jsonl  analyses/NAME.jsonl  trajectories/step-000010.parquet
//!            checkpoints/step-000050/{the caller's files, state.json}
//!            created.json run.lock prompt.jinja (of runs with a template of their own)
//! ```
//!
//! [`RunDir`] writes: every step is one [`RunDir::commit`], whose files are written, synced and
//! renamed before `manifest.json`, which is renamed last. What the manifest names is complete;
//! anything else in the directory is a leftover that [`RunDir::resume`] removes. `manifest.json`,
//! `metrics.jsonl`, trajectories and checkpoints hold no clock reading and no host fact, so a run
//! that was killed and resumed ends with the same bytes as one that was not. Wall-clock
//! quantities live in `timings.jsonl`, `created.json` and the TensorBoard file.
//!
//! [`Run`] reads, also while the run is being written: never past what the manifest commits.
//! [`Follower`] reads a growing run piece by piece.
//!
//! Useful for: anything that must survive a kill, and for reports. Not useful for: tensors; the
//! files of a checkpoint are names and bytes here.

mod checkpoint;
mod error;
mod events;
#[cfg(test)]
mod faults;
mod follow;
mod jsonl;
#[cfg(test)]
mod kill_tests;
mod layout;
mod machine;
mod manifest;
mod reader;
mod record;
mod resume;
mod scalars;
mod storage;
mod trajectory;
mod writer;
mod writing;

pub use checkpoint::{CheckpointFiles, CheckpointRef, FileEntry};
pub use error::RunError;
pub use follow::{FollowedStep, Follower, News};
pub use machine::Machine;
pub use manifest::{CheckpointEntry, FORMAT, Manifest, Prefix, TrajectoryEntry};
pub use reader::{FileStamp, Run};
pub use record::StepRecord;
pub use scalars::scalars;
pub use trajectory::TrajectoryRow;
pub use writer::RunDir;

/// The result of everything here.
pub type Result<T, E = RunError> = std::result::Result<T, E>;
