//! Causal grouped-query attention over packed segments that share prefixes.
//!
//! A segment's keys are the rows of its ancestors' visible beginnings, then its own rows. Per
//! (segment, key/value head) the keys and values are gathered side by side; queries go in blocks,
//! and a block multiplies only with the keys that its last query may see. Probabilities are not
//! kept: the backward pass recomputes them from the log of each softmax's normaliser. Threads share
//! key/value heads, and segments without a common ancestor: they touch no common element.
#![allow(unsafe_code)]

use std::ops::Range;

use super::{
    lanes::fetch,
    matmul::{MatMut, Write, multiply},
    panels::{Mat, Panels, Precision},
    simd::{exp, max, mul_add, sum_by, sum_lanes, vectorised},
};
use crate::{
    large_pages::Floats,
    packed::PackedSegment,
    share::{Disjoint, run},
    vector::LINE,
    workspace::part,
};

/// Query rows of one block at least, over all query heads that share a key/value head.
const BLOCK: usize = 72;

/// Heads and their width. A row of `qkv` holds the query heads, the key heads, the value heads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) dim: usize,
}

impl Heads {
    fn row(self) -> usize {
        (self.queries + 2 * self.keys) * self.dim
    }

    /// Query heads that share a key/value head.
    fn group(self) -> usize {
        self.queries / self.keys
    }

    fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Columns of a row of qkv that hold the queries, key and value of key/value head `head`.
    fn columns(self, head: usize) -> [Range<usize>; 3] {
        let (g, d) = (self.group(), self.dim);
        let k = (self.queries + head) * d;
        let v = k + self.keys * d;
        [head * g * d..(head + 1) * g * d, k..k + d, v..v + d]
    }
}

/// Which rows every segment attends to.
#[derive(Debug, Default)]
pub(crate) struct KeyPlan {
    segments: Vec<SegmentKeys>,
    rows: Vec<u32>,
    /// Segments with a common ancestor, in their order.
    families: Vec<Vec<usize>>,
}

#[derive(Clone, Debug)]
struct SegmentKeys {
    /// Rows of the segment.
    range: Range<usize>,
    /// Part of `KeyPlan::rows` that it attends to: ancestors' rows, then its own.
    keys: Range<usize>,
    /// How many of those are ancestors' rows.
    prefix: usize,
    /// Index in `KeyPlan::families`.
    family: usize,
}

impl KeyPlan {
    /// Fills the plan for a validated list of segments.
    pub(crate) fn fill(&mut self, segments: &[PackedSegment]) {
        self.segments.clear();
        self.rows.clear();
        self.families.clear();
        for (index, segment) in segments.iter().enumerate() {
            let start = self.rows.len();
            if let Some(parent) = segment.parent {
                // Parents come first, so their list is complete.
                let p = &self.segments[parent];
                let shared = p.keys.start..p.keys.start + p.prefix + segment.parent_len;
                self.rows.extend_from_within(shared);
            }
            let family = match segment.parent {
                Some(parent) => self.segments[parent].family,
                None => self.families.len(),
            };
            match self.families.get_mut(family) {
                Some(members) => members.push(index),
                None => self.families.push(vec![index]),
            }
            let prefix = self.rows.len() - start;
            self.rows.extend(segment.range.clone().map(|r| r as u32));
            self.segments.push(SegmentKeys {
                range: segment.range.clone(),
                keys: start..self.rows.len(),
                prefix,
                family,
            });
        }
    }

    /// Per segment of a family with any query: its queries (a range of `query_rows`) and its key
    /// rows, as far as the last query sees.
    fn visits<'a>(
        &'a self,
        family: &'a [usize],
        query_rows: &'a [u32],
    ) -> impl Iterator<Item = (Range<usize>, &'a [u32], &'a SegmentKeys)> {
        family.iter().filter_map(move |&s| {
            let s = &self.segments[s];
            let from = query_rows.partition_point(|&r| (r as usize) < s.range.start);
            let to = query_rows.partition_point(|&r| (r as usize) < s.range.end);
            let last = query_rows[from..to].last()?;
            let seen = s.visible(*last);
            Some((from..to, &self.rows[s.keys.start..s.keys.start + seen], s))
        })
    }

    /// What can be computed at the same time.
    fn tasks(&self, heads: Heads) -> Vec<(&[usize], usize)> {
        let each = |family| (0..heads.keys).map(move |head| (family, head));
        self.families.iter().map(Vec::as_slice).flat_map(each).collect()
    }
}

