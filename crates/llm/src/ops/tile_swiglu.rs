//! The products before and behind SwiGLU in training, by tile registers: squares of sums go through the
//! nonlinearity, forward and backward, and on as tiles of bfloat16 while they are in the first cache.
//!
//! Rows of both halves' sums in f32 are three times what the second cache holds beside the weights.
#![allow(unsafe_code)]

use super::{
    bf16::halves,
    factors::FactorTile,
    left::Lhs,
    matmul::{MatMut, Write, multiply},
    pairing::dense_tiles,
    panels::{Mat, PANEL, Panels, Precision},
    simd::vectorised,
    swiglu,
    tile_product::{self, INNER, ROWS, TILE},
    tiles::{self, Call, SIDE, Tiles},
};
use crate::vector::Lane32;

/// Whether tiles serve a feed-forward layer of this width.
pub(crate) fn wanted(precision: Precision, width: usize) -> bool {
    precision == Precision::Bf16 && tiles::available() && width > 0 && width.is_multiple_of(PANEL)
}

/// Lanes of `rows` rows of `cols` numbers in tiles.
pub(crate) fn lanes(rows: usize, cols: usize) -> usize {
    rows.div_ceil(SIDE) * cols.div_ceil(INNER) * TILE
}

/// Rows (R, C) in tiles.
fn pack<'a>(x: &[f32], cols: usize, out: &'a mut [f32]) -> Lhs<'a> {
    let rows = x.len() / cols;
    let out = &mut out[..lanes(rows, cols)];
    for (x, out) in x.chunks(SIDE * cols).zip(out.chunks_exact_mut(lanes(SIDE, cols))) {
        dense_tiles(Mat::new(x, x.len() / cols, cols), out);
    }
    Lhs::Blocks { data: out, rows, cols }
}

/// Products of all rows with one panel after the other.
struct Products<'a> {
    registers: Tiles,
    left: &'a [f32],
    /// Lanes of sixteen rows.
    block: usize,
    rows: usize,
    weights: &'a Panels,
}

impl<'a> Products<'a> {
    fn new(left: Lhs<'a>, weights: &'a Panels) -> Self {
        let Lhs::Blocks { data, rows, cols } = left else { unreachable!("rows in tiles") };
        assert!(weights.precision == Precision::Bf16 && weights.rows == cols, "another layer");
        let (registers, block) = (Tiles::set_up(), lanes(SIDE, cols));
        assert!(data.len() >= rows.div_ceil(SIDE) * block, "rows outside their slice");
        Self { registers, left: data, block, rows, weights }
    }

    /// The sums of up to 32 rows from `first` on with a whole panel, `stride` elements apart. Over all
    /// rows, the panel `then` is fetched.
    fn square(&self, panel: usize, then: usize, first: usize, sums: &mut [Lane32], stride: usize) {
        let steps = self.weights.steps();
        let place = |panel: usize| &self.weights.data[panel * steps..][..steps];
        let (rows, depth) = (ROWS.min(self.rows - first), steps / SIDE);
        let walk = (INNER / 4).div_ceil(self.rows.div_ceil(ROWS));
        assert!(sums.len() * PANEL >= (ROWS - 1) * stride + PANEL, "sums outside their slice");
        let next = place(then).as_ptr().cast::<u32>();
        let call = Call {
            depth,
            a: self.left[first / SIDE * self.block..].as_ptr().cast(),
            a_rows: self.block,
            b: place(panel).as_ptr().cast(),
            c: sums.as_mut_ptr().cast(),
            c_rows: stride,
            add: false,
            c_next: std::ptr::null(),
            next_rows: 0,
            next: next.wrapping_add(first / ROWS * depth * walk * SIDE),
            quarter: depth * TILE / 2,
            walk,
        };
        // SAFETY: left rows are there in whole tiles, as deep as the panel; so are sums of 32 rows.
        unsafe { tile_product::multiply(&self.registers, call, rows) };
    }
}

