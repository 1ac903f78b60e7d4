//! Both factors of a weight gradient dW = dyᵀ·x, packed tile by tile.
//!
//! The product sums over rows, so it waits for all of them; its factors are packed as the product
//! reads them while a tile is still in the cache, and nothing else of the tile needs to be kept.
#![allow(unsafe_code)]

use std::ops::Range;

use super::{
    left::{CHUNK, Lhs, ROWS, left_blocks},
    linear::Linear,
    matmul::{MatMut, Write, multiply},
    pairing::side_tiles,
    panels::{Mat, PANEL, Panels, Precision, Rounding, apart, pack_block, split_block},
    thirds,
    tile_product::INNER,
    tiles::{self, SIDE},
};
use crate::large_pages::reserve;
use crate::share::Disjoint;
use crate::vector::Lane32;

/// dy (R, O) and x (R, I); the memory is reused.
#[derive(Debug, Default)]
pub(crate) struct Factors {
    dy: Blocks,
    x: Panels,
}

/// A left operand (cols, rows)ᵀ.
#[derive(Debug, Default)]
struct Blocks {
    /// In blocks of columns, as [`left_blocks`] packs them, cut into lines; columns beyond the last
    /// are unspecified. Or row after row, if the product splits them itself; then `x` is in parts.
    data: Vec<Lane32>,
    rows: usize,
    cols: usize,
    plain: bool,
}

/// [`Factors`] whose rows are being cut into tiles.
pub(crate) struct Filling<'a> {
    dy: Disjoint<'a, f32>,
    x: Disjoint<'a, Lane32>,
    rows: usize,
    outputs: usize,
    inputs: usize,
    precision: Precision,
    plain: bool,
    next: usize,
}

/// The rows of one tile in [`Factors`].
pub(crate) struct FactorTile<'a> {
    dy: Disjoint<'a, f32>,
    x: Disjoint<'a, Lane32>,
    outputs: usize,
    inputs: usize,
    precision: Precision,
    plain: bool,
    rows: usize,
    /// Steps of all rows, and those before this tile's.
    steps: usize,
    first: usize,
}

impl Factors {
    /// Begins anew with the rows of a layer; what was packed before is lost.
    pub(crate) fn fill(&mut self, linear: Linear) -> Filling<'_> {
        let Linear { rows, inputs, outputs, precision, .. } = linear;
        let plain = precision == Precision::F32 && thirds::wanted(rows, inputs);
        let block = precision.block_rows();
        let len = if plain {
            rows * apart(outputs)
        } else {
            outputs.div_ceil(block) * precision.packed_steps(rows) * block
        };
        if self.dy.data.len() < len.div_ceil(PANEL) {
            self.dy.data = Vec::new();
            reserve(&mut self.dy.data, len.div_ceil(PANEL));
            self.dy.data.resize(len.div_ceil(PANEL), Lane32::ZERO);
        }
        (self.dy.rows, self.dy.cols, self.dy.plain) = (rows, outputs, plain);
        let x = self.x.shape(rows, inputs, precision, plain);
        let dy = Disjoint::new(&mut bytemuck::cast_slice_mut(&mut self.dy.data)[..len]);
        Filling { dy, x: Disjoint::new(x), rows, outputs, inputs, precision, plain, next: 0 }
    }

    /// dw (O, I) += dyᵀ · x, once every tile has brought its rows.
    pub(crate) fn add_product(&self, dw: &mut [f32], threads: usize) {
        let Self { dy: Blocks { data, rows, cols, plain }, x } = self;
        let (data, rows, cols) = (bytemuck::cast_slice(data), *rows, *cols);
        let dy = if *plain {
            Lhs::Plain(Mat::strided(data, rows, cols, apart(cols)).t())
        } else {
            Lhs::Blocks { data, rows: cols, cols: rows }
        };
        multiply(MatMut::new(dw, cols, x.cols), dy, x, Write::Add, threads);
    }
}

impl<'a> Filling<'a> {
    /// The next `rows` rows. All tiles but the last have whole groups.
    pub(crate) fn cut(&mut self, rows: usize) -> FactorTile<'a> {
        let first = self.next;
        self.next += rows;
        assert!(self.next <= self.rows, "tiles beyond the last row");
        let whole = match self.precision {
            Precision::Bf16 if tiles::available() => 2 * tiles::SIDE,
            Precision::F32 if self.plain => INNER,
            precision => precision.factors(),
        };
        assert!(first.is_multiple_of(whole), "a tile begins within packed steps");
        FactorTile {
            dy: self.dy,
            x: self.x,
            outputs: self.outputs,
            inputs: self.inputs,
            precision: self.precision,
            plain: self.plain,
            rows,
            steps: self.precision.packed_steps(self.rows),
            first: first / self.precision.factors(),
        }
    }
}

