//! Runs that differ in their seed only are repetitions of one arm.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::run_data::RunData;
use crate::statistics::{Paired, Resampler, mean, paired};
use crate::study::SplitResult;

/// Settings that do not make another arm.
const IGNORED: [&str; 3] = ["seed", "env.data", "env.corpus"];
const IGNORED_SECTIONS: [&str; 2] = ["checkpoint.", "record."];

/// Arms of an environment up to which all pairs are compared.
const ALL_PAIRS: usize = 4;

/// Runs of equal settings but for the seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arm {
    /// What tells it from all others: `households · DAPO + EMPG · optim.lr = 0.001`.
    pub label: String,
    /// Its environment.
    pub environment: String,
    /// The label without the environment: equal for arms that differ in nothing else.
    pub recipe: String,
    /// Its runs, as positions in the list that was grouped, by seed.
    pub runs: Vec<usize>,
}

impl Arm {
    /// A value of each of its seeds: of one that was run several times the mean, since repetitions
    /// of a seed say nothing about others. Runs without the value are left out.
    pub fn by_seed(
        &self,
        runs: &[RunData],
        value: impl Fn(&RunData) -> Option<f64>,
    ) -> BTreeMap<Option<u64>, f64> {
        let all = self.runs.iter().map(|&i| &runs[i]);
        by_seed(all.filter_map(|run| Some((seed(run), value(run)?))))
    }

    /// The values of [`Arm::by_seed`], by seed.
    pub fn values(&self, runs: &[RunData], value: impl Fn(&RunData) -> Option<f64>) -> Vec<f64> {
        self.by_seed(runs, value).into_values().collect()
    }

    /// Its seeds, each counted once.
    pub fn seeds(&self, runs: &[RunData]) -> usize {
        self.by_seed(runs, |_| Some(0.0)).len()
    }

    /// A value of each of its seeds before training and after, of the runs that have both, so that
    /// no run weighs on one side only. Where none has both, only one side has values.
    pub fn before_and_after(
        &self,
        runs: &[RunData],
        split: &str,
        value: impl Fn(&SplitResult) -> Option<f64>,
    ) -> (Vec<f64>, Vec<f64>) {
        let before = |run: &RunData| run.before(split).and_then(&value);
        let after = |run: &RunData| run.after(split).and_then(&value);
        let both = |run: &RunData| before(run).zip(after(run));
        let pairs = (
            self.values(runs, |run| Some(both(run)?.0)),
            self.values(runs, |run| Some(both(run)?.1)),
        );
        if !pairs.1.is_empty() {
            return pairs;
        }
        let after = self.values(runs, after);
        if after.is_empty() { (self.values(runs, before), after) } else { (Vec::new(), after) }
    }

    /// The splits that its runs were evaluated on, in order.
    pub fn splits(&self, runs: &[RunData]) -> Vec<String> {
        splits(self.runs.iter().map(|&i| &runs[i]))
    }
}

/// The mean of each seed's values.
pub(crate) fn by_seed(
    values: impl IntoIterator<Item = (Option<u64>, f64)>,
) -> BTreeMap<Option<u64>, f64> {
    let mut sums: BTreeMap<Option<u64>, (f64, f64)> = BTreeMap::new();
    for (seed, value) in values {
        let (sum, n) = sums.entry(seed).or_default();
        *sum += value;
        *n += 1.0;
    }
    sums.into_iter().map(|(seed, (sum, n))| (seed, sum / n)).collect()
}

/// The splits that runs were evaluated on, in the order in which they are met.
pub fn splits<'a>(runs: impl IntoIterator<Item = &'a RunData>) -> Vec<String> {
    let mut names = Vec::new();
    for name in runs.into_iter().flat_map(RunData::splits) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Groups runs into arms, in the order of their first runs.
pub fn arms(runs: &[RunData]) -> Vec<Arm> {
    let mut groups: Vec<(BTreeMap<&str, &str>, Vec<usize>)> = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let settings = bearing(run);
        match groups.iter_mut().find(|(s, _)| *s == settings) {
            Some((_, members)) => members.push(i),
            None => groups.push((settings, vec![i])),
        }
    }
    let several = groups.windows(2).any(|g| g[0].0.get("env.name") != g[1].0.get("env.name"));
    groups
        .iter()
        .map(|(settings, members)| {
            let mut members = members.clone();
            members.sort_by_key(|&i| seed(&runs[i]));
            let environment = settings.get("env.name").copied().unwrap_or("–").to_owned();
            let recipe = recipe(settings, groups.iter().map(|(settings, _)| settings));
            let label = if several { format!("{environment} · {recipe}") } else { recipe.clone() };
            Arm { label, environment, recipe, runs: members }
        })
        .collect()
}

