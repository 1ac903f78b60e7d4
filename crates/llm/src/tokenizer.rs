//! Text to tokens and back: a `tokenizer.json` file, run natively where its pipeline is simple.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use empg::TokenId;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokenizers::AddedToken;

use crate::tiny_tokenizer::{TURN_END, TURN_START};
use crate::word_pipeline::WordPipeline;

/// Why a tokenizer could not be read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The bytes are not a tokenizer.json.
    #[error("not a tokenizer.json: {reason}")]
    Parse {
        /// What the parser says.
        reason: String,
    },
    /// A text that the tokenizer refuses.
    #[error("cannot encode {text:?}: {reason}")]
    Encode {
        /// The first characters of the text.
        text: String,
        /// What the tokenizer says.
        reason: String,
    },
    /// Tokens that the tokenizer cannot turn into text.
    #[error("cannot decode {count} tokens: {reason}")]
    Decode {
        /// How many tokens.
        count: usize,
        /// What the tokenizer says.
        reason: String,
    },
    /// A token that a chat or a recipe needs.
    #[error("the tokenizer has no token {token:?}")]
    MissingToken {
        /// The token's text.
        token: String,
    },
}

/// A tokenizer as `tokenizer.json` describes it.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    plain: OnceLock<Box<tokenizers::Tokenizer>>,
    words: Option<WordPipeline>,
    /// What stays text in a text from outside.
    specials: Vec<AddedToken>,
    begin: Option<TokenId>,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("native", &self.words.is_some())
            .finish_non_exhaustive()
    }
}

