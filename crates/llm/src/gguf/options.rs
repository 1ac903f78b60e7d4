//! What a GGUF file says beside weights and vocabulary, gathered from a model's side files.

use empg::TokenId;

use super::error::GgufError;
use super::vocabulary::GgufVocabulary;
use crate::side_files::SideFiles;
use crate::tokenizer::Tokenizer;

/// What a file says beside the weights and the vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GgufOptions {
    /// What the model is called.
    pub name: Option<String>,
    /// The template that renders a conversation.
    pub chat_template: Option<String>,
    /// The token that begins a text.
    pub bos: Option<TokenId>,
    /// The token that ends a turn.
    pub eos: Option<TokenId>,
    /// The token that fills up a batch.
    pub padding: Option<TokenId>,
    /// Whether texts begin with `bos`.
    pub add_bos: bool,
}

impl GgufOptions {
    /// From what a model says beside its weights. A token that is spelt out goes before ids in
    /// lists, of which a file has room for one.
    ///
    /// # Errors
    /// Side files that cannot be read.
    pub fn of_model(side: &SideFiles, tokenizer: &Tokenizer) -> Result<Self, GgufError> {
        let template = side.chat_template(&|file| file.into()).map_err(|(file, reason)| {
            GgufError::Vocabulary { reason: format!("{file}: {reason}") }
        })?;
        let begins = tokenizer.first_of_text();
        Ok(Self {
            name: None,
            chat_template: template.map(|t| t.source().to_owned()),
            bos: begins.or_else(|| side.token("bos", tokenizer)),
            eos: side.token("eos", tokenizer),
            padding: side.token("pad", tokenizer),
            add_bos: begins.is_some() || side.adds_bos(),
        })
    }
}

impl From<&GgufVocabulary> for GgufOptions {
    fn from(read: &GgufVocabulary) -> Self {
        Self {
            name: None,
            chat_template: read.chat_template.clone(),
            bos: read.bos,
            eos: read.eos,
            padding: read.padding,
            add_bos: read.add_bos,
        }
    }
}
