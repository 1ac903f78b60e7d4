//! BM25 in single precision, operation for operation as Lucene computes it.

/// Saturation of repeated terms.
pub(super) const K1: f32 = 0.9;
/// How far a document's length counts.
pub(super) const B: f32 = 0.4;

/// ln(1 + (N − df + ½) / (df + ½)) for `n` documents with text, of which `df` hold the term.
pub(super) fn idf(n: u64, df: u64) -> f32 {
    (1.0 + ((n - df) as f64 + 0.5) / (df as f64 + 0.5)).ln() as f32
}

/// The part of a term in a document's score: w − w / (1 + tf · inv), where w = idf × repetitions in
/// the query and `inv` comes from [`inverse_norms`].
#[inline]
pub(super) fn part(w: f32, tf: f32, inv: f32) -> f32 {
    w - w / (1.0 + tf * inv)
}

/// Rounded scores count 256ths.
pub(super) const STEPS: f32 = 256.0;

/// A part of a score, rounded up to the next step; at least one.
pub(super) fn impact(part: f32) -> u16 {
    ((part * STEPS).ceil() as u16).max(1)
}

/// 1 / (k1 · (1 − b + b · dl / avg)) for every stored length, `avg` the mean length of the documents.
pub(super) fn inverse_norms(avg: f32) -> [f32; 256] {
    std::array::from_fn(|byte| 1.0 / (K1 * ((1.0 - B) + B * length(byte as u8) as f32 / avg)))
}

/// Lengths are stored in one byte: exact up to 39, then in steps of an eighth (four significant
/// bits), rounded down.
pub(super) fn length_byte(length: u32) -> u8 {
    if length < EXACT { length as u8 } else { EXACT as u8 + four_bits(length - EXACT) }
}

/// The length that a byte stands for.
pub(super) fn length(byte: u8) -> u32 {
    let byte = u32::from(byte);
    if byte < EXACT {
        return byte;
    }
    let code = byte - EXACT;
    let (mantissa, exponent) = (code & 7, code >> 3);
    EXACT + if exponent == 0 { mantissa } else { (mantissa | 8) << (exponent - 1) }
}

/// Lengths below this are exact: so many codes are left when the greatest 32-bit length has its own.
const EXACT: u32 = 24;

fn four_bits(value: u32) -> u8 {
    let bits = 32 - value.leading_zeros();
    if bits < 4 {
        return value as u8;
    }
    let shift = bits - 4;
    ((((shift + 1) << 3) | ((value >> shift) & 7)) & 0xff) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_rounded_down_to_four_bits() {
        for n in 0..40 {
            assert_eq!(length(length_byte(n)), n);
        }
        assert_eq!(length(length_byte(41)), 40);
        assert_eq!(length(length_byte(55)), 54);
        assert_eq!(length(length_byte(1000)), 24 + 960);
        for byte in 0..=255u8 {
            assert_eq!(length_byte(length(byte)), byte);
        }
        assert_eq!(length_byte(i32::MAX as u32), 255);
    }

    #[test]
    fn rare_terms_weigh_more() {
        assert!(idf(100, 1) > idf(100, 2));
        assert!(idf(100, 100) > 0.0);
    }
}
