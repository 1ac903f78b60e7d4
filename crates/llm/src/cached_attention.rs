//! Attention of new tokens to cached keys and values, for one context at a time.
//!
//! Every sum runs over channels or positions in an order that depends on positions alone, so that
//! a token's result is the same to the bit whether it came alone or among others.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use crate::cache::{BLOCK, BlockId, BlockPool};
use crate::ops::simd::{LANES, exp, max, sum_lanes, vectorised};
use crate::share::Disjoint;
use crate::vector::{Lane32, Lanes, by_width, unroll};

/// Queries that share one read of the keys and values.
const TILE: usize = 4;

/// New tokens of one context: consecutive positions in one block table.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a> {
    /// Blocks of the context.
    pub(crate) table: &'a [BlockId],
    /// Position of the first new token.
    pub(crate) first: usize,
}

/// Head counts and widths.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Query heads.
    pub(crate) queries: usize,
    /// Key and value heads.
    pub(crate) keys: usize,
    /// Channels of a head.
    pub(crate) dim: usize,
    /// Width of a row that begins with the queries.
    pub(crate) row: usize,
}

/// Buffers of [`attend`].
#[derive(Default)]
pub(crate) struct AttendScratch {
    queries: Vec<f32>,
    scores: Vec<Lane32>,
}

by_width! {
    /// Rows `first_row`… of out (…, queries · dim) from rows (R, `heads.row`) whose first channels
    /// are the rotated queries, for one key/value head; keys and values of the same tokens are
    /// already in the cache. No other thread has these rows of this head.
    pub(crate) fn attend(
        pool: &BlockPool, layer: usize, head: usize, span: Span<'_>, heads: Heads, rows: &[f32],
        first_row: usize, out: &Disjoint<'_, f32>, scratch: &mut AttendScratch,
    ) = attend_impl
}

#[inline(always)]
unsafe fn attend_impl<L: Lanes>(
    pool: &BlockPool,
    layer: usize,
    head: usize,
    span: Span<'_>,
    heads: Heads,
    rows: &[f32],
    first_row: usize,
    out: &Disjoint<'_, f32>,
    scratch: &mut AttendScratch,
) {
    let count = rows.len() / heads.row;
    let group = heads.queries / heads.keys;
    assert!(rows.len() == count * heads.row, "whole rows of queries");
    let mut query = 0;
    while query < count * group {
        let take = match count * group - query {
            TILE.. => TILE,
            2.. => 2,
            _ => 1,
        };
        // SAFETY: the caller enables what L needs; `tile` checks its slices.
        unsafe {
            match take {
                TILE => tile::<L, TILE, 1>(
                    pool, layer, span, heads, head, query, rows, first_row, out, scratch,
                ),
                2 => tile::<L, 2, 2>(
                    pool, layer, span, heads, head, query, rows, first_row, out, scratch,
                ),
                _ => tile::<L, 1, 4>(
                    pool, layer, span, heads, head, query, rows, first_row, out, scratch,
                ),
            }
        }
        query += take;
    }
}

