//! What happened, in plain words.

use std::fmt::Write as _;

use crate::arms::{Arm, ArmDifference, environments};
use crate::run_data::RunData;
use crate::stability::of_run;
use crate::statistics::{bootstrap, mean, wilson};

use super::escape::text as esc;

/// Arms that get a paragraph each.
const PARAGRAPHS: usize = 4;
/// Seeds below which nothing is said to stand clear of chance: shares of few episodes are often equal
/// in two seeds, and then have no spread.
const FEWEST_PAIRS: usize = 3;

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
    let firm: Vec<&ArmDifference> = differences
        .iter()
        .filter(|d| d.paired.pairs >= FEWEST_PAIRS)
        .filter(|d| d.paired.interval.is_some_and(|i| i.low > 0.0 || i.high < 0.0))
        .collect();
    if !differences.is_empty() {
        let _ = if firm.is_empty() {
            writeln!(
                out,
                "<p>No difference between arms stands clear of chance over these seeds (every 95 % \
                 interval of a paired difference holds 0, or has fewer than {FEWEST_PAIRS} seeds).</p>"
            )
        } else {
            let list: Vec<String> = firm
                .iter()
                .map(|d| {
                    format!(
                        "<b>{}</b> over <b>{}</b> on {} tasks ({:+.1} points, {} seeds)",
                        esc(&arms[if d.paired.mean > 0.0 { d.arm } else { d.base }].label),
                        esc(&arms[if d.paired.mean > 0.0 { d.base } else { d.arm }].label),
                        esc(&d.split),
                        d.paired.mean.abs() * 100.0,
                        d.paired.pairs,
                    )
                })
                .collect();
            let caveat = if differences.len() > 4 {
                format!(
                    " Of {} comparisons, one in twenty would be so by chance.",
                    differences.len()
                )
            } else {
                String::new()
            };
            writeln!(out, "<p>Clear of chance over these seeds: {}.{caveat}</p>", list.join("; "))
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
            let last = |i: &usize| Some(runs[*i].after(runs[*i].splits().last()?)?.success * 100.0);
            let values: Vec<f64> = arm.runs.iter().filter_map(last).collect();
            if let Some(m) = mean(&values).filter(|m| best.is_none_or(|(b, _)| *m > b)) {
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
        if members.len() > 1 { format!(", {} seeds", members.len()) } else { String::new() },
    );
    let open = members.iter().filter(|r| !r.finished).count();
    if open > 0 {
        let _ = write!(out, " {open} of {} not finished.", members.len());
    }
    for split in first.splits() {
        let before: Vec<f64> =
            members.iter().filter_map(|r| Some(r.before(&split)?.success * 100.0)).collect();
        let after: Vec<f64> =
            members.iter().filter_map(|r| Some(r.after(&split)?.success * 100.0)).collect();
        let (Some(from), Some(to)) = (mean(&before), mean(&after)) else { continue };
        let range = if let Some(i) = bootstrap(&after) {
            format!("95 % bootstrap over seeds {:.1}–{:.1}", i.low, i.high)
        } else {
            let result = first.after(&split);
            let (low, high) = result.map_or((0.0, 1.0), |r| wilson(r.success, r.episodes as usize));
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