impl SegmentKeys {
    /// Keys that the query of this row sees.
    fn visible(&self, row: u32) -> usize {
        self.prefix + row as usize - self.range.start + 1
    }
}

/// Reusable buffers of one attention call.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    k: Floats,
    v: Floats,
    dk: Floats,
    dv: Floats,
    q: Floats,
    o: Floats,
    s: Floats,
    ds: Floats,
    limits: Vec<u32>,
    /// Where the queries of a block are among all that continue.
    places: Vec<u32>,
    /// Right operands: the head's keys and values, and their transposes.
    keys: Panels,
    values: Panels,
    keys_t: Panels,
    values_t: Panels,
    /// Right operand: the queries or output gradients of a block.
    block: Panels,
}

/// Rows that [`gather`] and [`scatter`] ask for ahead: they lie so far apart that the processor does not.
const AHEAD: usize = 8;

#[inline(always)]
fn scaled_impl<const FMA: bool>(x: &[f32], scale: f32, out: &mut [f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o = x * scale;
    }
}

vectorised! {
    /// out = x · scale.
    fn scaled(x: &[f32], scale: f32, out: &mut [f32]) = scaled_impl
}

#[inline(always)]
fn add_scaled_impl<const FMA: bool>(x: &[f32], scale: f32, out: &mut [f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o += x * scale;
    }
}

vectorised! {
    /// out += x · scale.
    fn add_scaled(x: &[f32], scale: f32, out: &mut [f32]) = add_scaled_impl
}

/// Asks for the columns of the row that comes [`AHEAD`] rows after the `i`-th.
fn ask(x: *const f32, row: usize, rows: &[u32], i: usize, columns: &Range<usize>) {
    if let Some(&r) = rows.get(i + AHEAD) {
        for column in columns.clone().step_by(LINE) {
            fetch(x.wrapping_add(r as usize * row + column));
        }
    }
}

/// out (L, W) = columns of rows of x (N, row), times `scale`.
fn gather(
    x: &[f32],
    row: usize,
    rows: &[u32],
    columns: &Range<usize>,
    scale: f32,
    out: &mut [f32],
) {
    for (i, (out, &r)) in out.chunks_exact_mut(columns.len()).zip(rows).enumerate() {
        ask(x.as_ptr(), row, rows, i, columns);
        let start = r as usize * row;
        scaled(&x[start + columns.start..start + columns.end], scale, out);
    }
}

/// Columns of rows of x (N, row) = or += scale · y (L, W).
///
/// # Safety
/// Nobody else holds any of these elements meanwhile.
unsafe fn scatter(
    x: &Disjoint<'_, f32>,
    row: usize,
    rows: &[u32],
    columns: &Range<usize>,
    scale: f32,
    y: &[f32],
    write: Write,
) {
    for (i, (y, &r)) in y.chunks_exact(columns.len()).zip(rows).enumerate() {
        ask(x.start(), row, rows, i, columns);
        let start = r as usize * row + columns.start;
        // SAFETY: the function's contract.
        let x = unsafe { x.part(start..start + columns.len()) };
        match write {
            Write::Replace => scaled(y, scale, x),
            Write::Add => add_scaled(y, scale, x),
        }
    }
}

#[inline(always)]
fn softmax_impl<const FMA: bool>(s: &mut [f32], width: usize, limits: &[u32], log_z: &mut [f32]) {
    for ((row, &limit), log_z) in s.chunks_exact_mut(width).zip(limits).zip(log_z) {
        let (seen, hidden) = row.split_at_mut(limit as usize);
        let top = max(seen);
        let mut lanes = [0.0f32; super::simd::LANES];
        let (chunks, rest) = seen.as_chunks_mut::<{ super::simd::LANES }>();
        for c in chunks {
            for i in 0..c.len() {
                c[i] = exp::<FMA>(c[i] - top);
                lanes[i] += c[i];
            }
        }
        for (i, c) in rest.iter_mut().enumerate() {
            *c = exp::<FMA>(*c - top);
            lanes[i] += *c;
        }
        hidden.fill(0.0);
        *log_z = sum_lanes(lanes).ln() + top;
        let inverse = 1.0 / sum_lanes(lanes);
        for c in seen {
            *c *= inverse;
        }
    }
}

