//! Matrix products of a strided left operand with a right operand packed into panels.
//!
//! A panel holds 32 columns, row after row, so that the kernel reads it as one stream; whoever
//! multiplies many rows with one matrix packs it once. Every element of a product sums over the
//! inner dimension in order: a row's result does not depend on the other rows, to the bit.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::lanes::{Lane32, Vector, by_width};

/// Columns of a panel.
const PANEL: usize = 32;
/// Part of the inner dimension that one sweep covers, so that the left rows stay in the cache.
const DEPTH: usize = 768;
/// Most rows that the kernel takes at a time.
const ROWS: usize = 12;

/// A read-only matrix: element (r, c) is `data[r · row_stride + c · col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// Whether a strided view stays inside its slice.
fn fits(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * row_stride + (cols - 1) * col_stride < len
}

impl<'a> Mat<'a> {
    /// A dense row-major matrix.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows that lie `row_stride` apart.
    pub(crate) fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(fits(data.len(), rows, cols, row_stride, 1), "matrix outside its slice");
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// A writable row-major matrix.
pub(crate) struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
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

/// A right operand (rows, cols), packed; the memory is reused when it is packed again.
#[derive(Default)]
pub(crate) struct Panels {
    /// (⌈cols/32⌉, rows, 32); columns beyond the last are zero.
    data: Vec<Lane32>,
    rows: usize,
    cols: usize,
}

impl std::fmt::Debug for Panels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Panels({}x{})", self.rows, self.cols)
    }
}

impl Panels {
    /// Packs a matrix.
    pub(crate) fn pack(&mut self, matrix: Mat<'_>) -> &Self {
        (self.rows, self.cols) = (matrix.rows, matrix.cols);
        let len = matrix.cols.div_ceil(PANEL) * matrix.rows;
        if self.data.len() < len {
            self.data.resize(len, Lane32::ZERO);
        }
        if matrix.rows == 0 || matrix.cols == 0 {
            return self;
        }
        for (p, panel) in self.data[..len].chunks_exact_mut(matrix.rows).enumerate() {
            let first = p * PANEL;
            let width = PANEL.min(matrix.cols - first);
            if matrix.col_stride == 1 {
                for (r, out) in panel.iter_mut().enumerate() {
                    let row = &matrix.data[r * matrix.row_stride + first..][..width];
                    out.0[..width].copy_from_slice(row);
                    out.0[width..].fill(0.0);
                }
            } else {
                pack_columns(matrix, first, width, panel);
            }
        }
        self
    }
}

/// Packs columns that are contiguous in memory, a few rows at a time.
fn pack_columns(matrix: Mat<'_>, first: usize, width: usize, panel: &mut [Lane32]) {
    const BATCH: usize = 16;
    assert_eq!(matrix.row_stride, 1, "one of the strides is 1");
    for (b, block) in panel.chunks_mut(BATCH).enumerate() {
        let start = b * BATCH;
        if width < PANEL {
            block.fill(Lane32::ZERO);
        }
        for lane in 0..width {
            let column = &matrix.data[(first + lane) * matrix.col_stride + start..];
            for (out, value) in block.iter_mut().zip(column) {
                out.0[lane] = *value;
            }
        }
    }
}

/// dst = lhs · rhs, or dst += lhs · rhs, using the first `lhs.cols` rows and `dst.cols` columns
/// of `rhs` (which may be larger). `threads` above 1 share the rows by rayon.
pub(crate) fn multiply(dst: MatMut<'_>, lhs: Mat<'_>, rhs: &Panels, write: Write, threads: usize) {
    assert!(
        dst.rows == lhs.rows && dst.cols <= rhs.cols && lhs.cols <= rhs.rows,
        "shapes do not multiply: {}x{} = {}x{} · {}x{}",
        dst.rows,
        dst.cols,
        lhs.rows,
        lhs.cols,
        rhs.rows,
        rhs.cols
    );
    if dst.rows == 0 || dst.cols == 0 {
        return;
    }
    if lhs.cols == 0 {
        if write == Write::Replace {
            for row in dst.data.chunks_mut(dst.row_stride).take(dst.rows) {
                row[..dst.cols].fill(0.0);
            }
        }
        return;
    }
    if threads <= 1 {
        sweep(&mut { dst }, lhs, rhs, write);
        return;
    }
    // Whole groups of kernel rows per thread: the bits do not depend on the split.
    let share = dst.rows.div_ceil(threads).next_multiple_of(ROWS);
    let (rows, cols, stride) = (dst.rows, dst.cols, dst.row_stride);
    dst.data[..(rows - 1) * stride + cols].par_chunks_mut(share * stride).enumerate().for_each(
        |(i, data)| {
            let first = i * share;
            let rows = share.min(rows - first);
            let lhs = Mat { data: &lhs.data[first * lhs.row_stride..], rows, ..lhs };
            sweep(&mut MatMut { data, rows, cols, row_stride: stride }, lhs, rhs, write);
        },
    );
}

by_width! {
    fn sweep(dst: &mut MatMut<'_>, lhs: Mat<'_>, rhs: &Panels, write: Write) = sweep_impl
}

