//! y = x Wᵀ + b with the weight repacked once into panels, for many small products with one
//! weight. An output's sum runs over the inputs in order, whatever the number of rows: a row's
//! result does not depend on its batch, to the bit.
#![allow(unsafe_code)]

use crate::vector::{Lane32, Vector, by_width};

/// Outputs of one panel.
const PANEL: usize = 32;
/// Rows that one pass over a panel serves at most.
const ROWS: usize = 12;

/// A linear layer for inference.
pub(crate) struct PanelLinear {
    inputs: usize,
    outputs: usize,
    /// (⌈outputs/32⌉, inputs, 32)
    panels: Vec<Lane32>,
    /// ⌈outputs/32⌉ panels.
    bias: Option<Vec<Lane32>>,
}

/// What happens to the old content of the result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Replaced.
    Set,
    /// Added to.
    Add,
}

impl PanelLinear {
    /// Packs `weight` (outputs, inputs).
    pub(crate) fn new(weight: &[f32], outputs: usize, inputs: usize, bias: Option<&[f32]>) -> Self {
        assert_eq!(weight.len(), outputs * inputs, "weight and shape disagree");
        let count = outputs.div_ceil(PANEL);
        let mut panels = vec![Lane32::ZERO; count * inputs];
        for (panel, rows) in panels.chunks_exact_mut(inputs).zip(weight.chunks(PANEL * inputs)) {
            for (lane, row) in rows.chunks_exact(inputs).enumerate() {
                for (slot, value) in panel.iter_mut().zip(row) {
                    slot.0[lane] = *value;
                }
            }
        }
        let bias = bias.map(|bias| {
            assert_eq!(bias.len(), outputs, "bias and shape disagree");
            let mut packed = vec![Lane32::ZERO; count];
            for (slot, values) in packed.iter_mut().zip(bias.chunks(PANEL)) {
                slot.0[..values.len()].copy_from_slice(values);
            }
            packed
        });
        Self { inputs, outputs, panels, bias }
    }


    /// y (R, outputs) from x (R, inputs). `scratch` is reused between calls.
    pub(crate) fn apply(&self, x: &[f32], y: &mut [f32], into: Output, scratch: &mut Vec<f32>) {
        let rows = x.len() / self.inputs;
        assert!(
            x.len() == rows * self.inputs && y.len() == rows * self.outputs,
            "rows of input and result disagree"
        );
        apply(self, x, y, into, scratch);
    }
}

by_width! {
    fn apply(
        layer: &PanelLinear, x: &[f32], y: &mut [f32], into: Output, scratch: &mut Vec<f32>,
    ) = apply_impl
}

