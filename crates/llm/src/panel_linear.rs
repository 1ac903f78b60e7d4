//! y = x Wᵀ + b with the weight repacked once into panels, for many small products with one
//! weight. An output's sum runs over the inputs in order, whatever the number of rows: a row's
//! result does not depend on its batch, to the bit.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use std::borrow::Cow;

use crate::large_pages::Site;
use crate::ops::panels::{Mat, Precision, Rounding, pack_block};
use crate::pairs::Pair32;
use crate::share::Disjoint;
use crate::strips::{
    Link, Output, PANEL, Place, RUN, Rows, Strips, Sums, To, blocks, multiply_strips, pack_blocks,
};
use crate::team::Team;
use crate::vector::{Lane32, Lanes, accumulators, by_width};

/// A linear layer for inference.
pub(crate) struct PanelLinear<'m> {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// (⌈outputs/32⌉, inputs, 32)
    pub(crate) panels: Cow<'m, [Lane32]>,
    /// ⌈outputs/32⌉ panels.
    pub(crate) bias: Option<Vec<Lane32>>,
    /// What is multiplied after this.
    then: Option<Place>,
}

impl<'m> PanelLinear<'m> {
    /// Packs `weight` (outputs, inputs).
    pub(crate) fn new(
        weight: &[f32],
        (outputs, inputs): (usize, usize),
        bias: Option<&[f32]>,
        site: Site<'m>,
    ) -> Self {
        assert_eq!(weight.len(), outputs * inputs, "weight and shape disagree");
        let count = outputs.div_ceil(PANEL);
        let columns = Mat::new(weight, outputs, inputs).t();
        let panels = site.fill(count, inputs, |p, panel: &mut [Lane32]| {
            pack_block(columns, Precision::F32, Rounding::Nearest, p, panel);
        });
        let bias = bias.map(|bias| {
            assert_eq!(bias.len(), outputs, "bias and shape disagree");
            let mut packed = vec![Lane32::ZERO; count];
            for (slot, values) in packed.iter_mut().zip(bias.chunks(PANEL)) {
                slot.0[..values.len()].copy_from_slice(values);
            }
            packed
        });
        Self { inputs, outputs, panels, bias, then: None }
    }

    pub(crate) fn link(&mut self) -> Link<'_> {
        Link { place: Place::of(&self.panels, self.inputs), then: &mut self.then }
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
        scratch: &mut Vec<Pair32>,
    ) {
        let rows = x.len() / self.inputs;
        assert!(
            x.len() == rows * self.inputs && y.len() == rows * self.outputs,
            "rows of input and result disagree"
        );
        let blocks = blocks(rows, accumulators());
        let lengths = (self.inputs, self.inputs.next_multiple_of(RUN));
        pack_blocks(team, x, lengths, &blocks, scratch, &pack);
        let weight = Strips {
            panels: bytemuck::cast_slice(&self.panels),
            depth: self.inputs,
            outputs: self.outputs,
            bias: self.bias.as_deref(),
            then: self.then,
        };
        let rows = Rows { packed: bytemuck::cast_slice(scratch), blocks: &blocks };
        let y = Disjoint::new(y);
        let threads = team.threads();
        team.run(&|thread| {
            multiply(weight, rows, (thread, threads), To { y: &y, into });
        });
    }
}

/// Packs rows (`count`, inputs): (⌈inputs/16⌉, `count`, 16), zeros beyond the last input.
fn pack(x: &[f32], count: usize, out: &mut [u32]) {
    let (out, _) = out.as_chunks_mut::<RUN>();
    for (r, row) in x.chunks_exact(x.len() / count).enumerate() {
        for (run, x) in row.chunks(RUN).enumerate() {
            let out: &mut [f32; RUN] = bytemuck::cast_mut(&mut out[run * count + r]);
            if let Ok(x) = x.try_into() {
                *out = x;
            } else {
                out[..x.len()].copy_from_slice(x);
                out[x.len()..].fill(0.0);
            }
        }
    }
}

/// f32 lanes whose rows and factors are single numbers.
#[derive(Clone, Copy)]
struct Single<L>(L);

// SAFETY: what L needs, and no more.
unsafe impl<L: Lanes> Sums for Single<L> {
    type Row = L;
    const ACCUMULATORS: usize = L::ACCUMULATORS;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(unsafe { L::zero() })
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut Lane32) {
        *to = unsafe { self.0.store() };
    }
    #[inline(always)]
    unsafe fn row(from: &Pair32) -> L {
        unsafe { L::load(bytemuck::cast_ref(from)) }
    }
    #[inline(always)]
    unsafe fn dot(self, row: L, x: u32) -> Self {
        Self(unsafe { self.0.add_scaled(row, f32::from_bits(x)) })
    }
}

by_width! {
    fn multiply(weight: Strips<'_>, rows: Rows<'_>, part: (usize, usize), to: To<'_, '_>) =
        multiply_impl
}

#[inline(always)]
unsafe fn multiply_impl<L: Lanes>(
    weight: Strips<'_>,
    rows: Rows<'_>,
    part: (usize, usize),
    to: To<'_, '_>,
) {
    // SAFETY: the caller enables what L needs.
    unsafe { multiply_strips::<Single<L>>(weight, rows, part, to) }
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
            let layer = PanelLinear::new(&w, (outputs, inputs), Some(&bias), Site::OWN);
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
