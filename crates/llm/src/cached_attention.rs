//! Attention of new tokens to cached keys and values, for one context at a time.
//!
//! Every sum runs over channels or positions in an order that depends on positions alone, so that
//! a token's result is the same to the bit whether it came alone or among others.
#![allow(unsafe_code)]

use crate::cache::{BLOCK, BlockId, BlockPool};
use crate::ops::simd::{LANES, exp, max, sum_lanes, vectorised};
use crate::vector::{Lane32, Vector, by_width};

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
    /// out (R, queries · dim) from rows (R, `heads.row`) whose first channels are the rotated
    /// queries; keys and values of the same tokens are already in the cache.
    pub(crate) fn attend(
        pool: &BlockPool, layer: usize, span: Span<'_>, heads: Heads, rows: &[f32],
        out: &mut [f32], scratch: &mut AttendScratch,
    ) = attend_impl
}

#[inline(always)]
unsafe fn attend_impl<V: Vector, const NV: usize>(
    pool: &BlockPool,
    layer: usize,
    span: Span<'_>,
    heads: Heads,
    rows: &[f32],
    out: &mut [f32],
    scratch: &mut AttendScratch,
) {
    let count = rows.len() / heads.row;
    let group = heads.queries / heads.keys;
    assert!(
        rows.len() == count * heads.row && out.len() == count * heads.queries * heads.dim,
        "rows of queries and result disagree"
    );
    for head in 0..heads.keys {
        let mut query = 0;
        while query < count * group {
            let take = match count * group - query {
                TILE.. => TILE,
                2.. => 2,
                _ => 1,
            };
            // SAFETY: the caller enables what V needs; `tile` checks its slices.
            unsafe {
                match take {
                    TILE => tile::<V, NV, TILE, 1>(
                        pool, layer, span, heads, head, query, rows, out, scratch,
                    ),
                    2 => tile::<V, NV, 2, 2>(
                        pool, layer, span, heads, head, query, rows, out, scratch,
                    ),
                    _ => tile::<V, NV, 1, 4>(
                        pool, layer, span, heads, head, query, rows, out, scratch,
                    ),
                }
            }
            query += take;
        }
    }
}

/// Q queries of one key/value head; keys are read N blocks at a time.
#[inline(always)]
unsafe fn tile<V: Vector, const NV: usize, const Q: usize, const N: usize>(
    pool: &BlockPool,
    layer: usize,
    span: Span<'_>,
    heads: Heads,
    head: usize,
    first_query: usize,
    rows: &[f32],
    out: &mut [f32],
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
                score_blocks::<V, NV, Q, N>(pool, layer, head, dim, table, block, scratch);
                block += N;
            } else {
                score_blocks::<V, NV, Q, 1>(pool, layer, head, dim, table, block, scratch);
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
        let mut acc = [[[unsafe { V::zero() }; NV]; 2]; Q];
        for (b, &id) in table.iter().enumerate() {
            let (_, values) = pool.head(id, layer, head);
            let tokens = (limit - b * BLOCK).min(BLOCK).next_multiple_of(2);
            assert!(values.len() == BLOCK * value_lanes, "value rows of a block");
            let scores = &scratch.scores;
            for token in (0..tokens).step_by(2) {
                for half in 0..2 {
                    let row = values[(token + half) * value_lanes + lane].0.as_ptr();
                    for (i, acc) in acc.iter_mut().enumerate() {
                        // SAFETY: a lane holds NV · WIDTH = 32 values.
                        unsafe {
                            let p = V::splat(scores[i * blocks + b].0[token + half]);
                            for v in 0..NV {
                                let value = V::load(row.add(v * V::WIDTH));
                                acc[half][v] = value.mul_add(p, acc[half][v]);
                            }
                        }
                    }
                }
            }
        }
        for (i, &(row, query_head)) in place.iter().enumerate() {
            let (mut even, mut odd) = (Lane32::ZERO, Lane32::ZERO);
            for v in 0..NV {
                // SAFETY: a lane holds NV · WIDTH = 32 values.
                unsafe {
                    acc[i][0][v].store(even.0.as_mut_ptr().add(v * V::WIDTH));
                    acc[i][1][v].store(odd.0.as_mut_ptr().add(v * V::WIDTH));
                }
            }
            let channels = BLOCK.min(dim - lane * BLOCK);
            let start = (row * heads.queries + query_head) * dim + lane * BLOCK;
            let sums = even.0.iter().zip(&odd.0);
            for (o, (e, d)) in out[start..start + channels].iter_mut().zip(sums) {
                *o = (e + d) * inverse[i];
            }
        }
    }
}

/// Scores of Q queries against N blocks from `block` on.
#[inline(always)]
unsafe fn score_blocks<V: Vector, const NV: usize, const Q: usize, const N: usize>(
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
    let queries = &scratch.queries[..dim * Q];
    let mut acc = [[[unsafe { V::zero() }; NV]; N]; Q];
    for d in 0..dim {
        for n in 0..N {
            let key = keys[n][d].0.as_ptr();
            for v in 0..NV {
                // SAFETY: a lane holds NV · WIDTH = 32 values; `queries` has Q for each channel.
                unsafe {
                    let k = V::load(key.add(v * V::WIDTH));
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let q = V::splat(*queries.as_ptr().add(d * Q + i));
                        acc[n][v] = k.mul_add(q, acc[n][v]);
                    }
                }
            }
        }
    }
    let blocks = table.len();
    for (i, acc) in acc.iter().enumerate() {
        for (n, acc) in acc.iter().enumerate() {
            let lane = scratch.scores[i * blocks + block + n].0.as_mut_ptr();
            for (v, acc) in acc.iter().enumerate() {
                // SAFETY: a lane holds NV · WIDTH = 32 values.
                unsafe { acc.store(lane.add(v * V::WIDTH)) };
            }
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
    fn softmax(scores: &mut [f32], limit: usize) -> f32 = softmax_impl
}
