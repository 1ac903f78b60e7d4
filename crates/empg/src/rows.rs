//! Where rows and steps lie in flat arrays of tokens.

use std::ops::Range;

use crate::error::AdvantageError;
use crate::scan::{MaskValue, steps_from_byte_mask};
use crate::shards::Shards;

/// Rows (trajectories) of tokens that lie one after the other in one slice: (B, T) padded to equal
/// widths, or packed without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRows {
    /// First token of each row, and the number of tokens at the end.
    starts: Vec<usize>,
}

impl TokenRows {
    /// `rows` rows of `width` tokens: a contiguous (B, T) array.
    pub fn padded(rows: usize, width: usize) -> Self {
        Self { starts: (0..=rows).map(|row| row.saturating_mul(width)).collect() }
    }

    /// Rows of these lengths without padding between them.
    pub fn packed(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut starts = vec![0usize];
        let mut end = 0usize;
        for length in lengths {
            end = end.saturating_add(length);
            starts.push(end);
        }
        Self { starts }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens, padding included.
    pub fn tokens(&self) -> usize {
        self.starts[self.len()]
    }

    /// Where a row lies in the slice.
    pub fn range(&self, row: usize) -> Range<usize> {
        self.starts[row]..self.starts[row + 1]
    }
}

/// The steps of every row, checked: inside their rows, in order, without overlap, none empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSpans {
    rows: TokenRows,
    /// First step of each row, and the number of steps at the end.
    first: Vec<usize>,
    /// Token ranges relative to the row.
    spans: Vec<Range<usize>>,
}

impl StepSpans {
    /// The steps of each row as token ranges relative to the row; a row may have none.
    ///
    /// # Errors
    /// Another number of rows; a step that is empty, leaves its row, or overlaps or precedes the
    /// one before it.
    pub fn new<Row: IntoIterator<Item = Range<usize>>>(
        rows: TokenRows,
        steps: impl IntoIterator<Item = Row>,
    ) -> Result<Self, AdvantageError> {
        let mut first = Vec::with_capacity(rows.len() + 1);
        first.push(0);
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (row, steps) in steps.into_iter().enumerate() {
            let trajectory = row as u64;
            let tokens = if row < rows.len() { rows.range(row).len() } else { 0 };
            let mut last = 0;
            for (step, Range { start, end }) in steps.into_iter().enumerate() {
                let step = step as u64;
                if start >= end {
                    return Err(AdvantageError::EmptyStep { trajectory, step, start, end });
                }
                if start < last {
                    return Err(AdvantageError::OutOfOrder { trajectory, step, start });
                }
                if end > tokens {
                    return Err(AdvantageError::OutOfRow { trajectory, step, end, tokens });
                }
                last = end;
                spans.push(start..end);
            }
            first.push(spans.len());
        }
        let (expected, got) = (rows.len(), first.len() - 1);
        if expected != got {
            return Err(AdvantageError::Length { what: "rows of steps", expected, got });
        }
        Ok(Self { rows, first, spans })
    }

    /// Steps = runs of bytes that are not zero, within each row.
    ///
    /// # Errors
    /// A mask of another size than the rows.
    pub fn from_mask(rows: TokenRows, mask: &[u8]) -> Result<Self, AdvantageError> {
        let (expected, got) = (rows.tokens(), mask.len());
        if expected != got {
            return Err(AdvantageError::Length { what: "mask", expected, got });
        }
        let mut first = vec![0];
        let mut spans = Vec::new();
        for row in 0..rows.len() {
            spans.extend(steps_from_byte_mask(&mask[rows.range(row)]));
            first.push(spans.len());
        }
        Ok(Self { rows, first, spans })
    }

    /// Steps = runs of 1 within each row of a mask of 0 and 1, rows shared out over `threads`
    /// (0 = all cores).
    ///
    /// # Errors
    /// A mask of another size than the rows; an entry that is neither 0 nor 1.
    pub fn from_binary_mask<M: MaskValue>(
        rows: TokenRows,
        mask: &[M],
        threads: usize,
    ) -> Result<Self, AdvantageError> {
        let (expected, got) = (rows.tokens(), mask.len());
        if expected != got {
            return Err(AdvantageError::Length { what: "mask", expected, got });
        }
        let parts = Shards::new(&rows, threads).map(|shard| {
            let (mut ends, mut spans, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
            for row in shard {
                M::push_steps(&mask[rows.range(row)], &mut spans, &mut bytes).map_err(
                    |(token, value)| AdvantageError::MaskValue {
                        row: row as u64,
                        token: token as u64,
                        value,
                    },
                )?;
                ends.push(spans.len());
            }
            Ok((ends, spans))
        });
        let mut first = Vec::with_capacity(rows.len() + 1);
        first.push(0);
        let mut all = Vec::new();
        for part in parts {
            let (ends, spans) = part?;
            first.extend(ends.into_iter().map(|end| all.len() + end));
            if all.is_empty() {
                all = spans;
            } else {
                all.extend(spans);
            }
        }
        Ok(Self { rows, first, spans: all })
    }

    /// The rows.
    pub fn rows(&self) -> &TokenRows {
        &self.rows
    }

    /// Number of steps of all rows.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether no row has a step.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The steps of a row as token ranges relative to the row.
    pub fn of_row(&self, row: usize) -> &[Range<usize>] {
        &self.spans[self.indices(row)]
    }

    /// The positions of a row's steps among the steps of all rows.
    pub fn indices(&self, row: usize) -> Range<usize> {
        self.first[row]..self.first[row + 1]
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn rows_know_their_ranges() {
        let padded = TokenRows::padded(3, 4);
        assert_eq!((padded.len(), padded.tokens(), padded.range(1)), (3, 12, 4..8));
        let packed = TokenRows::packed([2, 0, 5]);
        assert_eq!((packed.len(), packed.tokens(), packed.range(2)), (3, 7, 2..7));
        assert!(TokenRows::padded(0, 4).is_empty());
    }

    #[test]
    fn misplaced_steps_are_named() {
        let refuse = |steps: Vec<Vec<Range<usize>>>| {
            StepSpans::new(TokenRows::padded(2, 4), steps).unwrap_err().to_string()
        };
        assert_eq!(
            refuse(vec![vec![], vec![0..1, 2..2]]),
            "trajectory 1 step 1: the range 2..2 is empty"
        );
        assert!(refuse(vec![vec![0..2, 1..3], vec![]]).contains("before the end of the last one"));
        assert!(refuse(vec![vec![0..5], vec![]]).contains("the row has 4 tokens"));
        assert!(refuse(vec![vec![0..1]]).contains("expected 2, got 1"));
        assert!(refuse(vec![vec![], vec![], vec![0..1]]).contains("the row has 0 tokens"));
    }

    #[test]
    fn a_mask_does_not_join_rows() {
        let spans = StepSpans::from_mask(TokenRows::padded(2, 3), &[0, 1, 1, 1, 0, 1]).unwrap();
        assert_eq!(spans.of_row(0), [1..3]);
        assert_eq!(spans.of_row(1), [0..1, 2..3]);
        assert_eq!(spans.indices(1), 1..3);
        assert!(StepSpans::from_mask(TokenRows::padded(2, 3), &[0, 1]).is_err());
    }
}
