//! Output head: log-probability and entropy of softmax(z/T), and their gradients.
//!
//! With u = z/T, p = softmax(u) and H = −Σ p ln p:
//! ∂ ln p_t/∂u_j = 1[j = t] − p_j and ∂H/∂u_j = −p_j (ln p_j + H). ∂u/∂z = 1/T.

use super::simd::{LANES, exp, max, mul_add, sum_lanes, vectorised};

/// What one row's distribution is summarised by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowScore {
    /// ln Σ exp(u)
    pub(crate) log_z: f32,
    /// H, nats
    pub(crate) entropy: f32,
}

#[inline(always)]
fn score_impl<const FMA: bool>(logits: &[f32], inv_t: f32) -> RowScore {
    let top = max(logits);
    // Σ e^{u−m} and Σ e^{u−m}·(u−m), in lanes.
    let (mut z, mut zu) = ([0.0f32; LANES], [0.0f32; LANES]);
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for c in chunks {
        for i in 0..LANES {
            let u = (c[i] - top) * inv_t;
            let e = exp::<FMA>(u);
            z[i] += e;
            zu[i] = mul_add::<FMA>(e, u, zu[i]);
        }
    }
    for (i, c) in rest.iter().enumerate() {
        let u = (c - top) * inv_t;
        let e = exp::<FMA>(u);
        z[i] += e;
        zu[i] = mul_add::<FMA>(e, u, zu[i]);
    }
    let (z, zu) = (sum_lanes(z), sum_lanes(zu));
    // Entropy is not negative; rounding can make it so by an ulp.
    let entropy = z.ln() - zu / z;
    RowScore { log_z: z.ln() + top * inv_t, entropy: if entropy < 0.0 { 0.0 } else { entropy } }
}

vectorised! {
    /// ln Σ exp(z/T) and the entropy of softmax(z/T) of one row of logits (V).
    pub(crate) fn score(logits: &[f32], inv_t: f32) -> RowScore = score_impl
}

#[inline(always)]
fn backward_impl<const FMA: bool>(
    logits: &mut [f32],
    inv_t: f32,
    row: RowScore,
    dlogprob: f32,
    dentropy: f32,
) {
    for z in logits.iter_mut() {
        let log_p = mul_add::<FMA>(*z, inv_t, -row.log_z);
        let pull = mul_add::<FMA>(dentropy, log_p + row.entropy, dlogprob);
        *z = -inv_t * exp::<FMA>(log_p) * pull;
    }
}

vectorised! {
    /// Replaces one row of logits (V) by its gradient, without the 1/T · dlogprob at each
    /// target's own token: `dlogprob` is the sum over the row's targets, `dentropy` likewise.
    pub(crate) fn backward(
        logits: &mut [f32], inv_t: f32, row: RowScore, dlogprob: f32, dentropy: f32,
    ) = backward_impl
}
