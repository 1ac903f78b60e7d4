//! Transformer engine.
//!
//! Llama-architecture language models on the CPU in f32: [`Model::score`] and
//! [`Model::forward_backward`] over packed batches whose segments share prefixes.

mod block;
mod chat;
mod checkpoint;
mod config;
mod engine;
mod error;
mod ops;
mod packed;
mod params;
mod tensor_file;
mod tiny_tokenizer;
mod tokenizer;
mod word_pipeline;
mod cache;
mod cached_attention;
mod decoder;
mod panel_linear;
mod sampling;
mod vector;
mod workspace;

pub use chat::{CHAT_TEMPLATE, ChatMl, Role};
pub use checkpoint::{
    CONFIG_FILE, CheckpointError, MODEL_FILE, TOKENIZER_FILE, checkpoint_files, load_model,
    model_from_bytes, model_to_bytes, save_model,
};
pub use config::{ConfigError, ModelConfig};
pub use engine::TargetGrad;
pub use error::EngineError;
pub use packed::{PackedBatch, PackedSegment, Target};
pub use params::{Layout, LayerRanges, Model, TensorSpec};
pub use tensor_file::{Dtype, TensorFile, TensorFileError, TensorView, write_tensors};
pub use tiny_tokenizer::{SPECIAL_TOKENS, TURN_END, TURN_START, tiny_tokenizer};
pub use tokenizer::{Tokenizer, TokenizerError};
pub use decoder::{DecodeError, DecodeWeights, Decoder, SeqId, Turn};
pub use sampling::{SamplingError, SamplingParams};
pub use workspace::Workspace;
