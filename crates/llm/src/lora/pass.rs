//! What adapters add in a pass, and their gradients. All shapes are of some rows of the pack. Tiles are
//! taken by one thread each; weight gradients, which sum over rows, are shared by all.

use super::adapters::{Adapter, Adapters, Fused};
use super::config::Module;
use super::dropout::{Mask, scatter};
use crate::large_pages::Floats;
use crate::ops::matmul::{MatMut, Write, multiply};
use crate::ops::panels::{Mat, Panels, Precision};
use crate::workspace::part;

/// The adapters of one pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoraPass<'a> {
    pub(crate) adapters: &'a Adapters,
    /// Seed of the dropout; none in scoring.
    pub(crate) dropout: Option<u64>,
    pub(crate) threads: usize,
}

/// Buffers of adapters.
#[derive(Debug, Default)]
pub(crate) struct LoraScratch {
    panels: Panels,
    /// (rows, inputs) after dropout.
    input: Floats,
    /// (rows, rank)
    low: Floats,
    d_low: Floats,
}

/// Rows of a tile, and which row of the pack the first of them is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) first: usize,
    pub(crate) count: usize,
}

impl LoraPass<'_> {
    fn mask(&self, layer: usize, module: Module) -> Option<Mask> {
        let p = self.adapters.config.dropout;
        let place = scatter(layer as u64 * 8 + module as u64);
        self.dropout.filter(|_| p > 0.0).map(|seed| Mask::new(p, seed ^ place))
    }

    /// low (rows, rank) = s · dropout(x) · Aᵀ
    fn low<'s>(
        &self,
        adapter: &Adapter,
        mask: Option<Mask>,
        rows: Rows,
        x: &[f32],
        input: &'s mut Floats,
        low: &mut [f32],
        panels: &mut Panels,
    ) -> Option<&'s [f32]> {
        let (rank, inputs) = (self.adapters.config.rank, adapter.inputs);
        let dropped = mask.map(|mask| {
            let input = part(input, rows.count * inputs);
            input.copy_from_slice(&x[..rows.count * inputs]);
            mask.apply(input, inputs, rows.first);
            &*input
        });
        let a = &self.adapters.params[adapter.a.clone()];
        panels.pack(Mat::new(a, rank, inputs).t(), Precision::F32, 1);
        let x = Mat::new(dropped.unwrap_or(x), rows.count, inputs);
        multiply(MatMut::new(low, rows.count, rank), x, panels, Write::Replace, 1);
        let scale = self.adapters.config.scale();
        for u in low.iter_mut() {
            *u *= scale;
        }
        dropped
    }

    /// y (rows, `width`) += what the adapters of a fused matrix make of x (rows, inputs).
    pub(crate) fn forward(
        &self,
        layer: usize,
        fused: Fused,
        rows: Rows,
        x: &[f32],
        y: &mut [f32],
        width: usize,
        scratch: &mut LoraScratch,
    ) {
        let rank = self.adapters.config.rank;
        let LoraScratch { panels, input, low, .. } = scratch;
        for adapter in self.adapters.of(layer, fused) {
            let low = part(low, rows.count * rank);
            self.low(adapter, self.mask(layer, adapter.module), rows, x, input, low, panels);
            let outputs = adapter.columns.len();
            let b = &self.adapters.params[adapter.b.clone()];
            panels.pack(Mat::new(b, outputs, rank).t(), Precision::F32, 1);
            let y = MatMut::strided(&mut y[adapter.columns.start..], rows.count, outputs, width);
            multiply(y, Mat::new(low, rows.count, rank), panels, Write::Add, 1);
        }
    }

    /// dx (rows, inputs) += what flows back through the adapters from dy (rows, `width`).
    pub(crate) fn backward_input(
        &self,
        layer: usize,
        fused: Fused,
        rows: Rows,
        dy: &[f32],
        width: usize,
        dx: &mut [f32],
        scratch: &mut LoraScratch,
    ) {
        let rank = self.adapters.config.rank;
        let LoraScratch { panels, input, d_low, .. } = scratch;
        for adapter in self.adapters.of(layer, fused) {
            let d_low = part(d_low, rows.count * rank);
            self.d_low(adapter, rows, dy, width, d_low, panels);
            let a = &self.adapters.params[adapter.a.clone()];
            panels.pack(Mat::new(a, rank, adapter.inputs), Precision::F32, 1);
            let low = Mat::new(d_low, rows.count, rank);
            let size = rows.count * adapter.inputs;
            match self.mask(layer, adapter.module) {
                None => {
                    let dx = MatMut::new(&mut dx[..size], rows.count, adapter.inputs);
                    multiply(dx, low, panels, Write::Add, 1);
                }
                Some(mask) => {
                    let through = part(input, size);
                    let dst = MatMut::new(through, rows.count, adapter.inputs);
                    multiply(dst, low, panels, Write::Replace, 1);
                    mask.apply(through, adapter.inputs, rows.first);
                    for (d, t) in dx.iter_mut().zip(&*through) {
                        *d += t;
                    }
                }
            }
        }
    }

    /// Adds the gradients of A and B, given x (rows, inputs) and dy (rows, `width`), to `grads`
    /// (flat, in the adapters' layout).
    pub(crate) fn backward_weight(
        &self,
        layer: usize,
        fused: Fused,
        rows: Rows,
        x: &[f32],
        dy: &[f32],
        width: usize,
        grads: &mut [f32],
        scratch: &mut LoraScratch,
    ) {
        let rank = self.adapters.config.rank;
        let LoraScratch { panels, input, low, d_low } = scratch;
        for adapter in self.adapters.of(layer, fused) {
            let outputs = adapter.columns.len();
            let (low, d_low) = (part(low, rows.count * rank), part(d_low, rows.count * rank));
            let mask = self.mask(layer, adapter.module);
            let dropped = self.low(adapter, mask, rows, x, input, low, panels);
            // dB (outputs, rank) += dyᵀ · low
            panels.pack(Mat::new(low, rows.count, rank), Precision::F32, 1);
            let dy_t = Mat::strided(&dy[adapter.columns.start..], rows.count, outputs, width).t();
            let db = MatMut::new(&mut grads[adapter.b.clone()], outputs, rank);
            multiply(db, dy_t, panels, Write::Add, self.threads);
            // dA (rank, inputs) += d_lowᵀ · dropout(x)
            self.d_low(adapter, rows, dy, width, d_low, panels);
            panels.pack(
                Mat::new(dropped.unwrap_or(x), rows.count, adapter.inputs),
                Precision::F32,
                1,
            );
            let da = MatMut::new(&mut grads[adapter.a.clone()], rank, adapter.inputs);
            multiply(da, Mat::new(d_low, rows.count, rank).t(), panels, Write::Add, self.threads);
        }
    }

    /// d_low (rows, rank) = s · dy · B
    fn d_low(
        &self,
        adapter: &Adapter,
        rows: Rows,
        dy: &[f32],
        width: usize,
        d_low: &mut [f32],
        panels: &mut Panels,
    ) {
        let (rank, outputs) = (self.adapters.config.rank, adapter.columns.len());
        panels.pack(
            Mat::new(&self.adapters.params[adapter.b.clone()], outputs, rank),
            Precision::F32,
            1,
        );
        let dy = Mat::strided(&dy[adapter.columns.start..], rows.count, outputs, width);
        multiply(MatMut::new(d_low, rows.count, rank), dy, panels, Write::Replace, 1);
        let scale = self.adapters.config.scale();
        for u in d_low.iter_mut() {
            *u *= scale;
        }
    }
}
