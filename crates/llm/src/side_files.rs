//! What lies beside a model's weights and says how it is talked to: special tokens, chat template,
//! sampling defaults. Kept as it was read, so that a model that is written anew says the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use empg::TokenId;
use serde_json::{Map, Value, json};

use crate::chat::CHAT_TEMPLATE;
use crate::chat_template::ChatTemplate;
use crate::checkpoint::{CONFIG_FILE, CheckpointError, pretty, tokenizer_config};
use crate::config::ModelConfig;
use crate::directory::optional;
use crate::generation::GenerationConfig;
use crate::gguf::GgufVocabulary;
use crate::loaded::chat_template;
use crate::tiny_tokenizer::TURN_END;
use crate::tokenizer::Tokenizer;

/// Special tokens and, in older folders, the chat template.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The special tokens alone, in older folders.
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// The chat template.
const TEMPLATE: &str = "chat_template.jinja";
/// Sampling defaults.
const GENERATION: &str = "generation_config.json";
/// Files about tokens; they belong together.
const WORDS: [&str; 3] = [TOKENIZER_CONFIG, TEMPLATE, SPECIAL_TOKENS];
/// Token ids that `config.json` may name.
const IDS: [&str; 3] = ["bos_token_id", "eos_token_id", "pad_token_id"];

/// What a model's folder or file says beside weights, shape and vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SideFiles {
    /// As they were read, by name.
    files: BTreeMap<&'static str, Vec<u8>>,
    /// Those of [`IDS`] that `config.json` names, where only with null.
    ids: Map<String, Value>,
}