/// A run's seed.
pub fn seed(run: &RunData) -> Option<u64> {
    run.settings.get("seed").and_then(|s| s.parse().ok())
}

fn bearing(run: &RunData) -> BTreeMap<&str, &str> {
    let off = run.settings.get("empg.enabled").is_some_and(|on| on == "false");
    run.settings
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .filter(|(key, value)| {
            // Cells of older studies do not say that they trained the embedded policy.
            !IGNORED.contains(key)
                && (*key, *value) != ("model.path", "tiny")
                && !IGNORED_SECTIONS.iter().any(|s| key.starts_with(s))
                && (!off || *key == "empg.enabled" || !key.starts_with("empg."))
        })
        .collect()
}

/// `DAPO + EMPG · optim.lr = 0.001`: the recipe by its name, and every setting that is not what most
/// arms of that environment and algorithm have.
fn recipe<'a>(
    settings: &BTreeMap<&str, &str>,
    all: impl Iterator<Item = &'a BTreeMap<&'a str, &'a str>>,
) -> String {
    let value = |key: &str| settings.get(key).copied().unwrap_or("–");
    let on = value("empg.enabled") == "true";
    let (half, implied) = match (on, value("empg.k"), value("empg.zeta")) {
        (false, _, _) => ("", ""),
        (_, "0.0", _) => (" + EMPG (future clarity only)", "empg.k"),
        (_, _, "0.0") => (" + EMPG (gradient scaling only)", "empg.zeta"),
        _ => (" + EMPG", ""),
    };
    let mut parts = vec![format!("{}{half}", value("algo.name").to_uppercase())];
    let alike = |other: &&BTreeMap<&str, &str>| {
        ["env.name", "algo.name"].iter().all(|key| other.get(key) == settings.get(key))
    };
    let peers: Vec<&BTreeMap<&str, &str>> = all.filter(alike).collect();
    let keys: BTreeSet<&str> = peers.iter().flat_map(|p| p.keys().copied()).collect();
    for key in keys {
        if key == "empg.enabled" || key == implied || (!on && key.starts_with("empg.")) {
            continue;
        }
        // Arms without EMPG have none of its settings.
        let has = |peer: &&&BTreeMap<&str, &str>| {
            !key.starts_with("empg.") || peer.get("empg.enabled") == Some(&"true")
        };
        let mut counts: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        for peer in peers.iter().filter(has) {
            *counts.entry(peer.get(key).copied()).or_default() += 1;
        }
        let mine = settings.get(key).copied();
        let count = counts.get(&mine).copied().unwrap_or_default();
        if counts.iter().any(|(other, n)| *other != mine && *n >= count) {
            parts.push(format!("{key} = {}", value(key)));
        }
    }
    parts.join(" · ")
}

/// Two arms on one split, seed by seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmDifference {
    /// Position of the arm.
    pub arm: usize,
    /// Position of what it is compared with.
    pub base: usize,
    /// The split.
    pub split: String,
    /// Differences of success, 0–1.
    pub paired: Paired,
}

/// Environments, in the order of their first arms.
pub fn environments(arms: &[Arm]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for arm in arms {
        if !names.contains(&arm.environment.as_str()) {
            names.push(&arm.environment);
        }
    }
    names
}

/// The arm of equal settings without EMPG.
pub fn baseline(runs: &[RunData], arms: &[Arm], arm: usize) -> Option<usize> {
    let of = |a: &Arm| {
        let settings = bearing(&runs[a.runs[0]]);
        let on = settings.get("empg.enabled").copied() == Some("true");
        let rest: Vec<_> = settings.into_iter().filter(|(k, _)| !k.starts_with("empg.")).collect();
        (on, rest.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>())
    };
    let (on, rest) = of(&arms[arm]);
    let same = |a: &Arm| {
        let (other_on, other) = of(a);
        !other_on && other == rest
    };
    if on { arms.iter().position(same) } else { None }
}

