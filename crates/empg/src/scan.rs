//! Finding steps in other trainers' batches: by a mask, or by the chat template's markers.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::AdvantageError;
use crate::trajectory::TokenId;

/// Steps = runs of entries that are not zero, of any numeric or boolean mask of one row.
pub fn steps_from_mask<T: Copy + Default + PartialEq>(mask: &[T]) -> Vec<Range<usize>> {
    let zero = T::default();
    let mut steps = Vec::new();
    let mut from = 0;
    while let Some(skip) = mask[from..].iter().position(|&m| m != zero) {
        let start = from + skip;
        let length = mask[start..].iter().position(|&m| m == zero);
        from = length.map_or(mask.len(), |n| start + n);
        steps.push(start..from);
    }
    steps
}

/// [`steps_from_mask`] for bytes, eight at a time.
pub fn steps_from_byte_mask(mask: &[u8]) -> Vec<Range<usize>> {
    let mut steps = Vec::new();
    push_steps(mask, &mut steps);
    steps
}

/// Adds the runs of bytes that are not zero to `steps`.
fn push_steps(mask: &[u8], steps: &mut Vec<Range<usize>>) {
    let mut from = first(mask, 0, false);
    while from < mask.len() {
        let end = first(mask, from, true);
        steps.push(from..end);
        from = first(mask, end, false);
    }
}

/// Adds the runs of 1 of a mask of bytes, 64 at a time; false, and no steps of use, where a byte is
/// neither 0 nor 1.
fn push_binary_steps(mask: &[u8], steps: &mut Vec<Range<usize>>) -> bool {
    let mut runs = Runs { steps, open: None, before: 0 };
    let (blocks, rest) = mask.as_chunks::<64>();
    let mut other = 0;
    for (index, block) in blocks.iter().enumerate() {
        runs.push(index * 64, bits(block, &mut other));
    }
    let mut last = [0; 64];
    last[..rest.len()].copy_from_slice(rest);
    runs.push(blocks.len() * 64, bits(&last, &mut other));
    if let Some(start) = runs.open {
        runs.steps.push(start..mask.len());
    }
    other == 0
}

/// Bit i is byte i, all being 0 or 1; what others have is added to `other`.
#[inline]
fn bits(block: &[u8; 64], other: &mut u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The product carries bit 0 of byte i to bit 56 + i.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut bits = 0;
    for (place, word) in block.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        *other |= word & !ONES;
        bits |= ((word & ONES).wrapping_mul(GATHER) >> 56) << (8 * place);
    }
    bits
}

/// Runs of set bits, seen 64 at a time.
struct Runs<'a> {
    steps: &'a mut Vec<Range<usize>>,
    open: Option<usize>,
    /// The last bit seen.
    before: u64,
}

