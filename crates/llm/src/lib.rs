//! Transformer engine.
//!
//! Llama-architecture language models on the CPU in f32: [`Model::score`] and
//! [`Model::forward_backward`] over packed batches whose segments share prefixes.

mod attention_weights;
mod block;
mod cache;
mod cached_attention;
mod chat;
mod chat_template;
mod checkpoint;
mod config;
mod decode_error;
mod decode_pass;
mod decode_rows;
mod decode_weights;
mod decoder;
mod directory;
mod distributions;
mod engine;
mod error;
mod generation;
mod gguf;
mod large_pages;
mod loaded;
mod lora;
mod mapped;
mod ops;
mod packed;
mod pair_attention;
mod pair_linear;
mod pairs;
mod panel_linear;
mod params;
pub mod peak;
mod python_text;
mod query_tile;
mod rope_scaling;
mod sampling;
mod share;
mod side_files;
mod streaming;
mod strips;
mod tape;
mod team;
mod tensor_file;
mod thirds_linear;
mod tile_attention;
mod tile_linear;
mod tiny_tokenizer;
mod tokenizer;
mod vector;
mod word_pipeline;
mod workspace;

pub use chat::{CHAT_TEMPLATE, ChatMl, Role};
pub use chat_template::{ChatTemplate, ChatTemplateError, Message};
pub use checkpoint::{
    CONFIG_FILE, CheckpointError, MODEL_FILE, TOKENIZER_FILE, check_folder, checkpoint_files,
    checkpoint_files_beside, model_to_bytes, save_model, tokenizer_files, write_files,
};
pub use config::{ConfigError, ModelConfig};
pub use decode_error::DecodeError;
pub use decode_weights::DecodeWeights;
pub use decoder::{Decoder, SeqId, Turn};
pub use directory::{INDEX_FILE, index_files, load_directory, load_model, model_from_bytes};
pub use engine::TargetGrad;
pub use error::EngineError;
pub use generation::GenerationConfig;
pub use gguf::{
    GgmlType, GgufArray, GgufError, GgufExport, GgufFile, GgufModel, GgufOptions, GgufTensor,
    GgufValue, GgufVocabulary, export_gguf, gguf_from_bytes, is_gguf, load_gguf, write_gguf,
};
pub use large_pages::{Floats, zeros};
pub use loaded::{LoadedModel, load_path};
pub use lora::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, AdapterBase, Adapters, LoraConfig, LoraError, Module,
    adapter_base, adapter_files, adapters_from_bytes, load_adapters,
};
pub use ops::adamw::{AdamWStep, adamw_step, sum_of_squares};
pub use ops::panels::Precision;
pub use packed::{PackedBatch, PackedSegment, Target};
pub use params::{LayerRanges, Layout, Model, TensorSpec};
pub use rope_scaling::RopeScaling;
pub use sampling::{LEAST_TEMPERATURE, SamplingError, SamplingParams};
pub use share::in_pool;
pub use side_files::SideFiles;
pub use tape::{Tape, TapeError, TapeFamily, TapeRow};
pub use tensor_file::{Dtype, TensorFile, TensorFileError, TensorView, write_tensors};
pub use tiny_tokenizer::{Names, SPECIAL_TOKENS, TURN_END, TURN_START, tiny_tokenizer};
pub use tokenizer::{Tokenizer, TokenizerError};
pub use workspace::Workspace;
