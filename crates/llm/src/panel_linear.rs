//! y = x Wᵀ + b with the weight repacked once into panels, for many small products with one
//! weight. An output's sum runs over the inputs in order, whatever the number of rows: a row's
//! result does not depend on its batch, to the bit.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use std::ops::Range;

use crate::share::Disjoint;
use crate::team::{Team, part};
use crate::vector::{Lane32, Lanes, by_width, unroll};

/// Outputs of one panel.
pub(crate) const PANEL: usize = 32;

/// A linear layer for inference.
pub(crate) struct PanelLinear {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// (⌈outputs/32⌉, inputs, 32)
    pub(crate) panels: Vec<Lane32>,
    /// ⌈outputs/32⌉ panels.
    pub(crate) bias: Option<Vec<Lane32>>,
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

    /// Bytes of the weight.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.panels)
    }

    /// y (R, outputs) from x (R, inputs). `scratch` is reused between calls.
    pub(crate) fn apply(
        &self,
        team: &Team,
        x: &[f32],
        y: &mut [f32],
        into: Output,
        scratch: &mut Vec<Vec<f32>>,
    ) {
        let rows = x.len() / self.inputs;
        assert!(
            x.len() == rows * self.inputs && y.len() == rows * self.outputs,
            "rows of input and result disagree"
        );
        let (threads, panels) = (team.threads(), self.panels.len() / self.inputs);
        scratch.resize_with(threads, Vec::new);
        let (y, scratch) = (Disjoint::new(y), Disjoint::new(scratch));
        team.run(&|thread| {
            // SAFETY: every thread has its own.
            let scratch = unsafe { scratch.part(thread..thread + 1) };
            apply(self, x, &y, into, &mut scratch[0], part(panels, thread, threads));
        });
    }
}

by_width! {
    fn apply(
        layer: &PanelLinear, x: &[f32], y: &Disjoint<'_, f32>, into: Output,
        scratch: &mut Vec<f32>, panels: Range<usize>,
    ) = apply_impl
}

#[inline(always)]
unsafe fn apply_impl<L: Lanes>(
    layer: &PanelLinear,
    x: &[f32],
    y: &Disjoint<'_, f32>,
    into: Output,
    scratch: &mut Vec<f32>,
    panels: Range<usize>,
) {
    let inputs = layer.inputs;
    let rows = x.len() / inputs;
    let mut row = 0;
    while row < rows {
        let take = match (rows - row).min(L::ACCUMULATORS) {
            12.. => 12,
            8.. => 8,
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let xs = &x[row * inputs..(row + take) * inputs];
        let panels = panels.clone();
        // SAFETY: the caller enables what L needs.
        unsafe {
            match take {
                12 => block::<L, 12, 1>(layer, xs, row, y, into, scratch, panels),
                8 => block::<L, 8, 1>(layer, xs, row, y, into, scratch, panels),
                4 => block::<L, 4, 3>(layer, xs, row, y, into, scratch, panels),
                2 => block::<L, 2, 4>(layer, xs, row, y, into, scratch, panels),
                _ => block::<L, 1, 4>(layer, xs, row, y, into, scratch, panels),
            }
        }
        row += take;
    }
}

/// M rows against every panel, P panels at a time where the registers allow.
#[inline(always)]
unsafe fn block<L: Lanes, const M: usize, const P: usize>(
    layer: &PanelLinear,
    x: &[f32],
    first_row: usize,
    y: &Disjoint<'_, f32>,
    into: Output,
    scratch: &mut Vec<f32>,
    panels: Range<usize>,
) {
    let inputs = layer.inputs;
    assert!(x.len() == M * inputs, "a block of M rows");
    // The M values of one input side by side: the kernel reads one stream.
    if scratch.len() < M * inputs {
        scratch.resize(M * inputs, 0.0);
    }
    let (xs, _) = scratch[..M * inputs].as_chunks_mut::<M>();
    for (k, slot) in xs.iter_mut().enumerate() {
        for (r, slot) in slot.iter_mut().enumerate() {
            // SAFETY: r < M and k < inputs, and x has M · inputs values.
            *slot = unsafe { *x.get_unchecked(r * inputs + k) };
        }
    }
    let Range { start: mut first, end: panels } = panels;
    // SAFETY: the caller enables what L needs.
    unsafe {
        if M * P <= L::ACCUMULATORS {
            while first + P <= panels {
                kernel::<L, M, P>(layer, first, xs, first_row, y, into);
                first += P;
            }
        }
        while first < panels {
            kernel::<L, M, 1>(layer, first, xs, first_row, y, into);
            first += 1;
        }
    }
}

/// M rows against the P panels from `first` on.
#[inline(always)]
unsafe fn kernel<L: Lanes, const M: usize, const P: usize>(
    layer: &PanelLinear,
    first: usize,
    xs: &[[f32; M]],
    first_row: usize,
    y: &Disjoint<'_, f32>,
    into: Output,
) {
    let inputs = layer.inputs;
    assert!(xs.len() == inputs, "one group of values for every input");
    let panels: [&[Lane32]; P] =
        std::array::from_fn(|p| &layer.panels[(first + p) * inputs..][..inputs]);
    let mut acc = [[unsafe { L::zero() }; P]; M];
    for (k, x) in xs.iter().enumerate() {
        unroll!(P, PANEL_AT => {
            // SAFETY: the caller enables what L needs; every panel has `inputs` rows and k is
            // below that.
            let w = unsafe { L::load(panels[PANEL_AT].get_unchecked(k)) };
            unroll!(M, R => {
                // SAFETY: the caller enables what L needs.
                acc[R][PANEL_AT] = unsafe { acc[R][PANEL_AT].add_scaled(w, x[R]) };
            });
        });
    }
    unroll!(M, R => unroll!(P, PANEL_AT => {
        // SAFETY: the caller enables what L needs, and no other thread has this panel's outputs.
        unsafe { finish(layer, first + PANEL_AT, first_row + R, acc[R][PANEL_AT].store(), y, into) };
    }));
}

/// Stores one row's sums of one panel.
#[inline(always)]
unsafe fn finish(
    layer: &PanelLinear,
    panel: usize,
    row: usize,
    mut sums: Lane32,
    y: &Disjoint<'_, f32>,
    into: Output,
) {
    let first = panel * PANEL;
    let width = PANEL.min(layer.outputs - first);
    if let Some(bias) = &layer.bias {
        for (s, b) in sums.0.iter_mut().zip(&bias[panel].0) {
            *s += b;
        }
    }
    let start = row * layer.outputs + first;
    // SAFETY: no other thread has this panel's outputs.
    let out = unsafe { y.part(start..start + width) };
    match (into, <&mut [f32; PANEL]>::try_from(&mut *out)) {
        (Output::Set, Ok(out)) => *out = sums.0,
        (Output::Set, Err(_)) => out.copy_from_slice(&sums.0[..width]),
        (Output::Add, _) => {
            for (o, s) in out.iter_mut().zip(&sums.0) {
                *o += s;
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
            let team = Team::new(rows % 3 + 1);
            layer.apply(&team, &x, &mut y, Output::Add, &mut scratch);
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
            layer.apply(&team, &x, &mut y, Output::Set, &mut scratch);
            for r in 0..rows {
                let mut alone = vec![0.0; outputs];
                let row = &x[r * inputs..(r + 1) * inputs];
                layer.apply(&team, row, &mut alone, Output::Set, &mut scratch);
                assert_eq!(alone, y[r * outputs..(r + 1) * outputs]);
            }
        }
    }
}
