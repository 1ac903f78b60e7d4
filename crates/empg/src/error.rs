//! Why credit could not be assigned.

use crate::table::StepKey;

/// What was wrong with a batch, an option or an array, and where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvantageError {
    /// No trajectory at all.
    #[error("the batch is empty: there is no trajectory to credit")]
    EmptyBatch,
    /// Trajectories, but not one step in them.
    #[error("the batch has no step: the statistics of EMPG are taken over steps")]
    NoSteps,
    /// A group whose estimator compares rollouts with each other has only one.
    #[error(
        "group {group} (task {task}) has one rollout: {estimator} compares rollouts of a group; \
         sample at least two"
    )]
    GroupOfOne {
        /// Index of the group.
        group: usize,
        /// Its task.
        task: String,
        /// The estimator's name.
        estimator: &'static str,
    },
    /// `ddof` leaves no degree of freedom.
    #[error("group {group} (task {task}) has {rollouts} rollouts: ddof {ddof} leaves none free")]
    Ddof {
        /// Index of the group.
        group: usize,
        /// Its task.
        task: String,
        /// Rollouts in the group.
        rollouts: usize,
        /// The option.
        ddof: u32,
    },
    /// An option outside its domain.
    #[error("option {name} = {value}: {needs}")]
    Option {
        /// Its name.
        name: &'static str,
        /// The value given.
        value: f64,
        /// What it must be.
        needs: &'static str,
    },
    /// A number that is NaN or infinite.
    #[error("{what} is not finite: trajectory {trajectory}{}{}", at(" step", *step), at(" token", *token))]
    NotFinite {
        /// Which quantity.
        what: &'static str,
        /// Index of the trajectory (row).
        trajectory: u64,
        /// Index of the step within the trajectory, if it belongs to one.
        step: Option<u64>,
        /// Index of the token within the trajectory (row), if one is to blame.
        token: Option<u64>,
    },
    /// The same step twice in a table gathered from shards.
    #[error("trajectory {} step {} is in the table twice", .0.trajectory, .0.step)]
    DuplicateStep(StepKey),
    /// A step without tokens.
    #[error("trajectory {trajectory} step {step}: the range {start}..{end} is empty")]
    EmptyStep {
        /// Index of the trajectory (row).
        trajectory: u64,
        /// Index of the step.
        step: u64,
        /// First token.
        start: usize,
        /// One past the last token.
        end: usize,
    },
    /// A step that overlaps the one before it, or precedes it.
    #[error(
        "trajectory {trajectory} step {step} starts at {start}, before the end of the last one"
    )]
    OutOfOrder {
        /// Index of the trajectory (row).
        trajectory: u64,
        /// Index of the step.
        step: u64,
        /// First token.
        start: usize,
    },
    /// A step that reaches past its row.
    #[error("trajectory {trajectory} step {step} ends at {end}: the row has {tokens} tokens")]
    OutOfRow {
        /// Index of the trajectory (row).
        trajectory: u64,
        /// Index of the step.
        step: u64,
        /// One past the last token.
        end: usize,
        /// Tokens in the row.
        tokens: usize,
    },
    /// Arrays whose sizes do not fit together.
    #[error("{what}: expected {expected}, got {got}")]
    Length {
        /// Which array.
        what: &'static str,
        /// The size that the others imply.
        expected: usize,
        /// Its size.
        got: usize,
    },
    /// An entry of a mask that is neither 0 nor 1.
    #[error("mask: {value} at row {row}, token {token} is neither 0 nor 1")]
    MaskValue {
        /// Index of the row.
        row: u64,
        /// Index of the token within the row.
        token: u64,
        /// The entry.
        value: f64,
    },
    /// A step of a part that the table of the whole batch lacks.
    #[error(
        "trajectory {} step {} is not in the table of the whole batch: it was gathered without \
         these rows, or under other trajectory keys", .0.trajectory, .0.step
    )]
    UnknownStep(StepKey),
    /// A step of a part that is another one in the table of the whole batch.
    #[error(
        "the {what} of trajectory {} step {} is not that of the table: two trajectories of the \
         whole batch have the same key, or the rows changed since it was gathered", .key.trajectory,
        .key.step
    )]
    StepDiffers {
        /// The step.
        key: StepKey,
        /// `entropy` or `advantage`.
        what: &'static str,
    },
    /// Bytes that are no step table.
    #[error("the bytes are no step table: {why}")]
    TableBytes {
        /// What is wrong with them.
        why: &'static str,
    },
    /// A step's index does not fit its key.
    #[error("row {row}: the index of its last step exceeds {}", u32::MAX)]
    TooManySteps {
        /// Index of the row.
        row: u64,
    },
    /// A marker of the token scan without a token.
    #[error("the {what} token sequence is empty")]
    EmptyMarker {
        /// `header` or `end`.
        what: &'static str,
    },
}

fn at(label: &str, index: Option<u64>) -> String {
    index.map_or_else(String::new, |i| format!("{label} {i}"))
}
