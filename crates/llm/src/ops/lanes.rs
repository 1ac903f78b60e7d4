//! Register-wide f32 vectors for the kernel of matrix products, which keeps more accumulators in
//! registers than plain loops are compiled to.
#![allow(unsafe_code)]

/// A register of [`WIDTH`](Self::WIDTH) lanes.
///
/// # Safety
/// The implementations use instructions that the processor must have: call them only below a
/// function that enables the matching `target_feature` after detection.
pub(crate) unsafe trait Vector: Copy {
    /// Lanes.
    const WIDTH: usize;
    /// All lanes zero.
    unsafe fn zero() -> Self;
    /// One factor in all lanes.
    unsafe fn splat(from: *const f32) -> Self;
    /// Reads `WIDTH` factors or sums.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes `WIDTH` sums.
    unsafe fn store(self, to: *mut f32);
    /// self · b + c; `self` and `b` are factors, `c` and the result sums.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// self + b, of sums.
    unsafe fn add(self, b: Self) -> Self;
}

/// Asks for the cache line of an address, which need not be valid.
#[inline(always)]
pub(crate) fn fetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction, and it reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// As [`fetch`], into the second cache only.
#[inline(always)]
pub(crate) fn fetch_far(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction, and it reads nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Baseline lanes; multiplication and addition round separately.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 4]);

// SAFETY: no instruction beyond the target's baseline; loads and stores touch WIDTH values.
unsafe impl Vector for Plain {
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
            *o += a * b;
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
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps,
        _mm256_setzero_ps, _mm256_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::Vector;

    // SAFETY: AVX2 and FMA, enabled by the caller; loads and stores touch WIDTH values.
    unsafe impl Vector for __m256 {
        const WIDTH: usize = 8;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            unsafe { _mm256_set1_ps(*from) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            unsafe { _mm256_add_ps(self, b) }
        }
    }

    // SAFETY: AVX-512F, enabled by the caller; loads and stores touch WIDTH values.
    unsafe impl Vector for __m512 {
        const WIDTH: usize = 16;
        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            unsafe { _mm512_set1_ps(*from) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            unsafe { _mm512_add_ps(self, b) }
        }
    }
}

/// Defines `$name`, which runs the generic `$imp::<V, NV>` for the widest instruction set at hand,
/// NV vectors making 32 lanes.
macro_rules! by_width {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $imp:ident) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::{__m256, __m512};
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) {
                    // SAFETY: this function enables what `__m512` needs.
                    unsafe { $imp::<__m512, 2>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    // SAFETY: this function enables what `__m256` needs.
                    unsafe { $imp::<__m256, 4>($($arg),*) }
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
            unsafe { $imp::<$crate::ops::lanes::Plain, 8>($($arg),*) }
        }
    };
}
pub(crate) use by_width;
