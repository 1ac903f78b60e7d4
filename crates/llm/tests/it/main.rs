//! Integration tests of the engine.

mod arithmetic;
mod bad_input;
mod checkpoint;
mod decode;
mod directory;
mod gguf;
mod goldens;
mod gradients;
mod lora;
mod packing;
mod shapes;
mod tape;
mod tokenizer;
