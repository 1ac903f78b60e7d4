//! Proposition 1: a softmax policy's expected squared score norm is a function of its entropy.
//!
//! For a ~ π = softmax(z): E‖∇_z log π(a)‖² = 1 − exp(−H₂(π)), H₂ being the Rényi-2 entropy.
//! Confident policies have small gradients, uncertain ones large: the coupling that EMPG undoes.

/// H₂(π) = −log Σ p² (nats), from 0 to log |V|.
pub fn renyi2(probabilities: &[f64]) -> f64 {
    -collision(probabilities).ln()
}

/// The right-hand side: 1 − exp(−H₂) = 1 − Σ p².
pub fn closed_form(probabilities: &[f64]) -> f64 {
    1.0 - (-renyi2(probabilities)).exp()
}

/// ‖∇_z log π(a)‖², the gradient e_a − π written out; O(|V|).
pub fn score_norm(probabilities: &[f64], action: usize) -> f64 {
    let norm = |(v, p): (usize, &f64)| {
        let gradient = f64::from(u8::from(v == action)) - p;
        gradient * gradient
    };
    probabilities.iter().enumerate().map(norm).sum()
}

/// The left-hand side: the mean of [`score_norm`] over all actions, O(|V|²).
pub fn expected_score_norm(probabilities: &[f64]) -> f64 {
    (0..probabilities.len()).map(|a| probabilities[a] * score_norm(probabilities, a)).sum()
}

fn collision(probabilities: &[f64]) -> f64 {
    probabilities.iter().map(|p| p * p).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::softmax;

    #[test]
    fn both_sides_agree() {
        for (spread, vocabulary) in [(0.0, 2), (0.3, 17), (2.0, 64), (40.0, 100)] {
            let logits: Vec<f64> =
                (0..vocabulary).map(|v| spread * f64::from(v * 7919 % 31) / 31.0).collect();
            let p = softmax(&logits, 1.0).unwrap();
            assert!((expected_score_norm(&p) - closed_form(&p)).abs() < 1e-12);
        }
    }

    #[test]
    fn certainty_has_no_gradient_and_uniformity_the_largest() {
        assert_eq!(closed_form(&[1.0, 0.0]), 0.0);
        assert_eq!(expected_score_norm(&[1.0, 0.0]), 0.0);
        assert!((closed_form(&[0.25; 4]) - 0.75).abs() < 1e-15);
        assert!((renyi2(&[0.25; 4]) - 4f64.ln()).abs() < 1e-15);
    }
}
