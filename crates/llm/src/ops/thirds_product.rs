//! Products of f32 by tile registers, with every number as [three](super::thirds) of bfloat16: right to
//! f32's precision, and faster than f32's own multiplication, though it is six products for one.
// Kernels must be inlined into the function that enables their instruction set.
#![allow(unsafe_code, clippy::inline_always)]

use std::cell::RefCell;

use super::{
    left::Lhs,
    matmul::{MatMut, Write},
    panels::{PANEL, Panels, Precision},
    simd::vectorised,
    thirds::{PARTS, lanes, split_columns, split_panel, split_rows},
    tile_product::{INNER, ROWS, TILE},
    tiles::{self, Call, SIDE, Tiles},
};
use crate::vector::Lane32;

/// Elements of the inner dimension that one sweep covers, and left rows that are swept over a panel:
/// their parts stay in the second cache, and a panel is split once for many rows.
pub(crate) const INNER_AT_ONCE: usize = 768;
pub(crate) const CHUNK: usize = 256;

thread_local! {
    /// Left rows of a chunk, and steps of a panel, in parts.
    static SPLIT: RefCell<[Vec<Lane32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Left rows and steps of a panel over the same part of the inner dimension.
pub(crate) struct RowsByPanel<'a> {
    /// Sixteen rows in parts, the next sixteen `block` lanes on.
    pub(crate) left: &'a [u32],
    pub(crate) block: usize,
    pub(crate) rows: usize,
    pub(crate) panel: Panel<'a>,
    /// As much that the second cache should hold soon.
    pub(crate) next: *const Lane32,
    /// Where sums of the first row go, and of the others `stride` elements on: they are fetched.
    pub(crate) sums: *mut f32,
    pub(crate) stride: usize,
}

/// Some steps of a panel.
#[derive(Clone, Copy)]
pub(crate) enum Panel<'a> {
    /// Of f32.
    Steps(&'a [Lane32]),
    /// In parts.
    Split(&'a [Lane32]),
}

impl RowsByPanel<'_> {
    /// Computes the sums of up to 32 rows at a time. They are written if they are `whole`; otherwise
    /// they are handed on with the first of their rows.
    ///
    /// # Safety
    /// If they are `whole`, `sums` has 32 columns of all rows, and nobody else uses them.
    pub(crate) unsafe fn multiply(
        self,
        registers: &Tiles,
        buffer: &mut Vec<Lane32>,
        whole: bool,
        mut finish: impl FnMut(usize, &[Lane32]),
    ) {
        let Self { left, block, rows, mut next, stride, .. } = self;
        // Lines of a panel to ask for at every tile and each of four places.
        let (panel, depth, lines) = match self.panel {
            Panel::Steps(steps) => {
                let panel = room(buffer, 2 * lanes(steps.len()));
                split_panel(steps, panel, next);
                // The first half was asked for meanwhile.
                next = next.wrapping_add(steps.len() / 2);
                (&*panel, steps.len().div_ceil(INNER), SIDE / 2)
            }
            Panel::Split(parts) => {
                (bytemuck::cast_slice(parts), parts.len() / (PARTS * SIDE), PARTS * SIDE / 2)
            }
        };
        if rows == 0 || depth == 0 {
            return;
        }
        let needed = (rows.div_ceil(SIDE) - 1) * block + depth * PARTS * TILE;
        assert!(left.len() >= needed, "left rows outside their slice");
        // All lines by the last row.
        let walk = lines.div_ceil(rows.div_ceil(ROWS));
        let mut own = [Lane32::ZERO; ROWS];
        for first in (0..rows).step_by(ROWS) {
            let take = ROWS.min(rows - first);
            let sums = self.sums.wrapping_add(first * stride);
            let direct = whole && take.is_multiple_of(SIDE);
            let call = Call {
                depth,
                a: left[first / SIDE * block..].as_ptr(),
                a_rows: block,
                b: panel.as_ptr(),
                c: if direct { sums } else { own.as_mut_ptr().cast() },
                c_rows: if direct { stride } else { PANEL },
                add: false,
                c_next: sums,
                next_rows: stride,
                next: next.cast::<u32>().wrapping_add(first / ROWS * depth * walk * SIDE),
                quarter: depth * lines * SIDE,
                walk,
            };
            // SAFETY: the panel and the rows are there in parts; there are own sums of two tiles, or
            // those of the caller.
            unsafe { tiles::multiply_thirds(registers, call, take) };
            if !direct {
                finish(first, &own[..take]);
            }
        }
    }
}

/// As `multiply`, whose checks it relies on; left rows are plain.
pub(super) fn sweep(dst: &mut MatMut<'_>, lhs: Lhs<'_>, rhs: &Panels, write: Write) {
    assert!(rhs.precision == Precision::F32, "panels of another format");
    let Lhs::Plain(left) = lhs else { unreachable!("blocks are for another kernel") };
    let registers = Tiles::set_up();
    let [mut rows_split, mut panel_split] = SPLIT.take();
    let panels = dst.cols.div_ceil(PANEL);
    for from in (0..left.cols).step_by(INNER_AT_ONCE) {
        let inner = from..left.cols.min(from + INNER_AT_ONCE);
        let (block, add) = (lanes(inner.len()), write == Write::Add || from > 0);
        for start in (0..dst.rows).step_by(CHUNK) {
            let chunk = start..dst.rows.min(start + CHUNK);
            let parts = room(&mut rows_split, chunk.len().div_ceil(SIDE) * block);
            if left.col_stride == 1 {
                for (r, out) in chunk.clone().step_by(SIDE).zip(parts.chunks_exact_mut(block)) {
                    split_rows(left.some(r, SIDE.min(chunk.end - r)).columns(&inner), out);
                }
            } else {
                assert_eq!(left.row_stride, 1, "one of the strides is 1");
                let data = &left.data[start..];
                split_columns(data, left.col_stride, chunk.len(), inner.clone(), parts);
            }
            for p in 0..panels {
                let panel = |p: usize| {
                    let steps = &rhs.data[p * rhs.steps()..][..rhs.steps()];
                    if rhs.split {
                        let tiles = |steps: usize| steps.div_ceil(INNER) * PARTS * SIDE;
                        Panel::Split(&steps[tiles(inner.start)..tiles(inner.end)])
                    } else {
                        Panel::Steps(&steps[inner.clone()])
                    }
                };
                let width = PANEL.min(dst.cols - p * PANEL);
                let stride = dst.row_stride;
                let sums = dst.data[start * stride + p * PANEL..].as_mut_ptr();
                let product = RowsByPanel {
                    left: parts,
                    block,
                    rows: chunk.len(),
                    panel: panel(p),
                    next: match panel((p + 1) % panels) {
                        Panel::Steps(next) | Panel::Split(next) => next.as_ptr(),
                    },
                    sums,
                    stride,
                };
                let whole = width == PANEL && !add;
                // SAFETY: the sums of all rows are inside the destination, as `multiply` checked.
                unsafe {
                    product.multiply(&registers, &mut panel_split, whole, |first, new| {
                        let len = (new.len() - 1) * stride + width;
                        let old = std::slice::from_raw_parts_mut(sums.add(first * stride), len);
                        hand_on_rows(new, old, stride, width, add);
                    });
                }
            }
        }
    }
    SPLIT.set([rows_split, panel_split]);
}

#[inline(always)]
fn hand_on_rows_impl<const FMA: bool>(
    new: &[Lane32],
    old: &mut [f32],
    stride: usize,
    width: usize,
    add: bool,
) {
    for (new, old) in new.iter().zip(old.chunks_mut(stride)) {
        hand_on(new, &mut old[..width], add);
    }
}

vectorised! {
    /// Replaces the first so many of every `stride` sums, or adds to them.
    fn hand_on_rows(new: &[Lane32], old: &mut [f32], stride: usize, width: usize, add: bool)
        = hand_on_rows_impl
}

/// Replaces sums, or adds to them.
#[inline(always)]
pub(crate) fn hand_on(new: &Lane32, old: &mut [f32], add: bool) {
    let new = &new.0[..old.len()];
    match (add, <&mut [f32; PANEL]>::try_from(&mut *old)) {
        // Of a length that the compiler knows.
        (false, Ok(old)) => old.copy_from_slice(new),
        (false, Err(_)) => old.copy_from_slice(new),
        (true, Ok(old)) => old.iter_mut().zip(new).for_each(|(old, new)| *old += new),
        (true, Err(_)) => old.iter_mut().zip(new).for_each(|(old, new)| *old += new),
    }
}

/// The first lanes of a buffer that grows as needed.
pub(crate) fn room(buffer: &mut Vec<Lane32>, lanes: usize) -> &mut [u32] {
    if buffer.len() * PANEL < lanes {
        buffer.resize(lanes.div_ceil(PANEL), Lane32::ZERO);
    }
    &mut bytemuck::cast_slice_mut(buffer)[..lanes]
}

#[cfg(test)]
mod tests {
    use super::super::{matmul::multiply, noise, panels::Mat};
    use super::*;

    #[test]
    fn sums_are_as_good_as_those_of_f32_and_a_row_does_not_depend_on_the_others() {
        if !tiles::available() {
            return;
        }
        for (m, n, k) in [(1, 512, 256), (16, 530, 800), (35, 512, 1537), (300, 545, 300)] {
            for turned in [false, true] {
                let (a, b) = (noise(m * k, 1), noise(k * n, 2));
                let left = if turned { Mat::new(&a, k, m).t() } else { Mat::new(&a, m, k) };
                let at = |r: usize, i: usize| if turned { a[i * m + r] } else { a[r * k + i] };
                let mut panels = Panels::default();
                panels.pack(Mat::new(&b, k, n), Precision::F32, 1);
                // One column more than the product: it must stay.
                let mut c = vec![1.0; m * (n + 1)];
                multiply(MatMut::strided(&mut c, m, n, n + 1), left, &panels, Write::Replace, 1);
                let (mut worst, mut plain) = (0.0_f64, 0.0_f64);
                for r in 0..m {
                    for j in 0..n {
                        let terms = |i: usize| (at(r, i), b[i * n + j]);
                        let exact: f64 =
                            (0..k).map(terms).map(|(a, b)| f64::from(a) * f64::from(b)).sum();
                        let one = (0..k).map(terms).fold(0.0, |sum: f32, (a, b)| a.mul_add(b, sum));
                        worst = worst.max((f64::from(c[r * (n + 1) + j]) - exact).abs());
                        plain = plain.max((f64::from(one) - exact).abs());
                    }
                    assert_eq!(c[r * (n + 1) + n], 1.0);
                }
                assert!(worst <= plain, "{worst} by tiles, {plain} by f32: {m} {n} {k}");
                let before = c.clone();
                multiply(MatMut::strided(&mut c, m, n, n + 1), left, &panels, Write::Replace, 3);
                assert_eq!(c, before, "on three threads");
                multiply(MatMut::strided(&mut c, m, n, n + 1), left, &panels, Write::Add, 2);
                for (row, x) in (0..m).step_by(7).map(|r| (&before[r * (n + 1)..][..n], r)) {
                    let alone: Vec<f32> = (0..k).map(|i| at(x, i)).collect();
                    let mut out = vec![0.0; n];
                    let dst = MatMut::new(&mut out, 1, n);
                    multiply(dst, Mat::new(&alone, 1, k), &panels, Write::Replace, 1);
                    assert_eq!(out, row);
                }
                for (twice, once) in c.chunks(n + 1).zip(before.chunks(n + 1)) {
                    for (twice, once) in twice[..n].iter().zip(once) {
                        assert!((twice - 2.0 * once).abs() <= 1e-5, "added to what was there");
                    }
                }
            }
        }
    }
}
