//! The comparison and the ablation, as tables.

use std::fmt::Write as _;

use crate::arms::Arm;
use crate::comparison::{Comparison, Success, ablations, comparison};
use crate::run_data::RunData;

use super::escape::text as esc;

/// Recipes × environments; empty where one arm is all there is.
pub(super) fn overview(runs: &[RunData], arms: &[Arm]) -> String {
    let found = comparison(runs, arms);
    if arms.len() < 2 || found.columns.is_empty() {
        return String::new();
    }
    let words = "<p class=\"quiet\">Means over seeds, 95 % bootstrap intervals over seeds in small figures, \
         and the difference to the same recipe without EMPG in points. Whether a difference stands \
         clear of chance is said by the paired differences.</p>";
    table(&found, "success after training, %") + words
}

/// Base, each half of EMPG alone, and both; empty where no arm has a half alone.
pub(super) fn ablation(runs: &[RunData], arms: &[Arm]) -> String {
    ablations(runs, arms)
        .iter()
        .map(|found| table(found, "ablation, success after training, %"))
        .collect()
}

fn table(found: &Comparison, title: &str) -> String {
    let columns = &found.columns;
    let mut out = format!("<div class=\"scroll\"><table><thead><tr><th>{title}</th>");
    let mut at = 0;
    while at < columns.len() {
        let environment = &columns[at].environment;
        let span = columns[at..].iter().take_while(|c| &c.environment == environment).count();
        let _ = write!(out, "<th colspan=\"{span}\">{}</th>", esc(environment));
        at += span;
    }
    out.push_str("</tr><tr><th></th>");
    for column in columns {
        let _ = write!(out, "<th>{}</th>", esc(&column.heading));
    }
    out.push_str("</tr></thead><tbody>");
    for (recipe, values) in &found.rows {
        let _ = write!(out, "<tr><td>{}</td>", esc(recipe));
        for value in values {
            let _ = write!(out, "<td>{}</td>", value.map_or("–".to_owned(), |v| cell(&v)));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

fn cell(value: &Success) -> String {
    let mut out = format!("<b>{:.1}</b>", value.mean);
    if let Some(i) = value.interval {
        let _ = write!(out, " <small>{:.1}–{:.1}</small>", i.low, i.high);
    }
    if let Some(difference) = value.difference {
        let _ = write!(out, " <span class=\"delta\">{difference:+.1}</span>");
    }
    out
}
