//! Success in the paper's layout: recipes down, environments and domains across; and the ablation.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::arms::{Arm, baseline, environments, splits};
use crate::run_data::RunData;
use crate::statistics::{Interval, bootstrap, mean};

/// Recipes × environments and domains.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Across.
    pub columns: Vec<Column>,
    /// Down: a recipe and its values, one per column.
    pub rows: Vec<(String, Vec<Option<Success>>)>,
}

/// A column: an environment's split, or the mean of its splits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// The environment.
    pub environment: String,
    /// `None` is the mean of all splits.
    pub split: Option<String>,
    /// `in-domain`, `out-of-domain`, `average`, or the split's name where it is the only one.
    pub heading: String,
}

/// Success after training, of one arm in one column.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Success {
    /// Mean over seeds (percent).
    pub mean: f64,
    /// Its 95 % bootstrap interval over seeds (percent).
    pub interval: Option<Interval>,
    /// Mean difference to the base over the seeds that both have (points).
    pub difference: Option<f64>,
}

/// Every recipe; differences are to the same recipe without EMPG.
pub fn comparison(runs: &[RunData], arms: &[Arm]) -> Comparison {
    let columns = columns(runs, arms);
    let mut recipes: Vec<&str> = Vec::new();
    for arm in arms {
        if !recipes.contains(&arm.recipe.as_str()) {
            recipes.push(&arm.recipe);
        }
    }
    let row = |recipe: &str| {
        let value = |column: &Column| {
            let of = |a: &Arm| a.recipe == recipe && a.environment == column.environment;
            let at = arms.iter().position(of)?;
            success(runs, &arms[at], baseline(runs, arms, at).map(|b| &arms[b]), column)
        };
        (recipe.to_owned(), columns.iter().map(value).collect())
    };
    let rows = recipes.into_iter().map(row).collect();
    Comparison { columns, rows }
}

/// For every base of which an arm with half of EMPG exists: base, gradient scaling alone, future
/// clarity alone, both; differences are to the base.
pub fn ablations(runs: &[RunData], arms: &[Arm]) -> Vec<Comparison> {
    let all: Vec<[Option<usize>; 4]> =
        (0..arms.len()).filter_map(|base| ablation(runs, arms, base)).collect();
    let columns = columns(runs, arms);
    let mut bases: Vec<&str> = Vec::new();
    for base in all.iter().filter_map(|a| Some(arms[a[0]?].recipe.as_str())) {
        if !bases.contains(&base) {
            bases.push(base);
        }
    }
    let table = |base: &str| {
        let names = [base, "+ gradient scaling", "+ future clarity", "+ both (EMPG)"];
        let row = |(part, name): (usize, &str)| {
            let value = |column: &Column| {
                let of = |a: &&[Option<usize>; 4]| {
                    a[0].is_some_and(|b| {
                        arms[b].recipe == base && arms[b].environment == column.environment
                    })
                };
                let found = all.iter().find(of)?;
                let from = found[0].filter(|_| part > 0).map(|b| &arms[b]);
                success(runs, &arms[found[part]?], from, column)
            };
            (name.to_owned(), columns.iter().map(value).collect())
        };
        Comparison {
            columns: columns.clone(),
            rows: names.into_iter().enumerate().map(row).collect(),
        }
    };
    bases.into_iter().map(table).collect()
}

/// Positions of base, scaling only, future clarity only, both.
fn ablation(runs: &[RunData], arms: &[Arm], base: usize) -> Option<[Option<usize>; 4]> {
    let members: Vec<usize> =
        (0..arms.len()).filter(|&a| baseline(runs, arms, a) == Some(base)).collect();
    let setting = |a: usize, key: &str| -> Option<f64> {
        runs[arms[a].runs[0]].settings.get(key)?.parse().ok()
    };
    let (k, zeta) = (|a| setting(a, "empg.k"), |a| setting(a, "empg.zeta"));
    let off = |value: Option<f64>| value == Some(0.0);
    let scaling = members.iter().copied().find(|&a| off(zeta(a)) && !off(k(a)));
    let clarity = members.iter().copied().find(|&a| off(k(a)) && !off(zeta(a)));
    if scaling.is_none() && clarity.is_none() {
        return None;
    }
    // Both halves at the strengths that they have alone.
    let both = members.iter().copied().find(|&a| {
        let equal = |half: Option<usize>, key: &str| {
            half.is_none_or(|h| setting(h, key) == setting(a, key))
        };
        !off(k(a))
            && !off(zeta(a))
            && equal(scaling, "empg.k")
            && equal(clarity, "empg.zeta")
            && equal(scaling, "empg.k_f")
            && equal(clarity, "empg.k_f")
    });
    Some([Some(base), scaling, clarity, both])
}

fn columns(runs: &[RunData], arms: &[Arm]) -> Vec<Column> {
    let mut columns = Vec::new();
    for environment in environments(arms) {
        let here = arms.iter().filter(|a| a.environment == environment);
        let mut splits = splits(here.flat_map(|a| &a.runs).map(|&i| &runs[i]));
        // As the paper has them: in-domain, out-of-domain, average.
        splits.sort_by_key(|s| s != "seen");
        let both = splits.len() > 1;
        let mut column = |split: Option<String>, heading: &str| {
            let (environment, heading) = (environment.to_owned(), heading.to_owned());
            columns.push(Column { environment, split, heading });
        };
        for split in splits {
            let heading = domain(&split, both).to_owned();
            column(Some(split), &heading);
        }
        if both {
            column(None, "average");
        }
    }
    columns
}

