//! Transformer engine.
