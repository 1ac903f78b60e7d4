//! Weights of queries over the positions of cached blocks, in bfloat16, of several queries at once:
//! one after the other, each would wait for its own maximum and exponentials.
#![allow(unsafe_code)]

use crate::cache::BLOCK;
use crate::ops::tiles::SIDE;
use crate::query_tile::Query;
use crate::vector::Lane32;

/// Queries whose weights are computed together.
pub(crate) const ROWS: usize = 4;

/// How scores and weights lie.
#[derive(Clone, Copy)]
pub(crate) struct Strides {
    /// Lanes from a query's scores of a block to the next query's.
    pub(crate) query: usize,
    /// Lanes from a query's scores of a block to those of the next block.
    pub(crate) block: usize,
    /// Lines of sixteen pairs, one for each query, from a block's weights to the next block's.
    pub(crate) weights: usize,
}

/// Weights of all queries, a line of `out` for each block and query, 0 beyond what a query sees; and what
/// sums of so weighted values are multiplied with. Scores are there for whole groups of [`ROWS`] queries, and
/// room.
///
/// # Safety
/// The processor has AVX-512 with bf16.
pub(crate) unsafe fn weights_of(
    queries: &[Query],
    scores: &[Lane32],
    blocks: usize,
    strides: Strides,
    out: &mut [u32],
    inverse: &mut [f32],
) {
    for (i, group) in queries.chunks(ROWS).enumerate() {
        let first = i * ROWS;
        // Rows beyond the last are there, and left.
        let limits = std::array::from_fn(|r| group[r.min(group.len() - 1)].limit);
        let scores = &scores[first * strides.query..];
        // SAFETY: the function's contract.
        let sums = unsafe { weights(scores, limits, blocks, strides, &mut out[first * SIDE..]) };
        for (inverse, sum) in inverse[first..].iter_mut().zip(sums).take(group.len()) {
            *inverse = 1.0 / sum;
        }
    }
}

