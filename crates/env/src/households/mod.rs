//! Procedural households: generated games in ALFWorld's problem format, played by the same engine as
//! real ones, and an expert that solves both from observations alone.
//!
//! [`HouseholdSet`] is the set of tasks, [`Expert`] the observing expert, [`demonstration`] plays it
//! for a policy to imitate, and [`vocabulary`] lists every instance name.

mod belief;
mod classes;
mod demonstration;

mod expert;
mod home;
mod kind;
mod plan;
mod problem;
mod reading;
mod rooms;
mod set;
mod style;
mod thought;
mod vocabulary;

pub use demonstration::{DemonstrationOptions, demonstration};
pub use expert::Expert;
pub(crate) use set::demonstrate;
pub use set::{Household, HouseholdSet};
pub use style::ExpertStyle;
pub use vocabulary::vocabulary;
