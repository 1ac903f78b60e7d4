//! A JSON string as Python's `json.dumps` writes it.

use std::fmt::Write as _;

/// Appends the string with its quotes; everything outside printable ASCII is escaped, characters
/// beyond U+FFFF as two surrogates.
pub(super) fn push_ascii(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        let mut out = String::new();
        push_ascii(&mut out, "a\"\\/\n\u{7f}\u{1}é😀");
        assert_eq!(out, r#""a\"\\/\n\u007f\u0001\u00e9\ud83d\ude00""#);
    }
}
