//! Studies: arms × environments × seeds.

mod cell;
mod tables;

pub(crate) use cell::results as split_results;
pub use cell::{Cell, CellError, CellKey, SplitResult};
pub use tables::{Arm, Comparison, Layout, markdown};
