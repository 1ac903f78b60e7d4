//! y = x Wᵀ + b with the weight in bf16, packed once into panels of pairs; the activations are
//! rounded to bf16, sums are f32. A sum runs over the pairs of inputs in order, whatever the number
//! of rows: a row's result does not depend on its batch, to the bit.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use std::ops::Range;

use crate::large_pages::reserve;
use crate::ops::pairing::dense_tiles;
use crate::ops::panels::{Mat, Precision, Rounding, pack_block};
use crate::ops::swiglu;
use crate::ops::tile_lanes::{self, FEW};
use crate::ops::tile_product::{self, TILE};
use crate::ops::tiles::{self, Call, Tiles};
use crate::pairs::{
    Ahead, Pair32, PairLanes, RUN, Width, accumulate, by_pair_width, pack_rows, packed_len,
};
use crate::panel_linear::Output;
use crate::share::Disjoint;
use crate::team::{Team, part};
use crate::vector::{Lane32, unroll};

/// Outputs of one panel.
const PANEL: usize = 32;
/// At most so many panels that all rows are multiplied with before the next ones are read.
const STRIP: usize = 4;
/// Rows of a panel that are asked for ahead of their use.
const AHEAD: usize = 24;
/// Blocks of so many rows ask for the strip behind theirs.
const ASKING: usize = 6;
/// Rows that tile registers multiply with a panel while it is in the cache.
const CHUNK: usize = 256;
/// Rows of a call of tile registers.
const ROWS: usize = 2 * tiles::SIDE;
/// Panels that a few rows are multiplied with at once, at most.
const MOST: usize = 4;
/// From this many rows on, packing them is shared among the threads.
const PACK_TOGETHER: usize = 24;

/// A linear layer for inference.
pub(crate) struct PairLinear {
    inputs: usize,
    outputs: usize,
    /// Pairs of inputs; whole tiles where `tiles`.
    pairs: usize,
    /// (⌈outputs/32⌉, pairs, 32); zero beyond the last input and output.
    panels: Vec<Pair32>,
    /// ⌈outputs/32⌉ panels.
    bias: Option<Vec<Lane32>>,
    width: Width,
    /// Whether tile registers multiply, for any number of rows: a row's sum is the same to the bit.
    tiles: bool,
    /// Panels of the first half of the outputs in turn with those of the second, for [`Self::swiglu`].
    paired: bool,
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

    fn apply_by_tiles(
        &self,
        team: &Team,
        x: &[f32],
        y: &mut [f32],
        into: Output,
        scratch: &mut Vec<Pair32>,
    ) {
        pack_tiles(team, x, self.inputs, scratch);
        self.apply_packed(team, scratch, y, into);
    }

    /// y (R, outputs) from rows in tiles.
    pub(crate) fn apply_packed(&self, team: &Team, xs: &[Pair32], y: &mut [f32], into: Output) {
        assert!(!self.paired, "panels out of order");
        let rows = y.len() / self.outputs;
        let depth = self.pairs / tiles::SIDE;
        let block = depth * TILE;
        let xs: &[u32] = bytemuck::cast_slice(xs);
        assert!(xs.len() >= rows.div_ceil(tiles::SIDE) * block, "rows beyond the packed ones");
        let y = Disjoint::new(y);
        let (panels, threads) = (self.panels.len() / self.pairs, team.threads());
        if rows <= FEW {
            team.run(&|thread| self.few_rows(rows, xs, part(panels, thread, threads), &y, into));
            return;
        }
        team.run(&|thread| {
            let mine = part(panels, thread, threads);
            let registers = Tiles::set_up();
            let mut sums = [Lane32::ZERO; ROWS];
            let c = sums.as_mut_ptr().cast::<f32>();
            for chunk in (0..rows).step_by(CHUNK).map(|start| start..(start + CHUNK).min(rows)) {
                for panel in mine.clone() {
                    let mut ahead = self.ahead(panel, 1, chunk.len());
                    let column = panel * PANEL;
                    let width = PANEL.min(self.outputs - column);
                    for first in chunk.clone().step_by(ROWS) {
                        let count = ROWS.min(chunk.end - first);
                        let add = into == Output::Add;
                        let call = Call {
                            a: xs[first / tiles::SIDE * block..].as_ptr(),
                            c,
                            add: add || self.bias.is_some(),
                            c_next: c,
                            ..ahead
                        };
                        ahead.next = ahead.next.wrapping_add(depth * ahead.walk * tiles::SIDE);
                        // SAFETY: all blocks of the call's rows are packed, panels have whole
                        // tiles of pairs, and there are sums for two blocks; no other thread has
                        // this panel's outputs.
                        unsafe {
                            let to = y.start().add(first * self.outputs + column);
                            if add {
                                tile_product::copy(to, self.outputs, c, PANEL, count, width);
                            } else if self.bias.is_some() {
                                c.write_bytes(0, count * PANEL);
                            }
                            if let Some(bias) = &self.bias {
                                for at in 0..count * PANEL {
                                    *c.add(at) += bias[panel].0[at % PANEL];
                                }
                            }
                            tile_product::multiply(&registers, call, count);
                            tile_product::copy(c, PANEL, to, self.outputs, count, width);
                        }
                    }
                }
            }
        });
    }

