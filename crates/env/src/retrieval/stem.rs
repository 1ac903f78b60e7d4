//! Porter's stemmer of 1980 with its author's later additions (`bli`, `logi`; words of one or two
//! letters stay), which is what Lucene's English analyzer applies.
//!
//! The crates at hand implement Porter's second stemmer, whose stems differ.

/// A character of a word: a byte where the word is ASCII, a UTF-16 unit otherwise.
pub(super) trait Unit: Copy + PartialEq + From<u8> {}
impl Unit for u8 {}
impl Unit for u16 {}

/// Stems a lower-case word in place.
pub(super) fn stem<U: Unit>(word: &mut Vec<U>) {
    if word.len() <= 2 {
        return;
    }
    let mut s = Stemmer { word, stem: 0 };
    s.plurals_and_participles();
    s.final_y();
    if s.word.len() > 1 {
        s.rewrite(&DOUBLE_SUFFIXES);
        s.rewrite(&SIMPLE_SUFFIXES);
        s.drop_suffix();
        s.final_e();
    }
}

/// Suffixes by the letter that decides between them, with what replaces them. At most one of a group
/// is looked at further: the first that the word ends in.
type Rules = [(&'static [u8], &'static [u8])];

const DOUBLE_SUFFIXES: [(&[u8], &[u8]); 21] = [
    (b"ational", b"ate"),
    (b"tional", b"tion"),
    (b"enci", b"ence"),
    (b"anci", b"ance"),
    (b"izer", b"ize"),
    (b"bli", b"ble"),
    (b"alli", b"al"),
    (b"entli", b"ent"),
    (b"eli", b"e"),
    (b"ousli", b"ous"),
    (b"ization", b"ize"),
    (b"ation", b"ate"),
    (b"ator", b"ate"),
    (b"alism", b"al"),
    (b"iveness", b"ive"),
    (b"fulness", b"ful"),
    (b"ousness", b"ous"),
    (b"aliti", b"al"),
    (b"iviti", b"ive"),
    (b"biliti", b"ble"),
    (b"logi", b"log"),
];

const SIMPLE_SUFFIXES: [(&[u8], &[u8]); 7] = [
    (b"icate", b"ic"),
    (b"ative", b""),
    (b"alize", b"al"),
    (b"iciti", b"ic"),
    (b"ical", b"ic"),
    (b"ful", b""),
    (b"ness", b""),
];

/// Suffixes that fall off; of `ion` only after `s` or `t`.
const SUFFIXES: [&[u8]; 19] = [
    b"al", b"ance", b"ence", b"er", b"ic", b"able", b"ible", b"ant", b"ement", b"ment", b"ent",
    b"ion", b"ou", b"ism", b"ate", b"iti", b"ous", b"ive", b"ize",
];

struct Stemmer<'a, U> {
    word: &'a mut Vec<U>,
    /// Length of the word without the suffix found last.
    stem: usize,
}

