//! A model as it is published: weights, tokenizer, chat template, sampling defaults.

use std::path::{Path, PathBuf};

use empg::TokenId;

use crate::chat_template::ChatTemplate;
use crate::checkpoint::CheckpointError;
use crate::directory::load_directory;
use crate::generation::GenerationConfig;
use crate::gguf::{GgufModel, is_gguf, load_gguf};
use crate::lora::load_adapters;
use crate::params::Model;
use crate::side_files::{SideFiles, Wrong};
use crate::tokenizer::Tokenizer;

/// Everything that a model's directory or file holds.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// The weights.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// How conversations are written, where the model says so. A template that cannot be read is an
    /// error of rendering, not of loading.
    pub chat_template: Option<ChatTemplate>,
    /// How its authors sample, where they say so.
    pub generation: GenerationConfig,
    /// All that it says beside weights and vocabulary, to be written with it again.
    pub side: SideFiles,
}

impl LoadedModel {
    /// A model with what its side files mean; `place` is where they lie, or what holds them.
    pub(crate) fn new(
        model: Model,
        tokenizer: Tokenizer,
        side: SideFiles,
        place: &dyn Fn(&str) -> PathBuf,
    ) -> Result<Self, CheckpointError> {
        let refuse = |(file, reason): Wrong| CheckpointError::Config { path: place(file), reason };
        let chat_template = side.chat_template(place).map_err(refuse)?;
        let generation = side.generation().map_err(refuse)?;
        let begin = side.begin(&tokenizer, chat_template.as_ref());
        let tokenizer = tokenizer.with_begin(begin);
        Ok(Self { model, tokenizer, chat_template, generation, side })
    }

    /// Puts the adapters of a folder beside the weights, with what the folder says beside them.
    ///
    /// # Errors
    /// Missing, damaged or foreign files; each error names the file.
    pub fn with_adapters(self, dir: &Path) -> Result<Self, CheckpointError> {
        let Self { mut model, tokenizer, side, .. } = self;
        model.adapters = Some(load_adapters(dir, &model.config)?);
        let side = SideFiles::read(dir)?.over(&side, &tokenizer)?;
        // What is not there is the model's, wherever that lies.
        let place = |file: &str| Some(dir.join(file)).filter(|path| path.exists());
        Self::new(model, tokenizer, side, &|file| place(file).unwrap_or_else(|| file.into()))
    }

    /// Tokens that end a turn: the generation configuration's, as far as the model has them, and
    /// those of the tokenizer that end a turn of ChatML or a text.
    pub fn end_tokens(&self) -> Vec<TokenId> {
        let mut ids = self.generation.eos.clone();
        for token in [crate::TURN_END, "<|endoftext|>"] {
            ids.extend(self.tokenizer.token_id(token));
        }
        ids.retain(|id| (*id as usize) < self.model.config.vocab_size);
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// Reads a model directory or a GGUF file. Its tokenizer knows what conversations begin with: the
/// token that the chat template begins with, where there is a template, else the one that the
/// tokenizer puts in front of every text.
///
/// # Errors
/// Missing, truncated or foreign files; each error names the file, and the tensor and its offset
/// where there is one.
pub fn load_path(path: &Path) -> Result<LoadedModel, CheckpointError> {
    if !is_gguf(path) {
        return load_directory(path);
    }
    let GgufModel { model, vocabulary } = load_gguf(path).map_err(|source| {
        CheckpointError::Gguf { path: path.to_owned(), source: Box::new(source) }
    })?;
    let side = SideFiles::of_gguf(&vocabulary, &model.config);
    LoadedModel::new(model, vocabulary.tokenizer, side, &|_| path.to_owned())
}
