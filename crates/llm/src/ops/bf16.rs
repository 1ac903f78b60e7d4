//! Products of bfloat16 factors with f32 sums: pairs of factors in 32-bit lanes.
//!
//! A lane holds two consecutive factors of the inner dimension, the first in its low half, as the
//! `vdpbf16ps` instruction wants them. Processors without it widen both halves and use two
//! multiply-adds, which rounds more finely: results agree to bfloat16's precision, not to the bit.
#![allow(unsafe_code)]

use super::{lanes::Vector, simd::vectorised};

/// The bfloat16 nearest to x (ties to even), in the low half. NaN stays NaN.
#[inline(always)]
pub(crate) fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() { 0x7fc0 } else { rounded }
}

/// Two factors as one lane.
#[inline(always)]
pub(crate) fn pair(low: f32, high: f32) -> f32 {
    f32::from_bits(round(low) | (round(high) << 16))
}

/// The two factors of a lane.
#[inline(always)]
pub(super) fn halves(lane: u32) -> (f32, f32) {
    (f32::from_bits(lane << 16), f32::from_bits(lane & 0xffff_0000))
}

#[inline(always)]
fn pair_columns_impl<const FMA: bool>(x: &[f32], out: &mut [f32]) {
    let (pairs, rest) = x.as_chunks::<2>();
    for (out, [low, high]) in out.iter_mut().zip(pairs) {
        *out = pair(*low, *high);
    }
    if let ([last], Some(out)) = (rest, out.get_mut(pairs.len())) {
        *out = pair(*last, 0.0);
    }
}

vectorised! {
    fn pair_columns_by_bits(x: &[f32], out: &mut [f32]) = pair_columns_impl
}

/// out (⌈n/2⌉): neighbours of x (n) as lanes; the last is paired with zero if n is odd.
pub(crate) fn pair_columns(x: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if native() {
        // SAFETY: `native` found what the function needs.
        return unsafe { x86::pair_columns(x, out) };
    }
    pair_columns_by_bits(x, out);
}

#[inline(always)]
fn unpair_columns_impl<const FMA: bool>(lanes: &[f32], out: &mut [f32]) {
    let (pairs, rest) = out.as_chunks_mut::<2>();
    if let ([last], Some(lane)) = (rest, lanes.get(pairs.len())) {
        *last = halves(lane.to_bits()).0;
    }
    for ([low, high], lane) in pairs.iter_mut().zip(lanes) {
        (*low, *high) = halves(lane.to_bits());
    }
}

vectorised! {
    /// out (n): the numbers of lanes, as [`pair_columns`] makes them.
    pub(crate) fn unpair_columns(lanes: &[f32], out: &mut [f32]) = unpair_columns_impl
}

#[inline(always)]
fn pair_rows_impl<const FMA: bool>(low: &[f32], high: &[f32], out: &mut [f32]) {
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = pair(*low, *high);
    }
}

vectorised! {
    fn pair_rows_by_bits(low: &[f32], high: &[f32], out: &mut [f32]) = pair_rows_impl
}

/// out (n): two rows as lanes.
pub(crate) fn pair_rows(low: &[f32], high: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if native() {
        // SAFETY: `native` found what the function needs.
        return unsafe { x86::pair_rows(low, high, out) };
    }
    pair_rows_by_bits(low, high, out);
}

/// Pairs in the baseline's instructions.
#[derive(Clone, Copy)]
pub(crate) struct PlainPairs([f32; 4]);