#[inline(always)]
unsafe fn apply_impl<V: Vector, const NV: usize>(
    layer: &PanelLinear,
    x: &[f32],
    y: &mut [f32],
    into: Output,
    scratch: &mut Vec<f32>,
) {
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    let rows = x.len() / inputs;
    // 32 registers hold 12 rows of two vectors, 16 hold 2 rows of four.
    let most = if NV == 2 { ROWS } else { 2 };
    let mut row = 0;
    while row < rows {
        let left = rows - row;
        let take = match left.min(most) {
            12.. => 12,
            8.. => 8,
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let xs = &x[row * inputs..(row + take) * inputs];
        let ys = &mut y[row * outputs..(row + take) * outputs];
        // SAFETY: the caller enables what V needs; `block` checks its slices.
        unsafe {
            match take {
                12 => block::<V, NV, 12>(layer, xs, ys, into, scratch),
                8 => block::<V, NV, 8>(layer, xs, ys, into, scratch),
                4 => block::<V, NV, 4>(layer, xs, ys, into, scratch),
                2 => block::<V, NV, 2>(layer, xs, ys, into, scratch),
                _ => block::<V, NV, 1>(layer, xs, ys, into, scratch),
            }
        }
        row += take;
    }
}

/// M rows against every panel.
#[inline(always)]
unsafe fn block<V: Vector, const NV: usize, const M: usize>(
    layer: &PanelLinear,
    x: &[f32],
    y: &mut [f32],
    into: Output,
    scratch: &mut Vec<f32>,
) {
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    assert!(x.len() == M * inputs && y.len() == M * outputs, "a block of M rows");
    // The M values of one input side by side: the kernel reads one stream.
    scratch.clear();
    scratch.resize(M * inputs, 0.0);
    for (r, row) in x.chunks_exact(inputs).enumerate() {
        for (slot, value) in scratch.iter_mut().skip(r).step_by(M).zip(row) {
            *slot = *value;
        }
    }
    for (p, panel) in layer.panels.chunks_exact(inputs).enumerate() {
        let mut acc = [[unsafe { V::zero() }; NV]; M];
        let mut xs = scratch.as_ptr();
        for w in panel {
            let w = w.0.as_ptr();
            // SAFETY: a panel row has NV · WIDTH = 32 values; `scratch` has M values for each of
            // the panel's `inputs` rows, and `xs` advances by M per row.
            unsafe {
                let mut ws = [V::zero(); NV];
                for (v, slot) in ws.iter_mut().enumerate() {
                    *slot = V::load(w.add(v * V::WIDTH));
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let value = V::splat(*xs.add(r));
                    for v in 0..NV {
                        acc[v] = ws[v].mul_add(value, acc[v]);
                    }
                }
                xs = xs.add(M);
            }
        }
        let first = p * PANEL;
        let width = PANEL.min(outputs - first);
        let bias = layer.bias.as_ref().map(|b| &b[p].0);
        for (r, acc) in acc.iter().enumerate() {
            let mut sums = Lane32::ZERO;
            for (v, acc) in acc.iter().enumerate() {
                // SAFETY: NV · WIDTH = 32.
                unsafe { acc.store(sums.0.as_mut_ptr().add(v * V::WIDTH)) };
            }
            if let Some(bias) = bias {
                for (s, b) in sums.0.iter_mut().zip(bias) {
                    *s += b;
                }
            }
            let out = &mut y[r * outputs + first..][..width];
            if into == Output::Add {
                for (o, s) in out.iter_mut().zip(&sums.0) {
                    *o += s;
                }
            } else if width == PANEL {
                out.copy_from_slice(&sums.0);
            } else {
                out.copy_from_slice(&sums.0[..width]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect()
    }

    #[test]
    fn equals_the_definition_and_does_not_depend_on_the_batch() {
        for (rows, inputs, outputs) in [(1, 7, 5), (3, 16, 32), (29, 24, 70), (12, 64, 33)] {
            let (x, w) = (noise(rows * inputs, 1), noise(outputs * inputs, 2));
            let bias = noise(outputs, 3);
            let layer = PanelLinear::new(&w, outputs, inputs, Some(&bias));
            let mut y = vec![1.0; rows * outputs];
            let mut scratch = Vec::new();
            layer.apply(&x, &mut y, Output::Add, &mut scratch);
            for r in 0..rows {
                for o in 0..outputs {
                    let exact: f64 = (0..inputs)
                        .map(|k| f64::from(x[r * inputs + k]) * f64::from(w[o * inputs + k]))
                        .sum::<f64>()
                        + f64::from(bias[o])
                        + 1.0;
                    assert!((f64::from(y[r * outputs + o]) - exact).abs() < 1e-5);
                }
            }
            layer.apply(&x, &mut y, Output::Set, &mut scratch);
            for r in 0..rows {
                let mut alone = vec![0.0; outputs];
                let row = &x[r * inputs..(r + 1) * inputs];
                layer.apply(row, &mut alone, Output::Set, &mut scratch);
                assert_eq!(alone, y[r * outputs..(r + 1) * outputs]);
            }
        }
    }
}