impl<U: Unit> Stemmer<'_, U> {
    fn is(&self, i: usize, c: u8) -> bool {
        self.word[i] == U::from(c)
    }

    fn consonant(&self, i: usize) -> bool {
        let is = |c| self.is(i, c);
        if is(b'a') || is(b'e') || is(b'i') || is(b'o') || is(b'u') {
            return false;
        }
        // A `y` is a vowel after a consonant: the run of `y` before it decides.
        let mut run = 0;
        while run <= i && self.is(i - run, b'y') {
            run += 1;
        }
        if run == 0 {
            return true;
        }
        let first = run > i || !self.consonant(i - run);
        (run % 2 == 1) == first
    }

    /// How many times a vowel is followed by a consonant within the stem.
    fn measure(&self) -> usize {
        let mut count = 0;
        let mut vowel = false;
        for i in 0..self.stem {
            let consonant = self.consonant(i);
            count += usize::from(consonant && vowel);
            vowel = !consonant;
        }
        count
    }

    fn vowel_in_stem(&self) -> bool {
        (0..self.stem).any(|i| !self.consonant(i))
    }

    /// Whether the first `n` characters end in a doubled consonant.
    fn doubled(&self, n: usize) -> bool {
        n >= 2 && self.word[n - 1] == self.word[n - 2] && self.consonant(n - 1)
    }

    /// Whether the first `n` characters end in consonant, vowel, consonant, the last not `w x y`.
    fn short(&self, n: usize) -> bool {
        n >= 3
            && self.consonant(n - 1)
            && !self.consonant(n - 2)
            && self.consonant(n - 3)
            && !(self.is(n - 1, b'w') || self.is(n - 1, b'x') || self.is(n - 1, b'y'))
    }

    /// Whether the word ends so; if it does, `stem` is what is before.
    fn ends(&mut self, suffix: &[u8]) -> bool {
        let found = self.word.len() >= suffix.len()
            && self.word.iter().rev().zip(suffix.iter().rev()).all(|(&u, &b)| u == U::from(b));
        if found {
            self.stem = self.word.len() - suffix.len();
        }
        found
    }

    fn replace(&mut self, with: &[u8]) {
        self.word.truncate(self.stem);
        self.word.extend(with.iter().map(|&b| U::from(b)));
    }

    fn plurals_and_participles(&mut self) {
        if self.ends(b"s") {
            if self.ends(b"sses") {
                self.replace(b"ss");
            } else if self.ends(b"ies") {
                self.replace(b"i");
            } else if self.word.len() < 2 || !self.is(self.word.len() - 2, b's') {
                self.word.pop();
            }
        }
        if self.ends(b"eed") {
            if self.measure() > 0 {
                self.word.pop();
            }
        } else if (self.ends(b"ed") || self.ends(b"ing")) && self.vowel_in_stem() {
            self.word.truncate(self.stem);
            if self.ends(b"at") {
                self.replace(b"ate");
            } else if self.ends(b"bl") {
                self.replace(b"ble");
            } else if self.ends(b"iz") {
                self.replace(b"ize");
            } else if self.doubled(self.word.len()) {
                let last = self.word.len() - 1;
                if !(self.is(last, b'l') || self.is(last, b's') || self.is(last, b'z')) {
                    self.word.pop();
                }
            } else if self.measure() == 1 && self.short(self.word.len()) {
                self.word.push(U::from(b'e'));
            }
        }
    }

    fn final_y(&mut self) {
        if self.ends(b"y") && self.vowel_in_stem() {
            self.replace(b"i");
        }
    }

    fn rewrite(&mut self, rules: &Rules) {
        for (suffix, with) in rules {
            if self.ends(suffix) {
                if self.measure() > 0 {
                    self.replace(with);
                }
                return;
            }
        }
    }

    fn drop_suffix(&mut self) {
        for suffix in SUFFIXES {
            if self.ends(suffix) {
                if suffix == b"ion"
                    && !(self.stem > 0
                        && (self.is(self.stem - 1, b's') || self.is(self.stem - 1, b't')))
                {
                    return;
                }
                if self.measure() > 1 {
                    self.word.truncate(self.stem);
                }
                return;
            }
        }
    }

    fn final_e(&mut self) {
        self.stem = self.word.len();
        if self.is(self.stem - 1, b'e') {
            // The measure counts the word with its last letter, as the original program does.
            let measure = self.measure();
            if measure > 1 || (measure == 1 && !self.short(self.stem - 1)) {
                self.word.pop();
            }
        }
        let n = self.word.len();
        if n > 0 && self.is(n - 1, b'l') && self.doubled(n) {
            self.stem = n;
            if self.measure() > 1 {
                self.word.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(word: &str) -> String {
        let mut bytes = word.as_bytes().to_vec();
        stem(&mut bytes);
        let mut units: Vec<u16> = word.encode_utf16().collect();
        stem(&mut units);
        let stemmed = String::from_utf8(bytes).expect("only ASCII is removed or added");
        assert_eq!(stemmed, String::from_utf16(&units).expect("as above"), "both widths agree");
        stemmed
    }

    #[test]
    fn stems() {
        for (word, stem) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("cats", "cat"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("motoring", "motor"),
            ("sing", "sing"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("sky", "sky"),
            ("relational", "relat"),
            ("conditional", "condit"),
            ("rational", "ration"),
            ("possibly", "possibl"),
            ("archaeology", "archaeolog"),
            ("adoption", "adopt"),
            ("probate", "probat"),
            ("rate", "rate"),
            ("controll", "control"),
            ("is", "is"),
            ("day", "dai"),
            ("yyyy", "yyyi"),
        ] {
            assert_eq!(of(word), stem, "{word}");
        }
    }
}