/// Which file says something that cannot be used, and what.
type Wrong = (&'static str, String);

impl SideFiles {
    /// Those of a folder, as far as they are there.
    ///
    /// # Errors
    /// Files that cannot be read, or a `config.json` that is no JSON object.
    pub fn read(dir: &Path) -> Result<Self, CheckpointError> {
        let mut side = Self::default();
        for name in WORDS.into_iter().chain([GENERATION]) {
            if let Some(bytes) = optional(dir, name)? {
                side.files.insert(name, bytes);
            }
        }
        if let Some(bytes) = optional(dir, CONFIG_FILE)? {
            side.ids = serde_json::from_slice(&bytes).map_err(|e| CheckpointError::Config {
                path: dir.join(CONFIG_FILE),
                reason: e.to_string(),
            })?;
            side.ids.retain(|key, _| IDS.contains(&key.as_str()));
        }
        Ok(side)
    }

    /// What a GGUF file says, as files would say it.
    pub(crate) fn of_gguf(vocabulary: &GgufVocabulary, config: &ModelConfig) -> Self {
        let mut side = Self::default();
        let mut words = tokenizer_config(config, &vocabulary.tokenizer);
        for (name, id) in
            [("bos", vocabulary.bos), ("eos", vocabulary.eos), ("pad", vocabulary.padding)]
        {
            side.ids.insert(format!("{name}_token_id"), json!(id));
            let token = id.and_then(|id| vocabulary.tokenizer.token(id));
            words.insert(format!("{name}_token"), json!(token));
        }
        words.insert("chat_template".to_owned(), json!(vocabulary.chat_template));
        if vocabulary.add_bos {
            words.insert("add_bos_token".to_owned(), json!(true));
        }
        words.retain(|_, value| !value.is_null());
        side.files.insert(TOKENIZER_CONFIG, pretty(&words.into()));
        side
    }

    /// Those in a folder of adapters over those of the model that they belong to: what the adapters'
    /// folder does not say, the model's says. An end token of the adapters' own goes before the
    /// model's: they were trained with it.
    ///
    /// # Errors
    /// A `generation_config.json` that is no JSON object.
    pub fn over(mut self, base: &Self, tokenizer: &Tokenizer) -> Result<Self, CheckpointError> {
        let end = self.spelt("eos_token").and_then(|token| tokenizer.token_id(&token));
        if !WORDS.iter().any(|name| self.files.contains_key(name)) {
            let words = base.files.iter().filter(|(name, _)| WORDS.contains(name));
            self.files.extend(words.map(|(name, bytes)| (*name, bytes.clone())));
        }
        self.ids.clone_from(&base.ids);
        if let Some(end) = end.filter(|_| !self.ids.is_empty()) {
            ends_with(&mut self.ids, end);
        }
        if !self.files.contains_key(GENERATION)
            && let Some(bytes) = base.files.get(GENERATION)
        {
            let mut generation: Map<String, Value> = serde_json::from_slice(bytes)
                .map_err(|e| refuse(GENERATION.into(), e.to_string()))?;
            let changed = end.is_some_and(|end| ends_with(&mut generation, end));
            let bytes = if changed { pretty(&generation.into()) } else { bytes.clone() };
            self.files.insert(GENERATION, bytes);
        }
        Ok(self)
    }

    /// Those of a model that has been trained in ChatML: its end of a turn goes before the other end
    /// tokens unless it is one of them, and where there is no chat template they are ChatML's. What
    /// says nothing goes on saying nothing.
    ///
    /// # Errors
    /// Files that are no JSON objects.
    pub fn trained_in_chatml(
        &self,
        config: &ModelConfig,
        tokenizer: &Tokenizer,
    ) -> Result<Self, CheckpointError> {
        let mut side = self.clone();
        let Some(end) = tokenizer.token_id(TURN_END) else { return Ok(side) };
        if !side.ids.is_empty() {
            ends_with(&mut side.ids, end);
        }
        let object = |file: &str, bytes: &[u8]| {
            serde_json::from_slice::<Map<String, Value>>(bytes)
                .map_err(|e| refuse(file.into(), e.to_string()))
        };
        if let Some(bytes) = side.files.get_mut(GENERATION) {
            let mut generation = object(GENERATION, bytes)?;
            if ends_with(&mut generation, end) {
                *bytes = pretty(&generation.into());
            }
        }
        let words = WORDS.iter().any(|name| side.files.contains_key(name));
        if words && matches!(side.chat_template(), Ok(None)) {
            let mut words = match side.files.get(TOKENIZER_CONFIG) {
                Some(bytes) => object(TOKENIZER_CONFIG, bytes)?,
                None => tokenizer_config(config, tokenizer),
            };
            words.insert("chat_template".to_owned(), json!(CHAT_TEMPLATE));
            words.insert("eos_token".to_owned(), json!(TURN_END));
            side.files.insert(TOKENIZER_CONFIG, pretty(&words.into()));
        }
        Ok(side)
    }

    /// The chat template with the special tokens that it may name.
    pub(crate) fn chat_template(&self) -> Result<Option<ChatTemplate>, Wrong> {
        let source = match self.files.get(TEMPLATE) {
            Some(bytes) => Some(
                String::from_utf8(bytes.clone()).map_err(|_| (TEMPLATE, "not UTF-8".to_owned()))?,
            ),
            None => None,
        };
        let words = self.files.get(TOKENIZER_CONFIG).map_or(&b"{}"[..], Vec::as_slice);
        chat_template(words, source).map_err(|e| (TOKENIZER_CONFIG, e.to_string()))
    }

    /// Sampling defaults; of `config.json` the ids only, since its other keys have been found to
    /// mean something else.
    pub(crate) fn generation(&self) -> Result<GenerationConfig, Wrong> {
        let ids = GenerationConfig::from_object(self.ids.clone()).map_err(|e| (CONFIG_FILE, e))?;
        match self.files.get(GENERATION) {
            Some(bytes) => {
                Ok(GenerationConfig::from_bytes(bytes).map_err(|e| (GENERATION, e))?.or(ids))
            }
            None => Ok(ids),
        }
    }

    /// The id of `bos`, `eos` or `pad`: of the token that is spelt out, since lists of ids name end
    /// tokens of every kind, else the first of the ids.
    pub(crate) fn token(&self, name: &str, tokenizer: &Tokenizer) -> Option<TokenId> {
        let spelt = self.spelt(&format!("{name}_token"));
        let key = format!("{name}_token_id");
        spelt.and_then(|token| tokenizer.token_id(&token)).or_else(|| {
            let generation = self.object(GENERATION);
            [generation.get(&key), self.ids.get(&key)].into_iter().flatten().find_map(first_id)
        })
    }

    /// Whether the tokenizer's settings say that texts begin with `bos`.
    pub(crate) fn adds_bos(&self) -> bool {
        self.object(TOKENIZER_CONFIG).get("add_bos_token") == Some(&Value::Bool(true))
    }

    /// A special token's text, by `eos_token` and the like.
    fn spelt(&self, key: &str) -> Option<String> {
        [TOKENIZER_CONFIG, SPECIAL_TOKENS].into_iter().find_map(|file| {
            let object = self.object(file);
            let value = object.get(key)?;
            Some(value.as_str().or_else(|| value.get("content")?.as_str())?.to_owned())
        })
    }

    fn object(&self, file: &str) -> Map<String, Value> {
        let bytes = self.files.get(file).map_or(&b"{}"[..], Vec::as_slice);
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// The files to write beside weights and `tokenizer.json`; what is not said here is as `own`
    /// has it.
    pub(crate) fn written(
        &self,
        own: Vec<(&'static str, Vec<u8>)>,
    ) -> Vec<(&'static str, Vec<u8>)> {
        let words = WORDS.iter().any(|name| self.files.contains_key(name));
        let mut files = Vec::new();
        for (name, bytes) in own {
            if !(self.files.contains_key(name) || words && WORDS.contains(&name)) {
                files.push((name, bytes));
            }
        }
        files.extend(self.files.iter().map(|(name, bytes)| (*name, bytes.clone())));
        files
    }

    /// The ids that `config.json` named.
    pub(crate) fn ids(&self) -> &Map<String, Value> {
        &self.ids
    }
}

fn refuse(path: PathBuf, reason: String) -> CheckpointError {
    CheckpointError::Config { path, reason }
}

/// Puts an end token before the others, unless it is one of them; says whether anything changed.
fn ends_with(object: &mut Map<String, Value>, end: TokenId) -> bool {
    let key = "eos_token_id";
    let mut all = match object.get(key) {
        Some(Value::Array(several)) => several.clone(),
        Some(Value::Null) | None => Vec::new(),
        Some(one) => vec![one.clone()],
    };
    if all.contains(&json!(end)) {
        return false;
    }
    all.insert(0, json!(end));
    let value = if all.len() == 1 { json!(end) } else { Value::Array(all) };
    object.insert(key.to_owned(), value);
    true
}

/// An id, or the first of several.
fn first_id(value: &Value) -> Option<TokenId> {
    let value = value.as_array().and_then(|several| several.first()).unwrap_or(value);
    value.as_u64().and_then(|id| TokenId::try_from(id).ok())
}