    /// A call with a panel that asks for the `panels` behind it while it takes `rows` rows: without
    /// left rows and sums.
    fn ahead(&self, panel: usize, panels: usize, rows: usize) -> Call {
        let b = self.panels[panel * self.pairs..].as_ptr().cast::<u32>();
        let lanes = self.pairs * PANEL;
        Call {
            depth: self.pairs / tiles::SIDE,
            a: std::ptr::null(),
            a_rows: self.pairs / tiles::SIDE * TILE,
            b,
            c: std::ptr::null_mut(),
            c_rows: PANEL,
            add: false,
            c_next: std::ptr::null(),
            next: b.wrapping_add(lanes * panels),
            quarter: lanes / 4,
            // So many lines of each quarter of a panel at each tile: all by the last row.
            walk: (PANEL / 4).div_ceil(rows.div_ceil(ROWS)),
        }
    }

    /// silu(x gateᵀ) ⊙ (x upᵀ) of x (R, inputs), in tiles as the next layer's rows. Sums go from the
    /// registers through the nonlinearity without seeing the memory.
    pub(crate) fn swiglu(
        &self,
        team: &Team,
        x: &[f32],
        scratch: &mut Vec<Pair32>,
        act: &mut Vec<Pair32>,
    ) {
        assert!(self.paired && self.bias.is_none(), "not a pair of layers");
        let rows = x.len() / self.inputs;
        pack_tiles(team, x, self.inputs, scratch);
        let xs: &[u32] = bytemuck::cast_slice(scratch);
        let block = self.pairs / tiles::SIDE * TILE;
        let (couples, threads) = (self.outputs / (2 * PANEL), team.threads());
        let out_block = couples * TILE;
        act.resize(rows.div_ceil(tiles::SIDE) * out_block / PANEL, Pair32::ZERO);
        let act = Disjoint::new(bytemuck::cast_slice_mut(act));
        // Rows of [gate, up] of one couple of panels become tiles of the result.
        let finish = |couple: usize, first: usize, sums: &[f32]| {
            let mut product = [0.0; ROWS * PANEL];
            let rows = sums.len() / (2 * PANEL);
            let product = &mut product[..rows * PANEL];
            swiglu::forward(sums, PANEL, product);
            for (at, rows) in product.chunks(tiles::SIDE * PANEL).enumerate() {
                let place = (first / tiles::SIDE + at) * out_block + couple * TILE;
                // SAFETY: no other thread has this couple's tiles.
                let out = unsafe { act.part(place..place + TILE) };
                dense_tiles(Mat::new(rows, rows.len() / PANEL, PANEL), out);
            }
        };
        if rows <= FEW {
            team.run(&|thread| {
                let mine = part(couples, thread, threads);
                let mut couple = mine.start;
                while couple < mine.end {
                    let panels = tile_lanes::panels_at_once(rows);
                    let panels = if panels > 2 * (mine.end - couple) { 2 } else { panels };
                    let mut sums = [[Lane32::ZERO; MOST]; FEW];
                    let call = Call {
                        a: xs.as_ptr(),
                        c: sums.as_mut_ptr().cast::<f32>(),
                        c_rows: MOST * PANEL,
                        ..self.ahead(2 * couple, 1, rows)
                    };
                    // SAFETY: as in `few_rows`.
                    unsafe { tile_lanes::multiply_panels(call, rows, panels) };
                    for i in 0..panels / 2 {
                        let mut both = [[Lane32::ZERO; 2]; FEW];
                        for (both, sums) in both.iter_mut().zip(&sums) {
                            both.copy_from_slice(&sums[2 * i..2 * i + 2]);
                        }
                        let both: &[f32] = bytemuck::cast_slice(both.as_flattened());
                        finish(couple + i, 0, &both[..rows * 2 * PANEL]);
                    }
                    couple += panels / 2;
                }
            });
            return;
        }
        team.run(&|thread| {
            let mine = part(couples, thread, threads);
            let registers = Tiles::set_up();
            let mut sums = [Lane32::ZERO; 2 * ROWS];
            let c = sums.as_mut_ptr().cast::<f32>();
            for chunk in (0..rows).step_by(CHUNK).map(|start| start..(start + CHUNK).min(rows)) {
                for couple in mine.clone() {
                    let mut ahead = [0, 1].map(|i| self.ahead(2 * couple + i, 2, chunk.len()));
                    for first in chunk.clone().step_by(ROWS) {
                        let count = ROWS.min(chunk.end - first);
                        for (i, ahead) in ahead.iter_mut().enumerate() {
                            let c = c.wrapping_add(i * PANEL);
                            let a = xs[first / tiles::SIDE * block..].as_ptr();
                            let call = Call { a, c, c_rows: 2 * PANEL, c_next: c, ..*ahead };
                            let walked = ahead.depth * ahead.walk * tiles::SIDE;
                            ahead.next = ahead.next.wrapping_add(walked);
                            // SAFETY: as in `apply_packed`; there are sums for both panels.
                            unsafe { tile_product::multiply(&registers, call, count) };
                        }
                        let sums: &[f32] = bytemuck::cast_slice(&sums);
                        finish(couple, first, &sums[..count * 2 * PANEL]);
                    }
                }
            }
        });
    }

