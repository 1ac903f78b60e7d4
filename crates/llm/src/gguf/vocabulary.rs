//! The tokenizer of a GGUF file, rebuilt from its metadata as a `tokenizer.json`.

use std::collections::HashMap;

use empg::TokenId;
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::{Value, json};

use super::error::GgufError;
use super::file::GgufFile;
use super::pre_tokenizer::PreTokenizer;
use crate::tokenizer::Tokenizer;

/// What a token is, by the number in `tokenizer.ggml.token_type`.
pub(super) mod token_type {
    pub(in crate::gguf) const NORMAL: i32 = 1;
    pub(in crate::gguf) const CONTROL: i32 = 3;
    pub(in crate::gguf) const USER_DEFINED: i32 = 4;
    pub(in crate::gguf) const UNUSED: i32 = 5;
}

/// The tokenizer and what a chat needs to know beside it.
#[derive(Debug)]
pub struct GgufVocabulary {
    /// Byte-level byte-pair encoding.
    pub tokenizer: Tokenizer,
    /// The template that renders a conversation, in Jinja's language.
    pub chat_template: Option<String>,
    /// Whether texts begin with [`Self::bos`].
    pub add_bos: bool,
    /// The token that begins a text.
    pub bos: Option<TokenId>,
    /// The token that ends a turn.
    pub eos: Option<TokenId>,
    /// The token that fills up a batch.
    pub padding: Option<TokenId>,
}

/// Reads the vocabulary of a file.
///
/// # Errors
/// A tokenizer of another kind than byte-level BPE, or lists that do not fit together.
pub(super) fn read_vocabulary(file: &GgufFile<'_>) -> Result<GgufVocabulary, GgufError> {
    let model =
        file.text("tokenizer.ggml.model")?.ok_or_else(|| missing("tokenizer.ggml.model"))?;
    if model != "gpt2" {
        return Err(GgufError::Unsupported {
            what: format!("tokenizer.ggml.model {model:?} (gpt2, byte-level BPE, is)"),
        });
    }
    let pre = PreTokenizer::from_name(file.text("tokenizer.ggml.pre")?)?;
    if file.flag("tokenizer.ggml.add_space_prefix")? == Some(true) {
        return Err(GgufError::Unsupported {
            what: "tokenizer.ggml.add_space_prefix true".to_owned(),
        });
    }
    let tokens: Vec<&str> = texts(file, "tokenizer.ggml.tokens")?;
    if u32::try_from(tokens.len()).is_err() {
        return Err(refuse(format!("{} tokens", tokens.len())));
    }
    let types = token_types(file, tokens.len())?;
    let vocabulary = Vocabulary { tokens: &tokens, types: &types };
    let ids = vocabulary.ids()?;
    let merges = read_merges(&texts(file, "tokenizer.ggml.merges")?, &ids)?;
    let id = |key: &str| -> Result<Option<TokenId>, GgufError> {
        let Some(id) = file.count(key)? else { return Ok(None) };
        match TokenId::try_from(id) {
            Ok(small) if id < tokens.len() => Ok(Some(small)),
            _ => Err(refuse(format!("{key} is {id}, of {} tokens", tokens.len()))),
        }
    };
    let bos = id("tokenizer.ggml.bos_token_id")?;
    let add_bos = file
        .flag("tokenizer.ggml.add_bos_token")?
        .unwrap_or(pre.begins_by_default() && bos.is_some());
    let begin = bos.filter(|_| add_bos).map(|id| (id, tokens[id as usize]));
    let json = TokenizerJson {
        version: "1.0",
        truncation: (),
        padding: (),
        added_tokens: vocabulary.added(),
        normalizer: pre.normalizer(),
        pre_tokenizer: pre.description(),
        post_processor: post_processor(begin),
        decoder: json!({
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        }),
        model: BpeJson {
            r#type: "BPE",
            dropout: (),
            unk_token: (),
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: pre.ignores_merges(),
            vocab: &vocabulary,
            merges: MergesJson(&merges),
        },
    };
    let bytes = serde_json::to_vec(&json).map_err(|e| refuse(e.to_string()))?;
    Ok(GgufVocabulary {
        tokenizer: Tokenizer::from_bytes(&bytes)?,
        chat_template: file.text("tokenizer.chat_template")?.map(str::to_owned),
        add_bos,
        bos,
        eos: id("tokenizer.ggml.eos_token_id")?,
        padding: id("tokenizer.ggml.padding_token_id")?,
    })
}

fn missing(key: &str) -> GgufError {
    GgufError::MissingKey { key: key.to_owned() }
}

fn refuse(reason: String) -> GgufError {
    GgufError::Vocabulary { reason }
}

