//! The report's tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::arms::{Arm, ArmDifference};
use crate::run_data::RunData;
use crate::statistics::mean;

use super::escape::text as esc;

/// Success by task type before and after: one table a split, two columns an arm.
pub(super) fn successes(runs: &[RunData], arms: &[Arm]) -> String {
    let mut splits: Vec<String> = Vec::new();
    for split in runs.iter().flat_map(RunData::splits) {
        if !splits.contains(&split) {
            splits.push(split);
        }
    }
    let mut out = String::new();
    for split in splits {
        let mut kinds = BTreeSet::new();
        for result in runs.iter().filter_map(|r| r.after(&split).or_else(|| r.before(&split))) {
            kinds.extend(result.by_task.keys());
        }
        let _ = write!(
            out,
            "<h3>{} tasks</h3><div class=\"scroll\"><table><tr><th>task type</th>",
            esc(&split)
        );
        for arm in arms {
            let _ = write!(out, "<th colspan=\"3\">{}</th>", esc(&arm.label));
        }
        let _ = write!(
            out,
            "</tr><tr><th></th>{}</tr>",
            "<th>before</th><th>after</th><th>change</th>".repeat(arms.len())
        );
        for kind in kinds.into_iter().map(Some).chain([None]) {
            let _ = match kind {
                Some(kind) => write!(out, "<tr><td>{}</td>", esc(kind)),
                None => write!(out, "<tr class=\"all\"><td>all</td>"),
            };
            for arm in arms {
                let of = |after: bool| -> Option<f64> {
                    let values: Vec<f64> = arm
                        .runs
                        .iter()
                        .filter_map(|&i| {
                            let run = &runs[i];
                            let result =
                                if after { run.after(&split) } else { run.before(&split) }?;
                            kind.map_or(Some(result.success), |k| result.by_task.get(k).copied())
                        })
                        .collect();
                    mean(&values)
                };
                let (before, after) = (of(false), of(true));
                let change = before.zip(after).map(|(b, a)| format!("{:+.1}", (a - b) * 100.0));
                let _ = write!(
                    out,
                    "<td>{}</td><td>{}</td><td>{}</td>",
                    percent(before),
                    percent(after),
                    change.unwrap_or_else(|| "–".into())
                );
            }
            out.push_str("</tr>");
        }
        out.push_str("</table></div>");
    }
    out
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |s| format!("{:.1} %", s * 100.0))
}

/// Paired differences between arms.
pub(super) fn differences(arms: &[Arm], differences: &[ArmDifference]) -> String {
    if differences.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<div class=\"scroll\"><table><tr><th>difference, seed by seed</th><th>tasks</th><th>seeds</th>\
         <th>points</th><th>95 % interval</th><th>p</th><th>better / worse</th></tr>",
    );
    for d in differences {
        let p = &d.paired;
        let _ = write!(
            out,
            "<tr><td>{} − {}</td><td>{}</td><td>{}</td><td>{:+.1}</td><td>{}</td><td>{}</td><td>{} / {}</td></tr>",
            esc(&arms[d.arm].label),
            esc(&arms[d.base].label),
            esc(&d.split),
            p.pairs,
            p.mean * 100.0,
            p.interval.map_or("–".to_owned(), |i| format!(
                "{:+.1} … {:+.1}",
                i.low * 100.0,
                i.high * 100.0
            )),
            p.p.map_or("–".to_owned(), |p| format!("{p:.3}")),
            p.better,
            p.worse,
        );
    }
    out.push_str(
        "</table></div><p class=\"quiet\">Equal seeds are paired. Intervals are Student's over seeds, p is \
         the exact sign-flip test's: with n seeds it cannot be below 2 / 2ⁿ.</p>",
    );
    out
}

/// Change of step entropy by percentile bin of the initial entropy, an SVG an arm.
pub(super) fn dynamics(runs: &[RunData], arms: &[Arm]) -> String {
    let mut out = String::new();
    for arm in arms {
        let have: Vec<&RunData> =
            arm.runs.iter().map(|&i| &runs[i]).filter(|r| !r.entropy_dynamics.is_empty()).collect();
        let Some(first) = have.first() else { continue };
        let n = have.iter().map(|r| r.entropy_dynamics.len()).min().unwrap_or_default();
        // Over seeds where there are several, else over the steps of the bin.
        let bins: Vec<(f64, f64, f64)> = (0..n)
            .map(|b| {
                let changes: Vec<f64> =
                    have.iter().map(|r| r.entropy_dynamics[b].change()).collect();
                let m = mean(&changes).unwrap_or_default();
                if let Some(i) = crate::statistics::bootstrap(&changes) {
                    (m, i.low, i.high)
                } else {
                    let half = first.entropy_dynamics[b].half_width();
                    (m, m - half, m + half)
                }
            })
            .collect();
        let _ = write!(
            out,
            "<section class=\"chart\"><header><span>{}</span></header>{}</section>",
            esc(&arm.label),
            bars(&bins, &first.entropy_dynamics)
        );
    }
    out
}

