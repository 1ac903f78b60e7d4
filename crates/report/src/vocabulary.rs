//! Tokens as the text that they make, by a checkpoint's tokenizer.

use std::collections::HashMap;

use empg_run::Run;
use serde_json::Value;

/// The texts of a run's tokens, for shading: the vocabulary of its newest checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vocabulary {
    tokens: HashMap<u32, Token>,
    /// What no blank stands behind, and before, though words stand apart.
    opening: Vec<String>,
    closing: Vec<String>,
}

/// What a token adds to a text.
#[derive(Clone, Debug, PartialEq)]
struct Token {
    /// UTF-8, of which a token may hold parts of a character.
    bytes: Vec<u8>,
    /// A word: a blank stands before it, unless it is the first.
    apart: bool,
}

/// How a tokenizer writes its tokens down.
enum Spelling {
    /// GPT-2's: a character for every byte.
    Bytes,
    /// SentencePiece's: `▁` is a blank, and `<0xC3>` a byte.
    Pieces,
    /// Words, and continuations of words behind a prefix.
    Words(Option<String>),
}

impl Vocabulary {
    /// The vocabulary of a run's newest checkpoint; empty where there is none that can be read.
    pub fn of_run(run: &Run) -> Self {
        let read = || -> Option<Self> {
            let bytes = run.last().ok()??.read("tokenizer.json").ok()?;
            Some(Self::parse(&serde_json::from_slice(&bytes).ok()?))
        };
        read().unwrap_or_default()
    }

    /// Whether it knows no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    fn parse(tokenizer: &Value) -> Self {
        let decoders = parts(&tokenizer["decoder"], "decoders");
        let spelling = Spelling::of(&decoders, &tokenizer["pre_tokenizer"]);
        let words = matches!(spelling, Spelling::Words(_));
        let mut tokens = HashMap::new();
        if let Some(vocabulary) = tokenizer.pointer("/model/vocab").and_then(Value::as_object) {
            for (text, id) in vocabulary {
                if let Some(id) = id.as_u64() {
                    tokens.insert(id as u32, spelling.read(text));
                }
            }
        }
        if let Some(added) = tokenizer.get("added_tokens").and_then(Value::as_array) {
            for token in added {
                if let (Some(id), Some(text)) = (token["id"].as_u64(), token["content"].as_str()) {
                    tokens.insert(id as u32, Token { bytes: text.into(), apart: words });
                }
            }
        }
        let (mut opening, mut closing) = (Vec::new(), Vec::new());
        for decoder in decoders.iter().filter(|d| d["type"] == "Replace") {
            let texts = (decoder["pattern"]["String"].as_str(), decoder["content"].as_str());
            let (Some(pattern), Some(content)) = texts else { continue };
            if pattern.strip_suffix(' ') == Some(content) {
                opening.push(content.to_owned());
            } else if pattern.strip_prefix(' ') == Some(content) {
                closing.push(content.to_owned());
            }
        }
        Self { tokens, opening, closing }
    }

    /// The tokens' texts, which together are the text that they make; none at all where a token is
    /// unknown.
    pub(crate) fn texts(&self, tokens: &[u32]) -> Vec<String> {
        let known: Option<Vec<&Token>> = tokens.iter().map(|id| self.tokens.get(id)).collect();
        let known = known.unwrap_or_default();
        let ends = |token: &Token, with: &[String]| {
            with.iter().any(|text| token.bytes.ends_with(text.as_bytes()))
        };
        let begins = |token: &Token, with: &[String]| {
            with.iter().any(|text| token.bytes.starts_with(text.as_bytes()))
        };
        together(known.iter().enumerate().map(|(n, token)| {
            let close = n == 0 || ends(known[n - 1], &self.opening) || begins(token, &self.closing);
            let blank: &[u8] = if token.apart && !close { b" " } else { b"" };
            [blank, &token.bytes].concat()
        }))
    }
}

impl Spelling {
    fn of(decoders: &[&Value], pre_tokenizer: &Value) -> Self {
        let of_type = |all: &[&Value], kind: &str| all.iter().any(|part| part["type"] == kind);
        let before = parts(pre_tokenizer, "pretokenizers");
        if of_type(decoders, "ByteLevel") || of_type(&before, "ByteLevel") {
            return Self::Bytes;
        }
        if let Some(pieces) = decoders.iter().find(|part| part["type"] == "WordPiece") {
            return Self::Words(pieces["prefix"].as_str().map(str::to_owned));
        }
        // Without a decoder tokens are words.
        if decoders.is_empty() { Self::Words(None) } else { Self::Pieces }
    }

    fn read(&self, text: &str) -> Token {
        let (bytes, apart) = match self {
            Self::Bytes => (byte_level(text).unwrap_or_else(|| text.into()), false),
            Self::Pieces => (piece(text), false),
            Self::Words(prefix) => {
                let rest = prefix.as_ref().and_then(|prefix| text.strip_prefix(prefix.as_str()));
                (rest.unwrap_or(text).into(), rest.is_none())
            }
        };
        Token { bytes, apart }
    }
}

/// The parts of a tokenizer's decoder or pre-tokenizer, which may be a sequence.
fn parts<'a>(whole: &'a Value, key: &str) -> Vec<&'a Value> {
    match whole.get(key).and_then(Value::as_array) {
        Some(sequence) => sequence.iter().flat_map(|part| parts(part, key)).collect(),
        None if whole.is_null() => Vec::new(),
        None => vec![whole],
    }
}

