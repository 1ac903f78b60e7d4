//! What a GGUF file says beside weights and vocabulary, gathered from a checkpoint's side files.

use std::path::Path;

use empg::TokenId;
use serde_json::Value;

use super::error::GgufError;
use super::vocabulary::GgufVocabulary;
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
    /// From the files beside the weights of a checkpoint directory, as far as they are there.
    /// Token ids of `generation_config.json` go before those of `config.json`, and these before the
    /// tokens that `tokenizer_config.json` spells out.
    ///
    /// # Errors
    /// Files that cannot be read or are not JSON.
    pub fn of_checkpoint(dir: &Path, tokenizer: &Tokenizer) -> Result<Self, GgufError> {
        let generation = json(&dir.join("generation_config.json"))?;
        let config = json(&dir.join("config.json"))?;
        let spelt = json(&dir.join("tokenizer_config.json"))?;
        let token = |name: &str| -> Option<TokenId> {
            let key = format!("{name}_token_id");
            let id = [&generation[&key], &config[&key]].into_iter().find_map(first_id);
            let spelt = &spelt[format!("{name}_token")];
            let text = spelt.as_str().or_else(|| spelt["content"].as_str());
            id.or_else(|| text.and_then(|t| tokenizer.token_id(t)))
        };
        let begins = begins_with(tokenizer)?;
        let template = text(&dir.join("chat_template.jinja"))?
            .or_else(|| spelt["chat_template"].as_str().map(str::to_owned));
        Ok(Self {
            name: dir.file_name().map(|name| name.to_string_lossy().into_owned()),
            chat_template: template,
            bos: begins.or_else(|| token("bos")),
            eos: token("eos"),
            padding: token("pad"),
            add_bos: begins.is_some() || spelt["add_bos_token"] == true,
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

/// An id, or the first of several.
fn first_id(value: &Value) -> Option<TokenId> {
    let value = value.as_array().and_then(|several| several.first()).unwrap_or(value);
    value.as_u64().and_then(|id| TokenId::try_from(id).ok())
}

/// The token that the tokenizer itself puts in front of a text.
fn begins_with(tokenizer: &Tokenizer) -> Result<Option<TokenId>, GgufError> {
    let json: Value = serde_json::from_slice(&tokenizer.to_bytes())
        .map_err(|e| GgufError::Vocabulary { reason: e.to_string() })?;
    let processor = &json["post_processor"];
    let several = processor["processors"].as_array().map_or_else(Vec::new, |p| p.iter().collect());
    let template =
        [processor].into_iter().chain(several).find(|step| step["type"] == "TemplateProcessing");
    let first = template.and_then(|step| step["single"][0]["SpecialToken"]["id"].as_str());
    Ok(first.and_then(|token| tokenizer.token_id(token)))
}

fn text(path: &Path) -> Result<Option<String>, GgufError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(GgufError::Io { path: path.to_owned(), source }),
    }
}

fn json(path: &Path) -> Result<Value, GgufError> {
    let Some(text) = text(path)? else { return Ok(Value::Null) };
    serde_json::from_str(&text).map_err(|e| GgufError::Io {
        path: path.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, e),
    })
}
