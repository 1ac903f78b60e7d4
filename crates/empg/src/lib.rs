//! Entropy-Modulated Policy Gradients: the nouns and the mathematics.
//!
//! A [`Batch`] of sealed trajectories goes in, a [`Credit`] with one explained value per step comes
//! out: [`Grpo`], [`DrGrpo`] and [`Rloo`] are base estimators, [`Empg`] modulates any of them.

mod baseline;
mod bonus;
mod credit;
mod empg;
mod error;
pub mod loss;
mod modulation;
mod table;
mod trajectory;

pub use baseline::{Advantage, DrGrpo, GroupError, Grpo, Rloo, flat, flat_rewards};
pub use bonus::{BonusSource, Clarity};
pub use credit::{Credit, CreditSummary, Explanation, StepCredit, StepPlace};
pub use empg::Empg;
pub use error::AdvantageError;
pub use modulation::{EmpgOptions, Normalize, Shape};
pub use table::{StepKey, StepRow, StepTable};
pub use trajectory::{
    Batch, End, Group, Limit, Segment, Step, TokenId, TokenScore, Trajectory, TrajectoryError,
};
