//! The page: words and tables made here, charts and the credit viewer by the embedded scripts.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::arms::{Arm, Band, arms, band, differences, four_digits};
use crate::assets::{CHART_LIBRARY, CHART_STYLE, CHARTS, MAIN, STYLE, VIEWER};
use crate::episodes::Episode;
use crate::run_data::RunData;

use super::{escape, summary, tables};

/// The curves that are drawn: key and title.
const METRICS: [(&str, &str); 15] = [
    ("success", "success of training episodes"),
    ("return", "return, penalties included"),
    ("turns", "episode length, turns"),
    ("step_entropy", "step entropy H, nats"),
    ("kl_reference", "KL to the reference, nats"),
    ("clip_fraction", "clip fraction"),
    ("grad_norm", "gradient norm"),
    ("g_std", "spread of g (standard deviation)"),
    ("bonus", "mean future-clarity bonus"),
    ("advantage_abs", "mean size of the credit"),
    ("ineffective", "share of commands without effect"),
    ("token_entropy", "token entropy, nats"),
    ("kl_old", "KL of the update, nats"),
    ("tokens_per_s", "tokens a second"),
    ("total_s", "seconds a step"),
];
/// Points of an arm's curve.
const BAND_POINTS: usize = 300;
/// Points of a run's thin line where there are several runs.
const LINE_POINTS: usize = 120;
/// Thin lines are drawn of at most so many runs.
const LINES: usize = 24;
/// Bytes of episodes that a page carries.
const EPISODE_BYTES: usize = 3 << 20;

/// What a page shows.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Its title.
    pub title: String,
    /// The runs.
    pub runs: Vec<RunData>,
    /// The episodes of the credit viewer; those past about 3 MB are left out, evenly.
    pub episodes: Vec<Episode>,
    /// Remarks, e.g. about what could not be read.
    pub notes: Vec<String>,
}

#[derive(Serialize)]
struct Data<'a> {
    arms: &'a [Arm],
    metrics: Vec<Metric>,
    episodes: &'a [&'a Episode],
}

#[derive(Serialize)]
struct Metric {
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

/// The whole page.
pub fn page(contents: &Contents) -> String {
    let Contents { title, runs, episodes, notes } = contents;
    let arms = arms(runs);
    let metrics = metrics(runs, &arms);
    let shown = within(episodes, EPISODE_BYTES);
    let mut body = String::new();
    let _ = write!(body, "<h1>{}</h1>", escape::text(title));
    let differences = differences(runs, &arms);
    let dynamics = tables::dynamics(runs, &arms);
    let mut sections: Vec<(&str, &str, String)> = Vec::new();
    if !runs.is_empty() {
        sections.push(("summary", "Summary", summary::summary(runs, &arms, &differences)));
        let successes = tables::successes(runs, &arms) + &tables::differences(&arms, &differences);
        sections.push(("success", "Success by task type", successes));
    }
    if !metrics.is_empty() {
        let mut part = String::new();
        if arms.len() > 1 || runs.len() > 1 {
            part.push_str("<div class=\"legend\">");
            for (i, arm) in arms.iter().enumerate() {
                let _ = write!(
                    part,
                    "<span><i class=\"swatch\" data-arm=\"{i}\"></i>{} ({} run{})</span>",
                    escape::text(&arm.label),
                    arm.runs.len(),
                    if arm.runs.len() == 1 { "" } else { "s" }
                );
            }
            part.push_str(
                "</div><p class=\"quiet\">Thick lines are means over seeds, bands their 95 % bootstrap \
                 intervals, thin lines single runs. Drag to zoom, double click to zoom out.</p>",
            );
        } else {
            part.push_str(
                "<p class=\"quiet\">Dashed lines are the smallest and the largest of the batch. Drag to \
                 zoom, double click to zoom out.</p>",
            );
        }
        part.push_str("<div class=\"charts\" id=\"charts\"></div>");
        sections.push(("curves", "Curves", part));
    }
    if !dynamics.is_empty() {
        let text = format!(
            "<p>How training changed the entropy of the steps that the initial policy took, by \
             percentile of their initial entropy; lines are 95 % intervals.</p><div class=\"charts\">{dynamics}</div>"
        );
        sections.push(("dynamics", "Entropy dynamics", text));
    }
    if !shown.is_empty() {
        let left_out = episodes.len() - shown.len();
        let mut part = String::from(
            "<p>Every agent step with its credit: the bar's colour is the final advantage, the shade of a \
             token its entropy. Click a step for what its credit is made of; arrow keys move through \
             the list.</p>",
        );
        if left_out > 0 {
            let _ = write!(
                part,
                "<p class=\"quiet\">{left_out} of {} recorded episodes are left out to keep the page \
                 small.</p>",
                episodes.len()
            );
        }
        part.push_str(
            "<div id=\"viewer\"></div><noscript>The credit viewer needs JavaScript.</noscript>",
        );
        sections.push(("credit", "Credit, step by step", part));
    }
    if !runs.is_empty() {
        sections.push(("settings", "Settings", tables::settings(runs, &arms)));
        sections.push(("runs", "Runs", tables::runs(runs, &arms)));
    }
    body.push_str("<nav aria-label=\"sections\">");
    for (id, heading, _) in &sections {
        let _ = write!(body, "<a href=\"#{id}\">{heading}</a>");
    }
    body.push_str("</nav>");
    for note in notes {
        let _ = write!(body, "<p class=\"quiet\">Note: {}</p>", escape::text(note));
    }
    for (id, heading, part) in &sections {
        let _ = write!(body, "<h2 id=\"{id}\">{heading}</h2>{part}");
    }
    let data = Data { arms: &arms, metrics, episodes: &shown };
    let data = serde_json::to_value(&data).unwrap_or(Value::Null).to_string();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\
         <title>{}</title><style>{CHART_STYLE}\n{STYLE}</style></head><body><main>{body}</main>\n\
         <script type=\"application/json\" id=\"empg-data\">{}</script>\n\
         <script>{CHART_LIBRARY}</script>\n<script>{CHARTS}</script>\n<script>{VIEWER}</script>\n<script>{MAIN}</script>\
         </body></html>\n",
        escape::text(title),
        escape::json(&data),
    )
}

