//! Attention to cached pairs by tile registers: as `pair_attention`, which decides what goes together.
//!
//! A block of keys is two tiles of the inner dimension for a head of 64, a block of values one for
//! every 32 channels. A query's sums do not depend on the others of its call, to the bit.
#![allow(unsafe_code)]

use crate::attention_weights::{Strides, weights_of};
use crate::cache::{BLOCK, BlockPool};
use crate::ops::lanes::fetch;
use crate::ops::pairing::dense_tiles;
use crate::ops::panels::Mat;
use crate::ops::tile_lanes::FEW;
use crate::ops::tile_product::{INNER, TILE, multiply};
use crate::ops::tiles::{self, Call, SIDE, Tiles};
use crate::pair_attention::PairScratch;
use crate::pairs::Pair32;
use crate::query_tile::{Heads, Tile, put};
use crate::share::Disjoint;
use crate::vector::{LINE, Lane32};

/// Queries of one call.
pub(crate) const QUERIES: usize = 2 * SIDE;

/// Lanes of a block's scores. One more than there are queries: at a distance of a page those of a query
/// would compete for the same few places of the first cache.
const BLOCK_LANES: usize = QUERIES + 1;
/// Blocks whose values are multiplied in one go.
const TOGETHER: usize = 32;

/// Whether heads of this width have whole tiles, and the processor multiplies these.
pub(crate) fn takes(dim: usize) -> bool {
    dim.is_multiple_of(INNER) && tiles::available()
}

/// As `pair_attention::attend`.
pub(crate) fn attend(
    pool: &BlockPool,
    layer: usize,
    tile: &Tile<'_>,
    heads: Heads,
    rows: &[f32],
    out: &Disjoint<'_, f32>,
    scratch: &mut PairScratch,
) {
    let registers = Tiles::set_up();
    let dim = heads.dim;
    let count = tile.queries.len();
    let blocks = tile.blocks(0..count);
    let PairScratch { rows: gathered, tiles, scores, sums, .. } = scratch;
    // Weights are powers of two.
    tile.gather(heads, rows, std::f32::consts::LOG2_E, gathered);
    // (blocks, BLOCK_LANES), a lane for every query.
    scores.resize(blocks * BLOCK_LANES, Lane32::ZERO);
    for part in tile.parts() {
        let (first, n) = (part.queries.start, part.queries.len());
        let queries = pack(Mat::new(&gathered[first * dim..][..n * dim], n, dim), tiles);
        for block in part.blocks.clone() {
            let (keys, _) = pool.pairs(part.table[block], layer, tile.key_head);
            if block + 1 < part.blocks.end {
                let (then, _) = pool.pairs(part.table[block + 1], layer, tile.key_head);
                let lines = bytemuck::cast_slice::<_, f32>(then).chunks_exact(LINE);
                lines.for_each(|line| fetch(line.as_ptr()));
            }
            let scores = &mut scores[block * BLOCK_LANES..][..QUERIES];
            some_rows(scores, first, n, count, false, |sums| {
                product(&registers, &queries, 0, keys, false, sums, n);
            });
        }
    }
    // (blocks, QUERIES) lines, and those that a tile which begins with one of the last rows covers.
    tiles.resize((2 * blocks + 1) * TILE / BLOCK, Pair32::ZERO);
    let seen: &mut [u32] = bytemuck::cast_slice_mut(tiles);
    let mut inverse = [0.0; QUERIES];
    let strides = Strides { query: 1, block: BLOCK_LANES, weights: 2 * SIDE };
    // SAFETY: processors with tile registers have AVX-512 with bf16.
    unsafe { weights_of(&tile.queries, scores, blocks, strides, seen, &mut inverse) };
    // (dim/32, QUERIES) lanes.
    sums.clear();
    sums.resize(dim / BLOCK * QUERIES, Lane32::ZERO);
    for part in tile.parts() {
        let (first, n) = (part.queries.start, part.queries.len());
        for (lane, sums) in sums.chunks_exact_mut(QUERIES).enumerate() {
            let values = |block: usize| {
                let (_, values) = pool.pairs(part.table[block], layer, tile.key_head);
                &values[lane * SIDE..(lane + 1) * SIDE]
            };
            some_rows(sums, first, n, count, true, |sums| {
                if n > SIDE {
                    let seen = &seen[part.blocks.start * 2 * TILE + first * SIDE..];
                    weighted(&registers, seen, part.blocks.clone().map(values), sums);
                    return;
                }
                for block in part.blocks.clone() {
                    let lanes = &seen[block * 2 * TILE + first * SIDE..];
                    let rows = Packed { lanes, depth: 1 };
                    product(&registers, &rows, 0, values(block), true, sums, n);
                }
            });
        }
    }
    for (r, (q, inverse)) in tile.queries.iter().zip(inverse).enumerate() {
        put(*q, heads, &sums[r..], QUERIES, inverse, out);
    }
}