// SAFETY: no instruction beyond the target's baseline; loads and stores touch WIDTH values.
unsafe impl Vector for PlainPairs {
    const WIDTH: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 4])
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for one value.
        Self([unsafe { from.read_unaligned() }; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's pointer is good for WIDTH values; no alignment is assumed.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        let mut out = c.0;
        for ((o, a), b) in out.iter_mut().zip(self.0).zip(b.0) {
            let ((a0, a1), (b0, b1)) = (halves(a.to_bits()), halves(b.to_bits()));
            *o += a0 * b0;
            *o += a1 * b1;
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        let mut out = self.0;
        for (o, b) in out.iter_mut().zip(b.0) {
            *o += b;
        }
        Self(out)
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use std::arch::x86_64::{
        __m256, __m256i, __m512, __m512bh, __m512i, _mm256_add_ps, _mm256_and_si256,
        _mm256_castps_si256, _mm256_castsi256_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
        _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps,
        _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_loadu_si512, _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
    };

    use super::Vector;

    /// 32 neighbours as 16 lanes, rounded by the processor.
    #[inline(always)]
    pub(crate) unsafe fn pairs16(x: *const f32) -> __m512 {
        // SAFETY: the caller's pointer is good for 32 values.
        unsafe { pairs_of(_mm512_loadu_ps(x), _mm512_loadu_ps(x.add(16))) }
    }

    /// The first and the second 16 of 32 neighbours as 16 lanes.
    #[inline(always)]
    pub(in crate::ops) unsafe fn pairs_of(low: __m512, high: __m512) -> __m512 {
        // SAFETY: the caller enables what this needs; both types are 512 plain bits.
        unsafe { std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low)) }
    }

    /// As `pair_columns`, rounded by the processor; it takes subnormal values for zero, as
    /// `vdpbf16ps` does.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) fn pair_columns(x: &[f32], out: &mut [f32]) {
        let (chunks, rest) = x.as_chunks::<32>();
        let (whole, tail) = out.as_chunks_mut::<16>();
        let done = chunks.len().min(whole.len());
        for (x, out) in chunks.iter().zip(&mut *whole) {
            // SAFETY: both arrays are as long as what is read and written.
            unsafe {
                _mm512_storeu_ps(out.as_mut_ptr(), pairs16(x.as_ptr()));
            }
        }
        if done < whole.len() {
            super::pair_columns_impl::<true>(rest, whole[done..].as_flattened_mut());
        } else {
            super::pair_columns_impl::<true>(rest, tail);
        }
    }

    /// 16 columns of two rows as lanes, rounded by the processor.
    #[inline(always)]
    pub(in crate::ops) unsafe fn rows16(low: __m512, high: __m512) -> __m512 {
        const BESIDE: [u16; 32] = {
            let mut words = [0; 32];
            let mut i = 0;
            while i < 32 {
                words[i] = i as u16 / 2 + i as u16 % 2 * 16;
                i += 1;
            }
            words
        };
        // SAFETY: the caller enables what these need; the array is as long as what is read.
        unsafe {
            let pairs = _mm512_cvtne2ps_pbh(high, low);
            let pairs = std::mem::transmute::<__m512bh, __m512i>(pairs);
            let beside = _mm512_loadu_si512(BESIDE.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_permutexvar_epi16(beside, pairs))
        }
    }

    /// As `pair_rows`, rounded by the processor.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) fn pair_rows(low: &[f32], high: &[f32], out: &mut [f32]) {
        let len = out.len().min(low.len()).min(high.len());
        let whole = len / 16 * 16;
        for at in (0..whole).step_by(16) {
            // SAFETY: `at + 16` is inside all three.
            unsafe {
                let low = _mm512_loadu_ps(low.as_ptr().add(at));
                let high = _mm512_loadu_ps(high.as_ptr().add(at));
                _mm512_storeu_ps(out.as_mut_ptr().add(at), rows16(low, high));
            }
        }
        super::pair_rows_impl::<true>(&low[whole..], &high[whole..], &mut out[whole..]);
    }

    /// Pairs by `vdpbf16ps`.
    #[derive(Clone, Copy)]
    pub(crate) struct Dot(__m512);

    // SAFETY: AVX-512F and BF16, enabled by the caller; loads and stores touch WIDTH values.
    unsafe impl Vector for Dot {
        const WIDTH: usize = 16;
        #[inline(always)]
        unsafe fn zero() -> Self {
            Self(unsafe { _mm512_setzero_ps() })
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            Self(unsafe { _mm512_set1_ps(*from) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: both types are 512 bits without a meaning of their own.
            unsafe {
                let (a, b) = (
                    std::mem::transmute::<__m512, __m512bh>(self.0),
                    std::mem::transmute::<__m512, __m512bh>(b.0),
                );
                Self(_mm512_dpbf16_ps(c.0, a, b))
            }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, b.0) })
        }
    }

    /// Pairs widened, in AVX-512.
    #[derive(Clone, Copy)]
    pub(crate) struct Pairs512(__m512);

    #[inline(always)]
    unsafe fn halves512(x: __m512) -> (__m512, __m512) {
        unsafe {
            let bits: __m512i = _mm512_castps_si512(x);
            let low = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits));
            let mask = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            (low, _mm512_castsi512_ps(_mm512_and_si512(bits, mask)))
        }
    }

    // SAFETY: AVX-512F, enabled by the caller; loads and stores touch WIDTH values.
    unsafe impl Vector for Pairs512 {
        const WIDTH: usize = 16;
        #[inline(always)]
        unsafe fn zero() -> Self {
            Self(unsafe { _mm512_setzero_ps() })
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            Self(unsafe { _mm512_set1_ps(*from) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe {
                let ((a0, a1), (b0, b1)) = (halves512(self.0), halves512(b.0));
                Self(_mm512_fmadd_ps(a1, b1, _mm512_fmadd_ps(a0, b0, c.0)))
            }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, b.0) })
        }
    }

    /// Pairs widened, in AVX2.
    #[derive(Clone, Copy)]
    pub(crate) struct Pairs256(__m256);

    #[inline(always)]
    unsafe fn halves256(x: __m256) -> (__m256, __m256) {
        unsafe {
            let bits: __m256i = _mm256_castps_si256(x);
            let low = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits));
            let mask = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            (low, _mm256_castsi256_ps(_mm256_and_si256(bits, mask)))
        }
    }

    // SAFETY: AVX2 and FMA, enabled by the caller; loads and stores touch WIDTH values.
    unsafe impl Vector for Pairs256 {
        const WIDTH: usize = 8;
        #[inline(always)]
        unsafe fn zero() -> Self {
            Self(unsafe { _mm256_setzero_ps() })
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            Self(unsafe { _mm256_set1_ps(*from) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm256_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe {
                let ((a0, a1), (b0, b1)) = (halves256(self.0), halves256(b.0));
                Self(_mm256_fmadd_ps(a1, b1, _mm256_fmadd_ps(a0, b0, c.0)))
            }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            Self(unsafe { _mm256_add_ps(self.0, b.0) })
        }
    }
}

/// Whether this processor multiplies pairs of bfloat16 by itself.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
pub(crate) fn native() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::sync::OnceLock;
        static NATIVE: OnceLock<bool> = OnceLock::new();
        *NATIVE.get_or_init(|| {
            super::simd::level() == super::simd::Level::Avx512
                && std::is_x86_feature_detected!("avx512bf16")
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Defines `$name`, which runs the generic `$imp::<V, NV>` on pairs of bfloat16 with the widest
/// instructions at hand, NV vectors making 32 lanes.
macro_rules! by_pairs {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $imp:ident) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::ops::bf16::x86::{Dot, Pairs256, Pairs512};
                #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn dot($($arg: $ty),*) {
                    // SAFETY: this function enables what `Dot` needs.
                    unsafe { $imp::<Dot, 2>($($arg),*) }
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) {
                    // SAFETY: this function enables what `Pairs512` needs.
                    unsafe { $imp::<Pairs512, 2>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    // SAFETY: this function enables what `Pairs256` needs.
                    unsafe { $imp::<Pairs256, 4>($($arg),*) }
                }
                if $crate::ops::bf16::native() {
                    // SAFETY: `native` found these features on this processor.
                    return unsafe { dot($($arg),*) };
                }
                match $crate::ops::simd::level() {
                    // SAFETY: `level` found these features on this processor.
                    $crate::ops::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::ops::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::ops::simd::Level::Baseline => {}
                }
            }
            // SAFETY: `PlainPairs` needs nothing.
            unsafe { $imp::<$crate::ops::bf16::PlainPairs, 8>($($arg),*) }
        }
    };
}
pub(crate) use by_pairs;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_even() {
        for (x, bits) in [
            (1.0f32, 0x3f80),
            (-1.0, 0xbf80),
            (f32::from_bits(0x3f80_8000), 0x3f80),
            (f32::from_bits(0x3f81_8000), 0x3f82),
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::INFINITY, 0x7f80),
            (f32::MAX, 0x7f80),
            (0.0, 0),
        ] {
            assert_eq!(round(x), bits, "{x}");
        }
        assert!(f32::from_bits(round(f32::NAN) << 16).is_nan());
        assert!(f32::from_bits(round(f32::from_bits(0x7fff_ffff)) << 16).is_nan());
        let mut out = [0.0; 2];
        pair_columns(&[1.0, -2.0, 3.0], &mut out);
        assert_eq!(halves(out[0].to_bits()), (1.0, -2.0));
        assert_eq!(halves(out[1].to_bits()), (3.0, 0.0));
    }
}
