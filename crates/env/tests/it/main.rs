//! Integration tests of the environments.

mod households;
mod textworld;
