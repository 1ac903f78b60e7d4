//! Studies: arms × environments × seeds.

mod cell;
mod tables;

pub use cell::{Cell, CellError, CellKey, SplitResult};
pub use tables::{Arm, Comparison, Layout, markdown};
