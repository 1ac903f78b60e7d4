//! y = x Wᵀ + b with the weight in bf16, packed once into panels of pairs; the activations are
//! rounded to bf16, sums are f32. A sum runs over the pairs of inputs in order, whatever the number
//! of rows: a row's result does not depend on its batch, to the bit.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use std::ops::Range;

use crate::large_pages::reserve;
use crate::ops::panels::{Mat, Precision, Rounding, pack_block};
use crate::ops::tiles;
use crate::pairs::{Pair32, Width, by_pair_width, pack_rows, packed_len};
use crate::share::Disjoint;
use crate::strips::{
    Output, PACK_TOGETHER, PANEL, Place, Rows, Strips, To, blocks, multiply_strips,
};
use crate::team::Team;
use crate::vector::Lane32;

/// A linear layer for inference.
pub(crate) struct PairLinear {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Pairs of inputs; whole tiles where `tiles`.
    pub(crate) pairs: usize,
    /// (⌈outputs/32⌉, pairs, 32); zero beyond the last input and output.
    pub(crate) panels: Vec<Pair32>,
    /// ⌈outputs/32⌉ panels.
    pub(crate) bias: Option<Vec<Lane32>>,
    width: Width,
    /// Whether tile registers multiply, for any number of rows: a row's sum is the same to the bit.
    tiles: bool,
    /// Panels of the first half of the outputs in turn with those of the second, for [`Self::swiglu`].
    pub(crate) paired: bool,
    /// What is multiplied after this.
    pub(crate) then: Option<Place>,
}

impl PairLinear {
    /// Rounds and packs `weight` (outputs, inputs): the same numbers that training multiplies with.
    pub(crate) fn new(weight: &[f32], outputs: usize, inputs: usize, bias: Option<&[f32]>) -> Self {
        Self::with(weight, outputs, inputs, bias, tiles::available(), false)
    }

    /// Gate and up, one below the other, for [`Self::swiglu`]; `None` where there are no tile
    /// registers, or panels would hold outputs of both.
    pub(crate) fn couple(weight: &[f32], outputs: usize, inputs: usize) -> Option<Self> {
        let takes = tiles::available() && outputs.is_multiple_of(2 * PANEL);
        takes.then(|| Self::with(weight, outputs, inputs, None, true, true))
    }

    fn with(
        weight: &[f32],
        outputs: usize,
        inputs: usize,
        bias: Option<&[f32]>,
        tiles: bool,
        paired: bool,
    ) -> Self {
        assert_eq!(weight.len(), outputs * inputs, "weight and shape disagree");
        let (count, pairs) = (outputs.div_ceil(PANEL), inputs.div_ceil(2));
        let pairs = if tiles { pairs.next_multiple_of(tiles::SIDE) } else { pairs };
        let mut panels = Vec::new();
        reserve(&mut panels, count * pairs);
        panels.resize(count * pairs, Pair32::ZERO);
        let columns = Mat::new(weight, outputs, inputs).t();
        for (p, panel) in panels.chunks_exact_mut(pairs).enumerate() {
            let p = if paired { p / 2 + p % 2 * (count / 2) } else { p };
            let panel = bytemuck::cast_slice_mut(panel);
            pack_block(columns, Precision::Bf16, Rounding::ByPlace, p, panel);
        }
        let bias = bias.map(|bias| {
            assert_eq!(bias.len(), outputs, "bias and shape disagree");
            let mut packed = vec![Lane32::ZERO; count];
            for (slot, values) in packed.iter_mut().zip(bias.chunks(PANEL)) {
                slot.0[..values.len()].copy_from_slice(values);
            }
            packed
        });
        Self {
            inputs,
            outputs,
            pairs,
            panels,
            bias,
            width: Width::best(),
            tiles,
            paired,
            then: None,
        }
    }

