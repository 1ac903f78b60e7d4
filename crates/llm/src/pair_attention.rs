//! Attention of new tokens to keys and values cached in bf16.
//!
//! Scores come first, over all blocks; then weights, against each query's true maximum; then
//! values, in the order of positions. Where the shared blocks of a [`Tile`] end changes which queries
//! go together and nothing else: a token's result is the same to the bit alone or among others.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use crate::cache::{BLOCK, BlockPool};
use crate::cached_attention::softmax;
use crate::pairs::{
    Ahead, Pair32, PairLanes, Width, accumulate, by_pair_width, pack_rows, packed_len,
};
use crate::query_tile::{Heads, Tile, chunks, put};
use crate::share::Disjoint;
use crate::tile_attention;
use crate::vector::{Lane32, unroll};

/// Queries of a tile at most: as many as a kernel takes at once.
pub(crate) fn most_queries(dim: usize) -> usize {
    if tile_attention::takes(dim) { tile_attention::QUERIES } else { 12 }
}

/// Buffers of [`attend`].
#[derive(Default)]
pub(crate) struct PairScratch {
    pub(crate) rows: Vec<f32>,
    packed: Vec<u32>,
    pub(crate) tiles: Vec<Pair32>,
    pub(crate) scores: Vec<Lane32>,
    pub(crate) sums: Vec<Lane32>,
}

/// Writes the tile's rows and heads of out (R, queries · dim) from rows (R, `heads.row`) whose
/// first channels are the rotated queries; keys and values of the same tokens are already in
/// the cache. No other thread has these rows of this head.
pub(crate) fn attend(
    pool: &BlockPool,
    layer: usize,
    tile: &Tile<'_>,
    heads: Heads,
    rows: &[f32],
    out: &Disjoint<'_, f32>,
    scratch: &mut PairScratch,
) {
    if tile_attention::takes(heads.dim) {
        tile_attention::attend(pool, layer, tile, heads, rows, out, scratch);
    } else {
        attend_by_width(Width::best(), pool, layer, tile, heads, rows, out, scratch);
    }
}

by_pair_width! {
    fn attend_by_width(
        pool: &BlockPool, layer: usize, tile: &Tile<'_>, heads: Heads, rows: &[f32],
        out: &Disjoint<'_, f32>, scratch: &mut PairScratch,
    ) = attend_impl
}

#[inline(always)]
unsafe fn attend_impl<L: PairLanes>(
    pool: &BlockPool,
    layer: usize,
    tile: &Tile<'_>,
    heads: Heads,
    rows: &[f32],
    out: &Disjoint<'_, f32>,
    scratch: &mut PairScratch,
) {
    let dim = heads.dim;
    let count = tile.queries.len();
    let blocks = tile.blocks(0..count);
    let PairScratch { rows: gathered, packed, scores, sums, .. } = scratch;

    tile.gather(heads, rows, 1.0, gathered);
    // (count, blocks) lanes.
    scores.resize(count * blocks, Lane32::ZERO);
    let width = Width::best();
    // The shared blocks with all queries, then each context's own.
    for part in tile.parts() {
        for (first, take) in chunks(part.queries.clone(), L::ACCUMULATORS) {
            packed.resize(packed_len(take, dim), 0);
            pack_rows(width, &gathered[first * dim..(first + take) * dim], take, packed);
            for block in part.blocks.clone() {
                let (keys, _) = pool.pairs(part.table[block], layer, tile.key_head);
                // SAFETY: the caller enables what L needs.
                unsafe {
                    let to = Place { lanes: scores, first, stride: blocks, at: block };
                    products::<L>(take, packed, keys, false, to);
                }
            }
        }
    }

    let mut inverse = [0.0; tile_attention::QUERIES];
    let rows = scores.chunks_exact_mut(blocks).zip(&tile.queries);
    for ((scores, q), inverse) in rows.zip(&mut inverse) {
        *inverse = 1.0 / softmax(bytemuck::cast_slice_mut(scores), q.limit);
    }

    // (count, ⌈dim/32⌉) lanes.
    let value_lanes = dim.div_ceil(BLOCK);
    sums.clear();
    sums.resize(count * value_lanes, Lane32::ZERO);
    for part in tile.parts() {
        let tokens = part.blocks.len() * BLOCK;
        for (first, take) in chunks(part.queries.clone(), L::ACCUMULATORS) {
            gathered.clear();
            for query in first..first + take {
                let scores = &scores[query * blocks..(query + 1) * blocks][part.blocks.clone()];
                gathered.extend_from_slice(bytemuck::cast_slice(scores));
            }
            packed.resize(packed_len(take, tokens), 0);
            pack_rows(width, gathered, take, packed);
            for lane in 0..value_lanes {
                let weights = packed.chunks_exact(take * BLOCK / 2);
                for (block, weights) in part.blocks.clone().zip(weights) {
                    let (_, values) = pool.pairs(part.table[block], layer, tile.key_head);
                    let values = &values[lane * BLOCK / 2..(lane + 1) * BLOCK / 2];
                    // SAFETY: the caller enables what L needs.
                    unsafe {
                        let to = Place { lanes: sums, first, stride: value_lanes, at: lane };
                        products::<L>(take, weights, values, true, to);
                    }
                }
            }
        }
    }
    for (r, q) in tile.queries.iter().enumerate() {
        put(*q, heads, &sums[r * value_lanes..], 1, inverse[r], out);
    }
}

/// Where sums go: lane `at` of rows `first`… that are `stride` lanes apart.
struct Place<'a> {
    lanes: &'a mut [Lane32],
    first: usize,
    stride: usize,
    at: usize,
}

/// So many packed rows against one panel.
#[inline(always)]
unsafe fn products<L: PairLanes>(
    rows: usize,
    packed: &[u32],
    panel: &[Pair32],
    add: bool,
    to: Place<'_>,
) {
    macro_rules! dispatch {
        ($($m:literal)*) => {
            match rows {
                $($m if $m <= L::ACCUMULATORS => {
                    // SAFETY: the caller enables what L needs.
                    unsafe { product::<L, $m>(packed, panel, add, to) }
                })*
                _ => unreachable!("chunks of other sizes are not made"),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 8 12);
}

#[inline(always)]
unsafe fn product<L: PairLanes, const M: usize>(
    packed: &[u32],
    panel: &[Pair32],
    add: bool,
    to: Place<'_>,
) {
    let Place { lanes, first, stride, at } = to;
    let mut acc = [[unsafe { L::zero() }]; M];
    if add {
        unroll!(M, R => {
            // SAFETY: the caller enables what L needs.
            acc[R][0] = unsafe { L::load(&lanes[(first + R) * stride + at]) };
        });
    }
    // SAFETY: as above.
    let acc = unsafe { accumulate(acc, packed, [panel], Ahead::NOTHING) };
    // SAFETY: as above.
    unroll!(M, R => unsafe { acc[R][0].store(&mut lanes[(first + R) * stride + at]) });
}
