//! Integration tests of the engine.

mod bad_input;
mod goldens;
mod gradients;
mod packing;
mod shapes;
mod tokenizer;
mod checkpoint;
mod decode;
