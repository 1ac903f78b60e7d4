//! y = x Wᵀ + b with the weight in bf16, packed once into panels of pairs; the activations are
//! rounded to bf16, sums are f32. A sum runs over the pairs of inputs in order, whatever the number
//! of rows: a row's result does not depend on its batch, to the bit.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use std::ops::Range;

use crate::large_pages::reserve;
use crate::ops::panels::{Mat, Precision, Rounding, pack_block};
use crate::ops::tiles;
use crate::pairs::{
    Ahead, Pair32, PairLanes, RUN, Width, accumulate, by_pair_width, pack_rows, packed_len,
};
use crate::panel_linear::Output;
use crate::share::Disjoint;
use crate::team::{Team, part};
use crate::vector::{Lane32, unroll};

/// Outputs of one panel.
pub(crate) const PANEL: usize = 32;
/// At most so many panels that all rows are multiplied with before the next ones are read.
const STRIP: usize = 4;
/// Rows of a panel that are asked for ahead of their use.
const AHEAD: usize = 24;
/// Blocks of so many rows ask for the strip behind theirs.
const ASKING: usize = 6;
/// From this many rows on, packing them is shared among the threads.
pub(crate) const PACK_TOGETHER: usize = 24;

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
        Self { inputs, outputs, pairs, panels, bias, width: Width::best(), tiles, paired }
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
        let blocks = blocks(rows);
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
        let panels = self.panels.len() / self.pairs;
        let (xs, threads) = (&*scratch, team.threads());
        team.run(&|thread| {
            let mine = part(panels, thread, threads);
            multiply(self.width, self, xs, &blocks, mine, &y, into);
        });
    }
}

/// Rows by blocks that one kernel takes: first row and count.
pub(crate) fn blocks(rows: usize) -> Vec<(usize, usize)> {
    let mut blocks = Vec::new();
    let mut first = 0;
    while first < rows {
        let count = match rows - first {
            12.. => 12,
            8.. => 8,
            6.. => 6,
            4.. => 4,
            left => left,
        };
        blocks.push((first, count));
        first += count;
    }
    blocks
}

by_pair_width! {
    fn multiply(
        layer: &PairLinear, xs: &[u32], blocks: &[(usize, usize)], panels: Range<usize>,
        y: &Disjoint<'_, f32>, into: Output,
    ) = multiply_impl
}

#[inline(always)]
unsafe fn multiply_impl<L: PairLanes>(
    layer: &PairLinear,
    xs: &[u32],
    blocks: &[(usize, usize)],
    panels: Range<usize>,
    y: &Disjoint<'_, f32>,
    into: Output,
) {
    let packed_row = packed_len(1, layer.inputs);
    let strips = panels.len().div_ceil(STRIP);
    // Of the next strip every block of many rows asks for a part. The sums of few rows take less
    // time than their panel takes to come.
    let asking = blocks.iter().filter(|(_, count)| *count >= ASKING).count();
    let walk = PANEL.div_ceil(asking.max(1));
    for i in 0..strips {
        // Of nearly one length: a last strip of a single panel would read the rows for it alone.
        let strip = part(panels.len(), i, strips);
        let strip = panels.start + strip.start..panels.start + strip.end;
        let behind = layer.panels.as_ptr().wrapping_add(strip.end * layer.pairs).cast::<u32>();
        let share = strip.len() * layer.pairs * walk;
        for (at, &(first, count)) in blocks.iter().enumerate() {
            let mut first = first;
            let end = first + count;
            let xs = &xs[first * packed_row..end * packed_row];
            let near = Ahead { rows: AHEAD, ..Ahead::NOTHING };
            // Blocks of many rows come first.
            let far = Ahead { next: behind.wrapping_add(at * share), walk, ..near };
            // Blocks are made for many registers; with few, their rows go one by one.
            if count <= L::ACCUMULATORS {
                // SAFETY: the caller enables what L needs; `strip` stays inside the panels.
                unsafe {
                    match count {
                        12 => rows::<L, 12, 1>(layer, xs, strip.clone(), first, y, into, far),
                        8 => rows::<L, 8, 1>(layer, xs, strip.clone(), first, y, into, far),
                        6 => rows::<L, 6, 1>(layer, xs, strip.clone(), first, y, into, far),
                        5 => rows::<L, 5, 2>(layer, xs, strip.clone(), first, y, into, near),
                        4 => rows::<L, 4, 3>(layer, xs, strip.clone(), first, y, into, near),
                        3 => rows::<L, 3, 4>(layer, xs, strip.clone(), first, y, into, near),
                        2 => rows::<L, 2, 4>(layer, xs, strip.clone(), first, y, into, near),
                        _ => rows::<L, 1, 4>(layer, xs, strip.clone(), first, y, into, near),
                    }
                }
            } else {
                for row in 0..count {
                    // SAFETY: as above.
                    unsafe { one_row::<L>(layer, xs, count, row, strip.clone(), first, y, into) };
                    first += 1;
                }
            }
        }
    }
}