    /// One block of rows, in tiles, with some panels.
    fn few_rows(
        &self,
        rows: usize,
        xs: &[u32],
        panels: Range<usize>,
        y: &Disjoint<'_, f32>,
        into: Output,
    ) {
        let add = into == Output::Add || self.bias.is_some();
        let mut panel = panels.start;
        while panel < panels.end {
            let together = tile_lanes::panels_at_once(rows);
            let take = if panels.end - panel >= together { together } else { 1 };
            let column = panel * PANEL;
            let width = (take * PANEL).min(self.outputs - column);
            let mut sums = [[Lane32::ZERO; MOST]; FEW];
            for (r, sums) in sums[..rows].iter_mut().enumerate() {
                let start = r * self.outputs + column;
                let sums: &mut [f32] = bytemuck::cast_slice_mut(sums);
                if into == Output::Add {
                    // SAFETY: no other thread has these panels' outputs.
                    sums[..width].copy_from_slice(unsafe { y.part(start..start + width) });
                }
                if let Some(bias) = &self.bias {
                    let bias: &[f32] = bytemuck::cast_slice(&bias[panel..panel + take]);
                    sums.iter_mut().zip(bias).for_each(|(s, b)| *s += b);
                }
            }
            let call = Call {
                a: xs.as_ptr(),
                c: sums.as_mut_ptr().cast::<f32>(),
                c_rows: MOST * PANEL,
                add,
                ..self.ahead(panel, 1, rows)
            };
            // SAFETY: the block is packed, panels have whole tiles of pairs and follow each other,
            // and there are sums for all of them.
            unsafe { tile_lanes::multiply_panels(call, rows, take) };
            for (r, sums) in sums[..rows].iter().enumerate() {
                let start = r * self.outputs + column;
                // SAFETY: no other thread has these panels' outputs.
                let y = unsafe { y.part(start..start + width) };
                y.copy_from_slice(&bytemuck::cast_slice(sums)[..width]);
            }
            panel += take;
        }
    }
}

/// Packs rows (R, inputs) in tiles, one block of sixteen after the other.
fn pack_tiles(team: &Team, x: &[f32], inputs: usize, out: &mut Vec<Pair32>) {
    let rows = x.len() / inputs;
    let block = inputs.div_ceil(tile_product::INNER) * TILE;
    let blocks = rows.div_ceil(tiles::SIDE);
    // Rows beyond the last are multiplied as well, and left.
    out.resize(blocks * block / PANEL, Pair32::ZERO);
    let packed = Disjoint::new(bytemuck::cast_slice_mut(out));
    team.split(blocks, if rows < PACK_TOGETHER { usize::MAX } else { 2 }, &|which| {
        for b in which {
            let first = b * tiles::SIDE;
            let count = tiles::SIDE.min(rows - first);
            let x = &x[first * inputs..(first + count) * inputs];
            // SAFETY: blocks do not overlap, and no block is packed by two threads.
            let out = unsafe { packed.part(b * block..(b + 1) * block) };
            dense_tiles(Mat::new(x, count, inputs), out);
        }
    });
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
