//! How text falls into pieces before byte-pair merging, by the name that a GGUF file has for it.

use serde_json::{Value, json};

use super::error::GgufError;

/// Pieces of the GPT-2 family: contractions, words, numbers, marks, blanks.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Numbers of up to three digits; a mark may lead a word.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with single digits.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A way of splitting text that has a name in GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreTokenizer {
    /// GPT-2's pieces.
    Gpt2,
    /// Every digit for itself, then GPT-2's pieces.
    Digits,
    /// Llama 3's pieces.
    Llama3,
    /// Qwen2's pieces, of composed characters.
    Qwen2,
    /// What a file means that names none: runs of punctuation first, then GPT-2's pieces, then
    /// numbers in threes.
    Default,
}

impl PreTokenizer {
    /// By the value of `tokenizer.ggml.pre`: every name under which llama.cpp splits, merges and
    /// begins texts as one of these does.
    pub(super) fn from_name(name: Option<&str>) -> Result<Self, GgufError> {
        Ok(match name {
            Some(
                "gpt-2" | "mpt" | "olmo" | "phi-2" | "jina-es" | "jina-de" | "jina-v2-es"
                | "jina-v2-de" | "gigachat" | "a.x-4.0" | "mellum" | "modern-bert" | "jais"
                | "trillion" | "granite-docling" | "exaone4",
            ) => Self::Gpt2,
            Some(
                "smollm" | "starcoder" | "refact" | "codeshell" | "command-r" | "exaone"
                | "minerva-7b" | "mellum2",
            ) => Self::Digits,
            Some(
                "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral"
                | "midm-2.0" | "lfm2" | "jina-v5-nano",
            ) => Self::Llama3,
            Some("qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez") => Self::Qwen2,
            Some("default") | None => Self::Default,
            Some(other) => {
                return Err(GgufError::Unsupported {
                    what: format!(
                        "tokenizer.ggml.pre {other:?} (gpt-2, smollm, starcoder, llama-bpe, qwen2, \
                         default and others that split as one of these are known)"
                    ),
                });
            }
        })
    }

    /// The name to write.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt-2",
            Self::Digits => "smollm",
            Self::Llama3 => "llama-bpe",
            Self::Qwen2 => "qwen2",
            Self::Default => "default",
        }
    }

    /// Whether a piece that is a token stays whole even where no merges lead to it.
    pub(super) fn ignores_merges(self) -> bool {
        self == Self::Llama3
    }

    /// Whether texts begin with the begin token where the file does not say.
    pub(super) fn begins_by_default(self) -> bool {
        self == Self::Llama3
    }

    /// What a `tokenizer.json` has under `normalizer`.
    pub(super) fn normalizer(self) -> Value {
        if self == Self::Qwen2 { json!({ "type": "NFC" }) } else { Value::Null }
    }

    /// What a `tokenizer.json` has under `pre_tokenizer`.
    pub(super) fn description(self) -> Value {
        let steps = match self {
            Self::Gpt2 => return byte_level(true),
            Self::Digits => {
                vec![json!({ "type": "Digits", "individual_digits": true }), byte_level(true)]
            }
            Self::Llama3 => vec![split(LLAMA3), byte_level(false)],
            Self::Qwen2 => vec![split(QWEN2), byte_level(false)],
            Self::Default => vec![
                split(r"[\p{P}\$\+<=>\^~\|]+"),
                split(GPT2),
                split(r"\p{N}+"),
                split("[0-9][0-9][0-9]"),
                byte_level(false),
            ],
        };
        json!({ "type": "Sequence", "pretokenizers": steps })
    }

    /// The one that a `tokenizer.json` describes.
    pub(super) fn recognise(described: &Value) -> Option<Self> {
        let steps = essence(described);
        [Self::Gpt2, Self::Digits, Self::Llama3, Self::Qwen2, Self::Default]
            .into_iter()
            .find(|known| essence(&known.description()) == steps)
    }
}

fn byte_level(regex: bool) -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": regex,
    })
}

fn split(pattern: &str) -> Value {
    json!({
        "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false,
    })
}

/// The steps without what does not change tokens; empty for what is not known here.
fn essence(described: &Value) -> Vec<Value> {
    let single = [described.clone()];
    let steps = match described["pretokenizers"].as_array() {
        Some(steps) => steps.as_slice(),
        None => &single,
    };
    steps
        .iter()
        .map(|step| {
            let mut step = step.clone();
            if let Some(object) = step.as_object_mut() {
                object.remove("trim_offsets");
                // Absent means true to readers of older files.
                if object.get("type") == Some(&json!("ByteLevel")) {
                    object.entry("use_regex").or_insert(json!(true));
                }
            }
            step
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_recognised() {
        for name in ["gpt-2", "smollm", "llama-bpe", "qwen2", "default"] {
            let known = PreTokenizer::from_name(Some(name)).expect("known");
            assert_eq!(known.name(), name);
            assert_eq!(PreTokenizer::recognise(&known.description()), Some(known));
        }
        for (other, known) in [
            ("deepseek-r1-qwen", PreTokenizer::Qwen2),
            ("megrez", PreTokenizer::Qwen2),
            ("falcon3", PreTokenizer::Llama3),
            ("exaone", PreTokenizer::Digits),
            ("exaone4", PreTokenizer::Gpt2),
        ] {
            assert_eq!(PreTokenizer::from_name(Some(other)).ok(), Some(known), "{other}");
        }
        // Llama 3's pieces, but pieces that are tokens are merged like others.
        assert!(PreTokenizer::from_name(Some("smaug-bpe")).is_err());
        let spaced = json!({ "type": "ByteLevel", "add_prefix_space": true });
        assert_eq!(PreTokenizer::recognise(&spaced), None);
        let error = PreTokenizer::from_name(Some("tekken")).expect_err("refused");
        assert!(error.to_string().contains("tekken"), "{error}");
    }
}
