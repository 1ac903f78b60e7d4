//! Means with intervals over seeds, and paired differences between arms.

use serde::{Deserialize, Serialize};

/// A range that is to hold the true value in 95 of 100 repetitions; how nearly it does depends on how
/// it was made ([`bootstrap`], [`paired`]).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// Resamples of a bootstrap.
const RESAMPLES: usize = 10_000;

/// The mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The sample's standard deviation (n − 1); 0 of fewer than two values.
pub fn deviation(values: &[f64]) -> f64 {
    let (Some(mean), true) = (mean(values), values.len() > 1) else { return 0.0 };
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// The 95 % percentile bootstrap interval of the mean (10,000 resamples, always the same ones for
/// the same number of values). One value has no interval. With few seeds it is too narrow, as every
/// bootstrap is: of normal values that of three holds the mean in 74 of 100 repetitions, of five in
/// 84. [`Paired`] uses Student's distribution.
pub fn bootstrap(values: &[f64]) -> Option<Interval> {
    resample(values, RESAMPLES)
}

/// [`bootstrap`] from fewer resamples, for the many points of a curve.
pub fn quick_bootstrap(values: &[f64]) -> Option<Interval> {
    Resampler::new(values.len(), QUICK).interval(values)
}

fn resample(values: &[f64], resamples: usize) -> Option<Interval> {
    Resampler::new(values.len(), resamples).interval(values)
}

/// Resamples of [`quick_bootstrap`].
const QUICK: usize = 400;

/// Which values a bootstrap draws: drawn once where many points have equally many values.
#[derive(Clone, Debug)]
pub struct Resampler {
    /// Positions of the values, resample after resample.
    drawn: Vec<u32>,
    /// Values.
    n: usize,
    means: Vec<f64>,
}

impl Resampler {
    /// The draws of [`quick_bootstrap`].
    pub fn quick(n: usize) -> Self {
        Self::new(n, QUICK)
    }

    fn new(n: usize, resamples: usize) -> Self {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64 ^ n as u64;
        let draws = if n < 2 { 0 } else { n * resamples };
        let drawn = (0..draws).map(|_| below(&mut random, n) as u32).collect();
        Self { drawn, n, means: Vec::new() }
    }

    /// The 95 % interval of the mean; `None` of fewer than two values, or of another number of them.
    pub fn interval(&mut self, values: &[f64]) -> Option<Interval> {
        if self.drawn.is_empty() || values.len() != self.n {
            return None;
        }
        self.means.clear();
        self.means.extend(self.drawn.chunks(self.n).map(|one| {
            let sum: f64 = one.iter().map(|&i| values[i as usize]).sum();
            sum / self.n as f64
        }));
        let resamples = self.means.len();
        let mut at = |share: f64| {
            let place = ((resamples - 1) as f64 * share).round() as usize;
            *self.means.select_nth_unstable_by(place, f64::total_cmp).1
        };
        Some(Interval { low: at(0.025), high: at(0.975) })
    }
}

/// A number below `n` (SplitMix64; the bias of the multiplication is below 2⁻⁵⁰ here).
fn below(state: &mut u64, n: usize) -> usize {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    ((u128::from(z) * n as u128) >> 64) as usize
}

/// The differences of two arms over the seeds that both have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Seeds.
    pub pairs: usize,
    /// Mean of the differences.
    pub mean: f64,
    /// 95 % interval of the mean by Student's t with n − 1 degrees of freedom; `None` of one pair.
    pub interval: Option<Interval>,
    /// Two-sided p of the exact sign-flip test: the share of all 2ⁿ sign patterns whose mean is at
    /// least as far from 0. With five pairs it cannot be below 0.0625. `None` past 20 pairs.
    pub p: Option<f64>,
    /// Seeds with a difference above 0.
    pub better: usize,
    /// Seeds with a difference below 0.
    pub worse: usize,
}

/// Compares arms over equal seeds: `differences` are those of arm − base, seed by seed.
pub fn paired(differences: &[f64]) -> Option<Paired> {
    let mean = mean(differences)?;
    let n = differences.len();
    let half = student(n.saturating_sub(1)) * deviation(differences) / (n as f64).sqrt();
    Some(Paired {
        pairs: n,
        mean,
        interval: (n > 1).then_some(Interval { low: mean - half, high: mean + half }),
        p: (n <= 20).then(|| sign_flip(differences)),
        better: differences.iter().filter(|d| **d > 0.0).count(),
        worse: differences.iter().filter(|d| **d < 0.0).count(),
    })
}

/// The 95 % Wilson score interval of a share of `n`.
pub fn wilson(share: f64, n: usize) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (z, n) = (1.959_963_985, n as f64);
    let centre = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0))
}

fn sign_flip(differences: &[f64]) -> f64 {
    let total: f64 = differences.iter().sum();
    // Sums of the same numbers in another order differ in their last bits.
    let bar = total.abs() * (1.0 - 1e-12);
    let patterns = 1u64 << differences.len();
    let far = (0..patterns)
        .filter(|pattern| {
            let sum: f64 = differences
                .iter()
                .enumerate()
                .map(|(i, d)| if pattern >> i & 1 == 1 { -d } else { *d })
                .sum();
            sum.abs() >= bar
        })
        .count();
    far as f64 / patterns as f64
}

/// The 97.5 % quantile of Student's t.
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    match freedom {
        0 => f64::INFINITY,
        1..=30 => TABLE[freedom - 1],
        // The first terms of the expansion in 1/ν.
        _ => 1.959_964 + 2.372 / freedom as f64 + 2.822 / (freedom * freedom) as f64,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_values() {
        // scipy.stats.ttest_1samp([1, 2, 3, 4, 5], 0).confidence_interval(): 1.0368 … 4.9632
        let p = paired(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let interval = p.interval.unwrap();
        assert!((interval.low - 1.0368).abs() < 1e-3 && (interval.high - 4.9632).abs() < 1e-3);
        assert_eq!((p.mean, p.p, p.better, p.worse), (3.0, Some(0.0625), 5, 0));
        assert_eq!(paired(&[]), None);
        assert_eq!(paired(&[2.0]).unwrap().interval, None);
        let even = paired(&[1.0, -1.0]).unwrap();
        assert_eq!((even.p, even.better, even.worse), (Some(1.0), 1, 1));
        assert!((student(40) - 2.021).abs() < 1e-3 && (student(120) - 1.980).abs() < 1e-3);
    }

    #[test]
    fn the_bootstrap_of_many_values_is_that_of_the_normal_distribution() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 20)).collect();
        let interval = bootstrap(&values).unwrap();
        let half = 1.96 * deviation(&values) / 20.0;
        let mean = mean(&values).unwrap();
        assert!((interval.low - (mean - half)).abs() < 0.05, "{interval:?}");
        assert!((interval.high - (mean + half)).abs() < 0.05, "{interval:?}");
        assert_eq!(bootstrap(&[1.0]), None);
    }

    proptest! {
        #[test]
        fn intervals_hold_their_mean(values in prop::collection::vec(-1e3f64..1e3, 2..12)) {
            let m = mean(&values).unwrap();
            let b = bootstrap(&values).unwrap();
            prop_assert!(b.low <= m + 1e-9 && m <= b.high + 1e-9);
            let p = paired(&values).unwrap();
            let i = p.interval.unwrap();
            prop_assert!(i.low <= m && m <= i.high);
            prop_assert!(p.p.unwrap() > 0.0 && p.p.unwrap() <= 1.0);
        }
    }
}