impl Runs<'_> {
    #[inline]
    fn push(&mut self, at: usize, bits: u64) {
        let mut edges = bits ^ (bits << 1 | self.before);
        self.before = bits >> 63;
        while edges != 0 {
            let edge = at + edges.trailing_zeros() as usize;
            match self.open.take() {
                None => self.open = Some(edge),
                Some(start) => self.steps.push(start..edge),
            }
            edges &= edges - 1;
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A type of mask entries: `u8`, `i32`, `i64`, `f32` or `f64`.
pub trait MaskValue: sealed::Sealed + Copy + Sync {
    /// Adds the runs of 1 of one row to `steps`; `bytes` is scratch space.
    ///
    /// # Errors
    /// Position and value of the first entry that is neither 0 nor 1.
    fn push_steps(
        row: &[Self],
        steps: &mut Vec<Range<usize>>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), (usize, f64)>;
}

impl sealed::Sealed for u8 {}

impl MaskValue for u8 {
    fn push_steps(
        row: &[Self],
        steps: &mut Vec<Range<usize>>,
        _bytes: &mut Vec<u8>,
    ) -> Result<(), (usize, f64)> {
        if push_binary_steps(row, steps) {
            return Ok(());
        }
        let at = row.iter().position(|&m| m > 1).unwrap_or_default();
        Err((at, f64::from(row[at])))
    }
}

macro_rules! mask_value {
    ($($number:ty),*) => {$(
        impl sealed::Sealed for $number {}

        impl MaskValue for $number {
            fn push_steps(
                row: &[Self],
                steps: &mut Vec<Range<usize>>,
                bytes: &mut Vec<u8>,
            ) -> Result<(), (usize, f64)> {
                let (zero, one) = (0 as Self, 1 as Self);
                let mut good = true;
                bytes.clear();
                bytes.extend(row.iter().map(|&m| {
                    good &= (m == zero) | (m == one);
                    u8::from(m == one)
                }));
                if !good {
                    let at = row.iter().position(|&m| m != zero && m != one).unwrap_or_default();
                    return Err((at, row[at] as f64));
                }
                push_binary_steps(bytes, steps);
                Ok(())
            }
        }
    )*};
}

mask_value!(i32, i64, f32, f64);

/// The first position from `from` on whose byte is zero (or is not), or the length.
fn first(mask: &[u8], from: usize, zero: bool) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    let (words, _) = mask[from..].as_chunks::<8>();
    for word in words {
        let word = u64::from_ne_bytes(*word);
        let found = if zero { word.wrapping_sub(ONES) & !word & HIGH } else { word };
        if found != 0 {
            break;
        }
        at += 8;
    }
    mask[at..].iter().position(|&m| (m == 0) == zero).map_or(mask.len(), |n| at + n)
}

/// What a response begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResponseStart {
    /// Inside an assistant turn unless the first token of the header comes before the first end
    /// marker.
    #[default]
    Detect,
    /// Inside an assistant turn: its header closes the prompt, as verl has it.
    Inside,
    /// Outside of any assistant turn.
    Outside,
}

/// The markers that [`steps_from_chatml`] looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMarkers<'a> {
    /// Tokens of `<|im_start|>assistant\n`.
    pub header: &'a [TokenId],
    /// Tokens of `<|im_end|>`.
    pub end: &'a [TokenId],
    /// Whether a step includes its end marker: the policy sampled it.
    pub include_end: bool,
    /// Whether the response begins inside a turn.
    pub start: ResponseStart,
}

/// Steps of one response by the project page's scan: a step begins after a header and ends before
/// the next end marker; an unterminated last turn runs to the end of the response; a response that
/// begins inside a turn opens a step at 0. Turns without tokens are left out.
///
/// `response` ends where its padding begins.
///
/// # Errors
/// An empty marker.
pub fn steps_from_chatml(
    response: &[TokenId],
    markers: &ChatMarkers<'_>,
) -> Result<Vec<Range<usize>>, AdvantageError> {
    let ChatMarkers { header, end, include_end, start } = *markers;
    let Some(&opening) = header.first() else {
        return Err(AdvantageError::EmptyMarker { what: "header" });
    };
    if end.is_empty() {
        return Err(AdvantageError::EmptyMarker { what: "end" });
    }
    let inside = match start {
        ResponseStart::Inside => true,
        ResponseStart::Outside => false,
        ResponseStart::Detect => {
            let turn_end = find(response, end, 0).unwrap_or(response.len());
            !response[..turn_end].contains(&opening)
        }
    };
    let mut steps = Vec::new();
    let mut open =
        if inside { Some(0) } else { find(response, header, 0).map(|at| at + header.len()) };
    while let Some(from) = open {
        let found = find(response, end, from);
        let after = found.map_or(response.len(), |at| at + end.len());
        let to = if include_end { after } else { found.unwrap_or(response.len()) };
        if from < to {
            steps.push(from..to);
        }
        open = find(response, header, after).map(|at| at + header.len());
    }
    Ok(steps)
}

