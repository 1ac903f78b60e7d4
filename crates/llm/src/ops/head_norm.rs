//! RMSNorm of every query and key head with one weight for all query heads and one for all key
//! heads (Qwen3), in place and before the rotation.

use super::simd::{mul_add, sum_by, vectorised};

/// Where the normalised heads of a row of the fused projection lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormedHeads {
    /// Width of a row: queries, keys, values.
    pub(crate) row: usize,
    /// Query heads, which come first.
    pub(crate) queries: usize,
    /// Key heads, which follow.
    pub(crate) keys: usize,
    /// Width of a head.
    pub(crate) dim: usize,
}

impl NormedHeads {
    /// Heads of a row that are normalised.
    pub(crate) fn count(self) -> usize {
        self.queries + self.keys
    }

    /// Their width.
    pub(crate) fn width(self) -> usize {
        self.count() * self.dim
    }
}

#[inline(always)]
fn forward_impl<const FMA: bool>(
    qkv: &mut [f32],
    heads: NormedHeads,
    q_weight: &[f32],
    k_weight: &[f32],
    eps: f32,
    inv_rms: &mut [f32],
) {
    let inverses = inv_rms.chunks_exact_mut(heads.count());
    for (row, inverses) in qkv.chunks_exact_mut(heads.row).zip(inverses) {
        let parts = row[..heads.width()].chunks_exact_mut(heads.dim);
        for (h, (x, inv)) in parts.zip(inverses).enumerate() {
            let weight = if h < heads.queries { q_weight } else { k_weight };
            let square = sum_by(x, x, mul_add::<FMA>);
            *inv = 1.0 / (square / heads.dim as f32 + eps).sqrt();
            for (x, w) in x.iter_mut().zip(weight) {
                *x = *x * *inv * w;
            }
        }
    }
}

vectorised! {
    /// Normalises the query and key heads of qkv (R, row) in place; `inv_rms` (R, heads) is kept
    /// for the backward pass.
    pub(crate) fn forward(
        qkv: &mut [f32],
        heads: NormedHeads,
        q_weight: &[f32],
        k_weight: &[f32],
        eps: f32,
        inv_rms: &mut [f32],
    ) = forward_impl
}

#[inline(always)]
fn backward_impl<const FMA: bool>(
    d_qkv: &mut [f32],
    input: &[f32],
    heads: NormedHeads,
    (q_weight, k_weight): (&[f32], &[f32]),
    inv_rms: &[f32],
    d_weights: &mut [f32],
) {
    let (d_q, d_k) = d_weights.split_at_mut(heads.dim);
    let rows = d_qkv.chunks_exact_mut(heads.row).zip(input.chunks_exact(heads.width()));
    for ((row, input), inverses) in rows.zip(inv_rms.chunks_exact(heads.count())) {
        let parts = row[..heads.width()].chunks_exact_mut(heads.dim);
        let inputs = input.chunks_exact(heads.dim).zip(inverses);
        for (h, (d, (x, &inv))) in parts.zip(inputs).enumerate() {
            let (weight, d_weight) =
                if h < heads.queries { (q_weight, &mut *d_q) } else { (k_weight, &mut *d_k) };
            let mut dot = 0.0;
            for (((d, x), w), dw) in d.iter_mut().zip(x).zip(weight).zip(d_weight) {
                *dw = mul_add::<FMA>(*d * x, inv, *dw);
                *d *= w;
                dot = mul_add::<FMA>(*d, *x, dot);
            }
            let pull = dot * inv * inv * inv / heads.dim as f32;
            for (d, x) in d.iter_mut().zip(x) {
                *d = mul_add::<FMA>(*d, inv, -pull * x);
            }
        }
    }
}

vectorised! {
    /// Turns the gradient d_qkv (R, row) of the normalised heads into that of `input`
    /// (R, heads · dim), their values before, in place. `d_weights` (2, dim) += the gradients of
    /// the two weights, queries' first.
    pub(crate) fn backward(
        d_qkv: &mut [f32],
        input: &[f32],
        heads: NormedHeads,
        weights: (&[f32], &[f32]),
        inv_rms: &[f32],
        d_weights: &mut [f32],
    ) = backward_impl
}

/// out (R, heads · dim): the query and key heads of qkv (R, row), for [`backward`].
pub(crate) fn keep_input(qkv: &[f32], heads: NormedHeads, out: &mut [f32]) {
    let rows = qkv.chunks_exact(heads.row).zip(out.chunks_exact_mut(heads.width()));
    for (row, out) in rows {
        out.copy_from_slice(&row[..heads.width()]);
    }
}
