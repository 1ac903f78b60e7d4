//! Model directories in Hugging Face's form: one file of weights or several with an index, each
//! read tensor by tensor from its mapping straight into the model's buffer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::checkpoint::{
    CONFIG_FILE, CheckpointError, MODEL_FILE, TOKENIZER_FILE, check_vocabulary,
};
use crate::config::ModelConfig;
use crate::gguf::{is_gguf, load_gguf};
use crate::large_pages::zeros;
use crate::loaded::LoadedModel;
use crate::mapped::MappedFile;
use crate::params::{Layout, Model};
use crate::side_files::SideFiles;
use crate::tensor_file::{TensorFile, TensorFileError};
use crate::tokenizer::Tokenizer;

/// Says which file of several holds which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// No tokenizer and no index in a model directory is larger.
const TEXT_LIMIT: u64 = 512 << 20;
/// No other file of text is.
const SETTINGS_LIMIT: u64 = 16 << 20;
/// Elements that are converted between two releases of mapped pages.
const STRIDE: usize = 1 << 21;

/// Reads a model directory: `config.json`, `model.safetensors` or the files that
/// `model.safetensors.index.json` names, `tokenizer.json`, and where they exist
/// `tokenizer_config.json`, `chat_template.jinja` and `generation_config.json`.
///
/// # Errors
/// Missing, truncated or foreign files; each error names the file, and the tensor and its offset
/// where there is one.
pub fn load_directory(dir: &Path) -> Result<LoadedModel, CheckpointError> {
    let (model, tokenizer) = weights_and_words(dir)?;
    LoadedModel::new(model, tokenizer, SideFiles::read(dir)?, &|file| dir.join(file))
}

/// Reads the model and the tokenizer of a directory or of a GGUF file.
///
/// # Errors
/// As [`load_path`](crate::load_path).
pub fn load_model(path: &Path) -> Result<(Model, Tokenizer), CheckpointError> {
    if is_gguf(path) {
        let loaded = load_gguf(path).map_err(|source| CheckpointError::Gguf {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        return Ok((loaded.model, loaded.vocabulary.tokenizer));
    }
    weights_and_words(path)
}

fn weights_and_words(dir: &Path) -> Result<(Model, Tokenizer), CheckpointError> {
    let (config, tokenizer) =
        parse_texts(dir, &required(dir, CONFIG_FILE)?, &required(dir, TOKENIZER_FILE)?)?;
    let paths = weight_files(dir)?;
    let mut maps = Vec::with_capacity(paths.len());
    for path in paths.keys() {
        let io = |source| CheckpointError::Io { path: path.clone(), source };
        maps.push(MappedFile::open(path).map_err(io)?);
    }
    let mut files = Vec::with_capacity(maps.len());
    for ((path, names), map) in paths.iter().zip(&maps) {
        let refuse = |source| CheckpointError::Tensors { path: path.clone(), source };
        let tensors = TensorFile::parse(map.bytes()).map_err(refuse)?;
        if let Some(names) = names {
            if let Some(tensor) = names.iter().find(|n| tensors.describe(n).is_none()) {
                return Err(refuse(TensorFileError::Missing { tensor: tensor.clone() }));
            }
            if let Some(tensor) = tensors.names().find(|n| !names.contains(*n)) {
                let reason = format!(
                    "tensor {tensor:?} of {} is not listed, or listed in another file",
                    path.display()
                );
                return Err(CheckpointError::Config { path: dir.join(INDEX_FILE), reason });
            }
        }
        files.push(Weights { path, tensors, map: Some(map) });
    }
    Ok((assemble(config, &files)?, tokenizer))
}

/// The same from the contents of the three files, for weights inside the program.
///
/// # Errors
/// As [`load_model`].
pub fn model_from_bytes(
    config: &[u8],
    weights: &[u8],
    tokenizer: &[u8],
) -> Result<(Model, Tokenizer), CheckpointError> {
    let (config, tokenizer) = parse_texts(Path::new(""), config, tokenizer)?;
    let path = Path::new(MODEL_FILE);
    let tensors = TensorFile::parse(weights)
        .map_err(|source| CheckpointError::Tensors { path: path.to_owned(), source })?;
    Ok((assemble(config, &[Weights { path, tensors, map: None }])?, tokenizer))
}

fn parse_texts(
    dir: &Path,
    config: &[u8],
    tokenizer: &[u8],
) -> Result<(ModelConfig, Tokenizer), CheckpointError> {
    let config: ModelConfig = serde_json::from_slice(config).map_err(|e| {
        CheckpointError::Config { path: dir.join(CONFIG_FILE), reason: e.to_string() }
    })?;
    let tokenizer = Tokenizer::from_bytes(tokenizer)
        .map_err(|source| CheckpointError::Tokenizer { path: dir.join(TOKENIZER_FILE), source })?;
    check_vocabulary(&config, &tokenizer)?;
    Ok((config, tokenizer))
}

/// One file of weights.
struct Weights<'a> {
    path: &'a Path,
    tensors: TensorFile<'a>,
    map: Option<&'a MappedFile>,
}

impl Weights<'_> {
    fn refuse(&self, source: TensorFileError) -> CheckpointError {
        CheckpointError::Tensors { path: self.path.to_owned(), source }
    }

    /// Converts a tensor piece by piece, giving back the pages of every piece.
    fn read(&self, name: &str, shape: &[usize], out: &mut [f32]) -> Result<(), TensorFileError> {
        self.tensors.check(name, shape, out.len())?;
        for (i, part) in out.chunks_mut(STRIDE).enumerate() {
            let bytes = self.tensors.read_part(name, i * STRIDE, part)?;
            if let Some(map) = self.map {
                map.release(bytes);
            }
        }
        Ok(())
    }
}

