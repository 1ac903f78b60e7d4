//! One transformer block over a pack, forward and backward.
//!
//! Work that is independent per row goes in tiles of rows, so that what lies between two matrix
//! products stays in the cache; threads take tiles. Weight gradients sum over rows, so they follow
//! behind the tiles of a span, shared out by the weights' rows.

use std::ops::Range;

use crate::{
    config::ModelConfig,
    large_pages::Floats,
    lora::{Fused, Grads, LoraPass},
    ops::{
        attention::{self, Heads, KeyPlan, Scratch},
        head_norm,
        linear::{Linear, add_bias, add_bias_backward},
        matmul::Write,
        panels::{Mat, Precision},
        rms_norm,
        rope::RopeTable,
        swiglu, thirds, tile_swiglu,
    },
    params::LayerRanges,
    share::{cut, run},
    tape::{Field, Tape, TapeRow},
    workspace::{BlockActivations, Tile, part},
};

/// Rows of a tile on one thread, and of the span whose weight gradients are added at once.
const TILE: usize = 192;
/// The same on several threads: smaller tiles, so that all have their share to the end, and
/// spans of many tiles.
const SHARED: (usize, usize) = (96, 2048);

/// What all blocks of one pass share.
pub(crate) struct Pass<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) params: &'a [f32],
    pub(crate) positions: &'a [u32],
    pub(crate) plan: &'a KeyPlan,
    pub(crate) rope: &'a RopeTable,
    pub(crate) threads: usize,
    pub(crate) precision: Precision,
    pub(crate) lora: Option<LoraPass<'a>>,
    /// What sampling kept: a row for every row of the pack.
    pub(crate) tape: Option<(&'a Tape, &'a [TapeRow])>,
}

fn parts(rows: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = rows.end;
    rows.step_by(len).map(move |start| start..(start + len).min(end))
}

/// Cuts rows into about equal tiles of at most `len`, as many for each thread, in whole groups of
/// `group` rows.
fn shares(rows: Range<usize>, len: usize, threads: usize, group: usize) -> Vec<Range<usize>> {
    let groups = rows.len().div_ceil(group);
    let count = rows.len().div_ceil(len).next_multiple_of(threads).min(groups);
    let bound = |i: usize| (rows.start + i * groups / count.max(1) * group).min(rows.end);
    (0..count).map(|i| bound(i)..bound(i + 1)).collect()
}

/// As [`shares`], and the last of them a quarter as long, so that no thread waits long for another.
fn falling(rows: Range<usize>, len: usize, threads: usize, group: usize) -> Vec<Range<usize>> {
    let tail = (rows.len() / (4 * threads)).min(len) * threads;
    let middle = rows.start + (rows.len() - tail) / group * group;
    let mut tiles = shares(rows.start..middle, len, threads, group);
    tiles.extend(shares(middle..rows.end, len / 4, threads, group));
    tiles
}

/// The part of a (rows, width) buffer that holds some rows.
fn span(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}

