//! Output head: log-probability and entropy of softmax(z/T), and their gradients.
//!
//! With u = z/T, p = softmax(u) and H = −Σ p ln p:
//! ∂ ln p_t/∂u_j = 1[j = t] − p_j and ∂H/∂u_j = −p_j (ln p_j + H). ∂u/∂z = 1/T.

use super::simd::{LANES, exp, ln, max, mul_add, sum_lanes, vectorised};

/// What one row's distribution is summarised by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowScore {
    /// What goes off a logit before the temperature divides.
    shift: f32,
    /// ln Σ exp((z − shift)/T)
    log_z: f32,
    /// H, nats
    pub(crate) entropy: f32,
}

impl RowScore {
    /// Whether the distribution is one: of logits that are numbers.
    pub(crate) fn is_finite(&self) -> bool {
        self.shift.is_finite() && self.log_z.is_finite() && self.entropy.is_finite()
    }

    /// ln p of a token with logit `z`.
    pub(crate) fn logprob(&self, z: f32, inv_t: f32) -> f32 {
        (z - self.shift) * inv_t - self.log_z
    }
}

/// Logits whose sums are taken in f32. A vocabulary has many more, most of them too small to
/// change a sum that a few have filled.
const BLOCK: usize = 4096;

#[inline(always)]
fn score_impl<const FMA: bool>(logits: &[f32], inv_t: f32) -> RowScore {
    let top = max(logits);
    // Σ e^{u−m} and Σ e^{u−m}·(u−m)
    let (mut total, mut total_u) = (0.0f64, 0.0f64);
    for block in logits.chunks(BLOCK) {
        let (mut z, mut zu) = ([0.0f32; LANES], [0.0f32; LANES]);
        let (chunks, rest) = block.as_chunks::<LANES>();
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
        total += f64::from(sum_lanes(z));
        total_u += f64::from(sum_lanes(zu));
    }
    let (z, zu) = (total as f32, total_u as f32);
    // Entropy is not negative; rounding can make it so by an ulp.
    let entropy = z.ln() - zu / z;
    // Divided by a low temperature, logit and normaliser are large, and nothing but rounding would be
    // left of their difference; from 1 up they are no larger than logits, and runs keep their bits.
    let (shift, log_z) = if inv_t > 1.0 { (top, z.ln()) } else { (0.0, z.ln() + top * inv_t) };
    RowScore { shift, log_z, entropy: if entropy < 0.0 { 0.0 } else { entropy } }
}

vectorised! {
    /// Normaliser and entropy of softmax(z/T) of one row of logits (V).
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
        let log_p = mul_add::<FMA>(*z - row.shift, inv_t, -row.log_z);
        let pull = mul_add::<FMA>(dentropy, log_p + row.entropy, dlogprob);
        *z = -inv_t * exp::<FMA>(log_p) * pull;
    }
}

#[inline(always)]
fn backward_from_impl<const FMA: bool>(
    p: &mut [f32],
    inv_t: f32,
    entropy: f32,
    dlogprob: f32,
    dentropy: f32,
) {
    if dentropy == 0.0 {
        for p in p {
            *p = -inv_t * *p * dlogprob;
        }
        return;
    }
    for p in p {
        // p ln p goes to 0 with p, as long as the logarithm is a number.
        *p = -inv_t * *p * mul_add::<FMA>(dentropy, ln::<FMA>(*p) + entropy, dlogprob);
    }
}

#[inline(always)]
fn probabilities_impl<const FMA: bool>(logits: &mut [f32], inv_t: f32, row: RowScore) {
    for z in logits {
        *z = exp::<FMA>(mul_add::<FMA>(*z - row.shift, inv_t, -row.log_z));
    }
}

vectorised! {
    /// One row of logits (V) becomes softmax(z/T).
    pub(crate) fn probabilities(logits: &mut [f32], inv_t: f32, row: RowScore) =
        probabilities_impl
}

vectorised! {
    /// Replaces one row of logits (V) by its gradient, without the 1/T · dlogprob at each
    /// target's own token: `dlogprob` is the sum over the row's targets, `dentropy` likewise.
    pub(crate) fn backward(
        logits: &mut [f32], inv_t: f32, row: RowScore, dlogprob: f32, dentropy: f32,
    ) = backward_impl
}

vectorised! {
    /// The same from a row's probabilities and their entropy.
    pub(crate) fn backward_from(
        p: &mut [f32], inv_t: f32, entropy: f32, dlogprob: f32, dentropy: f32,
    ) = backward_from_impl
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_give_the_gradient_of_their_logits() {
        let mut logits: Vec<f32> = (0..333).map(|i| (i as f32 * 1.7).sin() * 6.0).collect();
        logits[7] = -300.0;
        for (inv_t, dentropy) in [(1.0, 0.0), (0.7, 0.4)] {
            let row = score(&logits, inv_t);
            let (mut expected, mut found) = (logits.clone(), logits.clone());
            backward(&mut expected, inv_t, row, -0.3, dentropy);
            probabilities(&mut found, inv_t, row);
            backward_from(&mut found, inv_t, row.entropy, -0.3, dentropy);
            if dentropy == 0.0 {
                assert_eq!(found, expected);
            }
            assert!(found.iter().zip(&expected).all(|(f, e)| (f - e).abs() < 1e-6));
        }
    }

    #[test]
    fn a_long_tail_counts() {
        // Each of them vanishes beside 1 in f32; together they are a hundredth.
        let mut logits = vec![-16.7_f32; 151_936];
        logits[5] = 0.0;
        let tail = 151_935.0 * (-16.7_f64).exp();
        let z = 1.0 + tail;
        let entropy = z.ln() + tail * 16.7 / z;
        let row = score(&logits, 1.0);
        assert!((f64::from(row.logprob(0.0, 1.0)) + z.ln()).abs() < 2e-5);
        assert!((f64::from(row.entropy) / entropy - 1.0).abs() < 2e-3);
        let mut p = logits.clone();
        probabilities(&mut p, 1.0, row);
        assert!((f64::from(p[5]) - 1.0 / z).abs() < 2e-5);
    }
}
