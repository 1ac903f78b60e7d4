//! Groups of registers that hold 32 floats, for the decoder's two inner kernels. They keep many
//! accumulators in registers, which plain loops over arrays are not reliably compiled to.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use crate::ops::simd::{Level, level};

/// f32 of a cache line.
pub(crate) const LINE: usize = 16;

/// 32 floats on one cache-line boundary: a panel row of a weight, a row of a cache block.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Lane32(pub(crate) [f32; 32]);

impl Lane32 {
    pub(crate) const ZERO: Self = Self([0.0; 32]);
}

/// 32 floats in registers.
///
/// # Safety
/// The implementations use instructions that the processor must have: call them only below a
/// function that enables the matching `target_feature` after detection.
pub(crate) unsafe trait Lanes: Copy {
    /// Accumulators of this kind that fit into the registers beside the operands.
    const ACCUMULATORS: usize;
    /// All zero.
    unsafe fn zero() -> Self;
    /// Reads a row.
    unsafe fn load(from: &Lane32) -> Self;
    /// The values.
    unsafe fn store(self) -> Lane32;
    /// self + row · x.
    unsafe fn add_scaled(self, row: Self, x: f32) -> Self;
}

/// Baseline lanes; multiplication and addition round separately.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 32]);

// SAFETY: no instruction beyond the target's baseline.
unsafe impl Lanes for Plain {
    const ACCUMULATORS: usize = 1;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 32])
    }
    #[inline(always)]
    unsafe fn load(from: &Lane32) -> Self {
        Self(from.0)
    }
    #[inline(always)]
    unsafe fn store(self) -> Lane32 {
        Lane32(self.0)
    }
    #[inline(always)]
    unsafe fn add_scaled(self, row: Self, x: f32) -> Self {
        let mut out = self.0;
        for (out, row) in out.iter_mut().zip(&row.0) {
            *out += row * x;
        }
        Self(out)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_load_ps, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_store_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_store_ps,
    };

    use super::{Lane32, Lanes};

    /// Four AVX registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256, __m256, __m256);

    // SAFETY: AVX2 and FMA, enabled by the caller; a row is 32 floats and aligned to 64 bytes.
    unsafe impl Lanes for Avx2 {
        const ACCUMULATORS: usize = 2;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe {
                let z = _mm256_setzero_ps();
                Self(z, z, z, z)
            }
        }
        #[inline(always)]
        unsafe fn load(from: &Lane32) -> Self {
            let p = from.0.as_ptr();
            unsafe {
                Self(
                    _mm256_load_ps(p),
                    _mm256_load_ps(p.add(8)),
                    _mm256_load_ps(p.add(16)),
                    _mm256_load_ps(p.add(24)),
                )
            }
        }
        #[inline(always)]
        unsafe fn store(self) -> Lane32 {
            let mut to = Lane32::ZERO;
            let p = to.0.as_mut_ptr();
            unsafe {
                _mm256_store_ps(p, self.0);
                _mm256_store_ps(p.add(8), self.1);
                _mm256_store_ps(p.add(16), self.2);
                _mm256_store_ps(p.add(24), self.3);
            }
            to
        }
        #[inline(always)]
        unsafe fn add_scaled(self, row: Self, x: f32) -> Self {
            unsafe {
                let x = _mm256_set1_ps(x);
                Self(
                    _mm256_fmadd_ps(row.0, x, self.0),
                    _mm256_fmadd_ps(row.1, x, self.1),
                    _mm256_fmadd_ps(row.2, x, self.2),
                    _mm256_fmadd_ps(row.3, x, self.3),
                )
            }
        }
    }

    /// Two AVX-512 registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512, __m512);

    // SAFETY: AVX-512F, enabled by the caller; a row is 32 floats and aligned to 64 bytes.
    unsafe impl Lanes for Avx512 {
        const ACCUMULATORS: usize = 12;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe {
                let z = _mm512_setzero_ps();
                Self(z, z)
            }
        }
        #[inline(always)]
        unsafe fn load(from: &Lane32) -> Self {
            let p = from.0.as_ptr();
            unsafe { Self(_mm512_load_ps(p), _mm512_load_ps(p.add(16))) }
        }
        #[inline(always)]
        unsafe fn store(self) -> Lane32 {
            let mut to = Lane32::ZERO;
            let p = to.0.as_mut_ptr();
            unsafe {
                _mm512_store_ps(p, self.0);
                _mm512_store_ps(p.add(16), self.1);
            }
            to
        }
        #[inline(always)]
        unsafe fn add_scaled(self, row: Self, x: f32) -> Self {
            unsafe {
                let x = _mm512_set1_ps(x);
                Self(_mm512_fmadd_ps(row.0, x, self.0), _mm512_fmadd_ps(row.1, x, self.1))
            }
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// [`Lanes::ACCUMULATORS`] of the widest instruction set at hand.
pub(crate) fn accumulators() -> usize {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => Avx512::ACCUMULATORS,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Avx2::ACCUMULATORS,
        Level::Baseline => Plain::ACCUMULATORS,
    }
}

/// Defines `$name`, which runs the generic `$imp::<L: Lanes>` for the widest instruction set at
/// hand.
macro_rules! by_width {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $imp:ident) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) {
                    // SAFETY: this function enables what `Avx512` needs.
                    unsafe { $imp::<$crate::vector::Avx512>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    // SAFETY: this function enables what `Avx2` needs.
                    unsafe { $imp::<$crate::vector::Avx2>($($arg),*) }
                }
                match $crate::ops::simd::level() {
                    // SAFETY: `level` found these features on this processor.
                    $crate::ops::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::ops::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::ops::simd::Level::Baseline => {}
                }
            }
            // SAFETY: `Plain` needs nothing.
            unsafe { $imp::<$crate::vector::Plain>($($arg),*) }
        }
    };
}
pub(crate) use by_width;

/// Repeats an expression for the constant `$i` = 0, 1, … below `$n` (at most 12): indices into
/// arrays of accumulators must be constants for the accumulators to live in registers.
macro_rules! unroll {
    ($n:expr, $i:ident => $body:expr) => {
        $crate::vector::unroll!(@ $n, $i, $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $n:expr, $i:ident, $body:expr, $($value:literal)*) => {
        {
            $({
                const $i: usize = $value;
                if $i < $n {
                    $body;
                }
            })*
        }
    };
}
pub(crate) use unroll;