fn bars(bins: &[(f64, f64, f64)], of_first: &[crate::dynamics::Bin]) -> String {
    let low = bins.iter().fold(0.0_f64, |m, b| m.min(b.1));
    let high = bins.iter().fold(0.0_f64, |m, b| m.max(b.2));
    let span = if high > low { high - low } else { 1.0 };
    let y = |v: f64| 10.0 + (high - v) / span * 130.0;
    let width = 300.0 / bins.len().max(1) as f64;
    let mut svg = String::from(
        "<svg viewBox=\"0 0 350 172\" role=\"img\" style=\"width:100%\" aria-label=\"change of step entropy by percentile of the initial entropy\">",
    );
    let text = "fill=\"currentColor\" font-size=\"10\"";
    for value in [low, high] {
        let _ = write!(
            svg,
            "<text x=\"38\" y=\"{:.1}\" text-anchor=\"end\" {text}>{value:+.2}</text>",
            y(value) + 3.0
        );
    }
    for (i, ((mean, from, to), bin)) in bins.iter().zip(of_first).enumerate() {
        let x = 44.0 + i as f64 * width;
        let (top, height) = (y(mean.max(0.0)), (y(mean.min(0.0)) - y(mean.max(0.0))).max(0.5));
        let colour = if *mean > 0.0 { "var(--bad)" } else { "var(--good)" };
        let middle = x + width / 2.0;
        let _ = write!(
            svg,
            "<g><title>{:.0}–{:.0} % of the initial entropy: {mean:+.4} nats [{from:+.4}, {to:+.4}], {} steps</title>\
             <rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"rgba({colour}, .7)\"/>\
             <line x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"currentColor\"/></g>",
            bin.from,
            bin.to,
            bin.steps,
            x + 1.0,
            (width - 2.0).max(1.0),
            y(*from),
            y(*to),
        );
    }
    let zero = y(0.0);
    let _ = write!(
        svg,
        "<line x1=\"42\" x2=\"346\" y1=\"{zero:.1}\" y2=\"{zero:.1}\" stroke=\"currentColor\"/>\
         <text x=\"44\" y=\"166\" {text}>0 %</text>\
         <text x=\"194\" y=\"166\" text-anchor=\"middle\" {text}>percentile of the initial entropy</text>\
         <text x=\"344\" y=\"166\" text-anchor=\"end\" {text}>100 %</text></svg>"
    );
    svg
}

/// The settings in which runs differ, then all of them.
pub(super) fn settings(runs: &[RunData], arms: &[Arm]) -> String {
    let firsts: Vec<&RunData> = arms.iter().map(|a| &runs[a.runs[0]]).collect();
    let keys: BTreeSet<&String> = firsts.iter().flat_map(|r| r.settings.keys()).collect();
    let mut out = String::new();
    let differing: Vec<&&String> = keys
        .iter()
        .filter(|key| {
            firsts.windows(2).any(|p| p[0].settings.get(**key) != p[1].settings.get(**key))
        })
        .collect();
    if !differing.is_empty() {
        out.push_str(
            "<h3>Where the arms differ</h3><div class=\"scroll\"><table><tr><th>setting</th>",
        );
        for arm in arms {
            let _ = write!(out, "<th>{}</th>", esc(&arm.label));
        }
        out.push_str("</tr>");
        for key in differing {
            let _ = write!(out, "<tr><td class=\"mono\">{}</td>", esc(key));
            for run in &firsts {
                let value = run.settings.get(*key).map_or("–", String::as_str);
                let _ = write!(out, "<td class=\"mono\">{}</td>", esc(value));
            }
            out.push_str("</tr>");
        }
        out.push_str("</table></div>");
    }
    let same: BTreeMap<&String, &String> = firsts
        .first()
        .map(|first| {
            first
                .settings
                .iter()
                .filter(|(key, value)| firsts.iter().all(|r| r.settings.get(*key) == Some(value)))
                .collect()
        })
        .unwrap_or_default();
    if !same.is_empty() {
        out.push_str(
            "<details><summary>Settings that all share</summary><div class=\"scroll\"><table>",
        );
        for (key, value) in same {
            let _ = write!(
                out,
                "<tr><td class=\"mono\">{}</td><td class=\"mono text\">{}</td></tr>",
                esc(key),
                esc(value)
            );
        }
        out.push_str("</table></div></details>");
    }
    out
}

/// Names, seeds, versions, and what was noticed while reading.
pub(super) fn runs(runs: &[RunData], arms: &[Arm]) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table><tr><th>run</th><th class=\"text\">arm</th><th>seed</th><th>steps</th><th>made with</th><th class=\"text\">notes</th></tr>",
    );
    for (arm, i) in arms.iter().flat_map(|a| a.runs.iter().map(move |i| (a, *i))) {
        let run = &runs[i];
        let mut notes = run.notes.clone();
        if !run.finished {
            notes.insert(0, "still being written, or stopped".to_owned());
        }
        let version = run.info.get("empg").and_then(serde_json::Value::as_str).unwrap_or("–");
        let _ = write!(
            out,
            "<tr><td class=\"mono\">{}</td><td class=\"text\">{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>",
            esc(&run.name),
            esc(&arm.label),
            esc(run.settings.get("seed").map_or("–", String::as_str)),
            run.steps.last().copied().unwrap_or(0.0),
            esc(&format!("empg {version}")),
            esc(&notes.join("; "))
        );
    }
    out.push_str("</table></div>");
    out
}
