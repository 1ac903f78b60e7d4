//! SwiGLU: silu(gate) ⊙ up with silu(z) = z / (1 + e⁻ᶻ).

use super::simd::{exp, vectorised};

#[inline(always)]
fn forward_impl<const FMA: bool>(gate_up: &[f32], width: usize, y: &mut [f32]) {
    for (gu, y) in gate_up.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
        let (gate, up) = gu.split_at(width);
        for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
            *y = g / (1.0 + exp::<FMA>(-g)) * u;
        }
    }
}

vectorised! {
    /// y (R, I) from gate_up (R, 2I), gate first.
    pub(crate) fn forward(gate_up: &[f32], width: usize, y: &mut [f32]) = forward_impl
}

#[inline(always)]
fn backward_impl<const FMA: bool>(
    dy: &[f32],
    gate_up: &[f32],
    width: usize,
    y: &mut [f32],
    d_gate_up: &mut [f32],
) {
    let rows = gate_up.chunks_exact(2 * width).zip(d_gate_up.chunks_exact_mut(2 * width));
    let outs = dy.chunks_exact(width).zip(y.chunks_exact_mut(width));
    for ((gu, dgu), (dy, y)) in rows.zip(outs) {
        let (gate, up) = gu.split_at(width);
        let (dgate, dup) = dgu.split_at_mut(width);
        let ins = gate.iter().zip(up).zip(dy);
        for (((g, u), dy), ((y, dg), du)) in ins.zip(y.iter_mut().zip(dgate).zip(dup)) {
            let sigmoid = 1.0 / (1.0 + exp::<FMA>(-g));
            let silu = g * sigmoid;
            *y = silu * u;
            *du = dy * silu;
            *dg = dy * u * (sigmoid + silu * (1.0 - sigmoid));
        }
    }
}

vectorised! {
    /// d_gate_up (R, 2I) from dy (R, I); recomputes y (R, I) on the way.
    pub(crate) fn backward(
        dy: &[f32], gate_up: &[f32], width: usize, y: &mut [f32], d_gate_up: &mut [f32],
    ) = backward_impl
}
