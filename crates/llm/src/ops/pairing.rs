//! Packing f32 numbers as pairs of bfloat16, in the orders in which the kernel reads them.
#![allow(unsafe_code)]

use std::ops::Range;

use super::{
    bf16::{pair, pair_columns, pair_rows},
    left::{CHUNK, ROWS},
    panels::{Mat, PANEL, Rounding, fits},
    weight_rounding::{threshold, weight_columns, weight_rows},
};
use crate::vector::Lane32;

/// Rows that are turned at a time, and lanes of a register.
pub(super) const SIDE: usize = 16;

/// out[s · stride + r]: elements 2s and 2s + 1 of row r of `x` (up to [`SIDE`] dense rows) as one
/// lane, zero after the last row; min(stride, SIDE) lanes a step. Weights are rounded as row
/// `first` of their matrix and following.
pub(super) fn turned(x: Mat<'_>, rounding: Rounding, first: usize, out: &mut [f32], stride: usize) {
    let (steps, lanes) = (x.cols.div_ceil(2), stride.min(SIDE));
    assert!(x.rows <= lanes && x.col_stride == 1, "more rows than lanes");
    assert!(fits(x.data.len(), x.rows, x.cols, x.row_stride, 1), "matrix outside its slice");
    assert!(steps == 0 || out.len() >= (steps - 1) * stride + lanes, "lanes outside their slice");
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if super::bf16::native() {
        done = steps_in_whole_squares(x.cols);
        // SAFETY: `native` found what the functions need; the shapes were just checked.
        unsafe {
            match rounding {
                Rounding::Nearest => x86::turned::<false>(x, first, out, stride),
                Rounding::ByPlace => x86::turned::<true>(x, first, out, stride),
            }
        }
    }
    turned_from(done, x, rounding, first, out, stride);
}

/// As [`turned`], from step `done` on, without instructions of its own.
fn turned_from(
    mut done: usize,
    x: Mat<'_>,
    rounding: Rounding,
    first: usize,
    out: &mut [f32],
    stride: usize,
) {
    let (steps, lanes) = (x.cols.div_ceil(2), stride.min(SIDE));
    while done < steps {
        let count = SIDE.min(steps - done);
        let mut pairs = [0.0; SIDE];
        for r in 0..lanes {
            if r < x.rows {
                let row = &x.data[r * x.row_stride..][2 * done..x.cols.min(2 * (done + count))];
                match rounding {
                    Rounding::Nearest => pair_columns(row, &mut pairs),
                    Rounding::ByPlace => {
                        weight_columns(row, threshold(first + r, 2 * done), &mut pairs);
                    }
                }
            } else {
                pairs = [0.0; SIDE];
            }
            for (s, pair) in pairs[..count].iter().enumerate() {
                out[(done + s) * stride + r] = *pair;
            }
        }
        done += count;
    }
}

/// out[s · PANEL + c]: rows 2s and 2s + 1 of `width` columns from `first` on of `x`, as one lane,
/// zero after the last row and column. Weights are rounded by their place in `x`.
pub(super) fn beside(
    x: Mat<'_>,
    rounding: Rounding,
    first: usize,
    width: usize,
    panel: &mut [Lane32],
) {
    assert!(
        width <= PANEL && x.col_stride == 1 && first + width <= x.cols,
        "columns beyond the last"
    );
    assert!(fits(x.data.len(), x.rows, x.cols, x.row_stride, 1), "matrix outside its slice");
    assert_eq!(panel.len(), x.rows.div_ceil(2), "panel of another height");
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if width == PANEL && super::bf16::native() {
        done = x.rows / 2;
        // SAFETY: `native` found what the functions need; the shapes were just checked.
        unsafe {
            match rounding {
                Rounding::Nearest => x86::beside::<false>(x, first, panel),
                Rounding::ByPlace => x86::beside::<true>(x, first, panel),
            }
        }
    }
    beside_from(done, x, rounding, first, width, panel);
}

