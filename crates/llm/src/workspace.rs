//! Buffers that passes reuse.

use crate::large_pages::Floats;
use crate::ops::{
    attention::{KeyPlan, Scratch},
    factors::Factors,
    panels::{Panels, Precision},
    rope::RopeTable,
};

/// Activations of one block that its backward pass reads. R is the rows that continue to the
/// block's output: all of them, or in the last block only those with targets.
#[derive(Debug, Default)]
pub(crate) struct BlockActivations {
    /// (N) 1/rms of the input.
    pub(crate) input_inv: Floats,
    /// (N, heads) 1/rms of the query and key heads, where they are normalised.
    pub(crate) head_inv: Floats,
    /// (N, heads · head_dim) those heads before.
    pub(crate) head_input: Floats,
    /// (N, qkv) after rotation.
    pub(crate) qkv: Floats,
    /// (R, heads · head_dim)
    pub(crate) attention: Floats,
    /// (R, heads)
    pub(crate) log_z: Floats,
    /// (R, hidden) after the attention's residual.
    pub(crate) middle: Floats,
    /// (R) 1/rms of `middle`.
    pub(crate) middle_inv: Floats,
    /// (R, 2 · intermediate) before the activation.
    pub(crate) gate_up: Floats,
}

/// Buffers of a part of the rows, and the packed weights that all rows multiply with.
#[derive(Debug, Default)]
pub(crate) struct Tile {
    /// Activations and gradients between two products: of all rows of a span.
    pub(crate) rows: [Floats; 4],
    /// The same within one job; one a thread.
    pub(crate) workers: Vec<Floats>,
    /// Weights of the layer at hand.
    pub(crate) weights: [Panels; 3],
    /// What weight gradients multiply.
    pub(crate) factors: [Factors; 2],
}

/// Buffers of [`Model::score`](crate::Model::score) and
/// [`Model::forward_backward`](crate::Model::forward_backward): they grow to the largest batch
/// seen and are reused. One per thread that runs passes.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) threads: usize,
    pub(crate) precision: Precision,
    pub(crate) checkpointing: bool,
    pub(crate) dropout: Option<u64>,
    pub(crate) rope: RopeTable,
    pub(crate) plan: KeyPlan,
    /// One a thread.
    pub(crate) attention: Vec<Scratch>,
    pub(crate) blocks: Vec<BlockActivations>,
    /// Input of every block (N, hidden), then the output of the last (R, hidden).
    pub(crate) streams: Vec<Floats>,
    pub(crate) tile: Tile,
    /// Gradient of the residual stream.
    pub(crate) d_stream: Floats,
    /// The same for the rows with targets, before it is spread over all rows.
    pub(crate) d_rows: Floats,
    pub(crate) d_attention: Floats,
    pub(crate) d_qkv: Floats,
    pub(crate) final_inv: Floats,
    pub(crate) logits: Floats,
}

impl Workspace {
    /// Buffers for passes on one thread.
    pub fn new() -> Self {
        Self::with_threads(1)
    }

    /// Buffers for passes that are shared by `threads` threads (at least one). Results depend on
    /// their number in the last bits of gradients, and on nothing else of the machine's load.
    pub fn with_threads(threads: usize) -> Self {
        let threads = threads.max(1);
        Self {
            threads,
            precision: Precision::F32,
            checkpointing: false,
            dropout: None,
            rope: RopeTable::default(),
            plan: KeyPlan::default(),
            attention: std::iter::repeat_with(Scratch::default).take(threads).collect(),
            blocks: Vec::new(),
            streams: Vec::new(),
            tile: Tile {
                workers: std::iter::repeat_with(Floats::default).take(threads).collect(),
                ..Tile::default()
            },
            d_stream: Floats::default(),
            d_rows: Floats::default(),
            d_attention: Floats::default(),
            d_qkv: Floats::default(),
            final_inv: Floats::default(),
            logits: Floats::default(),
        }
    }

    /// Threads that share a pass.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The format of the factors of matrix products; f32 unless said otherwise.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Seed of the adapters' dropout in the next passes with gradients; without one nothing is left
    /// out. Scoring never leaves anything out.
    pub fn set_dropout_seed(&mut self, seed: Option<u64>) {
        self.dropout = seed;
    }

    /// Gives the memory of all buffers back; the settings stay, and the next pass takes what it needs.
    pub fn release(&mut self) {
        let fresh = Self::with_threads(self.threads);
        let (precision, checkpointing, dropout) =
            (self.precision, self.checkpointing, self.dropout);
        *self = Self { precision, checkpointing, dropout, ..fresh };
    }

    /// Gradient checkpointing: the backward pass computes each block's activations again from
    /// the block's input, instead of keeping them all (one more forward pass in time).
    #[must_use]
    pub fn checkpointing(mut self, on: bool) -> Self {
        self.checkpointing = on;
        self
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

/// The first `len` elements of a buffer, grown if need be; content is unspecified.
pub(crate) fn part(buffer: &mut Floats, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        // Exact: a workspace holds its largest batch and no more.
        buffer.fit(len);
    }
    &mut buffer[..len]
}
