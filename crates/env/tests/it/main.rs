//! Integration tests of the environments.

mod households;