/// As [`beside`], from step `done` on, without instructions of its own.
fn beside_from(
    done: usize,
    x: Mat<'_>,
    rounding: Rounding,
    first: usize,
    width: usize,
    panel: &mut [Lane32],
) {
    let zeros = [0.0; PANEL];
    for (s, out) in panel.iter_mut().enumerate().skip(done) {
        let row = |r: usize| {
            if r < x.rows { &x.data[r * x.row_stride + first..][..width] } else { &zeros[..width] }
        };
        let (low, high) = (row(2 * s), row(2 * s + 1));
        match rounding {
            Rounding::Nearest => pair_rows(low, high, &mut out.0[..width]),
            Rounding::ByPlace => {
                let first = [threshold(2 * s, first), threshold(2 * s + 1, first)];
                weight_rows(low, high, first, &mut out.0[..width]);
            }
        }
        out.0[width..].fill(0.0);
    }
}

/// Packs `width` (at most CHUNK) left rows that lie side by side, over a part of their strided
/// inner dimension, as pairs in blocks (steps, ROWS).
pub(super) fn side_blocks(
    data: &[f32],
    stride: usize,
    width: usize,
    inner: Range<usize>,
    out: &mut [&mut [f32]],
) {
    let blocks = width.div_ceil(ROWS);
    let steps = inner.len().div_ceil(2);
    assert!(width <= CHUNK && blocks <= out.len(), "more rows than blocks");
    assert!(out[..blocks].iter().all(|block| block.len() >= steps * ROWS), "short blocks");
    let zeros = [0.0; CHUNK];
    // All blocks at every step: strides are often multiples of a page, whose lines share a few
    // places of the cache, and would be gone before the next block came back for their rest.
    for (s, c) in inner.clone().step_by(2).enumerate() {
        let low = &data[c * stride..][..width];
        let high = if c + 1 < inner.end { &data[(c + 1) * stride..] } else { &zeros };
        let high = &high[..width];
        #[cfg(target_arch = "x86_64")]
        if super::bf16::native() {
            let last = s + 1 == steps;
            // SAFETY: `native` found what the function needs; the shapes were just checked.
            unsafe { x86::side_blocks(low, high, s * ROWS, last, &mut out[..blocks]) };
            continue;
        }
        let mut lanes = [0.0; CHUNK];
        pair_rows(low, high, &mut lanes[..width]);
        // The rows beyond the last are never read.
        for (out, lanes) in out[..blocks].iter_mut().zip(lanes.as_chunks::<ROWS>().0) {
            out[s * ROWS..][..ROWS].copy_from_slice(lanes);
        }
    }
}

/// out[t · 256 + r · 16 + s]: elements 2s and 2s + 1 of the t-th 32 of row r of `x` (up to [`SIDE`]
/// dense rows) as one lane, zero after the last column. Lanes of rows beyond the last stay.
pub(crate) fn dense_tiles(x: Mat<'_>, out: &mut [f32]) {
    let tiles = x.cols.div_ceil(2 * SIDE);
    assert!(x.rows <= SIDE && x.col_stride == 1, "more rows than lanes");
    assert!(fits(x.data.len(), x.rows, x.cols, x.row_stride, 1), "matrix outside its slice");
    assert!(out.len() >= tiles * SIDE * SIDE, "lanes outside their slice");
    #[cfg(target_arch = "x86_64")]
    if super::bf16::native() {
        // SAFETY: `native` found what the function needs; the shapes were just checked.
        unsafe { x86::dense_tiles(x, out) };
        return;
    }
    dense_tiles_plain(x, out);
}

fn dense_tiles_plain(x: Mat<'_>, out: &mut [f32]) {
    for r in 0..x.rows {
        let row = &x.data[r * x.row_stride..][..x.cols];
        for (t, row) in row.chunks(2 * SIDE).enumerate() {
            let lanes = &mut out[(t * SIDE + r) * SIDE..][..SIDE];
            pair_columns(row, lanes);
            lanes[row.len().div_ceil(2)..].fill(0.0);
        }
    }
}

