//! Matrix products of a strided left operand with a right operand packed into panels.
//!
//! Every element of a product sums over the
//! inner dimension in order: a row's result does not depend on the other rows, to the bit.
//!
//! Factors are f32 or pairs of bfloat16; both fill 32-bit lanes, so one kernel serves them.
#![allow(unsafe_code)]

use std::cell::RefCell;

use rayon::prelude::*;

use super::{
    bf16::by_pairs,
    lanes::{Vector, by_width, fetch, fetch_far},
    left::{CHUNK, Left, Lhs, ROWS},
    panels::{PANEL, Panels, Precision, fits},
    thirds, thirds_product, tile_product, tiles,
};
use crate::vector::Lane32;

/// Steps that one sweep covers, so that its operands stay in the cache.
const DEPTH: usize = 768;

/// Steps that the kernel asks for the panel, and for the left rows, ahead of its reads.
const AHEAD: (usize, usize) = (24, 32);

/// A writable row-major matrix.
pub(crate) struct MatMut<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// A dense row-major matrix.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows that lie `row_stride` apart; they must not overlap.
    pub(crate) fn strided(
        data: &'a mut [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Self {
        assert!(fits(data.len(), rows, cols, row_stride, 1), "matrix outside its slice");
        assert!(row_stride >= cols || rows <= 1, "rows overlap");
        Self { data, rows, cols, row_stride }
    }
}

/// What happens to the old content of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// It is replaced.
    Replace,
    /// The result is added to it.
    Add,
}

/// dst = lhs · rhs, or dst += lhs · rhs, using the first `lhs.cols` rows and `dst.cols` columns
/// of `rhs` (which may be larger). `threads` above 1 share the rows by rayon.
pub(crate) fn multiply<'a>(
    dst: MatMut<'_>,
    lhs: impl Into<Lhs<'a>>,
    rhs: &Panels,
    write: Write,
    threads: usize,
) {
    let lhs = lhs.into();
    assert!(
        dst.rows == lhs.rows() && dst.cols <= rhs.cols && lhs.cols() <= rhs.rows,
        "shapes do not multiply: {}x{} = {}x{} · {}x{}",
        dst.rows,
        dst.cols,
        lhs.rows(),
        lhs.cols(),
        rhs.rows,
        rhs.cols
    );
    if let Lhs::Blocks { data, rows, cols } = lhs {
        let group = rhs.precision.block_rows();
        let len = rows.div_ceil(group) * rhs.precision.packed_steps(cols) * group;
        assert!(data.len() >= len, "blocks outside their slice");
    }
    if dst.rows == 0 || dst.cols == 0 {
        return;
    }
    if lhs.cols() == 0 {
        if write == Write::Replace {
            for row in dst.data.chunks_mut(dst.row_stride).take(dst.rows) {
                row[..dst.cols].fill(0.0);
            }
        }
        return;
    }
    let plain = matches!(lhs, Lhs::Plain(_));
    let by_thirds = plain && (rhs.split || thirds::wanted(lhs.cols(), dst.cols));
    assert!(by_thirds || !rhs.split, "a split panel for a kernel that reads none");
    let run = match rhs.precision {
        Precision::F32 if by_thirds => thirds_product::sweep,
        Precision::F32 => sweep,
        Precision::Bf16 if tiles::available() => tile_product::sweep,
        Precision::Bf16 => sweep_pairs,
    };
    if threads <= 1 {
        run(&mut { dst }, lhs, rhs, write);
        return;
    }
    // Several shares a thread, so that none waits long for another. Whole groups of kernel rows:
    // the bits do not depend on the split.
    let (group, least) = match rhs.precision {
        Precision::F32 if by_thirds => (tile_product::ROWS, thirds_product::CHUNK),
        precision => (precision.group(), CHUNK),
    };
    let share = dst.rows.div_ceil(4 * threads).next_multiple_of(group).max(least);
    let (rows, cols, stride) = (dst.rows, dst.cols, dst.row_stride);
    dst.data[..(rows - 1) * stride + cols].par_chunks_mut(share * stride).enumerate().for_each(
        |(i, data)| {
            let first = i * share;
            let rows = share.min(rows - first);
            let lhs = lhs.part(first, rows, rhs.precision);
            run(&mut MatMut { data, rows, cols, row_stride: stride }, lhs, rhs, write);
        },
    );
}

