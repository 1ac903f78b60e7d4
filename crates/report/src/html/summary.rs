//! What happened, in plain words.

use std::fmt::Write as _;

use crate::arms::{Arm, ArmDifference, environments};
use crate::run_data::RunData;
use crate::stability::of_run;
use crate::statistics::{Paired, bootstrap, mean, wilson};

use super::escape::text as esc;

/// Arms that get a paragraph each.
const PARAGRAPHS: usize = 4;
/// Seeds below which nothing is said to stand clear of chance: shares of few episodes are often equal
/// in two seeds, and then have no spread.
const FEWEST_PAIRS: usize = 3;
/// Seeds from which on the sign-flip test's p can be below 0.05.
const FEWEST_SIGNS: usize = 6;
/// Intervals that are narrower come from equal differences, but for their rounding.
const NO_SPREAD: f64 = 1e-9;

/// Whether a difference is told as one that chance does not explain: equal differences of few seeds
/// have an interval without width, which says nothing.
fn is_firm(p: &Paired) -> bool {
    excludes_0(p)
        && p.interval.is_some_and(|i| i.high - i.low > NO_SPREAD)
        && (p.pairs < FEWEST_SIGNS || p.p.is_none_or(|p| p <= 0.05))
}

fn excludes_0(p: &Paired) -> bool {
    p.pairs >= FEWEST_PAIRS && p.interval.is_some_and(|i| i.low > 0.0 || i.high < 0.0)
}

/// One paragraph an arm, then what the comparisons say.
pub(super) fn summary(runs: &[RunData], arms: &[Arm], differences: &[ArmDifference]) -> String {
    let mut out = String::new();
    if arms.len() <= PARAGRAPHS {
        for arm in arms {
            let _ = writeln!(out, "<p class=\"lead\">{}</p>", of_arm(runs, arm));
        }
    } else {
        let _ = writeln!(out, "<p class=\"lead\">{}</p>", of_many(runs, arms));
    }
    let firm: Vec<&ArmDifference> = differences.iter().filter(|d| is_firm(&d.paired)).collect();
    if !differences.is_empty() {
        let _ = if firm.is_empty() {
            let narrow = differences.iter().any(|d| excludes_0(&d.paired));
            let also =
                if narrow { ", has no width, goes with a sign-flip p above 0.05" } else { "" };
            writeln!(
                out,
                "<p>No difference between arms stands clear of chance over these seeds (every 95 % \
                 interval of a paired difference holds 0{also}, or has fewer than {FEWEST_PAIRS} \
                 seeds).</p>"
            )
        } else {
            let list: Vec<String> = firm
                .iter()
                .map(|d| {
                    format!(
                        "<b>{}</b> over <b>{}</b> on {} tasks ({:+.1} points, {} seeds{})",
                        esc(&arms[if d.paired.mean > 0.0 { d.arm } else { d.base }].label),
                        esc(&arms[if d.paired.mean > 0.0 { d.base } else { d.arm }].label),
                        esc(&d.split),
                        d.paired.mean.abs() * 100.0,
                        d.paired.pairs,
                        d.paired.p.map_or(String::new(), |p| format!(", p = {p:.3}")),
                    )
                })
                .collect();
            let mut caveat = if differences.len() > 4 {
                format!(
                    " Of {} comparisons, one in twenty would be so by chance.",
                    differences.len()
                )
            } else {
                String::new()
            };
            if firm.iter().any(|d| d.paired.pairs < FEWEST_SIGNS) {
                let _ = write!(
                    caveat,
                    " With fewer than {FEWEST_SIGNS} seeds the sign-flip test's p cannot be below 0.05."
                );
            }
            writeln!(
                out,
                "<p>Over these seeds the paired difference's 95 % interval excludes 0: {}.{caveat}</p>",
                list.join("; ")
            )
        };
    }
    out
}

