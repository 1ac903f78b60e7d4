//! Why a GGUF file is refused.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::error::EngineError;
use crate::tokenizer::TokenizerError;

/// Errors of reading and writing GGUF; offsets count from the beginning of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The first bytes are not `GGUF`.
    #[error("not a GGUF file: it begins with {found:?}")]
    Magic {
        /// The first bytes, at most four.
        found: Vec<u8>,
    },
    /// A version of the format that is not read here.
    #[error("GGUF version {version} is not supported; versions 2 and 3 (little-endian) are")]
    Version {
        /// What the file says.
        version: u32,
    },
    /// The file ends before what it announces.
    #[error("{what} at offset {offset} needs {need} bytes, the file has {have} there: truncated?")]
    Truncated {
        /// What should lie there.
        what: String,
        /// Where.
        offset: usize,
        /// Bytes that it announces.
        need: u64,
        /// Bytes up to the end of the file.
        have: usize,
    },
    /// A metadata entry that is not what it must be.
    #[error("metadata {key:?} at offset {offset}: {reason}")]
    Metadata {
        /// The key, or its number while the key is not known.
        key: String,
        /// Where its value, or its key, lies.
        offset: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A metadata entry that must be there is not.
    #[error("metadata {key:?} is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A tensor description that cannot be.
    #[error("tensor {tensor:?}, described at offset {offset}: {reason}")]
    Tensor {
        /// Its name, or its number while the name is not known.
        tensor: String,
        /// Where its description lies.
        offset: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor whose bytes do not lie in the file.
    #[error(
        "tensor {tensor:?} occupies {bytes} bytes from offset {start}, the file has {length}: \
         truncated?"
    )]
    OutOfFile {
        /// The tensor.
        tensor: String,
        /// Its first byte.
        start: u64,
        /// How many bytes it occupies.
        bytes: u64,
        /// Length of the file.
        length: usize,
    },
    /// Two tensors share bytes.
    #[error("tensor {tensor:?} begins at offset {start}, inside {other:?}, which ends at {end}")]
    Overlap {
        /// The later tensor.
        tensor: String,
        /// Its first byte.
        start: usize,
        /// The earlier tensor.
        other: String,
        /// One past its last byte.
        end: usize,
    },
    /// Bytes behind the last tensor and what fills it up.
    #[error("{extra} bytes follow the last tensor, which ends at offset {end}")]
    Trailing {
        /// How many.
        extra: usize,
        /// Where the last tensor ends.
        end: usize,
    },
    /// A tensor that must be there is not.
    #[error("tensor {tensor:?} is missing")]
    Missing {
        /// Its name in the file.
        tensor: String,
    },
    /// A tensor that belongs to no part of the model that the metadata describe.
    #[error("tensor {tensor:?} at offset {offset} belongs to no part of the described model")]
    UnknownTensor {
        /// Its name.
        tensor: String,
        /// Its first byte.
        offset: usize,
    },
    /// A tensor of another shape than the metadata describe.
    #[error("tensor {tensor:?} at offset {offset} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// Its first byte.
        offset: usize,
        /// Its shape, rows first.
        found: Vec<usize>,
        /// The expected shape, rows first.
        expected: Vec<usize>,
    },
    /// A value that is NaN or infinite.
    #[error("tensor {tensor:?}, element {element} (offset {offset}) is not finite")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Index of the element, row-major as stored.
        element: usize,
        /// Where its block lies in the file.
        offset: usize,
    },
    /// A model or tokenizer that the file describes and this engine does not compute.
    #[error("{what} is not supported")]
    Unsupported {
        /// What.
        what: String,
    },
    /// A vocabulary that is not in order.
    #[error("tokenizer: {reason}")]
    Vocabulary {
        /// What is wrong with it.
        reason: String,
    },
    /// A tokenizer that the metadata describe wrongly.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A shape that is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A model that its own configuration refuses.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
