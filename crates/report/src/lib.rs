//! What runs showed: statistics over seeds, entropy dynamics, studies. Reads `empg-run` only.

pub mod arms;
pub mod assets;
pub mod comparison;
pub mod coupling;
pub mod dynamics;
pub mod episodes;
pub mod html;
pub mod run_data;
pub mod stability;
pub mod statistics;
pub mod study;
mod vocabulary;
