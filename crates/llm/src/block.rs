//! One transformer block over a pack, forward and backward.
//!
//! Work that is independent per row goes in tiles of rows, so that what lies between two matrix
//! products stays in the cache.

use std::ops::Range;

use crate::{
    config::ModelConfig,
    ops::{
        attention::{self, Heads, KeyPlan, Scratch},
        linear::{Linear, add_bias, add_bias_backward, pack_backward, pack_forward},
        matmul::Write,
        rms_norm,
        rope::RopeTable,
        swiglu,
    },
    params::LayerRanges,
    workspace::{BlockActivations, Tile, part},
};

/// Rows of a tile.
const TILE: usize = 192;

/// What all blocks of one pass share.
pub(crate) struct Pass<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) params: &'a [f32],
    pub(crate) positions: &'a [u32],
    pub(crate) plan: &'a KeyPlan,
    pub(crate) rope: &'a RopeTable,
    pub(crate) threads: usize,
}

fn tiles(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(TILE).map(move |start| start..(start + TILE).min(rows))
}

/// The part of a (rows, width) buffer that holds the rows of a tile.
fn span(tile: &Range<usize>, width: usize) -> Range<usize> {
    tile.start * width..tile.end * width
}

impl Pass<'_> {
    fn weight(&self, range: &Range<usize>) -> &[f32] {
        &self.params[range.clone()]
    }

    fn linear(&self, rows: usize, inputs: usize, outputs: usize) -> Linear {
        Linear { rows, inputs, outputs, threads: self.threads }
    }

    fn heads(&self) -> Heads {
        let c = self.config;
        Heads { queries: c.num_heads, keys: c.num_kv_heads, dim: c.head_dim }
    }

    fn rotated_heads(&self) -> usize {
        self.config.num_heads + self.config.num_kv_heads
    }

    /// output (R, hidden) from input (N, hidden); `rows` (R) are the rows that continue.
    pub(crate) fn forward(
        &self,
        layer: &LayerRanges,
        input: &[f32],
        rows: &[u32],
        output: &mut [f32],
        acts: &mut BlockActivations,
        buffers: &mut Tile,
        scratch: &mut Scratch,
    ) {
        let c = self.config;
        let (n, r, hidden, inter) =
            (self.positions.len(), rows.len(), c.hidden_size, c.intermediate_size);
        let (qkv_size, attention_size) = (c.qkv_size(), c.attention_size());
        let Tile { rows: [buffer, _, _], weights: [w0, w1, w2], .. } = buffers;

        let input_inv = part(&mut acts.input_inv, n);
        let qkv = part(&mut acts.qkv, n * qkv_size);
        let norm = self.weight(&layer.input_norm);
        pack_forward(self.weight(&layer.qkv), qkv_size, hidden, w0);
        for tile in tiles(n) {
            let x = part(buffer, tile.len() * hidden);
            let inv = &mut input_inv[tile.clone()];
            rms_norm::forward(&input[span(&tile, hidden)], norm, c.rms_norm_eps, x, inv);
            let qkv = &mut qkv[span(&tile, qkv_size)];
            self.linear(tile.len(), hidden, qkv_size).forward(x, w0, qkv, Write::Replace);
            if let Some(bias) = &layer.qkv_bias {
                add_bias(qkv, self.weight(bias));
            }
            self.rope.forward(qkv, qkv_size, self.rotated_heads(), &self.positions[tile]);
        }

        let attended = part(&mut acts.attention, r * attention_size);
        let log_z = part(&mut acts.log_z, r * c.num_heads);
        attention::forward(qkv, self.plan, rows, self.heads(), attended, log_z, scratch);

        let middle = part(&mut acts.middle, r * hidden);
        let middle_inv = part(&mut acts.middle_inv, r);
        let gate_up = part(&mut acts.gate_up, r * 2 * inter);
        pack_forward(self.weight(&layer.o_proj), hidden, attention_size, w0);
        pack_forward(self.weight(&layer.gate_up), 2 * inter, hidden, w1);
        pack_forward(self.weight(&layer.down), hidden, inter, w2);
        for tile in tiles(r) {
            let wide = span(&tile, hidden);
            let middle = &mut middle[wide.clone()];
            for (m, &row) in middle.chunks_exact_mut(hidden).zip(&rows[tile.clone()]) {
                m.copy_from_slice(&input[row as usize * hidden..][..hidden]);
            }
            self.linear(tile.len(), attention_size, hidden).forward(
                &attended[span(&tile, attention_size)],
                w0,
                middle,
                Write::Add,
            );
            let x = part(buffer, tile.len() * hidden.max(inter));
            let normed = &mut x[..tile.len() * hidden];
            let inv = &mut middle_inv[tile.clone()];
            let norm = self.weight(&layer.post_norm);
            rms_norm::forward(middle, norm, c.rms_norm_eps, normed, inv);
            let gate_up = &mut gate_up[span(&tile, 2 * inter)];
            let up = self.linear(tile.len(), hidden, 2 * inter);
            up.forward(normed, w1, gate_up, Write::Replace);
            let active = &mut x[..tile.len() * inter];
            swiglu::forward(gate_up, inter, active);
            let output = &mut output[wide];
            output.copy_from_slice(middle);
            self.linear(tile.len(), inter, hidden).forward(active, w2, output, Write::Add);
        }
    }

    /// Turns `d_rows` (R, hidden), the gradient of the output, into the gradient after the
    /// attention's residual, and writes `d_attention` (R, heads · head_dim). Adds the weight
    /// gradients of this half of the block.
    pub(crate) fn backward_feed_forward(
        &self,
        layer: &LayerRanges,
        rows: usize,
        acts: &BlockActivations,
        d_rows: &mut [f32],
        d_attention: &mut [f32],
        grads: &mut [f32],
        buffers: &mut Tile,
    ) {
        let c = self.config;
        let (hidden, inter) = (c.hidden_size, c.intermediate_size);
        let attention_size = c.attention_size();
        let Tile { rows: [active, d_active, d_gate_up], weights: [w0, w1, w2], activation } =
            buffers;
        pack_backward(self.weight(&layer.down), hidden, inter, w0);
        pack_backward(self.weight(&layer.gate_up), 2 * inter, hidden, w1);
        pack_backward(self.weight(&layer.o_proj), hidden, attention_size, w2);
        for tile in tiles(rows) {
            let t = tile.len();
            let d = &mut d_rows[span(&tile, hidden)];
            let middle = &acts.middle[span(&tile, hidden)];
            let gate_up = &acts.gate_up[span(&tile, 2 * inter)];
            let inv = &acts.middle_inv[tile.clone()];

            let down = self.linear(t, inter, hidden);
            let active = part(active, t * inter.max(hidden));
            let d_active = part(d_active, t * inter.max(hidden));
            let d_gate_up = part(d_gate_up, t * 2 * inter);
            {
                let (y, dy) = (&mut active[..t * inter], &mut d_active[..t * inter]);
                down.backward_input(d, w0, dy, Write::Replace);
                swiglu::backward(dy, gate_up, inter, y, d_gate_up);
                down.backward_weight(d, y, &mut grads[layer.down.clone()], activation);
            }
            let norm = self.weight(&layer.post_norm);
            let (x, dx) = (&mut active[..t * hidden], &mut d_active[..t * hidden]);
            rms_norm::recompute(middle, norm, inv, x);
            let up = self.linear(t, hidden, 2 * inter);
            up.backward_weight(d_gate_up, x, &mut grads[layer.gate_up.clone()], activation);
            up.backward_input(d_gate_up, w1, dx, Write::Replace);
            rms_norm::backward(dx, middle, norm, inv, d, &mut grads[layer.post_norm.clone()]);

            let attended = &acts.attention[span(&tile, attention_size)];
            let d_attended = &mut d_attention[span(&tile, attention_size)];
            let out = self.linear(t, attention_size, hidden);
            out.backward_weight(d, attended, &mut grads[layer.o_proj.clone()], activation);
            out.backward_input(d, w2, d_attended, Write::Replace);
        }
    }

    /// Adds to `d_stream` (N, hidden) what comes through the attention, given `d_attention`
    /// (R, heads · head_dim). Adds the weight gradients of this half of the block.
    pub(crate) fn backward_attention(
        &self,
        layer: &LayerRanges,
        input: &[f32],
        rows: &[u32],
        acts: &BlockActivations,
        d_attention: &[f32],
        d_stream: &mut [f32],
        d_qkv: &mut Vec<f32>,
        grads: &mut [f32],
        buffers: &mut Tile,
        scratch: &mut Scratch,
    ) {
        let c = self.config;
        let (n, hidden, qkv_size) = (self.positions.len(), c.hidden_size, c.qkv_size());
        let d_qkv = part(d_qkv, n * qkv_size);
        d_qkv.fill(0.0);
        attention::backward(
            d_attention,
            &acts.qkv,
            self.plan,
            rows,
            self.heads(),
            &acts.attention,
            &acts.log_z,
            d_qkv,
            scratch,
        );
        let Tile { rows: [normed, d_normed, _], weights: [w0, ..], activation } = buffers;
        pack_backward(self.weight(&layer.qkv), qkv_size, hidden, w0);
        let norm = self.weight(&layer.input_norm);
        for tile in tiles(n) {
            let t = tile.len();
            let d_qkv = &mut d_qkv[span(&tile, qkv_size)];
            let positions = &self.positions[tile.clone()];
            self.rope.backward(d_qkv, qkv_size, self.rotated_heads(), positions);
            if let Some(bias) = &layer.qkv_bias {
                add_bias_backward(d_qkv, &mut grads[bias.clone()]);
            }
            let (x, dx) = (part(normed, t * hidden), part(d_normed, t * hidden));
            let inv = &acts.input_inv[tile.clone()];
            let input = &input[span(&tile, hidden)];
            rms_norm::recompute(input, norm, inv, x);
            let linear = self.linear(t, hidden, qkv_size);
            linear.backward_weight(d_qkv, x, &mut grads[layer.qkv.clone()], activation);
            linear.backward_input(d_qkv, w0, dx, Write::Replace);
            let d = &mut d_stream[span(&tile, hidden)];
            rms_norm::backward(dx, input, norm, inv, d, &mut grads[layer.input_norm.clone()]);
        }
    }
}