/// 2^(s − max) of the first so many scores of some queries in bfloat16, a line of `out` for each block, 0
/// beyond; returns their sums before they are rounded.
///
/// # Safety
/// As [`weights_of`].
unsafe fn weights(
    scores: &[Lane32],
    limits: [usize; ROWS],
    blocks: usize,
    strides: Strides,
    out: &mut [u32],
) -> [f32; ROWS] {
    assert!(limits.iter().all(|l| *l > 0 && l.div_ceil(BLOCK) <= blocks), "scores of no block");
    let last = blocks - 1;
    let scored = last * strides.block + (ROWS - 1) * strides.query;
    assert!(scores.len() > scored, "scores outside their slice");
    assert!(out.len() >= (last * strides.weights + ROWS) * SIDE, "lines outside their slice");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the function's contract; all is there, as was just checked.
    unsafe {
        x86::weights(scores.as_ptr().cast(), limits, blocks, strides, out.as_mut_ptr().cast())
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no bf16 products")
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512, __m512bh, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_loadu_ps,
        _mm512_mask_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_reduce_add_ps,
        _mm512_reduce_max_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
    };

    use super::{BLOCK, SIDE, Strides};
    use crate::ops::simd::exp2_near as exp2;
    use crate::vector::unroll;

    /// The sixteen scores that a mask lets through.
    macro_rules! some {
        ($scores:expr, $seen:expr, $half:literal) => {
            _mm512_mask_loadu_ps(
                _mm512_set1_ps(f32::NEG_INFINITY),
                ($seen >> ($half * SIDE)) as u16,
                $scores.add($half * SIDE),
            )
        };
    }

    /// # Safety
    /// As `super::weights`, whose checks it relies on.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn weights<const N: usize>(
        scores: *const f32,
        limits: [usize; N],
        blocks: usize,
        strides: Strides,
        out: *mut f32,
    ) -> [f32; N] {
        let (query, stride) = (strides.query * BLOCK, strides.block * BLOCK);
        let line = strides.weights * SIDE;
        let mut full = blocks;
        for limit in limits {
            full = full.min(limit / BLOCK);
        }
        // SAFETY: the function's contract.
        unsafe {
            let mut tops = [_mm512_set1_ps(f32::NEG_INFINITY); N];
            for block in 0..full {
                unroll!(N, R => {
                    let scores = scores.add(block * stride + R * query);
                    let (low, high) = (_mm512_loadu_ps(scores), _mm512_loadu_ps(scores.add(SIDE)));
                    tops[R] = _mm512_max_ps(low, _mm512_max_ps(high, tops[R]));
                });
            }
            for block in full..blocks {
                unroll!(N, R => {
                    let scores = scores.add(block * stride + R * query);
                    let seen = below(limits[R], block);
                    let (low, high) = (some!(scores, seen, 0), some!(scores, seen, 1));
                    tops[R] = _mm512_max_ps(low, _mm512_max_ps(high, tops[R]));
                });
            }
            unroll!(N, R => tops[R] = _mm512_set1_ps(_mm512_reduce_max_ps(tops[R])));
            let mut sums = [_mm512_setzero_ps(); N];
            for block in 0..full {
                unroll!(N, R => {
                    let scores = scores.add(block * stride + R * query);
                    let low = exp2(_mm512_sub_ps(_mm512_loadu_ps(scores), tops[R]));
                    let high = exp2(_mm512_sub_ps(_mm512_loadu_ps(scores.add(SIDE)), tops[R]));
                    sums[R] = _mm512_add_ps(sums[R], _mm512_add_ps(low, high));
                    put(low, high, out.add(block * line + R * SIDE));
                });
            }
            for block in full..blocks {
                unroll!(N, R => {
                    let scores = scores.add(block * stride + R * query);
                    let seen = below(limits[R], block);
                    let low = exp2(_mm512_sub_ps(some!(scores, seen, 0), tops[R]));
                    let high = exp2(_mm512_sub_ps(some!(scores, seen, 1), tops[R]));
                    let low = _mm512_maskz_mov_ps(seen as u16, low);
                    let high = _mm512_maskz_mov_ps((seen >> SIDE) as u16, high);
                    sums[R] = _mm512_add_ps(sums[R], _mm512_add_ps(low, high));
                    put(low, high, out.add(block * line + R * SIDE));
                });
            }
            let mut all = [0.0; N];
            unroll!(N, R => all[R] = _mm512_reduce_add_ps(sums[R]));
            all
        }
    }

    /// A bit for every position of a block that is below the limit.
    fn below(limit: usize, block: usize) -> u32 {
        let count = limit.saturating_sub(block * BLOCK).min(BLOCK);
        ((1_u64 << count) - 1) as u32
    }

    /// # Safety
    /// A line can be written.
    #[target_feature(enable = "avx512bf16,avx512f")]
    unsafe fn put(low: __m512, high: __m512, line: *mut f32) {
        // SAFETY: the function's contract; both types are 512 plain bits.
        unsafe {
            let pairs = std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_ps(line, pairs);
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::pairs::{Width, high, low};

    #[test]
    fn weights_are_those_of_each_query_alone() {
        if Width::best() != Width::Bf16 {
            return;
        }
        // SAFETY: as was just found.
        let weights = |scores: &[Lane32], limits, blocks, strides, out: &mut [u32]| unsafe {
            weights(scores, limits, blocks, strides, out)
        };
        let blocks = 3;
        // A block after the other, as tiles write scores; a query after the other.
        let by_block = Strides { query: 1, block: 5, weights: 6 };
        let by_query = Strides { query: blocks, block: 1, weights: 4 };
        for strides in [by_block, by_query] {
            let mut scores = vec![Lane32::ZERO; 2 * strides.block + 3 * strides.query + 1];
            for (i, score) in scores.iter_mut().flat_map(|lane| &mut lane.0).enumerate() {
                *score = (i as f32 * 0.37).sin() * 40.0;
            }
            let score = |r: usize, at: usize| {
                scores[at / BLOCK * strides.block + r * strides.query].0[at % BLOCK]
            };
            let several = [1, 32, 45, 96];
            let lines = (2 * strides.weights + ROWS) * SIDE;
            let mut found = vec![7; lines];
            let sums = weights(&scores, several, blocks, strides, &mut found);
            for (r, limit) in several.into_iter().enumerate() {
                let mut alone = vec![9; lines];
                let sum = weights(&scores, [limit; ROWS], blocks, strides, &mut alone)[r];
                assert_eq!(sums[r].to_bits(), sum.to_bits(), "row {r}");
                let top = (0..limit).map(|at| score(r, at)).fold(f32::NEG_INFINITY, f32::max);
                let mut exact = 0.0;
                for at in 0..blocks * BLOCK {
                    let place = (at / BLOCK * strides.weights + r) * SIDE + at % BLOCK / 2;
                    assert_eq!(found[place], alone[place], "row {r}");
                    let weight = if at % 2 == 0 { low(found[place]) } else { high(found[place]) };
                    if at >= limit {
                        assert_eq!(weight, 0.0, "beyond the limit of row {r}");
                        continue;
                    }
                    let expected = f64::from(score(r, at) - top).exp2();
                    exact += expected;
                    let error = (f64::from(weight) - expected).abs();
                    assert!(error <= expected * 0.004 + 1e-37, "{weight} for {expected}");
                }
                assert!((f64::from(sum) / exact - 1.0).abs() < 4e-6, "{sum} for {exact}");
            }
        }
    }
}
