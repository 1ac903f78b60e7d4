//! The embedded policy's tokenizer: one token per thing in a household and per word that the caller
//! lists, every other word in pieces down to its letters, and observations stripped of the words that
//! carry no decision.
//!
//! The result is an ordinary `tokenizer.json`: normalizers that rewrite the environments'
//! sentences, a splitter that keeps a name with its number together, a WordPiece table.

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
    // Shop pages: the instruction comes first, buttons that every page has go.
    (r"(?:webshop \[sep\] )?instruction: \[sep\] (?:find me )?", "shop "),
    (r" \[sep\] search$", ""),
    (r" \[sep\] rating: n\.a\. \[sep\] description \[sep\] features \[sep\] reviews", ""),
    (r"\[sep\] price: ", ""),
    (r" \(total results: [0-9]+\)", ""),
    (r"and price lower than ", "under "),
    (r" dollars\b", ""),
    (r" \[sep\] ", " "),
    // Passages, as a JSON string or as they are.
    (r"</?information>", ""),
    (r#"\{"result": ""#, "found "),
    (r#""\}"#, ""),
    (r"\\n", " "),
    (r#"\\""#, " "),
    (r"\bdoc [0-9]+(?:\(title)?", "doc"),
    (r"\b(?:a|an|the|and) ", ""),
];

/// What becomes a token before words fall into pieces: fixed phrases, an action's brackets and tags,
/// a name with its number (see [`piece`]), a word or number, or one run of anything else. Blanks and
/// sentence marks between pieces vanish.
const PHRASES: &str = r"nothing happens|go to|back to search|buy now|next >|< prev|click\[|search\[|\]|</?(?:search|answer)>";
const WORD: &str = r"\$?[a-z0-9]+(?:[-./'&+][a-z0-9]+)*";
const REST: &str = r#"[^\s.,:;!?'"a-z0-9\]]+"#;

/// Pieces that [`PHRASES`] makes, and pages' words, in id order.
const PHRASE_TOKENS: [&str; 13] = [
    "back to search",
    "buy now",
    "next >",
    "< prev",
    "click[",
    "search[",
    "]",
    "<search>",
    "</search>",
    "<answer>",
    "</answer>",
    "shop",
    "page",
];

/// Characters that a word may fall into; each stands for itself and as a continuation.
const CHARACTERS: &str = "abcdefghijklmnopqrstuvwxyz0123456789$-./'&+%()#*<>=_{}|~@";

/// Marks a piece that continues a word.
pub(crate) const CONTINUED: &str = "##";

/// What the embedded policy knows by name: one token each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    /// Every class of things and the largest number that a home can give it: `("mug", 3)` makes
    /// `mug 1` to `mug 3`, and the word `mug` for goals. Classes are letters only.
    pub things: &'a [(&'a str, u32)],
    /// First and last names of people, letters only: every pair is one token.
    pub people: (&'a [&'a str], &'a [&'a str]),
    /// Further whole words.
    pub words: &'a [&'a str],
    /// Ends of words.
    pub tails: &'a [&'a str],
    /// Whether the phrases of shop pages and searches are tokens, and words that are not listed fall
    /// into letters; without it they are unknown and the vocabulary is shorter by 120 tokens.
    pub spelling: bool,
}

fn piece(names: &Names<'_>) -> String {
    let classes: Vec<&str> = names.things.iter().map(|(class, _)| *class).collect();
    let mut alternatives = vec![PHRASES.to_owned()];
    if !classes.is_empty() {
        alternatives.push(format!(r"(?:{}) [0-9]+\b", classes.join("|")));
    }
    let (first, last) = names.people;
    if !first.is_empty() && !last.is_empty() {
        alternatives.push(format!(r"(?:{}) (?:{})\b", first.join("|"), last.join("|")));
    }
    alternatives.extend([WORD.to_owned(), REST.to_owned()]);
    alternatives.join("|")
}

/// Builds the tokenizer. Ids are the special tokens, the households' words, digits, classes, things,
/// then phrases, characters, words, tails and people, each in the given order; a repetition is
/// skipped.
///
/// # Errors
/// [`TokenizerError::Parse`] if the pieces do not make a valid tokenizer; not expected.
pub fn tiny_tokenizer(names: &Names<'_>) -> Result<Tokenizer, TokenizerError> {
    let Names { things, people, words, tails, spelling } = *names;
    let mut vocabulary = serde_json::Map::new();
    {
        let mut add = |text: String| {
            let id = vocabulary.len();
            vocabulary.entry(text).or_insert_with(|| json!(id));
        };
        for text in SPECIAL_TOKENS.iter().chain(INTERFACE_WORDS) {
            add((*text).to_owned());
        }
        for digit in 0..10 {
            add(digit.to_string());
        }
        for (class, _) in things {
            add((*class).to_owned());
        }
        for (class, largest) in things {
            for index in 1..=*largest {
                add(format!("{class} {index}"));
            }
        }
        let (phrases, characters) =
            if spelling { (&PHRASE_TOKENS[..], CHARACTERS) } else { (&[][..], "") };
        for phrase in phrases {
            add((*phrase).to_owned());
        }
        for character in characters.chars() {
            add(character.to_string());
            add(format!("{CONTINUED}{character}"));
        }
        for word in words {
            add((*word).to_owned());
        }
        for tail in tails {
            add(format!("{CONTINUED}{tail}"));
        }
        for first in people.0 {
            for last in people.1 {
                add(format!("{first} {last}"));
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
            "type": "Split", "pattern": { "Regex": piece(names) }, "behavior": "Removed",
            "invert": true,
        },
        "post_processor": null,
        "decoder": decoder(),
        "model": {
            "type": "WordPiece", "vocab": vocabulary, "unk_token": "<|unk|>",
            "continuing_subword_prefix": CONTINUED, "max_input_chars_per_word": LONGEST_WORD,
        },
    });
    let bytes = serde_json::to_vec_pretty(&file)
        .map_err(|e| TokenizerError::Parse { reason: e.to_string() })?;
    Tokenizer::from_bytes(&bytes)
}

/// Longer words are unknown.
const LONGEST_WORD: usize = 100;

/// Words joined by blanks, continuations without, brackets close to what they hold:
/// `click[`, `b0k7`, `##xq41zd`, `]` is `click[b0k7xq41zd]`.
pub(crate) fn decoder() -> Value {
    json!({
        "type": "Sequence",
        "decoders": [
            { "type": "WordPiece", "prefix": CONTINUED, "cleanup": false },
            { "type": "Fuse" },
            { "type": "Replace", "pattern": { "String": "[ " }, "content": "[" },
            { "type": "Replace", "pattern": { "String": " ]" }, "content": "]" },
        ],
    })
}
