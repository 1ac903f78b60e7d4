//! The paper's step-level figure: how training changes a step's entropy, by percentile of its
//! initial entropy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::arms::{Arm, by_seed, seed};
use crate::run_data::RunData;
use crate::statistics::{Interval, bootstrap, deviation, mean};

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
    /// Standard error of the mean change (nats) with steps of one episode taken together, which are
    /// not independent; absent where it is not known which episode a step is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
}

/// A step that both policies have seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Entropy before training (nats).
    pub before: f64,
    /// Entropy after training (nats).
    pub after: f64,
    /// Which episode the step is of, where that is known.
    pub episode: Option<u64>,
}

impl Bin {
    /// Mean change of entropy (nats).
    pub fn change(&self) -> f64 {
        self.after - self.before
    }

    /// Half the width of the 95 % interval of the mean change over the bin's steps (nats).
    pub fn half_width(&self) -> f64 {
        let independent = self.change_std / (self.steps.max(1) as f64).sqrt();
        1.96 * self.standard_error.unwrap_or(independent)
    }
}

/// A bin over the runs of an arm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ArmBin {
    /// Lower percentile, 0–100.
    pub from: f64,
    /// Upper percentile, 0–100.
    pub to: f64,
    /// Steps in the bin, of all runs.
    pub steps: usize,
    /// Mean entropy before training (nats).
    pub before: f64,
    /// Mean entropy after training (nats).
    pub after: f64,
    /// Mean change (nats).
    pub change: f64,
    /// Lower end of its 95 % interval: over seeds where there are several, else over steps, of the
    /// run that knows the change least well.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The bins of an arm: means over the seeds that have them, in as many bins as the run with the
/// fewest has.
pub fn of_arm(runs: &[RunData], arm: &Arm) -> Vec<ArmBin> {
    let have: Vec<&RunData> =
        arm.runs.iter().map(|&i| &runs[i]).filter(|r| !r.entropy_dynamics.is_empty()).collect();
    let n = have.iter().map(|run| run.entropy_dynamics.len()).min().unwrap_or_default();
    let seeds: Vec<Option<u64>> = have.iter().map(|run| seed(run)).collect();
    let have: Vec<Vec<Bin>> = have.iter().map(|run| coarser(&run.entropy_dynamics, n)).collect();
    (0..n)
        .map(|b| {
            let over = |value: fn(&Bin) -> f64| -> Vec<f64> {
                let each = seeds.iter().zip(&have).map(|(seed, bins)| (*seed, value(&bins[b])));
                by_seed(each).into_values().collect()
            };
            let changes = over(Bin::change);
            let change = mean(&changes).unwrap_or_default();
            let half = have.iter().map(|bins| bins[b].half_width()).fold(0.0, f64::max);
            let interval =
                bootstrap(&changes).unwrap_or(Interval { low: change - half, high: change + half });
            ArmBin {
                from: have[0][b].from,
                to: have[0][b].to,
                steps: have.iter().map(|bins| bins[b].steps).sum(),
                before: mean(&over(|b| b.before)).unwrap_or_default(),
                after: mean(&over(|b| b.after)).unwrap_or_default(),
                change,
                low: interval.low,
                high: interval.high,
            }
        })
        .collect()
}

