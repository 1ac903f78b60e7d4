//! Checkpoints: a directory written as Hugging Face software reads it; `directory` reads.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::chat::template_of;
use crate::config::ModelConfig;
use crate::directory::INDEX_FILE;
use crate::error::EngineError;
use crate::gguf::GgufError;
use crate::lora::{ADAPTER_CONFIG_FILE, ADAPTER_FILE};
use crate::params::Model;
use crate::side_files::{OPTIONAL, SideFiles};
use crate::tensor_file::{Dtype, TensorFileError, TensorView, write_tensors};
use crate::tiny_tokenizer::{TURN_END, TURN_START};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Weights.
pub const MODEL_FILE: &str = "model.safetensors";
/// Shape of the model.
pub const CONFIG_FILE: &str = "config.json";
/// The tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A `config.json`, or another file of settings, that cannot be used.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Weights that are damaged or belong to another model.
    #[error("{}: {source}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TensorFileError,
    },
    /// A tensor that the configured model does not have.
    #[error("{}: tensor {tensor:?} belongs to no part of the configured model", path.display())]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tokenizer that cannot be read.
    #[error("{}: {source}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenizerError,
    },
    /// A tokenizer with more tokens than the model.
    #[error("the tokenizer has {tokens} tokens, the model only {vocab_size}")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Tokens of the model.
        vocab_size: usize,
    },
    /// A GGUF file that cannot be read.
    #[error("{}: {source}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<GgufError>,
    },
    /// Adapters that would lie in the folder of a whole model and be taken for it.
    #[error(
        "{} holds a whole model ({file}); adapters beside it would hide it: write them into a folder \
         of their own", path.display()
    )]
    WholeModel {
        /// The folder.
        path: PathBuf,
        /// The model's file that was found.
        file: &'static str,
    },
    /// A model that its own configuration refuses.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The files of a checkpoint by name; what [`save_model`] writes.
///
/// # Errors
/// A tokenizer with more tokens than the model, or parameters that do not match the layout.
pub fn checkpoint_files(
    model: &Model,
    tokenizer: &Tokenizer,
    dtype: Dtype,
) -> Result<Vec<(&'static str, Vec<u8>)>, CheckpointError> {
    checkpoint_files_beside(model, tokenizer, dtype, &SideFiles::default())
}

/// The same for a model that came with side files: special tokens, chat template and sampling defaults
/// are written as they were read. ChatML is what a model without any is given.
///
/// # Errors
/// As [`checkpoint_files`].
pub fn checkpoint_files_beside(
    model: &Model,
    tokenizer: &Tokenizer,
    dtype: Dtype,
    side: &SideFiles,
) -> Result<Vec<(&'static str, Vec<u8>)>, CheckpointError> {
    check_vocabulary(&model.config, tokenizer)?;
    let weights = model_to_bytes(model, dtype)?;
    let limit = model.config.max_position_embeddings;
    let end = tokenizer.token_id(TURN_END);
    let pad_id = pad_token(tokenizer).and_then(|t| tokenizer.token_id(t));
    let torch_type = match dtype {
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        Dtype::F32 | Dtype::U64 => "float32",
    };
    let mut config = serde_json::to_value(&model.config)
        .map_err(|e| CheckpointError::Config { path: CONFIG_FILE.into(), reason: e.to_string() })?;
    let mut ids = Map::new();
    ids.insert("bos_token_id".to_owned(), json!(null));
    ids.insert("eos_token_id".to_owned(), json!(end));
    ids.insert("pad_token_id".to_owned(), json!(pad_id));
    ids.extend(side.ids().clone());
    if let Some(config) = config.as_object_mut() {
        config.insert("torch_dtype".to_owned(), json!(torch_type));
        config.extend(ids.clone());
    }
    if side.ids().is_empty() {
        ids.insert("do_sample".to_owned(), json!(true));
        ids.insert("temperature".to_owned(), json!(1.0));
        ids.insert("max_length".to_owned(), json!(limit));
    }
    let mut files = vec![(MODEL_FILE, weights), (CONFIG_FILE, pretty(&config))];
    let mut own = tokenizer_files(&model.config, tokenizer);
    own.push(("generation_config.json", pretty(&ids.into())));
    files.extend(side.written(own));
    Ok(files)
}

/// The files of a tokenizer by name, with the chat template.
pub fn tokenizer_files(
    config: &ModelConfig,
    tokenizer: &Tokenizer,
) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (TOKENIZER_FILE, tokenizer.to_bytes()),
        ("tokenizer_config.json", pretty(&tokenizer_config(config, tokenizer).into())),
    ]
}

