//! `empg analyze`: the paper's analyses of finished runs, as tables.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};
use empg_report::arms::{Arm, arms};
use empg_report::comparison::{Comparison, ablations, comparison};
use empg_report::dynamics::{ArmBin, bins, of_arm, pairs};
use empg_report::run_data::RunData;
use empg_report::stability::of_run;
use empg_run::Run;
use serde_json::{Value, json};

use super::report::{find, read_all};
use crate::output;

/// Changes of entropy below this are printed as 0; what is smaller everywhere is rounding, not a shape.
const SHOWN: f64 = 5e-5;

/// Arguments of `empg analyze`.
#[derive(Args, Debug)]
#[command(after_help = "\
Runs that differ in their seed only are taken as one arm. `empg report` shows
the same analyses with figures; `empg prop1 --run RUN` shows entropy against
gradients.

Examples:
  empg analyze entropy-dynamics runs/households-dapo-empg-s0
  empg analyze stability runs/
  empg analyze ablation runs/ --json")]
pub(crate) struct AnalyzeArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How training changed the entropy of steps, by percentile of their initial entropy
    #[command(after_help = "\
Examples:
  empg analyze entropy-dynamics runs/households-dapo-empg-s0
  empg analyze entropy-dynamics runs/ --bins 10 --json")]
    EntropyDynamics {
        #[command(flatten)]
        which: Which,
        /// Percentile bins
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        bins: u16,
    },
    /// KL to the reference over training, and late-stage instability
    #[command(after_help = "\
Examples:
  empg analyze stability runs/households-dapo-empg-s0
  empg analyze stability runs/ --json")]
    Stability(Which),
    /// Success by arm and domain; base, gradient scaling, future clarity, both
    #[command(after_help = "\
Examples:
  empg analyze ablation runs/
  empg analyze ablation runs/base-s0 runs/both-s0 --json")]
    Ablation(Which),
}

#[derive(Args, Debug)]
struct Which {
    /// Run directories, or folders of runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: AnalyzeArgs, json: bool) -> anyhow::Result<()> {
    let (text, value) = match args.what {
        What::EntropyDynamics { which, bins } => entropy_dynamics(&which, bins.into())?,
        What::Stability(which) => stability(&which)?,
        What::Ablation(which) => ablation(&which)?,
    };
    if json {
        output::line(&value.to_string())?;
    } else {
        output::text(&text)?;
    }
    Ok(())
}