/// Bins of one run as `n` bins, not more than there are. A bin that lies across a boundary counts on
/// both sides with its shares, as though its steps were alike.
fn coarser(bins: &[Bin], n: usize) -> Vec<Bin> {
    if bins.len() == n {
        return bins.to_vec();
    }
    let bin = |i: usize| {
        let (from, to) = (100.0 * i as f64 / n as f64, 100.0 * (i + 1) as f64 / n as f64);
        // Steps of each bin that lie within.
        let within = |bin: &Bin| {
            let width = bin.to - bin.from;
            let shared = (bin.to.min(to) - bin.from.max(from)).max(0.0);
            // What rounding alone lets overlap is nothing.
            if shared > 1e-9 * width { bin.steps as f64 * shared / width } else { 0.0 }
        };
        let all: f64 = bins.iter().map(within).sum();
        let over = |value: &dyn Fn(&Bin) -> f64| -> f64 {
            let sum: f64 = bins.iter().map(|bin| within(bin) * value(bin)).sum();
            if all > 0.0 { sum / all } else { 0.0 }
        };
        let (before, after) = (over(&|b| b.before), over(&|b| b.after));
        let spread = |b: &Bin| b.change_std.powi(2) + (b.change() - (after - before)).powi(2);
        let errors: f64 =
            bins.iter().map(|bin| (within(bin) * bin.half_width() / 1.96).powi(2)).sum();
        Bin {
            from,
            to,
            steps: all.round() as usize,
            before,
            after,
            change_std: over(&spread).sqrt(),
            standard_error: (all > 0.0).then(|| errors.sqrt() / all),
        }
    };
    (0..n).map(bin).collect()
}

/// The table that a run wrote, line by line; lines that lack a number are left out.
pub fn pairs(table: &[Map<String, Value>]) -> Vec<Pair> {
    let number = |line: &Map<String, Value>, name: &str| line.get(name).and_then(Value::as_f64);
    table
        .iter()
        .filter_map(|line| {
            Some(Pair {
                before: number(line, "before")?,
                after: number(line, "after")?,
                episode: line.get("episode").and_then(Value::as_u64),
            })
        })
        .collect()
}

/// Sorts steps by their entropy before training into `bins` bins of equal size. Steps of equal
/// entropy stay in their order. Those that are not finite are left out.
pub fn bins(pairs: impl IntoIterator<Item = Pair>, bins: usize) -> Vec<Bin> {
    let mut pairs: Vec<Pair> =
        pairs.into_iter().filter(|p| p.before.is_finite() && p.after.is_finite()).collect();
    pairs.sort_by(|a, b| a.before.total_cmp(&b.before));
    let n = pairs.len();
    let bins = bins.min(n);
    (0..bins)
        .map(|i| {
            let part = &pairs[n * i / bins..n * (i + 1) / bins];
            let before: Vec<f64> = part.iter().map(|p| p.before).collect();
            let after: Vec<f64> = part.iter().map(|p| p.after).collect();
            let change: Vec<f64> = part.iter().map(|p| p.after - p.before).collect();
            Bin {
                from: 100.0 * i as f64 / bins as f64,
                to: 100.0 * (i + 1) as f64 / bins as f64,
                steps: part.len(),
                before: mean(&before).unwrap_or_default(),
                after: mean(&after).unwrap_or_default(),
                change_std: deviation(&change),
                standard_error: clustered(part),
            }
        })
        .collect()
}

