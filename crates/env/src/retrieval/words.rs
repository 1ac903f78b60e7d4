//! Words of a text, as Lucene's StandardTokenizer cuts them: the word boundaries of Unicode (UAX #29)
//! with Lucene's additions (emoji sequences, South-East Asian runs, no word of more than 255 units).

use super::classes::{
    self, ALONE, ASCII, Bits, COMPLEX, CONNECTOR, DOUBLE_QUOTE, EMOJI_FORM, EMOJI_MODIFIER, EXTEND,
    HEBREW, JOINER, KATAKANA, KEYCAP, LETTER, MID_LETTER, MID_NUMBER, NUMERIC, PICTOGRAPH,
    REGIONAL, SINGLE_QUOTE, TEXT_FORM,
};

/// Longest word in UTF-16 units; what is longer is cut, and the rest read as if it stood alone.
const LONGEST: usize = 255;

/// The words of a text, in order, as they stand.
///
/// A word holds a letter, a digit, a Katakana, Han, Hiragana or South-East Asian character, or a
/// pictograph; everything else separates.
pub fn words(text: &str) -> Words<'_> {
    Words { text, at: 0 }
}

/// Iterator of [`words`].
#[derive(Clone, Debug)]
pub struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if byte.is_ascii()
                && ASCII[usize::from(byte)] & (LETTER | NUMERIC | CONNECTOR) == 0
                && byte != b'#'
                && byte != b'*'
            {
                self.at += 1;
                continue;
            }
            let start = self.at;
            let end = match plain(&bytes[start..]) {
                Some(length) => start + length,
                None => start + longest(&self.text[start..]),
            };
            if end > start {
                self.at = end;
                return Some(&self.text[start..end]);
            }
            self.at += self.text[start..].chars().next().map_or(1, char::len_utf8);
        }
        None
    }
}

/// The length of a word of ASCII letters and digits alone that is certain to end there.
#[inline]
fn plain(text: &[u8]) -> Option<usize> {
    let length = text.iter().take(LONGEST).take_while(|b| b.is_ascii_alphanumeric()).count();
    // What follows must neither belong to the word nor possibly join it to what comes next.
    match text.get(length) {
        _ if length == 0 || length == LONGEST => None,
        None => Some(length),
        Some(&b) if b.is_ascii() && ASCII[usize::from(b)] == 0 => Some(length),
        Some(b'.' | b',' | b'\'' | b':' | b';') => {
            // A full stop and its kin join only two letters or two digits.
            match text.get(length + 1) {
                None => Some(length),
                Some(&b) if b.is_ascii() && ASCII[usize::from(b)] & (LETTER | NUMERIC) == 0 => {
                    Some(length)
                }
                Some(_) => None,
            }
        }
        Some(_) => None,
    }
}

/// The longest match of any rule at the start of the text, in bytes; 0 if there is none.
#[inline(never)]
fn longest(text: &str) -> usize {
    let text = within(text);
    let Some(first) = text.chars().next() else { return 0 };
    let bits = classes::bits(first);
    let mut end = word(text);
    if bits & COMPLEX != 0 {
        end = end.max(run(text, COMPLEX | EXTEND));
    }
    if bits & ALONE != 0 {
        end = end.max(marks_after(text, first.len_utf8()));
    }
    if bits & REGIONAL != 0 {
        let second = marks_after(text, first.len_utf8());
        if let Some(c) = text[second..].chars().next().filter(|&c| classes::bits(c) & REGIONAL != 0)
        {
            end = end.max(marks_after(text, second + c.len_utf8()));
        }
    }
    if bits & (PICTOGRAPH | EMOJI_MODIFIER) != 0 || first == JOINER {
        end = end.max(emoji(text));
    }
    if matches!(first, '0'..='9' | '#' | '*') {
        end = end.max(key(text));
    }
    end
}

/// The part of the text that a word may reach into.
fn within(text: &str) -> &str {
    if text.len() <= LONGEST {
        return text;
    }
    let mut units = 0;
    for (at, c) in text.char_indices() {
        units += c.len_utf16();
        if units > LONGEST {
            return &text[..at];
        }
    }
    text
}

/// How far characters with any of these bits reach.
fn run(text: &str, of: Bits) -> usize {
    text.char_indices().find(|&(_, c)| classes::bits(c) & of == 0).map_or(text.len(), |(at, _)| at)
}

/// Where the marks that follow a position end.
fn marks_after(text: &str, at: usize) -> usize {
    at + run(&text[at..], EXTEND)
}

/// As [`marks_after`], but a request for a form (text or emoji) ends it.
fn marks_without_form_after(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let end = rest
        .char_indices()
        .find(|&(_, c)| classes::bits(c) & EXTEND == 0 || c == EMOJI_FORM || c == TEXT_FORM);
    at + end.map_or(rest.len(), |(at, _)| at)
}

/// Where the word grammar stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Only connectors so far.
    Start,
    Letter,
    Hebrew,
    Number,
    Katakana,
    /// A connector after the first letter, digit or Katakana.
    Connector,
    /// A character that joins letters, after a letter.
    MidLetter,
    /// A character that joins digits, after a digit.
    MidNumber,
    /// A quotation mark after a Hebrew letter.
    HebrewDouble,
    /// A Hebrew letter's apostrophe, or the letter after its quotation mark.
    HebrewDone,
}