/// Many arms in one paragraph.
fn of_many(runs: &[RunData], arms: &[Arm]) -> String {
    let environments = environments(arms);
    let open = runs.iter().filter(|r| !r.finished).count();
    let mut out = format!(
        "<b>{} runs of {} arms</b> on {}{}.",
        runs.len(),
        arms.len(),
        esc(&environments.join(", ")),
        if open > 0 { format!(", {open} of them not finished") } else { String::new() },
    );
    for environment in environments {
        let mut best: Option<(f64, &Arm)> = None;
        for arm in arms.iter().filter(|a| a.environment == environment) {
            let last = |run: &RunData| Some(run.after(run.splits().last()?)?.success * 100.0);
            if let Some(m) =
                mean(&arm.values(runs, last)).filter(|m| best.is_none_or(|(b, _)| *m > b))
            {
                best = Some((m, arm));
            }
        }
        if let Some((m, arm)) = best {
            let _ = write!(
                out,
                " The highest mean on {} is <b>{m:.1} %</b>, of {}.",
                esc(environment),
                esc(&arm.recipe)
            );
        }
    }
    let unstable = runs.iter().filter(|run| of_run(run).is_some_and(|s| !s.stable())).count();
    if unstable > 0 {
        let _ = write!(out, " Late-stage instability in {unstable} of {} runs.", runs.len());
    }
    out
}

