//! Matrix products by tile registers, and left rows as these read them.
//!
//! Left rows lie in tiles: sixteen rows by sixteen pairs, row after row; the tiles of sixteen rows
//! one after the other. Pairs beyond the inner dimension are zero on the left; the right operand may go on
//! with numbers of its own, which must be finite.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::Range;

use super::{
    left::Lhs,
    matmul::{MatMut, Write},
    pairing,
    panels::{Mat, PANEL, Panels, Precision},
    tile_lanes::{self, FEW},
    tiles::{self, Call, SIDE, Tiles},
};
use crate::vector::Lane32;

/// Lanes of a tile.
pub(crate) const TILE: usize = SIDE * SIDE;
/// Elements of the inner dimension that a tile covers.
pub(crate) const INNER: usize = 2 * SIDE;
/// Tiles of the inner dimension that one sweep covers, so that its operands stay in the cache.
const DEPTH: usize = 64;
/// Left rows that are swept over a panel while it is in the cache.
const CHUNK: usize = 192;
/// Rows of one call.
pub(super) const ROWS: usize = 2 * SIDE;

thread_local! {
    /// Left rows of a chunk in tiles.
    static LEFT: RefCell<Vec<Lane32>> = const { RefCell::new(Vec::new()) };
}

/// As `multiply`, whose checks it relies on.
pub(super) fn sweep(dst: &mut MatMut<'_>, lhs: Lhs<'_>, rhs: &Panels, write: Write) {
    assert!(rhs.precision == Precision::Bf16, "tiles of another format");
    let registers = Tiles::set_up();
    let depth = lhs.cols().div_ceil(INNER);
    let mut buffer = LEFT.take();
    let panels = dst.cols.div_ceil(PANEL);
    let right = rhs.data.as_ptr().cast::<u32>();
    for from in (0..depth).step_by(DEPTH) {
        let k = DEPTH.min(depth - from);
        let add = write == Write::Add || from > 0;
        for start in (0..dst.rows).step_by(CHUNK) {
            let chunk = start..(start + CHUNK).min(dst.rows);
            let rows = chunk.len();
            let (left, a_rows) = match lhs {
                Lhs::Blocks { data, cols, .. } => {
                    let a_rows = cols.div_ceil(INNER) * TILE;
                    (data[start / SIDE * a_rows + from * TILE..].as_ptr().cast(), a_rows)
                }
                Lhs::Plain(matrix) => {
                    let len = rows.div_ceil(SIDE) * k * TILE;
                    if buffer.len() < len / PANEL {
                        buffer.resize(len / PANEL, Lane32::ZERO);
                    }
                    let out = bytemuck::cast_slice_mut(&mut buffer);
                    let inner = from * INNER..((from + k) * INNER).min(matrix.cols);
                    chunk_tiles(matrix, chunk.clone(), inner, &mut out[..len]);
                    (buffer.as_ptr().cast::<u32>(), k * TILE)
                }
            };
            // So many lines of each quarter of the next panel at each tile: all by the last row.
            let walk = (INNER / 4).div_ceil(rows.div_ceil(ROWS));
            for p in 0..panels {
                let width = PANEL.min(dst.cols - p * PANEL);
                let panel = |p: usize| (p * rhs.steps() + from * SIDE) * PANEL;
                let next = right.wrapping_add(panel((p + 1) % panels));
                for row in (0..rows).step_by(ROWS) {
                    let take = ROWS.min(rows - row);
                    // SAFETY: the panel has at least the steps of `lhs`, in whole tiles; the
                    // left rows are in tiles as far as there are rows; the sums of whole calls
                    // are inside the destination, as `multiply` checked.
                    unsafe {
                        let c = dst.data.as_mut_ptr();
                        let c = c.add((start + row) * dst.row_stride + p * PANEL);
                        let c_next = if row + ROWS < rows {
                            c.wrapping_add(ROWS * dst.row_stride)
                        } else {
                            c.wrapping_sub(row * dst.row_stride).wrapping_add(PANEL)
                        };
                        let call = Call {
                            depth: k,
                            a: left.add(row / SIDE * a_rows),
                            a_rows,
                            b: right.add(panel(p)),
                            c,
                            c_rows: dst.row_stride,
                            add,
                            c_next,
                            next_rows: dst.row_stride,
                            next: next.wrapping_add(row / ROWS * k * walk * SIDE),
                            quarter: k * TILE / 2,
                            walk,
                        };
                        if width == PANEL && take.is_multiple_of(SIDE) {
                            multiply(&registers, call, take);
                        } else {
                            // On a copy, so that every row's sums begin with what was there.
                            let mut sums = [Lane32::ZERO; ROWS];
                            if add {
                                copy(
                                    c,
                                    dst.row_stride,
                                    sums.as_mut_ptr().cast(),
                                    PANEL,
                                    take,
                                    width,
                                );
                            }
                            let own = Call { c: sums.as_mut_ptr().cast(), c_rows: PANEL, ..call };
                            multiply(&registers, own, take);
                            copy(sums.as_ptr().cast(), PANEL, c, dst.row_stride, take, width);
                        }
                    }
                }
            }
        }
    }
    LEFT.set(buffer);
}

/// Rows of `width` elements from one matrix to another.
///
/// # Safety
/// Both have them, and do not overlap.
pub(crate) unsafe fn copy(
    from: *const f32,
    from_rows: usize,
    to: *mut f32,
    to_rows: usize,
    rows: usize,
    width: usize,
) {
    for r in 0..rows {
        // SAFETY: the function's contract.
        unsafe {
            let (from, to) = (from.add(r * from_rows), to.add(r * to_rows));
            if width == PANEL {
                // Of a length that the compiler knows.
                *to.cast::<[f32; PANEL]>() = *from.cast::<[f32; PANEL]>();
            } else {
                to.copy_from_nonoverlapping(from, width);
            }
        }
    }
}

/// # Safety
/// As `tiles::multiply`, for up to 32 rows.
pub(crate) unsafe fn multiply(registers: &Tiles, call: Call, rows: usize) {
    // SAFETY: the function's contract.
    unsafe {
        if rows <= FEW {
            tile_lanes::multiply(call, rows);
        } else {
            tiles::multiply(registers, call, rows);
        }
    }
}

/// Packs some left rows, over a part of their inner dimension that begins with a tile.
fn chunk_tiles(lhs: Mat<'_>, rows: Range<usize>, inner: Range<usize>, out: &mut [f32]) {
    let per_block = inner.len().div_ceil(INNER) * TILE;
    if lhs.col_stride == 1 {
        for (start, out) in rows.clone().step_by(SIDE).zip(out.chunks_exact_mut(per_block)) {
            let data = &lhs.data[start * lhs.row_stride + inner.start..];
            let rows = SIDE.min(rows.end - start);
            pairing::dense_tiles(Mat { data, rows, cols: inner.len(), ..lhs }, out);
        }
        return;
    }
    assert_eq!(lhs.row_stride, 1, "one of the strides is 1");
    let mut rest = out.chunks_exact_mut(per_block);
    let mut blocks: [&mut [f32]; CHUNK / SIDE] =
        std::array::from_fn(|_| rest.next().unwrap_or_default());
    let data = &lhs.data[rows.start..];
    pairing::side_tiles(data, lhs.col_stride, rows.len(), inner, &mut blocks);
}
