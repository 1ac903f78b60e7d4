//! Integration tests of the engine.

mod bad_input;
mod gradients;
mod packing;
mod shapes;
mod tokenizer;