/// Which arms are compared: in an environment of at most [`ALL_PAIRS`] arms every later one with
/// every earlier one, in larger ones each with its baseline without EMPG.
fn compared(runs: &[RunData], arms: &[Arm]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for environment in environments(arms) {
        let here: Vec<usize> =
            (0..arms.len()).filter(|&a| arms[a].environment == environment).collect();
        if here.len() <= ALL_PAIRS {
            for (i, &first) in here.iter().enumerate() {
                pairs.extend(here[i + 1..].iter().map(|&later| {
                    // Whichever came first, EMPG is compared with its baseline.
                    let turned = baseline(runs, arms, first) == Some(later);
                    if turned { (first, later) } else { (later, first) }
                }));
            }
        } else {
            pairs.extend(here.iter().filter_map(|&a| Some((a, baseline(runs, arms, a)?))));
        }
    }
    pairs
}

/// Differences of success over the seeds that two arms have in common.
pub fn differences(runs: &[RunData], arms: &[Arm]) -> Vec<ArmDifference> {
    let mut all = Vec::new();
    for (arm, base) in compared(runs, arms) {
        for split in arms[arm].splits(runs) {
            let of = |arm: &Arm| arm.by_seed(runs, |run| Some(run.after(&split)?.success));
            let (ours, theirs) = (of(&arms[arm]), of(&arms[base]));
            let differences: Vec<f64> =
                ours.iter().filter_map(|(seed, a)| Some(a - theirs.get(seed)?)).collect();
            if let Some(paired) = paired(&differences) {
                all.push(ArmDifference { arm, base, split, paired });
            }
        }
    }
    all
}

/// One arm's curve: at every step the mean over its seeds with its 95 % bootstrap interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Band {
    /// Steps.
    pub x: Vec<f64>,
    /// Means.
    pub mean: Vec<Option<f64>>,
    /// Lower ends; empty for a single seed.
    pub low: Vec<Option<f64>>,
    /// Upper ends; empty for a single seed.
    pub high: Vec<Option<f64>>,
}

/// The band of an arm's metric over at most `points` steps; `None` where no run has it.
pub fn band(runs: &[RunData], arm: &Arm, metric: &str, points: usize) -> Option<Band> {
    let have: Vec<&RunData> =
        arm.runs.iter().map(|&i| &runs[i]).filter(|r| r.curves.contains_key(metric)).collect();
    let longest = have.iter().max_by_key(|r| r.steps.len())?;
    let seeds: Vec<Option<u64>> = have.iter().map(|run| seed(run)).collect();
    let several = seeds.iter().any(|seed| *seed != seeds[0]);
    let value = |run: &RunData, at: usize| {
        let step = longest.steps[at];
        let at = if run.steps.get(at) == Some(&step) {
            at
        } else {
            run.steps.binary_search_by(|s| s.total_cmp(&step)).ok()?
        };
        Some(run.curves[metric][at]).filter(|v| v.is_finite())
    };
    // What is drawn is chosen by a plain mean: of a long run most steps are not.
    let plain = |at: usize| {
        let values = have.iter().filter_map(|run| value(run, at));
        let (sum, n) = values.fold((0.0, 0_u32), |(sum, n), v| (sum + v, n + 1));
        (n > 0).then(|| sum / f64::from(n))
    };
    let plain: Vec<Option<f64>> = (0..longest.steps.len()).map(plain).collect();
    let mut band = Band::default();
    let mut resamplers: BTreeMap<usize, Resampler> = BTreeMap::new();
    for at in kept(&plain, points) {
        let values =
            have.iter().zip(&seeds).filter_map(|(run, seed)| Some((*seed, value(run, at)?)));
        let values: Vec<f64> = by_seed(values).into_values().collect();
        band.x.push(longest.steps[at]);
        band.mean.push(mean(&values).map(four_digits));
        if several {
            let n = values.len();
            let interval =
                resamplers.entry(n).or_insert_with(|| Resampler::quick(n)).interval(&values);
            band.low.push(interval.map(|i| four_digits(i.low)));
            band.high.push(interval.map(|i| four_digits(i.high)));
        }
    }
    Some(band)
}