/// M rows against a strip of panels, P at a time where the registers allow.
#[inline(always)]
unsafe fn rows<L: PairLanes, const M: usize, const P: usize>(
    layer: &PairLinear,
    xs: &[u32],
    strip: Range<usize>,
    first_row: usize,
    y: &Disjoint<'_, f32>,
    into: Output,
    mut ahead: Ahead,
) {
    let mut panel = strip.start;
    // SAFETY: the caller enables what L needs.
    unsafe {
        if M * P <= L::ACCUMULATORS {
            while panel + P <= strip.end {
                kernel::<L, M, P>(layer, panel, xs, first_row, y, into, ahead);
                panel += P;
                ahead.next = ahead.next.wrapping_add(ahead.walk * layer.pairs);
            }
        }
        if P == 4 && M * 3 <= L::ACCUMULATORS && panel + 3 == strip.end {
            kernel::<L, M, 3>(layer, panel, xs, first_row, y, into, ahead);
            panel += 3;
        }
        while panel < strip.end {
            kernel::<L, M, 1>(layer, panel, xs, first_row, y, into, ahead);
            panel += 1;
            ahead.next = ahead.next.wrapping_add(ahead.walk * layer.pairs);
        }
    }
}

/// M rows against the P panels from `panel` on.
#[inline(always)]
unsafe fn kernel<L: PairLanes, const M: usize, const P: usize>(
    layer: &PairLinear,
    panel: usize,
    xs: &[u32],
    first_row: usize,
    y: &Disjoint<'_, f32>,
    into: Output,
    ahead: Ahead,
) {
    let pairs = layer.pairs;
    let panels: [&[Pair32]; P] =
        std::array::from_fn(|p| &layer.panels[(panel + p) * pairs..][..pairs]);
    // SAFETY: the caller enables what L needs.
    let acc = unsafe { accumulate([[L::zero(); P]; M], xs, panels, ahead) };
    unroll!(M, R => unroll!(P, AT => {
        // SAFETY: the caller enables what L needs, and no other thread has this panel's outputs.
        unsafe { finish(layer, panel + AT, first_row + R, acc[R][AT], y, into) };
    }));
}

/// One row of a block of `count` that does not fit into the registers.
#[inline(always)]
unsafe fn one_row<L: PairLanes>(
    layer: &PairLinear,
    xs: &[u32],
    count: usize,
    row: usize,
    strip: Range<usize>,
    y_row: usize,
    y: &Disjoint<'_, f32>,
    into: Output,
) {
    for panel in strip {
        let weights = &layer.panels[panel * layer.pairs..][..layer.pairs];
        // SAFETY: the caller enables what L needs, and no other thread has this panel's outputs.
        unsafe {
            let mut acc = L::zero();
            for (weights, xs) in weights.chunks(RUN).zip(xs.chunks_exact(RUN * count)) {
                for (w, x) in weights.iter().zip(&xs[row * RUN..]) {
                    acc = acc.dot(L::row(w), *x);
                }
            }
            finish(layer, panel, y_row, acc, y, into);
        }
    }
}

/// Stores one row's sums of one panel.
#[inline(always)]
unsafe fn finish<L: PairLanes>(
    layer: &PairLinear,
    panel: usize,
    row: usize,
    acc: L,
    y: &Disjoint<'_, f32>,
    into: Output,
) {
    let mut sums = Lane32::ZERO;
    // SAFETY: the caller enables what L needs.
    unsafe { acc.store(&mut sums) };
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
