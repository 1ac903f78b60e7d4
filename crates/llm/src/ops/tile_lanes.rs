//! What tile registers compute, by 512-bit lanes: for a few rows, whose time is that of reading the
//! panel. A tile is sixteen rows high whatever it holds, and its loads ask for less ahead.
//!
//! The sums are those of `tdpbf16ps` to the bit: over the sixteen pairs of a tile, first and second
//! numbers in a sum each, from zero; then both are added, and that to what was there. (That
//! instruction takes numbers below 2⁻¹²⁶ as zero; lanes do not.)
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code)]

use super::tiles::Call;

/// At most so many rows.
pub(crate) const FEW: usize = 4;

/// Panels that so many rows are multiplied with at once, as far as the registers reach: several
/// streams bring more of the memory's bandwidth than one.
pub(crate) fn panels_at_once(rows: usize) -> usize {
    if rows == 1 { 4 } else { 2 }
}

/// As `tiles::multiply`, for the first `rows` rows, at most [`FEW`]; nothing is written to others.
///
/// # Safety
/// As `tiles::multiply`; the processor has AVX-512, as all with tile registers.
pub(super) unsafe fn multiply(call: Call, rows: usize) {
    // SAFETY: the function's contract.
    unsafe { multiply_panels(call, rows, 1) };
}

