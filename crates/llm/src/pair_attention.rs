//! Attention of new tokens to keys and values cached in bf16.
//!
//! Scores come first, over all blocks; then weights, against each query's true maximum; then
//! values, in the order of positions. Where the shared blocks of a [`Tile`] end changes which queries
//! go together and nothing else: a token's result is the same to the bit alone or among others.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use crate::attention_weights::{ROWS, Strides, weights_of};
use crate::cache::{BLOCK, BlockPool};
use crate::cached_attention::softmax;
use crate::ops::lanes::fetch;
use crate::pairs::{Pair32, PairLanes, Width, by_pair_width, pack_rows, packed_len};
use crate::query_tile::{Heads, Tile, chunks, put};
use crate::share::Disjoint;
use crate::strips::{Ahead, RUN, accumulate};
use crate::tile_attention;
use crate::vector::{LINE, Lane32, unroll};

/// Queries of a tile at most without tile registers: as many as a kernel takes at once.
const MOST: usize = 12;
/// Blocks whose values are added in one go.
const TOGETHER: usize = 32;

/// Queries of a tile at most.
pub(crate) fn most_queries(dim: usize) -> usize {
    if tile_attention::takes(dim) { tile_attention::QUERIES } else { MOST }
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

    // Natively, weights are powers of two.
    let scale = if L::NATIVE { std::f32::consts::LOG2_E } else { 1.0 };
    tile.gather(heads, rows, scale, gathered);
    // (whole groups of queries, blocks) lanes.
    let lines = count.next_multiple_of(ROWS);
    scores.resize(lines * blocks, Lane32::ZERO);
    let width = Width::best();
    // The shared blocks with all queries, then each context's own.
    for part in tile.parts() {
        for (first, take) in chunks(part.queries.clone(), L::ACCUMULATORS) {
            packed.resize(packed_len(take, dim), 0);
            pack_rows(width, &gathered[first * dim..(first + take) * dim], take, packed);
            for block in part.blocks.clone() {
                let keys = |block: usize| pool.pairs(part.table[block], layer, tile.key_head).0;
                if block + 1 < part.blocks.end {
                    for row in keys(block + 1) {
                        fetch(std::ptr::from_ref(row).cast());
                        fetch(row.0[LINE..].as_ptr().cast());
                    }
                }
                let to = Place { lanes: scores, first, stride: blocks, at: block };
                // SAFETY: the caller enables what L needs.
                unsafe { products::<L>(take, packed, keys(block), to) };
            }
        }
    }

    // (blocks, lines, 16) pairs.
    packed.resize(blocks * lines * RUN, 0);
    let mut inverse = [0.0; MOST];
    if L::NATIVE {
        let strides = Strides { query: blocks, block: 1, weights: lines };
        // SAFETY: the caller enables what L needs, which is that.
        unsafe { weights_of(&tile.queries, scores, blocks, strides, packed, &mut inverse) };
    } else {
        let (out, _) = packed.as_chunks_mut::<RUN>();
        for (r, q) in tile.queries.iter().enumerate() {
            let scores = &mut scores[r * blocks..(r + 1) * blocks];
            inverse[r] = 1.0 / softmax(bytemuck::cast_slice_mut(scores), q.limit);
            for (scores, out) in scores.iter().zip(out[r..].iter_mut().step_by(lines)) {
                // SAFETY: as above.
                unsafe { L::convert(&scores.0, out) };
            }
        }
    }

    // (count, ⌈dim/32⌉) lanes.
    let value_lanes = dim.div_ceil(BLOCK);
    sums.clear();
    sums.resize(count * value_lanes, Lane32::ZERO);
    for part in tile.parts() {
        for (first, take) in chunks(part.queries.clone(), L::ACCUMULATORS) {
            for lane in 0..value_lanes {
                let mut block = part.blocks.start;
                while block < part.blocks.end {
                    let some = (part.blocks.end - block).min(TOGETHER);
                    let mut values: [&[Pair32]; TOGETHER] = [&[]; TOGETHER];
                    for (i, values) in values[..some].iter_mut().enumerate() {
                        let of = pool.pairs(part.table[block + i], layer, tile.key_head).1;
                        *values = &of[lane * RUN..(lane + 1) * RUN];
                    }
                    let weights = Weights {
                        packed: &packed[(block * lines + first) * RUN..],
                        stride: lines * RUN,
                    };
                    let to = Place { lanes: sums, first, stride: value_lanes, at: lane };
                    // SAFETY: as above.
                    unsafe { weights.add::<L>(take, &values[..some], to) };
                    block += some;
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

/// Calls a function for a constant number of rows.
macro_rules! dispatch {
    ($rows:expr, $call:ident($($argument:expr),*)) => {
        dispatch!(@ $rows, $call, ($($argument),*), 1 2 3 4 5 6 8 12)
    };
    (@ $rows:expr, $call:ident, $arguments:tt, $($m:literal)*) => {
        match $rows {
            // SAFETY: the caller enables what L needs.
            $($m if $m <= L::ACCUMULATORS => unsafe { dispatch!(% $call, $m, $arguments) },)*
            _ => unreachable!("chunks of other sizes are not made"),
        }
    };
    (% $call:ident, $m:literal, ($($argument:expr),*)) => { $call::<L, $m>($($argument),*) };
}

/// So many packed rows by one panel.
#[inline(always)]
unsafe fn products<L: PairLanes>(rows: usize, packed: &[u32], panel: &[Pair32], to: Place<'_>) {
    dispatch!(rows, product(packed, panel, to));
}

#[inline(always)]
unsafe fn product<L: PairLanes, const M: usize>(packed: &[u32], panel: &[Pair32], to: Place<'_>) {
    let Place { lanes, first, stride, at } = to;
    // SAFETY: the caller enables what L needs.
    let acc = unsafe { accumulate([[L::zero()]; M], packed, [panel], Ahead::NOTHING) };
    // SAFETY: as above.
    unroll!(M, R => unsafe { acc[R][0].store(&mut lanes[(first + R) * stride + at]) });
}

/// Weights of some queries: a line each, and `stride` pairs from one block to the next.
#[derive(Clone, Copy)]
struct Weights<'a> {
    packed: &'a [u32],
    stride: usize,
}

impl Weights<'_> {
    /// Adds the values of some blocks, weighted, to the sums of so many queries.
    #[inline(always)]
    unsafe fn add<L: PairLanes>(self, queries: usize, values: &[&[Pair32]], to: Place<'_>) {
        dispatch!(queries, weighted(self, values, to));
    }
}

#[inline(always)]
unsafe fn weighted<L: PairLanes, const M: usize>(
    weights: Weights<'_>,
    values: &[&[Pair32]],
    to: Place<'_>,
) {
    let Place { lanes, first, stride, at } = to;
    let Weights { packed, stride: further } = weights;
    assert!(
        values.iter().all(|values| values.len() == RUN)
            && packed.len() >= (values.len() - 1) * further + M * RUN,
        "weights and values of as many blocks"
    );
    let mut acc = [unsafe { L::zero() }; M];
    // SAFETY: the caller enables what L needs.
    unroll!(M, R => acc[R] = unsafe { L::load(&lanes[(first + R) * stride + at]) });
    // One loop: of two, the compiler would carry the sums through memory.
    for k in 0..values.len() * RUN {
        let (block, step) = (k / RUN, k % RUN);
        // SAFETY: as was checked.
        let row = unsafe { L::row(values.get_unchecked(block).get_unchecked(step)) };
        unroll!(M, R => {
            // SAFETY: as was checked.
            acc[R] = unsafe {
                acc[R].dot(row, *packed.get_unchecked(block * further + R * RUN + step))
            };
        });
    }
    // SAFETY: as above.
    unroll!(M, R => unsafe { acc[R].store(&mut lanes[(first + R) * stride + at]) });
}
