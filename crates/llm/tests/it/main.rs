//! Integration tests of the engine.

mod bad_input;
mod checkpoint;
mod decode;
mod goldens;
mod gradients;
mod packing;
mod shapes;
mod tokenizer;