/// Which positions of a curve are drawn: all, or of more than `points` both ends and, of equal pieces
/// between them, the smallest and the largest value each, so that what stands out for one step stays.
/// A piece without a value stays a gap.
pub(crate) fn kept(curve: &[Option<f64>], points: usize) -> Vec<usize> {
    let n = curve.len();
    if n <= points {
        return (0..n).collect();
    }
    let pieces = (points.max(4) - 2) / 2;
    let mut kept = vec![0, n - 1];
    for piece in 0..pieces {
        let range = piece * n / pieces..(piece + 1) * n / pieces;
        let start = range.start;
        let values = || range.clone().filter_map(|at| Some((at, curve[at]?)));
        let least = values().min_by(|a, b| a.1.total_cmp(&b.1));
        let most = values().max_by(|a, b| a.1.total_cmp(&b.1));
        kept.extend([least, most].map(|found| found.map_or(start, |(at, _)| at)));
    }
    kept.sort_unstable();
    kept.dedup();
    kept
}

/// Rounded to four significant digits: what a chart can show.
pub fn four_digits(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::study::{Cell, CellKey, SplitResult};

    /// A run of nothing but these settings.
    pub(crate) fn run(seed: u64, settings: &[(&str, &str)]) -> RunData {
        let mut run = RunData::of_cell(&Cell {
            format: 1,
            key: CellKey { environment: "e".into(), arm: "a".into(), seed },
            empg: "0".into(),
            settings: BTreeMap::new(),
            steps: 0,
            seconds: 0.0,
            before: Vec::new(),
            after: Vec::new(),
            stability: None,
            entropy_dynamics: Vec::new(),
            curves: BTreeMap::new(),
        });
        let own = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        run.settings.extend(own);
        run
    }

    #[test]
    fn labels_say_what_is_unlike_most() {
        let on = [("env.name", "h"), ("algo.name", "dapo"), ("empg.enabled", "true")];
        let with = |more: &[(&'static str, &'static str)]| -> Vec<(&'static str, &'static str)> {
            on.iter()
                .copied()
                .chain([("empg.k", "1.0"), ("empg.zeta", "0.1")])
                .chain(more.iter().copied())
                .collect()
        };
        let off = |zeta| [on[0], on[1], ("empg.enabled", "false"), ("empg.zeta", zeta)];
        let runs = [
            run(0, &with(&[])),
            run(1, &with(&[("checkpoint.every", "7")])),
            run(0, &with(&[("empg.k", "2.0")])),
            run(0, &with(&[("empg.zeta", "0.0")])),
            run(0, &with(&[("empg.zeta", "0.0"), ("empg.k", "2.0")])),
            run(0, &off("0.1")),
            run(1, &off("0.3")),
            run(0, &[("env.name", "w"), ("algo.name", "grpo"), ("rollout.groups", "3")]),
        ];
        let arms = arms(&runs);
        let labels: Vec<(&str, usize)> =
            arms.iter().map(|a| (a.label.as_str(), a.runs.len())).collect();
        let expected = [
            ("h · DAPO + EMPG · empg.k = 1.0 · empg.zeta = 0.1", 2),
            ("h · DAPO + EMPG · empg.k = 2.0 · empg.zeta = 0.1", 1),
            ("h · DAPO + EMPG (gradient scaling only) · empg.k = 1.0", 1),
            ("h · DAPO + EMPG (gradient scaling only) · empg.k = 2.0", 1),
            ("h · DAPO", 2),
            ("w · GRPO", 1),
        ];
        assert_eq!(labels, expected);
        let fewer = [
            run(0, &with(&[])),
            run(0, &with(&[("empg.k", "2.0")])),
            run(0, &with(&[("empg.k_f", "2.0")])),
        ];
        let labels: Vec<String> = super::arms(&fewer).into_iter().map(|a| a.label).collect();
        assert_eq!(
            labels,
            ["DAPO + EMPG", "DAPO + EMPG · empg.k = 2.0", "DAPO + EMPG · empg.k_f = 2.0"]
        );
    }

    /// A run with EMPG or without that was evaluated at a step.
    fn evaluated(seed: u64, enabled: &str, step: f64, success: f64) -> RunData {
        let mut run = run(seed, &[("env.name", "h"), ("empg.enabled", enabled)]);
        let (split, by_task) = ("unseen".into(), BTreeMap::new());
        let result = SplitResult { split, success, episodes: 100, by_task };
        run.evaluations = vec![(step, vec![result])];
        run
    }

    #[test]
    fn a_seed_counts_once() {
        let of = |seed, enabled, success| evaluated(seed, enabled, 9.0, success);
        let runs = [
            of(0, "false", 0.5),
            of(0, "true", 0.6),
            of(0, "true", 0.8),
            of(1, "true", 0.9),
            of(1, "false", 0.4),
        ];
        let found = differences(&runs, &arms(&runs));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].paired.pairs, 2);
        assert!((found[0].paired.mean - 0.35).abs() < 1e-12);
        // EMPG less its baseline, whichever was run first.
        let later = [of(0, "true", 0.8), of(0, "false", 0.5)];
        assert!((differences(&later, &arms(&later))[0].paired.mean - 0.3).abs() < 1e-12);
    }

    /// A run whose curve has these points, and an evaluation before and after training.
    fn curved(seed: u64, points: &[f64]) -> RunData {
        let mut run = run(seed, &[("env.name", "h")]);
        run.steps = (1..=points.len()).map(|step| step as f64).collect();
        run.curves.insert("success".to_owned(), points.to_vec());
        run
    }

    #[test]
    fn repetitions_of_a_seed_are_one_point_of_a_band() {
        let runs = [curved(0, &[0.5, 0.2]), curved(0, &[0.7, 0.2]), curved(1, &[0.9, 0.4])];
        let all = arms(&runs);
        let found = band(&runs, &all[0], "success", 100).unwrap();
        assert_eq!(found.mean, [Some(0.75), Some(0.3)]);
        assert_eq!((found.low[0], found.high[0]), (Some(0.6), Some(0.9)), "two seeds are drawn");
        let one = band(&runs[..2], &arms(&runs[..2])[0], "success", 100).unwrap();
        assert!(one.low.is_empty() && one.high.is_empty(), "one seed has no interval: {one:?}");
    }

    #[test]
    fn what_stands_out_for_one_step_stays_in_long_curves() {
        for n in [301, 1000, 12_345] {
            let mut points = vec![1.0; n];
            points[n / 3] = 50.0;
            points[n / 2] = -50.0;
            points[n / 5..n / 4].fill(f64::NAN);
            points[n - 1] = 7.0;
            let runs = [curved(0, &points), curved(1, &points)];
            let found = band(&runs, &arms(&runs)[0], "success", 300).unwrap();
            let at = |value: f64| found.mean.iter().position(|v| *v == Some(value));
            assert_eq!(found.x[at(50.0).unwrap()], (n / 3 + 1) as f64);
            assert_eq!(found.x[at(-50.0).unwrap()], (n / 2 + 1) as f64);
            assert_eq!((found.x[0], *found.x.last().unwrap()), (1.0, n as f64));
            assert_eq!(found.mean.last(), Some(&Some(7.0)));
            assert!(found.mean.contains(&None), "the gap stays");
            assert!(found.x.len() <= 300 && found.low.len() == found.x.len());
            assert!(found.x.is_sorted_by(|a, b| a < b));
        }
        assert_eq!(kept(&[Some(1.0); 5], 5), [0, 1, 2, 3, 4]);
        assert!(kept(&[], 20).is_empty());
    }

    #[test]
    fn what_was_measured_half_way_is_no_difference() {
        let of = |seed: u64, enabled: &'static str, success: f64, finished: bool| {
            let mut run = evaluated(seed, enabled, 5.0, success);
            run.finished = finished;
            run
        };
        let mut runs = vec![
            of(0, "false", 0.5, true),
            of(1, "false", 0.5, true),
            of(0, "true", 0.9, false),
            of(1, "true", 0.6, true),
        ];
        let found = differences(&runs, &arms(&runs));
        assert_eq!((found.len(), found[0].paired.pairs), (1, 1));
        assert!((found[0].paired.mean - 0.1).abs() < 1e-12);
        // A first run without any evaluation hides no other.
        runs[0].evaluations.clear();
        runs[2].evaluations.clear();
        assert_eq!(differences(&runs, &arms(&runs)).len(), 1);
    }

    #[test]
    fn arms_of_few_are_all_compared_and_of_many_with_their_baselines() {
        let dapo = |k: &'static str, enabled: &'static str| {
            run(
                0,
                &[
                    ("env.name", "h"),
                    ("algo.name", "dapo"),
                    ("empg.enabled", enabled),
                    ("empg.k", k),
                ],
            )
        };
        let mut runs = vec![dapo("1.0", "false"), dapo("1.0", "true"), dapo("2.0", "true")];
        assert_eq!(compared(&runs, &arms(&runs)), [(1, 0), (2, 0), (2, 1)]);
        runs.extend([dapo("3.0", "true"), dapo("4.0", "true")]);
        assert_eq!(compared(&runs, &arms(&runs)), [(1, 0), (2, 0), (3, 0), (4, 0)]);
    }
}
