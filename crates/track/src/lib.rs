//! Runs mirrored to experiment trackers.
//!
//! The run directory is the truth; a [`Mirror`] follows it and repeats it elsewhere, while the run
//! is written or afterwards. A tracker that is slow or gone therefore costs training nothing, and
//! nothing is lost: the server itself is asked what it has before anything is sent, so that an upload
//! that was interrupted anywhere goes on without gaps and without points told twice.
//!
//! ```text
//! Follower (empg-run) ── FollowedStep ──► Mirror ── points, params, tags ──► Mlflow ──► Connection
//! ```
//!
//! Useful for: MLflow's tracking servers, by their REST API. Not useful for: trackers that are spoken
//! to through a Python package, which the wheel's `empg.track` follows runs for.

mod connection;
mod error;
mod mirror;
mod mlflow;
mod names;
mod settings;

pub use connection::{Address, Credentials, Trust};
pub use error::TrackError;
pub use mirror::{Mirror, MirrorOptions, Passed, Status};

/// The result of everything here.
pub type Result<T, E = TrackError> = std::result::Result<T, E>;