by_width! {
    fn sweep(dst: &mut MatMut<'_>, lhs: Lhs<'_>, rhs: &Panels, write: Write) = sweep_impl
}

by_pairs! {
    fn sweep_pairs(dst: &mut MatMut<'_>, lhs: Lhs<'_>, rhs: &Panels, write: Write) = sweep_impl
}

thread_local! {
    /// Left rows of a chunk as the kernel reads them.
    static LEFT: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// # Safety
/// The caller enables what V needs. The views lie inside their slices and their shapes agree, as
/// `multiply` and the constructors checked.
#[inline(always)]
unsafe fn sweep_impl<V: Vector, const NV: usize>(
    dst: &mut MatMut<'_>,
    lhs: Lhs<'_>,
    rhs: &Panels,
    write: Write,
) {
    // Rows whose accumulators fit the registers: 12 · 2 of 32, 3 · 4 of 16.
    let most = match V::WIDTH {
        16 => ROWS,
        8 => 3,
        _ => 1,
    };
    let steps = rhs.precision.steps(lhs.cols());
    // Taken out, not borrowed in a closure: a closure would not be compiled for the caller's
    // instruction set.
    let mut buffer = LEFT.take();
    for from in (0..steps).step_by(DEPTH) {
        let k = DEPTH.min(steps - from);
        let add = write == Write::Add || from > 0;
        for start in (0..dst.rows).step_by(CHUNK) {
            let chunk = start..(start + CHUNK).min(dst.rows);
            let left = Left::new(lhs, chunk.clone(), from, k, rhs.precision, &mut buffer);
            for p in 0..dst.cols.div_ceil(PANEL) {
                let first = p * PANEL;
                let width = PANEL.min(dst.cols - first);
                let mut row = 0;
                let next = (p + 1) % dst.cols.div_ceil(PANEL);
                let next = rhs.data.as_ptr().wrapping_add(next * rhs.steps() + from).cast::<f32>();
                // So many of the next panel's lanes for each step: all of them by the last row.
                let walk = PANEL.div_ceil(chunk.len().div_ceil(most));
                while row < chunk.len() {
                    let take = match (chunk.len() - row).min(most) {
                        12.. => 12,
                        8.. => 8,
                        6.. => 6,
                        4.. => 4,
                        n => n,
                    };
                    // SAFETY: `row`, `from` and `first` are inside the checked views; panel p
                    // has rhs.steps() ≥ steps rows; rows of one call are of one block of
                    // `left`, because every `take` but a block's last divides ROWS.
                    unsafe {
                        let call = Call {
                            k,
                            a: left.data.add(row / ROWS * left.block + row % ROWS * left.row),
                            a_rows: left.row,
                            a_cols: left.step,
                            b: rhs.data.as_ptr().add(p * rhs.steps() + from),
                            c: dst.data.as_mut_ptr().add((start + row) * dst.row_stride + first),
                            c_rows: dst.row_stride,
                            width,
                            add,
                            next: next.wrapping_add(row / most * k * walk),
                            walk,
                        };
                        match (take, left.in_blocks()) {
                            (12, true) => kernel::<V, NV, 12, true>(call),
                            (12, false) => kernel::<V, NV, 12, false>(call),
                            (8, _) => kernel::<V, NV, 8, false>(call),
                            (6, _) => kernel::<V, NV, 6, false>(call),
                            (4, _) => kernel::<V, NV, 4, false>(call),
                            (3, _) => kernel::<V, NV, 3, false>(call),
                            (2, _) => kernel::<V, NV, 2, false>(call),
                            _ => kernel::<V, NV, 1, false>(call),
                        }
                    }
                    row += take;
                }
            }
        }
    }
    LEFT.set(buffer);
}

/// One call of the kernel: c (M, width) = or += a (M, k) · b (k, 32).
#[derive(Clone, Copy)]
struct Call {
    k: usize,
    a: *const f32,
    a_rows: usize,
    a_cols: usize,
    b: *const Lane32,
    c: *mut f32,
    c_rows: usize,
    width: usize,
    add: bool,
    /// What the second cache should hold soon, `walk` elements further at every step.
    next: *const f32,
    walk: usize,
}

/// # Safety
/// The caller enables what V needs; `a`, `b` and `c` have the elements that the shape and the
/// strides reach.
// Iterators over the accumulators would take their addresses, and they would live in memory.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn kernel<V: Vector, const NV: usize, const M: usize, const BLOCK: bool>(call: Call) {
    // SAFETY: the function's contract, for every pointer below.
    unsafe {
        let mut acc = [[V::zero(); NV]; M];
        let mut rows = [call.a; M];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = call.a.add(r * call.a_rows);
        }
        let step = if BLOCK { ROWS } else { call.a_cols };
        let mut offset = 0;
        let mut b = call.b;
        let mut next = call.next;
        // Which line of the sums to ask for, in 2¹⁶ths: all in three quarters of the steps.
        let (mut line, pace) = (0, ((M * NV) << 16) / (call.k - call.k / 4).max(1));
        if NV == 2 && !BLOCK {
            for r in 0..M {
                for v in 0..NV {
                    fetch(call.c.wrapping_add(r * call.c_rows + v * V::WIDTH));
                }
            }
        }
        for _ in 0..call.k {
            let panel = b.cast::<f32>();
            if NV == 2 {
                let ahead = b.wrapping_add(AHEAD.0).cast::<f32>();
                fetch(ahead);
                fetch(ahead.wrapping_add(PANEL / 2));
                fetch(call.a.wrapping_add(offset + step * AHEAD.1));
                // Where rows lie apart, their addresses fill the registers.
                if BLOCK {
                    fetch_far(next);
                    next = next.wrapping_add(call.walk);
                    let (row, half) = (line >> 17, (line >> 16) & 1);
                    fetch(call.c.wrapping_add(row * call.c_rows + half * V::WIDTH));
                    line += pace;
                }
                let w = [V::load(panel), V::load(panel.add(V::WIDTH))];
                for r in 0..M {
                    let x =
                        V::splat(if BLOCK { call.a.add(offset + r) } else { rows[r].add(offset) });
                    for v in 0..NV {
                        acc[r][v] = w[v].mul_add(x, acc[r][v]);
                    }
                }
            } else {
                // Few registers: one vector of the panel at a time.
                for v in 0..NV {
                    let w = V::load(panel.add(v * V::WIDTH));
                    for r in 0..M {
                        let x = V::splat(if BLOCK {
                            call.a.add(offset + r)
                        } else {
                            rows[r].add(offset)
                        });
                        acc[r][v] = w.mul_add(x, acc[r][v]);
                    }
                }
            }
            offset += step;
            b = b.add(1);
        }
        if call.width == PANEL {
            for r in 0..M {
                for v in 0..NV {
                    let c = call.c.add(r * call.c_rows + v * V::WIDTH);
                    let sum = if call.add { V::load(c).add(acc[r][v]) } else { acc[r][v] };
                    sum.store(c);
                }
            }
        } else {
            // In a loop of their own: rows that are picked while running would keep the sums in
            // memory for the whole function.
            let mut sums = [Lane32::ZERO; M];
            for r in 0..M {
                for v in 0..NV {
                    acc[r][v].store(sums[r].0.as_mut_ptr().add(v * V::WIDTH));
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (i, sum) in sums.0[..call.width].iter().enumerate() {
                    let c = call.c.add(r * call.c_rows + i);
                    *c = if call.add { *c + sum } else { *sum };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::panels::Mat;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect()
    }

    #[test]
    fn products_and_transposes_equal_the_definition() {
        for (m, n, k) in [(1, 1, 1), (13, 33, 5), (12, 64, 40), (31, 31, 17), (5, 70, 1000)] {
            for flip in 0..4 {
                let (a, b) = (noise(m * k, 1), noise(k * n, 2));
                let lhs = if flip & 1 == 0 { Mat::new(&a, m, k) } else { Mat::new(&a, k, m).t() };
                let rhs = if flip & 2 == 0 { Mat::new(&b, k, n) } else { Mat::new(&b, n, k).t() };
                let at = |m: &Mat<'_>, r, c| f64::from(m.data[r * m.row_stride + c * m.col_stride]);
                let mut panels = Panels::default();
                // Dirty memory must not show.
                panels.pack(Mat::new(&noise(40 * 70, 3), 40, 70), Precision::F32, 1);
                panels.pack(rhs, Precision::F32, 1);
                for (write, threads, old) in
                    [(Write::Replace, 1, 0.0), (Write::Add, 1, 1.0), (Write::Add, 3, 1.0)]
                {
                    // One column more than the product: it must stay.
                    let mut c = vec![1.0; m * (n + 1)];
                    let dst = MatMut::strided(&mut c, m, n, n + 1);
                    multiply(dst, lhs, &panels, write, threads);
                    for (r, row) in c.chunks(n + 1).enumerate() {
                        for (j, got) in row[..n].iter().enumerate() {
                            let exact: f64 = (0..k).map(|i| at(&lhs, r, i) * at(&rhs, i, j)).sum();
                            assert!((f64::from(*got) - exact - old).abs() < 1e-4, "{m} {n} {k}");
                        }
                        assert_eq!(row[n], 1.0);
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others() {
        let (m, n, k) = (29, 70, 900);
        let (a, b) = (noise(m * k, 4), noise(k * n, 5));
        let mut panels = Panels::default();
        panels.pack(Mat::new(&b, k, n), Precision::F32, 1);
        let mut all = vec![0.0; m * n];
        multiply(MatMut::new(&mut all, m, n), Mat::new(&a, m, k), &panels, Write::Replace, 1);
        for (row, x) in all.chunks(n).zip(a.chunks(k)) {
            let mut alone = vec![0.0; n];
            let dst = MatMut::new(&mut alone, 1, n);
            multiply(dst, Mat::new(x, 1, k), &panels, Write::Replace, 1);
            assert_eq!(alone, row);
        }
    }

    #[test]
    fn every_instruction_set_agrees() {
        use super::super::lanes::Plain;

        let (m, n, k) = (14, 45, 50);
        let (a, b) = (noise(m * k, 6), noise(k * n, 7));
        let mut panels = Panels::default();
        panels.pack(Mat::new(&b, k, n), Precision::F32, 1);
        let lhs = Mat::new(&a, m, k);
        let mut widest = vec![1.0; m * n];
        multiply(MatMut::new(&mut widest, m, n), lhs, &panels, Write::Add, 1);
        let close = |other: &[f32]| widest.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-5);

        let mut plain = vec![1.0; m * n];
        let mut dst = MatMut::new(&mut plain, m, n);
        // SAFETY: `Plain` needs nothing; the shapes agree.
        unsafe { sweep_impl::<Plain, 8>(&mut dst, lhs.into(), &panels, Write::Add) };
        assert!(close(&plain));

        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma")]
            fn avx2(dst: &mut MatMut<'_>, lhs: Mat<'_>, rhs: &Panels) {
                // SAFETY: this function enables what the vector needs; the shapes agree.
                unsafe {
                    sweep_impl::<std::arch::x86_64::__m256, 4>(dst, lhs.into(), rhs, Write::Add);
                }
            }
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                let mut half = vec![1.0; m * n];
                // SAFETY: just detected.
                unsafe { avx2(&mut MatMut::new(&mut half, m, n), lhs, &panels) };
                assert!(close(&half));
            }
        }
    }

    #[test]
    fn pairs_of_bfloat16_equal_products_of_rounded_factors() {
        use super::super::bf16::{PlainPairs, round};

        let rounded = |x: &f32| f64::from(f32::from_bits(round(*x) << 16));
        for (m, n, k) in [(1, 1, 1), (13, 33, 5), (110, 64, 40), (31, 31, 17), (5, 70, 1700)] {
            for flip in 0..4 {
                let (a, b) = (noise(m * k, 1), noise(k * n, 2));
                let lhs = if flip & 1 == 0 { Mat::new(&a, m, k) } else { Mat::new(&a, k, m).t() };
                let rhs = if flip & 2 == 0 { Mat::new(&b, k, n) } else { Mat::new(&b, n, k).t() };
                let at = |m: &Mat<'_>, r, c| rounded(&m.data[r * m.row_stride + c * m.col_stride]);
                let mut panels = Panels::default();
                panels.pack(Mat::new(&noise(40 * 70, 3), 40, 70), Precision::F32, 1);
                panels.pack(rhs, Precision::Bf16, 2);
                let check = |c: &[f32], old: f64| {
                    for (i, got) in c.iter().enumerate() {
                        let (r, j) = (i / n, i % n);
                        let exact: f64 = (0..k).map(|i| at(&lhs, r, i) * at(&rhs, i, j)).sum();
                        let apart = (f64::from(*got) - exact - old).abs();
                        assert!(apart < 2e-4, "{m} {n} {k} {flip}: {got} for {exact}");
                    }
                };
                for (write, threads, old) in [(Write::Replace, 1, 0.0), (Write::Add, 3, 1.0)] {
                    let mut c = vec![1.0; m * n];
                    multiply(MatMut::new(&mut c, m, n), lhs, &panels, write, threads);
                    check(&c, old);
                }
                // Without tile registers.
                let mut c = vec![1.0; m * n];
                sweep_pairs(&mut MatMut::new(&mut c, m, n), lhs.into(), &panels, Write::Add);
                check(&c, 1.0);
                // Without the instruction for pairs.
                let mut c = vec![1.0; m * n];
                let mut dst = MatMut::new(&mut c, m, n);
                // SAFETY: `PlainPairs` needs nothing; the shapes agree.
                unsafe { sweep_impl::<PlainPairs, 8>(&mut dst, lhs.into(), &panels, Write::Add) };
                check(&c, 1.0);
                #[cfg(target_arch = "x86_64")]
                {
                    use super::super::bf16::x86::{Pairs256, Pairs512};
                    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                    fn avx512(dst: &mut MatMut<'_>, lhs: Mat<'_>, rhs: &Panels) {
                        // SAFETY: this function enables what the vector needs.
                        unsafe { sweep_impl::<Pairs512, 2>(dst, lhs.into(), rhs, Write::Add) }
                    }
                    #[target_feature(enable = "avx2,fma")]
                    fn avx2(dst: &mut MatMut<'_>, lhs: Mat<'_>, rhs: &Panels) {
                        // SAFETY: this function enables what the vector needs.
                        unsafe { sweep_impl::<Pairs256, 4>(dst, lhs.into(), rhs, Write::Add) }
                    }
                    use super::super::simd::{Level, level};
                    for wide in [false, true] {
                        let mut c = vec![1.0; m * n];
                        let dst = &mut MatMut::new(&mut c, m, n);
                        match (wide, level()) {
                            // SAFETY: just detected.
                            (true, Level::Avx512) => unsafe { avx512(dst, lhs, &panels) },
                            // SAFETY: just detected.
                            (false, Level::Avx512 | Level::Avx2) => unsafe {
                                avx2(dst, lhs, &panels);
                            },
                            _ => continue,
                        }
                        check(&c, 1.0);
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_inner_dimension_gives_zero() {
        let mut c = [7.0; 2];
        let mut panels = Panels::default();
        panels.pack(Mat::new(&[], 0, 2), Precision::F32, 1);
        multiply(MatMut::new(&mut c, 1, 2), Mat::new(&[], 1, 0), &panels, Write::Replace, 1);
        assert_eq!(c, [0.0; 2]);
    }
}