/// The runs; what could not be read of them is said.
fn read(which: &Which) -> anyhow::Result<(Vec<RunData>, Vec<Arm>)> {
    let mut runs = Vec::new();
    let paths = find(&which.runs)?;
    for (path, read) in paths.iter().zip(read_all(&paths)) {
        match read {
            Ok(run) => runs.push(run),
            // A folder's damaged run does not hide the others.
            Err(error) if !which.runs.contains(path) => crate::say!("warning: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    for run in &runs {
        for note in &run.notes {
            crate::say!("warning: {}: {note}", run.name);
        }
    }
    let arms = arms(&runs);
    Ok((runs, arms))
}

fn entropy_dynamics(which: &Which, count: usize) -> anyhow::Result<(String, Value)> {
    let (mut runs, arms) = read(which)?;
    for run in &mut runs {
        if !run.entropy_dynamics.is_empty() {
            let table = Run::open(&run.path)?.analysis("entropy-dynamics")?;
            run.entropy_dynamics = bins(pairs(&table), count);
        }
    }
    let (mut text, mut list) = (String::new(), Vec::new());
    for arm in &arms {
        let found = of_arm(&runs, arm);
        if found.is_empty() {
            crate::say!(
                "{}: no table of step entropies; a run writes it at its end unless \
                 record.entropy_probe is 0",
                arm.label
            );
            continue;
        }
        let seeds = arm.seeds(&runs);
        let over = if seeds > 1 { format!("{seeds} seeds") } else { "steps".to_owned() };
        let _ = writeln!(text, "{} (intervals over {over})", arm.label);
        dynamics_table(&mut text, &found);
        list.push(
            json!({ "arm": arm.label, "runs": arm.runs.len(), "seeds": seeds, "bins": found }),
        );
    }
    if list.is_empty() {
        bail!("none of the runs has a table of step entropies before and after training");
    }
    Ok((text, Value::Array(list)))
}

fn dynamics_table(text: &mut String, bins: &[ArmBin]) {
    let largest = bins.iter().map(|b| b.change.abs()).fold(f64::MIN_POSITIVE, f64::max);
    let _ = writeln!(
        text,
        "{:>11}  {:>6}  {:>8}  {:>8}  {:>8}  {:>19}",
        "percentile", "steps", "before", "after", "change", "95 % interval"
    );
    for bin in bins {
        let marks = if largest < SHOWN { 0.0 } else { bin.change.abs() / largest * 20.0 };
        let _ = writeln!(
            text,
            "{:>11}  {:>6}  {:>8.4}  {:>8.4}  {:>+8.4}  {:>+8.4} … {:>+8.4}  {}",
            format!("{:.0}–{:.0}", bin.from, bin.to),
            bin.steps,
            bin.before,
            bin.after,
            bin.change,
            bin.low,
            bin.high,
            if bin.change < 0.0 { "−" } else { "+" }.repeat(marks.round() as usize)
        );
    }
    text.push('\n');
}

fn stability(which: &Which) -> anyhow::Result<(String, Value)> {
    let (runs, arms) = read(which)?;
    let (mut text, mut list) = (String::new(), Vec::new());
    for arm in &arms {
        let _ = writeln!(text, "{}", arm.label);
        let _ = writeln!(
            text,
            "{:<40}  {:>9}  {:>11}  {:>12}  {:>12}  late stage",
            "run", "KL middle", "KL late max", "success best", "success late"
        );
        for run in arm.runs.iter().map(|&i| &runs[i]) {
            let name = shortened(&run.name);
            let Some(s) = of_run(run) else {
                let _ = writeln!(text, "{name:<40}  fewer than 15 steps: nothing can be said");
                list.push(json!({ "arm": arm.label, "run": run.name, "stability": null }));
                continue;
            };
            let verdict = match (s.kl_runs_away, s.success_collapses) {
                (false, false) => "stable",
                (true, false) => "KL RUNS AWAY",
                (false, true) => "SUCCESS COLLAPSES",
                (true, true) => "KL RUNS AWAY, SUCCESS COLLAPSES",
            };
            let kl = |kl: Option<f64>| kl.map_or("–".to_owned(), |kl| format!("{kl:.4}"));
            let _ = writeln!(
                text,
                "{name:<40}  {:>9}  {:>11}  {:>10.1} %  {:>10.1} %  {verdict}",
                kl(s.kl_middle),
                kl(s.kl_late),
                s.success_best * 100.0,
                s.success_late * 100.0,
            );
            list.push(json!({ "arm": arm.label, "run": run.name, "stability": s }));
        }
        text.push('\n');
    }
    Ok((text, Value::Array(list)))
}

/// The end of a name tells seeds apart.
fn shortened(name: &str) -> String {
    let n = name.chars().count();
    if n <= 40 {
        name.to_owned()
    } else {
        format!("…{}", name.chars().skip(n - 39).collect::<String>())
    }
}

fn ablation(which: &Which) -> anyhow::Result<(String, Value)> {
    let (runs, arms) = read(which)?;
    let all = comparison(&runs, &arms);
    if all.columns.is_empty() {
        bail!("none of the runs was evaluated: eval.splits and eval.episodes say what is played");
    }
    let halves = ablations(&runs, &arms);
    let mut text = String::from(
        "success after training, %: mean over seeds [95 % bootstrap interval, too narrow for few] difference \
         to the base over common seeds\n\n",
    );
    success_table(&mut text, &all);
    for table in &halves {
        success_table(&mut text, table);
    }
    if halves.is_empty() {
        crate::say!(
            "no ablation: that needs runs with empg.enabled = false, empg.zeta = 0 and empg.k = 0"
        );
    }
    Ok((text, json!({ "comparison": all, "ablations": halves })))
}

fn success_table(text: &mut String, table: &Comparison) {
    let mut lines: Vec<Vec<String>> = vec![
        std::iter::once(String::new())
            .chain(table.columns.iter().map(|c| format!("{} {}", c.environment, c.heading)))
            .collect(),
    ];
    for (recipe, values) in &table.rows {
        let mut line = vec![recipe.clone()];
        for value in values {
            line.push(value.map_or("–".to_owned(), |v| {
                let mut cell = format!("{:.1}", v.mean);
                if let Some(i) = v.interval {
                    let _ = write!(cell, " [{:.1}, {:.1}]", i.low, i.high);
                }
                if let Some(d) = v.difference {
                    let _ = write!(cell, " {d:+.1}");
                }
                cell
            }));
        }
        lines.push(line);
    }
    let width = |i: usize| lines.iter().map(|l| l[i].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text.push('\n');
}