/// Letters, digits, Katakana, and what joins them.
fn word(text: &str) -> usize {
    let (mut state, mut end) = (State::Start, 0);
    for (at, c) in text.char_indices() {
        let bits = classes::bits(c);
        if bits & EXTEND != 0 && at > 0 {
            if !matches!(
                state,
                State::Start | State::MidLetter | State::MidNumber | State::HebrewDouble
            ) {
                end = at + c.len_utf8();
            }
            continue;
        }
        state = match next(state, bits) {
            Some(state) => state,
            None => break,
        };
        if !matches!(
            state,
            State::Start | State::MidLetter | State::MidNumber | State::HebrewDouble
        ) {
            end = at + c.len_utf8();
        }
    }
    end
}

fn next(state: State, bits: Bits) -> Option<State> {
    use State as S;
    let letter = || match bits {
        _ if bits & LETTER != 0 => Some(S::Letter),
        _ if bits & HEBREW != 0 => Some(S::Hebrew),
        _ => None,
    };
    let number = || (bits & NUMERIC != 0).then_some(S::Number);
    let katakana = || (bits & KATAKANA != 0).then_some(S::Katakana);
    let connector = |to| (bits & CONNECTOR != 0).then_some(to);
    let mid = |of, to| (bits & of != 0).then_some(to);
    match state {
        S::Start => letter().or_else(number).or_else(katakana).or_else(|| connector(S::Start)),
        S::Connector => {
            letter().or_else(number).or_else(katakana).or_else(|| connector(S::Connector))
        }
        S::Letter => letter()
            .or_else(number)
            .or_else(|| connector(S::Connector))
            .or_else(|| mid(MID_LETTER, S::MidLetter)),
        S::Hebrew => letter()
            .or_else(number)
            .or_else(|| connector(S::Connector))
            .or_else(|| mid(SINGLE_QUOTE, S::HebrewDone))
            .or_else(|| mid(DOUBLE_QUOTE, S::HebrewDouble))
            .or_else(|| mid(MID_LETTER, S::MidLetter)),
        S::Number => number()
            .or_else(letter)
            .or_else(|| connector(S::Connector))
            .or_else(|| mid(MID_NUMBER, S::MidNumber)),
        S::Katakana => katakana().or_else(|| connector(S::Connector)),
        // A Hebrew letter reached so takes no quotation mark of its own.
        S::MidLetter => letter().map(|_| S::Letter),
        S::MidNumber => number(),
        S::HebrewDouble => mid(HEBREW, S::HebrewDone),
        S::HebrewDone => letter().or_else(number).or_else(|| connector(S::Connector)),
    }
}

/// An emoji, or several that joiners tie together.
fn emoji(text: &str) -> usize {
    let mut end = 0;
    let mut at = 0;
    loop {
        let first =
            at + text[at..].chars().take_while(|&c| c == JOINER).count() * JOINER.len_utf8();
        let Some(c) = text[first..].chars().next() else { return end };
        let bits = classes::bits(c);
        let picture = bits & PICTOGRAPH != 0;
        // A skin tone stands alone only where nothing, or nothing but the joining itself, precedes.
        if !picture && (bits & EMOJI_MODIFIER == 0 || first != at) {
            return end;
        }
        let marks = first + c.len_utf8();
        end = marks_without_form_after(text, marks);
        let mut joined = end > marks && text[..end].ends_with(JOINER);
        if picture && text[end..].starts_with(EMOJI_FORM) {
            end += EMOJI_FORM.len_utf8();
            joined = false;
            if at == 0 {
                end = end.max(tags(text, end));
            }
        }
        at = if joined {
            end
        } else if text[end..].starts_with(JOINER) {
            end + JOINER.len_utf8()
        } else {
            return end;
        };
    }
}

/// Where a sequence of tags that begins here ends; 0 if there is none.
fn tags(text: &str, at: usize) -> usize {
    let length =
        text[at..].chars().take_while(|c| matches!(c, '\u{e0020}'..='\u{e007e}')).count() * 4;
    let end = at + length;
    if length > 0 && text[end..].starts_with('\u{e007f}') { end + 4 } else { 0 }
}

/// A digit or sign in the frame of a key.
fn key(text: &str) -> usize {
    let marks = marks_without_form_after(text, 1);
    let mut end = if text[1..marks].contains(KEYCAP) { marks } else { 0 };
    if let Some(rest) = text[marks..].strip_prefix(EMOJI_FORM)
        && rest.starts_with(KEYCAP)
    {
        end = marks_without_form_after(text, text.len() - rest.len());
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<&str> {
        words(text).collect()
    }

    #[test]
    fn letters_and_digits_join_across_one_full_stop() {
        assert_eq!(
            all("a.b 3.5, 3,000; a:b a..b x.3 3.x"),
            ["a.b", "3.5", "3,000", "a:b", "a", "b", "x", "3", "3", "x"]
        );
        assert_eq!(all("women's 'quoted' end."), ["women's", "quoted", "end"]);
    }

    #[test]
    fn connectors_belong_to_a_word_but_make_none() {
        assert_eq!(all("_a_b_ __ c"), ["_a_b_", "c"]);
    }

    #[test]
    fn long_words_are_cut() {
        let lengths: Vec<usize> = all(&"a".repeat(600)).iter().map(|w| w.len()).collect();
        assert_eq!(lengths, [255, 255, 90]);
    }

    #[test]
    fn pictures_are_words() {
        assert_eq!(
            all("a ★ b👍🏽c ☝️🏽 #️⃣ 🇺🇸🇩🇪🇫"),
            ["a", "★", "b", "👍🏽", "c", "☝️", "🏽", "#️⃣", "🇺🇸", "🇩🇪"]
        );
    }

    #[test]
    fn scripts_without_spaces() {
        assert_eq!(all("日本ひカタカナ ภาษาไทย"), ["日", "本", "ひ", "カタカナ", "ภาษาไทย"]);
    }
}
