//! Right operands of matrix products, packed into panels.
//!
//! A panel holds 32 columns, row after row, so that a kernel reads it as one stream; whoever
//! multiplies many rows with one matrix packs it once. Factors are f32, or bfloat16 in pairs along
//! the inner dimension: both fill 32-bit lanes. A *step* is one lane of the inner dimension: one
//! f32, or one pair.

use rayon::prelude::*;

use super::{
    left::ROWS,
    pairing::{SIDE, beside, turned},
    thirds, tiles,
};
use crate::large_pages::reserve;
use crate::vector::{LINE, Lane32};

/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// Number format of the factors of matrix products. Sums, and everything else, are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// IEEE single precision.
    #[default]
    F32,
    /// bfloat16: 8 bits of precision, the range of f32. Twice as fast where the processor
    /// multiplies pairs by itself.
    Bf16,
}

impl Precision {
    /// Steps of an inner dimension.
    pub(super) fn steps(self, len: usize) -> usize {
        match self {
            Self::F32 => len,
            Self::Bf16 => len.div_ceil(2),
        }
    }

    /// Steps that packed operands have: whole tiles where the processor multiplies these.
    pub(super) fn packed_steps(self, len: usize) -> usize {
        match self {
            Self::Bf16 if tiles::available() => self.steps(len).next_multiple_of(tiles::SIDE),
            _ => self.steps(len),
        }
    }

    /// Left rows that are packed together.
    pub(super) fn block_rows(self) -> usize {
        match self {
            Self::Bf16 if tiles::available() => tiles::SIDE,
            _ => ROWS,
        }
    }

    /// Rows that are best computed together: shares of a product that threads take, and tiles of
    /// rows, are multiples of it.
    pub(crate) fn group(self) -> usize {
        match self {
            Self::Bf16 if tiles::available() => 2 * tiles::SIDE,
            _ => ROWS,
        }
    }

    /// Elements of the inner dimension in one step.
    pub(super) fn factors(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
        }
    }
}

/// A read-only matrix: element (r, c) is `data[r · row_stride + c · col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a> {
    pub(super) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

/// How far apart rows of `cols` elements lie best. At a multiple of a page, lines of many rows share
/// few places of a cache, and none stays.
pub(crate) fn apart(cols: usize) -> usize {
    const PAGE: usize = 1024;
    if cols > 0 && cols.is_multiple_of(PAGE) { cols + LINE } else { cols }
}

/// Whether a strided view stays inside its slice.
pub(super) fn fits(
    len: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
) -> bool {
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

    /// Up to `count` rows from `first` on.
    pub(crate) fn some(self, first: usize, count: usize) -> Self {
        let first = first.min(self.rows);
        let data = self.data.get(first * self.row_stride..).unwrap_or_default();
        Self { data, rows: count.min(self.rows - first), ..self }
    }

    /// Some columns of a matrix whose rows are contiguous.
    pub(super) fn columns(self, columns: &std::ops::Range<usize>) -> Self {
        assert!(self.col_stride == 1 && columns.end <= self.cols, "columns beyond the last");
        let data = self.data.get(columns.start..).unwrap_or_default();
        Self { data, cols: columns.len(), ..self }
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

/// A right operand (rows, cols), packed; the memory is reused when it is packed again.
#[derive(Default)]
pub(crate) struct Panels {
    /// (⌈cols/32⌉, steps, 32); columns and steps beyond the last are zero.
    pub(super) data: Vec<Lane32>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) precision: Precision,
    /// Of f32 in parts: every panel as `split_panel` makes it.
    pub(super) split: bool,
}

impl std::fmt::Debug for Panels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Panels({}x{}, {:?})", self.rows, self.cols, self.precision)
    }
}

impl Panels {
    /// Room for a matrix (rows, cols), whose content is unspecified.
    pub(super) fn shape(
        &mut self,
        rows: usize,
        cols: usize,
        precision: Precision,
        split: bool,
    ) -> &mut [Lane32] {
        (self.rows, self.cols, self.precision, self.split) = (rows, cols, precision, split);
        self.lanes()
    }

    fn lanes(&mut self) -> &mut [Lane32] {
        let len = self.cols.div_ceil(PANEL) * self.steps();
        if self.data.len() < len {
            self.data = Vec::new();
            reserve(&mut self.data, len);
            self.data.resize(len, Lane32::ZERO);
        }
        &mut self.data[..len]
    }

    /// Packs a matrix; `threads` above 1 share the panels by rayon.
    pub(crate) fn pack(&mut self, matrix: Mat<'_>, precision: Precision, threads: usize) -> &Self {
        self.fill(matrix, precision, Rounding::Nearest, threads)
    }

    /// Packs a matrix of weights, or its transpose: either way a weight becomes the same bfloat16.
    pub(crate) fn pack_weights(
        &mut self,
        matrix: Mat<'_>,
        precision: Precision,
        threads: usize,
    ) -> &Self {
        self.fill(matrix, precision, Rounding::ByPlace, threads)
    }

