//! The paper's step-level figure: how training changes a step's entropy, by percentile of its
//! initial entropy.

use serde::{Deserialize, Serialize};

use crate::statistics::{deviation, mean};

/// Steps of one percentile bin of the initial entropy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Lower percentile, 0–100.
    pub from: f64,
    /// Upper percentile, 0–100.
    pub to: f64,
    /// Steps in the bin.
    pub steps: usize,
    /// Mean entropy before training (nats).
    pub before: f64,
    /// Mean entropy of the same steps after training (nats).
    pub after: f64,
    /// Standard deviation of the steps' changes (nats).
    pub change_std: f64,
}

impl Bin {
    /// Mean change of entropy (nats).
    pub fn change(&self) -> f64 {
        self.after - self.before
    }

    /// Half the width of the 95 % interval of the mean change over the bin's steps (nats); steps of
    /// one episode are treated as independent.
    pub fn half_width(&self) -> f64 {
        1.96 * self.change_std / (self.steps.max(1) as f64).sqrt()
    }
}

/// Sorts pairs of entropies (before, after) by the first into `bins` bins of equal size. Steps of
/// equal entropy stay in their order. Pairs that are not finite are left out.
pub fn bins(pairs: impl IntoIterator<Item = (f64, f64)>, bins: usize) -> Vec<Bin> {
    let mut pairs: Vec<(f64, f64)> =
        pairs.into_iter().filter(|(a, b)| a.is_finite() && b.is_finite()).collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let n = pairs.len();
    let bins = bins.min(n);
    (0..bins)
        .map(|i| {
            let part = &pairs[n * i / bins..n * (i + 1) / bins];
            let before: Vec<f64> = part.iter().map(|p| p.0).collect();
            let after: Vec<f64> = part.iter().map(|p| p.1).collect();
            let change: Vec<f64> = part.iter().map(|p| p.1 - p.0).collect();
            Bin {
                from: 100.0 * i as f64 / bins as f64,
                to: 100.0 * (i + 1) as f64 / bins as f64,
                steps: part.len(),
                before: mean(&before).unwrap_or_default(),
                after: mean(&after).unwrap_or_default(),
                change_std: deviation(&change),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_follow_the_initial_entropy() {
        let pairs = (0..40).rev().map(|i| (f64::from(i), f64::from(i) * 0.5));
        let bins = bins(pairs.chain([(f64::NAN, 1.0)]), 4);
        let steps: Vec<_> = bins.iter().map(|b| (b.from, b.to, b.steps, b.before)).collect();
        assert_eq!(
            steps,
            [
                (0.0, 25.0, 10, 4.5),
                (25.0, 50.0, 10, 14.5),
                (50.0, 75.0, 10, 24.5),
                (75.0, 100.0, 10, 34.5)
            ]
        );
        assert_eq!(bins[3].change(), -17.25);
        assert!(bins[0].half_width() > 0.0);
    }

    #[test]
    fn fewer_steps_than_bins_make_fewer_bins() {
        assert_eq!(bins([(1.0, 2.0)], 20).len(), 1);
        assert!(bins([], 20).is_empty());
    }
}
