//! Small models and batches that the tests share.

use empg_llm::{ModelConfig, PackedBatch, Target};

/// Two blocks, grouped queries, everything different in size.
pub(crate) fn small() -> ModelConfig {
    ModelConfig {
        vocab_size: 29,
        hidden_size: 20,
        intermediate_size: 28,
        num_layers: 2,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 8,
        rope_theta: 500.0,
        rope_scaling: None,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
        qkv_bias: false,
        qk_norm: false,
        max_position_embeddings: 256,
    }
}

/// `len` token ids that follow no simple pattern.
pub(crate) fn tokens(len: usize, vocab: usize, salt: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * i * 31 + i * 17 + salt * 101 + 5) % vocab) as u32).collect()
}

/// A root with children and a grandchild, another tree, and targets on some rows: one row with
/// several, and a segment without any.
pub(crate) fn family(vocab: usize) -> PackedBatch {
    let mut batch = PackedBatch::default();
    let root = batch.push(&tokens(21, vocab, 1), None);
    let child = batch.push(&tokens(9, vocab, 2), Some((root, 21)));
    batch.push(&tokens(13, vocab, 3), Some((root, 11)));
    batch.push(&tokens(5, vocab, 4), Some((child, 4)));
    batch.push(&tokens(40, vocab, 5), None);
    batch.push(&tokens(3, vocab, 6), None);
    let rows = [3, 10, 20, 20, 20, 22, 23, 29, 30, 41, 42, 43, 46, 47, 48, 60, 61, 62, 87];
    batch.targets = rows
        .iter()
        .enumerate()
        .map(|(i, &row)| Target { row, token: ((i * 13 + 2) % vocab) as u32 })
        .collect();
    batch
}