vectorised! {
    /// Rows of s (B, width) become probabilities over their first `limit` columns, 0 beyond.
    fn softmax(s: &mut [f32], width: usize, limits: &[u32], log_z: &mut [f32]) = softmax_impl
}

#[inline(always)]
fn softmax_backward_impl<const FMA: bool>(
    s: &mut [f32],
    dp: &mut [f32],
    width: usize,
    limits: &[u32],
    log_z: &[f32],
    delta: &[f32],
) {
    let rows = s.chunks_exact_mut(width).zip(dp.chunks_exact_mut(width));
    for (((s, dp), &limit), (&log_z, &delta)) in rows.zip(limits).zip(log_z.iter().zip(delta)) {
        let (s, s_hidden) = s.split_at_mut(limit as usize);
        let (dp, dp_hidden) = dp.split_at_mut(limit as usize);
        for (s, dp) in s.iter_mut().zip(dp) {
            let p = exp::<FMA>(*s - log_z);
            *dp = p * (*dp - delta);
            *s = p;
        }
        s_hidden.fill(0.0);
        dp_hidden.fill(0.0);
    }
}

vectorised! {
    /// Scores s (B, width) become probabilities, dp (B, width) becomes the gradient of s.
    fn softmax_backward(
        s: &mut [f32], dp: &mut [f32], width: usize, limits: &[u32], log_z: &[f32], delta: &[f32],
    ) = softmax_backward_impl
}

#[inline(always)]
fn row_dots_impl<const FMA: bool>(a: &[f32], b: &[f32], width: usize, out: &mut [f32]) {
    for ((a, b), out) in a.chunks_exact(width).zip(b.chunks_exact(width)).zip(out) {
        *out = sum_by(a, b, mul_add::<FMA>);
    }
}

vectorised! {
    /// out (R) = the dot products of the rows of a and b (R, width).
    fn row_dots(a: &[f32], b: &[f32], width: usize, out: &mut [f32]) = row_dots_impl
}

/// Queries of one block as indices into `query_rows`, and each score row's limit.
fn block_limits(rows: &[u32], segment: &SegmentKeys, group: usize, limits: &mut Vec<u32>) -> usize {
    limits.clear();
    for &row in rows {
        let limit = segment.visible(row);
        limits.extend(std::iter::repeat_n(limit as u32, group));
    }
    limits.last().map_or(0, |&l| l as usize)
}