/// What the paper calls a split; `both` where there are several.
pub(crate) fn domain(split: &str, both: bool) -> &str {
    match split {
        "seen" => "in-domain",
        "unseen" if both => "out-of-domain",
        other => other,
    }
}

fn success(runs: &[RunData], arm: &Arm, base: Option<&Arm>, column: &Column) -> Option<Success> {
    let ours = successes(runs, arm, column);
    let values: Vec<f64> = ours.values().copied().collect();
    let centre = mean(&values)?;
    // Equal seeds have equal tasks: what only one of the arms was run with says nothing of the other.
    let difference = base.and_then(|base| {
        let theirs = successes(runs, base, column);
        let pairs = ours.iter().filter_map(|(seed, ours)| Some(ours - theirs.get(seed)?));
        mean(&pairs.collect::<Vec<f64>>())
    });
    Some(Success { mean: centre, interval: bootstrap(&values), difference })
}

/// Success after training of each of the arm's seeds (percent).
fn successes(runs: &[RunData], arm: &Arm, column: &Column) -> BTreeMap<Option<u64>, f64> {
    let of = |run: &RunData| -> Option<f64> {
        if let Some(split) = &column.split {
            return Some(run.after(split)?.success * 100.0);
        }
        let all: Option<Vec<f64>> =
            run.splits().iter().map(|s| Some(run.after(s)?.success * 100.0)).collect();
        mean(&all?)
    };
    arm.by_seed(runs, of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arms::arms;
    use crate::study::{Cell, CellKey, SplitResult};

    fn run(environment: &str, empg: Option<(f64, f64)>, seed: u64, success: f64) -> RunData {
        let split = |split: &str, success| SplitResult {
            split: split.into(),
            success,
            episodes: 100,
            by_task: BTreeMap::new(),
        };
        let mut after = vec![split("unseen", success)];
        if environment == "search" {
            after.push(split("seen", success + 0.1));
        }
        let (k, zeta) = empg.unwrap_or((1.0, 0.1));
        let settings = [
            ("env.name", environment.into()),
            ("algo.name", "dapo".into()),
            ("empg.enabled", empg.is_some().into()),
            ("empg.k", k.into()),
            ("empg.zeta", zeta.into()),
        ];
        RunData::of_cell(&Cell {
            format: 1,
            key: CellKey { environment: environment.into(), arm: "x".into(), seed },
            empg: "0".into(),
            settings: settings.map(|(k, v): (&str, serde_json::Value)| (k.to_owned(), v)).into(),
            steps: 1,
            seconds: 1.0,
            before: after.clone(),
            after,
            stability: None,
            entropy_dynamics: Vec::new(),
            curves: BTreeMap::new(),
        })
    }

    #[test]
    fn repetitions_of_a_seed_count_once() {
        let runs = [
            run("households", None, 0, 0.5),
            run("households", None, 0, 0.7),
            run("households", None, 1, 0.9),
        ];
        let of = |runs: &[RunData]| comparison(runs, &arms(runs)).rows[0].1[0].unwrap();
        let interval = of(&runs).interval.unwrap();
        assert!((of(&runs).mean - 75.0).abs() < 1e-9);
        assert!((interval.low - 60.0).abs() < 1e-9 && (interval.high - 90.0).abs() < 1e-9);
        assert_eq!(of(&runs[..2]).interval, None, "one seed");
    }

    #[test]
    fn the_papers_tables() {
        let runs = [
            run("households", None, 0, 0.5),
            run("households", None, 1, 0.6),
            run("households", Some((1.0, 0.1)), 0, 0.7),
            run("households", Some((1.0, 0.0)), 0, 0.65),
            run("households", Some((0.0, 0.1)), 0, 0.55),
            run("households", Some((2.0, 0.1)), 0, 0.8),
            run("search", None, 0, 0.2),
            run("search", Some((1.0, 0.1)), 0, 0.3),
        ];
        let arms = arms(&runs);
        let table = comparison(&runs, &arms);
        let headings: Vec<&str> = table.columns.iter().map(|c| c.heading.as_str()).collect();
        assert_eq!(headings, ["unseen", "in-domain", "out-of-domain", "average"]);
        let (recipe, base) = &table.rows[0];
        let values: Vec<f64> = base.iter().map(|v| v.unwrap().mean.round()).collect();
        assert_eq!((recipe.as_str(), values.as_slice()), ("DAPO", &[55.0, 30.0, 20.0, 25.0][..]));
        assert!(base[0].unwrap().interval.is_some() && base[0].unwrap().difference.is_none());

        let all = ablations(&runs, &arms);
        assert_eq!(all.len(), 1);
        let first: Vec<(String, Option<f64>)> = all[0]
            .rows
            .iter()
            .map(|(name, values)| (name.clone(), values[0].and_then(|v| v.difference)))
            .map(|(name, d)| (name, d.map(f64::round)))
            .collect();
        let expected = [
            ("DAPO".to_owned(), None),
            ("+ gradient scaling".to_owned(), Some(15.0)),
            ("+ future clarity".to_owned(), Some(5.0)),
            ("+ both (EMPG)".to_owned(), Some(20.0)),
        ];
        assert_eq!(first, expected, "both is the arm of equal strengths, not k = 2");
        assert!(all[0].rows[1].1[1].is_none(), "no halves were run on search");
    }
}
