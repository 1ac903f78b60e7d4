//! Why a call on many environments was refused.

use super::Turn;
use crate::EnvError;

/// Why a call was refused. Except for [`VectorError::Reset`] nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// No environment at all.
    #[error("a vector needs at least one environment")]
    Empty,
    /// A split without tasks.
    #[error("the split {split} of {set} has no task{}", hint)]
    NoTasks {
        /// The task set.
        set: String,
        /// The split.
        split: &'static str,
        /// What to do, with a separator before it.
        hint: &'static str,
    },
    /// A list that does not have one entry per environment.
    #[error("{what}: {found} given for {expected} environments, one of each is needed")]
    Count {
        /// What the list holds.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The number of environments.
        expected: usize,
    },
    /// A step before the first reset.
    #[error("environment {0} has no episode: call reset first")]
    NotStarted(usize),
    /// A step after the end, without auto-reset.
    #[error(
        "the episodes of environments {} are over and auto-reset is disabled: reset these with a \
         reset mask before the next step",
        list(.0)
    )]
    Over(Vec<usize>),
    /// A reset of no environment.
    #[error("the reset mask selects no environment: at least one must be true")]
    EmptyMask,
    /// A task that the set does not have.
    #[error("environment {index}: {source}")]
    Task {
        /// The environment.
        index: usize,
        /// Why the task was refused.
        source: EnvError,
    },
    /// An environment that could not begin its episode. Those that failed have none now and go on with
    /// their next task; the others have begun theirs.
    #[error("environment {index} could not begin {task:?}: {reason}")]
    Reset {
        /// The first environment that failed.
        index: usize,
        /// Its task.
        task: String,
        /// Why.
        reason: String,
        /// What the reset gave, as if it had not failed.
        turns: Vec<Option<Turn>>,
    },
    /// The system started no threads.
    #[error("{threads} threads could not be started: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's reason.
        reason: String,
    },
}

/// The first few of a list of numbers.
fn list(numbers: &[usize]) -> String {
    let shown: Vec<String> = numbers.iter().take(8).map(usize::to_string).collect();
    let rest = numbers.len() - shown.len();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    shown.join(", ") + &more
}