/// out (R, H·D) from qkv (N, row), for the rows in `query_rows` (R, ascending). `log_z` (R, H)
/// is kept for the backward pass. One scratch a thread.
pub(crate) fn forward(
    qkv: &[f32],
    plan: &KeyPlan,
    query_rows: &[u32],
    heads: Heads,
    precision: Precision,
    out: &mut [f32],
    log_z: &mut [f32],
    scratch: &mut [Scratch],
) {
    let (row, group, d) = (heads.row(), heads.group(), heads.dim);
    let per_block = (BLOCK.next_multiple_of(precision.group()) / group).max(1);
    let (out, log_z) = (Disjoint::new(out), Disjoint::new(log_z));
    run(scratch, plan.tasks(heads), |(family, head), scratch| {
        for (queries, keys, segment) in plan.visits(family, query_rows) {
            let [q_cols, k_cols, v_cols] = heads.columns(head);
            let k = part(&mut scratch.k, keys.len() * d);
            gather(qkv, row, keys, &k_cols, 1.0, k);
            let v = part(&mut scratch.v, keys.len() * d);
            gather(qkv, row, keys, &v_cols, 1.0, v);
            scratch.keys_t.pack(Mat::new(k, keys.len(), d).t(), precision, 1);
            scratch.values.pack(Mat::new(v, keys.len(), d), precision, 1);
            for first in queries.clone().step_by(per_block) {
                let block = first..(first + per_block).min(queries.end);
                let rows = &query_rows[block.clone()];
                let width = block_limits(rows, segment, group, &mut scratch.limits);
                let n = rows.len() * group;
                let q = part(&mut scratch.q, n * d);
                gather(qkv, row, rows, &q_cols, heads.scale(), q);
                // (B, D) · (L, D)ᵀ -> (B, L)
                let s = part(&mut scratch.s, n * width);
                let dst = MatMut::new(s, n, width);
                multiply(dst, Mat::new(q, n, d), &scratch.keys_t, Write::Replace, 1);
                let z = part(&mut scratch.ds, n);
                softmax(s, width, &scratch.limits, z);
                // (B, L) · (L, D) -> (B, D)
                let o = part(&mut scratch.o, n * d);
                let s = Mat::new(s, n, width);
                multiply(MatMut::new(o, n, d), s, &scratch.values, Write::Replace, 1);
                for (i, target) in block.enumerate() {
                    let start = target * heads.queries;
                    // SAFETY: the rows of this family and the columns of this head are this
                    // task's alone.
                    let (out, log_z) = unsafe {
                        (
                            out.part(start * d + q_cols.start..start * d + q_cols.end),
                            log_z.part(start + head * group..start + (head + 1) * group),
                        )
                    };
                    out.copy_from_slice(&o[i * group * d..(i + 1) * group * d]);
                    log_z.copy_from_slice(&z[i * group..(i + 1) * group]);
                }
            }
        }
    });
}

