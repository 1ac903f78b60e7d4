//! y = x Wᵀ + b with the weight in bf16, packed once into panels of pairs; the activations are
//! rounded to bf16, sums are f32. A sum runs over the pairs of inputs in order, whatever the number
//! of rows: a row's result does not depend on its batch, to the bit.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use std::borrow::Cow;

use crate::large_pages::Site;
use crate::ops::panels::{Mat, Precision, Rounding, pack_block};
use crate::ops::swiglu;
use crate::ops::tiles;
use crate::pairs::{Pair32, PairLanes, Width, by_pair_width, pack_rows, packed_len};
use crate::share::Disjoint;
use crate::streaming::{write, written};
use crate::strips::{
    Link, Output, PANEL, Place, RUN, Rows, STRIP, Strips, To, blocks, calls, multiply_strips,
    pack_blocks, sums_of,
};
use crate::tape::{Field, TapeRows};
use crate::team::Team;
use crate::vector::Lane32;

/// A linear layer for inference.
pub(crate) struct PairLinear<'m> {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Pairs of inputs; whole tiles where `tiles`.
    pub(crate) pairs: usize,
    /// (⌈outputs/32⌉, pairs, 32); zero beyond the last input and output.
    pub(crate) panels: Cow<'m, [Pair32]>,
    /// ⌈outputs/32⌉ panels.
    pub(crate) bias: Option<Vec<Lane32>>,
    width: Width,
    /// Whether tile registers multiply, for any number of rows: a row's sum is the same to the bit.
    tiles: bool,
    /// Panels of the first half of the outputs in turn with those of the second, for [`Self::swiglu`].
    pub(crate) paired: bool,
    /// What is multiplied after this.
    then: Option<Place>,
}

impl<'m> PairLinear<'m> {
    /// Rounds and packs `weight` (outputs, inputs): the same numbers that training multiplies with.
    pub(crate) fn new(
        weight: &[f32],
        shape: (usize, usize),
        bias: Option<&[f32]>,
        site: Site<'m>,
    ) -> Self {
        Self::with(weight, shape, bias, tiles::available(), false, site)
    }

    /// Gate and up, one below the other, for [`Self::swiglu`].
    pub(crate) fn couple(weight: &[f32], shape: (usize, usize), site: Site<'m>) -> Self {
        assert!(Self::couples(shape.0), "a panel of both");
        Self::with(weight, shape, None, tiles::available(), true, site)
    }

    /// Whether no panel holds outputs of gate and of up.
    pub(crate) fn couples(outputs: usize) -> bool {
        outputs.is_multiple_of(2 * PANEL)
    }

    /// Pairs of inputs, whole tiles where these are used.
    fn pairs(inputs: usize, tiles: bool) -> usize {
        let pairs = inputs.div_ceil(2);
        if tiles { pairs.next_multiple_of(tiles::SIDE) } else { pairs }
    }

    /// Rows of a panel of all outputs.
    pub(crate) fn rows(outputs: usize, inputs: usize) -> usize {
        outputs.div_ceil(PANEL) * Self::pairs(inputs, tiles::available())
    }

