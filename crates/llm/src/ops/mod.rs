//! Operations on row-major f32 slices, one file each, forward beside backward.
//!
//! Pure functions: they read slices, write slices and keep nothing. The first dimension of every
//! activation is the row of the pack. The model calls these and nothing else touches numbers.

// Loops must be inlined into the function that enables an instruction set to be compiled for it.
#![allow(clippy::inline_always)]

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod bf16;
pub(crate) mod embedding;
pub(crate) mod factors;
pub(crate) mod head;
pub(crate) mod head_norm;
pub(crate) mod lanes;
mod left;
pub(crate) mod linear;
pub(crate) mod matmul;
pub(crate) mod pairing;
pub(crate) mod panels;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod simd;
pub(crate) mod swiglu;
pub(crate) mod thirds;
pub(crate) mod thirds_product;
pub(crate) mod tile_lanes;
pub(crate) mod tile_product;
pub(crate) mod tile_swiglu;
pub(crate) mod tiles;
pub(crate) mod weight_rounding;

/// Numbers between −½ and ½ for tests.
#[cfg(test)]
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        })
        .collect()
}
