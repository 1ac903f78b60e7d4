//! bf16 numbers two by two, and groups of registers that multiply them.
//!
//! A 32-bit lane holds two consecutive inputs, the first in its low half: what `vdpbf16ps`
//! multiplies and adds at once into an f32 sum. Processors without it widen both halves, which are
//! the upper halves of f32 numbers, and use f32 multiply-adds: the same products, added in another
//! order.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use crate::ops::bf16::round;
use crate::ops::simd::{Level, level};
use crate::strips::{RUN, Sums};
use crate::vector::Lane32;

/// 32 lanes of two bf16 numbers each.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Pair32(pub(crate) [u32; 32]);

impl Pair32 {
    pub(crate) const ZERO: Self = Self([0; 32]);
}

/// Two numbers as a pair.
#[inline(always)]
pub(crate) fn pair(low: f32, high: f32) -> u32 {
    round(low) | round(high) << 16
}

#[inline(always)]
fn convert(from: &[f32; 32], to: &mut [u32; 16]) {
    for (i, to) in to.iter_mut().enumerate() {
        *to = pair(from[2 * i], from[2 * i + 1]);
    }
}

/// The first of a pair.
#[inline(always)]
pub(crate) fn low(pair: u32) -> f32 {
    f32::from_bits(pair << 16)
}

/// The second of a pair.
#[inline(always)]
pub(crate) fn high(pair: u32) -> f32 {
    f32::from_bits(pair & 0xFFFF_0000)
}

/// How pairs are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// One after the other.
    Plain,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 without bf16.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 with bf16 dot products.
    #[cfg(target_arch = "x86_64")]
    Bf16,
}

impl Width {
    /// The widest of this processor.
    #[inline]
    pub(crate) fn best() -> Self {
        match level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 if std::is_x86_feature_detected!("avx512bf16") => Self::Bf16,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Self::Avx512,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Self::Avx2,
            Level::Baseline => Self::Plain,
        }
    }

    /// [`Sums::ACCUMULATORS`] of its lanes.
    pub(crate) fn accumulators(self) -> usize {
        match self {
            Self::Plain => Plain::ACCUMULATORS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::ACCUMULATORS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::ACCUMULATORS,
            #[cfg(target_arch = "x86_64")]
            Self::Bf16 => Bf16::ACCUMULATORS,
        }
    }

    /// All that this processor can do.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let all = [Self::Plain, Self::Avx2, Self::Avx512, Self::Bf16];
            let best = all.iter().position(|w| *w == Self::best()).unwrap_or(0);
            all[..=best].to_vec()
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Self::Plain]
    }
}

/// 32 f32 sums in registers, of products of pairs.
///
/// # Safety
/// As [`Sums`].
pub(crate) unsafe trait PairLanes: Sums {
    /// Whether these are AVX-512 with bf16, which rounds and multiplies pairs itself.
    const NATIVE: bool = false;
    /// Reads sums.
    unsafe fn load(from: &Lane32) -> Self;
    /// Numbers as pairs.
    unsafe fn convert(from: &[f32; 32], to: &mut [u32; 16]);
}

/// Baseline lanes.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 32]);

// SAFETY: no instruction beyond the target's baseline.
unsafe impl Sums for Plain {
    type Row = Pair32;
    const ACCUMULATORS: usize = 1;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 32])
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut Lane32) {
        to.0 = self.0;
    }
    #[inline(always)]
    unsafe fn row(from: &Pair32) -> Pair32 {
        *from
    }
    #[inline(always)]
    unsafe fn dot(self, row: Pair32, x: u32) -> Self {
        let mut out = self.0;
        let (x0, x1) = (low(x), high(x));
        for (out, row) in out.iter_mut().zip(&row.0) {
            *out = *out + low(*row) * x0 + high(*row) * x1;
        }
        Self(out)
    }
}

// SAFETY: as above.
unsafe impl PairLanes for Plain {
    #[inline(always)]
    unsafe fn load(from: &Lane32) -> Self {
        Self(from.0)
    }
    #[inline(always)]
    unsafe fn convert(from: &[f32; 32], to: &mut [u32; 16]) {
        convert(from, to);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m256i, __m512, __m512bh, __m512i, _mm256_and_si256, _mm256_castsi256_ps,
        _mm256_fmadd_ps, _mm256_load_ps, _mm256_load_si256, _mm256_set1_epi32, _mm256_set1_ps,
        _mm256_setzero_ps, _mm256_slli_epi32, _mm256_store_ps, _mm512_and_si512,
        _mm512_castsi512_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_fmadd_ps,
        _mm512_load_ps, _mm512_load_si512, _mm512_loadu_ps, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_slli_epi32, _mm512_store_ps, _mm512_storeu_si512,
    };

    use super::{Lane32, Pair32, PairLanes, Sums, high, low};

    /// Four AVX registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2([__m256; 4]);