/// As [`multiply`], with one, two or [`panels_at_once`] panels that follow each other; their sums do
/// as well.
///
/// # Safety
/// As [`multiply`], for every panel.
pub(crate) unsafe fn multiply_panels(call: Call, rows: usize, panels: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the function's contract.
    unsafe {
        match (rows, panels) {
            (1, 1) => x86::multiply::<1, 1>(call),
            (1, 2) => x86::multiply::<1, 2>(call),
            (1, 4) => x86::multiply::<1, 4>(call),
            (2, 1) => x86::multiply::<2, 1>(call),
            (2, 2) => x86::multiply::<2, 2>(call),
            (3, 1) => x86::multiply::<3, 1>(call),
            (3, 2) => x86::multiply::<3, 2>(call),
            (FEW, 1) => x86::multiply::<FEW, 1>(call),
            (FEW, 2) => x86::multiply::<FEW, 2>(call),
            _ => unreachable!("{rows} rows with {panels} panels at once"),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no tiles of {rows} rows, {panels} panels: {:?}", call.depth);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
    };

    use super::super::{
        panels::PANEL,
        tile_product::TILE,
        tiles::{Call, SIDE},
    };
    use crate::vector::unroll;

    /// Steps that are asked for ahead of their use.
    const AHEAD: usize = 32;

    /// Both numbers of sixteen pairs.
    #[target_feature(enable = "avx512f")]
    unsafe fn split(pairs: *const u32) -> [__m512; 2] {
        // SAFETY: the caller's pointer has sixteen pairs.
        unsafe {
            let pairs = _mm512_loadu_si512(pairs.cast());
            let upper = _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed());
            [
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)),
                _mm512_castsi512_ps(_mm512_and_si512(pairs, upper)),
            ]
        }
    }

    /// # Safety
    /// As `super::multiply_panels`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn multiply<const R: usize, const P: usize>(call: Call) {
        let panel = call.depth * SIDE * PANEL;
        let mut x = [[[0.0_f32; SIDE]; 2]; R];
        for t in 0..call.depth {
            // SAFETY: the tile is there; addresses ahead are not read.
            unsafe {
                for (r, x) in x.iter_mut().enumerate() {
                    let [first, second] = split(call.a.add(t * TILE + r * SIDE));
                    _mm512_storeu_ps(x[0].as_mut_ptr(), first);
                    _mm512_storeu_ps(x[1].as_mut_ptr(), second);
                }
                let zero = _mm512_setzero_ps();
                // Sums of first and second numbers, of both halves of a panel.
                let mut sums = [[[zero; 4]; P]; R];
                let mut b = call.b.add(t * SIDE * PANEL);
                for s in 0..SIDE {
                    unroll!(P, AT => {
                        let b = b.add(AT * panel);
                        _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * PANEL).cast());
                        _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * PANEL + SIDE).cast());
                        let ([low, low2], [high, high2]) = (split(b), split(b.add(SIDE)));
                        unroll!(R, I => {
                            let first = _mm512_set1_ps(*x[I][0].get_unchecked(s));
                            let second = _mm512_set1_ps(*x[I][1].get_unchecked(s));
                            let sums = &mut sums[I][AT];
                            sums[0] = _mm512_fmadd_ps(low, first, sums[0]);
                            sums[1] = _mm512_fmadd_ps(low2, second, sums[1]);
                            sums[2] = _mm512_fmadd_ps(high, first, sums[2]);
                            sums[3] = _mm512_fmadd_ps(high2, second, sums[3]);
                        });
                    });
                    b = b.add(PANEL);
                }
                unroll!(R, I => unroll!(P, AT => {
                    let to = call.c.add(I * call.c_rows + AT * PANEL);
                    let (mut low, mut high) = (zero, zero);
                    if call.add || t > 0 {
                        low = _mm512_loadu_ps(to);
                        high = _mm512_loadu_ps(to.add(SIDE));
                    }
                    let sums = sums[I][AT];
                    low = _mm512_add_ps(low, _mm512_add_ps(sums[0], sums[1]));
                    high = _mm512_add_ps(high, _mm512_add_ps(sums[2], sums[3]));
                    _mm512_storeu_ps(to, low);
                    _mm512_storeu_ps(to.add(SIDE), high);
                }));
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::ops::{
        bf16::pair,
        panels::PANEL,
        simd::{Level, level},
        tile_product::TILE,
        tiles::{self, SIDE, Tiles},
    };

    #[test]
    fn a_few_rows_are_those_of_tiles_to_the_bit() {
        const DEPTH: usize = 5;
        if level() != Level::Avx512 {
            return;
        }
        let mut state = 1_u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let mut pairs =
            |n: usize| -> Vec<u32> { (0..n).map(|_| pair(number(), number()).to_bits()).collect() };
        let (a, b) = (pairs(DEPTH * TILE), pairs(4 * DEPTH * SIDE * PANEL));
        let start: Vec<f32> = (0..SIDE * PANEL).map(|i| (i as f32 * 0.7).sin()).collect();
        let half = |pair: u32, second: bool| {
            f32::from_bits(if second { pair & 0xFFFF_0000 } else { pair << 16 })
        };
        for (rows, add) in [(1, true), (2, false), (3, true), (4, false), (4, true)] {
            let mut c = start.clone();
            let call = |c: &mut [f32]| Call {
                depth: DEPTH,
                a: a.as_ptr(),
                a_rows: 0,
                b: b.as_ptr(),
                c: c.as_mut_ptr(),
                c_rows: PANEL,
                add,
                c_next: std::ptr::null(),
                next_rows: 0,
                next: b.as_ptr(),
                quarter: 0,
                walk: 1,
            };
            // SAFETY: the operands have what the call reaches.
            unsafe { multiply(call(&mut c), rows) };
            for panels in [1, 2, panels_at_once(rows)] {
                let mut wide = vec![0.0; FEW * panels * PANEL];
                let to = Call { c_rows: panels * PANEL, add: false, ..call(&mut wide) };
                // Panels at the end: a further one would lie outside.
                let last = b[(4 - panels) * DEPTH * SIDE * PANEL..].as_ptr();
                // SAFETY: as above.
                unsafe { multiply_panels(Call { b: last, ..to }, rows, panels) };
                for (at, found) in wide[..rows * panels * PANEL].iter().enumerate() {
                    let (r, p, n) = (at / (panels * PANEL), at / PANEL % panels, at % PANEL);
                    let panel = &b[(4 - panels + p) * DEPTH * SIDE * PANEL..];
                    let mut alone = vec![0.0; FEW * PANEL];
                    let one = Call { add: false, b: panel.as_ptr(), ..call(&mut alone) };
                    // SAFETY: as above.
                    unsafe { multiply(one, rows) };
                    assert_eq!(*found, alone[r * PANEL + n], "{rows} rows, {panels} panels");
                }
            }
            if tiles::available() {
                let mut whole = start.clone();
                // SAFETY: as above.
                unsafe { tiles::multiply(&Tiles::set_up(), call(&mut whole), tiles::SIDE) };
                assert_eq!(c[..rows * PANEL], whole[..rows * PANEL], "{rows} rows");
            }
            assert_eq!(c[rows * PANEL..], start[rows * PANEL..], "{rows} rows");
            for (at, found) in c[..rows * PANEL].iter().enumerate() {
                let (r, n) = (at / PANEL, at % PANEL);
                let mut sum = if add { start[at] } else { 0.0 };
                for t in 0..DEPTH {
                    let mut of_tile = [0.0_f32; 2];
                    for s in 0..SIDE {
                        let (x, w) = (a[t * TILE + r * SIDE + s], b[(t * SIDE + s) * PANEL + n]);
                        for (second, sum) in of_tile.iter_mut().enumerate() {
                            let second = second == 1;
                            *sum = half(x, second).mul_add(half(w, second), *sum);
                        }
                    }
                    sum += of_tile[0] + of_tile[1];
                }
                assert_eq!(*found, sum, "{rows} rows");
            }
        }
    }
}
