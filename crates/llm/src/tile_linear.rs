//! Linear layers for inference by tile registers; a few rows by lanes, which read the weights faster.
#![allow(unsafe_code)]

use std::ops::Range;

use crate::ops::pairing::dense_tiles;
use crate::ops::panels::Mat;
use crate::ops::swiglu;
use crate::ops::tile_lanes::{self, FEW};
use crate::ops::tile_product::{self, TILE};
use crate::ops::tiles::{self, Call, Tiles};
use crate::pair_linear::{PairLinear, keep_couple};
use crate::pairs::Pair32;
use crate::share::Disjoint;
use crate::streaming::written;
use crate::strips::{Output, PACK_TOGETHER, PANEL};
use crate::tape::TapeRows;
use crate::team::{Team, part};
use crate::vector::Lane32;

/// Rows that are multiplied with a panel while it is in the cache.
pub(crate) const CHUNK: usize = 256;
/// Rows of a call.
const ROWS: usize = 2 * tiles::SIDE;
/// Panels that a few rows are multiplied with at once, at most.
const MOST: usize = 4;

impl PairLinear<'_> {
    pub(crate) fn apply_by_tiles(
        &self,
        team: &Team,
        x: &[f32],
        y: &mut [f32],
        into: Output,
        scratch: &mut Vec<Pair32>,
    ) {
        pack_tiles(team, x, self.inputs, scratch);
        self.apply_tiles(team, scratch, y, into);
    }

    /// y (R, outputs) from rows in tiles.
    pub(crate) fn apply_tiles(&self, team: &Team, xs: &[Pair32], y: &mut [f32], into: Output) {
        let rows = y.len() / self.outputs;
        let depth = self.pairs / tiles::SIDE;
        let block = depth * TILE;
        let xs: &[u32] = bytemuck::cast_slice(xs);
        assert!(xs.len() >= rows.div_ceil(tiles::SIDE) * block, "rows beyond the packed ones");
        if rows == 0 {
            return;
        }
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
            next_rows: 0,
            next: b.wrapping_add(lanes * panels),
            quarter: lanes / 4,
            // So many lines of each quarter of a panel at each tile: all by the last row.
            walk: (PANEL / 4).div_ceil(rows.div_ceil(ROWS)),
        }
    }

    /// As `swiglu`, in tiles.
    pub(crate) fn swiglu_by_tiles(
        &self,
        team: &Team,
        x: &[f32],
        tape: Option<TapeRows<'_>>,
        scratch: &mut Vec<Pair32>,
        act: &mut Vec<Pair32>,
    ) {
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
            swiglu::forward_near(sums, PANEL, product);
            if let Some(tape) = tape {
                for (r, both) in sums.chunks_exact(2 * PANEL).enumerate() {
                    // SAFETY: no other thread has this couple's outputs.
                    unsafe { keep_couple(tape, first + r, couple, self.outputs / 2, both) };
                }
            }
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
                if tape.is_some() {
                    written();
                }
            });
            return;
        }
        team.run(&|thread| {
            let mine = part(couples, thread, threads);
            let registers = Tiles::set_up();
            let mut sums = [Lane32::ZERO; 2 * ROWS];
            for chunk in (0..rows).step_by(CHUNK).map(|start| start..(start + CHUNK).min(rows)) {
                for couple in mine.clone() {
                    let mut ahead = [0, 1].map(|i| self.ahead(2 * couple + i, 2, chunk.len()));
                    for first in chunk.clone().step_by(ROWS) {
                        let count = ROWS.min(chunk.end - first);
                        let start = sums.as_mut_ptr().cast::<f32>();
                        for (i, ahead) in ahead.iter_mut().enumerate() {
                            let c = start.wrapping_add(i * PANEL);
                            let a = xs[first / tiles::SIDE * block..].as_ptr();
                            let call = Call { a, c, c_rows: 2 * PANEL, ..*ahead };
                            let walked = ahead.depth * ahead.walk * tiles::SIDE;
                            ahead.next = ahead.next.wrapping_add(walked);
                            // SAFETY: as in `apply_tiles`; there are sums for both panels.
                            unsafe { tile_product::multiply(&registers, call, count) };
                        }
                        let sums: &[f32] = bytemuck::cast_slice(&sums);
                        finish(couple, first, &sums[..count * 2 * PANEL]);
                    }
                }
            }
            if tape.is_some() {
                written();
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
