//! The trainer against a toy environment whose right answers are known.

mod agents;
mod bad_input;
mod config;
mod dynamics;
mod elsewhere;
mod learning;
mod packing;
mod preset;
mod resume;
mod tape;
mod toy;
