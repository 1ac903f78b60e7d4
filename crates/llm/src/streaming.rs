//! Stores around the caches, for what nobody reads soon.
#![allow(unsafe_code)]

use crate::ops::bf16::pair_columns;
use crate::ops::panels::Precision;

/// Writes numbers that nobody reads soon: around the caches, where whole lines are written.
pub(crate) fn write(precision: Precision, x: &[f32], lanes: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if x86::takes(precision, x, lanes) {
        // SAFETY: `takes` found what this needs.
        unsafe { x86::write(precision, x, lanes) };
        return;
    }
    match precision {
        Precision::F32 => lanes.copy_from_slice(x),
        Precision::Bf16 => pair_columns(x, lanes),
    }
}

/// Behind the last [`write`] of a thread before others are told of it: whoever reads the lines later
/// finds them written.
pub(crate) fn written() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of the target has it.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{_mm512_loadu_ps, _mm512_stream_ps};

    use crate::ops::bf16::{native, x86::pairs16};
    use crate::ops::panels::Precision;
    use crate::ops::simd::{Level, level};

    /// Whole lines on whole lines, on a processor that has what [`write`] uses.
    pub(super) fn takes(precision: Precision, x: &[f32], lanes: &[f32]) -> bool {
        let whole = lanes.len().is_multiple_of(16) && lanes.as_ptr().addr().is_multiple_of(64);
        whole
            && match precision {
                Precision::F32 => x.len() == lanes.len() && level() == Level::Avx512,
                Precision::Bf16 => x.len() == 2 * lanes.len() && native(),
            }
    }

    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn write_pairs(x: &[f32], lanes: &mut [f32]) {
        for (x, lanes) in x.as_chunks::<32>().0.iter().zip(lanes.as_chunks_mut::<16>().0) {
            // SAFETY: both arrays are as long as what is read and written; lines are aligned.
            unsafe { _mm512_stream_ps(lanes.as_mut_ptr(), pairs16(x.as_ptr())) };
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn write_numbers(x: &[f32], lanes: &mut [f32]) {
        for (x, lanes) in x.as_chunks::<16>().0.iter().zip(lanes.as_chunks_mut::<16>().0) {
            // SAFETY: as above.
            unsafe { _mm512_stream_ps(lanes.as_mut_ptr(), _mm512_loadu_ps(x.as_ptr())) };
        }
    }

    /// # Safety
    /// [`takes`] is true.
    pub(super) unsafe fn write(precision: Precision, x: &[f32], lanes: &mut [f32]) {
        // SAFETY: the function's contract.
        unsafe {
            match precision {
                Precision::F32 => write_numbers(x, lanes),
                Precision::Bf16 => write_pairs(x, lanes),
            }
        }
    }
}