impl Pass<'_> {
    fn weight(&self, range: &Range<usize>) -> &[f32] {
        &self.params[range.clone()]
    }

    fn linear(&self, inputs: usize, outputs: usize) -> Linear {
        let (threads, precision) = (self.threads, self.precision);
        Linear { rows: 0, inputs, outputs, threads, precision }
    }

    fn tiles(&self, rows: Range<usize>) -> Vec<Range<usize>> {
        if self.threads == 1 {
            return parts(rows, TILE).collect();
        }
        let hidden = self.config.hidden_size;
        let split = self.precision == Precision::F32 && thirds::wanted(hidden, hidden);
        // Weights in parts are three times as long: more rows for every time that they are read.
        let len = if split { TILE } else { SHARED.0 };
        let widest = self.config.intermediate_size.max(self.config.attention_size()).max(hidden);
        falling(rows, len, self.threads, thirds::rows_together(self.precision, widest))
    }

    /// Whether the feed-forward half goes through tile registers as a whole.
    fn by_tiles(&self) -> bool {
        // Adapters read what lies between the products.
        self.lora.is_none() && tile_swiglu::wanted(self.precision, self.config.intermediate_size)
    }

    /// Elements that the activations of gate and up take.
    fn kept_gate_up(&self, rows: usize) -> usize {
        let width = 2 * self.config.intermediate_size;
        if self.by_tiles() { tile_swiglu::lanes(rows, width) } else { rows * width }
    }

    fn spans(&self, rows: usize) -> impl Iterator<Item = Range<usize>> {
        parts(0..rows, if self.threads == 1 { TILE } else { SHARED.1 })
    }

    fn heads(&self) -> Heads {
        let c = self.config;
        Heads { queries: c.num_heads, keys: c.num_kv_heads, dim: c.head_dim }
    }

    /// The norm weights of query heads and of key heads.
    fn head_weights(&self, norms: &Range<usize>) -> (&[f32], &[f32]) {
        self.weight(norms).split_at(self.config.head_dim)
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
        scratch: &mut [Scratch],
    ) {
        let c = self.config;
        let (n, r, hidden, inter) =
            (self.positions.len(), rows.len(), c.hidden_size, c.intermediate_size);
        let (qkv_size, attention_size) = (c.qkv_size(), c.attention_size());
        let Tile { workers, weights: [w0, w1, w2], .. } = buffers;

        let input_inv = part(&mut acts.input_inv, n);
        let qkv = part(&mut acts.qkv, n * qkv_size);
        let into_qkv = self.linear(hidden, qkv_size);
        into_qkv.pack_forward(self.weight(&layer.qkv), w0);
        {
            let norm = self.weight(&layer.input_norm);
            let heads = c.normed_heads();
            let (count, width) =
                if layer.qk_norm.is_some() { (heads.count(), heads.width()) } else { (0, 0) };
            let mut head_inv = part(&mut acts.head_inv, n * count);
            let mut head_input = part(&mut acts.head_input, n * width);
            let (mut inv, mut qkv) = (input_inv, &mut *qkv);
            let jobs = self.tiles(0..n).into_iter().map(|tile| {
                let (t, inv) = (tile.len(), cut(&mut inv, tile.len()));
                let kept = (cut(&mut head_inv, t * count), cut(&mut head_input, t * width));
                (tile, inv, cut(&mut qkv, t * qkv_size), kept)
            });
            run(workers, jobs.collect::<Vec<_>>(), |(tile, inv, qkv, kept), buffer| {
                let x = part(buffer, tile.len() * hidden);
                rms_norm::forward(&input[span(&tile, hidden)], norm, c.rms_norm_eps, x, inv);
                into_qkv.on(tile.len()).forward(x, w0, qkv, Write::Replace);
                self.adapt(layer, Fused::Qkv, tile.start, x, qkv, qkv_size);
                if let Some(bias) = &layer.qkv_bias {
                    add_bias(qkv, self.weight(bias));
                }
                if let Some(norms) = &layer.qk_norm {
                    let (inv, input) = kept;
                    let (q, k) = self.head_weights(norms);
                    head_norm::keep_input(qkv, heads, input);
                    head_norm::forward(qkv, heads, q, k, c.rms_norm_eps, inv);
                }
                self.rope.forward(qkv, qkv_size, self.rotated_heads(), &self.positions[tile]);
            });
        }

        let attended = part(&mut acts.attention, r * attention_size);
        let log_z = part(&mut acts.log_z, r * c.num_heads);
        let (plan, precision) = (self.plan, self.precision);
        attention::forward(qkv, plan, rows, self.heads(), precision, attended, log_z, scratch);

        let (out, up, down) = (
            self.linear(attention_size, hidden),
            self.linear(hidden, 2 * inter),
            self.linear(inter, hidden),
        );
        out.pack_forward(self.weight(&layer.o_proj), w0);
        up.pack_forward(self.weight(&layer.gate_up), w1);
        down.pack_forward(self.weight(&layer.down), w2);
        let norm = self.weight(&layer.post_norm);
        let mut middle = part(&mut acts.middle, r * hidden);
        let mut inv = part(&mut acts.middle_inv, r);
        let mut gate_up = part(&mut acts.gate_up, self.kept_gate_up(r));
        let (mut output, by_tiles) = (output, self.by_tiles());
        let jobs = self.tiles(0..r).into_iter().map(|tile| {
            let t = tile.len();
            let (middle, inv) = (cut(&mut middle, t * hidden), cut(&mut inv, t));
            (
                tile,
                middle,
                inv,
                cut(&mut gate_up, self.kept_gate_up(t)),
                cut(&mut output, t * hidden),
            )
        });
        run(workers, jobs.collect::<Vec<_>>(), |(tile, middle, inv, gate_up, output), buffer| {
            let t = tile.len();
            for (m, &row) in middle.chunks_exact_mut(hidden).zip(&rows[tile.clone()]) {
                m.copy_from_slice(&input[row as usize * hidden..][..hidden]);
            }
            let attended = &attended[span(&tile, attention_size)];
            out.on(t).forward(attended, w0, middle, Write::Add);
            self.adapt(layer, Fused::Out, tile.start, attended, middle, hidden);
            if by_tiles {
                let own = tile_swiglu::lanes(t, inter) + tile_swiglu::lanes(t, hidden);
                let (own, normed) = part(buffer, own + t * hidden).split_at_mut(own);
                rms_norm::forward(middle, norm, c.rms_norm_eps, normed, inv);
                output.copy_from_slice(middle);
                tile_swiglu::forward(normed, [w1, w2], output, gate_up, own);
                return;
            }
            let x = part(buffer, t * hidden.max(inter));
            let normed = &mut x[..t * hidden];
            rms_norm::forward(middle, norm, c.rms_norm_eps, normed, inv);
            up.on(t).forward(normed, w1, gate_up, Write::Replace);
            self.adapt(layer, Fused::GateUp, tile.start, normed, gate_up, 2 * inter);
            let active = &mut x[..t * inter];
            swiglu::forward(gate_up, inter, active);
            output.copy_from_slice(middle);
            down.on(t).forward(active, w2, output, Write::Add);
            self.adapt(layer, Fused::Down, tile.start, active, output, hidden);
        });
    }

    /// Brings back what [`forward`](Self::forward) would have left, from the tape: `input` (N, hidden)
    /// and the activations.
    pub(crate) fn recall(
        &self,
        layer: &LayerRanges,
        input: &mut [f32],
        rows: &[u32],
        acts: &mut BlockActivations,
        buffers: &mut Tile,
        scratch: &mut [Scratch],
    ) {
        let Some((tape, taped)) = self.tape else { unreachable!("a pass with a tape") };
        let c = self.config;
        let (n, r, hidden) = (self.positions.len(), rows.len(), c.hidden_size);
        let qkv_size = c.qkv_size();
        let (workers, at) = (&mut buffers.workers, layer.index);

        let qkv = part(&mut acts.qkv, n * qkv_size);
        {
            let norm = self.weight(&layer.input_norm);
            let heads = c.normed_heads();
            let (count, width) =
                if layer.qk_norm.is_some() { (heads.count(), heads.width()) } else { (0, 0) };
            let mut head_inv = part(&mut acts.head_inv, n * count);
            let mut head_input = part(&mut acts.head_input, n * width);
            let mut inv = part(&mut acts.input_inv, n);
            let (mut input, mut qkv) = (input, &mut *qkv);
            let jobs = self.tiles(0..n).into_iter().map(|tile| {
                let t = tile.len();
                let kept = (cut(&mut head_inv, t * count), cut(&mut head_input, t * width));
                let inv = cut(&mut inv, t);
                (tile, inv, cut(&mut input, t * hidden), cut(&mut qkv, t * qkv_size), kept)
            });
            run(workers, jobs.collect::<Vec<_>>(), |(tile, inv, input, qkv, kept), buffer| {
                tape.read(at, Field::Input, &taped[tile.clone()], input);
                let x = part(buffer, tile.len() * hidden);
                rms_norm::forward(input, norm, c.rms_norm_eps, x, inv);
                tape.read(at, Field::Qkv, &taped[tile.clone()], qkv);
                if let Some(norms) = &layer.qk_norm {
                    let (inv, input) = kept;
                    let (q, k) = self.head_weights(norms);
                    head_norm::keep_input(qkv, heads, input);
                    head_norm::forward(qkv, heads, q, k, c.rms_norm_eps, inv);
                    self.rope.forward(qkv, qkv_size, self.rotated_heads(), &self.positions[tile]);
                }
            });
        }

        let attended = part(&mut acts.attention, r * c.attention_size());
        let log_z = part(&mut acts.log_z, r * c.num_heads);
        let (plan, precision) = (self.plan, self.precision);
        attention::forward(qkv, plan, rows, self.heads(), precision, attended, log_z, scratch);

        let norm = self.weight(&layer.post_norm);
        let mut middle = part(&mut acts.middle, r * hidden);
        let mut inv = part(&mut acts.middle_inv, r);
        let mut gate_up = part(&mut acts.gate_up, self.kept_gate_up(r));
        let by_tiles = self.by_tiles();
        let jobs = self.tiles(0..r).into_iter().map(|tile| {
            let t = tile.len();
            let (middle, inv) = (cut(&mut middle, t * hidden), cut(&mut inv, t));
            (tile, middle, inv, cut(&mut gate_up, self.kept_gate_up(t)))
        });
        run(workers, jobs.collect::<Vec<_>>(), |(tile, middle, inv, gate_up), buffer| {
            let taped: Vec<TapeRow> = rows[tile].iter().map(|&row| taped[row as usize]).collect();
            tape.read(at, Field::Middle, &taped, middle);
            let x = part(buffer, taped.len() * hidden);
            rms_norm::forward(middle, norm, c.rms_norm_eps, x, inv);
            if by_tiles {
                tape.read_tiles(at, Field::GateUp, &taped, gate_up);
            } else {
                tape.read(at, Field::GateUp, &taped, gate_up);
            }
        });
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
        grads: &mut Grads<'_>,
        buffers: &mut Tile,
    ) {
        let c = self.config;
        let (hidden, inter) = (c.hidden_size, c.intermediate_size);
        let attention_size = c.attention_size();
        let Tile { rows: [active, d_gate_up, x, dx], workers, weights: [w0, w1, w2], factors } =
            buffers;
        let [into_down, into_up] = factors;
        let (out, up, down) = (
            self.linear(attention_size, hidden),
            self.linear(hidden, 2 * inter),
            self.linear(inter, hidden),
        );
        down.pack_backward(self.weight(&layer.down), w0);
        up.pack_backward(self.weight(&layer.gate_up), w1);
        out.pack_backward(self.weight(&layer.o_proj), w2);
        let norm = self.weight(&layer.post_norm);
        // Adapters read what tiles made as it is; weight gradients read it packed.
        let frozen = grads.frozen();
        let kept = |len| if frozen { len } else { 0 };
        for rows in self.spans(rows) {
            let n = rows.len();
            let all = |linear: Linear| Linear { rows: n, ..linear };
            let active = part(active, kept(n * inter));
            let d_gate_up = part(d_gate_up, kept(n * 2 * inter));
            let (x, dx) = (part(x, kept(n * hidden)), part(dx, n * hidden));
            {
                let (mut active, mut d_gate_up) = (&mut *active, &mut *d_gate_up);
                let (mut x, mut dx) = (&mut *x, &mut *dx);
                let mut packed =
                    (!frozen).then(|| (into_down.fill(all(down)), into_up.fill(all(up))));
                let mut gate_ups = &acts.gate_up[self.kept_gate_up(rows.start)..];
                let jobs = self.tiles(rows.clone()).into_iter().map(|tile| {
                    let t = tile.len();
                    let (gate_up, rest) = gate_ups.split_at(self.kept_gate_up(t));
                    gate_ups = rest;
                    let d_gate_up = cut(&mut d_gate_up, kept(t * 2 * inter));
                    let x = cut(&mut x, kept(t * hidden));
                    let kept = [cut(&mut active, kept(t * inter)), d_gate_up, x];
                    let packed = packed.as_mut().map(|(down, up)| (down.cut(t), up.cut(t)));
                    (tile, gate_up, kept, packed, cut(&mut dx, t * hidden))
                });
                let (d_rows, by_tiles) = (&*d_rows, self.by_tiles());
                let jobs = jobs.collect::<Vec<_>>();
                run(workers, jobs, |(tile, gate_up, kept, mut packed, dx), buffer| {
                    let t = tile.len();
                    let d = &d_rows[span(&tile, hidden)];
                    let middle = &acts.middle[span(&tile, hidden)];
                    let inv = &acts.middle_inv[tile.clone()];
                    if by_tiles {
                        let Some((down, up)) = &mut packed else {
                            unreachable!("adapters keep whole rows")
                        };
                        let own = tile_swiglu::lanes(t, 2 * inter) + tile_swiglu::lanes(t, hidden);
                        let (own, x) = part(buffer, own + t * hidden).split_at_mut(own);
                        let into = [&mut *down, &mut *up];
                        tile_swiglu::backward(d, [w0, w1], gate_up, dx, into, own);
                        down.dy(Mat::new(d, t, hidden));
                        rms_norm::recompute(middle, norm, inv, x);
                        up.x(x);
                        return;
                    }
                    let own = if frozen { 0 } else { t };
                    let d_active = part(buffer, t * inter + own * (3 * inter + hidden));
                    let (d_active, own) = d_active.split_at_mut(t * inter);
                    let [active, d_gate_up, x] = if frozen {
                        kept
                    } else {
                        let (active, own) = own.split_at_mut(t * inter);
                        let (d_gate_up, x) = own.split_at_mut(t * 2 * inter);
                        [active, d_gate_up, x]
                    };
                    down.on(t).backward_input(d, w0, d_active, Write::Replace);
                    self.adapt_back(layer, Fused::Down, tile.start, d, hidden, d_active);
                    swiglu::backward(d_active, gate_up, inter, active, d_gate_up);
                    rms_norm::recompute(middle, norm, inv, x);
                    up.on(t).backward_input(d_gate_up, w1, dx, Write::Replace);
                    self.adapt_back(layer, Fused::GateUp, tile.start, d_gate_up, 2 * inter, dx);
                    if let Some((mut down, mut up)) = packed {
                        down.bring(d, active);
                        up.bring(d_gate_up, x);
                    }
                });
            }
            let d = &mut d_rows[span(&rows, hidden)];
            let middle = &acts.middle[span(&rows, hidden)];
            let inv = &acts.middle_inv[rows.clone()];
            match grads {
                Grads::Weights(grads) => {
                    into_down.add_product(&mut grads[layer.down.clone()], self.threads);
                    into_up.add_product(&mut grads[layer.gate_up.clone()], self.threads);
                    rms_norm::backward_weight(dx, middle, inv, &mut grads[layer.post_norm.clone()]);
                }
                Grads::Adapters(grads) => {
                    let mut add = |fused, linear, dy: &[f32], x: &[f32]| {
                        self.adapter_gradient(layer, fused, rows.start, all(linear), dy, x, grads);
                    };
                    add(Fused::Down, down, d, active);
                    add(Fused::GateUp, up, d_gate_up, x);
                }
            }
            let attended = &acts.attention[span(&rows, attention_size)];
            {
                let mut d = &mut *d;
                let mut d_attended = &mut d_attention[span(&rows, attention_size)];
                let mut packed = (!frozen).then(|| into_down.fill(all(out)));
                let jobs = self.tiles(0..n).into_iter().map(|tile| {
                    let t = tile.len();
                    let d_attended = cut(&mut d_attended, t * attention_size);
                    let packed = packed.as_mut().map(|out| out.cut(t));
                    (tile, cut(&mut d, t * hidden), d_attended, packed)
                });
                run(workers, jobs.collect::<Vec<_>>(), |(tile, d, d_attended, packed), _| {
                    let wide = span(&tile, hidden);
                    let (dx, middle) = (&dx[wide.clone()], &middle[wide]);
                    rms_norm::backward(dx, middle, norm, &inv[tile.clone()], d);
                    out.on(tile.len()).backward_input(d, w2, d_attended, Write::Replace);
                    let first = rows.start + tile.start;
                    self.adapt_back(layer, Fused::Out, first, d, hidden, d_attended);
                    if let Some(mut out) = packed {
                        out.bring(d, &attended[span(&tile, attention_size)]);
                    }
                });
            }
            match grads {
                Grads::Weights(grads) => {
                    into_down.add_product(&mut grads[layer.o_proj.clone()], self.threads);
                }
                Grads::Adapters(grads) => {
                    let (fused, first) = (Fused::Out, rows.start);
                    self.adapter_gradient(layer, fused, first, all(out), d, attended, grads);
                }
            }
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
        d_qkv: &mut Floats,
        grads: &mut Grads<'_>,
        buffers: &mut Tile,
        scratch: &mut [Scratch],
    ) {
        let c = self.config;
        let (n, hidden, qkv_size) = (self.positions.len(), c.hidden_size, c.qkv_size());
        let d_qkv = part(d_qkv, n * qkv_size);
        attention::backward(
            d_attention,
            &acts.qkv,
            self.plan,
            rows,
            self.heads(),
            self.precision,
            &acts.attention,
            &acts.log_z,
            d_qkv,
            scratch,
        );
        let Tile { rows: [_, _, x, dx], workers, weights: [w0, ..], factors: [factors, _] } =
            buffers;
        let into_qkv = self.linear(hidden, qkv_size);
        into_qkv.pack_backward(self.weight(&layer.qkv), w0);
        let norm = self.weight(&layer.input_norm);
        if let Some(norms) = &layer.qk_norm {
            self.rope.backward(d_qkv, qkv_size, self.rotated_heads(), self.positions);
            let (weights, heads) = (self.head_weights(norms), c.normed_heads());
            // Frozen norms hand on gradients and have none.
            let mut unused = Floats::default();
            let dw = match grads.of(norms) {
                Some(dw) => dw,
                None => part(&mut unused, 2 * heads.dim),
            };
            head_norm::backward(d_qkv, &acts.head_input, heads, weights, &acts.head_inv, dw);
        }
        let frozen = grads.frozen();
        let kept = |len| if frozen { len } else { 0 };
        for rows in self.spans(n) {
            let n = rows.len();
            let linear = Linear { rows: n, ..into_qkv };
            let (x, dx) = (part(x, kept(n * hidden)), part(dx, n * hidden));
            let d_qkv = &mut d_qkv[span(&rows, qkv_size)];
            {
                let (mut x, mut dx, mut d_qkv) = (&mut *x, &mut *dx, &mut *d_qkv);
                let mut d_stream = &mut d_stream[span(&rows, hidden)];
                let mut packed = (!frozen).then(|| factors.fill(linear));
                let jobs = self.tiles(rows.clone()).into_iter().map(|tile| {
                    let t = tile.len();
                    let (x, dx) = (cut(&mut x, kept(t * hidden)), cut(&mut dx, t * hidden));
                    let (d_qkv, packed) =
                        (cut(&mut d_qkv, t * qkv_size), packed.as_mut().map(|qkv| qkv.cut(t)));
                    (tile, d_qkv, x, dx, cut(&mut d_stream, t * hidden), packed)
                });
                let jobs = jobs.collect::<Vec<_>>();
                run(workers, jobs, |(tile, d_qkv, x, dx, d_stream, packed), buffer| {
                    let x = if frozen { x } else { part(buffer, tile.len() * hidden) };
                    if layer.qk_norm.is_none() {
                        let positions = &self.positions[tile.clone()];
                        self.rope.backward(d_qkv, qkv_size, self.rotated_heads(), positions);
                    }
                    let input = &input[span(&tile, hidden)];
                    let inv = &acts.input_inv[tile.clone()];
                    rms_norm::recompute(input, norm, inv, x);
                    into_qkv.on(tile.len()).backward_input(d_qkv, w0, dx, Write::Replace);
                    self.adapt_back(layer, Fused::Qkv, tile.start, d_qkv, qkv_size, dx);
                    rms_norm::backward(dx, input, norm, inv, d_stream);
                    if let Some(mut qkv) = packed {
                        qkv.bring(d_qkv, x);
                    }
                });
            }
            match grads {
                Grads::Weights(grads) => {
                    if let Some(bias) = &layer.qkv_bias {
                        add_bias_backward(d_qkv, &mut grads[bias.clone()]);
                    }
                    factors.add_product(&mut grads[layer.qkv.clone()], self.threads);
                    let input = &input[span(&rows, hidden)];
                    let dw = &mut grads[layer.input_norm.clone()];
                    rms_norm::backward_weight(dx, input, &acts.input_inv[rows.clone()], dw);
                }
                Grads::Adapters(grads) => {
                    let first = rows.start;
                    self.adapter_gradient(layer, Fused::Qkv, first, linear, d_qkv, x, grads);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falling_tiles_leave_nothing_out_and_begin_with_a_group() {
        for (start, len, threads) in
            [(0, 2048, 2), (96, 97, 2), (96, 1001, 3), (0, 5, 3), (0, 12, 4), (3, 0, 2)]
        {
            for group in [12, 32] {
                let tiles = falling(start..start + len, 96, threads, group);
                let rows: Vec<_> = tiles.iter().cloned().flatten().collect();
                assert_eq!(rows, (start..start + len).collect::<Vec<_>>());
                assert!(tiles.iter().all(|tile| (tile.start - start).is_multiple_of(group)));
                assert!(tiles.iter().all(|tile| (1..=96).contains(&tile.len())));
            }
        }
    }

    #[test]
    fn shares_are_even_and_leave_nothing_out() {
        for (start, len, threads) in [(0, 2048, 2), (96, 97, 2), (7, 5, 3), (0, 12, 4), (3, 0, 2)] {
            let tiles = shares(start..start + len, 96, threads, 12);
            let rows: Vec<_> = tiles.iter().cloned().flatten().collect();
            assert_eq!(rows, (start..start + len).collect::<Vec<_>>());
            assert!(tiles.iter().all(|tile| (1..=96).contains(&tile.len())), "{tiles:?}");
            if len > 96 {
                assert_eq!(tiles.len() % threads, 0);
                let most = tiles.iter().map(Range::len).max().unwrap_or(0);
                assert!(tiles.iter().rev().skip(1).all(|tile| tile.len() + 12 >= most));
            }
        }
    }
}
