//! Entropy-Modulated Policy Gradients: the nouns and the mathematics.
//!
//! A [`Batch`] of sealed trajectories goes in, a [`Credit`] with one explained value per step comes
//! out: [`Grpo`], [`DrGrpo`] and [`Rloo`] are base estimators, [`Empg`] modulates any of them.

mod baseline;
mod bonus;
mod credit;
mod dapo;
mod empg;
pub mod entropy;
mod error;
mod grouped;
pub mod loss;
mod modulation;
mod part;
pub mod prop1;
mod reader;
mod real;
mod rows;
mod scan;
mod shards;
mod table;
mod table_bytes;
mod tokens;
mod trajectory;

pub use baseline::{Advantage, DrGrpo, GroupError, Grpo, Rloo};
pub use bonus::{BonusSource, Clarity};
pub use credit::{Credit, CreditSummary, Explanation, StepCredit, StepPlace};
pub use dapo::{Overlong, flat, flat_rewards};
pub use empg::Empg;
pub use error::AdvantageError;
pub use grouped::{advantages_by_group, flat_by_group};
pub use modulation::{EmpgOptions, Normalize, Shape};
pub use part::{Part, RowKeys};
pub use real::{Real, StepMean};
pub use rows::{StepSpans, TokenRows};
pub use scan::{
    ChatMarkers, MaskValue, ResponseStart, steps_from_byte_mask, steps_from_chatml, steps_from_mask,
};
pub use table::{StepKey, StepRow, StepTable};
pub use tokens::{Base, TokenCredit};
pub use trajectory::{
    Batch, End, Group, Limit, Segment, Step, TokenId, TokenScore, Trajectory, TrajectoryError,
};
