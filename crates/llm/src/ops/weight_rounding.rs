//! How weights become bfloat16: each at a threshold of its own.
//!
//! The nearest number would do for one product, but not for training. A step moves a weight by much
//! less than the distance to the next bfloat16, and weights that come from files in bfloat16 or in a
//! few bits are all as far from where they would be rounded to another number: none would seem to
//! move for many steps, and then too many at once. With thresholds that cover the distance evenly,
//! the share of weights that move is the share of the distance that they should have moved. A weight
//! keeps its threshold, so forward pass, backward pass and sampling multiply with the same numbers.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use super::bf16::native;
use super::simd::vectorised;

/// Thresholds of neighbours in a row are so far apart, modulo one: the golden section of 2³².
const GOLDEN: u32 = 0x9E37_79B9;

/// Where between two bfloat16 numbers the weight at a place of its matrix is rounded up: the upper
/// half of the result, in 65536ths of their distance. A column further it is [`GOLDEN`] more.
pub(crate) fn threshold(row: usize, column: usize) -> u32 {
    let h = (row as u32).wrapping_mul(0x85EB_CA77);
    let h = (h ^ (h >> 15)).wrapping_mul(0xC2B2_AE3D);
    (h ^ (h >> 13)).wrapping_add((column as u32).wrapping_mul(GOLDEN))
}

/// The threshold `columns` further along a row.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn along(threshold: u32, columns: usize) -> u32 {
    threshold.wrapping_add((columns as u32).wrapping_mul(GOLDEN))
}

/// A weight that is rounded at a threshold, in the upper half. A bfloat16 stays as it is, and what
/// is not finite stays so.
#[inline(always)]
fn round_at(x: f32, threshold: u32) -> u32 {
    let up = if x.is_nan() { 0 } else { threshold >> 16 };
    x.to_bits().wrapping_add(up)
}

/// Two weights as one lane.
#[inline(always)]
fn weights(low: u32, high: u32) -> f32 {
    f32::from_bits(low >> 16 | high & 0xffff_0000)
}

#[inline(always)]
fn weight_columns_impl<const FMA: bool>(x: &[f32], first: u32, out: &mut [f32]) {
    let (pairs, rest) = x.as_chunks::<2>();
    let mut at = first;
    for (out, [low, high]) in out.iter_mut().zip(pairs) {
        *out = weights(round_at(*low, at), round_at(*high, at.wrapping_add(GOLDEN)));
        at = at.wrapping_add(GOLDEN.wrapping_mul(2));
    }
    if let ([last], Some(out)) = (rest, out.get_mut(pairs.len())) {
        *out = weights(round_at(*last, at), 0);
    }
}

vectorised! {
    fn weight_columns_by_bits(x: &[f32], first: u32, out: &mut [f32]) = weight_columns_impl
}

/// out (⌈n/2⌉): neighbours of a row of weights x (n) as lanes, given the first one's [`threshold`].
pub(crate) fn weight_columns(x: &[f32], first: u32, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if native() {
        // SAFETY: `native` found what the function needs.
        return unsafe { x86::weight_columns(x, first, out) };
    }
    weight_columns_by_bits(x, first, out);
}

#[inline(always)]
fn weight_rows_impl<const FMA: bool>(low: &[f32], high: &[f32], first: [u32; 2], out: &mut [f32]) {
    let [mut at_low, mut at_high] = first;
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = weights(round_at(*low, at_low), round_at(*high, at_high));
        (at_low, at_high) = (at_low.wrapping_add(GOLDEN), at_high.wrapping_add(GOLDEN));
    }
}

vectorised! {
    fn weight_rows_by_bits(
        low: &[f32], high: &[f32], first: [u32; 2], out: &mut [f32],
    ) = weight_rows_impl
}