    /// Where the weight lies.
    pub(crate) fn place(&self) -> Place {
        Place::of(&self.panels, self.pairs)
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
        if self.tiles {
            self.apply_by_tiles(team, x, y, into, scratch);
            return;
        }
        let blocks = blocks(rows, self.width.accumulators());
        let packed_row = packed_len(1, self.inputs);
        scratch.resize((rows * packed_row).div_ceil(PANEL), Pair32::ZERO);
        let scratch = &mut bytemuck::cast_slice_mut(scratch)[..rows * packed_row];
        let packed = Disjoint::new(scratch);
        let pack = |which: Range<usize>| {
            for &(first, count) in &blocks[which] {
                let place = first * packed_row..(first + count) * packed_row;
                // SAFETY: blocks do not overlap, and no block is packed by two threads.
                let out = unsafe { packed.part(place) };
                let x = &x[first * self.inputs..(first + count) * self.inputs];
                pack_rows(self.width, x, count, out);
            }
        };
        team.split(blocks.len(), if rows < PACK_TOGETHER { usize::MAX } else { 2 }, &pack);
        let y = Disjoint::new(y);
        let threads = team.threads();
        let weight = Strips {
            panels: &self.panels,
            depth: self.pairs,
            outputs: self.outputs,
            bias: self.bias.as_deref(),
            then: self.then,
        };
        let rows = Rows { packed: scratch, blocks: &blocks };
        team.run(&|thread| {
            multiply(self.width, weight, rows, (thread, threads), To { y: &y, into });
        });
    }
}

by_pair_width! {
    fn multiply(weight: Strips<'_>, rows: Rows<'_>, part: (usize, usize), to: To<'_, '_>) =
        multiply_strips
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::weight_rounding::{threshold, weight_columns};
    use crate::pairs::low;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect()
    }

    fn rounded(x: f32) -> f64 {
        f64::from(low(crate::ops::bf16::round(x)))
    }

    /// A weight at its threshold, column by column.
    fn rounded_weights(w: &[f32], inputs: usize) -> Vec<f64> {
        let mut all = Vec::new();
        for (o, row) in w.chunks(inputs).enumerate() {
            for (k, x) in row.iter().enumerate() {
                let mut pair = [0.0];
                weight_columns(&[*x], threshold(o, k), &mut pair);
                all.push(f64::from(low(pair[0].to_bits())));
            }
        }
        all
    }

    #[test]
    fn every_width_equals_the_definition_and_no_row_depends_on_its_batch() {
        for (rows, inputs, outputs) in [(1, 7, 5), (3, 16, 32), (31, 25, 170), (12, 64, 33)] {
            let (x, w) = (noise(rows * inputs, 1), noise(outputs * inputs, 2));
            let bias = noise(outputs, 3);
            let exact_w = rounded_weights(&w, inputs);
            let by_width = Width::all().into_iter().map(|width| (width, false));
            let by_tiles = tiles::available().then_some((Width::best(), true));
            for ((width, tiles), threads) in by_width.chain(by_tiles).flat_map(|w| [(w, 1), (w, 3)])
            {
                let mut layer = PairLinear::with(&w, outputs, inputs, Some(&bias), tiles, false);
                layer.width = width;
                let team = Team::new(threads);
                let mut scratch = Vec::new();
                let mut y = vec![1.0; rows * outputs];
                layer.apply(&team, &x, &mut y, Output::Add, &mut scratch);
                for r in 0..rows {
                    for o in 0..outputs {
                        let exact: f64 = (0..inputs)
                            .map(|k| rounded(x[r * inputs + k]) * exact_w[o * inputs + k])
                            .sum::<f64>()
                            + f64::from(bias[o])
                            + 1.0;
                        let found = f64::from(y[r * outputs + o]);
                        assert!((found - exact).abs() < 1e-5, "{width:?} {found} {exact}");
                    }
                }
                layer.apply(&team, &x, &mut y, Output::Set, &mut scratch);
                for r in 0..rows {
                    let mut alone = vec![0.0; outputs];
                    let row = &x[r * inputs..(r + 1) * inputs];
                    layer.apply(&team, row, &mut alone, Output::Set, &mut scratch);
                    assert_eq!(alone, y[r * outputs..(r + 1) * outputs], "{width:?}");
                }
            }
        }
    }
}