/// What a tokenizer of this program is written with.
pub(crate) fn tokenizer_config(config: &ModelConfig, tokenizer: &Tokenizer) -> Map<String, Value> {
    let end = tokenizer.token_id(TURN_END);
    let mut object = Map::new();
    let mut say = |key: &str, value: Value| object.insert(key.to_owned(), value);
    say("tokenizer_class", json!("PreTrainedTokenizerFast"));
    say("clean_up_tokenization_spaces", json!(false));
    say("model_max_length", json!(config.max_position_embeddings));
    say("padding_side", json!("left"));
    if let Some(pad) = pad_token(tokenizer) {
        say("pad_token", json!(pad));
    }
    if tokenizer.token_id("<|unk|>").is_some() {
        say("unk_token", json!("<|unk|>"));
    }
    if end.is_some() {
        say("eos_token", json!(TURN_END));
    }
    if end.is_some() && tokenizer.token_id(TURN_START).is_some() {
        if let Some(begin) = tokenizer.begin().and_then(|id| tokenizer.token(id)) {
            say("bos_token", json!(begin));
        }
        say("chat_template", json!(template_of(tokenizer)));
    }
    object
}

fn pad_token(tokenizer: &Tokenizer) -> Option<&'static str> {
    ["<|pad|>", "<|endoftext|>"].into_iter().find(|t| tokenizer.token_id(t).is_some())
}

/// Writes a checkpoint into `dir`, which is created: every file is written under another name,
/// synchronised and renamed, the weights last. The same model gives the same bytes.
///
/// # Errors
/// The system's, or those of [`checkpoint_files`].
pub fn save_model(
    dir: &Path,
    model: &Model,
    tokenizer: &Tokenizer,
    dtype: Dtype,
) -> Result<(), CheckpointError> {
    write_files(dir, &checkpoint_files(model, tokenizer, dtype)?)
}

/// Whether a folder can take a model, or adapters: those never go where a whole model lies, which
/// they would hide. To be asked before the work of making them.
///
/// # Errors
/// [`CheckpointError::WholeModel`].
pub fn check_folder(dir: &Path, adapters: bool) -> Result<(), CheckpointError> {
    let whole = [MODEL_FILE, INDEX_FILE, CONFIG_FILE].into_iter();
    match whole.filter(|_| adapters).find(|file| dir.join(file).exists()) {
        Some(file) => Err(CheckpointError::WholeModel { path: dir.to_owned(), file }),
        None => Ok(()),
    }
}

/// Writes files into `dir`, which is created: every file is written under another name,
/// synchronised and renamed, the first of them last. Adapters that lay there go once a whole model is
/// in their place: whoever opens the folder would add them to it. So do another model's chat
/// template, special tokens and sampling defaults, before the new weights are there.
///
/// # Errors
/// The system's, and those of [`check_folder`].
pub fn write_files(dir: &Path, files: &[(&str, Vec<u8>)]) -> Result<(), CheckpointError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Io { path, source }
    };
    let has = |name: &str| files.iter().any(|file| file.0 == name);
    check_folder(dir, has(ADAPTER_FILE))?;
    std::fs::create_dir_all(dir).map_err(io(dir))?;
    let gone = |name: &str| {
        let path = dir.join(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(&path)(e)),
            _ => Ok(()),
        }
    };
    // Adapters alone say nothing about words: what lies there was put there for them.
    if has(TOKENIZER_FILE) {
        OPTIONAL.into_iter().filter(|name| !has(name)).try_for_each(gone)?;
    }
    for (name, bytes) in files.iter().rev() {
        let path = dir.join(name);
        let part = dir.join(format!("{name}.part"));
        let mut file = std::fs::File::create(&part).map_err(io(&part))?;
        file.write_all(bytes).map_err(io(&part))?;
        file.sync_all().map_err(io(&part))?;
        std::fs::rename(&part, &path).map_err(io(&path))?;
    }
    if has(MODEL_FILE) {
        // The one that makes a folder one of adapters first.
        [ADAPTER_CONFIG_FILE, ADAPTER_FILE].into_iter().try_for_each(gone)?;
    }
    Ok(())
}

/// The weights alone as the bytes of a safetensors file.
///
/// # Errors
/// Parameters that do not match the layout.
pub fn model_to_bytes(model: &Model, dtype: Dtype) -> Result<Vec<u8>, CheckpointError> {
    if model.params.len() != model.layout.len() {
        return Err(CheckpointError::Engine(EngineError::BufferLength {
            what: "the parameter buffer",
            got: model.params.len(),
            expected: model.layout.len(),
        }));
    }
    let tensors: Vec<TensorView<'_>> = model
        .layout
        .entries()
        .iter()
        .map(|t| TensorView {
            name: &t.name,
            shape: &t.shape,
            values: &model.params[t.range.clone()],
        })
        .collect();
    // transformers asks for this mark.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_tensors(&tensors, dtype, &metadata)
        .map_err(|source| CheckpointError::Tensors { path: MODEL_FILE.into(), source })
}

pub(crate) fn check_vocabulary(
    config: &ModelConfig,
    tokenizer: &Tokenizer,
) -> Result<(), CheckpointError> {
    let (tokens, vocab_size) = (tokenizer.vocab_size(), config.vocab_size);
    if tokens > vocab_size {
        return Err(CheckpointError::Vocabulary { tokens, vocab_size });
    }
    Ok(())
}

pub(crate) fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