/// out (n): two rows of weights as lanes, given the [`threshold`]s of their first ones.
pub(crate) fn weight_rows(low: &[f32], high: &[f32], first: [u32; 2], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if native() {
        // SAFETY: `native` found what the function needs.
        return unsafe { x86::weight_rows(low, high, first, out) };
    }
    weight_rows_by_bits(low, high, first, out);
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::{
        __m512, __m512i, _CMP_ORD_Q, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512,
        _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_mask_add_epi32, _mm512_or_si512, _mm512_permutex2var_epi16, _mm512_set1_epi32,
        _mm512_srli_epi32, _mm512_storeu_ps,
    };

    /// The thresholds of 16 neighbours.
    #[inline(always)]
    unsafe fn thresholds(first: u32) -> __m512i {
        const STEPS: [u32; 16] = {
            let mut steps = [0; 16];
            let mut i = 0;
            while i < 16 {
                steps[i] = super::GOLDEN.wrapping_mul(i as u32);
                i += 1;
            }
            steps
        };
        // SAFETY: the array is as long as what is read.
        unsafe {
            let steps = _mm512_loadu_si512(STEPS.as_ptr().cast());
            _mm512_add_epi32(_mm512_set1_epi32(first.cast_signed()), steps)
        }
    }

    /// 16 weights, rounded into the upper halves.
    #[inline(always)]
    unsafe fn round16(x: *const f32, thresholds: __m512i) -> __m512i {
        // SAFETY: the caller's pointer is good for 16 values.
        unsafe {
            let x = _mm512_loadu_ps(x);
            let bits = _mm512_castps_si512(x);
            let number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(x, x);
            _mm512_mask_add_epi32(bits, number, bits, _mm512_srli_epi32::<16>(thresholds))
        }
    }

    /// 32 neighbours as 16 lanes, given the first one's threshold.
    #[inline(always)]
    pub(in crate::ops) unsafe fn weights16(x: *const f32, first: u32) -> __m512 {
        const UPPER: [u16; 32] = {
            let mut words = [0; 32];
            let mut i = 0;
            while i < 32 {
                // Words 32 and above are the second operand's.
                words[i] = 2 * i as u16 + 1;
                i += 1;
            }
            words
        };
        // SAFETY: the caller's pointer is good for 32 values.
        unsafe {
            let upper = _mm512_loadu_si512(UPPER.as_ptr().cast());
            let low = round16(x, thresholds(first));
            let high = round16(x.add(16), thresholds(super::along(first, 16)));
            _mm512_castsi512_ps(_mm512_permutex2var_epi16(low, upper, high))
        }
    }

    /// As `weight_columns`.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) fn weight_columns(x: &[f32], first: u32, out: &mut [f32]) {
        let whole = (x.len() / 32).min(out.len() / 16);
        for i in 0..whole {
            // SAFETY: all that is read and written lies inside both slices' `whole` parts.
            unsafe {
                let lanes = weights16(x.as_ptr().add(32 * i), super::along(first, 32 * i));
                _mm512_storeu_ps(out.as_mut_ptr().add(16 * i), lanes);
            }
        }
        let rest = super::along(first, 32 * whole);
        super::weight_columns_impl::<true>(&x[32 * whole..], rest, &mut out[16 * whole..]);
    }

    /// 16 columns of two rows as lanes, given the thresholds of their first ones.
    #[inline(always)]
    pub(in crate::ops) unsafe fn rows16(
        low: *const f32,
        high: *const f32,
        first: [u32; 2],
    ) -> __m512 {
        // SAFETY: the caller's pointers are good for 16 values.
        unsafe {
            let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            let low = _mm512_srli_epi32::<16>(round16(low, thresholds(first[0])));
            let high = _mm512_and_si512(round16(high, thresholds(first[1])), upper);
            _mm512_castsi512_ps(_mm512_or_si512(low, high))
        }
    }

    /// As `weight_rows`.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) fn weight_rows(low: &[f32], high: &[f32], first: [u32; 2], out: &mut [f32]) {
        let whole = out.len().min(low.len()).min(high.len()) / 16 * 16;
        for at in (0..whole).step_by(16) {
            let first = first.map(|t| super::along(t, at));
            // SAFETY: `at + 16` is inside all three slices.
            unsafe {
                let lanes = rows16(low.as_ptr().add(at), high.as_ptr().add(at), first);
                _mm512_storeu_ps(out.as_mut_ptr().add(at), lanes);
            }
        }
        let rest = first.map(|t| super::along(t, whole));
        super::weight_rows_impl::<true>(&low[whole..], &high[whole..], rest, &mut out[whole..]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::bf16::halves;
    use super::*;

    fn rounded(rows: usize, columns: usize, x: f32) -> Vec<f32> {
        let row = vec![x; columns];
        let mut pairs = vec![0.0; columns.div_ceil(2)];
        let mut all = Vec::new();
        for r in 0..rows {
            weight_columns(&row, threshold(r, 0), &mut pairs);
            let both = pairs.iter().map(|pair| halves(pair.to_bits()));
            all.extend(both.flat_map(|(low, high)| [low, high]).take(columns));
        }
        all
    }

    #[test]
    fn a_weight_that_is_a_bfloat16_or_not_finite_stays() {
        for x in [0.0, -0.0, 1.0, -0.375, f32::from_bits(0x3f81_0000), f32::INFINITY] {
            assert!(rounded(3, 65, x).iter().all(|y| y.to_bits() == x.to_bits()), "{x}");
        }
        for bits in [0x7fc0_0000, 0x7f80_0001, 0xffff_ffff] {
            assert!(rounded(3, 65, f32::from_bits(bits)).iter().all(|y| !y.is_finite()));
        }
    }

    #[test]
    fn as_many_weights_are_rounded_up_as_they_are_far_on_the_way() {
        for (rows, columns) in [(576, 576), (64, 1536), (960, 64)] {
            for (sign, share) in [(1.0, 0.02), (1.0, 0.25), (-1.0, 0.5), (-1.0, 0.97)] {
                let x = sign * (1.0 + share * 2f32.powi(-7));
                let up: Vec<f64> = rounded(rows, columns, x)
                    .iter()
                    .map(|y| f64::from((y.abs() - 1.0) * 2f32.powi(7)))
                    .collect();
                assert!(up.iter().all(|u| [0.0, 1.0].contains(u)));
                let near = |mean: f64, n: usize, sigmas: f64| {
                    let (p, n) = (f64::from(share), n as f64);
                    assert!(
                        (mean - p).abs() < sigmas * (p * (1.0 - p) / n).sqrt() + 1.0 / n,
                        "{mean} {p}"
                    );
                };
                near(up.iter().sum::<f64>() / up.len() as f64, up.len(), 3.0);
                for row in up.chunks(columns) {
                    near(row.iter().sum::<f64>() / columns as f64, columns, 3.0);
                }
                for column in 0..columns {
                    let sum: f64 = up.iter().skip(column).step_by(columns).sum();
                    near(sum / rows as f64, rows, 6.0);
                }
            }
        }
    }

    #[test]
    fn weights_are_rounded_alike_by_rows_and_columns_with_and_without_the_instructions() {
        let x: Vec<f32> = (0..134).map(|i| ((i * 37 % 101) as f32 - 50.3) * 0.013).collect();
        for len in [1, 2, 31, 32, 33, 64, 67] {
            let (low, high) = (&x[..len], &x[67..67 + len]);
            let first = [threshold(4, 9), threshold(5, 9)];
            let (mut wide, mut bits) = (vec![0.0; len], vec![0.0; len]);
            weight_rows(low, high, first, &mut wide);
            weight_rows_by_bits(low, high, first, &mut bits);
            assert_eq!(wide, bits, "{len}");
            let both: Vec<_> = wide.iter().map(|pair| halves(pair.to_bits())).collect();
            for (row, first, half) in [(low, first[0], 0), (high, first[1], 1)] {
                let (mut wide, mut bits) = (vec![0.0; len.div_ceil(2)], vec![0.0; len.div_ceil(2)]);
                weight_columns(row, first, &mut wide);
                weight_columns_by_bits(row, first, &mut bits);
                assert_eq!(wide, bits, "{len}");
                let columns = wide.iter().map(|pair| halves(pair.to_bits()));
                let columns = columns.flat_map(|(low, high)| [low, high]).take(len);
                let rows = both.iter().map(|&(low, high)| if half == 0 { low } else { high });
                assert!(columns.eq(rows), "{len}");
            }
        }
    }
}
