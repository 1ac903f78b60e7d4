//! Token embedding: a row of a table per token.

use empg::TokenId;

/// x (R, D) = table (V, D)[token]
pub(crate) fn forward(tokens: &[TokenId], table: &[f32], width: usize, x: &mut [f32]) {
    for (row, &token) in x.chunks_exact_mut(width).zip(tokens) {
        let start = token as usize * width;
        row.copy_from_slice(&table[start..start + width]);
    }
}

/// dtable (V, D)[token] += dx (R, D), in row order.
pub(crate) fn backward(tokens: &[TokenId], dx: &[f32], width: usize, dtable: &mut [f32]) {
    for (row, &token) in dx.chunks_exact(width).zip(tokens) {
        let start = token as usize * width;
        for (d, g) in dtable[start..start + width].iter_mut().zip(row) {
            *d += g;
        }
    }
}
