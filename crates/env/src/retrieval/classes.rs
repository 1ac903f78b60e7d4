//! Which characters make words: the properties that the word grammar reads, per code point.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// Properties of a character, one bit each.
pub(super) type Bits = u16;

pub(super) const LETTER: Bits = 1;
pub(super) const HEBREW: Bits = 1 << 1;
pub(super) const NUMERIC: Bits = 1 << 2;
pub(super) const KATAKANA: Bits = 1 << 3;
/// Joins letters when it stands between two of them.
pub(super) const MID_LETTER: Bits = 1 << 4;
/// Joins digits when it stands between two of them.
pub(super) const MID_NUMBER: Bits = 1 << 5;
pub(super) const SINGLE_QUOTE: Bits = 1 << 6;
pub(super) const DOUBLE_QUOTE: Bits = 1 << 7;
/// The underscore and its kin.
pub(super) const CONNECTOR: Bits = 1 << 8;
/// Marks that belong to the character before them.
pub(super) const EXTEND: Bits = 1 << 9;
/// Han and Hiragana: every character is a word.
pub(super) const ALONE: Bits = 1 << 10;
/// South-East Asian scripts, whose words need a dictionary: a run is one word.
pub(super) const COMPLEX: Bits = 1 << 11;
pub(super) const PICTOGRAPH: Bits = 1 << 12;
pub(super) const REGIONAL: Bits = 1 << 13;
pub(super) const EMOJI_MODIFIER: Bits = 1 << 14;

/// Zero-width joiner.
pub(super) const JOINER: char = '\u{200d}';
/// Asks for the coloured form of the character before it.
pub(super) const EMOJI_FORM: char = '\u{fe0f}';
/// Asks for the plain form of the character before it.
pub(super) const TEXT_FORM: char = '\u{fe0e}';
/// The frame of a key.
pub(super) const KEYCAP: char = '\u{20e3}';

const BLOCK: usize = 128;

/// Bits of the ASCII characters.
pub(super) static ASCII: [Bits; 128] = ascii();

const fn ascii() -> [Bits; 128] {
    let mut bits = [0; 128];
    let mut c = 0;
    while c < 128 {
        bits[c] = match c as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'0'..=b'9' => NUMERIC,
            b'_' => CONNECTOR,
            b'.' => MID_LETTER | MID_NUMBER,
            b'\'' => SINGLE_QUOTE | MID_LETTER | MID_NUMBER,
            b'"' => DOUBLE_QUOTE,
            b':' => MID_LETTER,
            b',' | b';' => MID_NUMBER,
            _ => 0,
        };
        c += 1;
    }
    bits
}

/// The bits of any character.
#[inline]
pub(super) fn bits(c: char) -> Bits {
    match ASCII.get(c as usize) {
        Some(&bits) => bits,
        None => TABLE.get(c),
    }
}

/// All other characters, in blocks of which equal ones are kept once.
struct Table {
    blocks: Vec<u16>,
    bits: Vec<[Bits; BLOCK]>,
}