/// # Safety
/// The caller enables what V needs. The views lie inside their slices and their shapes agree, as
/// `multiply` and the constructors checked.
#[inline(always)]
unsafe fn sweep_impl<V: Vector, const NV: usize>(
    dst: &mut MatMut<'_>,
    lhs: Mat<'_>,
    rhs: &Panels,
    write: Write,
) {
    let depth = lhs.cols;
    // Rows whose accumulators fit the registers: 12 · 2 of 32, 3 · 4 of 16.
    let most = match V::WIDTH {
        16 => ROWS,
        8 => 3,
        _ => 1,
    };
    for from in (0..depth).step_by(DEPTH) {
        let k = DEPTH.min(depth - from);
        let add = write == Write::Add || from > 0;
        let mut row = 0;
        while row < dst.rows {
            let take = match (dst.rows - row).min(most) {
                12.. => 12,
                8.. => 8,
                6.. => 6,
                4.. => 4,
                n => n,
            };
            for p in 0..dst.cols.div_ceil(PANEL) {
                let first = p * PANEL;
                let width = PANEL.min(dst.cols - first);
                // SAFETY: `row`, `from` and `first` are inside the checked views; panel p has
                // rhs.rows ≥ depth rows.
                unsafe {
                    let call = Call {
                        k,
                        a: lhs.data.as_ptr().add(row * lhs.row_stride + from * lhs.col_stride),
                        a_rows: lhs.row_stride,
                        a_cols: lhs.col_stride,
                        b: rhs.data.as_ptr().add(p * rhs.rows + from),
                        c: dst.data.as_mut_ptr().add(row * dst.row_stride + first),
                        c_rows: dst.row_stride,
                        width,
                        add,
                    };
                    match take {
                        12 => kernel::<V, NV, 12>(call),
                        8 => kernel::<V, NV, 8>(call),
                        6 => kernel::<V, NV, 6>(call),
                        4 => kernel::<V, NV, 4>(call),
                        3 => kernel::<V, NV, 3>(call),
                        2 => kernel::<V, NV, 2>(call),
                        _ => kernel::<V, NV, 1>(call),
                    }
                }
            }
            row += take;
        }
    }
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
}

/// # Safety
/// The caller enables what V needs; `a`, `b` and `c` have the elements that the shape and the
/// strides reach.
// Iterators over the accumulators would take their addresses, and they would live in memory.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn kernel<V: Vector, const NV: usize, const M: usize>(call: Call) {
    // SAFETY: the function's contract, for every pointer below.
    unsafe {
        let mut acc = [[V::zero(); NV]; M];
        let mut rows = [call.a; M];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = call.a.add(r * call.a_rows);
        }
        let mut offset = 0;
        let mut b = call.b;
        for _ in 0..call.k {
            let panel = b.cast::<f32>();
            if NV == 2 {
                let w = [V::load(panel), V::load(panel.add(V::WIDTH))];
                for r in 0..M {
                    let x = V::splat(*rows[r].add(offset));
                    for v in 0..NV {
                        acc[r][v] = w[v].mul_add(x, acc[r][v]);
                    }
                }
            } else {
                // Few registers: one vector of the panel at a time.
                for v in 0..NV {
                    let w = V::load(panel.add(v * V::WIDTH));
                    for r in 0..M {
                        let x = V::splat(*rows[r].add(offset));
                        acc[r][v] = w.mul_add(x, acc[r][v]);
                    }
                }
            }
            offset += call.a_cols;
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
            for r in 0..M {
                let mut sums = Lane32::ZERO;
                for v in 0..NV {
                    acc[r][v].store(sums.0.as_mut_ptr().add(v * V::WIDTH));
                }
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
                panels.pack(Mat::new(&noise(40 * 70, 3), 40, 70));
                panels.pack(rhs);
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
        panels.pack(Mat::new(&b, k, n));
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
        panels.pack(Mat::new(&b, k, n));
        let lhs = Mat::new(&a, m, k);
        let mut widest = vec![1.0; m * n];
        multiply(MatMut::new(&mut widest, m, n), lhs, &panels, Write::Add, 1);
        let close = |other: &[f32]| widest.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-5);

        let mut plain = vec![1.0; m * n];
        let mut dst = MatMut::new(&mut plain, m, n);
        // SAFETY: `Plain` needs nothing; the shapes agree.
        unsafe { sweep_impl::<Plain, 8>(&mut dst, lhs, &panels, Write::Add) };
        assert!(close(&plain));

        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma")]
            fn avx2(dst: &mut MatMut<'_>, lhs: Mat<'_>, rhs: &Panels) {
                // SAFETY: this function enables what the vector needs; the shapes agree.
                unsafe { sweep_impl::<std::arch::x86_64::__m256, 4>(dst, lhs, rhs, Write::Add) }
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
    fn an_empty_inner_dimension_gives_zero() {
        let mut c = [7.0; 2];
        let mut panels = Panels::default();
        panels.pack(Mat::new(&[], 0, 2));
        multiply(MatMut::new(&mut c, 1, 2), Mat::new(&[], 1, 0), &panels, Write::Replace, 1);
        assert_eq!(c, [0.0; 2]);
    }
}
