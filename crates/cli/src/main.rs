//! The empg command.
fn main() {}
