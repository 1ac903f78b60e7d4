//! What runs showed: statistics over seeds, entropy dynamics, studies. Reads `empg-run` only.

pub mod dynamics;
pub mod stability;
pub mod statistics;
pub mod study;