fn find(tokens: &[TokenId], marker: &[TokenId], from: usize) -> Option<usize> {
    tokens.get(from..)?.windows(marker.len()).position(|w| w == marker).map(|at| from + at)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_mask_are_steps() {
        assert_eq!(steps_from_mask(&[0, 1, 1, 0, 1]), [1..3, 4..5]);
        assert_eq!(steps_from_mask(&[true, false]), [0..1]);
        assert!(steps_from_mask::<i64>(&[]).is_empty() && steps_from_mask(&[0.0; 9]).is_empty());
    }

    #[test]
    fn the_byte_scan_equals_the_plain_one() {
        let mut state = 9u64;
        for length in 0..200 {
            let mask: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                    [0, 0, 0, 1, 1, 1, 128, 255][(state >> 61) as usize]
                        * u8::from(state >> 40 & 15 != 0)
                })
                .collect();
            assert_eq!(steps_from_byte_mask(&mask), steps_from_mask(&mask));
        }
        for run in 0..40 {
            let mask = [vec![0u8; run], vec![1; 40 - run]].concat();
            assert_eq!(steps_from_byte_mask(&mask), steps_from_mask(&mask));
        }
    }

    #[test]
    fn the_scan_by_blocks_equals_the_plain_one() {
        let mut state = 3u64;
        for length in 0..700 {
            let mask: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                    u8::from((state >> 58) > length % 61)
                })
                .collect();
            let mut steps = vec![7..9];
            assert!(push_binary_steps(&mask, &mut steps));
            assert_eq!(steps[1..], steps_from_mask(&mask));
        }
        for at in 0..150 {
            for other in [2, 3, 128, 255] {
                let mut mask = [1; 150];
                mask[at] = other;
                assert!(!push_binary_steps(&mask, &mut Vec::new()));
            }
        }
    }

    // 1 = <|im_start|>, 2 = assistant, 3 = newline, 9 = <|im_end|>, 4 = user
    fn scan(response: &[TokenId], include_end: bool, start: ResponseStart) -> Vec<Range<usize>> {
        let markers = ChatMarkers { header: &[1, 2, 3], end: &[9], include_end, start };
        steps_from_chatml(response, &markers).unwrap()
    }

    #[test]
    fn turns_lie_between_the_markers() {
        let response = [1, 4, 3, 70, 9, 3, 1, 2, 3, 50, 51, 9, 3, 1, 2, 3, 60];
        assert_eq!(scan(&response, false, ResponseStart::Detect), [9..11, 16..17]);
        assert_eq!(scan(&response, true, ResponseStart::Detect), [9..12, 16..17]);
        assert_eq!(scan(&response, true, ResponseStart::Outside), [9..12, 16..17]);
    }

    #[test]
    fn a_response_may_begin_inside_a_turn() {
        let response = [50, 51, 9, 3, 1, 4, 3, 70, 9, 3, 1, 2, 3, 60, 9];
        assert_eq!(scan(&response, false, ResponseStart::Detect), [0..2, 13..14]);
        assert_eq!(scan(&response, true, ResponseStart::Inside), [0..3, 13..15]);
        assert_eq!(scan(&response, false, ResponseStart::Outside), [13..14]);
        assert_eq!(scan(&[50, 51], true, ResponseStart::Detect), [0..2]);
    }

    #[test]
    fn empty_turns_are_no_steps() {
        assert!(scan(&[1, 2, 3, 9], false, ResponseStart::Detect).is_empty());
        assert_eq!(scan(&[1, 2, 3, 9], true, ResponseStart::Detect), [3..4]);
        assert!(scan(&[1, 2, 3], true, ResponseStart::Detect).is_empty());
        assert!(scan(&[], true, ResponseStart::Inside).is_empty());
    }

    #[test]
    fn an_empty_marker_is_refused() {
        let markers = ChatMarkers {
            header: &[1],
            end: &[],
            include_end: false,
            start: ResponseStart::Detect,
        };
        let error = steps_from_chatml(&[1], &markers).unwrap_err();
        assert_eq!(error.to_string(), "the end token sequence is empty");
    }
}
