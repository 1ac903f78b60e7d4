//! f32 numbers as sums of three bfloat16 numbers, for products of f32 by tile registers.
//!
//! The first part is the number rounded to bfloat16, the middle part what is left, rounded, and the
//! least part what is left then: 24 bits are three times 8, so nothing is lost (but below 2⁻¹²⁶, which
//! these registers take as zero). Of the nine products of two numbers' parts, six are computed; the
//! others are less than 2⁻²⁵ of the whole, half of what one rounding of f32 loses. Infinite numbers
//! become NaN.
#![allow(unsafe_code)]

use std::ops::Range;

use super::{
    panels::{Mat, Precision, fits},
    tile_product::{INNER, TILE},
    tiles::{self, SIDE},
};
use crate::vector::Lane32;

/// Parts of a number.
pub(crate) const PARTS: usize = 3;

/// Whether products of f32 with a right operand of this shape go by tiles. Others are too small for it
/// to pay. The number of left rows does not matter: a row's result must not depend on how many there are.
pub(crate) fn wanted(inner: usize, columns: usize) -> bool {
    const LEAST: (usize, usize) = (256, 512);
    tiles::available() && inner >= LEAST.0 && columns >= LEAST.1
}

/// What the rows of a pass's tiles are a multiple of, where its widest activations have so many columns:
/// whole steps of parts if a weight gradient's inputs may be split, which happens tile by tile.
pub(crate) fn rows_together(precision: Precision, widest: usize) -> usize {
    if precision == Precision::F32 && wanted(usize::MAX, widest) {
        INNER
    } else {
        precision.group()
    }
}

/// Lanes of 16 rows, or of a half panel, in parts.
pub(crate) fn lanes(inner: usize) -> usize {
    inner.div_ceil(INNER) * PARTS * TILE
}

