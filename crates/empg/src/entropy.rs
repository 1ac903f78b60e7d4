//! Entropies of softmax distributions (nats).
//!
//! The distribution is always the full softmax(z/T) over the vocabulary at the sampling
//! temperature T, before any top-k or top-p.

use crate::error::AdvantageError;

/// softmax(z/T): probabilities, as many as logits.
///
/// # Errors
/// A temperature that is not above 0, no logits, or a logit that is NaN or +∞. A logit of −∞ is a
/// masked token of probability 0.
pub fn softmax(logits: &[f64], temperature: f64) -> Result<Vec<f64>, AdvantageError> {
    let (log_z, _) = log_partition(logits, temperature)?;
    Ok(logits.iter().map(|z| (z / temperature - log_z).exp()).collect())
}

/// log π(token) = z_token/T − log Σ exp(z/T).
///
/// # Errors
/// As [`softmax`]; a token outside the vocabulary.
pub fn token_logprob(
    logits: &[f64],
    temperature: f64,
    token: usize,
) -> Result<f64, AdvantageError> {
    let (log_z, _) = log_partition(logits, temperature)?;
    let z = logits.get(token).ok_or(AdvantageError::Length {
        what: "vocabulary",
        expected: token.saturating_add(1),
        got: logits.len(),
    })?;
    Ok(z / temperature - log_z)
}

/// h = −Σ p·log p of softmax(z/T), from 0 to log |V|.
///
/// # Errors
/// As [`softmax`].
pub fn token_entropy(logits: &[f64], temperature: f64) -> Result<f64, AdvantageError> {
    let (log_z, mean) = log_partition(logits, temperature)?;
    Ok((log_z - mean).max(0.0))
}

/// ∂h/∂z_v = −p_v·(log p_v + h)/T for every token v: what an entropy bonus adds to the backward
/// pass of the head.
///
/// # Errors
/// As [`softmax`].
pub fn entropy_gradient(logits: &[f64], temperature: f64) -> Result<Vec<f64>, AdvantageError> {
    let (log_z, mean) = log_partition(logits, temperature)?;
    let entropy = log_z - mean;
    Ok(logits
        .iter()
        .map(|z| {
            let log_p = z / temperature - log_z;
            let p = log_p.exp();
            if p > 0.0 { -p * (log_p + entropy) / temperature } else { 0.0 }
        })
        .collect())
}

/// H_it: the mean of a step's token entropies, or none for a step without tokens.
pub fn step_entropy(token_entropies: &[f64]) -> Option<f64> {
    (!token_entropies.is_empty())
        .then(|| token_entropies.iter().sum::<f64>() / token_entropies.len() as f64)
}

/// log Σ exp(z/T) and Σ p·z/T.
fn log_partition(logits: &[f64], temperature: f64) -> Result<(f64, f64), AdvantageError> {
    if !(temperature.is_finite() && temperature > 0.0) {
        let needs = "must be finite and above 0";
        return Err(AdvantageError::Option { name: "temperature", value: temperature, needs });
    }
    let bad = |token: usize| AdvantageError::NotFinite {
        what: "logit",
        trajectory: 0,
        step: None,
        token: Some(token as u64),
    };
    let mut top = f64::NEG_INFINITY;
    for (token, &z) in logits.iter().enumerate() {
        if z.is_nan() || z == f64::INFINITY {
            return Err(bad(token));
        }
        top = top.max(z / temperature);
    }
    if !top.is_finite() {
        return Err(bad(0));
    }
    let (mut total, mut weighted) = (0.0, 0.0);
    for z in logits {
        let shifted = z / temperature - top;
        let weight = shifted.exp();
        total += weight;
        if weight > 0.0 {
            weighted += weight * shifted;
        }
    }
    Ok((top + total.ln(), top + weighted / total))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f64; 5] = [0.3, -1.2, 2.5, 0.0, 1.1];

    #[test]
    fn entropy_spans_zero_to_log_vocabulary() {
        assert!((token_entropy(&[7.0; 8], 0.5).unwrap() - 8f64.ln()).abs() < 1e-12);
        assert!(token_entropy(&[900.0, 0.0, 0.0], 1.0).unwrap() < 1e-12);
        let masked = token_entropy(&[1.0, 1.0, f64::NEG_INFINITY], 1.0).unwrap();
        assert!((masked - 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn entropy_is_the_sum_over_probabilities() {
        for temperature in [0.4, 1.0, 1.7] {
            let p = softmax(&LOGITS, temperature).unwrap();
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let direct: f64 = p.iter().map(|p| -p * p.ln()).sum();
            assert!((token_entropy(&LOGITS, temperature).unwrap() - direct).abs() < 1e-12);
            let logp = token_logprob(&LOGITS, temperature, 2).unwrap();
            assert!((logp - p[2].ln()).abs() < 1e-12);
        }
    }

    #[test]
    fn the_gradient_matches_finite_differences() {
        let gradient = entropy_gradient(&LOGITS, 0.7).unwrap();
        for (v, slope) in gradient.iter().enumerate() {
            let at = |d: f64| {
                let mut logits = LOGITS;
                logits[v] += d;
                token_entropy(&logits, 0.7).unwrap()
            };
            assert!((slope - (at(1e-5) - at(-1e-5)) / 2e-5).abs() < 1e-8);
        }
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(token_entropy(&LOGITS, temperature).is_err());
        }
        assert!(softmax(&[], 1.0).is_err());
        assert!(softmax(&[0.0, f64::NAN], 1.0).unwrap_err().to_string().contains("token 1"));
        assert!(softmax(&[f64::NEG_INFINITY; 2], 1.0).is_err());
        assert!(token_logprob(&LOGITS, 1.0, 5).is_err());
        assert_eq!(step_entropy(&[]), None);
        assert_eq!(step_entropy(&[1.0, 3.0]), Some(2.0));
    }
}
