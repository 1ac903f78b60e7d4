//! How large gradients are at steps of low and of high entropy: Proposition 1 on a policy's own steps.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::statistics::{Interval, mean, quick_bootstrap};

/// Steps of one percentile bin of entropy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CouplingBin {
    /// Steps in the bin.
    pub steps: usize,
    /// Smallest and largest entropy (nats).
    pub range: (f64, f64),
    /// Mean entropy H (nats).
    pub entropy: f64,
    /// Mean of E‖∇_z log π‖² over all actions.
    pub expected: f64,
    /// Mean of 1 − exp(−H₂).
    pub closed_form: f64,
    /// Mean of ‖∇_z log π(a)‖² of the sampled actions.
    pub sampled: f64,
    /// Mean of ‖∇_θ log π‖² over all parameters.
    pub gradient: f64,
    /// 95 % bootstrap interval of that mean over the bin's steps.
    pub gradient_interval: Option<Interval>,
}

/// The coupling of entropy and gradient norm.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Coupling {
    /// By rising entropy.
    pub bins: Vec<CouplingBin>,
    /// Steps in all.
    pub steps: usize,
    /// Largest difference of a step between the proposition's two sides.
    pub max_error: f64,
    /// Spearman's rank correlation of H and 1 − exp(−H₂).
    pub rank_closed_form: f64,
    /// Spearman's rank correlation of H and ‖∇_θ log π‖².
    pub rank_gradient: f64,
}

/// Sorts a run's table of score norms into at most `bins` bins of equal size. Lines that lack a
/// number are left out; `None` where none is left.
pub fn coupling(table: &[Map<String, Value>], bins: usize) -> Option<Coupling> {
    let mut steps: Vec<[f64; 5]> = table
        .iter()
        .filter_map(|line| {
            let value = |name: &str| line.get(name)?.as_f64().filter(|v| v.is_finite());
            Some([
                value("entropy")?,
                value("expected")?,
                value("closed_form")?,
                value("sampled")?,
                value("gradient")?,
            ])
        })
        .collect();
    if steps.is_empty() {
        return None;
    }
    steps.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let column = |steps: &[[f64; 5]], i: usize| steps.iter().map(|s| s[i]).collect::<Vec<f64>>();
    let average = |steps: &[[f64; 5]], i: usize| mean(&column(steps, i)).unwrap_or_default();
    let n = steps.len();
    let bins = bins.clamp(1, n);
    let bins = (0..bins)
        .map(|i| {
            let part = &steps[n * i / bins..n * (i + 1) / bins];
            CouplingBin {
                steps: part.len(),
                range: (part[0][0], part[part.len() - 1][0]),
                entropy: average(part, 0),
                expected: average(part, 1),
                closed_form: average(part, 2),
                sampled: average(part, 3),
                gradient: average(part, 4),
                gradient_interval: quick_bootstrap(&column(part, 4)),
            }
        })
        .collect();
    Some(Coupling {
        bins,
        steps: n,
        max_error: steps.iter().map(|s| (s[1] - s[2]).abs()).fold(0.0, f64::max),
        rank_closed_form: spearman(&column(&steps, 0), &column(&steps, 2)),
        rank_gradient: spearman(&column(&steps, 0), &column(&steps, 4)),
    })
}

/// Spearman's rank correlation; equal values share the mean of their ranks. 0 where one side does
/// not vary.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    let (x, y) = (ranks(x), ranks(y));
    let (Some(mx), Some(my)) = (mean(&x), mean(&y)) else { return 0.0 };
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(&y) {
        xy += (a - mx) * (b - my);
        xx += (a - mx) * (a - mx);
        yy += (b - my) * (b - my);
    }
    if xx * yy > 0.0 { xy / (xx * yy).sqrt() } else { 0.0 }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let value = values[order[start]];
        let ties = order[start..].iter().take_while(|&&i| values[i] == value).count().max(1);
        for &i in &order[start..start + ties] {
            ranks[i] = start as f64 + (ties - 1) as f64 / 2.0;
        }
        start += ties;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ranks_correlate_as_in_numpy() {
        // numpy.corrcoef([1, 2.5, 2.5, 4, 5], [2, 1, 3, 4.5, 4.5])[0, 1]: the ranks with ties shared.
        let r = spearman(&[1.0, 2.0, 2.0, 4.0, 5.0], &[2.0, 1.0, 3.0, 5.0, 5.0]);
        assert!((r - 0.789_473_684_210_526_4).abs() < 1e-12, "{r}");
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }

    #[test]
    fn bins_rise_in_entropy_and_damaged_lines_are_left_out() {
        let mut table: Vec<Map<String, Value>> = (0..40)
            .rev()
            .map(|i| {
                let h = f64::from(i) / 10.0;
                let line = json!({"entropy": h, "expected": h / 5.0, "closed_form": h / 5.0,
                    "sampled": h / 5.0, "gradient": h * h});
                line.as_object().unwrap().clone()
            })
            .collect();
        table.push(json!({"entropy": null, "expected": 1}).as_object().unwrap().clone());
        let found = coupling(&table, 4).unwrap();
        assert_eq!(found.steps, 40);
        assert!(found.bins.windows(2).all(|w| w[0].gradient < w[1].gradient));
        assert_eq!(found.bins[0].range, (0.0, 0.9));
        assert!((found.rank_gradient - 1.0).abs() < 1e-12 && found.max_error == 0.0);
        assert_eq!(coupling(&table[40..], 4), None);
    }
}