/// Q queries of one key/value head; keys are read N blocks at a time.
#[inline(always)]
unsafe fn tile<L: Lanes, const Q: usize, const N: usize>(
    pool: &BlockPool,
    layer: usize,
    span: Span<'_>,
    heads: Heads,
    head: usize,
    first_query: usize,
    rows: &[f32],
    first_row: usize,
    out: &Disjoint<'_, f32>,
    scratch: &mut AttendScratch,
) {
    let dim = heads.dim;
    let group = heads.queries / heads.keys;
    // (row, query head) of each query, and how many positions it sees.
    let place: [(usize, usize); Q] = std::array::from_fn(|i| {
        let query = first_query + i;
        (query / group, head * group + query % group)
    });
    let limits: [usize; Q] = std::array::from_fn(|i| span.first + place[i].0 + 1);
    let limit = limits[Q - 1];
    let blocks = limit.div_ceil(BLOCK);
    let table = &span.table[..blocks];

    let scale = 1.0 / (dim as f32).sqrt();
    scratch.queries.clear();
    scratch.queries.resize(dim * Q, 0.0);
    for (i, &(row, query_head)) in place.iter().enumerate() {
        let q = &rows[row * heads.row + query_head * dim..][..dim];
        for (slot, value) in scratch.queries.iter_mut().skip(i).step_by(Q).zip(q) {
            *slot = value * scale;
        }
    }
    scratch.scores.clear();
    scratch.scores.resize(Q * blocks, Lane32::ZERO);

    // Scores: (Q, blocks) lanes.
    let mut block = 0;
    while block < blocks {
        // SAFETY: the block indices stay below `blocks`; see `score_blocks`.
        unsafe {
            if block + N <= blocks {
                score_blocks::<L, Q, N>(pool, layer, head, dim, table, block, scratch);
                block += N;
            } else {
                score_blocks::<L, Q, 1>(pool, layer, head, dim, table, block, scratch);
                block += 1;
            }
        }
    }

    let mut inverse = [0.0; Q];
    for (i, scores) in scratch.scores.chunks_exact_mut(blocks).enumerate() {
        let sum = softmax(bytemuck::cast_slice_mut(scores), limits[i]);
        inverse[i] = 1.0 / sum;
    }

    // Values, 32 channels at a time; even and odd positions in separate sums.
    let value_lanes = dim.div_ceil(BLOCK);
    for lane in 0..value_lanes {
        let mut even = [unsafe { L::zero() }; Q];
        let mut odd = [unsafe { L::zero() }; Q];
        for (b, &id) in table.iter().enumerate() {
            let (_, values) = pool.head(id, layer, head);
            let tokens = (limit - b * BLOCK).min(BLOCK);
            let p: [&Lane32; Q] = std::array::from_fn(|i| &scratch.scores[i * blocks + b]);
            let mut rows = values.chunks_exact(2 * value_lanes);
            for token in (0..tokens).step_by(2) {
                let Some(pair) = rows.next() else { break };
                // SAFETY: the caller enables what L needs.
                unsafe {
                    let first = L::load(&pair[lane]);
                    let second = L::load(&pair[value_lanes + lane]);
                    unroll!(Q, I => even[I] = even[I].add_scaled(first, p[I].0[token]));
                    unroll!(Q, I => odd[I] = odd[I].add_scaled(second, p[I].0[token + 1]));
                }
            }
        }
        let channels = BLOCK.min(dim - lane * BLOCK);
        unroll!(Q, I => {
            let (row, query_head) = place[I];
            let start = ((first_row + row) * heads.queries + query_head) * dim + lane * BLOCK;
            // SAFETY: no other thread has this row of this head.
            let out = unsafe { out.part(start..start + channels) };
            // SAFETY: the caller enables what L needs.
            let (even, odd) = unsafe { (even[I].store(), odd[I].store()) };
            let sums = even.0.iter().zip(&odd.0);
            for (o, (e, d)) in out.iter_mut().zip(sums) {
                *o = (e + d) * inverse[I];
            }
        });
    }
}

/// Scores of Q queries against N blocks from `block` on.
#[inline(always)]
unsafe fn score_blocks<L: Lanes, const Q: usize, const N: usize>(
    pool: &BlockPool,
    layer: usize,
    head: usize,
    dim: usize,
    table: &[BlockId],
    block: usize,
    scratch: &mut AttendScratch,
) {
    let keys: [&[Lane32]; N] =
        std::array::from_fn(|n| &pool.head(table[block + n], layer, head).0[..dim]);
    let (queries, _) = scratch.queries.as_chunks::<Q>();
    let mut acc = [[unsafe { L::zero() }; N]; Q];
    for (d, q) in queries.iter().enumerate().take(dim) {
        unroll!(N, B => {
            // SAFETY: the caller enables what L needs.
            let k = unsafe { L::load(&keys[B][d]) };
            // SAFETY: as above.
            unroll!(Q, I => acc[I][B] = unsafe { acc[I][B].add_scaled(k, q[I]) });
        });
    }
    let blocks = table.len();
    // SAFETY: the caller enables what L needs.
    unroll!(Q, I => unroll!(N, B => {
        scratch.scores[I * blocks + block + B] = unsafe { acc[I][B].store() };
    }));
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
