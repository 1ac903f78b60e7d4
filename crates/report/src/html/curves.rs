//! Curves of arms and runs: what the page's script draws, and where.

use std::fmt::Write as _;

use serde::Serialize;

use crate::arms::{Arm, Band, band, four_digits, kept};
use crate::run_data::RunData;

use super::escape;

/// The curves that are drawn: key and title.
const METRICS: [(&str, &str); 16] = [
    ("success", "success of training episodes"),
    ("return", "return, penalties included"),
    ("turns", "episode length, turns"),
    ("step_entropy", "step entropy H, nats"),
    ("kl_reference", "KL to the reference, nats"),
    ("clip_fraction", "clip fraction"),
    ("grad_norm", "gradient norm"),
    ("g_std", "spread of g (standard deviation)"),
    ("bonus", "mean future-clarity bonus"),
    ("bonus_share", "mean bonus ÷ mean size of the credit"),
    ("advantage_abs", "mean size of the credit"),
    ("ineffective", "share of commands without effect"),
    ("token_entropy", "token entropy, nats"),
    ("kl_old", "KL of the update, nats"),
    ("tokens_per_s", "tokens a second"),
    ("total_s", "seconds a step"),
];
/// The smallest and the largest of the batch, drawn beside a mean.
const EXTREMES: [(&str, [&str; 2]); 1] =
    [("step_entropy", ["step_entropy_min", "step_entropy_max"])];
/// Points of an arm's curve.
const BAND_POINTS: usize = 300;
/// Points of all curves: a page stays below 5 MB.
const ALL_POINTS: usize = 90_000;
/// Points of a run's thin line where there are several runs.
const LINE_POINTS: usize = 120;
/// Thin lines are drawn of at most so many runs.
const LINES: usize = 24;
/// Arms of an environment that are drawn at first.
const FIRST: usize = 6;

/// An arm as the script knows it.
#[derive(Serialize)]
pub struct DrawnArm<'a> {
    label: &'a str,
    environment: &'a str,
    /// Equal for equal recipes.
    colour: usize,
    /// Not drawn until it is asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    hidden: bool,
}

/// A chart's curves.
#[derive(Serialize)]
pub struct Metric {
    key: &'static str,
    title: &'static str,
    arms: Vec<Option<Band>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    arm: usize,
    x: Vec<f64>,
    y: Vec<Option<f64>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dash: bool,
}

/// The arms with their colours.
pub fn drawn(arms: &[Arm]) -> Vec<DrawnArm<'_>> {
    let mut recipes: Vec<&str> = Vec::new();
    for arm in arms {
        if !recipes.contains(&arm.recipe.as_str()) {
            recipes.push(&arm.recipe);
        }
    }
    arms.iter()
        .enumerate()
        .map(|(i, arm)| DrawnArm {
            label: &arm.recipe,
            environment: &arm.environment,
            colour: recipes.iter().position(|r| *r == arm.recipe).unwrap_or_default(),
            hidden: arms[..i].iter().filter(|a| a.environment == arm.environment).count() >= FIRST,
        })
        .collect()
}

/// What the charts' lines are.
pub(super) fn words(runs: &[RunData], arms: &[Arm]) -> String {
    let words = if arms.iter().any(|a| a.runs.len() > 1) {
        "Thick lines are means over seeds, bands their 95 % bootstrap intervals, thin lines single runs; \
         dashed lines are the smallest and the largest of a batch."
    } else if runs.len() > 1 {
        "Every line is a run; dashed lines are the smallest and the largest of a batch."
    } else {
        "Dashed lines are the smallest and the largest of the batch."
    };
    let choose = if arms.len() > 1 { " The names show and hide an arm." } else { "" };
    format!("<p class=\"quiet\">{words} Drag to zoom, double click to zoom out.{choose}</p>")
}

/// The place of an environment's charts, with a legend where there are several arms; `metric` for one
/// chart alone.
pub(super) fn places(
    environment: &str,
    here: &[&Arm],
    arms: &[Arm],
    metric: Option<&str>,
) -> String {
    let mut out = String::new();
    if here.len() > 1 {
        out.push_str("<div class=\"legend\" role=\"group\" aria-label=\"arms\">");
        let mine = arms.iter().enumerate().filter(|(_, a)| a.environment == environment);
        for (i, arm) in mine {
            let _ = write!(
                out,
                "<button type=\"button\" data-arm=\"{i}\"><i class=\"swatch\"></i>{} ({} run{})</button>",
                escape::text(&arm.recipe),
                arm.runs.len(),
                if arm.runs.len() == 1 { "" } else { "s" }
            );
        }
        out.push_str("</div>");
    }
    let only = metric.map(|m| format!(" data-metric=\"{m}\"")).unwrap_or_default();
    let _ = write!(
        out,
        "<div class=\"charts\" data-environment=\"{}\"{only}></div>",
        escape::text(environment)
    );
    out
}

/// The curves of all arms; metrics that no run has are left out.
pub fn metrics(runs: &[RunData], arms: &[Arm]) -> Vec<Metric> {
    let points = (ALL_POINTS / (METRICS.len() * arms.len().max(1))).clamp(20, BAND_POINTS);
    METRICS
        .iter()
        .filter_map(|&(key, title)| {
            let bands: Vec<Option<Band>> =
                arms.iter().map(|arm| band(runs, arm, key, points)).collect();
            if bands.iter().all(Option::is_none) {
                return None;
            }
            let lines = lines(runs, arms, key, points);
            Some(Metric { key, title, arms: bands, runs: lines })
        })
        .collect()
}

/// Thin lines: the runs of arms with several, and the extremes of a batch.
fn lines(runs: &[RunData], arms: &[Arm], key: &str, points: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for (_, names) in EXTREMES.iter().filter(|(of, _)| *of == key) {
        for (a, arm) in arms.iter().enumerate() {
            let bands = names.iter().filter_map(|name| band(runs, arm, name, points));
            lines.extend(bands.map(|b| Line { arm: a, x: b.x, y: b.mean, dash: true }));
        }
    }
    if runs.len() <= LINES {
        for (a, arm) in arms.iter().enumerate().filter(|(_, arm)| arm.runs.len() > 1) {
            lines.extend(arm.runs.iter().filter_map(|&i| line(a, &runs[i], key)));
        }
    }
    lines
}

fn line(arm: usize, run: &RunData, key: &str) -> Option<Line> {
    let curve = run.curves.get(key)?;
    let finite: Vec<Option<f64>> =
        curve.iter().map(|v| Some(*v).filter(|v| v.is_finite())).collect();
    let kept = kept(&finite, LINE_POINTS);
    Some(Line {
        arm,
        x: kept.iter().map(|&at| run.steps[at]).collect(),
        y: kept.iter().map(|&at| finite[at].map(four_digits)).collect(),
        dash: false,
    })
}