fn of_arm(runs: &[RunData], arm: &Arm) -> String {
    let members: Vec<&RunData> = arm.runs.iter().map(|&i| &runs[i]).collect();
    let first = members[0];
    let setting = |key: &str| first.settings.get(key).map_or("?", String::as_str);
    let steps: Vec<f64> = members.iter().map(|r| r.steps.last().copied().unwrap_or(0.0)).collect();
    let (least, most) =
        steps.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), s| (low.min(*s), high.max(*s)));
    let span = if least == most { format!("{most}") } else { format!("{least}–{most}") };
    let mut out = format!(
        "<b>{}</b> trained {} on {} for {span} step{}{}.",
        esc(&arm.recipe),
        esc(first.settings.get("model.path").map_or("the policy", String::as_str)),
        esc(setting("env.name")),
        if most == 1.0 { "" } else { "s" },
        match (members.len(), arm.seeds(runs)) {
            (1, _) => String::new(),
            (all, seeds) if all == seeds => format!(", {seeds} seeds"),
            (all, seeds) =>
                format!(", {all} runs of {seeds} seed{}", if seeds == 1 { "" } else { "s" }),
        },
    );
    let open = members.iter().filter(|r| !r.finished).count();
    if open > 0 {
        let _ = write!(out, " {open} of {} not finished.", members.len());
    }
    for split in arm.splits(runs) {
        let (before, after) =
            arm.before_and_after(runs, &split, |result| Some(result.success * 100.0));
        let (Some(from), Some(to)) = (mean(&before), mean(&after)) else { continue };
        let range = if let Some(i) = bootstrap(&after) {
            format!("95 % bootstrap over seeds {:.1}–{:.1}", i.low, i.high)
        } else {
            // Repetitions of one seed do not know it better than one of them.
            let both = members.iter().filter(|r| r.before(&split).is_some());
            let episodes = both.filter_map(|r| r.after(&split)).map(|r| r.episodes).min();
            let (low, high) = wilson(to / 100.0, episodes.unwrap_or_default() as usize);
            format!("95 % interval over episodes {:.1}–{:.1}", low * 100.0, high * 100.0)
        };
        let verb = if to > from {
            "rose"
        } else if to < from {
            "fell"
        } else {
            "stayed"
        };
        let _ = write!(
            out,
            " Success on {} tasks {verb} from {from:.1} % to <b>{to:.1} %</b> ({range}).",
            esc(&split)
        );
    }
    let troubled: Vec<&&RunData> =
        members.iter().filter(|r| of_run(r).is_some_and(|s| !s.stable())).collect();
    if !troubled.is_empty() {
        let names: Vec<String> = troubled.iter().map(|r| esc(&r.name)).collect();
        let _ = write!(out, " Late-stage instability in {}.", names.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::arms::{arms, differences};
    use crate::study::{Cell, CellKey, SplitResult};

    /// A run with evaluations of 100 episodes before and after training.
    fn run(seed: u64, empg: bool, before: Option<f64>, after: Option<f64>) -> RunData {
        let result = |success: Option<f64>| -> Vec<SplitResult> {
            let of = |success| SplitResult {
                split: "unseen".into(),
                success,
                episodes: 100,
                by_task: BTreeMap::from([("cool".to_owned(), success)]),
            };
            success.map(of).into_iter().collect()
        };
        let settings: [(&str, serde_json::Value); 3] = [
            ("env.name", "households".into()),
            ("algo.name", "dapo".into()),
            ("empg.enabled", empg.into()),
        ];
        RunData::of_cell(&Cell {
            format: 1,
            key: CellKey { environment: "households".into(), arm: "x".into(), seed },
            empg: "0".into(),
            settings: settings.map(|(k, v)| (k.to_owned(), v)).into(),
            steps: 20,
            seconds: 1.0,
            before: result(before),
            after: result(after),
            stability: None,
            entropy_dynamics: Vec::new(),
            curves: BTreeMap::new(),
        })
    }

    fn said(runs: &[RunData]) -> String {
        let arms = arms(runs);
        summary(runs, &arms, &differences(runs, &arms))
    }

    /// Two arms whose seeds differ so, in points.
    fn apart(points: &[f64]) -> String {
        let of = |seed: usize, empg, more: f64| {
            run(seed as u64, empg, Some(0.5), Some(0.5 + 0.01 * seed as f64 + more / 100.0))
        };
        let pair = |(seed, d): (usize, &f64)| [of(seed, false, 0.0), of(seed, true, *d)];
        said(&points.iter().enumerate().flat_map(pair).collect::<Vec<_>>())
    }

    #[test]
    fn runs_that_have_not_come_to_their_end_are_left_out() {
        let mut open = run(0, true, Some(0.9), None);
        open.finished = false;
        let done = run(1, true, Some(0.2), Some(0.6));
        let expected = "from 20.0 % to <b>60.0 %</b> (95 % interval over episodes 50.2–69.1)";
        assert!(said(&[open.clone(), done.clone()]).contains(expected));
        // Half-way it had an evaluation, which is none of after training.
        let half = SplitResult { success: 0.1, ..open.evaluations[0].1[0].clone() };
        open.evaluations.push((10.0, vec![half]));
        let text = said(&[open.clone(), done.clone()]);
        assert!(text.contains(expected) && text.contains("1 of 2 not finished"), "{text}");
        let runs = [open.clone(), done];
        let arms = arms(&runs);
        let table = crate::html::tables::successes(&runs, &[&arms[0]]);
        assert!(table.contains("<td>20.0 %</td><td>60.0 %</td><td>+40.0</td>"), "{table}");
        let listed = crate::html::tables::runs(&runs, &arms);
        assert!(listed.contains("after step 10: 10.0 % on unseen tasks"), "{listed}");
        // Alone it shows where it began.
        let arms = crate::arms::arms(&runs[..1]);
        let table = crate::html::tables::successes(&runs[..1], &[&arms[0]]);
        assert!(table.contains("<td>90.0 %</td><td>–</td><td>–</td>"), "{table}");
    }

    #[test]
    fn repetitions_of_a_seed_are_one_seed() {
        let of = |seed, after| run(seed, true, Some(0.2), Some(after));
        let text = said(&[of(0, 0.5), of(0, 0.7), of(1, 0.8)]);
        assert!(text.contains("3 runs of 2 seeds"), "{text}");
        assert!(text.contains("to <b>70.0 %</b> (95 % bootstrap over seeds 60.0–80.0)"), "{text}");
        let text = said(&[of(0, 0.5), of(0, 0.7)]);
        assert!(text.contains("2 runs of 1 seed.") && text.contains("over episodes"), "{text}");
        assert!(said(&[of(0, 0.5), of(1, 0.7)]).contains(", 2 seeds."));
    }

    #[test]
    fn differences_are_clear_of_chance_with_spread_and_p() {
        let none = "No difference between arms stands clear of chance";
        assert!(apart(&[3.0, 3.0, 3.0]).contains("no width"), "equal differences");
        let two = apart(&[3.0, 3.1]);
        assert!(two.contains(none) && two.contains("holds 0, or has fewer than 3 seeds"), "{two}");
        assert!(apart(&[5.0, 5.0, 5.0, 5.0, 5.0, -0.5]).contains(none), "p is 0.0625");
        let few = apart(&[3.0, 3.1, 3.2]);
        assert!(few.contains("interval excludes 0") && few.contains("3 seeds, p = 0.250"), "{few}");
        assert!(few.contains("cannot be below 0.05"), "{few}");
        let many = apart(&[-5.0, -5.1, -4.9, -5.0, -5.0, -4.5]);
        assert!(many.contains("6 seeds, p = 0.031") && !many.contains("cannot be"), "{many}");
    }
}
