//! The embedded policy's tokenizer: one token per thing in a household, and observations stripped
//! of the words that carry no decision.
//!
//! The result is an ordinary `tokenizer.json`: normalizers that rewrite the environment's
//! sentences, a splitter that keeps a name with its number together, a word table.

use serde_json::{Value, json};

use crate::tokenizer::{Tokenizer, TokenizerError};

/// Ends every turn; what the policy samples to finish a command.
pub const TURN_END: &str = "<|im_end|>";
/// Opens a turn whose role is spelt out behind it.
pub const TURN_START: &str = "<|im_start|>";

/// Special tokens in id order. The three role headers are one token each.
pub const SPECIAL_TOKENS: [&str; 7] = [
    "<|pad|>",
    "<|unk|>",
    TURN_END,
    TURN_START,
    "<|im_start|>user\n",
    "<|im_start|>assistant\n",
    "<|im_start|>system\n",
];

/// Words of commands, goals and shortened observations.
const INTERFACE_WORDS: &[&str] = &[
    // commands
    "go to",
    "open",
    "close",
    "take",
    "from",
    "move",
    "to",
    "put",
    "in/on",
    "examine",
    "use",
    "clean",
    "heat",
    "cool",
    "with",
    "slice",
    "inventory",
    "look",
    "help",
    // goals
    "task",
    "in",
    "on",
    "some",
    "it",
    "them",
    "two",
    "find",
    "hot",
    "at",
    "under",
    "sliced",
    // observations
    "nothing happens",
    "nothing",
    "closed",
    "took",
    "placed",
    "cleaned",
    "heated",
    "cooled",
    "used",
    "carrying",
    "facing",
    "next",
    "normal",
    "plain",
    "cold",
    "this",
    "is",
    "off",
];

/// Rewrites, in order, of lower-cased text; a name is a class and its number.
const REWRITES: &[(&str, &str)] = &[
    (r"available commands:[\s\S]*", "help"),
    (r"-= welcome to textworld, alfred! =-\s*", ""),
    (r"you are in the middle of a room\. looking quickly around you, you see ", ""),
    (r"your task is to: ", "task "),
    // What the sentence after it repeats.
    (r"you (?:arrive at|open the) [a-z]+ [0-9]+\.\s*", ""),
    (r" is open\. in it, you see ", " open "),
    (r" is closed\.", " closed"),
    // The place of an action is where the agent stands; its own command says so.
    (r" (?:from|in/on|to|using|with) the [a-z]+ [0-9]+\.", ""),
    (r"you pick up the ", "took "),
    (r"you (?:put|move) the ", "placed "),
    (r"you close the ", "closed "),
    (r"you clean the ", "cleaned "),
    (r"you heat the ", "heated "),
    (r"you cool the ", "cooled "),
    (r"you sliced the ", "sliced "),
    (r"you turn on the ", "used "),
    (r"you are not carrying anything\.", "carrying nothing"),
    (r"you are carrying: ", "carrying "),
    (r"you are facing the ", "facing "),
    (r"\. next to it, you see ", " next "),
    (r"\. in it, you see ", " in "),
    (r", you see ", " "),
    (r"this is a ", ""),
    (r"there's nothing special about ", "plain "),
    (r"\b(?:a|an|the|and) ", ""),
];

/// What becomes a token: fixed phrases, a name with its number, a word, a digit, or one run of
/// anything else. Blanks and sentence marks between pieces vanish.
const PIECE: &str =
    r#"nothing happens|go to|[a-z]+ [0-9]+|[a-z]+(?:/[a-z]+)?|[0-9]|[^\s.,:;!?'"a-z0-9]+"#;

/// Builds the tokenizer. `names` lists every class of things and the largest number that a home
/// can give it (`("mug", 3)` makes `mug 1` to `mug 3`, and the word `mug` for goals); `words` adds
/// further words. Ids are the special tokens, the interface's words, digits, `words`, classes,
/// then names, each in the given order; a repetition is skipped.
///
/// # Errors
/// [`TokenizerError::Parse`] if the pieces do not make a valid tokenizer; not expected.
pub fn tiny_tokenizer(names: &[(&str, u32)], words: &[&str]) -> Result<Tokenizer, TokenizerError> {
    let mut vocabulary = serde_json::Map::new();
    {
        let mut add = |text: String| {
            let id = vocabulary.len();
            vocabulary.entry(text).or_insert_with(|| json!(id));
        };
        for special in SPECIAL_TOKENS {
            add(special.to_owned());
        }
        for word in INTERFACE_WORDS.iter().chain(words) {
            add((*word).to_owned());
        }
        for digit in 0..10 {
            add(digit.to_string());
        }
        for (class, _) in names {
            add((*class).to_owned());
        }
        for (class, largest) in names {
            for index in 1..=*largest {
                add(format!("{class} {index}"));
            }
        }
    }
    let added: Vec<Value> = SPECIAL_TOKENS
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let mut normalizers = vec![json!({ "type": "Lowercase" })];
    normalizers.extend(REWRITES.iter().map(|(pattern, content)| {
        json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": content })
    }));
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": {
            "type": "Split", "pattern": { "Regex": PIECE }, "behavior": "Removed", "invert": true,
        },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<|unk|>" },
    });
    let bytes = serde_json::to_vec_pretty(&file)
        .map_err(|e| TokenizerError::Parse { reason: e.to_string() })?;
    Tokenizer::from_bytes(&bytes)
}