/// Packs `width` left rows that lie side by side, over a part of their strided inner dimension, as
/// tiles of [`SIDE`] rows: `out[b]` is as [`dense_tiles`] makes rows 16 b and following.
pub(super) fn side_tiles(
    data: &[f32],
    stride: usize,
    width: usize,
    inner: Range<usize>,
    out: &mut [&mut [f32]],
) {
    let blocks = width.div_ceil(SIDE);
    let len = inner.len().div_ceil(2 * SIDE) * SIDE * SIDE;
    assert!(blocks <= out.len(), "more rows than blocks");
    assert!(out[..blocks].iter().all(|block| block.len() >= len), "short blocks");
    assert!(fits(data.len(), inner.end, width, stride, 1), "matrix outside its slice");
    let out = &mut out[..blocks];
    #[cfg(target_arch = "x86_64")]
    if super::bf16::native() {
        // SAFETY: `native` found what the function needs; the shapes were just checked.
        unsafe { x86::side_tiles(data, stride, width, inner, out) };
        return;
    }
    side_tiles_plain(data, stride, width, inner, out);
}

fn side_tiles_plain(
    data: &[f32],
    stride: usize,
    width: usize,
    inner: Range<usize>,
    out: &mut [&mut [f32]],
) {
    let steps = inner.len().div_ceil(2 * SIDE) * SIDE;
    for step in 0..steps {
        let at = |c: usize, row: usize| if c < inner.end { data[c * stride + row] } else { 0.0 };
        let c = inner.start + 2 * step;
        for row in 0..width {
            let lane = (step / SIDE * SIDE + row % SIDE) * SIDE + step % SIDE;
            out[row / SIDE][lane] = pair(at(c, row), at(c + 1, row));
        }
    }
}

