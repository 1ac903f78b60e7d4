//! Which rows of the whole batch a part of it holds.

use crate::error::AdvantageError;
use crate::rows::StepSpans;
use crate::table::{StepKey, StepRow, StepTable};

/// Names the steps of rows of tokens: which trajectory a row belongs to, and which of its steps the
/// row begins with. The default is one whole trajectory per row, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowKeys<'a> {
    /// Trajectory of each row; none = the row's index.
    pub trajectories: Option<&'a [u64]>,
    /// Index within its trajectory of each row's first step, for trajectories that are cut into
    /// several rows; none = 0.
    pub first_steps: Option<&'a [u32]>,
}

impl RowKeys<'_> {
    /// The key of a row's step.
    pub(crate) fn key(&self, row: usize, step: usize) -> StepKey {
        let trajectory = self.trajectories.map_or(row as u64, |keys| keys[row]);
        let first = self.first_steps.map_or(0, |first| first[row]);
        StepKey { trajectory, step: first + step as u32 }
    }

    /// One key per row, and no step beyond `u32::MAX`.
    pub(crate) fn check(&self, steps: &StepSpans) -> Result<(), AdvantageError> {
        let expected = steps.rows().len();
        for (what, got) in [
            ("trajectories", self.trajectories.map(<[_]>::len)),
            ("first steps", self.first_steps.map(<[_]>::len)),
        ] {
            if let Some(got) = got.filter(|&got| got != expected) {
                return Err(AdvantageError::Length { what, expected, got });
            }
        }
        for row in 0..expected {
            let first = u64::from(self.first_steps.map_or(0, |first| first[row]));
            if first + steps.indices(row).len() as u64 > u64::from(u32::MAX) {
                return Err(AdvantageError::TooManySteps { row: row as u64 });
            }
        }
        Ok(())
    }
}

/// What rows of tokens are of their batch: all of it, or a part whose statistics come from the
/// table of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part<'a> {
    /// Names of the rows' steps in the whole batch.
    pub keys: RowKeys<'a>,
    /// Table of the whole batch, gathered from all parts; none = these rows are all there is.
    pub table: Option<&'a StepTable>,
}

/// Where each of `rows` is in the table.
///
/// # Errors
/// A step that the table lacks, or has with another entropy or base.
pub(crate) fn places(table: &StepTable, rows: &[StepRow]) -> Result<Vec<usize>, AdvantageError> {
    let all = table.rows();
    let mut next = 0;
    rows.iter()
        .map(|row| {
            let place = match all.get(next) {
                Some(there) if there.key == row.key => next,
                _ => table.find(row.key).ok_or(AdvantageError::UnknownStep(row.key))?,
            };
            next = place + 1;
            let there = &all[place];
            if there.entropy.to_bits() != row.entropy.to_bits() {
                return Err(AdvantageError::StepDiffers { key: row.key, what: "entropy" });
            }
            if there.base.to_bits() != row.base.to_bits() {
                return Err(AdvantageError::StepDiffers { key: row.key, what: "advantage" });
            }
            Ok(place)
        })
        .collect()
}