/// Splits steps of a panel: for every 32 steps begun, the tiles of a panel of pairs thrice, of first,
/// middle and least parts; zero after the last step. Meanwhile half as much from `next` on is asked for.
pub(crate) fn split_panel(steps: &[Lane32], out: &mut [u32], next: *const Lane32) {
    assert!(out.len() >= 2 * lanes(steps.len()), "lanes outside their slice");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: processors with tile registers have what the function needs, as `wanted` found; the
    // shapes were just checked.
    unsafe {
        assert!(tiles::available(), "no tile registers");
        x86::split_panel(steps, out, next);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("parts are for tile registers: {next:?}");
}

/// Splits up to 16 rows: `out[(3 t + p) · 256 + r · 16 + s]` are elements 2s and 2s + 1 of the p-th part
/// of the t-th 32 of row r, zero after the last column. Lanes of rows beyond the last stay.
pub(crate) fn split_rows(x: Mat<'_>, out: &mut [u32]) {
    assert!(x.rows <= SIDE && x.col_stride == 1, "more rows than a tile has");
    assert!(fits(x.data.len(), x.rows, x.cols, x.row_stride, 1), "matrix outside its slice");
    assert!(out.len() >= lanes(x.cols), "lanes outside their slice");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    unsafe {
        assert!(tiles::available(), "no tile registers");
        x86::split_rows(x, out);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("parts are for tile registers");
}

/// Splits `width` rows that lie side by side, over a part of their strided inner dimension: blocks of
/// sixteen, one after the other, as [`split_rows`] makes them.
pub(crate) fn split_columns(
    data: &[f32],
    stride: usize,
    width: usize,
    inner: Range<usize>,
    out: &mut [u32],
) {
    assert!(fits(data.len(), inner.end, width, stride, 1), "matrix outside its slice");
    assert!(out.len() >= width.div_ceil(SIDE) * lanes(inner.len()), "lanes outside their slice");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    unsafe {
        assert!(tiles::available(), "no tile registers");
        x86::split_columns(data, stride, width, inner, out);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("parts are for tile registers");
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512, __m512i, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512,
        _mm512_castsi512_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_maskz_loadu_ps,
        _mm512_permutex2var_epi16, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_srli_epi32,
        _mm512_storeu_si512, _mm512_sub_ps, _mm512_ternarylogic_epi32,
    };

    use super::super::{lanes::fetch_far, pairing::x86::turn, panels::PANEL};
    use super::{INNER, Lane32, Mat, PARTS, Range, SIDE, TILE, lanes};

    /// The parts of sixteen numbers in the upper halves of the lanes.
    #[inline(always)]
    unsafe fn parts(x: __m512) -> [__m512i; PARTS] {
        // SAFETY: the caller enables what these need.
        unsafe {
            let upper = _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed());
            // To the nearest number; of two, to the one farther from zero.
            let half = _mm512_set1_epi32(0x8000);
            let round =
                |x: __m512| _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), half), upper);
            let first = round(x);
            let rest = _mm512_sub_ps(x, _mm512_castsi512_ps(first));
            let middle = round(rest);
            let least = _mm512_sub_ps(rest, _mm512_castsi512_ps(middle));
            [first, middle, _mm512_castps_si512(least)]
        }
    }

    /// The upper halves of two vectors' lanes as pairs: lane i of both.
    #[inline(always)]
    unsafe fn beside(low: __m512i, high: __m512i) -> __m512i {
        // (high and upper) or low
        const CHOOSE: i32 = 0xEA;
        // SAFETY: the caller enables what these need.
        unsafe {
            let upper = _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed());
            _mm512_ternarylogic_epi32::<CHOOSE>(high, upper, _mm512_srli_epi32::<16>(low))
        }
    }

    /// # Safety
    /// The shapes are as `super::split_panel` checks.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn split_panel(steps: &[Lane32], out: &mut [u32], next: *const Lane32) {
        for at in (0..steps.len().next_multiple_of(INNER)).step_by(2) {
            let soon = next.wrapping_add(at / 2).cast::<f32>();
            fetch_far(soon);
            fetch_far(soon.wrapping_add(SIDE));
            // SAFETY: `out` has PARTS · SIDE lines of PANEL lanes for every INNER steps begun.
            unsafe {
                let place = (at / INNER * PARTS * SIDE + at % INNER / 2) * PANEL;
                let out = out.as_mut_ptr().add(place);
                for half in [0, SIDE] {
                    let load = |at: usize| {
                        if at < steps.len() {
                            _mm512_loadu_ps(steps.as_ptr().add(at).cast::<f32>().add(half))
                        } else {
                            _mm512_setzero_ps()
                        }
                    };
                    let (low, high) = (parts(load(at)), parts(load(at + 1)));
                    for p in 0..PARTS {
                        let out = out.add(p * SIDE * PANEL + half);
                        _mm512_storeu_si512(out.cast(), beside(low[p], high[p]));
                    }
                }
            }
        }
    }

    /// # Safety
    /// The shapes are as `super::split_rows` checks.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn split_rows(x: Mat<'_>, out: &mut [u32]) {
        // The upper half of every lane of two vectors.
        const UPPER: [u16; 2 * SIDE] = {
            let (mut places, mut i) = ([0; 2 * SIDE], 0);
            while i < 2 * SIDE {
                places[i] = 2 * i as u16 + 1;
                i += 1;
            }
            places
        };
        for r in 0..x.rows {
            // SAFETY: a row has `cols` elements, and `out` a line of every part for every INNER begun.
            unsafe {
                let upper = _mm512_loadu_si512(UPPER.as_ptr().cast());
                let row = x.data.as_ptr().add(r * x.row_stride);
                for (t, first) in (0..x.cols).step_by(INNER).enumerate() {
                    let there = u32::MAX >> (INNER - (x.cols - first).min(INNER));
                    let row = row.add(first);
                    let low = _mm512_maskz_loadu_ps(there as u16, row);
                    let high =
                        _mm512_maskz_loadu_ps((there >> SIDE) as u16, row.wrapping_add(SIDE));
                    let (low, high) = (parts(low), parts(high));
                    let out = out.as_mut_ptr().add(t * PARTS * TILE + r * SIDE);
                    for p in 0..PARTS {
                        let pairs = _mm512_permutex2var_epi16(low[p], upper, high[p]);
                        _mm512_storeu_si512(out.add(p * TILE).cast(), pairs);
                    }
                }
            }
        }
    }

    /// # Safety
    /// The shapes are as `super::split_columns` checks.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn split_columns(
        data: &[f32],
        stride: usize,
        width: usize,
        inner: Range<usize>,
        out: &mut [u32],
    ) {
        let block = lanes(inner.len());
        // All rows at every tile: they share its lines and pages.
        for (t, first) in inner.clone().step_by(INNER).enumerate() {
            for from in (0..width).step_by(SIDE) {
                let there = u16::MAX >> (SIDE - (width - from).min(SIDE));
                // SAFETY: only what is inside the rows is read; every block has PARTS tiles for every
                // INNER elements begun.
                unsafe {
                    let mut squares = [[_mm512_setzero_ps(); SIDE]; PARTS];
                    for s in 0..SIDE {
                        let load = |c: usize| {
                            let there = if c < inner.end { there } else { 0 };
                            let row = data.as_ptr().wrapping_add(c * stride + from);
                            _mm512_maskz_loadu_ps(there, row)
                        };
                        let c = first + 2 * s;
                        let (low, high) = (parts(load(c)), parts(load(c + 1)));
                        for (p, square) in squares.iter_mut().enumerate() {
                            square[s] = _mm512_castsi512_ps(beside(low[p], high[p]));
                        }
                    }
                    let out = out.as_mut_ptr().add(from / SIDE * block + t * PARTS * TILE);
                    for (p, square) in squares.into_iter().enumerate() {
                        for (r, lanes) in turn(square).into_iter().enumerate() {
                            let out = out.add(p * TILE + r * SIDE);
                            _mm512_storeu_si512(out.cast(), _mm512_castps_si512(lanes));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of many magnitudes.
    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7123).sin() * (i as f32 % 61.0 - 30.0).exp2()).collect()
    }

    /// The sum of a number's parts, of lane `at` of the first part.
    fn whole(out: &[u32], at: usize, part: usize, upper: bool) -> f32 {
        let number =
            |lane: u32| f32::from_bits(if upper { lane & 0xFFFF_0000 } else { lane << 16 });
        (0..PARTS).rev().map(|p| number(out[at + p * part])).sum()
    }

    #[test]
    fn three_parts_are_the_number_and_what_is_beyond_is_zero() {
        if !tiles::available() {
            return;
        }
        for (steps, width, rows) in [(1, 32, 1), (31, 32, 7), (64, 32, 16), (75, 32, 16)] {
            let x = numbers(steps * width);
            let panel: Vec<Lane32> = x.as_chunks().0.iter().map(|row| Lane32(*row)).collect();
            let mut out = vec![!0; 2 * lanes(steps)];
            split_panel(&panel, &mut out, panel.as_ptr());
            for step in 0..steps.next_multiple_of(INNER) {
                for c in 0..width {
                    let at = (step / INNER * PARTS * SIDE + step % INNER / 2) * width + c;
                    let got = whole(&out, at, SIDE * width, step % 2 == 1);
                    let wanted = if step < steps { x[step * width + c] } else { 0.0 };
                    assert_eq!(got.to_bits(), wanted.to_bits(), "{wanted} at {step}, {c}");
                }
            }
            // As rows, and as rows that lie side by side.
            let x = numbers(steps * rows);
            let at = |step: usize, r: usize| {
                let t = step / INNER;
                (t * PARTS * SIDE + r) * SIDE + step % INNER / 2
            };
            let (mut dense, mut turned) = (vec![!0; lanes(steps)], vec![!0; lanes(steps)]);
            split_rows(Mat::new(&x, rows, steps), &mut dense);
            split_columns(&x, rows, rows, 0..steps, &mut turned);
            for step in 0..steps.next_multiple_of(INNER) {
                for r in 0..rows {
                    let there = step < steps;
                    let wanted = if there { x[r * steps + step] } else { 0.0 };
                    assert_eq!(whole(&dense, at(step, r), TILE, step % 2 == 1), wanted);
                    let wanted = if there { x[step * rows + r] } else { 0.0 };
                    assert_eq!(whole(&turned, at(step, r), TILE, step % 2 == 1), wanted);
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        if !tiles::available() {
            return;
        }
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(u32::MAX), f32::MAX] {
            for at in 0..2 {
                let mut row = [1.0; 2];
                row[at] = x;
                let mut out = vec![0; lanes(2)];
                split_rows(Mat::new(&row, 1, 2), &mut out);
                assert!(!whole(&out, 0, TILE, at == 1).is_finite());
            }
        }
    }
}