/// √(E/(E−1) · Σ_e (Σ_{i∈e} (d_i − d̄))²) / n: the standard error of the mean change d̄ over n steps
/// of E episodes. One episode says nothing about others.
fn clustered(part: &[Pair]) -> Option<f64> {
    let change: Vec<f64> = part.iter().map(|p| p.after - p.before).collect();
    let centre = mean(&change)?;
    let mut sums: BTreeMap<u64, f64> = BTreeMap::new();
    for pair in part {
        *sums.entry(pair.episode?).or_default() += pair.after - pair.before - centre;
    }
    let episodes = sums.len() as f64;
    let squares: f64 = sums.values().map(|s| s * s).sum();
    (episodes > 1.0).then(|| (episodes / (episodes - 1.0) * squares).sqrt() / part.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_follow_the_initial_entropy() {
        let pair = |before, after| Pair { before, after, episode: None };
        let pairs = (0..40).rev().map(|i| pair(f64::from(i), f64::from(i) * 0.5));
        let bins = bins(pairs.chain([pair(f64::NAN, 1.0)]), 4);
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

    /// An arm of runs with these seeds and bins.
    fn arm_of(runs: &[(u64, Vec<Bin>)]) -> (Vec<RunData>, Arm) {
        let run = |(seed, bins): &(u64, Vec<Bin>)| {
            let mut run = crate::arms::tests::run(*seed, &[]);
            run.entropy_dynamics.clone_from(bins);
            run
        };
        let runs: Vec<RunData> = runs.iter().map(run).collect();
        let arm = crate::arms::arms(&runs).remove(0);
        (runs, arm)
    }

    /// Steps of these entropies before training, halved by it.
    fn halved(entropies: impl IntoIterator<Item = u32>) -> impl Iterator<Item = Pair> {
        entropies.into_iter().map(|i| Pair {
            before: f64::from(i),
            after: f64::from(i) / 2.0,
            episode: None,
        })
    }

    #[test]
    fn runs_of_few_steps_are_compared_with_equal_percentiles() {
        let few = bins(halved([0, 20]), 20);
        let many = bins(halved(0..40), 20);
        assert_eq!((few.len(), many.len()), (2, 20));
        let (runs, arm) = arm_of(&[(0, many), (1, few)]);
        let found = of_arm(&runs, &arm);
        let percentiles: Vec<_> = found.iter().map(|b| (b.from, b.to, b.steps)).collect();
        assert_eq!(percentiles, [(0.0, 50.0, 21), (50.0, 100.0, 21)]);
        // The lower half of 0..40 has the mean 9.5, the upper one 29.5.
        let before: Vec<f64> = found.iter().map(|b| b.before).collect();
        assert_eq!(before, [4.75, 24.75]);
        assert_eq!(found[1].change, -(24.75 / 2.0));
        // Bins that lie across a boundary count with their shares.
        let (runs, arm) = arm_of(&[(0, bins(halved(0..40), 20)), (1, bins(halved([1, 2, 3]), 20))]);
        let found = of_arm(&runs, &arm);
        assert_eq!((found.len(), found[0].steps, found[2].to), (3, 14, 100.0));
        assert!((found[0].before - 3.6).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn repetitions_of_a_seed_say_nothing_about_others() {
        let of = |factor: f64| {
            let pair =
                |i: u32| Pair { before: f64::from(i), after: f64::from(i) * factor, episode: None };
            bins((0..40).map(pair), 1)
        };
        let (runs, arm) = arm_of(&[(0, of(0.25)), (0, of(0.75)), (1, of(1.0))]);
        let change = |found: &[ArmBin]| found[0].change / 19.5;
        assert!((change(&of_arm(&runs, &arm)) + 0.25).abs() < 1e-12);
        // One seed alone has the interval of its steps, as one run has.
        let (runs, arm) = arm_of(&[(0, of(0.5)), (0, of(0.5))]);
        let twice = of_arm(&runs, &arm);
        let (runs, arm) = arm_of(&[(0, of(0.5))]);
        let once = of_arm(&runs, &arm);
        assert_eq!((twice[0].low, twice[0].high), (once[0].low, once[0].high));
    }

    #[test]
    fn fewer_steps_than_bins_make_fewer_bins() {
        let pair = Pair { before: 1.0, after: 2.0, episode: Some(0) };
        assert_eq!(bins([pair], 20).len(), 1);
        assert!(bins([], 20).is_empty());
    }

    #[test]
    fn steps_of_one_episode_count_as_one_where_they_agree() {
        let pair = |i: u32, episode| Pair {
            before: 0.0,
            after: f64::from(i % 4),
            episode: Some(u64::from(episode)),
        };
        let together = bins((0..40).map(|i| pair(i, i % 4)), 1);
        let apart = bins((0..40).map(|i| pair(i, i)), 1);
        let plain = apart[0].change_std / 40f64.sqrt();
        assert!((apart[0].standard_error.unwrap() - plain).abs() < 1e-12);
        assert!(together[0].half_width() > 3.0 * apart[0].half_width());
    }
}
