//! A tokenizer in the lists that a GGUF file has for it.

use serde_json::Value;

use super::error::GgufError;
use super::pre_tokenizer::PreTokenizer;
use super::vocabulary::token_type;
use crate::tokenizer::Tokenizer;

/// Tokens, what each is, and merges.
#[derive(Debug)]
pub(super) struct WrittenVocabulary {
    /// Name of the way that text is split.
    pub(super) pre: &'static str,
    /// By id; as many as the model has rows.
    pub(super) tokens: Vec<String>,
    /// By id.
    pub(super) types: Vec<i32>,
    /// Two tokens with a blank between them, in order of rank.
    pub(super) merges: Vec<String>,
}

impl WrittenVocabulary {
    /// # Errors
    /// A tokenizer that is not byte-level BPE, splits text in a way that has no name in GGUF, or has
    /// more than `size` tokens.
    pub(super) fn new(tokenizer: &Tokenizer, size: usize) -> Result<Self, GgufError> {
        let json: Value = serde_json::from_slice(&tokenizer.to_bytes())
            .map_err(|e| GgufError::Vocabulary { reason: e.to_string() })?;
        let model = &json["model"];
        if model["type"].as_str().is_some_and(|t| t != "BPE") || !model["merges"].is_array() {
            return Err(unsupported("a tokenizer without byte-pair merges"));
        }
        let pre = PreTokenizer::recognise(&json["pre_tokenizer"]).ok_or_else(|| {
            unsupported("a tokenizer that splits text in a way without a name in GGUF")
        })?;
        let normalizer = &json["normalizer"];
        let plain = normalizer.is_null()
            || normalizer["normalizers"].as_array().is_some_and(Vec::is_empty)
            || *normalizer == pre.normalizer();
        if !plain {
            return Err(unsupported("a tokenizer that rewrites text before splitting it"));
        }
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if model[key].as_str().is_some_and(|mark| !mark.is_empty()) {
                return Err(unsupported(&format!("a tokenizer with a {key}")));
            }
        }
        if model["ignore_merges"] == true && !pre.ignores_merges() {
            return Err(unsupported("ignore_merges with this way of splitting text"));
        }
        let mut tokens = vec![None; size];
        let mut place = |id: Option<u64>, token: &str, kind: i32| match id {
            Some(id) if (id as usize) < size => {
                tokens[id as usize] = Some((token.to_owned(), kind));
                Ok(())
            }
            id => Err(GgufError::Vocabulary {
                reason: format!("token {token:?} has id {id:?}, the model has {size} rows"),
            }),
        };
        for (token, id) in model["vocab"].as_object().into_iter().flatten() {
            place(id.as_u64(), token, token_type::NORMAL)?;
        }
        for added in json["added_tokens"].as_array().into_iter().flatten() {
            let kind = if added["special"] == true {
                token_type::CONTROL
            } else {
                token_type::USER_DEFINED
            };
            place(added["id"].as_u64(), added["content"].as_str().unwrap_or_default(), kind)?;
        }
        // Rows without a token still need distinct names.
        let (tokens, types) = tokens
            .into_iter()
            .enumerate()
            .map(|(id, t)| t.unwrap_or_else(|| (format!("[PAD{id}]"), token_type::UNUSED)))
            .unzip();
        let merges = model["merges"].as_array().into_iter().flatten().enumerate();
        let merges = merges
            .map(|(index, merge)| match (merge.as_str(), merge.as_array().map(Vec::as_slice)) {
                (Some(both), _) => Ok(both.to_owned()),
                (None, Some([Value::String(left), Value::String(right)])) => {
                    Ok(format!("{left} {right}"))
                }
                _ => Err(GgufError::Vocabulary {
                    reason: format!("merge {index} is not two tokens"),
                }),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { pre: pre.name(), tokens, types, merges })
    }
}

fn unsupported(what: &str) -> GgufError {
    GgufError::Unsupported { what: format!("{what} (for export as GGUF)") }
}