/// y (R, H) += (silu(x gateᵀ) ⊙ (x upᵀ)) · downᵀ of x (R, H). Keeps gate and up for the backward pass,
/// rounded to bfloat16, in `kept`: [`lanes`] of (R, 2 I); `buffer` has those of (R, I) and (R, H).
pub(crate) fn forward(
    x: &[f32],
    [gate_up, down]: [&Panels; 2],
    y: &mut [f32],
    kept: &mut [f32],
    buffer: &mut [f32],
) {
    let (hidden, width) = (gate_up.rows, down.rows);
    let rows = x.len() / hidden;
    let (active, left) = buffer.split_at_mut(lanes(rows, width));
    let products = Products::new(pack(x, hidden, left), gate_up);
    let (couples, kept_block) = (width / PANEL, lanes(SIDE, 2 * width));
    let mut sums = [[Lane32::ZERO; 2]; ROWS];
    let mut product = [Lane32::ZERO; SIDE];
    for couple in 0..couples {
        let then = (couple + 1) % couples;
        for first in (0..rows).step_by(ROWS) {
            let flat = sums.as_flattened_mut();
            products.square(couple, then, first, flat, 2 * PANEL);
            products.square(couples + couple, couples + then, first, &mut flat[1..], 2 * PANEL);
            for (start, sums) in (first..rows).step_by(SIDE).zip(sums.chunks_exact(SIDE)) {
                let count = SIDE.min(rows - start);
                let sums: &[f32] = bytemuck::cast_slice(sums[..count].as_flattened());
                let kept = &mut kept[start / SIDE * kept_block..][..kept_block];
                for (at, half) in [(couple, sums), (couples + couple, &sums[PANEL..])] {
                    dense_tiles(Mat::strided(half, count, PANEL, 2 * PANEL), tile(kept, at));
                }
                let product: &mut [f32] = bytemuck::cast_slice_mut(&mut product[..count]);
                swiglu::forward_near(sums, PANEL, product);
                let block = &mut active[start / SIDE * lanes(SIDE, width)..];
                dense_tiles(Mat::new(product, count, PANEL), tile(block, couple));
            }
        }
    }
    drop(products);
    let active = Lhs::Blocks { data: active, rows, cols: width };
    multiply(MatMut::new(y, rows, hidden), active, down, Write::Add, 1);
}

