//! Buffers that passes reuse.

use crate::ops::{
    attention::{KeyPlan, Scratch},
    matmul::Panels,
    rope::RopeTable,
};

/// Activations of one block that its backward pass reads. R is the rows that continue to the
/// block's output: all of them, or in the last block only those with targets.
#[derive(Debug, Default)]
pub(crate) struct BlockActivations {
    /// (N) 1/rms of the input.
    pub(crate) input_inv: Vec<f32>,
    /// (N, qkv) after rotation.
    pub(crate) qkv: Vec<f32>,
    /// (R, heads · head_dim)
    pub(crate) attention: Vec<f32>,
    /// (R, heads)
    pub(crate) log_z: Vec<f32>,
    /// (R, hidden) after the attention's residual.
    pub(crate) middle: Vec<f32>,
    /// (R) 1/rms of `middle`.
    pub(crate) middle_inv: Vec<f32>,
    /// (R, 2 · intermediate) before the activation.
    pub(crate) gate_up: Vec<f32>,
}

/// Buffers of one tile of rows, and the packed weights that all tiles multiply with.
#[derive(Debug, Default)]
pub(crate) struct Tile {
    /// Activations and gradients between two products.
    pub(crate) rows: [Vec<f32>; 3],
    /// Weights of the layer at hand.
    pub(crate) weights: [Panels; 3],
    /// An activation as the right operand of a weight gradient.
    pub(crate) activation: Panels,
}

/// Buffers of [`Model::score`](crate::Model::score) and
/// [`Model::forward_backward`](crate::Model::forward_backward): they grow to the largest batch
/// seen and are reused. One per thread that runs passes.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) threads: usize,
    pub(crate) rope: RopeTable,
    pub(crate) plan: KeyPlan,
    pub(crate) attention: Scratch,
    pub(crate) blocks: Vec<BlockActivations>,
    /// Input of every block (N, hidden), then the output of the last (R, hidden).
    pub(crate) streams: Vec<Vec<f32>>,
    pub(crate) tile: Tile,
    /// Gradient of the residual stream.
    pub(crate) d_stream: Vec<f32>,
    /// The same for the rows with targets, before it is spread over all rows.
    pub(crate) d_rows: Vec<f32>,
    pub(crate) d_attention: Vec<f32>,
    pub(crate) d_qkv: Vec<f32>,
    pub(crate) final_inv: Vec<f32>,
    pub(crate) logits: Vec<f32>,
}

impl Workspace {
    /// Buffers for passes on one thread.
    pub fn new() -> Self {
        Self::with_threads(1)
    }

    /// Buffers for passes whose matrix products are shared by `threads` threads (at least one).
    pub fn with_threads(threads: usize) -> Self {
        Self {
            threads: threads.max(1),
            rope: RopeTable::default(),
            plan: KeyPlan::default(),
            attention: Scratch::default(),
            blocks: Vec::new(),
            streams: Vec::new(),
            tile: Tile::default(),
            d_stream: Vec::new(),
            d_rows: Vec::new(),
            d_attention: Vec::new(),
            d_qkv: Vec::new(),
            final_inv: Vec::new(),
            logits: Vec::new(),
        }
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

/// The first `len` elements of a buffer, grown if need be; content is unspecified.
pub(crate) fn part(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        // Exact: a workspace holds its largest batch and no more.
        buffer.reserve_exact(len - buffer.len());
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
