//! The report's tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::arms::{Arm, ArmDifference, by_seed, environments, seed, splits};
use crate::run_data::RunData;
use crate::stability::{Stability, of_run};
use crate::statistics::{bootstrap, mean};

use super::escape::text as esc;

/// Arms that are tabled by task type side by side; of more, only the comparison is.
const SIDE_BY_SIDE: usize = 8;

/// Success by task type before and after: one table a split, three columns an arm.
pub(super) fn successes(runs: &[RunData], arms: &[&Arm]) -> String {
    let splits = splits(arms.iter().flat_map(|a| &a.runs).map(|&i| &runs[i]));
    let mut out = String::new();
    if arms.len() > SIDE_BY_SIDE {
        let _ =
            write!(out, "<p class=\"quiet\">The first {SIDE_BY_SIDE} of {} arms.</p>", arms.len());
    }
    let arms = &arms[..arms.len().min(SIDE_BY_SIDE)];
    let mine = || arms.iter().flat_map(|a| &a.runs).map(|&i| &runs[i]);
    for split in splits {
        let mut kinds = BTreeSet::new();
        for result in mine().filter_map(|r| r.after(&split).or_else(|| r.before(&split))) {
            kinds.extend(result.by_task.keys());
        }
        let _ = write!(out, "<div class=\"scroll\"><table><tr><th>{} tasks</th>", esc(&split));
        for arm in arms {
            let _ = write!(out, "<th colspan=\"3\">{}</th>", esc(&arm.recipe));
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
                let (before, after) = arm.before_and_after(runs, &split, |result| {
                    kind.map_or(Some(result.success), |k| result.by_task.get(k).copied())
                });
                let (before, after) = (mean(&before), mean(&after));
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

/// Late stages: KL to the reference, success, and what is flagged; empty where no run is long enough.
pub(super) fn stabilities(runs: &[RunData], arms: &[&Arm]) -> String {
    let mut rows = String::new();
    for arm in arms {
        let judged: Vec<(&RunData, Stability)> =
            arm.runs.iter().filter_map(|&i| Some((&runs[i], of_run(&runs[i])?))).collect();
        if judged.is_empty() {
            continue;
        }
        let over = |value: fn(&Stability) -> Option<f64>, percent: bool| {
            let scale = if percent { 100.0 } else { 1.0 };
            let each = judged.iter().filter_map(|(run, s)| Some((seed(run), value(s)? * scale)));
            let values: Vec<f64> = by_seed(each).into_values().collect();
            let digits = if percent { 1 } else { 3 };
            let interval = bootstrap(&values)
                .map(|i| format!(" <small>{:.digits$}–{:.digits$}</small>", i.low, i.high));
            let m = mean(&values).map_or("–".to_owned(), |m| format!("{m:.digits$}"));
            format!("<td>{m}{}</td>", interval.unwrap_or_default())
        };
        let flagged: Vec<String> = judged
            .iter()
            .filter(|(_, s)| !s.stable())
            .map(|(run, s)| {
                let what = match (s.kl_runs_away, s.success_collapses) {
                    (true, true) => "KL runs away, success collapses",
                    (true, false) => "KL runs away",
                    _ => "success collapses",
                };
                format!("{}: {what}", esc(&run.name))
            })
            .collect();
        let verdict = if flagged.is_empty() {
            "stable".to_owned()
        } else {
            format!("<b>{} of {}</b> unstable: {}", flagged.len(), judged.len(), flagged.join("; "))
        };
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td>{}{}{}{}<td class=\"text\">{verdict}</td></tr>",
            esc(&arm.recipe),
            judged.len(),
            over(|s| s.kl_middle, false),
            over(|s| s.kl_late, false),
            over(|s| Some(s.success_best), true),
            over(|s| Some(s.success_late), true),
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<div class=\"scroll\"><table><tr><th>arm</th><th>runs</th><th>KL, middle third</th>\
         <th>largest late KL</th><th>best success, %</th><th>success at the end, %</th>\
         <th class=\"text\">late stage</th></tr>{rows}</table></div>"
    )
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
    if arms.len() > SIDE_BY_SIDE {
        out.push_str(&differing_by_arm(&firsts, arms));
    } else if !differing.is_empty() {
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

/// What differs among arms of one environment, an arm a row.
fn differing_by_arm(firsts: &[&RunData], arms: &[Arm]) -> String {
    let mut keys: BTreeSet<&String> = BTreeSet::new();
    for environment in environments(arms) {
        let here: Vec<&&RunData> = firsts
            .iter()
            .zip(arms)
            .filter(|(_, a)| a.environment == environment)
            .map(|(r, _)| r)
            .collect();
        for run in &here {
            let differs = |key: &&String| {
                here.iter().any(|other| other.settings.get(*key) != run.settings.get(*key))
            };
            keys.extend(run.settings.keys().filter(differs));
        }
    }
    if keys.is_empty() {
        return String::new();
    }
    let mut out =
        String::from("<h3>Where the arms differ</h3><div class=\"scroll\"><table><tr><th>arm</th>");
    for key in &keys {
        let _ = write!(out, "<th class=\"mono\">{}</th>", esc(key));
    }
    out.push_str("</tr>");
    for (run, arm) in firsts.iter().zip(arms) {
        let _ = write!(out, "<tr><td>{}</td>", esc(&arm.label));
        for key in &keys {
            let value = run.settings.get(*key).map_or("–", String::as_str);
            let _ = write!(out, "<td class=\"mono\">{}</td>", esc(value));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
    out
}

/// What is said of a run that has not come to its end: its newest results stand in no table.
fn half_way(run: &RunData) -> String {
    let mut out = "still being written, or stopped".to_owned();
    if let Some((step, results)) = run.evaluations.last().filter(|(step, _)| *step > 0.0) {
        let each: Vec<String> = results
            .iter()
            .map(|r| format!("{:.1} % on {} tasks", r.success * 100.0, r.split))
            .collect();
        let _ = write!(out, "; after step {step}: {}", each.join(", "));
    }
    out
}

/// Names, seeds, versions, and what was noticed while reading.
pub(super) fn runs(runs: &[RunData], arms: &[Arm]) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table><tr><th>run</th><th class=\"text\">arm</th><th>seed</th><th>steps</th><th>made with</th><th class=\"text\">machine</th><th class=\"text\">notes</th></tr>",
    );
    for (arm, i) in arms.iter().flat_map(|a| a.runs.iter().map(move |i| (a, *i))) {
        let run = &runs[i];
        let mut notes = run.notes.clone();
        if !run.finished {
            notes.insert(0, half_way(run));
        }
        let version = run.info.get("empg").and_then(serde_json::Value::as_str).unwrap_or("–");
        let _ = write!(
            out,
            "<tr><td class=\"mono\">{}</td><td class=\"text\">{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"text\">{}</td><td class=\"text\">{}</td></tr>",
            esc(&run.name),
            esc(&arm.label),
            esc(run.settings.get("seed").map_or("–", String::as_str)),
            run.steps.last().copied().unwrap_or(0.0),
            esc(&format!("empg {version}")),
            esc(if run.machine.is_empty() { "–" } else { &run.machine }),
            esc(&notes.join("; "))
        );
    }
    out.push_str("</table></div>");
    out
}
