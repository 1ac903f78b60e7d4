//! Left operands of matrix products, and how the kernel finds their rows.

use super::{
    pairing::{side_blocks, side_tiles, turned},
    panels::{Mat, Precision, Rounding},
    simd::vectorised,
    tiles,
};

/// Most rows that the kernel takes at a time.
pub(super) const ROWS: usize = 12;
/// Left rows that are swept over a panel while it is in the cache.
pub(super) const CHUNK: usize = 96;

/// A left operand.
#[derive(Clone, Copy)]
pub(crate) enum Lhs<'a> {
    /// As it lies.
    Plain(Mat<'a>),
    /// In blocks of rows, as [`left_blocks`] packs them.
    Blocks { data: &'a [f32], rows: usize, cols: usize },
}

impl<'a> From<Mat<'a>> for Lhs<'a> {
    fn from(matrix: Mat<'a>) -> Self {
        Self::Plain(matrix)
    }
}

impl Lhs<'_> {
    pub(super) fn rows(self) -> usize {
        match self {
            Self::Plain(Mat { rows, .. }) | Self::Blocks { rows, .. } => rows,
        }
    }

    pub(super) fn cols(self) -> usize {
        match self {
            Self::Plain(Mat { cols, .. }) | Self::Blocks { cols, .. } => cols,
        }
    }

    /// Rows from `first` on, which begins a block.
    pub(super) fn part(self, first: usize, rows: usize, precision: Precision) -> Self {
        match self {
            Self::Plain(m) => Self::Plain(Mat { data: &m.data[first * m.row_stride..], rows, ..m }),
            Self::Blocks { data, cols, .. } => {
                Self::Blocks { data: &data[first * precision.packed_steps(cols)..], rows, cols }
            }
        }
    }
}

/// Packs `width` (at most CHUNK) left rows that lie side by side, over a part of their strided
/// inner dimension, as blocks (steps, ROWS), or in tiles where the processor multiplies these.
pub(super) fn left_blocks(
    data: &[f32],
    stride: usize,
    width: usize,
    inner: std::ops::Range<usize>,
    precision: Precision,
    out: &mut [&mut [f32]],
) {
    if precision == Precision::Bf16 && tiles::available() {
        side_tiles(data, stride, width, inner, out);
    } else {
        row_blocks(data, stride, width, inner, precision, out);
    }
}

fn row_blocks(
    data: &[f32],
    stride: usize,
    width: usize,
    inner: std::ops::Range<usize>,
    precision: Precision,
    out: &mut [&mut [f32]],
) {
    match precision {
        Precision::F32 => side_by_side(data, stride, width, inner, out),
        Precision::Bf16 => side_blocks(data, stride, width, inner, out),
    }
}

#[inline(always)]
fn side_by_side_impl<const FMA: bool>(
    data: &[f32],
    stride: usize,
    width: usize,
    inner: std::ops::Range<usize>,
    out: &mut [&mut [f32]],
) {
    // All blocks at every step, as for pairs.
    let mut lanes = [0.0; CHUNK];
    for (s, c) in inner.enumerate() {
        lanes[..width].copy_from_slice(&data[c * stride..][..width]);
        // The rows beyond the last are never read.
        let blocks = out.iter_mut().take(width.div_ceil(ROWS));
        for (out, lanes) in blocks.zip(lanes.as_chunks::<ROWS>().0) {
            out[s * ROWS..][..ROWS].copy_from_slice(lanes);
        }
    }
}

vectorised! {
    fn side_by_side(
        data: &[f32], stride: usize, width: usize, inner: std::ops::Range<usize>,
        out: &mut [&mut [f32]],
    ) = side_by_side_impl
}

/// A chunk of left rows over some steps. Row r begins `(r / ROWS) · block + (r % ROWS) · row`
/// elements on; one step further are `step` elements.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub(super) data: *const f32,
    pub(super) block: usize,
    pub(super) row: usize,
    pub(super) step: usize,
}

impl Left {
    /// Whether all rows of a step lie side by side.
    pub(super) fn in_blocks(&self) -> bool {
        self.row == 1 && self.step == ROWS
    }

    /// The rows as they lie, or a copy in `buffer` where they must be rounded, or where their
    /// inner dimension is strided and would miss the cache at every step.
    pub(super) fn new(
        lhs: Lhs<'_>,
        rows: std::ops::Range<usize>,
        from: usize,
        k: usize,
        precision: Precision,
        buffer: &mut Vec<f32>,
    ) -> Self {
        let lhs = match lhs {
            Lhs::Plain(matrix) => matrix,
            Lhs::Blocks { data, cols, .. } => {
                let block = ROWS * precision.steps(cols);
                let data = data[rows.start / ROWS * block + from * ROWS..].as_ptr();
                return Self { data, block, row: 1, step: ROWS };
            }
        };
        let dense = lhs.col_stride == 1;
        if precision == Precision::F32 && dense {
            let data = lhs.data[rows.start * lhs.row_stride + from..].as_ptr();
            return Self { data, block: ROWS * lhs.row_stride, row: lhs.row_stride, step: 1 };
        }
        let len = rows.len().next_multiple_of(ROWS) * k;
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        let buffer = &mut buffer[..len];
        let first = from * precision.factors();
        let end = (first + k * precision.factors()).min(lhs.cols);
        if dense {
            for (start, out) in rows.clone().step_by(ROWS).zip(buffer.chunks_exact_mut(ROWS * k)) {
                let data = &lhs.data[start * lhs.row_stride + first..];
                let rows = ROWS.min(rows.end - start);
                let group = Mat { data, rows, cols: end - first, ..lhs };
                turned(group, Rounding::Nearest, 0, out, ROWS);
            }
            return Self { data: buffer.as_ptr(), block: ROWS * k, row: 1, step: ROWS };
        }
        assert_eq!(lhs.row_stride, 1, "one of the strides is 1");
        let (start, width) = (rows.start, rows.len());
        let mut rest = buffer.chunks_exact_mut(ROWS * k);
        let mut blocks: [&mut [f32]; CHUNK / ROWS] =
            std::array::from_fn(|_| rest.next().unwrap_or_default());
        let data = &lhs.data[start..];
        row_blocks(data, lhs.col_stride, width, first..end, precision, &mut blocks);
        Self { data: buffer.as_ptr(), block: ROWS * k, row: 1, step: ROWS }
    }
}
