//! Attention of new tokens to keys and values cached in f32.
//!
//! Every sum runs over channels or positions in an order that depends on positions alone, so that
//! a token's result is the same to the bit whether it came alone or among others.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use crate::cache::{BLOCK, BlockPool};
use crate::ops::simd::{LANES, exp, max, sum_lanes, vectorised};
use crate::query_tile::{Heads, Part, Tile, chunks, put};
use crate::share::Disjoint;
use crate::vector::{Lane32, Lanes, by_width, unroll};

/// Queries of a tile at most: of eight contexts, where three query heads share a key/value head.
pub(crate) const QUERIES: usize = 24;

/// Buffers of [`attend`].
#[derive(Default)]
pub(crate) struct AttendScratch {
    rows: Vec<f32>,
    /// Channels of some queries, those of a channel side by side.
    queries: Vec<f32>,
    scores: Vec<Lane32>,
    sums: Vec<Lane32>,
}

by_width! {
    /// Writes the tile's rows and heads of out (R, queries · dim) from rows (R, `heads.row`) whose
    /// first channels are the rotated queries; keys and values of the same tokens are already in
    /// the cache. No other thread has these rows of this head.
    pub(crate) fn attend(
        pool: &BlockPool, layer: usize, tile: &Tile<'_>, heads: Heads, rows: &[f32],
        out: &Disjoint<'_, f32>, scratch: &mut AttendScratch,
    ) = attend_impl
}

#[inline(always)]
unsafe fn attend_impl<L: Lanes>(
    pool: &BlockPool,
    layer: usize,
    tile: &Tile<'_>,
    heads: Heads,
    rows: &[f32],
    out: &Disjoint<'_, f32>,
    scratch: &mut AttendScratch,
) {
    let dim = heads.dim;
    let count = tile.queries.len();
    let AttendScratch { rows: gathered, queries, scores, sums } = scratch;
    tile.gather(heads, rows, 1.0, gathered);
    let blocks = tile.blocks(0..count);
    // (count, blocks) lanes.
    scores.resize(count * blocks, Lane32::ZERO);
    for part in tile.parts() {
        for (first, take) in chunks(part.queries.clone(), L::ACCUMULATORS) {
            queries.resize(take * dim, 0.0);
            for (i, query) in gathered[first * dim..][..take * dim].chunks_exact(dim).enumerate() {
                for (slot, x) in queries.iter_mut().skip(i).step_by(take).zip(query) {
                    *slot = *x;
                }
            }
            let scores = Place { lanes: &mut scores[first * blocks..], stride: blocks };
            let keys = Blocks { pool, layer, head: tile.key_head, part: &part };
            // SAFETY: the caller enables what L needs.
            unsafe { keys.score::<L>(take, queries, dim, scores) };
        }
    }

    let mut inverse = [0.0; QUERIES];
    let rows = scores.chunks_exact_mut(blocks).zip(&tile.queries);
    for ((scores, q), inverse) in rows.zip(&mut inverse) {
        *inverse = 1.0 / softmax(bytemuck::cast_slice_mut(scores), q.limit);
    }

    // (count, 2 ⌈dim/32⌉) lanes: sums of even positions beside those of odd ones.
    let stride = 2 * dim.div_ceil(BLOCK);
    sums.clear();
    sums.resize(count * stride, Lane32::ZERO);
    for part in tile.parts() {
        // Two sums a query.
        for (first, take) in chunks(part.queries.clone(), (L::ACCUMULATORS / 2).max(1)) {
            let limit = tile.queries[first..first + take].iter().map(|q| q.limit).max();
            let weights = &scores[first * blocks..];
            let sums = Place { lanes: &mut sums[first * stride..], stride };
            let values = Blocks { pool, layer, head: tile.key_head, part: &part };
            // SAFETY: as above.
            unsafe { values.add::<L>(take, weights, blocks, limit.unwrap_or(0), sums) };
        }
    }
    for (r, (q, inverse)) in tile.queries.iter().zip(inverse).enumerate() {
        let sums = &mut sums[r * stride..(r + 1) * stride];
        for (even, odd) in sums.as_chunks_mut().0.iter_mut().map(|[even, odd]| (even, odd)) {
            even.0.iter_mut().zip(&odd.0).for_each(|(even, odd)| *even += odd);
        }
        put(*q, heads, sums, 2, inverse, out);
    }
}