impl Table {
    fn get(&self, c: char) -> Bits {
        let (block, at) = (c as usize / BLOCK, c as usize % BLOCK);
        self.blocks.get(block).map_or(0, |&b| self.bits[usize::from(b)][at])
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(table);

/// What has which bit. Lucene 9 reads Unicode 12.1; the single characters named are those to which
/// later versions gave another property.
const RULES: [(&str, Bits); 16] = [
    (
        r"[[\p{wb=ALetter}&&\p{age=12.1}]--[\u{2E5}-\u{2EB}\u{55A}\u{58A}\u{70F}\u{A708}-\u{A716}]]",
        LETTER,
    ),
    (r"[\p{wb=Hebrew_Letter}&&\p{age=12.1}]", HEBREW),
    (
        r"[[\p{wb=Numeric}&&\p{age=12.1}]--[\u{600}-\u{605}\u{6DD}\u{8E2}\u{110BD}\u{110CD}\u{19DA}]]",
        NUMERIC,
    ),
    (r"[\p{wb=Katakana}&&\p{age=12.1}]", KATAKANA),
    (r"[[\p{wb=MidLetter}:\u{FE55}\u{FF1A}]--[\u{55F}]]", MID_LETTER),
    (r"[\p{wb=MidNum}\u{FE10}\u{FE14}]", MID_NUMBER),
    (r"[\p{wb=MidNumLet}\p{wb=Single_Quote}]", MID_LETTER | MID_NUMBER),
    (r"\p{wb=Single_Quote}", SINGLE_QUOTE),
    (r"\p{wb=Double_Quote}", DOUBLE_QUOTE),
    (r"\p{wb=ExtendNumLet}", CONNECTOR),
    (
        r"[[[\p{wb=Extend}\p{wb=Format}\p{wb=ZWJ}]&&\p{age=12.1}][\u{600}-\u{605}\u{6DD}\u{70F}\u{8E2}\u{110BD}\u{110CD}]]",
        EXTEND,
    ),
    (r"[[[\p{sc=Han}\p{sc=Hiragana}]&&\p{age=12.1}]--[\u{16FE2}]]", ALONE),
    (
        r"[[[[\p{sc=Thai}\p{sc=Lao}\p{sc=Myanmar}\p{sc=Khmer}\p{sc=Tai_Le}\p{sc=New_Tai_Lue}\p{sc=Tai_Tham}\p{sc=Tai_Viet}\p{sc=Ahom}]&&[\p{L}\p{M}]&&\p{age=12.1}]--[\u{1A7F}]][\u{109E}\u{109F}\u{19DA}\u{19DE}\u{19DF}\u{1AA0}-\u{1AA6}\u{1AA8}-\u{1AAD}\u{AA77}-\u{AA79}\u{AADE}\u{AADF}\u{1173A}\u{1173B}\u{1173F}]]",
        COMPLEX,
    ),
    (r"[\p{Extended_Pictographic}\u{1FB00}-\u{1FBFF}]", PICTOGRAPH),
    (r"\p{wb=Regional_Indicator}", REGIONAL),
    (r"[\u{1F3FB}-\u{1F3FF}]", EMOJI_MODIFIER),
];

fn table() -> Table {
    let mut all = vec![0 as Bits; 0x11_0000];
    for (rule, bit) in RULES {
        let parsed = regex_syntax::parse(rule).expect("the rules are well-formed");
        let ranges: Vec<(char, char)> = match parsed.kind() {
            HirKind::Class(Class::Unicode(class)) => {
                class.ranges().iter().map(|range| (range.start(), range.end())).collect()
            }
            // A class of one character.
            HirKind::Literal(literal) => {
                String::from_utf8_lossy(&literal.0).chars().map(|c| (c, c)).collect()
            }
            _ => unreachable!("every rule is a class of characters"),
        };
        for (first, last) in ranges {
            for bits in &mut all[first as usize..=last as usize] {
                *bits |= bit;
            }
        }
    }
    let mut table = Table { blocks: Vec::new(), bits: Vec::new() };
    let mut seen = std::collections::HashMap::new();
    for block in all.chunks_exact(BLOCK) {
        let block: [Bits; BLOCK] = block.try_into().expect("blocks have one length");
        let at = *seen.entry(block).or_insert_with(|| {
            table.bits.push(block);
            (table.bits.len() - 1) as u16
        });
        table.blocks.push(at);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ascii_table_says_what_the_full_one_says() {
        for c in '\0'..='\x7f' {
            // Digits and signs that can be keys count as emoji nowhere but before a key's frame.
            assert_eq!(ASCII[c as usize], TABLE.get(c), "{c:?}");
        }
    }

    #[test]
    fn equal_blocks_are_kept_once() {
        assert!(TABLE.bits.len() < 1000, "{}", TABLE.bits.len());
    }
}
