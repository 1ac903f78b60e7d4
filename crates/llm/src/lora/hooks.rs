//! Where a block meets its adapters.

use std::ops::Range;

use super::adapters::Fused;
use super::pass::{LoraScratch, Rows};
use crate::block::Pass;
use crate::ops::linear::Linear;
use crate::params::LayerRanges;

/// Where a pass adds its gradients.
pub(crate) enum Grads<'a> {
    /// All weights, in the model's layout.
    Weights(&'a mut [f32]),
    /// Adapters, in theirs: the weights are frozen and own no gradient.
    Adapters(&'a mut [f32]),
}

impl Grads<'_> {
    /// Whether the weights own no gradient.
    pub(crate) fn frozen(&self) -> bool {
        matches!(self, Self::Adapters(_))
    }

    /// The gradient of a range of the weights, unless they are frozen.
    pub(crate) fn of(&mut self, range: &Range<usize>) -> Option<&mut [f32]> {
        match self {
            Self::Weights(grads) => Some(&mut grads[range.clone()]),
            Self::Adapters(_) => None,
        }
    }
}

fn rows(first: usize, len: usize, width: usize) -> Rows {
    Rows { first, count: len / width }
}

impl Pass<'_> {
    /// y (rows, `width`) += what the block's adapters make of x; the rows begin at row `first`.
    pub(crate) fn adapt(
        &self,
        layer: &LayerRanges,
        fused: Fused,
        first: usize,
        x: &[f32],
        y: &mut [f32],
        width: usize,
    ) {
        if let Some(lora) = &self.lora {
            let rows = rows(first, y.len(), width);
            lora.forward(layer.index, fused, rows, x, y, width, &mut LoraScratch::default());
        }
    }

    /// dx += what flows back through the block's adapters from dy (rows, `width`).
    pub(crate) fn adapt_back(
        &self,
        layer: &LayerRanges,
        fused: Fused,
        first: usize,
        dy: &[f32],
        width: usize,
        dx: &mut [f32],
    ) {
        if let Some(lora) = &self.lora {
            let rows = rows(first, dy.len(), width);
            lora.backward_input(
                layer.index,
                fused,
                rows,
                dy,
                width,
                dx,
                &mut LoraScratch::default(),
            );
        }
    }

    /// Adds the gradients of a matrix's adapters, from x and dy of the rows that begin at row
    /// `first`.
    pub(crate) fn adapter_gradient(
        &self,
        layer: &LayerRanges,
        fused: Fused,
        first: usize,
        linear: Linear,
        dy: &[f32],
        x: &[f32],
        grads: &mut [f32],
    ) {
        if let Some(lora) = &self.lora {
            let rows = Rows { first, count: linear.rows };
            let (width, scratch) = (linear.outputs, &mut LoraScratch::default());
            lora.backward_weight(layer.index, fused, rows, x, dy, width, grads, scratch);
        }
    }
}
