//! The step table: the small gatherable relation that EMPG's statistics are computed from.

use serde::{Deserialize, Serialize};

use crate::error::AdvantageError;

/// Names a step. The order of keys is the order in which statistics are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepKey {
    /// Which trajectory of the whole batch.
    pub trajectory: u64,
    /// Which step of it.
    pub step: u32,
}

/// One step: what the statistics need to know about it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// Which step.
    pub key: StepKey,
    /// H_it (nats).
    pub entropy: f64,
    /// A_it: the base advantage.
    pub base: f64,
}

/// Steps of a batch, sorted by key, each key once.
///
/// Workers that hold parts of a batch send their rows to each other and [`gather`](Self::gather)
/// them; every worker then runs the same single-process function on the same table, so the result
/// has the same bits for any sharding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<StepRow>", into = "Vec<StepRow>")]
pub struct StepTable {
    rows: Vec<StepRow>,
}

impl StepTable {
    /// Sorts the rows by key.
    ///
    /// # Errors
    /// A key that occurs twice; an entropy or base advantage that is not finite.
    pub fn new(mut rows: Vec<StepRow>) -> Result<Self, AdvantageError> {
        if !rows.is_sorted_by_key(|row| row.key) {
            rows.sort_by_key(|row| row.key);
        }
        for pair in rows.windows(2) {
            if pair[0].key == pair[1].key {
                return Err(AdvantageError::DuplicateStep(pair[0].key));
            }
        }
        for row in &rows {
            let what = if !row.entropy.is_finite() {
                "entropy"
            } else if row.base.is_finite() {
                continue;
            } else {
                "advantage"
            };
            return Err(AdvantageError::NotFinite {
                what,
                trajectory: row.key.trajectory,
                step: Some(u64::from(row.key.step)),
                token: None,
            });
        }
        Ok(Self { rows })
    }

    /// Rows that are known to be sorted by key, each key once, and finite.
    pub(crate) fn of_sorted(rows: Vec<StepRow>) -> Self {
        Self { rows }
    }

    /// The table of the whole batch from the tables of its shards, in any order.
    ///
    /// # Errors
    /// A step that two shards claim.
    pub fn gather(shards: impl IntoIterator<Item = Self>) -> Result<Self, AdvantageError> {
        Self::new(shards.into_iter().flat_map(|shard| shard.rows).collect())
    }

    /// The rows, sorted by key.
    pub fn rows(&self) -> &[StepRow] {
        &self.rows
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Position of a step's row.
    pub fn find(&self, key: StepKey) -> Option<usize> {
        self.rows.binary_search_by_key(&key, |row| row.key).ok()
    }
}

impl TryFrom<Vec<StepRow>> for StepTable {
    type Error = AdvantageError;

    fn try_from(rows: Vec<StepRow>) -> Result<Self, AdvantageError> {
        Self::new(rows)
    }
}

impl From<StepTable> for Vec<StepRow> {
    fn from(table: StepTable) -> Self {
        table.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(trajectory: u64, step: u32) -> StepRow {
        StepRow { key: StepKey { trajectory, step }, entropy: 0.5, base: 1.0 }
    }

    #[test]
    fn shards_gather_in_key_order() {
        let a = StepTable::new(vec![row(1, 1), row(0, 0)]).unwrap();
        let b = StepTable::new(vec![row(1, 0)]).unwrap();
        let whole = StepTable::gather([b, a]).unwrap();
        let keys: Vec<_> = whole.rows().iter().map(|r| (r.key.trajectory, r.key.step)).collect();
        assert_eq!(keys, [(0, 0), (1, 0), (1, 1)]);
        assert_eq!(whole.find(StepKey { trajectory: 1, step: 1 }), Some(2));
        assert_eq!(whole.find(StepKey { trajectory: 2, step: 0 }), None);
    }

    #[test]
    fn a_step_claimed_twice_is_refused() {
        let a = StepTable::new(vec![row(1, 1)]).unwrap();
        let error = StepTable::gather([a.clone(), a]).unwrap_err();
        assert_eq!(error.to_string(), "trajectory 1 step 1 is in the table twice");
    }

    #[test]
    fn a_nan_names_its_step() {
        let bad = StepRow { entropy: f64::NAN, ..row(3, 2) };
        let error = StepTable::new(vec![row(0, 0), bad]).unwrap_err();
        assert_eq!(error.to_string(), "entropy is not finite: trajectory 3 step 2");
    }
}