fn texts<'a>(file: &GgufFile<'a>, key: &str) -> Result<Vec<&'a str>, GgufError> {
    let array = file.array(key)?.ok_or_else(|| missing(key))?;
    let texts = array.texts().ok_or_else(|| refuse(format!("{key} is not an array of text")))?;
    Ok(texts.collect())
}

fn token_types(file: &GgufFile<'_>, tokens: usize) -> Result<Vec<i32>, GgufError> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let Some(array) = file.array(KEY)? else { return Ok(vec![token_type::NORMAL; tokens]) };
    if array.len() != tokens {
        return Err(refuse(format!("{KEY} has {} values for {tokens} tokens", array.len())));
    }
    let integers =
        array.integers().ok_or_else(|| refuse(format!("{KEY} is not an array of integers")))?;
    Ok(integers.map(|t| i32::try_from(t).unwrap_or(token_type::UNUSED)).collect())
}

/// Both parts of every merge, each checked to lead from tokens to a token.
fn read_merges<'a>(
    merges: &[&'a str],
    ids: &HashMap<&str, u32>,
) -> Result<Vec<(&'a str, &'a str)>, GgufError> {
    let mut joined = String::new();
    merges
        .iter()
        .enumerate()
        .map(|(index, merge)| {
            let parts = merge.split_once(' ').filter(|(l, r)| !l.is_empty() && !r.is_empty());
            let Some((left, right)) = parts else {
                return Err(refuse(format!("merge {index}, {merge:?}, is not two tokens")));
            };
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            match [left, right, &joined].into_iter().find(|t| !ids.contains_key(t)) {
                Some(t) => Err(refuse(format!("merge {index}, {merge:?}: {t:?} is no token"))),
                None => Ok((left, right)),
            }
        })
        .collect()
}

fn post_processor(begin: Option<(TokenId, &str)>) -> Value {
    let Some((id, token)) = begin else {
        return json!({
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true,
        });
    };
    let special = json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let sequence = |id: &str, type_id: u8| json!({ "Sequence": { "id": id, "type_id": type_id } });
    json!({
        "type": "TemplateProcessing",
        "single": [special, sequence("A", 0)],
        "pair": [special, sequence("A", 0), sequence("B", 1)],
        "special_tokens": { token: { "id": token, "ids": [id], "tokens": [token] } },
    })
}

/// Tokens by id, and what each is.
struct Vocabulary<'a> {
    tokens: &'a [&'a str],
    types: &'a [i32],
}

impl<'a> Vocabulary<'a> {
    /// Tokens that can occur, with their ids. The others only fill the table up.
    fn used(&self) -> impl Iterator<Item = (u32, &'a str, i32)> {
        let all = (0_u32..).zip(self.tokens).zip(self.types);
        all.map(|((id, token), kind)| (id, *token, *kind))
            .filter(|(_, token, kind)| *kind != token_type::UNUSED && !token.is_empty())
    }

    fn ids(&self) -> Result<HashMap<&'a str, u32>, GgufError> {
        let mut ids = HashMap::new();
        for (id, token, _) in self.used() {
            if let Some(before) = ids.insert(token, id) {
                return Err(refuse(format!("tokens {before} and {id} are both {token:?}")));
            }
        }
        Ok(ids)
    }

    /// Tokens that are found in a text before anything else.
    fn added(&self) -> Vec<AddedJson<'a>> {
        self.used()
            .filter(|(_, _, kind)| matches!(*kind, token_type::CONTROL | token_type::USER_DEFINED))
            .map(|(id, content, kind)| AddedJson {
                id,
                content,
                single_word: false,
                lstrip: false,
                rstrip: false,
                normalized: false,
                special: kind == token_type::CONTROL,
            })
            .collect()
    }
}

// Written straight from the file's text: as a tree of values it would take ten times the room.

#[derive(Serialize)]
struct TokenizerJson<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<AddedJson<'a>>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: BpeJson<'a>,
}

#[derive(Serialize)]
struct AddedJson<'a> {
    id: u32,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Serialize)]
struct BpeJson<'a> {
    r#type: &'static str,
    dropout: (),
    unk_token: (),
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: &'a Vocabulary<'a>,
    merges: MergesJson<'a>,
}

impl Serialize for Vocabulary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (id, token, _) in self.used() {
            map.serialize_entry(token, &id)?;
        }
        map.end()
    }
}

struct MergesJson<'a>(&'a [(&'a str, &'a str)]);

impl Serialize for MergesJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for pair in self.0 {
            list.serialize_element(&[pair.0, pair.1])?;
        }
        list.end()
    }
}
