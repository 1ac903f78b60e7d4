//! Integration tests of the mathematics.