/// Lanes of several queries, `stride` apart.
struct Place<'a> {
    lanes: &'a mut [Lane32],
    stride: usize,
}

/// Keys and values that some queries read together.
struct Blocks<'a> {
    pool: &'a BlockPool,
    layer: usize,
    head: usize,
    part: &'a Part<'a>,
}

/// Calls a method for a constant number of queries.
macro_rules! dispatch {
    ($queries:expr, $most:expr, $($q:literal: $call:expr),*) => {
        match $queries {
            // SAFETY: the caller enables what L needs.
            $($q if $q <= $most => unsafe { $call },)*
            _ => unreachable!("chunks of other sizes are not made"),
        }
    };
}

impl Blocks<'_> {
    /// Keys and values of a block.
    #[inline(always)]
    fn of(&self, block: usize) -> (&[Lane32], &[Lane32]) {
        self.pool.head(self.part.table[block], self.layer, self.head)
    }

    /// Scores of queries whose channels lie side by side.
    #[inline(always)]
    unsafe fn score<L: Lanes>(self, take: usize, queries: &[f32], dim: usize, to: Place<'_>) {
        // Few queries: several blocks at once, so that their sums do not wait for each other.
        dispatch!(take, L::ACCUMULATORS,
            1: self.score_some::<L, 1, 4>(queries, dim, to),
            2: self.score_some::<L, 2, 2>(queries, dim, to),
            3: self.score_some::<L, 3, 2>(queries, dim, to),
            4: self.score_some::<L, 4, 2>(queries, dim, to),
            5: self.score_some::<L, 5, 1>(queries, dim, to),
            6: self.score_some::<L, 6, 1>(queries, dim, to),
            8: self.score_some::<L, 8, 1>(queries, dim, to),
            12: self.score_some::<L, 12, 1>(queries, dim, to)
        );
    }

    #[inline(always)]
    unsafe fn score_some<L: Lanes, const Q: usize, const N: usize>(
        self,
        queries: &[f32],
        dim: usize,
        mut to: Place<'_>,
    ) {
        let queries = &queries.as_chunks::<Q>().0[..dim];
        let mut block = self.part.blocks.start;
        while block < self.part.blocks.end {
            // SAFETY: the caller enables what L needs.
            unsafe {
                if block + N <= self.part.blocks.end {
                    self.score_blocks::<L, Q, N>(queries, block, &mut to);
                    block += N;
                } else {
                    self.score_blocks::<L, Q, 1>(queries, block, &mut to);
                    block += 1;
                }
            }
        }
    }

    /// Against N blocks from `block` on.
    #[inline(always)]
    unsafe fn score_blocks<L: Lanes, const Q: usize, const N: usize>(
        &self,
        queries: &[[f32; Q]],
        block: usize,
        to: &mut Place<'_>,
    ) {
        let keys: [&[Lane32]; N] = std::array::from_fn(|n| &self.of(block + n).0[..queries.len()]);
        let mut acc = [[unsafe { L::zero() }; N]; Q];
        for (d, q) in queries.iter().enumerate() {
            unroll!(N, B => {
                // SAFETY: the caller enables what L needs.
                let k = unsafe { L::load(&keys[B][d]) };
                // SAFETY: as above.
                unroll!(Q, I => acc[I][B] = unsafe { acc[I][B].add_scaled(k, q[I]) });
            });
        }
        // SAFETY: the caller enables what L needs.
        unroll!(Q, I => unroll!(N, B => {
            to.lanes[I * to.stride + block + B] = unsafe { acc[I][B].store() };
        }));
    }

    /// Adds values of positions below `limit`, weighted: `weights` has `blocks` lanes a query.
    #[inline(always)]
    unsafe fn add<L: Lanes>(
        self,
        take: usize,
        weights: &[Lane32],
        blocks: usize,
        limit: usize,
        to: Place<'_>,
    ) {
        dispatch!(take, (L::ACCUMULATORS / 2).max(1),
            1: self.add_some::<L, 1>(weights, blocks, limit, to),
            2: self.add_some::<L, 2>(weights, blocks, limit, to),
            3: self.add_some::<L, 3>(weights, blocks, limit, to),
            4: self.add_some::<L, 4>(weights, blocks, limit, to),
            5: self.add_some::<L, 5>(weights, blocks, limit, to),
            6: self.add_some::<L, 6>(weights, blocks, limit, to)
        );
    }

    #[inline(always)]
    unsafe fn add_some<L: Lanes, const Q: usize>(
        self,
        weights: &[Lane32],
        blocks: usize,
        limit: usize,
        to: Place<'_>,
    ) {
        let Place { lanes: sums, stride } = to;
        let value_lanes = stride / 2;
        for lane in 0..value_lanes {
            let mut even = [unsafe { L::zero() }; Q];
            let mut odd = [unsafe { L::zero() }; Q];
            // SAFETY: the caller enables what L needs.
            unroll!(Q, I => unsafe {
                even[I] = L::load(&sums[I * stride + 2 * lane]);
                odd[I] = L::load(&sums[I * stride + 2 * lane + 1]);
            });
            for block in self.part.blocks.clone() {
                let (_, values) = self.of(block);
                let tokens = limit.saturating_sub(block * BLOCK).min(BLOCK);
                let p: [&Lane32; Q] = std::array::from_fn(|i| &weights[i * blocks + block]);
                let pairs = values.chunks_exact(2 * value_lanes);
                for (token, pair) in (0..tokens).step_by(2).zip(pairs) {
                    // SAFETY: as above.
                    unsafe {
                        let first = L::load(&pair[lane]);
                        let second = L::load(&pair[value_lanes + lane]);
                        unroll!(Q, I => even[I] = even[I].add_scaled(first, p[I].0[token]));
                        unroll!(Q, I => odd[I] = odd[I].add_scaled(second, p[I].0[token + 1]));
                    }
                }
            }
            // SAFETY: as above.
            unroll!(Q, I => unsafe {
                sums[I * stride + 2 * lane] = even[I].store();
                sums[I * stride + 2 * lane + 1] = odd[I].store();
            });
        }
    }
}

#[inline(always)]
fn softmax_impl<const FMA: bool>(scores: &mut [f32], limit: usize) -> f32 {
    let top = max(&scores[..limit]);
    scores[limit..].fill(top);
    let mut lanes = [0.0_f32; LANES];
    let (chunks, _) = scores.as_chunks_mut::<LANES>();
    let full = limit / LANES;
    for chunk in &mut chunks[..full] {
        for (score, lane) in chunk.iter_mut().zip(&mut lanes) {
            *score = exp::<FMA>(*score - top);
            *lane += *score;
        }
    }
    if let Some(chunk) = chunks.get_mut(full) {
        for score in chunk.iter_mut() {
            *score = exp::<FMA>(*score - top);
        }
        chunk[limit - full * LANES..].fill(0.0);
        for (score, lane) in chunk.iter().zip(&mut lanes) {
            *lane += score;
        }
    }
    for chunk in chunks.iter_mut().skip(full + 1) {
        chunk.fill(0.0);
    }
    sum_lanes(lanes)
}

vectorised! {
    /// exp(s − max) of the first `limit` scores, 0 beyond; returns their sum. The length is a
    /// multiple of 32.
    pub(crate) fn softmax(scores: &mut [f32], limit: usize) -> f32 = softmax_impl
}
