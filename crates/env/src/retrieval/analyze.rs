//! From text to index terms, as Lucene's EnglishAnalyzer makes them.

use super::stem::stem;
use super::words::words;

/// Words that carry no meaning for a search: Lucene's English list.
const STOP_WORDS: [&str; 33] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it",
    "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these",
    "they", "this", "to", "was", "will", "with",
];

/// The index terms of a text, in order, repetitions included: its [`words`] without a final `'s`, in
/// lower case, stop words left out, stemmed.
pub fn analyze(text: &str) -> Vec<String> {
    let mut term = Term::default();
    words(text).filter_map(|word| term.of(word).map(str::to_owned)).collect()
}

/// Makes the term of one word after the other, in buffers that are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Term {
    bytes: Vec<u8>,
    units: Vec<u16>,
    text: String,
}

impl Term {
    /// The index term of a word; `None` for a stop word.
    pub(super) fn of(&mut self, word: &str) -> Option<&str> {
        let word = without_possessive(word);
        if word.is_ascii() {
            self.bytes.clear();
            self.bytes.extend(word.bytes().map(|b| b.to_ascii_lowercase()));
            if is_stop_word(&self.bytes) {
                return None;
            }
            stem(&mut self.bytes);
            return str::from_utf8(&self.bytes).ok();
        }
        self.units.clear();
        let mut pair = [0; 2];
        for c in word.chars() {
            self.units.extend_from_slice(lower(c).encode_utf16(&mut pair));
        }
        self.text.clear();
        let characters = |units: &[u16]| {
            char::decode_utf16(units.iter().copied())
                .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect()
        };
        self.text = characters(&self.units);
        if is_stop_word(self.text.as_bytes()) {
            return None;
        }
        stem(&mut self.units);
        self.text = characters(&self.units);
        Some(&self.text)
    }
}

fn without_possessive(word: &str) -> &str {
    let stripped =
        word.strip_suffix(['s', 'S']).and_then(|w| w.strip_suffix(['\'', '\u{2019}', '\u{ff07}']));
    stripped.unwrap_or(word)
}

/// Lower case of one character as one character.
fn lower(c: char) -> char {
    let mut all = c.to_lowercase();
    // The one character whose lower case is two in the full mapping: its first is the simple mapping.
    all.next().unwrap_or(c)
}

fn is_stop_word(word: &[u8]) -> bool {
    word.len() <= 5 && STOP_WORDS.binary_search_by(|stop| stop.as_bytes().cmp(word)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_of_a_sentence() {
        assert_eq!(
            analyze("The Women’s tops & tees: price lower than 30.00 dollars, İstanbul's"),
            ["women", "top", "tee", "price", "lower", "than", "30.00", "dollar", "istanbul"]
        );
    }

    #[test]
    fn stop_words_are_sorted_for_the_search() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert!(analyze("").is_empty());
        assert!(analyze(" \u{0} \u{feff} -- ").is_empty());
    }
}