/// Calls `job` with lanes of some of the queries and room behind them, as products of whole tiles
/// write: where others' would be written, on a copy.
fn some_rows(
    lanes: &mut [Lane32],
    first: usize,
    n: usize,
    of: usize,
    keep: bool,
    job: impl FnOnce(&mut [Lane32]),
) {
    if n <= FEW || n == of {
        return job(&mut lanes[first..]);
    }
    let mut own = [Lane32::ZERO; QUERIES];
    if keep {
        own[..n].copy_from_slice(&lanes[first..first + n]);
    }
    job(&mut own);
    lanes[first..first + n].copy_from_slice(&own[..n]);
}

/// Rows in tiles.
struct Packed<'a> {
    lanes: &'a [u32],
    /// Tiles of the inner dimension.
    depth: usize,
}

/// Packs up to [`QUERIES`] rows of whole tiles.
fn pack<'a>(rows: Mat<'_>, tiles: &'a mut Vec<Pair32>) -> Packed<'a> {
    let depth = rows.cols / INNER;
    let blocks = rows.rows.div_ceil(SIDE);
    tiles.resize(blocks * depth * TILE / BLOCK, Pair32::ZERO);
    let out: &mut [f32] = bytemuck::cast_slice_mut(tiles);
    for (block, out) in out.chunks_exact_mut(depth * TILE).enumerate() {
        dense_tiles(rows.some(block * SIDE, SIDE), out);
    }
    Packed { lanes: bytemuck::cast_slice(tiles), depth }
}

/// sums (n, 32) = or += the left rows from tile `at` of the inner dimension on · `panel`.
fn product(
    registers: &Tiles,
    left: &Packed<'_>,
    at: usize,
    panel: &[Pair32],
    add: bool,
    sums: &mut [Lane32],
    n: usize,
) {
    let depth = panel.len() / SIDE;
    let a_rows = left.depth * TILE;
    assert!(
        n <= QUERIES && at + depth <= left.depth && left.lanes.len() >= n.div_ceil(SIDE) * a_rows,
        "rows and panel disagree"
    );
    let written = if n <= FEW { n } else { n.next_multiple_of(SIDE) };
    assert!(sums.len() >= written, "sums outside their slice");
    let c = sums.as_mut_ptr().cast::<f32>();
    let b = panel.as_ptr().cast::<u32>();
    let a = left.lanes[at * TILE..].as_ptr();
    let call = Call {
        depth,
        a,
        a_rows,
        b,
        c,
        c_rows: BLOCK,
        add,
        c_next: std::ptr::null(),
        next_rows: 0,
        next: b,
        quarter: 0,
        walk: 1,
    };
    // SAFETY: both blocks of rows have `depth` tiles from `at` on, as was just checked; the panel
    // has as many, and there are sums for two blocks.
    unsafe { multiply(registers, call, n) };
}

/// sums (32, 32) += the left rows · the panels, a tile deep each. Rows lie in tiles, those of the first
/// panel, then those of the next.
fn weighted<'p>(
    registers: &Tiles,
    mut rows: &[u32],
    panels: impl Iterator<Item = &'p [Pair32]>,
    sums: &mut [Lane32],
) {
    assert!(sums.len() >= QUERIES, "sums outside their slice");
    let mut panels = panels.peekable();
    while panels.peek().is_some() {
        let mut list = [std::ptr::null(); TOGETHER + 1];
        let mut depth = 0;
        for panel in panels.by_ref().take(TOGETHER) {
            assert!(panel.len() >= SIDE, "a shorter panel");
            list[depth] = panel.as_ptr().cast::<u32>();
            depth += 1;
        }
        list[depth] = list[0];
        let (these, rest) = rows.split_at(rows.len().min(depth * 2 * TILE));
        assert!(these.len() == depth * 2 * TILE, "rows outside their slice");
        // SAFETY: rows, panels and sums are there, as was just checked.
        unsafe {
            let (a, c) = (these.as_ptr(), sums.as_mut_ptr().cast::<f32>());
            tiles::multiply_list(registers, a, &list[..=depth], c, BLOCK);
        }
        rows = rest;
    }
}
