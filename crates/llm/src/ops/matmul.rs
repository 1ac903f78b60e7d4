//! Matrix products over strided views, by the f32 kernels of the `gemm` crate.
#![allow(unsafe_code)]

use gemm_common::Parallelism;

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

/// dst = lhs · rhs, or dst += lhs · rhs. `threads` above 1 share the work by rayon.
pub(crate) fn matmul(dst: MatMut<'_>, lhs: Mat<'_>, rhs: Mat<'_>, write: Write, threads: usize) {
    assert!(
        dst.rows == lhs.rows && dst.cols == rhs.cols && lhs.cols == rhs.rows,
        "shapes do not multiply: {}x{} = {}x{} · {}x{}",
        dst.rows,
        dst.cols,
        lhs.rows,
        lhs.cols,
        rhs.rows,
        rhs.cols
    );
    let parallelism =
        if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    // The kernels want columns of the destination contiguous, so this computes
    // dst^T = rhs^T · lhs^T.
    let gemm = gemm_f32::gemm::f32::get_gemm_fn();
    // SAFETY: the constructors checked that every (row, col) of the three views lies inside its
    // slice; `dst` is exclusively borrowed, its rows do not overlap, and the shapes agree.
    unsafe {
        gemm(
            dst.cols,
            dst.rows,
            lhs.cols,
            dst.data.as_mut_ptr(),
            dst.row_stride as isize,
            1,
            write == Write::Add,
            rhs.data.as_ptr(),
            rhs.row_stride as isize,
            rhs.col_stride as isize,
            lhs.data.as_ptr(),
            lhs.row_stride as isize,
            lhs.col_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_transposes() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // (2, 3)
        let b = [1.0, 0.0, 2.0, 1.0, 0.0, 3.0]; // (3, 2)
        let mut c = [10.0; 4];
        matmul(MatMut::new(&mut c, 2, 2), Mat::new(&a, 2, 3), Mat::new(&b, 3, 2), Write::Add, 1);
        assert_eq!(c, [15.0, 21.0, 24.0, 33.0]);
        let (at, bt) = (Mat::new(&a, 3, 2).t(), Mat::new(&b, 2, 3).t());
        matmul(MatMut::new(&mut c, 2, 2), at, bt, Write::Replace, 1);
        // (1 3 5; 2 4 6) · (1 1; 0 0; 2 3)
        assert_eq!(c, [11.0, 16.0, 14.0, 20.0]);
    }

    #[test]
    fn an_empty_inner_dimension_gives_zero() {
        let mut c = [7.0; 2];
        matmul(
            MatMut::new(&mut c, 1, 2),
            Mat::new(&[], 1, 0),
            Mat::new(&[], 0, 2),
            Write::Replace,
            1,
        );
        assert_eq!(c, [0.0; 2]);
    }
}
