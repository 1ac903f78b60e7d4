//! Rotary position embedding, with a head's halves as the pairs ("rotate half").

use super::simd::vectorised;
use crate::{
    config::ModelConfig,
    rope_scaling::{RopeScaling, frequency},
};

/// Cosines and sines of every position up to the largest asked for.
#[derive(Debug, Default)]
pub(crate) struct RopeTable {
    theta: f32,
    scaling: Option<RopeScaling>,
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Makes the table hold `positions` positions for a model's heads.
    pub(crate) fn ensure(&mut self, positions: usize, config: &ModelConfig) {
        let (half, theta, scaling) = (config.head_dim / 2, config.rope_theta, config.rope_scaling);
        if self.half != half || self.theta != theta || self.scaling != scaling {
            *self = Self { theta, scaling, half, cos: Vec::new(), sin: Vec::new() };
        }
        let done = self.cos.len() / half;
        if done >= positions {
            return;
        }
        let of = |i| frequency(theta, config.head_dim, scaling, i);
        let frequencies: Vec<f32> = (0..half).map(of).collect();
        for position in done..positions {
            for frequency in &frequencies {
                // Rounded to f32 where the reference implementation rounds.
                let angle = f64::from(position as f32 * frequency);
                self.cos.push(angle.cos() as f32);
                self.sin.push(angle.sin() as f32);
            }
        }
    }

    fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let start = position as usize * self.half;
        (&self.cos[start..start + self.half], &self.sin[start..start + self.half])
    }

    /// Rotates the first `heads` heads of each row of x (R, row), in place. Positions must be
    /// below what [`ensure`](Self::ensure) was asked for.
    pub(crate) fn forward(&self, x: &mut [f32], row: usize, heads: usize, positions: &[u32]) {
        self.turn(x, row, heads, positions, 1.0);
    }

    /// The transpose of the rotation, which is its inverse, applied to gradients.
    pub(crate) fn backward(&self, dx: &mut [f32], row: usize, heads: usize, positions: &[u32]) {
        self.turn(dx, row, heads, positions, -1.0);
    }

    fn turn(&self, x: &mut [f32], row: usize, heads: usize, positions: &[u32], sign: f32) {
        for (x, &position) in x.chunks_exact_mut(row).zip(positions) {
            turn(&mut x[..heads * 2 * self.half], self.at(position), sign);
        }
    }
}

#[inline(always)]
fn turn_impl<const FMA: bool>(x: &mut [f32], (cos, sin): (&[f32], &[f32]), sign: f32) {
    let half = cos.len();
    for head in x.chunks_exact_mut(2 * half) {
        let (lo, hi) = head.split_at_mut(half);
        for (((a, b), c), s) in lo.iter_mut().zip(hi).zip(cos).zip(sin) {
            let s = s * sign;
            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
        }
    }
}

vectorised! {
    /// Rotates heads of one position.
    fn turn(x: &mut [f32], at: (&[f32], &[f32]), sign: f32) = turn_impl
}
