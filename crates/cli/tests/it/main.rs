//! The command as a user meets it: the built binary, its output, its exit codes, its run directory.

mod chat;
mod config;
mod dashboard;
mod environments;
mod export;
mod help;
mod hub;
mod program;
mod remote;
mod resume;
mod sft;
mod study;
mod track;
mod train;
