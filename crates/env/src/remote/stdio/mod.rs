//! Environments in child processes: one JSON object a line, request and answer in turn.
//! `docs/stdio-env.md` specifies the protocol.

mod child;
mod command;
mod episode;
mod group;
mod set;

pub use set::{StdioOptions, StdioSet};