/// From dy (R, H), the gradient of the layer's result, and what [`forward`] kept: dx (R, H), and the
/// factors of both weights' gradients but x. `down` and `gate_up` are packed for the backward pass;
/// `buffer` has the [`lanes`] of (R, 2 I) and (R, H).
pub(crate) fn backward(
    dy: &[f32],
    [down, gate_up]: [&Panels; 2],
    kept: &[f32],
    dx: &mut [f32],
    [into_down, into_gate_up]: [&mut FactorTile<'_>; 2],
    buffer: &mut [f32],
) {
    let (hidden, width) = (down.rows, down.cols);
    let rows = dy.len() / hidden;
    let (d_gate_up, left) = buffer.split_at_mut(lanes(rows, 2 * width));
    let products = Products::new(pack(dy, hidden, left), down);
    let (couples, block) = (width / PANEL, lanes(SIDE, 2 * width));
    let mut d_active = [Lane32::ZERO; ROWS];
    let mut active = [Lane32::ZERO; ROWS];
    let [mut both, mut d_both] = [[[Lane32::ZERO; 2]; ROWS]; 2];
    for couple in 0..couples {
        for first in (0..rows).step_by(ROWS) {
            products.square(couple, (couple + 1) % couples, first, &mut d_active, PANEL);
            let count = ROWS.min(rows - first);
            let starts = (first..rows).step_by(SIDE);
            for (start, both) in starts.clone().zip(both.chunks_exact_mut(SIDE)) {
                let kept = &kept[start / SIDE * block..][..block];
                let both: &mut [f32] = bytemuck::cast_slice_mut(both.as_flattened_mut());
                tile_numbers(&kept[couple * TILE..][..TILE], both, 2 * PANEL);
                let up = &kept[(couples + couple) * TILE..][..TILE];
                tile_numbers(up, &mut both[PANEL..], 2 * PANEL);
            }
            let active: &mut [f32] = bytemuck::cast_slice_mut(&mut active[..count]);
            let d_flat: &mut [f32] = bytemuck::cast_slice_mut(d_both[..count].as_flattened_mut());
            let both = bytemuck::cast_slice(both[..count].as_flattened());
            swiglu::backward_near(
                bytemuck::cast_slice(&d_active[..count]),
                both,
                PANEL,
                active,
                d_flat,
            );
            into_down.x_square(first, couple * PANEL, Mat::new(active, count, PANEL));
            for (half, at) in [(0, couple), (PANEL, couples + couple)] {
                let d = Mat::strided(&d_flat[half..], count, PANEL, 2 * PANEL);
                into_gate_up.dy_square(first, at * PANEL, d);
                for (start, d) in starts.clone().zip([d.some(0, SIDE), d.some(SIDE, SIDE)]) {
                    dense_tiles(d, tile(&mut d_gate_up[start / SIDE * block..], at));
                }
            }
        }
    }
    drop(products);
    let d_gate_up = Lhs::Blocks { data: d_gate_up, rows, cols: 2 * width };
    multiply(MatMut::new(dx, rows, hidden), d_gate_up, gate_up, Write::Replace, 1);
}

fn tile(block: &mut [f32], at: usize) -> &mut [f32] {
    &mut block[at * TILE..][..TILE]
}

#[inline(always)]
fn tile_numbers_impl<const FMA: bool>(tile: &[f32], out: &mut [f32], stride: usize) {
    let (lanes, []) = tile.as_chunks::<SIDE>() else { unreachable!("a whole tile") };
    for (lanes, out) in lanes.iter().zip(out.chunks_mut(stride)) {
        let (out, _) = out.as_chunks_mut::<2>();
        for (lane, out) in lanes.iter().zip(&mut out[..SIDE]) {
            let (low, high) = halves(lane.to_bits());
            *out = [low, high];
        }
    }
}

vectorised! {
    /// The numbers of a tile, 32 in each of sixteen rows that lie `stride` apart.
    fn tile_numbers(tile: &[f32], out: &mut [f32], stride: usize) = tile_numbers_impl
}

#[cfg(test)]
mod tests {
    use super::super::{bf16::pair, factors::Factors, linear::Linear, noise};
    use super::*;

    #[test]
    fn numbers_come_back_from_a_tile() {
        let rounded = |x: &f32| halves(pair(*x, 0.0).to_bits()).0;
        let x: Vec<f32> = noise(SIDE * PANEL, 1).iter().map(rounded).collect();
        let mut tile = [0.0; TILE];
        dense_tiles(Mat::new(&x, SIDE, PANEL), &mut tile);
        let mut out = [9.0; SIDE * (PANEL + 3)];
        tile_numbers(&tile, &mut out, PANEL + 3);
        for (out, x) in out.chunks(PANEL + 3).zip(x.chunks(PANEL)) {
            assert_eq!(out[..PANEL], *x);
            assert_eq!(out[PANEL..], [9.0; 3]);
        }
    }

    #[test]
    fn squares_make_what_whole_rows_make() {
        if !tiles::available() {
            return;
        }
        let (hidden, width, precision) = (70, 96, Precision::Bf16);
        let (w_up, w_down) = (noise(2 * width * hidden, 1), noise(hidden * width, 2));
        for rows in [1, 16, 35, 96] {
            let linear = |inputs, outputs| Linear { rows, inputs, outputs, threads: 1, precision };
            let (up, down) = (linear(hidden, 2 * width), linear(width, hidden));
            let [mut forth_up, mut forth_down, mut back_up, mut back_down] =
                [const { None::<Panels> }; 4].map(Option::unwrap_or_default);
            up.pack_forward(&w_up, &mut forth_up);
            down.pack_forward(&w_down, &mut forth_down);
            up.pack_backward(&w_up, &mut back_up);
            down.pack_backward(&w_down, &mut back_down);
            let (x, dy) = (noise(rows * hidden, 3), noise(rows * hidden, 4));
            let mut buffer = vec![f32::NAN; lanes(rows, 2 * width) + lanes(rows, hidden)];
            let mut kept = vec![f32::NAN; lanes(rows, 2 * width)];

            let mut y = noise(rows * hidden, 5);
            let mut expected = y.clone();
            forward(&x, [&forth_up, &forth_down], &mut y, &mut kept, &mut buffer);
            let mut gate_up = vec![0.0; rows * 2 * width];
            up.forward(&x, &forth_up, &mut gate_up, Write::Replace);
            let mut active = vec![0.0; rows * width];
            swiglu::forward_near(&gate_up, width, &mut active);
            down.forward(&active, &forth_down, &mut expected, Write::Add);
            assert_eq!(y, expected, "{rows}");

            // What was kept is rounded.
            for number in &mut gate_up {
                *number = halves(pair(*number, 0.0).to_bits()).0;
            }
            let mut factors: [[Factors; 2]; 2] = Default::default();
            let mut dx = vec![0.0; rows * hidden];
            {
                let [into_down, into_up] = &mut factors[0];
                let mut tiles = [into_down.fill(down).cut(rows), into_up.fill(up).cut(rows)];
                let [into_down, into_up] = &mut tiles;
                backward(
                    &dy,
                    [&back_down, &back_up],
                    &kept,
                    &mut dx,
                    [&mut *into_down, &mut *into_up],
                    &mut buffer,
                );
                into_down.dy(Mat::new(&dy, rows, hidden));
                into_up.x(&x);
            }
            let mut d_active = vec![0.0; rows * width];
            down.backward_input(&dy, &back_down, &mut d_active, Write::Replace);
            let mut d_gate_up = vec![0.0; rows * 2 * width];
            swiglu::backward_near(&d_active, &gate_up, width, &mut active, &mut d_gate_up);
            let mut expected = vec![0.0; rows * hidden];
            up.backward_input(&d_gate_up, &back_up, &mut expected, Write::Replace);
            assert_eq!(dx, expected, "{rows}");
            {
                let [into_down, into_up] = &mut factors[1];
                into_down.fill(down).cut(rows).bring(&dy, &active);
                into_up.fill(up).cut(rows).bring(&d_gate_up, &x);
            }
            let [got, expected] = factors.map(|[into_down, into_up]| {
                let (mut d_down, mut d_up) = (vec![0.5; hidden * width], vec![0.5; w_up.len()]);
                into_down.add_product(&mut d_down, 1);
                into_up.add_product(&mut d_up, 1);
                [d_down, d_up]
            });
            assert_eq!(got, expected, "{rows}");
        }
    }
}
