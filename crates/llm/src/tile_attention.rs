//! Attention to cached pairs by tile registers: as `pair_attention`, which decides what goes together.
//!
//! A block of keys is two tiles of the inner dimension for a head of 64, a block of values one for
//! every 32 channels. A query's sums do not depend on the others of its call, to the bit.
#![allow(unsafe_code)]

use crate::cache::{BLOCK, BlockPool};
use crate::cached_attention::Heads;
use crate::ops::pairing::dense_tiles;
use crate::ops::panels::Mat;
use crate::ops::tile_product::{INNER, TILE, multiply};
use crate::ops::tiles::{self, Call, SIDE, Tiles};
use crate::pair_attention::{PairScratch, Tile, gather, parts, put, weights};
use crate::pairs::Pair32;
use crate::share::Disjoint;
use crate::vector::Lane32;

/// Queries of one call.
pub(crate) const QUERIES: usize = 2 * SIDE;

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
    let longest = tile.queries.iter().map(|q| q.limit).max().unwrap_or(0);
    let blocks = longest.div_ceil(BLOCK);
    let PairScratch { rows: gathered, tiles, scores, sums, .. } = scratch;
    gather(tile, heads, rows, gathered);
    // (count, blocks) lanes.
    scores.resize(count * blocks, Lane32::ZERO);
    for part in parts(tile).filter(|part| !part.blocks.is_empty()) {
        let (first, n) = (part.queries.start, part.queries.len());
        let queries = pack(Mat::new(&gathered[first * dim..][..n * dim], n, dim), tiles);
        for block in part.blocks.clone() {
            let (keys, _) = pool.pairs(part.table[block], layer, tile.key_head);
            let mut sums = [Lane32::ZERO; QUERIES];
            product(&registers, &queries, 0, keys, false, &mut sums, n);
            for (r, sum) in sums[..n].iter().enumerate() {
                scores[(first + r) * blocks + block] = *sum;
            }
        }
    }
    let inverse = weights(tile, blocks, scores);
    // (count, dim/32) lanes.
    let lanes = dim / BLOCK;
    sums.clear();
    sums.resize(count * lanes, Lane32::ZERO);
    for part in parts(tile).filter(|part| !part.blocks.is_empty()) {
        let (first, n) = (part.queries.start, part.queries.len());
        let from = first * blocks + part.blocks.start;
        let seen: &[f32] = bytemuck::cast_slice(&scores[from..]);
        let seen = Mat::strided(seen, n, part.blocks.len() * BLOCK, blocks * BLOCK);
        let seen = pack(seen, tiles);
        for lane in 0..lanes {
            let mut own = [Lane32::ZERO; QUERIES];
            for (r, own) in own[..n].iter_mut().enumerate() {
                *own = sums[(first + r) * lanes + lane];
            }
            for (at, block) in part.blocks.clone().enumerate() {
                let (_, values) = pool.pairs(part.table[block], layer, tile.key_head);
                let values = &values[lane * SIDE..(lane + 1) * SIDE];
                product(&registers, &seen, at, values, true, &mut own, n);
            }
            for (r, own) in own[..n].iter().enumerate() {
                sums[(first + r) * lanes + lane] = *own;
            }
        }
    }
    put(tile, heads, sums, inverse, out);
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
    sums: &mut [Lane32; QUERIES],
    n: usize,
) {
    let depth = panel.len() / SIDE;
    let a_rows = left.depth * TILE;
    assert!(
        n <= QUERIES && at + depth <= left.depth && left.lanes.len() >= n.div_ceil(SIDE) * a_rows,
        "rows and panel disagree"
    );
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
        c_next: c,
        next: b,
        quarter: 0,
        walk: 1,
    };
    // SAFETY: both blocks of rows have `depth` tiles from `at` on, as was just checked; the panel
    // has as many, and there are sums for two blocks.
    unsafe { multiply(registers, call, n) };
}
