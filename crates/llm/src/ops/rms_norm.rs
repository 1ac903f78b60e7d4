//! RMSNorm: y = w ⊙ x / √(mean(x²) + ε).

use super::simd::{mul_add, sum_by, vectorised};

#[inline(always)]
fn forward_impl<const FMA: bool>(
    x: &[f32],
    w: &[f32],
    eps: f32,
    y: &mut [f32],
    inv_rms: &mut [f32],
) {
    let d = w.len();
    for ((x, y), inv) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(inv_rms) {
        let square = sum_by(x, x, mul_add::<FMA>);
        *inv = 1.0 / (square / d as f32 + eps).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            *y = x * *inv * w;
        }
    }
}

vectorised! {
    /// y (R, D) from x (R, D) and w (D); `inv_rms` (R) is kept for the backward pass.
    pub(crate) fn forward(x: &[f32], w: &[f32], eps: f32, y: &mut [f32], inv_rms: &mut [f32])
        = forward_impl
}

#[inline(always)]
fn recompute_impl<const FMA: bool>(x: &[f32], w: &[f32], inv_rms: &[f32], y: &mut [f32]) {
    let d = w.len();
    for ((x, y), inv) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(inv_rms) {
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            *y = x * inv * w;
        }
    }
}

vectorised! {
    /// y (R, D) once more, from the `inv_rms` that [`forward`] kept.
    pub(crate) fn recompute(x: &[f32], w: &[f32], inv_rms: &[f32], y: &mut [f32])
        = recompute_impl
}

#[inline(always)]
fn backward_impl<const FMA: bool>(
    dy: &[f32],
    x: &[f32],
    w: &[f32],
    inv_rms: &[f32],
    dx: &mut [f32],
) {
    let d = w.len();
    let rows = dy.chunks_exact(d).zip(x.chunks_exact(d));
    for (((dy, x), dx), &inv) in rows.zip(dx.chunks_exact_mut(d)).zip(inv_rms) {
        // Σ dy·w·x in lanes.
        let mut lanes = [0.0f32; super::simd::LANES];
        let width = lanes.len();
        for ((dy, x), w) in dy.chunks(width).zip(x.chunks(width)).zip(w.chunks(width)) {
            for i in 0..dy.len().min(x.len()).min(w.len()) {
                lanes[i] = mul_add::<FMA>(dy[i] * x[i], w[i], lanes[i]);
            }
        }
        let pull = super::simd::sum_lanes(lanes) * inv * inv * inv / d as f32;
        for (((dx, dy), x), w) in dx.iter_mut().zip(dy).zip(x).zip(w) {
            *dx += mul_add::<FMA>(dy * w, inv, -pull * x);
        }
    }
}

vectorised! {
    /// dx (R, D) += J·dy.
    pub(crate) fn backward(dy: &[f32], x: &[f32], w: &[f32], inv_rms: &[f32], dx: &mut [f32])
        = backward_impl
}

#[inline(always)]
fn backward_weight_impl<const FMA: bool>(dy: &[f32], x: &[f32], inv_rms: &[f32], dw: &mut [f32]) {
    let d = dw.len();
    for ((dy, x), &inv) in dy.chunks_exact(d).zip(x.chunks_exact(d)).zip(inv_rms) {
        for ((dw, dy), x) in dw.iter_mut().zip(dy).zip(x) {
            *dw = mul_add::<FMA>(dy * x, inv, *dw);
        }
    }
}

vectorised! {
    /// dw (D) += Σ over rows, in their order, of dy ⊙ x / rms.
    pub(crate) fn backward_weight(dy: &[f32], x: &[f32], inv_rms: &[f32], dw: &mut [f32])
        = backward_weight_impl
}