impl FactorTile<'_> {
    /// Brings the gradients of the outputs (rows, O) and the inputs (rows, I).
    pub(crate) fn bring(&mut self, dy: &[f32], x: &[f32]) {
        self.dy(Mat::new(dy, self.rows, self.outputs));
        self.x(x);
    }

    /// Brings the gradients of the outputs (rows, O).
    pub(crate) fn dy(&mut self, dy: Mat<'_>) {
        let (cols, steps) = (self.outputs, self.precision.packed_steps(self.rows));
        let group = self.precision.block_rows();
        assert!(dy.rows == self.rows && dy.cols == cols && dy.col_stride == 1, "another shape");
        if self.plain {
            let stride = apart(cols);
            // SAFETY: rows of this tile, of which `Filling` cut only one.
            let out = unsafe { self.dy.part(self.first * stride..(self.first + dy.rows) * stride) };
            for (out, row) in out.chunks_exact_mut(stride).zip(dy.data.chunks(dy.row_stride)) {
                out[..cols].copy_from_slice(&row[..cols]);
            }
            return;
        }
        for start in (0..cols).step_by(CHUNK) {
            let width = CHUNK.min(cols - start);
            let mut blocks: [&mut [f32]; CHUNK / ROWS] = Default::default();
            for (i, block) in blocks.iter_mut().take(width.div_ceil(group)).enumerate() {
                let place = (start / group + i) * self.steps + self.first;
                // SAFETY: steps of this tile, of which `Filling` cut only one.
                *block = unsafe { self.dy.part(place * group..(place + steps) * group) };
            }
            let data = dy.data.get(start..).unwrap_or_default();
            left_blocks(data, dy.row_stride, width, 0..self.rows, self.precision, &mut blocks);
        }
    }

    /// Brings a square of the gradients of the outputs: up to 32 rows from `row` on, 32 outputs from
    /// `column` on. Rows are in tiles.
    pub(crate) fn dy_square(&mut self, row: usize, column: usize, dy: Mat<'_>) {
        let steps = self.square(row, column, self.outputs, dy);
        let mut blocks: [&mut [f32]; PANEL / SIDE] = Default::default();
        for (i, block) in blocks.iter_mut().enumerate() {
            let place = (column / SIDE + i) * self.steps + steps.start;
            // SAFETY: steps of this tile, of which `Filling` cut only one.
            *block = unsafe { self.dy.part(place * SIDE..(place + steps.len()) * SIDE) };
        }
        side_tiles(dy.data, dy.row_stride, PANEL, 0..dy.rows, &mut blocks);
    }

    /// Brings a square of the inputs: up to 32 rows from `row` on, 32 inputs from `column` on.
    pub(crate) fn x_square(&mut self, row: usize, column: usize, x: Mat<'_>) {
        let steps = self.square(row, column, self.inputs, x);
        let place = column / PANEL * self.steps + steps.start;
        // SAFETY: steps of this tile, of which `Filling` cut only one.
        let out = unsafe { self.x.part(place..place + steps.len()) };
        pack_block(x, self.precision, Rounding::Nearest, 0, out);
    }

    /// The steps of a square.
    fn square(&self, row: usize, column: usize, columns: usize, x: Mat<'_>) -> Range<usize> {
        assert!(self.precision == Precision::Bf16 && tiles::available(), "rows are not in tiles");
        assert!(row.is_multiple_of(PANEL) && column.is_multiple_of(PANEL), "not on whole tiles");
        assert!(
            x.cols == PANEL
                && column + PANEL <= columns
                && x.col_stride == 1
                && (x.rows == PANEL || row + x.rows == self.rows),
            "another shape"
        );
        self.first + row / 2..self.first + row / 2 + SIDE
    }

    /// Brings the inputs (rows, I).
    pub(crate) fn x(&mut self, x: &[f32]) {
        let cols = self.inputs;
        let x = Mat::new(x, self.rows, cols);
        if self.plain {
            let steps = |rows: usize| 2 * thirds::lanes(rows) / PANEL;
            let (first, all, mine) = (steps(self.first), steps(self.steps), steps(self.rows));
            for panel in 0..cols.div_ceil(PANEL) {
                let place = panel * all + first;
                // SAFETY: tiles of this tile's rows, of which `Filling` cut only one.
                let out = unsafe { self.x.part(place..place + mine) };
                split_block(x, panel, out);
            }
            return;
        }
        let steps = self.precision.packed_steps(self.rows);
        for panel in 0..cols.div_ceil(PANEL) {
            let place = panel * self.steps + self.first;
            // SAFETY: steps of this tile, of which `Filling` cut only one.
            let out = unsafe { self.x.part(place..place + steps) };
            pack_block(x, self.precision, Rounding::Nearest, panel, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise;
    use super::*;

    #[test]
    fn tiles_make_the_product_of_all_rows() {
        for precision in [Precision::F32, Precision::Bf16] {
            for (rows, outputs, inputs) in
                [(1, 1, 1), (37, 13, 33), (240, 110, 70), (1701, 12, 5), (300, 40, 530)]
            {
                let linear = Linear { rows, inputs, outputs, threads: 1, precision };
                let (dy, x) = (noise(rows * outputs, 1), noise(rows * inputs, 2));
                let mut all = vec![1.0; outputs * inputs];
                let mut panels = Panels::default();
                panels.pack(Mat::new(&x, rows, inputs), precision, 1);
                let dst = MatMut::new(&mut all, outputs, inputs);
                multiply(dst, Mat::new(&dy, rows, outputs).t(), &panels, Write::Add, 1);
                let mut factors = Factors::default();
                // Dirty memory must not show.
                let dirty = Linear { rows: 300, inputs: 90, outputs: 120, ..linear };
                let mut tile = dirty.fill_all(&mut factors);
                tile.dy(Mat::new(&vec![f32::NAN; 300 * 120], 300, 120));
                tile.x(&vec![f32::NAN; 300 * 90]);
                let mut filling = factors.fill(linear);
                let group = thirds::rows_together(precision, inputs);
                for from in (0..rows).step_by(2 * group) {
                    let to = (from + 2 * group).min(rows);
                    let mut tile = filling.cut(to - from);
                    tile.x(&x[from * inputs..to * inputs]);
                    let dy = &dy[from * outputs..to * outputs];
                    tile.dy(Mat::new(dy, to - from, outputs));
                }
                let mut tiled = vec![1.0; outputs * inputs];
                factors.add_product(&mut tiled, 3);
                assert_eq!(tiled, all, "{precision:?} {rows} {outputs} {inputs}");
            }
        }
    }

    impl Linear {
        fn fill_all(self, factors: &mut Factors) -> FactorTile<'_> {
            factors.fill(self).cut(self.rows)
        }
    }
}
