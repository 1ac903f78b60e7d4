//! Integration tests of the mathematics: parity with numpy, and the laws.

mod contracts;
mod laws;
mod parity;
mod parts;