    fn fill(
        &mut self,
        matrix: Mat<'_>,
        precision: Precision,
        rounding: Rounding,
        threads: usize,
    ) -> &Self {
        (self.rows, self.cols, self.precision) = (matrix.rows, matrix.cols, precision);
        // Weights are read often: once for every tile of rows.
        self.split = precision == Precision::F32
            && rounding == Rounding::ByPlace
            && thirds::wanted(matrix.rows, matrix.cols);
        let (steps, split) = (self.steps(), self.split);
        let data = self.lanes();
        if matrix.rows == 0 || matrix.cols == 0 {
            return self;
        }
        let fill = |(p, panel): (usize, &mut [Lane32])| {
            if split {
                split_block(matrix, p, panel);
            } else {
                pack_block(matrix, precision, rounding, p, panel);
            }
        };
        if threads <= 1 {
            data.chunks_exact_mut(steps).enumerate().for_each(fill);
        } else {
            data.par_chunks_exact_mut(steps).enumerate().for_each(fill);
        }
        self
    }

    pub(super) fn steps(&self) -> usize {
        if self.split {
            2 * thirds::lanes(self.rows) / PANEL
        } else {
            self.precision.packed_steps(self.rows)
        }
    }
}

/// How numbers become bfloat16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// To the nearest.
    Nearest,
    /// Every element at a threshold of its own.
    ByPlace,
}

/// Packs panel `p` of a matrix; steps beyond its last are zero.
pub(crate) fn pack_block(
    matrix: Mat<'_>,
    precision: Precision,
    rounding: Rounding,
    p: usize,
    panel: &mut [Lane32],
) {
    let first = p * PANEL;
    let width = PANEL.min(matrix.cols - first);
    let (panel, beyond) = panel.split_at_mut(precision.steps(matrix.rows));
    beyond.fill(Lane32::ZERO);
    match (precision, matrix.col_stride) {
        (Precision::F32, 1) => pack_rows(matrix, first, width, panel),
        (Precision::F32, _) => pack_columns(matrix, first, width, panel),
        // One input has both strides 1; a weight's numbers are rounded by their places in the weight,
        // whichever way it is read.
        (Precision::Bf16, 1) if matrix.row_stride > 1 || matrix.cols == 1 => {
            beside(matrix, rounding, first, width, panel);
        }
        (Precision::Bf16, _) => pack_column_pairs(matrix, rounding, first, panel),
    }
}

/// Packs panel `p` of a matrix of f32 in parts.
pub(super) fn split_block(matrix: Mat<'_>, p: usize, panel: &mut [Lane32]) {
    /// Whole tiles.
    const ROWS: usize = 128;
    let mut some = [Lane32::ZERO; ROWS];
    let panel: &mut [u32] = bytemuck::cast_slice_mut(panel);
    let firsts = (0..matrix.rows).step_by(ROWS);
    for (first, out) in firsts.zip(panel.chunks_mut(2 * thirds::lanes(ROWS))) {
        let rows = matrix.some(first, ROWS);
        let some = &mut some[..rows.rows];
        pack_block(rows, Precision::F32, Rounding::Nearest, p, some);
        thirds::split_panel(some, out, some.as_ptr());
    }
}

fn pack_rows(matrix: Mat<'_>, first: usize, width: usize, panel: &mut [Lane32]) {
    for (r, out) in panel.iter_mut().enumerate() {
        let row = &matrix.data[r * matrix.row_stride + first..][..width];
        out.0[..width].copy_from_slice(row);
        out.0[width..].fill(0.0);
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

fn pack_column_pairs(matrix: Mat<'_>, rounding: Rounding, first: usize, panel: &mut [Lane32]) {
    assert_eq!(matrix.row_stride, 1, "one of the strides is 1");
    let columns = matrix.t();
    let out = bytemuck::cast_slice_mut(panel);
    for start in (0..PANEL).step_by(SIDE) {
        let from = (first + start).min(matrix.cols);
        let rows = SIDE.min(matrix.cols - from);
        let data = columns.data.get(from * columns.row_stride..).unwrap_or_default();
        turned(Mat { data, rows, ..columns }, rounding, from, &mut out[start..], PANEL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::bf16::halves;

    /// The numbers of packed pairs, row by row.
    fn unpacked(panels: &Panels) -> Vec<f32> {
        let at = |row: usize, column: usize| {
            let lane = panels.data[column / PANEL * panels.steps() + row / 2].0[column % PANEL];
            let (low, high) = halves(lane.to_bits());
            if row.is_multiple_of(2) { low } else { high }
        };
        let rows = 0..panels.rows;
        rows.flat_map(|row| (0..panels.cols).map(move |column| at(row, column))).collect()
    }

    #[test]
    fn a_weight_is_the_same_number_forward_and_backward() {
        for (outputs, inputs) in [(71, 45), (71, 1), (1, 45)] {
            let w: Vec<f32> = (0..outputs * inputs).map(|i| (i as f32 * 0.7123).sin()).collect();
            let matrix = Mat::new(&w, outputs, inputs);
            let (mut plain, mut turned) = (Panels::default(), Panels::default());
            plain.pack_weights(matrix, Precision::Bf16, 2);
            turned.pack_weights(matrix.t(), Precision::Bf16, 1);
            let (plain, turned) = (unpacked(&plain), unpacked(&turned));
            for (i, x) in plain.iter().enumerate() {
                assert_eq!(*x, turned[i % inputs * outputs + i / inputs]);
                assert!((x - w[i]).abs() <= w[i].abs() / 128.0);
            }
            // Some go to the farther number.
            let mut nearest = Panels::default();
            nearest.pack(matrix, Precision::Bf16, 1);
            assert_ne!(plain, unpacked(&nearest));
        }
    }
}