    // SAFETY: AVX2 and FMA, enabled by the caller; rows are 128 bytes and aligned to 64.
    unsafe impl Sums for Avx2 {
        type Row = [__m256i; 4];
        const ACCUMULATORS: usize = 2;
        #[inline(always)]
        unsafe fn zero() -> Self {
            Self([unsafe { _mm256_setzero_ps() }; 4])
        }
        #[inline(always)]
        unsafe fn store(self, to: &mut Lane32) {
            let p = to.0.as_mut_ptr();
            for (i, sum) in self.0.into_iter().enumerate() {
                unsafe { _mm256_store_ps(p.add(8 * i), sum) };
            }
        }
        #[inline(always)]
        unsafe fn row(from: &Pair32) -> Self::Row {
            let p = std::ptr::from_ref(from).cast::<__m256i>();
            unsafe {
                [
                    _mm256_load_si256(p),
                    _mm256_load_si256(p.add(1)),
                    _mm256_load_si256(p.add(2)),
                    _mm256_load_si256(p.add(3)),
                ]
            }
        }
        #[inline(always)]
        unsafe fn dot(self, row: Self::Row, x: u32) -> Self {
            unsafe {
                let (x0, x1) = (_mm256_set1_ps(low(x)), _mm256_set1_ps(high(x)));
                let upper = _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed());
                let mut out = self.0;
                for (out, row) in out.iter_mut().zip(row) {
                    let w0 = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(row));
                    let w1 = _mm256_castsi256_ps(_mm256_and_si256(row, upper));
                    *out = _mm256_fmadd_ps(w1, x1, _mm256_fmadd_ps(w0, x0, *out));
                }
                Self(out)
            }
        }
    }

    // SAFETY: as above.
    unsafe impl PairLanes for Avx2 {
        #[inline(always)]
        unsafe fn load(from: &Lane32) -> Self {
            let p = from.0.as_ptr();
            // Written out: a closure is not compiled for the instruction set around it.
            unsafe {
                Self([
                    _mm256_load_ps(p),
                    _mm256_load_ps(p.add(8)),
                    _mm256_load_ps(p.add(16)),
                    _mm256_load_ps(p.add(24)),
                ])
            }
        }
        #[inline(always)]
        unsafe fn convert(from: &[f32; 32], to: &mut [u32; 16]) {
            super::convert(from, to);
        }
    }

    /// Two AVX-512 registers, halves widened.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512, __m512);

    // SAFETY: AVX-512F, enabled by the caller; rows are 128 bytes and aligned to 64.
    unsafe impl Sums for Avx512 {
        type Row = (__m512i, __m512i);
        const ACCUMULATORS: usize = 8;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm512_setzero_ps(), _mm512_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn store(self, to: &mut Lane32) {
            let p = to.0.as_mut_ptr();
            unsafe {
                _mm512_store_ps(p, self.0);
                _mm512_store_ps(p.add(16), self.1);
            }
        }
        #[inline(always)]
        unsafe fn row(from: &Pair32) -> Self::Row {
            let p = std::ptr::from_ref(from).cast::<__m512i>();
            unsafe { (_mm512_load_si512(p), _mm512_load_si512(p.add(1))) }
        }
        #[inline(always)]
        unsafe fn dot(self, row: Self::Row, x: u32) -> Self {
            unsafe {
                let (x0, x1) = (_mm512_set1_ps(low(x)), _mm512_set1_ps(high(x)));
                let upper = _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed());
                let a0 = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(row.0));
                let a1 = _mm512_castsi512_ps(_mm512_and_si512(row.0, upper));
                let b0 = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(row.1));
                let b1 = _mm512_castsi512_ps(_mm512_and_si512(row.1, upper));
                Self(
                    _mm512_fmadd_ps(a1, x1, _mm512_fmadd_ps(a0, x0, self.0)),
                    _mm512_fmadd_ps(b1, x1, _mm512_fmadd_ps(b0, x0, self.1)),
                )
            }
        }
    }

    // SAFETY: as above.
    unsafe impl PairLanes for Avx512 {
        #[inline(always)]
        unsafe fn load(from: &Lane32) -> Self {
            let p = from.0.as_ptr();
            unsafe { Self(_mm512_load_ps(p), _mm512_load_ps(p.add(16))) }
        }
        #[inline(always)]
        unsafe fn convert(from: &[f32; 32], to: &mut [u32; 16]) {
            super::convert(from, to);
        }
    }

    /// Two AVX-512 registers, pairs multiplied as they are.
    #[derive(Clone, Copy)]
    pub(crate) struct Bf16(__m512, __m512);

    // SAFETY: AVX-512F and AVX-512-BF16, enabled by the caller; rows are 128 bytes and aligned to
    // 64; `__m512bh` and `__m512i` are 512 plain bits.
    unsafe impl Sums for Bf16 {
        type Row = (__m512bh, __m512bh);
        const ACCUMULATORS: usize = 12;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm512_setzero_ps(), _mm512_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn store(self, to: &mut Lane32) {
            let p = to.0.as_mut_ptr();
            unsafe {
                _mm512_store_ps(p, self.0);
                _mm512_store_ps(p.add(16), self.1);
            }
        }
        #[inline(always)]
        unsafe fn row(from: &Pair32) -> Self::Row {
            let p = std::ptr::from_ref(from).cast::<__m512bh>();
            unsafe { (*p, *p.add(1)) }
        }
        #[inline(always)]
        unsafe fn dot(self, row: Self::Row, x: u32) -> Self {
            unsafe {
                let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(x.cast_signed()));
                Self(_mm512_dpbf16_ps(self.0, row.0, x), _mm512_dpbf16_ps(self.1, row.1, x))
            }
        }
    }

    // SAFETY: as above.
    unsafe impl PairLanes for Bf16 {
        const NATIVE: bool = true;
        #[inline(always)]
        unsafe fn load(from: &Lane32) -> Self {
            let p = from.0.as_ptr();
            unsafe { Self(_mm512_load_ps(p), _mm512_load_ps(p.add(16))) }
        }
        #[inline(always)]
        unsafe fn convert(from: &[f32; 32], to: &mut [u32; 16]) {
            unsafe {
                let (low, high) =
                    (_mm512_loadu_ps(from.as_ptr()), _mm512_loadu_ps(from[16..].as_ptr()));
                let pairs: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
            }
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512, Bf16};

/// Defines `$name`, which runs the generic `$imp::<L: PairLanes>` for a [`Width`] that the
/// processor has.
macro_rules! by_pair_width {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $imp:ident) => {
        $(#[$meta])*
        $vis fn $name(width: $crate::pairs::Width, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(
                    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma"
                )]
                fn bf16($($arg: $ty),*) {
                    // SAFETY: this function enables what `Bf16` needs.
                    unsafe { $imp::<$crate::pairs::Bf16>($($arg),*) }
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) {
                    // SAFETY: this function enables what `Avx512` needs.
                    unsafe { $imp::<$crate::pairs::Avx512>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    // SAFETY: this function enables what `Avx2` needs.
                    unsafe { $imp::<$crate::pairs::Avx2>($($arg),*) }
                }
                match width {
                    // SAFETY: widths come from `Width::best` or `Width::all`, which detect them.
                    $crate::pairs::Width::Bf16 => return unsafe { bf16($($arg),*) },
                    // SAFETY: as above.
                    $crate::pairs::Width::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::pairs::Width::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::pairs::Width::Plain => {}
                }
            }
            let _ = width;
            // SAFETY: `Plain` needs nothing.
            unsafe { $imp::<$crate::pairs::Plain>($($arg),*) }
        }
    };
}
pub(crate) use by_pair_width;

