//! Why the decoder refuses a call.

use empg::TokenId;

use crate::decoder::SeqId;
use crate::sampling::SamplingError;

/// Why the decoder refuses a call.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A handle that was closed, or of another decoder.
    #[error("sequence {0:?} is not open")]
    UnknownSequence(SeqId),
    /// A context must begin with a token.
    #[error("a sequence needs at least one token to begin with")]
    EmptyPrefix,
    /// More tokens than the context holds.
    #[error("the context holds {max} tokens; {len} are in it and {added} more do not fit")]
    ContextFull {
        /// Tokens in the context.
        len: usize,
        /// Tokens to be added.
        added: usize,
        /// The limit.
        max: usize,
    },
    /// A token outside the vocabulary.
    #[error("token {token} at index {index} is outside the vocabulary of {vocab_size}")]
    Token {
        /// Index among the given tokens.
        index: usize,
        /// The token.
        token: TokenId,
        /// Tokens of the model.
        vocab_size: usize,
    },
    /// The same sequence twice in one call.
    #[error("sequence {0:?} is requested twice in one call")]
    Duplicate(SeqId),
    /// A context limit that the model cannot serve.
    #[error("the context limit is {max}; this model serves 1 to {positions}")]
    ContextLimit {
        /// The limit asked for.
        max: usize,
        /// Positions of the model.
        positions: usize,
    },
    /// A tape that was begun with other weights or another number type.
    #[error(
        "the tape is of other weights, which it must be restarted for, or of another number type"
    )]
    Tape,
    /// A sampling parameter.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The model's output is NaN or infinite.
    #[error("the model's output after {len} tokens is not finite; its weights have diverged")]
    NotFinite {
        /// Length of the context.
        len: usize,
    },
}
