//! What a pass computes for every row by itself: everything between two attentions.
#![allow(unsafe_code)]

use std::ops::Range;

use crate::cache::BLOCK;
use crate::decode_weights::{DecodeWeights, MatrixScratch, Perceptron};
use crate::large_pages::Floats;
use crate::ops::panels::Precision;
use crate::ops::rope::RopeTable;
use crate::ops::{head_norm, rms_norm, swiglu};
use crate::pairs::Pair32;
use crate::share::Disjoint;
use crate::strips::Output;
use crate::tape::{Field, TapeRows};
use crate::team::{Team, part};
use crate::tile_linear;

/// Fewer rows than this are not worth waking the team for between two products.
const ROWS_TOGETHER: usize = 8;
/// From so many rows a thread on, every thread takes rows of its own through all products between two
/// attentions, at most so many at once: what a product writes is still in the thread's cache when the
/// next one reads it, and nobody waits. With fewer, reading the weights once for all threads matters
/// more.
const OWN_ROWS: usize = 128;
/// Rows that a thread takes through these products at once: those that are multiplied with a panel
/// while it is in the cache.
const ROWS_AT_ONCE: usize = tile_linear::CHUNK;

/// Buffers of rows between two attentions.
#[derive(Default)]
pub(crate) struct RowBuffers {
    pub(crate) h: Floats,
    inv_rms: Vec<f32>,
    head_inv: Vec<f32>,
    gate_up: Floats,
    act: Floats,
    packed_act: Vec<Pair32>,
    pub(crate) linear: MatrixScratch,
}

/// Calls `job` with all rows and the whole team, or with rows of its own for every thread.
pub(crate) fn by_rows(
    team: &Team,
    precision: Precision,
    rows: usize,
    own: &mut Vec<RowBuffers>,
    shared: &mut RowBuffers,
    job: &(dyn Fn(&Team, Range<usize>, &mut RowBuffers) + Sync),
) {
    let threads = team.threads();
    if threads == 1 || precision != Precision::Bf16 || rows < threads * OWN_ROWS {
        job(team, 0..rows, shared);
        return;
    }
    own.resize_with(threads, RowBuffers::default);
    let own = Disjoint::new(own);
    team.run(&|thread| {
        // SAFETY: every thread has its own.
        let own = unsafe { &mut own.part(thread..thread + 1)[0] };
        let alone = Team::new(1);
        // Whole blocks of rows.
        let mine = part(rows.div_ceil(BLOCK), thread, threads);
        let (start, end) = (mine.start * BLOCK, rows.min(mine.end * BLOCK));
        let pieces = (end - start).div_ceil(ROWS_AT_ONCE);
        for piece in (0..pieces).map(|i| part((end - start).div_ceil(BLOCK), i, pieces)) {
            let first = start + piece.start * BLOCK;
            job(&alone, first..end.min(start + piece.end * BLOCK), own);
        }
    });
}