/// Length of `count` packed rows of `inputs` numbers.
pub(crate) fn packed_len(count: usize, inputs: usize) -> usize {
    count * inputs.div_ceil(2 * RUN) * RUN
}

by_pair_width! {
    /// out (⌈inputs/32⌉, `count`, 16) pairs from x (`count`, inputs): a kernel reads the pairs of
    /// one input of all rows at constant distances. Zeros fill the last run.
    pub(crate) fn pack_rows(x: &[f32], count: usize, out: &mut [u32]) = pack_rows_impl
}

#[inline(always)]
unsafe fn pack_rows_impl<L: PairLanes>(x: &[f32], count: usize, out: &mut [u32]) {
    let inputs = x.len() / count;
    let (out, _) = out.as_chunks_mut::<RUN>();
    for (r, row) in x.chunks_exact(inputs).enumerate() {
        for (run, x) in row.chunks(2 * RUN).enumerate() {
            let out = &mut out[run * count + r];
            if let Ok(x) = x.try_into() {
                // SAFETY: the caller enables what L needs.
                unsafe { L::convert(x, out) };
            } else {
                out.fill(0);
                for (out, x) in out.iter_mut().zip(x.chunks(2)) {
                    *out = pair(x[0], x.get(1).copied().unwrap_or(0.0));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_as_bf16_does() {
        let mut bits = 1_u32;
        for _ in 0..100_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = f32::from_bits(bits);
            if !x.is_nan() {
                assert_eq!(round(x), u32::from(half::bf16::from_f32(x).to_bits()), "{x}");
            }
        }
        assert!(low(round(f32::NAN)).is_nan());
        assert_eq!(low(round(f32::INFINITY)), f32::INFINITY);
        let x: Vec<f32> = (0..3 * 70).map(|i| (i as f32 * 0.37).sin()).collect();
        for width in Width::all() {
            let mut out = vec![7; packed_len(3, 70)];
            pack_rows(width, &x, 3, &mut out);
            for r in 0..3 {
                for p in 0..3 * RUN {
                    let found = out[(p / RUN * 3 + r) * RUN + p % RUN];
                    let at = |i: usize| if i < 70 { x[r * 70 + i] } else { 0.0 };
                    assert_eq!(found, pair(at(2 * p), at(2 * p + 1)), "{width:?}");
                }
            }
        }
        let both = pair(1.5, -0.25);
        assert_eq!((low(both), high(both)), (1.5, -0.25));
    }
}
