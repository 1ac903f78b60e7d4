//! What happened, in plain words.

use std::fmt::Write as _;

use crate::arms::{Arm, ArmDifference};
use crate::run_data::RunData;
use crate::stability::stability;
use crate::statistics::{bootstrap, mean, wilson};

use super::escape::text as esc;

/// One paragraph an arm, then what the comparisons say.
pub(super) fn summary(runs: &[RunData], arms: &[Arm], differences: &[ArmDifference]) -> String {
    let mut out = String::new();
    for arm in arms {
        let _ = writeln!(out, "<p class=\"lead\">{}</p>", of_arm(runs, arm));
    }
    let firm: Vec<&ArmDifference> = differences
        .iter()
        .filter(|d| d.paired.interval.is_some_and(|i| i.low > 0.0 || i.high < 0.0))
        .collect();
    if !differences.is_empty() {
        let _ = if firm.is_empty() {
            writeln!(
                out,
                "<p>No difference between arms stands clear of chance over these seeds (every 95 % \
                 interval of a paired difference holds 0).</p>"
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
            writeln!(out, "<p>Clear of chance over these seeds: {}.</p>", list.join("; "))
        };
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
        esc(&arm.label),
        esc(setting("model.path")),
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
    let troubled: Vec<&&RunData> = members
        .iter()
        .filter(|r| {
            let curve = |name: &str| r.curves.get(name).map_or(&[][..], Vec::as_slice);
            stability(curve("kl_reference"), curve("success")).is_some_and(|s| !s.stable())
        })
        .collect();
    if !troubled.is_empty() {
        let names: Vec<String> = troubled.iter().map(|r| esc(&r.name)).collect();
        let _ = write!(out, " Late-stage instability in {}.", names.join(", "));
    }
    out
}
