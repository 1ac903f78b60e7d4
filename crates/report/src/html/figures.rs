//! Figures that are drawn here, as SVG: they print, and need no script.

use std::fmt::Write as _;

use crate::arms::Arm;
use crate::coupling::Coupling;
use crate::dynamics::{ArmBin, of_arm};
use crate::run_data::RunData;

use super::escape::text as esc;

const TEXT: &str = "fill=\"currentColor\" font-size=\"10\"";

/// Change of step entropy by percentile bin of the initial entropy, a figure an arm.
pub(super) fn dynamics<'a>(
    runs: &[RunData],
    arms: impl IntoIterator<Item = &'a Arm>,
    several: bool,
) -> String {
    let mut out = String::new();
    for arm in arms {
        let bins = of_arm(runs, arm);
        if bins.is_empty() {
            continue;
        }
        let title = if several { arm.recipe.as_str() } else { "change of step entropy, nats" };
        let _ = write!(
            out,
            "<section class=\"chart\"><header><span>{}</span></header>{}</section>",
            esc(title),
            bars(&bins)
        );
    }
    out
}

fn bars(bins: &[ArmBin]) -> String {
    let low = bins.iter().fold(0.0_f64, |m, b| m.min(b.low));
    let high = bins.iter().fold(0.0_f64, |m, b| m.max(b.high));
    let span = if high > low { high - low } else { 1.0 };
    let y = |v: f64| 10.0 + (high - v) / span * 130.0;
    let width = 300.0 / bins.len().max(1) as f64;
    let mut svg = String::from(
        "<svg viewBox=\"0 0 350 172\" role=\"img\" style=\"width:100%\" aria-label=\"change of step entropy by percentile of the initial entropy\">",
    );
    for value in if high - low > 0.0 { vec![low, high] } else { vec![low] } {
        let _ = write!(
            svg,
            "<text x=\"38\" y=\"{:.1}\" text-anchor=\"end\" {TEXT}>{value:+.2}</text>",
            y(value) + 3.0
        );
    }
    for (i, bin) in bins.iter().enumerate() {
        let mean = bin.change;
        let x = 44.0 + i as f64 * width;
        let (top, height) = (y(mean.max(0.0)), (y(mean.min(0.0)) - y(mean.max(0.0))).max(0.5));
        let colour = if mean > 0.0 { "var(--bad)" } else { "var(--good)" };
        let middle = x + width / 2.0;
        let _ = write!(
            svg,
            "<g><title>{:.0}–{:.0} % of the initial entropy: {mean:+.4} nats [{:+.4}, {:+.4}], {} steps</title>\
             <rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"rgba({colour}, .7)\"/>\
             <line x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"currentColor\"/></g>",
            bin.from,
            bin.to,
            bin.low,
            bin.high,
            bin.steps,
            x + 1.0,
            (width - 2.0).max(1.0),
            y(bin.low),
            y(bin.high),
        );
    }
    let zero = y(0.0);
    let _ = write!(
        svg,
        "<line x1=\"42\" x2=\"346\" y1=\"{zero:.1}\" y2=\"{zero:.1}\" stroke=\"currentColor\"/>\
         <text x=\"44\" y=\"166\" {TEXT}>0 %</text>\
         <text x=\"194\" y=\"166\" text-anchor=\"middle\" {TEXT}>percentile of the initial entropy</text>\
         <text x=\"344\" y=\"166\" text-anchor=\"end\" {TEXT}>100 %</text></svg>"
    );
    svg
}