/// The model of a configuration from all tensors of `files`.
fn assemble(config: ModelConfig, files: &[Weights<'_>]) -> Result<Model, CheckpointError> {
    let holder = |name: &str| {
        files.iter().find(|f| f.tensors.describe(name).is_some()).ok_or_else(|| {
            let path = files.first().map_or_else(PathBuf::new, |f| f.path.to_owned());
            let source = TensorFileError::Missing { tensor: name.to_owned() };
            CheckpointError::Tensors { path, source }
        })
    };
    // A configuration larger than the files is refused before anything is allocated for it: first
    // the number of layers, which bounds the layout, then every tensor.
    let last = format!("model.layers.{}.input_layernorm.weight", config.num_layers - 1);
    holder("model.embed_tokens.weight")?;
    holder(&last)?;
    let layout = Layout::new(&config);
    for tensor in layout.entries() {
        let file = holder(&tensor.name)?;
        file.tensors
            .check(&tensor.name, &tensor.shape, tensor.range.len())
            .map_err(|e| file.refuse(e))?;
    }
    let known: BTreeSet<&str> = layout.entries().iter().map(|t| t.name.as_str()).collect();
    for file in files {
        let foreign = |name: &&str| {
            let tied = config.tie_word_embeddings && *name == "lm_head.weight";
            !known.contains(name) && !tied && !name.ends_with("rotary_emb.inv_freq")
        };
        if let Some(tensor) = file.tensors.names().find(foreign) {
            let (path, tensor) = (file.path.to_owned(), tensor.to_owned());
            return Err(CheckpointError::UnknownTensor { path, tensor });
        }
    }
    let mut params = zeros(layout.len());
    for tensor in layout.entries() {
        let file = holder(&tensor.name)?;
        file.read(&tensor.name, &tensor.shape, &mut params[tensor.range.clone()])
            .map_err(|e| file.refuse(e))?;
    }
    Ok(Model::from_params(config, params)?)
}

/// Tensors that the index promises in a file; nothing where there is no index.
type Promised = Option<BTreeSet<String>>;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files of weights, and what the index says is in each.
fn weight_files(dir: &Path) -> Result<BTreeMap<PathBuf, Promised>, CheckpointError> {
    let single = dir.join(MODEL_FILE);
    let index = dir.join(INDEX_FILE);
    if single.exists() || !index.exists() {
        return Ok(BTreeMap::from([(single, None)]));
    }
    let names = index_files(&required(dir, INDEX_FILE)?)
        .map_err(|reason| CheckpointError::Config { path: index, reason })?;
    Ok(names.into_iter().map(|(name, tensors)| (dir.join(name), Some(tensors))).collect())
}

/// Files that an index names, each with its tensors.
///
/// # Errors
/// No index, or a name that is not that of a file beside it.
pub fn index_files(index: &[u8]) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let index: Index = serde_json::from_slice(index).map_err(|e| e.to_string())?;
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (tensor, file) in index.weight_map {
        // Nothing outside the directory is ever opened.
        let plain = file.ends_with(".safetensors")
            && !file.starts_with('.')
            && !file.contains(['/', '\\', ':', '\0']);
        if !plain {
            return Err(format!(
                "tensor {tensor:?} is said to be in {file:?}, which is not the \
                                name of a safetensors file beside the index"
            ));
        }
        files.entry(file).or_default().insert(tensor);
    }
    if files.is_empty() {
        return Err("weight_map names no tensor".to_owned());
    }
    Ok(files)
}

fn required(dir: &Path, name: &str) -> Result<Vec<u8>, CheckpointError> {
    let path = dir.join(name);
    let io = |source| CheckpointError::Io { path: path.clone(), source };
    let length = std::fs::metadata(&path).map_err(io)?.len();
    let limit = match name {
        TOKENIZER_FILE | INDEX_FILE => TEXT_LIMIT,
        _ => SETTINGS_LIMIT,
    };
    if length > limit {
        let reason = format!("{length} bytes; at most {limit} are read");
        return Err(CheckpointError::Config { path, reason });
    }
    std::fs::read(&path).map_err(io)
}

pub(crate) fn optional(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
    match required(dir, name) {
        Err(CheckpointError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}