impl DecodeWeights<'_> {
    /// qkv: queries, keys and values of x (R, hidden), turned to their positions.
    pub(crate) fn project(
        &self,
        rope: &RopeTable,
        team: &Team,
        layer: usize,
        x: &[f32],
        positions: &[u32],
        qkv: &mut [f32],
        tape: Option<TapeRows<'_>>,
        b: &mut RowBuffers,
    ) {
        let model = self.model;
        let (config, ranges) = (&model.config, &model.layout.layers()[layer]);
        let (rows, size, eps) = (positions.len(), config.qkv_size(), config.rms_norm_eps);
        let kept = tape.map(|tape| (tape, Field::Input));
        norm_rows(team, x, model.part(&ranges.input_norm), eps, kept, b);
        self.layers[layer].qkv.apply(team, &b.h, qkv, Output::Set, &mut b.linear);
        let turned = config.num_heads + config.num_kv_heads;
        let normed = config.normed_heads();
        b.head_inv.resize(rows * normed.count(), 0.0);
        let (qkv, inv) = (Disjoint::new(qkv), Disjoint::new(&mut b.head_inv));
        team.split(rows, ROWS_TOGETHER, &|part| {
            // SAFETY: the parts do not overlap.
            let qkv = unsafe { qkv.part(part.start * size..part.end * size) };
            let keep = |qkv: &[f32]| {
                if let Some(tape) = tape {
                    // SAFETY: as above.
                    unsafe { tape.put(Field::Qkv, part.start, qkv) };
                }
            };
            if let Some(norms) = &ranges.qk_norm {
                let count = normed.count();
                // SAFETY: as above.
                let inv = unsafe { inv.part(part.start * count..part.end * count) };
                let (q, k) = model.part(norms).split_at(normed.dim);
                keep(qkv);
                head_norm::forward(qkv, normed, q, k, eps, inv);
            }
            rope.forward(qkv, size, turned, &positions[part.clone()]);
            if ranges.qk_norm.is_none() {
                keep(qkv);
            }
        });
    }

    /// x += what attention found, then += the perceptron of that.
    pub(crate) fn feed(
        &self,
        team: &Team,
        layer: usize,
        att: &[f32],
        x: &mut [f32],
        tape: Option<TapeRows<'_>>,
        b: &mut RowBuffers,
    ) {
        let model = self.model;
        let config = &model.config;
        let (rows, inter) = (x.len() / config.hidden_size, config.intermediate_size);
        let norm = model.part(&model.layout.layers()[layer].post_norm);
        let layer = &self.layers[layer];
        layer.out.apply(team, att, x, Output::Add, &mut b.linear);
        let kept = tape.map(|tape| (tape, Field::Middle));
        norm_rows(team, x, norm, config.rms_norm_eps, kept, b);
        let (gate_up, down) = match &layer.perceptron {
            Perceptron::Plain { gate_up, down } => (gate_up, down),
            Perceptron::Coupled { gate_up, down } => {
                gate_up.swiglu(team, &b.h, tape, &mut b.linear.pairs, &mut b.packed_act);
                down.apply_packed(team, &b.packed_act, x, Output::Add);
                return;
            }
        };
        b.gate_up.fit(rows * 2 * inter);
        gate_up.apply(team, &b.h, &mut b.gate_up, Output::Set, &mut b.linear);
        b.act.fit(rows * inter);
        let (both, act) = (&b.gate_up, Disjoint::new(&mut b.act));
        team.split(rows, ROWS_TOGETHER, &|part| {
            let both = &both[part.start * 2 * inter..part.end * 2 * inter];
            // SAFETY: the parts do not overlap.
            let act = unsafe { act.part(part.start * inter..part.end * inter) };
            swiglu::forward(both, inter, act);
            if let Some(tape) = tape {
                // SAFETY: as above.
                unsafe { tape.put(Field::GateUp, part.start, both) };
            }
        });
        down.apply(team, &b.act, x, Output::Add, &mut b.linear);
    }
}

/// b.h = norm of x, which is kept where it is wanted.
pub(crate) fn norm_rows(
    team: &Team,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    kept: Option<(TapeRows<'_>, Field)>,
    b: &mut RowBuffers,
) {
    let hidden = weight.len();
    let rows = x.len() / hidden;
    b.h.fit(x.len());
    b.inv_rms.resize(rows, 0.0);
    let (h, inv) = (Disjoint::new(&mut b.h), Disjoint::new(&mut b.inv_rms));
    team.split(rows, ROWS_TOGETHER, &|part| {
        let wide = part.start * hidden..part.end * hidden;
        // SAFETY: the parts do not overlap.
        let (h, inv) = unsafe { (h.part(wide.clone()), inv.part(part.clone())) };
        if let Some((tape, field)) = kept {
            // SAFETY: as above.
            unsafe { tape.put(field, part.start, &x[wide.clone()]) };
        }
        rms_norm::forward(&x[wide], weight, eps, h, inv);
    });
}