/// The bytes of a token in GPT-2's alphabet, which has a visible character for every byte; `None` of
/// another text.
fn byte_level(text: &str) -> Option<Vec<u8>> {
    let byte = |c: char| -> Option<u8> {
        let code = u32::from(c);
        let byte = match code {
            33..=126 | 161..=172 | 174..=255 => code,
            // All others, in their order: 0 to 32, 127 to 160, 173.
            256..=288 => code - 256,
            289..=322 => code - 289 + 127,
            323 => 173,
            _ => return None,
        };
        u8::try_from(byte).ok()
    };
    text.chars().map(byte).collect()
}

/// The bytes of one of SentencePiece's tokens.
fn piece(text: &str) -> Vec<u8> {
    let byte = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => text.replace('▁', " ").into_bytes(),
    }
}

/// Texts of tokens that may each hold parts of characters: a character stands at the token that
/// completes it, and what is none is the replacement character.
fn together(tokens: impl Iterator<Item = Vec<u8>>) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut waiting = Vec::new();
    for bytes in tokens {
        waiting.extend(bytes);
        let mut text = String::new();
        while !waiting.is_empty() {
            let (valid, broken) = match std::str::from_utf8(&waiting) {
                Ok(_) => (waiting.len(), 0),
                Err(error) => (error.valid_up_to(), error.error_len().unwrap_or_default()),
            };
            text.push_str(&String::from_utf8_lossy(&waiting[..valid]));
            waiting.drain(..valid + broken);
            if broken == 0 {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
        }
        texts.push(text);
    }
    if let Some(last) = texts.last_mut().filter(|_| !waiting.is_empty()) {
        last.push(char::REPLACEMENT_CHARACTER);
    }
    texts
}

/// Texts of tokens that another program wrote: as they are, or as its tokenizer spells them.
pub(crate) fn spoken_tokens(tokens: &[Value]) -> Vec<String> {
    let texts: Vec<&str> = tokens.iter().map(|v| v.as_str().unwrap_or_default()).collect();
    let any = |of: &[char]| texts.iter().any(|text| text.contains(of));
    // A blank is no letter of either alphabet.
    let own = !any(&[' ', '\n']);
    if own && any(&['Ġ', 'Ċ']) {
        together(texts.iter().map(|text| Spelling::Bytes.read(text).bytes))
    } else if own && any(&['▁']) {
        together(texts.iter().map(|text| piece(text)))
    } else {
        texts.into_iter().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(vocabulary: &Value, decoder: &Value) -> Vocabulary {
        Vocabulary::parse(&serde_json::json!({
            "model": {"vocab": vocabulary}, "decoder": decoder,
            "added_tokens": [{"id": 99, "content": "<|end|>"}],
        }))
    }

    #[test]
    fn byte_level_tokens_are_read_as_their_text() {
        let vocabulary = parsed(
            &serde_json::json!({
                "go": 0, "Ġgr": 1, "Ã¼": 2, "ÃŁe": 3, "ĠðŁĺ": 4, "Ģ": 5, "Ċ": 6, "Ġ": 7, "Ŀ": 8,
            }),
            &serde_json::json!({"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}),
        );
        assert_eq!(vocabulary.texts(&[0, 1, 2, 3, 99]), ["go", " gr", "ü", "ße", "<|end|>"]);
        assert_eq!(vocabulary.texts(&[0, 0]).concat(), "gogo", "no blank is added");
        // A character of several tokens stands at the last of them.
        assert_eq!(vocabulary.texts(&[4, 5, 6, 7]), [" ", "😀", "\n", " "]);
        assert_eq!(vocabulary.texts(&[4, 0]), [" ", "\u{FFFD}go"]);
        assert_eq!(vocabulary.texts(&[8, 4]), ["\u{FFFD}", " \u{FFFD}"], "it is cut off");
    }

    #[test]
    fn words_and_pieces_stand_as_their_decoder_puts_them() {
        let words = serde_json::json!({"type": "Sequence", "decoders": [
            {"type": "WordPiece", "prefix": "##", "cleanup": false}, {"type": "Fuse"},
            {"type": "Replace", "pattern": {"String": "[ "}, "content": "["},
            {"type": "Replace", "pattern": {"String": " ]"}, "content": "]"},
        ]});
        let ids = serde_json::json!({"click": 0, "[": 1, "b0k7": 2, "##xq": 3, "]": 4, "Ġx": 5});
        let vocabulary = parsed(&ids, &words);
        let texts = vocabulary.texts(&[0, 1, 2, 3, 4, 0, 99]);
        assert_eq!(texts.concat(), "click [b0k7xq] click <|end|>");
        assert_eq!(texts[3], "xq");
        assert_eq!(vocabulary.texts(&[5]), ["Ġx"], "a letter of the text");

        let pieces = serde_json::json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
        ]});
        let ids = serde_json::json!({"▁go": 0, "ne": 1, "<0xC3>": 2, "<0xBC>": 3});
        let texts = parsed(&ids, &pieces).texts(&[0, 1, 2, 3]);
        assert_eq!(texts, [" go", "ne", "", "ü"]);
        let metaspace = serde_json::json!({"type": "Metaspace", "replacement": "▁"});
        assert_eq!(parsed(&ids, &metaspace).texts(&[0, 1]).concat(), " gone");
    }

    #[test]
    fn unknown_tokens_are_not_shaded() {
        let vocabulary = Vocabulary::parse(&serde_json::json!({
            "model": {"vocab": {"go": 1}}, "added_tokens": [{"id": 2, "content": "<end>"}]
        }));
        assert_eq!(vocabulary.texts(&[1, 2]).concat(), "go <end>");
        assert!(vocabulary.texts(&[1, 3]).is_empty());
    }
}
