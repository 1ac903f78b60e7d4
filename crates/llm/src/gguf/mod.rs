//! GGUF: one file with the weights of a model, its shape and its tokenizer.
//!
//! Reading checks every number against the file ([`GgufFile`]), turns quantised blocks into f32
//! ([`GgmlType`]) and rebuilds the tokenizer; [`load_gguf`] does all of it. Writing
//! ([`write_gguf`]) gives files that llama.cpp opens.

mod block;
mod cursor;
mod error;
mod file;
mod load;
mod metadata;
mod names;
mod options;
mod pre_tokenizer;
mod shape;
mod vocabulary;
mod write;
mod written_vocabulary;

pub use block::GgmlType;
pub use error::GgufError;
pub use file::{GgufFile, TensorInfo as GgufTensor};
pub use load::{GgufModel, gguf_from_bytes, is_gguf, load_gguf};
pub use metadata::{Array as GgufArray, Value as GgufValue};
pub use options::GgufOptions;
pub use vocabulary::GgufVocabulary;
pub use write::{GgufExport, export_gguf, write_gguf};
