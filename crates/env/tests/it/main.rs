//! Integration tests of the environments that need no data.

mod damage;
mod engine;
mod folders;
mod generated;
mod households;
mod openenv;
mod retrieval;
mod retriever;
mod search;
#[cfg(unix)]
mod stdio;
mod textworld;
mod vector;
mod webshop;

/// A small game that has every rule in it.
const KITCHEN: &str = include_str!("kitchen.pddl");
/// Its goal sentence.
const TASK: &str = "heat some apple and put it in diningtable.";
