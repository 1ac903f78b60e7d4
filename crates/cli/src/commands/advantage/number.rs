//! Numbers and arrays of numbers, NaN included.

use super::line::{Fault, fault};

/// A number, or NaN for `null` and `NaN`; none for anything else.
pub(super) fn number(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] =
        [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let (digits, negative) = match text {
        [b'-', rest @ ..] => (rest, true),
        _ => (text, false),
    };
    // Plain decimals of at most 15 digits are exact as integer / power of ten.
    if digits.len() <= 16 && digits.first().is_some_and(u8::is_ascii_digit) {
        let (mut whole, mut point, mut plain) = (0u64, None, true);
        for (place, &b) in digits.iter().enumerate() {
            match b {
                b'0'..=b'9' => whole = whole * 10 + u64::from(b - b'0'),
                b'.' if point.is_none() && place + 1 < digits.len() => point = Some(place),
                _ => plain = false,
            }
        }
        let decimals = point.map_or(0, |place| digits.len() - 1 - place);
        if plain && decimals < POWERS.len() && (point.is_some() || digits.len() < 16) {
            let value = whole as f64 / POWERS[decimals];
            return Some(if negative { -value } else { value });
        }
    }
    match digits {
        b"null" | b"NaN" => return Some(f64::NAN),
        b"Infinity" => return Some(if negative { f64::NEG_INFINITY } else { f64::INFINITY }),
        [b'0'..=b'9', .., b'0'..=b'9'] | [b'0'..=b'9'] => {}
        _ => return None,
    }
    if text.windows(2).any(|pair| pair[0] == b'.' && !pair[1].is_ascii_digit()) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Calls `take(index, value)` for every number of an array and returns their count.
pub(super) fn numbers(
    field: &'static str,
    array: &[u8],
    mut take: impl FnMut(usize, f64, &[u8]),
) -> Result<usize, Fault> {
    let [b'[', inner @ .., b']'] = array else {
        return fault(field, "expected an array of numbers");
    };
    if inner.trim_ascii().is_empty() {
        return Ok(0);
    }
    let mut count = 0;
    let mut at = 0;
    loop {
        while inner.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        let start = at;
        while inner.get(at).is_some_and(|&b| b != b',') {
            at += 1;
        }
        let text = inner[start..at].trim_ascii_end();
        let Some(value) = number(text) else {
            let text = String::from_utf8_lossy(&text[..text.len().min(40)]);
            return fault(field, format!("token {count}: {text:?} is not a number"));
        };
        take(count, value, text);
        count += 1;
        if at == inner.len() {
            return Ok(count);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_exactly() {
        for text in [
            "0",
            "-0.5",
            "0.1",
            "123456789012345",
            "0.693147180559945",
            "1e-7",
            "9007199254740993",
            "0.6931471805599453",
            "2.5E+3",
            "1234567890.12345",
        ] {
            assert_eq!(number(text.as_bytes()), text.parse().ok(), "{text}");
        }
        for text in ["", "-", "x", "1.", "1x", ".5", "+1", "inf", "1..2", "--1", "true"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
        assert!(number(b"null").is_some_and(f64::is_nan));
    }
}