/// dqkv (N, row) = the gradient, from dout (R, H·D) and what [`forward`] read and wrote.
///
/// Segments are visited in order, so that what children add to a parent's keys and values is
/// added in a fixed order.
pub(crate) fn backward(
    dout: &[f32],
    qkv: &[f32],
    plan: &KeyPlan,
    query_rows: &[u32],
    heads: Heads,
    precision: Precision,
    out: &[f32],
    log_z: &[f32],
    dqkv: &mut [f32],
    scratch: &mut [Scratch],
) {
    let (row, group, d) = (heads.row(), heads.group(), heads.dim);
    let per_block = (BLOCK.next_multiple_of(precision.group()) / group).max(1);
    if query_rows.len() * row < dqkv.len() {
        // Rows that nobody attends with, or to.
        dqkv.fill(0.0);
    }
    let dqkv = Disjoint::new(dqkv);
    run(scratch, plan.tasks(heads), |(family, head), scratch| {
        for (queries, keys, segment) in plan.visits(family, query_rows) {
            let [q_cols, k_cols, v_cols] = heads.columns(head);
            let k = part(&mut scratch.k, keys.len() * d);
            gather(qkv, row, keys, &k_cols, 1.0, k);
            let v = part(&mut scratch.v, keys.len() * d);
            gather(qkv, row, keys, &v_cols, 1.0, v);
            scratch.keys.pack(Mat::new(k, keys.len(), d), precision, 1);
            scratch.keys_t.pack(Mat::new(k, keys.len(), d).t(), precision, 1);
            scratch.values_t.pack(Mat::new(v, keys.len(), d).t(), precision, 1);
            let dk = part(&mut scratch.dk, keys.len() * d);
            dk.fill(0.0);
            let dv = part(&mut scratch.dv, keys.len() * d);
            dv.fill(0.0);
            for first in queries.clone().step_by(per_block) {
                let block = first..(first + per_block).min(queries.end);
                let rows = &query_rows[block.clone()];
                let width = block_limits(rows, segment, group, &mut scratch.limits);
                let n = rows.len() * group;
                let all = part(&mut scratch.o, 4 * n * d + 2 * n);
                let (o, all) = all.split_at_mut(n * d);
                let (d_o, all) = all.split_at_mut(n * d);
                let (dq, all) = all.split_at_mut(2 * n * d);
                let (dq, _) = dq.split_at_mut(n * d);
                let (delta, z) = all.split_at_mut(n);
                scratch.places.clear();
                scratch.places.extend(block.clone().map(|target| target as u32));
                gather(out, heads.queries * d, &scratch.places, &q_cols, 1.0, o);
                gather(dout, heads.queries * d, &scratch.places, &q_cols, 1.0, d_o);
                for (z, target) in z.chunks_exact_mut(group).zip(block) {
                    z.copy_from_slice(&log_z[target * heads.queries + head * group..][..group]);
                }
                row_dots(o, d_o, d, delta);
                let q = part(&mut scratch.q, n * d);
                gather(qkv, row, rows, &q_cols, heads.scale(), q);
                let s = part(&mut scratch.s, n * width);
                let dst = MatMut::new(s, n, width);
                multiply(dst, Mat::new(q, n, d), &scratch.keys_t, Write::Replace, 1);
                let ds = part(&mut scratch.ds, n * width);
                let dst = MatMut::new(ds, n, width);
                multiply(dst, Mat::new(d_o, n, d), &scratch.values_t, Write::Replace, 1);
                softmax_backward(s, ds, width, &scratch.limits, z, delta);
                let (s, ds) = (Mat::new(s, n, width), Mat::new(ds, n, width));
                // (B, L)ᵀ · (B, D) -> (L, D)
                let dv = MatMut::new(&mut dv[..width * d], width, d);
                let right = scratch.block.pack(Mat::new(d_o, n, d), precision, 1);
                multiply(dv, s.t(), right, Write::Add, 1);
                let dk = MatMut::new(&mut dk[..width * d], width, d);
                let right = scratch.block.pack(Mat::new(q, n, d), precision, 1);
                multiply(dk, ds.t(), right, Write::Add, 1);
                // (B, L) · (L, D) -> (B, D)
                multiply(MatMut::new(dq, n, d), ds, &scratch.keys, Write::Replace, 1);
                // SAFETY: the rows of this family and the columns of this head are this task's.
                unsafe { scatter(&dqkv, row, rows, &q_cols, heads.scale(), dq, Write::Replace) };
            }
            // Ancestors came first, and their own rows were written then.
            let (theirs, own) = keys.split_at(segment.prefix);
            for (columns, d_head) in [(k_cols, dk), (v_cols, dv)] {
                let (d_theirs, d_own) = d_head.split_at(segment.prefix * d);
                // SAFETY: as above; the keys are rows of this family too.
                unsafe {
                    scatter(&dqkv, row, theirs, &columns, 1.0, d_theirs, Write::Add);
                    scatter(&dqkv, row, own, &columns, 1.0, d_own, Write::Replace);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::noise;
    use super::*;

    #[test]
    fn what_the_gradient_held_before_does_not_show() {
        let segment = |range, parent, parent_len| PackedSegment { range, parent, parent_len };
        let segments =
            [segment(0..5, None, 0), segment(5..8, Some(0), 4), segment(8..12, Some(0), 5)];
        let mut plan = KeyPlan::default();
        plan.fill(&segments);
        let (n, heads) = (12, Heads { queries: 4, keys: 2, dim: 3 });
        let qkv = noise(n * heads.row(), 1);
        let few = vec![2, 3, 6, 9];
        for rows in [(0..n as u32).collect(), few] {
            let wide = rows.len() * heads.queries;
            let (mut out, mut log_z) = (vec![0.0; wide * heads.dim], vec![0.0; wide]);
            let precision = Precision::F32;
            let mut scratch = [Scratch::default(), Scratch::default()];
            forward(&qkv, &plan, &rows, heads, precision, &mut out, &mut log_z, &mut scratch);
            let dout = noise(out.len(), 2);
            let [zeros, dirty] = [0.0, f32::NAN].map(|before| {
                let mut dqkv = vec![before; qkv.len()];
                backward(
                    &dout,
                    &qkv,
                    &plan,
                    &rows,
                    heads,
                    precision,
                    &out,
                    &log_z,
                    &mut dqkv,
                    &mut scratch,
                );
                dqkv
            });
            assert_eq!(zeros, dirty);
            // Rows that nobody attends with, or to, have none.
            let nobody: &[usize] = if rows.len() < n { &[7, 10, 11] } else { &[] };
            for (row, gradient) in zeros.chunks(heads.row()).enumerate() {
                assert_eq!(gradient.iter().all(|x| *x == 0.0), nobody.contains(&row), "{row}");
            }
        }
    }
}