impl Clone for Tokenizer {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            plain: OnceLock::new(),
            words: self.words.clone(),
            specials: self.specials.clone(),
            begin: self.begin,
            bytes: self.bytes.clone(),
        }
    }
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Parse`] if they are not one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let parse = |reason: String| TokenizerError::Parse { reason };
        // The crate unwraps pieces of broken JSON.
        serde_json::from_slice::<IgnoredAny>(bytes).map_err(|e| parse(e.to_string()))?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(parse)?;
        // What the last batch of whoever saved the file was cut and filled up to is no part of a
        // tokenizer; transformers sets both anew in every call too.
        inner.with_truncation(None).map_err(|e| parse(e.to_string()))?.with_padding(None);
        let added: HashMap<_, _> = inner.get_added_tokens_decoder().into_iter().collect();
        let mut specials: Vec<AddedToken> =
            added.into_values().filter(|t| t.special || is_marker(&t.content)).collect();
        specials.sort_by(|a, b| a.content.cmp(&b.content));
        // Some files have ChatML's tokens among the ordinary ones, as a part of what is said.
        let is_turn = |t: &&AddedToken| [TURN_START, TURN_END].contains(&t.content.as_str());
        let turns = specials.iter().filter(is_turn).map(special);
        inner.add_special_tokens(turns).map_err(|e| parse(e.to_string()))?;
        let words = WordPipeline::recognise(bytes);
        let (plain, bytes) = (OnceLock::new(), bytes.to_vec());
        Ok(Self { inner, plain, words, specials, begin: None, bytes })
    }

    /// Reads a `tokenizer.json` file.
    ///
    /// # Errors
    /// A file that cannot be read or is not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let bytes = std::fs::read(path)
            .map_err(|source| TokenizerError::Read { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes)
    }

    /// The `tokenizer.json` that this tokenizer was read from, byte for byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// Tokens of `text`; special tokens that are spelt out in it become themselves.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        match &self.words {
            Some(words) => Ok(words.encode(text)),
            None => Self::run(&self.inner, text),
        }
    }

    /// Tokens of text from outside: a special token spelt out in it stays ordinary text, so that
    /// an observation can never end a turn. So does every added token of the form `<|…|>`, which
    /// some files do not mark as special.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_text(&self, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        if let Some(words) = &self.words {
            return Ok(words.encode_plain(text));
        }
        if !self.specials.iter().any(|s| text.contains(s.content.as_str())) {
            return Self::run(&self.inner, text);
        }
        if let Some(plain) = self.plain.get() {
            return Self::run(plain, text);
        }
        let mut copy = self.inner.clone();
        copy.add_special_tokens(self.specials.iter().map(special))
            .map_err(|e| TokenizerError::Parse { reason: e.to_string() })?;
        copy.set_encode_special_tokens(true);
        Self::run(self.plain.get_or_init(|| Box::new(copy)), text)
    }

    /// The same as [`Self::encode`] by the `tokenizers` crate alone; what the native path is
    /// checked against.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_reference(&self, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        Self::run(&self.inner, text)
    }

    /// The text of `tokens`, special tokens left out, trimmed. Ids outside the vocabulary are
    /// skipped.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`].
    pub fn decode(&self, tokens: &[TokenId]) -> Result<String, TokenizerError> {
        if let Some(words) = &self.words {
            return Ok(words.decode(tokens));
        }
        self.decode_reference(tokens)
    }

    /// The same as [`Self::decode`] by the `tokenizers` crate alone.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`].
    pub fn decode_reference(&self, tokens: &[TokenId]) -> Result<String, TokenizerError> {
        let text = guarded(|| self.inner.decode(tokens, true))
            .map_err(|reason| TokenizerError::Decode { count: tokens.len(), reason })?;
        Ok(text.trim().to_owned())
    }

    /// Whether it is a word-level tokenizer as the embedded policy's, not a language model's.
    pub fn is_word_level(&self) -> bool {
        self.words.is_some()
    }

    /// The id of a token by its text.
    pub fn token_id(&self, token: &str) -> Option<TokenId> {
        self.inner.token_to_id(token)
    }

    /// The text of a token by its id.
    pub fn token(&self, id: TokenId) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token that must be there.
    ///
    /// # Errors
    /// [`TokenizerError::MissingToken`].
    pub fn require(&self, token: &str) -> Result<TokenId, TokenizerError> {
        self.token_id(token).ok_or_else(|| TokenizerError::MissingToken { token: token.to_owned() })
    }

    /// One more than the largest id, special tokens included: the least vocabulary that a model
    /// for this tokenizer needs.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1)
    }

    /// The token that a conversation begins with, where the model that it was loaded with begins
    /// conversations so: see [`load_path`](crate::load_path).
    pub fn begin(&self) -> Option<TokenId> {
        self.begin
    }

    /// The same for conversations that begin with this token.
    #[must_use]
    pub fn with_begin(self, begin: Option<TokenId>) -> Self {
        Self { begin, ..self }
    }

    /// The token that `transformers` has it put in front of every text.
    pub(crate) fn first_of_text(&self) -> Option<TokenId> {
        #[derive(Deserialize)]
        struct Described {
            #[serde(default)]
            post_processor: Value,
        }
        let Described { post_processor } = serde_json::from_slice(&self.bytes).ok()?;
        let several = post_processor["processors"].as_array().map_or(&[][..], Vec::as_slice);
        let template = [&post_processor]
            .into_iter()
            .chain(several)
            .find(|step| step["type"] == "TemplateProcessing")?;
        self.token_id(template["single"][0]["SpecialToken"]["id"].as_str()?)
    }

    fn run(inner: &tokenizers::Tokenizer, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        let encoding = guarded(|| inner.encode_fast(text, false)).map_err(|reason| {
            TokenizerError::Encode { text: text.chars().take(80).collect(), reason }
        })?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// Whether a token reads as one that means something to a chat.
fn is_marker(token: &str) -> bool {
    token.len() > 4 && token.starts_with("<|") && token.ends_with("|>")
}

/// The same token, marked as special.
fn special(token: &AddedToken) -> AddedToken {
    AddedToken { special: true, ..token.clone() }
}

/// Runs the `tokenizers` crate, which panics on some files that contradict themselves: that is an
/// error of the file like any other.
fn guarded<T>(work: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("it contradicts itself: {}", text.unwrap_or("no reason is known")))
        }
    }
}