/// Steps that [`x86::turned`] covers of rows of `cols` elements.
#[cfg(target_arch = "x86_64")]
fn steps_in_whole_squares(cols: usize) -> usize {
    cols / (2 * SIDE) * SIDE
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::{
        __m512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_loadu_ps, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_storeu_ps,
        _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };

    use super::super::{
        bf16::x86 as bf16,
        weight_rounding::{along, x86 as weights},
    };
    use std::ops::Range;

    use super::{Lane32, Mat, ROWS, SIDE, steps_in_whole_squares, threshold};

    /// Row r, lane s becomes row s, lane r.
    #[inline(always)]
    pub(in super::super) unsafe fn turn(rows: [__m512; SIDE]) -> [__m512; SIDE] {
        // SAFETY: the caller enables what these need.
        unsafe {
            let zero = _mm512_setzero_ps();
            let (mut a, mut b) = ([zero; SIDE], [zero; SIDE]);
            for i in 0..8 {
                a[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                a[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            // Four rows of each column in every quarter.
            for i in 0..4 {
                for half in 0..2 {
                    let low = _mm512_castps_pd(a[4 * i + half]);
                    let high = _mm512_castps_pd(a[4 * i + half + 2]);
                    b[4 * i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                    b[4 * i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
                }
            }
            // b[4 i + c], quarter q: rows 4 i.. of column 4 q + c.
            let mut out = [zero; SIDE];
            for c in 0..4 {
                let even = _mm512_shuffle_f32x4::<0x88>(b[c], b[4 + c]);
                let odd = _mm512_shuffle_f32x4::<0xdd>(b[c], b[4 + c]);
                let even2 = _mm512_shuffle_f32x4::<0x88>(b[8 + c], b[12 + c]);
                let odd2 = _mm512_shuffle_f32x4::<0xdd>(b[8 + c], b[12 + c]);
                out[c] = _mm512_shuffle_f32x4::<0x88>(even, even2);
                out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even, even2);
                out[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
                out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
            }
            out
        }
    }

    /// As `super::dense_tiles`.
    ///
    /// # Safety
    /// The shapes are as it checks.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn dense_tiles(x: Mat<'_>, out: &mut [f32]) {
        for r in 0..x.rows {
            // SAFETY: a row has `cols` elements, and `out` a line for every 32 begun.
            unsafe {
                let row = x.data.as_ptr().add(r * x.row_stride);
                let lines = out.as_mut_ptr().add(r * SIDE);
                let whole = x.cols / (2 * SIDE);
                for t in 0..whole {
                    let line = lines.add(SIDE * SIDE * t);
                    _mm512_storeu_ps(line, bf16::pairs16(row.add(2 * SIDE * t)));
                }
                let rest = x.cols - 2 * SIDE * whole;
                if rest > 0 {
                    let there = (1_u32 << rest) - 1;
                    let row = row.add(2 * SIDE * whole);
                    let low = _mm512_maskz_loadu_ps(there as u16, row);
                    let high =
                        _mm512_maskz_loadu_ps((there >> SIDE) as u16, row.wrapping_add(SIDE));
                    let line = lines.add(SIDE * SIDE * whole);
                    _mm512_storeu_ps(line, bf16::pairs_of(low, high));
                }
            }
        }
    }

    /// As `super::side_tiles`.
    ///
    /// # Safety
    /// The shapes are as it checks.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn side_tiles(
        data: &[f32],
        stride: usize,
        width: usize,
        inner: Range<usize>,
        out: &mut [&mut [f32]],
    ) {
        for (t, first) in inner.clone().step_by(2 * SIDE).enumerate() {
            for (block, out) in out.iter_mut().enumerate() {
                let from = block * SIDE;
                let there = ((1_u32 << (width - from).min(SIDE)) - 1) as u16;
                // SAFETY: only what is inside the rows is read; every block has a tile for every
                // 32 elements begun.
                unsafe {
                    let mut square = [_mm512_setzero_ps(); SIDE];
                    for (s, lanes) in square.iter_mut().enumerate() {
                        let c = first + 2 * s;
                        let row = data.as_ptr().wrapping_add(c * stride + from);
                        let low = if c < inner.end { there } else { 0 };
                        let high = if c + 1 < inner.end { there } else { 0 };
                        let low = _mm512_maskz_loadu_ps(low, row);
                        let high = _mm512_maskz_loadu_ps(high, row.wrapping_add(stride));
                        *lanes = bf16::rows16(low, high);
                    }
                    let out = out.as_mut_ptr().add(t * SIDE * SIDE);
                    for (r, lanes) in turn(square).into_iter().enumerate() {
                        _mm512_storeu_ps(out.add(r * SIDE), lanes);
                    }
                }
            }
        }
    }

    /// The part of `super::turned` in whole squares.
    ///
    /// # Safety
    /// The shapes are as `super::turned` checks.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn turned<const BY_PLACE: bool>(
        x: Mat<'_>,
        first: usize,
        out: &mut [f32],
        stride: usize,
    ) {
        let mut at = [0; SIDE];
        for (r, at) in at.iter_mut().enumerate() {
            *at = threshold(first + r, 0);
        }
        let steps = steps_in_whole_squares(x.cols);
        for start in (0..steps).step_by(SIDE) {
            // SAFETY: rows have 2 · steps elements; `out` has min(stride, SIDE) lanes for each
            // step, and where these are less than SIDE, the next step's are written later.
            unsafe {
                let mut square = [_mm512_setzero_ps(); SIDE];
                for (r, lanes) in square.iter_mut().enumerate() {
                    if r < x.rows {
                        let row = x.data.as_ptr().add(r * x.row_stride + 2 * start);
                        *lanes = if BY_PLACE {
                            weights::weights16(row, along(at[r], 2 * start))
                        } else {
                            bf16::pairs16(row)
                        };
                    }
                }
                for (s, lanes) in turn(square).into_iter().enumerate() {
                    let out = out.as_mut_ptr().add((start + s) * stride);
                    if stride < SIDE && s + 1 == SIDE {
                        _mm512_mask_storeu_ps(out, (1 << stride) - 1, lanes);
                    } else {
                        _mm512_storeu_ps(out, lanes);
                    }
                }
            }
        }
    }

    /// The part of `super::beside` with both rows of a pair, of whole panels.
    ///
    /// # Safety
    /// The shapes are as `super::beside` checks, and the panel is whole.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn beside<const BY_PLACE: bool>(
        x: Mat<'_>,
        first: usize,
        panel: &mut [Lane32],
    ) {
        for (s, out) in panel[..x.rows / 2].iter_mut().enumerate() {
            let at = [threshold(2 * s, first), threshold(2 * s + 1, first)];
            // SAFETY: rows 2s and 2s + 1 have PANEL columns from `first` on.
            unsafe {
                let low = x.data.as_ptr().add(2 * s * x.row_stride + first);
                let high = low.add(x.row_stride);
                for c in [0, SIDE] {
                    let (low, high) = (low.add(c), high.add(c));
                    let lanes = if BY_PLACE {
                        weights::rows16(low, high, at.map(|t| along(t, c)))
                    } else {
                        bf16::rows16(_mm512_loadu_ps(low), _mm512_loadu_ps(high))
                    };
                    _mm512_storeu_ps(out.0.as_mut_ptr().add(c), lanes);
                }
            }
        }
    }

    /// One step of `super::side_blocks`, at lane `at` of every block. Writes beyond the step's
    /// lanes, which are written later, unless it is the last.
    ///
    /// # Safety
    /// The shapes are as `super::side_blocks` checks.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn side_blocks(
        low: &[f32],
        high: &[f32],
        at: usize,
        last: bool,
        out: &mut [&mut [f32]],
    ) {
        for (block, out) in out.iter_mut().enumerate() {
            let from = block * ROWS;
            let there = (1_u32 << (low.len() - from).min(SIDE)) - 1;
            // SAFETY: only lanes inside both rows are read; `out` has ROWS lanes from `at` on,
            // and SIDE where a step follows.
            unsafe {
                let low = _mm512_maskz_loadu_ps(there as u16, low.as_ptr().add(from));
                let high = _mm512_maskz_loadu_ps(there as u16, high.as_ptr().add(from));
                let (lanes, out) = (bf16::rows16(low, high), out.as_mut_ptr().add(at));
                if last {
                    _mm512_mask_storeu_ps(out, (1 << ROWS) - 1, lanes);
                } else {
                    _mm512_storeu_ps(out, lanes);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bf16::pair;
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7123).sin() * 3.0).collect()
    }

    const KINDS: [Rounding; 2] = [Rounding::Nearest, Rounding::ByPlace];

    #[test]
    fn turned_rows_are_their_pairs_whatever_the_width() {
        for (rows, cols, stride) in
            [(12, 96, 12), (12, 32, 12), (5, 70, 12), (16, 64, 32), (9, 131, 32), (0, 64, 32)]
        {
            let data = numbers(17 * 140);
            let x = Mat::strided(&data, rows, cols, 140);
            let (steps, lanes) = (cols.div_ceil(2), stride.min(SIDE));
            for rounding in KINDS {
                // What lies between the lanes must stay.
                let mut out = vec![9.0; steps * stride];
                let mut plain = out.clone();
                turned(x, rounding, 7, &mut out, stride);
                turned_from(0, x, rounding, 7, &mut plain, stride);
                assert_eq!(out, plain, "{rows} {cols} {stride}");
                for (i, &got) in out.iter().enumerate() {
                    let (s, r) = (i / stride, i % stride);
                    let at = |c: usize| if c < cols { data[r * 140 + c] } else { 0.0 };
                    if r >= lanes {
                        assert_eq!(got, 9.0);
                    } else if r >= rows {
                        assert_eq!(got, 0.0);
                    } else if rounding == Rounding::Nearest {
                        assert_eq!(got, pair(at(2 * s), at(2 * s + 1)));
                    } else {
                        let mut expected = [0.0];
                        let row = [at(2 * s), at(2 * s + 1)];
                        weight_columns(&row, threshold(7 + r, 2 * s), &mut expected);
                        assert_eq!(got, expected[0]);
                    }
                }
            }
        }
    }

    #[test]
    fn tiles_hold_the_pairs_of_sixteen_rows() {
        let data = numbers(140 * 140);
        for (rows, cols) in [(16, 64), (5, 70), (1, 1), (16, 33), (3, 31), (0, 40)] {
            let x = Mat::strided(&data, rows, cols, 140);
            let tiles = cols.div_ceil(2 * SIDE);
            let mut out = vec![9.0; tiles * SIDE * SIDE];
            let mut plain = out.clone();
            dense_tiles(x, &mut out);
            dense_tiles_plain(x, &mut plain);
            assert_eq!(out, plain, "{rows} {cols}");
            for (i, &got) in out.iter().enumerate() {
                let (c, r) = (i / (SIDE * SIDE) * 2 * SIDE + i % SIDE * 2, i / SIDE % SIDE);
                let at = |c: usize| if c < cols { data[r * 140 + c] } else { 0.0 };
                assert_eq!(got, if r < rows { pair(at(c), at(c + 1)) } else { 9.0 });
            }
        }
        for (width, inner) in
            [(96_usize, 0..64_usize), (96, 32..103), (85, 0..6), (16, 0..2), (1, 64..65)]
        {
            let (tiles, blocks) = (inner.len().div_ceil(2 * SIDE), width.div_ceil(SIDE));
            let mut all = vec![vec![9.0; tiles * SIDE * SIDE]; blocks];
            let mut plain = all.clone();
            let mut out: Vec<_> = all.iter_mut().map(|b| &mut b[..]).collect();
            side_tiles(&data, 130, width, inner.clone(), &mut out);
            let mut out: Vec<_> = plain.iter_mut().map(|b| &mut b[..]).collect();
            side_tiles_plain(&data, 130, width, inner.clone(), &mut out);
            for row in 0..width {
                for step in 0..tiles * SIDE {
                    let c = inner.start + 2 * step;
                    let at = |c| if c < inner.end { data[c * 130 + row] } else { 0.0 };
                    let lane = (step / SIDE * SIDE + row % SIDE) * SIDE + step % SIDE;
                    assert_eq!(all[row / SIDE][lane], pair(at(c), at(c + 1)), "{width} {row}");
                    assert_eq!(plain[row / SIDE][lane], all[row / SIDE][lane]);
                }
            }
        }
    }

    #[test]
    fn rows_beside_each_other_are_pairs_of_columns() {
        let data = numbers(33 * 80);
        for (rows, width) in [(32, 32), (33, 32), (33, 9), (1, 32), (2, 1)] {
            let x = Mat::strided(&data, rows, 72, 80);
            for rounding in KINDS {
                let mut out = vec![Lane32([9.0; 32]); rows.div_ceil(2)];
                let mut plain = out.clone();
                beside(x, rounding, 32, width, &mut out);
                beside_from(0, x, rounding, 32, width, &mut plain);
                for (s, (out, plain)) in out.iter().zip(&plain).enumerate() {
                    assert_eq!(out.0, plain.0);
                    for (c, &got) in out.0.iter().enumerate() {
                        let at = |r: usize| if r < rows { data[r * 80 + 32 + c] } else { 0.0 };
                        if c >= width {
                            assert_eq!(got, 0.0);
                        } else if rounding == Rounding::Nearest {
                            assert_eq!(got, pair(at(2 * s), at(2 * s + 1)));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_that_lie_side_by_side_go_into_blocks() {
        let data = numbers(40 * 130);
        for (width, inner) in
            [(96_usize, 0..40_usize), (96, 2..39), (85, 0..6), (12, 0..2), (1, 3..4)]
        {
            let (steps, blocks) = (inner.len().div_ceil(2), width.div_ceil(ROWS));
            // What follows a block must stay: another thread may have written it.
            let mut all = vec![vec![9.0; steps * ROWS + 4]; blocks];
            let mut out: Vec<_> = all.iter_mut().map(|b| &mut b[..steps * ROWS]).collect();
            side_blocks(&data, 130, width, inner.clone(), &mut out);
            for (block, got) in all.iter().enumerate() {
                assert_eq!(got[steps * ROWS..], [9.0; 4]);
                for (i, got) in got[..steps * ROWS].iter().enumerate() {
                    let (c, row) = (inner.start + i / ROWS * 2, block * ROWS + i % ROWS);
                    let at = |c| if c < inner.end { data[c * 130 + row] } else { 0.0 };
                    if row < width {
                        assert_eq!(*got, pair(at(c), at(c + 1)), "{width} {block} {i}");
                    }
                }
            }
        }
    }
}
