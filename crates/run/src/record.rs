//! What one training step adds to a run.

use serde_json::{Map, Value};

use crate::{CheckpointFiles, TrajectoryRow};

/// One step: everything that [`RunDir::commit`](crate::RunDir::commit) makes durable at once.
#[derive(Clone, Debug, Default)]
pub struct StepRecord<'a> {
    /// The training step; larger than every committed one.
    pub step: u64,
    /// Quantities that a repetition of the step gives again to the bit; a line of
    /// `metrics.jsonl`, with `"step"` before them. A key `"step"` in here is ignored.
    pub metrics: Map<String, Value>,
    /// Clock readings and what depends on them; a line of `timings.jsonl`.
    pub timings: Map<String, Value>,
    /// Agent steps, for `trajectories/`; none writes no file.
    pub trajectories: Option<&'a [TrajectoryRow]>,
    /// What the run can be continued from after this step.
    pub checkpoint: Option<CheckpointFiles>,
}
