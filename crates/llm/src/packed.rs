//! Many contexts in one pass: rows of tokens, segments that share prefixes, and targets.

use std::ops::Range;

use empg::TokenId;

use crate::{config::ModelConfig, error::EngineError};

/// A run of rows that is one context, or the continuation of another segment's beginning.
///
/// A row of a segment attends to the first [`parent_len`](Self::parent_len) rows of the parent,
/// to whatever those rows attend to, and causally to its own segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedSegment {
    /// Rows of the pack.
    pub range: Range<usize>,
    /// Index of an earlier segment whose beginning this one continues.
    pub parent: Option<usize>,
    /// How many rows of the parent come before this segment; 0 without a parent.
    pub parent_len: usize,
}

/// A token whose probability is wanted: the logits of `row` predict `token`.
///
/// Several targets may share a row: a parent's last row predicts the first token of each child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Row of the pack.
    pub row: usize,
    /// Token that the row predicts.
    pub token: TokenId,
}

/// The input of one pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// Token of each row.
    pub tokens: Vec<TokenId>,
    /// Rotary position of each row.
    pub positions: Vec<u32>,
    /// Segments in row order; together they cover every row.
    pub segments: Vec<PackedSegment>,
    /// What is scored.
    pub targets: Vec<Target>,
}

impl PackedBatch {
    /// Appends a segment; positions count on from the `parent_len` rows of the parent that it
    /// continues, from 0 without a parent. Returns its index.
    ///
    /// A parent that does not exist is caught by [`validate`](Self::validate), not here.
    pub fn push(&mut self, tokens: &[TokenId], parent: Option<(usize, usize)>) -> usize {
        let first = match parent.and_then(|(p, len)| Some((self.segments.get(p)?, len))) {
            Some((segment, len)) => {
                let start = self.positions.get(segment.range.start).copied().unwrap_or(0);
                start.saturating_add(u32::try_from(len).unwrap_or(u32::MAX))
            }
            None => 0,
        };
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((0..tokens.len()).map(|i| first.saturating_add(i as u32)));
        self.segments.push(PackedSegment {
            range: start..self.tokens.len(),
            parent: parent.map(|p| p.0),
            parent_len: parent.map_or(0, |p| p.1),
        });
        self.segments.len() - 1
    }

    /// Checks that the batch can be run by a model of this shape.
    ///
    /// # Errors
    /// The first fault found, with the row, segment or target that has it.
    pub fn validate(&self, config: &ModelConfig) -> Result<(), EngineError> {
        let rows = self.tokens.len();
        if rows == 0 {
            return Err(EngineError::EmptyBatch);
        }
        let max = u32::MAX as usize / 2;
        if rows > max {
            return Err(EngineError::TooManyRows { rows, max });
        }
        if self.positions.len() != rows {
            return Err(EngineError::PositionCount {
                tokens: rows,
                positions: self.positions.len(),
            });
        }
        let vocab_size = config.vocab_size;
        let in_vocab = |token: TokenId| (token as usize) < vocab_size;
        if let Some(row) = self.tokens.iter().position(|&t| !in_vocab(t)) {
            let token = self.tokens[row];
            return Err(EngineError::Token { place: "row", index: row, token, vocab_size });
        }
        let max = config.max_position_embeddings;
        if let Some(row) = self.positions.iter().position(|&p| p as usize >= max) {
            return Err(EngineError::Position { row, position: self.positions[row], max });
        }
        self.validate_segments()?;
        for (target, t) in self.targets.iter().enumerate() {
            if t.row >= rows {
                return Err(EngineError::TargetRow { target, row: t.row, rows });
            }
            if !in_vocab(t.token) {
                let (place, token) = ("target", t.token);
                return Err(EngineError::Token { place, index: target, token, vocab_size });
            }
        }
        Ok(())
    }

    fn validate_segments(&self) -> Result<(), EngineError> {
        let rows = self.tokens.len();
        let mut expected = 0;
        for (segment, s) in self.segments.iter().enumerate() {
            let Range { start, end } = s.range;
            if start != expected || end <= start || end > rows {
                return Err(EngineError::SegmentRange { segment, start, end, expected, rows });
            }
            expected = end;
            let fits = match s.parent {
                None => s.parent_len == 0,
                Some(p) => {
                    p < segment && s.parent_len >= 1 && s.parent_len <= self.segments[p].range.len()
                }
            };
            if !fits {
                let (parent, parent_len) = (s.parent, s.parent_len);
                return Err(EngineError::Parent { segment, parent, parent_len });
            }
        }
        if expected != rows {
            return Err(EngineError::Uncovered { covered: expected, rows });
        }
        Ok(())
    }
}