    fn with(
        weight: &[f32],
        (outputs, inputs): (usize, usize),
        bias: Option<&[f32]>,
        tiles: bool,
        paired: bool,
        site: Site<'m>,
    ) -> Self {
        assert_eq!(weight.len(), outputs * inputs, "weight and shape disagree");
        let (count, pairs) = (outputs.div_ceil(PANEL), Self::pairs(inputs, tiles));
        let columns = Mat::new(weight, outputs, inputs).t();
        let panels = site.fill(count, pairs, |p, panel: &mut [Pair32]| {
            let p = if paired { p / 2 + p % 2 * (count / 2) } else { p };
            let lanes = bytemuck::cast_slice_mut(panel);
            pack_block(columns, Precision::Bf16, Rounding::ByPlace, p, lanes);
        });
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

    pub(crate) fn link(&mut self) -> Link<'_> {
        Link { place: Place::of(&self.panels, self.pairs), then: &mut self.then }
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
        } else {
            self.pack(team, x, scratch);
            self.apply_packed(team, scratch, y, into);
        }
    }

    /// y (R, outputs) from rows as [`Self::swiglu`] leaves them.
    pub(crate) fn apply_packed(&self, team: &Team, xs: &[Pair32], y: &mut [f32], into: Output) {
        assert!(!self.paired, "panels out of order");
        if self.tiles {
            self.apply_tiles(team, xs, y, into);
            return;
        }
        let blocks = blocks(y.len() / self.outputs, self.width.accumulators());
        let rows = Rows { packed: bytemuck::cast_slice(xs), blocks: &blocks };
        let (y, threads) = (Disjoint::new(y), team.threads());
        team.run(&|thread| {
            multiply(self.width, self.strips(), rows, (thread, threads), To { y: &y, into });
        });
    }

    /// silu(x gateᵀ) ⊙ (x upᵀ) of x (R, inputs), packed as the next layer's rows. Sums go through the
    /// nonlinearity where they were made: no other thread sees them. A tape keeps them.
    pub(crate) fn swiglu(
        &self,
        team: &Team,
        x: &[f32],
        tape: Option<TapeRows<'_>>,
        scratch: &mut Vec<Pair32>,
        act: &mut Vec<Pair32>,
    ) {
        assert!(self.paired && self.bias.is_none(), "not a pair of layers");
        let rows = x.len() / self.inputs;
        if rows == 0 {
            act.clear();
            return;
        }
        if self.tiles {
            self.swiglu_by_tiles(team, x, tape, scratch, act);
            return;
        }
        self.pack(team, x, scratch);
        // A line is 32 numbers of a row.
        let lines = self.outputs / (2 * PANEL);
        act.resize((rows * lines).div_ceil(2), Pair32::ZERO);
        let act = Disjoint::new(&mut bytemuck::cast_slice_mut(act)[..rows * lines * RUN]);
        let blocks = blocks(rows, self.width.accumulators());
        let rows = Rows { packed: bytemuck::cast_slice(scratch), blocks: &blocks };
        let threads = team.threads();
        let strips = self.strips();
        team.run(&|thread| activate(self.width, strips, rows, (thread, threads), (&act, tape)));
    }

    fn strips(&self) -> Strips<'_> {
        Strips {
            panels: &self.panels,
            depth: self.pairs,
            outputs: self.outputs,
            bias: self.bias.as_deref(),
            then: self.then,
        }
    }

    /// Packs rows (R, inputs) by blocks.
    fn pack(&self, team: &Team, x: &[f32], packed: &mut Vec<Pair32>) {
        let blocks = blocks(x.len() / self.inputs, self.width.accumulators());
        let lengths = (self.inputs, packed_len(1, self.inputs));
        pack_blocks(team, x, lengths, &blocks, packed, &|x, count, out| {
            pack_rows(self.width, x, count, out);
        });
    }
}

by_pair_width! {
    fn multiply(weight: Strips<'_>, rows: Rows<'_>, part: (usize, usize), to: To<'_, '_>) =
        multiply_strips
}

by_pair_width! {
    /// The sums of couples of panels, gate and up, through SwiGLU to packed rows.
    fn activate(
        weight: Strips<'_>,
        rows: Rows<'_>,
        part: (usize, usize),
        to: (&Disjoint<'_, u32>, Option<TapeRows<'_>>),
    ) = activate_impl
}

