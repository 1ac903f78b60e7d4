//! The page: words and tables made here, charts and the credit viewer by the embedded scripts.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::arms::{Arm, arms, differences, environments};
use crate::assets::{CHART_LIBRARY, CHART_STYLE, CHARTS, MAIN, STYLE, VIEWER};
use crate::episodes::Episode;
use crate::run_data::RunData;

use super::curves::{self, DrawnArm, Metric, metrics};
use super::{escape, figures, overview, summary, tables};

/// Bytes of episodes that a page carries.
pub const EPISODE_BYTES: usize = 3 << 20;

/// What a page shows.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Its title.
    pub title: String,
    /// What is asked, in paragraphs; may be empty.
    pub about: String,
    /// The runs.
    pub runs: Vec<RunData>,
    /// The episodes of the credit viewer; those past about 3 MB are left out, evenly ([`shown`]).
    pub episodes: Vec<Episode>,
    /// How many more were recorded than are among `episodes`.
    pub unread: usize,
    /// Remarks, e.g. about what could not be read.
    pub notes: Vec<String>,
}

#[derive(Serialize)]
struct Data<'a> {
    arms: Vec<DrawnArm<'a>>,
    metrics: Vec<Metric>,
    episodes: &'a [&'a Episode],
}

/// The whole page.
pub fn page(contents: &Contents) -> String {
    let Contents { title, runs, episodes, notes, .. } = contents;
    let arms = arms(runs);
    let environments = environments(&arms);
    let metrics = metrics(runs, &arms);
    let shown = shown(episodes);
    let mut body = String::new();
    let _ = write!(body, "<h1>{}</h1>", escape::text(title));
    for paragraph in contents.about.split("\n\n").map(str::trim).filter(|p| !p.is_empty()) {
        let _ = write!(body, "<p>{}</p>", escape::text(paragraph));
    }
    let differences = differences(runs, &arms);
    let mut sections: Vec<(&str, &str, String)> = Vec::new();
    let mut section = |id, heading, part: String| {
        if !part.is_empty() {
            sections.push((id, heading, part));
        }
    };
    // What is said of every environment on its own, with its name where there are several.
    let each = |say: &dyn Fn(&str, &[&Arm]) -> String| -> String {
        let mut out = String::new();
        for environment in &environments {
            let here: Vec<&Arm> = arms.iter().filter(|a| a.environment == *environment).collect();
            let said = say(environment, &here);
            if !said.is_empty() && environments.len() > 1 {
                let _ = write!(out, "<h3>{}</h3>", escape::text(environment));
            }
            out.push_str(&said);
        }
        out
    };
    if !runs.is_empty() {
        section("summary", "Summary", summary::summary(runs, &arms, &differences));
        let compared = overview::overview(runs, &arms)
            + &tables::differences(&arms, &differences)
            + &overview::ablation(runs, &arms);
        section("comparison", "Comparison", compared);
        let successes = each(&|_, here| tables::successes(runs, here));
        section("success", "Success by task type", successes);
    }
    if !metrics.is_empty() {
        let charts = each(&|environment, here| curves::places(environment, here, &arms, None));
        section("curves", "Curves", curves::words(runs, &arms) + &charts);
        let late = each(&|environment, here| {
            let table = tables::stabilities(runs, here);
            let kl = curves::places(environment, here, &arms, Some("kl_reference"));
            if table.is_empty() { table } else { table + &kl }
        });
        if !late.is_empty() {
            let words = "<p>KL to the reference over training, and what the last third looked like. A KL \
                 that grows to more than three times its mean of the middle third has run away; a \
                 success that ends more than ten points below its best five steps has collapsed.</p>";
            section("stability", "Stability", format!("{words}{late}"));
        }
    }
    let dynamics = each(&|_, here| {
        let drawn = figures::dynamics(runs, here.iter().copied(), arms.len() > 1);
        if drawn.is_empty() { drawn } else { format!("<div class=\"charts\">{drawn}</div>") }
    });
    if !dynamics.is_empty() {
        let words = "<p>How training changed the entropy of the steps that the initial policy took, by \
             percentile of their initial entropy. Lines are 95 % intervals: over seeds where there are \
             several, else over steps, those of one episode taken together.</p>";
        section("dynamics", "Entropy dynamics", format!("{words}{dynamics}"));
    }
    let coupled = each(&|_, here| {
        let found = here.iter().flat_map(|a| &a.runs).find_map(|&i| runs[i].coupling.as_ref());
        found.map(figures::coupling).unwrap_or_default()
    });
    if !coupled.is_empty() {
        let words = "<p>Proposition 1 on the initial policy's own steps: the expected squared score norm \
             of the logits is 1 − exp(−H₂), so steps of high entropy have the larger gradients, and \
             EMPG's factor g works against that. On the right the same steps' gradients of all \
             parameters, by entropy, with 95 % intervals over the steps of a bin.</p>";
        section("coupling", "Entropy and gradients", format!("{words}{coupled}"));
    }
    let recorded = episodes.len() + contents.unread;
    if recorded > 0 {
        let left_out = recorded - shown.len();
        let mut part = String::from(
            "<p>Every agent step with its credit: the bar's colour is the final advantage, the shade of a \
             token its entropy. Click a step for what its credit is made of; arrow keys move through \
             the list.</p>",
        );
        if left_out > 0 {
            let _ = write!(
                part,
                "<p class=\"quiet\">{left_out} of {recorded} recorded episodes are left out to keep the \
                 page small.</p>"
            );
        }
        part.push_str(
            "<div id=\"viewer\"></div><noscript>The credit viewer needs JavaScript.</noscript>",
        );
        section("credit", "Credit, step by step", part);
    }
    if !runs.is_empty() {
        section("settings", "Settings", tables::settings(runs, &arms));
        section("runs", "Runs", tables::runs(runs, &arms));
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
    let data = Data { arms: curves::drawn(&arms), metrics, episodes: &shown };
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

/// What a page begins with, and the element that has its data.
const BEGINNING: &[u8] = b"<!doctype html>";
const DATA: &[u8] = b"id=\"empg-data\"";

/// Whether a file is a page of this crate.
pub fn is_page(file: &[u8]) -> bool {
    file.starts_with(BEGINNING) && file.windows(DATA.len()).any(|part| part == DATA)
}

/// The episodes of these that a page carries: all, or some from everywhere.
pub fn shown(episodes: &[Episode]) -> Vec<&Episode> {
    within(episodes, EPISODE_BYTES)
}

/// About how many bytes an episode takes in a page.
pub fn bytes_of(episode: &Episode) -> usize {
    let turns = episode.turns.iter();
    400 + turns
        .map(|t| {
            let tokens = t.tokens.iter().map(|token| token.len() + 10).sum::<usize>();
            t.observation.len() + t.action.len() + 150 + tokens
        })
        .sum::<usize>()
}

/// As many episodes as fit, spread evenly over all of them: whole groups, but of a group that does
/// not fit alone (rollouts whose lines name no group are one) episode by episode.
fn within(episodes: &[Episode], bytes: usize) -> Vec<&Episode> {
    let total: usize = episodes.iter().map(bytes_of).sum();
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
    let cost = |part: &[&Episode]| -> usize { part.iter().map(|e| bytes_of(e)).sum() };
    let parts: Vec<Vec<&Episode>> = groups
        .into_iter()
        .flat_map(|group| {
            if cost(&group) <= bytes {
                vec![group]
            } else {
                group.into_iter().map(|episode| vec![episode]).collect()
            }
        })
        .filter(|part| cost(part) <= bytes)
        .collect();
    let total: usize = parts.iter().map(|part| cost(part)).sum();
    let share = bytes as f64 / total.max(1) as f64;
    let mut shown = Vec::new();
    let (mut spent, mut taken) = (0, 0.0);
    for part in parts {
        taken += share;
        let cost = cost(&part);
        // A sum of shares may fall short of 1 by its rounding.
        if taken >= 1.0 - 1e-9 && spent + cost <= bytes {
            taken -= 1.0;
            spent += cost;
            shown.extend(part);
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
        assert!(is_page(page.as_bytes()));
        assert!(!is_page(b"<!doctype html><p>mine</p>") && !is_page(b"id=\"empg-data\""));
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

    #[test]
    fn a_group_that_does_not_fit_is_shown_in_part() {
        let text = "x".repeat(10_000);
        let one: Vec<Episode> = (0..400).map(|_| episode(0, &text)).collect();
        let from_one = within(&one, 1 << 20);
        assert!(from_one.len() > 80 && from_one.len() < 110, "{}", from_one.len());
        let last = std::ptr::from_ref(from_one[from_one.len() - 1]);
        assert!(one.iter().position(|e| std::ptr::eq(e, last)).unwrap() > 380, "spread evenly");
        // Beside it, groups that fit stay whole.
        let mixed: Vec<Episode> =
            (0..400).map(|i| episode(if i < 200 { 0 } else { i / 4 }, &text)).collect();
        let some = within(&mixed, 1 << 20);
        assert!(some.iter().any(|e| e.group == "0") && some.iter().any(|e| e.group != "0"));
        for e in some.iter().filter(|e| e.group != "0") {
            assert_eq!(some.iter().filter(|o| o.group == e.group).count(), 4);
        }
        // One that is larger than the page hides no other.
        let huge = [episode(0, &"x".repeat(1 << 20)), episode(0, "y"), episode(0, "z")];
        assert_eq!(within(&huge, 1 << 20).len(), 2);
        // Tokens are text too.
        let mut wordy = episode(0, "");
        wordy.turns[0].tokens = vec!["x".repeat(1 << 20)];
        assert!(within(&[wordy], 1 << 20).is_empty());
    }

    #[test]
    fn what_is_left_out_is_told() {
        let text = "x".repeat(10_000);
        let episodes: Vec<Episode> = (0..400).map(|_| episode(0, &text)).collect();
        let left_out = 400 - shown(&episodes).len();
        assert!(left_out > 50 && left_out < 150, "{left_out}");
        let page = page(&Contents { episodes, ..Contents::default() });
        assert!(page.contains("id=\"viewer\""));
        assert!(page.contains(&format!("{left_out} of 400 recorded episodes are left out")));
        let few = vec![episode(0, "x")];
        let page = super::page(&Contents { episodes: few, unread: 7, ..Contents::default() });
        assert!(page.contains("7 of 8 recorded episodes are left out"));
        let huge = vec![episode(0, &"x".repeat(EPISODE_BYTES))];
        let page = super::page(&Contents { episodes: huge, ..Contents::default() });
        assert!(page.contains("1 of 1 recorded episodes are left out"), "nothing fits");
    }
}
