//! Deep Search: questions that take several searches, over a corpus, as verl-agent and Search-R1 play
//! them.

pub mod generated;
mod options;

pub use options::{Protocol, SearchOptions};