fn metrics(runs: &[RunData], arms: &[Arm]) -> Vec<Metric> {
    METRICS
        .iter()
        .filter_map(|&(key, title)| {
            let bands: Vec<Option<Band>> =
                arms.iter().map(|arm| band(runs, arm, key, BAND_POINTS)).collect();
            bands.iter().any(Option::is_some).then(|| Metric {
                title,
                arms: bands,
                runs: lines(runs, arms, key),
            })
        })
        .collect()
}

/// Thin lines: the runs of arms with several, or the extremes of a single run's entropy.
fn lines(runs: &[RunData], arms: &[Arm], key: &str) -> Vec<Line> {
    let line = |arm: usize, run: &RunData, key: &str, dash: bool| {
        let curve = run.curves.get(key)?;
        let n = curve.len();
        let kept = n.min(LINE_POINTS);
        let at = |i: usize| if kept < 2 { 0 } else { i * (n - 1) / (kept - 1) };
        Some(Line {
            arm,
            x: (0..kept).map(|i| run.steps[at(i)]).collect(),
            y: (0..kept)
                .map(|i| Some(curve[at(i)]).filter(|v| v.is_finite()).map(four_digits))
                .collect(),
            dash,
        })
    };
    if runs.len() == 1 {
        return if key == "step_entropy" {
            let extremes = ["step_entropy_min", "step_entropy_max"];
            extremes.iter().filter_map(|key| line(0, &runs[0], key, true)).collect()
        } else {
            Vec::new()
        };
    }
    if runs.len() > LINES {
        return Vec::new();
    }
    arms.iter()
        .enumerate()
        .filter(|(_, arm)| arm.runs.len() > 1)
        .flat_map(|(a, arm)| arm.runs.iter().filter_map(move |&i| line(a, &runs[i], key, false)))
        .collect()
}

/// As many episodes as fit, whole groups, spread evenly over all of them.
fn within(episodes: &[Episode], bytes: usize) -> Vec<&Episode> {
    let size = |e: &Episode| -> usize {
        let turns = e.turns.iter();
        400 + turns
            .map(|t| t.observation.len() + t.action.len() + 150 + 14 * t.tokens.len())
            .sum::<usize>()
    };
    let total: usize = episodes.iter().map(size).sum();
    if total <= bytes {
        return episodes.iter().collect();
    }
    let mut groups: Vec<Vec<&Episode>> = Vec::new();
    for episode in episodes {
        let key = |e: &Episode| (e.source.clone(), e.step, e.group.clone());
        match groups.last_mut() {
            Some(group) if key(group[0]) == key(episode) => group.push(episode),
            _ => groups.push(vec![episode]),
        }
    }
    let share = bytes as f64 / total as f64;
    let mut shown = Vec::new();
    let (mut spent, mut taken) = (0, 0.0);
    for group in groups {
        taken += share;
        let cost: usize = group.iter().map(|e| size(e)).sum();
        if taken >= 1.0 && spent + cost <= bytes {
            taken -= 1.0;
            spent += cost;
            shown.extend(group);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::episodes::Turn;

    fn episode(group: u32, text: &str) -> Episode {
        Episode {
            group: group.to_string(),
            turns: vec![Turn { observation: text.to_owned(), ..Turn::default() }],
            ..Episode::default()
        }
    }

    #[test]
    fn what_episodes_say_is_never_markup() {
        let evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u{2028}ünï";
        let contents = Contents {
            title: "<b>t</b>".into(),
            episodes: vec![episode(0, evil)],
            notes: vec![evil.to_owned()],
            ..Contents::default()
        };
        let page = page(&contents);
        assert!(!page.contains("<script>alert") && !page.contains("<img"), "markup got through");
        assert!(page.contains("&lt;b&gt;t") && page.contains("ünï"));
        assert_eq!(page.matches("</script>").count(), 5, "the scripts and the data, nothing else");
        for word in ["src=\"http", "href=\"http", "@import", "url(http"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn a_page_without_anything_says_nothing() {
        let page = page(&Contents::default());
        assert!(page.contains("<main>") && !page.contains("id=\"viewer\""));
    }

    #[test]
    fn large_pages_keep_whole_groups_from_everywhere() {
        let episodes: Vec<Episode> =
            (0..400).map(|i| episode(i / 4, &"x".repeat(10_000))).collect();
        let shown = within(&episodes, 1 << 20);
        assert!(shown.len() > 80 && shown.len() < 110, "{}", shown.len());
        assert!(shown.last().unwrap().group.parse::<u32>().unwrap() > 80);
        for e in &shown {
            assert_eq!(shown.iter().filter(|o| o.group == e.group).count(), 4);
        }
    }
}
