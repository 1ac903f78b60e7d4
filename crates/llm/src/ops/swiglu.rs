//! SwiGLU: silu(gate) ⊙ up with silu(z) = z / (1 + e⁻ᶻ).

#![allow(unsafe_code)]

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

/// As [`forward`] to 10⁻⁵, for what is rounded to bfloat16 afterwards.
pub(crate) fn forward_near(gate_up: &[f32], width: usize, y: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if x86::takes(width) {
        // SAFETY: `takes` found what this needs.
        unsafe { x86::forward_near(gate_up, width, y) };
        return;
    }
    forward(gate_up, width, y);
}

/// As [`backward`] to 10⁻⁵, for what is rounded to bfloat16 afterwards.
pub(crate) fn backward_near(
    dy: &[f32],
    gate_up: &[f32],
    width: usize,
    y: &mut [f32],
    d_gate_up: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    if x86::takes(width) {
        // SAFETY: `takes` found what this needs.
        unsafe { x86::backward_near(dy, gate_up, width, y, d_gate_up) };
        return;
    }
    backward(dy, gate_up, width, y, d_gate_up);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_mul_ps,
        _mm512_rcp14_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
    };
    use std::f32::consts::LOG2_E;

    use super::super::simd::{LANES, Level, exp2_near, level};

    /// Whether this processor has the instructions, and rows of this width whole registers.
    pub(super) fn takes(width: usize) -> bool {
        level() == Level::Avx512 && width > 0 && width.is_multiple_of(LANES)
    }

    /// 1 / (1 + e^-z).
    #[target_feature(enable = "avx512f")]
    fn sigmoid(z: __m512) -> __m512 {
        let exp = exp2_near(_mm512_mul_ps(z, _mm512_set1_ps(-LOG2_E)));
        let below = _mm512_add_ps(_mm512_set1_ps(1.0), exp);
        let near = _mm512_rcp14_ps(below);
        // A step of Newton's: 14 good bits become 23.
        _mm512_mul_ps(near, _mm512_fnmadd_ps(below, near, _mm512_set1_ps(2.0)))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn forward_near(gate_up: &[f32], width: usize, y: &mut [f32]) {
        for (gu, y) in gate_up.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
            let (gate, up) = gu.split_at(width);
            let [(gate, _), (up, _)] = [gate, up].map(<[f32]>::as_chunks::<LANES>);
            for ((y, gate), up) in y.as_chunks_mut::<LANES>().0.iter_mut().zip(gate).zip(up) {
                // SAFETY: sixteen numbers each.
                unsafe {
                    let (gate, up) = (_mm512_loadu_ps(gate.as_ptr()), _mm512_loadu_ps(up.as_ptr()));
                    let product = _mm512_mul_ps(_mm512_mul_ps(gate, up), sigmoid(gate));
                    _mm512_storeu_ps(y.as_mut_ptr(), product);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn backward_near(
        dy: &[f32],
        gate_up: &[f32],
        width: usize,
        y: &mut [f32],
        d_gate_up: &mut [f32],
    ) {
        let rows = gate_up.chunks_exact(2 * width).zip(d_gate_up.chunks_exact_mut(2 * width));
        let outs = dy.chunks_exact(width).zip(y.chunks_exact_mut(width));
        for ((gu, dgu), (dy, y)) in rows.zip(outs) {
            for at in (0..width).step_by(LANES) {
                // SAFETY: sixteen numbers each, as the width is a multiple of that.
                unsafe {
                    let gate = _mm512_loadu_ps(gu.as_ptr().add(at));
                    let up = _mm512_loadu_ps(gu.as_ptr().add(width + at));
                    let dy = _mm512_loadu_ps(dy.as_ptr().add(at));
                    let sigmoid = sigmoid(gate);
                    let silu = _mm512_mul_ps(gate, sigmoid);
                    _mm512_storeu_ps(y.as_mut_ptr().add(at), _mm512_mul_ps(silu, up));
                    let dup = dgu.as_mut_ptr().add(width + at);
                    _mm512_storeu_ps(dup, _mm512_mul_ps(dy, silu));
                    // σ + silu (1 - σ)
                    let rest = _mm512_sub_ps(_mm512_set1_ps(1.0), sigmoid);
                    let slope = _mm512_fmadd_ps(silu, rest, sigmoid);
                    let dgate = _mm512_mul_ps(_mm512_mul_ps(dy, up), slope);
                    _mm512_storeu_ps(dgu.as_mut_ptr().add(at), dgate);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise;
    use super::*;

    #[test]
    fn near_ones_are_near() {
        let (rows, width) = (5, 48);
        let mut gate_up: Vec<f32> = noise(rows * 2 * width, 1).iter().map(|x| x * 30.0).collect();
        gate_up[0] = 300.0;
        gate_up[1] = -300.0;
        gate_up[2] = f32::NAN;
        gate_up[width + 3] = f32::NAN;
        let dy = noise(rows * width, 2);
        let [mut y, mut y_near, mut again, mut again_near] =
            [const { Vec::new() }; 4].map(|_: Vec<f32>| vec![7.0; rows * width]);
        forward(&gate_up, width, &mut y);
        forward_near(&gate_up, width, &mut y_near);
        let [mut d, mut d_near] = [0; 2].map(|_| vec![7.0; gate_up.len()]);
        backward(&dy, &gate_up, width, &mut again, &mut d);
        backward_near(&dy, &gate_up, width, &mut again_near, &mut d_near);
        for (exact, near) in [(y, y_near), (again, again_near), (d, d_near)] {
            for (i, (exact, near)) in exact.iter().zip(&near).enumerate() {
                assert_eq!(exact.is_nan(), near.is_nan(), "number {i}");
                let most = 1e-5 * exact.abs() + 1e-6;
                assert!(exact.is_nan() || (exact - near).abs() <= most, "{near}, not {exact}");
            }
        }
    }
}