#[inline(always)]
unsafe fn activate_impl<L: PairLanes>(
    weight: Strips<'_>,
    rows: Rows<'_>,
    part: (usize, usize),
    (act, tape): (&Disjoint<'_, u32>, Option<TapeRows<'_>>),
) {
    /// Numbers of a call: the largest block with the longest strip.
    const MOST: usize = 12 * STRIP * PANEL;
    let lines = weight.outputs / (2 * PANEL);
    let (mut sums, mut active) = ([0.0; MOST], [0.0; MOST / 2]);
    for call in calls(weight, rows, part, 2) {
        let (first, count) = call.block;
        let couples = call.strip.len() / 2;
        let sums = &mut sums[..count * couples * 2 * PANEL];
        let active = &mut active[..count * couples * PANEL];
        // SAFETY: the caller enables what L needs, and its blocks fit L.
        unsafe { sums_of::<L>(weight, rows, &call, sums) };
        swiglu::forward_near(sums, PANEL, active);
        if let Some(tape) = tape {
            for (i, both) in sums.chunks_exact(2 * PANEL).enumerate() {
                let (r, couple) = (i / couples, call.strip.start / 2 + i % couples);
                // SAFETY: no other thread has this couple's outputs.
                unsafe { keep_couple(tape, first + r, couple, weight.outputs / 2, both) };
            }
        }
        for (i, active) in active.as_chunks::<PANEL>().0.iter().enumerate() {
            let (r, couple) = (i / couples, call.strip.start / 2 + i % couples);
            let start = (first * lines + couple * count + r) * RUN;
            // SAFETY: no other thread has this couple's lines.
            let out = unsafe { act.part(start..start + RUN) };
            if let Ok(out) = out.try_into() {
                // SAFETY: the caller enables what L needs.
                unsafe { L::convert(active, out) };
            }
        }
    }
    if tape.is_some() {
        written();
    }
}

/// Keeps a row's gate and up of one couple of panels.
///
/// # Safety
/// Nobody else writes them.
pub(crate) unsafe fn keep_couple(
    tape: TapeRows<'_>,
    row: usize,
    couple: usize,
    width: usize,
    both: &[f32],
) {
    let (gate, up) = both.split_at(PANEL);
    for (start, half) in [(couple * PANEL, gate), (width + couple * PANEL, up)] {
        // SAFETY: the function's contract.
        if let Some(lanes) = unsafe { tape.lanes(Field::GateUp, row, start..start + PANEL) } {
            write(Precision::Bf16, half, lanes);
        }
    }
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
            for ((width, tiles), threads) in all_ways().flat_map(|w| [(w, 1), (w, 3)]) {
                let mut layer =
                    PairLinear::with(&w, (outputs, inputs), Some(&bias), tiles, false, Site::OWN);
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

    /// Every width without tile registers, and these.
    fn all_ways() -> impl Iterator<Item = (Width, bool)> {
        let by_tiles = tiles::available().then_some((Width::best(), true));
        Width::all().into_iter().map(|width| (width, false)).chain(by_tiles)
    }

    #[test]
    fn gate_and_up_in_one_product_are_those_of_two_to_the_bit() {
        let numbers = |n: usize, by: f32| (0..n).map(|i| (i as f32 * by).sin()).collect::<Vec<_>>();
        let (inputs, inter) = (70, 96);
        let both = numbers(2 * inter * inputs, 0.37);
        assert!(!PairLinear::couples(2 * 35) && PairLinear::couples(2 * 96), "a panel of both");
        for (width, tiles) in all_ways() {
            let layer = |w: &[f32], outputs, inputs, paired| {
                let layer = PairLinear::with(w, (outputs, inputs), None, tiles, paired, Site::OWN);
                PairLinear { width, ..layer }
            };
            let couple = layer(&both, 2 * inter, inputs, true);
            let apart = layer(&both, 2 * inter, inputs, false);
            let down = layer(&numbers(inter * 48, 0.91), 48, inter, false);
            let sizes = [(0, 2), (1, 1), (1, 2), (3, 2), (4, 1), (16, 2), (37, 3), (293, 2)];
            for (rows, threads) in sizes {
                let team = Team::new(threads);
                let x = numbers(rows * inputs, 0.73);
                let (mut scratch, mut packed) = (Vec::new(), Vec::new());
                let mut sums = vec![0.0; rows * 2 * inter];
                apart.apply(&team, &x, &mut sums, Output::Set, &mut scratch);
                let mut act = vec![0.0; rows * inter];
                swiglu::forward_near(&sums, inter, &mut act);
                let mut expected = vec![1.0; rows * 48];
                down.apply(&team, &act, &mut expected, Output::Add, &mut scratch);
                couple.swiglu(&team, &x, None, &mut scratch, &mut packed);
                let mut found = vec![1.0; rows * 48];
                down.apply_packed(&team, &packed, &mut found, Output::Add);
                assert_eq!(found, expected, "{width:?} {rows} rows");
            }
        }
    }
}