/// Proposition 1 on the policy's steps: the logits' score norm with the proposition's right-hand
/// side, and the norm of real gradients, by entropy.
pub(super) fn coupling(found: &Coupling) -> String {
    let bins = &found.bins;
    let points = |value: fn(&crate::coupling::CouplingBin) -> f64| -> Vec<(f64, f64)> {
        bins.iter().map(|b| (b.entropy, value(b))).collect()
    };
    let logits = scatter(
        "squared score norm of the logits",
        &[
            ("E‖∇ log π‖²", points(|b| b.expected), Mark::Dot),
            ("1 − exp(−H₂)", points(|b| b.closed_form), Mark::Line),
            ("sampled", points(|b| b.sampled), Mark::Ring),
        ],
        &[],
    );
    let intervals: Vec<(f64, f64, f64)> = bins
        .iter()
        .filter_map(|b| b.gradient_interval.map(|i| (b.entropy, i.low, i.high)))
        .collect();
    let gradients = scatter(
        "squared norm of the parameters' gradient",
        &[("‖∇_θ log π‖²", points(|b| b.gradient), Mark::Dot)],
        &intervals,
    );
    format!(
        "<div class=\"charts\"><section class=\"chart\"><header><span>on the logits</span></header>{logits}</section>\
         <section class=\"chart\"><header><span>on all parameters</span></header>{gradients}</section></div>"
    )
}

#[derive(Clone, Copy)]
enum Mark {
    Dot,
    Ring,
    Line,
}

type Named<'a> = (&'a str, Vec<(f64, f64)>, Mark);

/// Points over entropy, with intervals.
fn scatter(label: &str, series: &[Named<'_>], intervals: &[(f64, f64, f64)]) -> String {
    let all = series.iter().flat_map(|(_, points, _)| points);
    let right = all.clone().fold(0.0_f64, |m, p| m.max(p.0)).max(1e-12);
    let top = all.map(|p| p.1).chain(intervals.iter().map(|i| i.2)).fold(0.0_f64, f64::max);
    let top = if top > 0.0 { top } else { 1.0 };
    let x = |v: f64| 48.0 + v / right * 290.0;
    let y = |v: f64| 140.0 - v / top * 120.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 350 176\" role=\"img\" style=\"width:100%\" aria-label=\"{} by step entropy\">\
         <line x1=\"48\" x2=\"344\" y1=\"140\" y2=\"140\" stroke=\"currentColor\"/>\
         <text x=\"44\" y=\"143\" text-anchor=\"end\" {TEXT}>0</text>\
         <text x=\"44\" y=\"24\" text-anchor=\"end\" {TEXT}>{}</text>\
         <text x=\"48\" y=\"153\" {TEXT}>0</text>\
         <text x=\"196\" y=\"153\" text-anchor=\"middle\" {TEXT}>step entropy H, nats</text>\
         <text x=\"344\" y=\"153\" text-anchor=\"end\" {TEXT}>{right:.2}</text>",
        esc(label),
        tick(top),
    );
    for (h, low, high) in intervals {
        let _ = write!(
            svg,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.1}\" y2=\"{2:.1}\" stroke=\"currentColor\"/>",
            x(*h),
            y(*low),
            y(*high)
        );
    }
    let mut legend = 48.0;
    for (name, points, mark) in series {
        if matches!(mark, Mark::Line) {
            let path: Vec<String> =
                points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
            let _ = write!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"currentColor\" stroke-dasharray=\"4 3\"/>",
                path.join(" ")
            );
        }
        for (h, value) in points {
            let title = format!("{name} at H = {h:.3} nats: {value:.4}");
            let _ = match mark {
                Mark::Dot => write!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"rgb(var(--good))\"><title>{title}</title></circle>",
                    x(*h),
                    y(*value)
                ),
                Mark::Ring => write!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"6\" fill=\"none\" stroke=\"rgb(var(--bad))\"><title>{title}</title></circle>",
                    x(*h),
                    y(*value)
                ),
                Mark::Line => Ok(()),
            };
        }
        let sign = match mark {
            Mark::Dot => "●",
            Mark::Ring => "○",
            Mark::Line => "- -",
        };
        let _ = write!(svg, "<text x=\"{legend}\" y=\"170\" {TEXT}>{sign} {}</text>", esc(name));
        legend += 110.0;
    }
    svg.push_str("</svg>");
    svg
}

fn tick(value: f64) -> String {
    if (1e-2..1e4).contains(&value) { format!("{value:.2}") } else { format!("{value:.1e}") }
}
