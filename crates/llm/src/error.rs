//! Why the engine refuses a batch or stops.

use empg::TokenId;
use thiserror::Error;

use crate::config::ConfigError;

/// Errors of [`Model`](crate::Model) and [`PackedBatch`](crate::PackedBatch).
#[derive(Clone, Debug, PartialEq, Error)]
pub enum EngineError {
    /// The configuration is not one that the engine computes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A flat parameter or gradient buffer of the wrong length.
    #[error("{what} holds {got} numbers, the model has {expected}")]
    BufferLength {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        got: usize,
        /// Number of parameters of the model.
        expected: usize,
    },
    /// A parameter that is not finite.
    #[error("parameter `{tensor}` is not finite at element {element}")]
    NonFiniteParameter {
        /// Name of the tensor.
        tensor: String,
        /// Index into the tensor, row-major.
        element: usize,
    },
    /// The batch has no rows.
    #[error("the packed batch is empty")]
    EmptyBatch,
    /// More rows than row numbers can address.
    #[error("the packed batch has {rows} rows; at most {max} are supported")]
    TooManyRows {
        /// Rows of the batch.
        rows: usize,
        /// Largest number supported.
        max: usize,
    },
    /// Tokens and positions differ in number.
    #[error("the packed batch has {tokens} tokens but {positions} positions")]
    PositionCount {
        /// Number of tokens.
        tokens: usize,
        /// Number of positions.
        positions: usize,
    },
    /// A token id outside the vocabulary.
    #[error("{place} {index} holds token {token}; the vocabulary has {vocab_size}")]
    Token {
        /// `row` or `target`.
        place: &'static str,
        /// Index of the row or target.
        index: usize,
        /// The token id.
        token: TokenId,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A position that the model was not built for.
    #[error("row {row} is at position {position}; the model has {max} positions")]
    Position {
        /// Row of the pack.
        row: usize,
        /// Its position.
        position: u32,
        /// `max_position_embeddings`.
        max: usize,
    },
    /// Segments must follow each other without gaps and cover every row.
    #[error(
        "segment {segment} covers rows {start}..{end}; it must begin at row {expected}, \
         not be empty and end by row {rows}"
    )]
    SegmentRange {
        /// Index of the segment.
        segment: usize,
        /// First row.
        start: usize,
        /// One past the last row.
        end: usize,
        /// Where the previous segment ended.
        expected: usize,
        /// Rows of the pack.
        rows: usize,
    },
    /// The segments end before the rows do.
    #[error("the segments cover {covered} of {rows} rows")]
    Uncovered {
        /// Rows covered.
        covered: usize,
        /// Rows of the pack.
        rows: usize,
    },
    /// A parent must come before its child and have `parent_len` tokens to show.
    #[error(
        "segment {segment} names parent {parent:?} and {parent_len} of its tokens; a parent comes \
         before its child and shows between 1 and all of its tokens, no parent shows 0"
    )]
    Parent {
        /// Index of the child segment.
        segment: usize,
        /// The parent it names.
        parent: Option<usize>,
        /// The tokens of the parent it names.
        parent_len: usize,
    },
    /// A target on a row that does not exist.
    #[error("target {target} is on row {row}; the pack has {rows} rows")]
    TargetRow {
        /// Index of the target.
        target: usize,
        /// The row it names.
        row: usize,
        /// Rows of the pack.
        rows: usize,
    },
    /// A tape that does not hold the batch.
    #[error("row {row} of the packed batch is not on the tape: {what}")]
    Tape {
        /// The first such row.
        row: usize,
        /// What was wanted.
        what: &'static str,
    },
    /// Scores need a temperature to divide by.
    #[error("temperature is {0}; scores need a finite one from 1e-20 up")]
    Temperature(f32),
    /// The model's output is not a number.
    #[error(
        "target {target} (row {row}): the model's {what} is {value}; the weights have diverged"
    )]
    NonFinite {
        /// Index of the target.
        target: usize,
        /// Its row.
        row: usize,
        /// `log-probability` or `entropy`.
        what: &'static str,
        /// The value.
        value: f32,
    },
    /// The loss callback returned a number that is not finite.
    #[error("target {target}: the loss gradient is ({dlogprob}, {dentropy})")]
    NonFiniteLoss {
        /// Index of the target.
        target: usize,
        /// dLoss/dlogp.
        dlogprob: f32,
        /// dLoss/dH.
        dentropy: f32,
    },
}
