//! `empg prop1`: Proposition 1, number by number.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use empg::{entropy, prop1};
use empg_report::coupling::coupling;
use empg_run::Run;
use empg_train::SCORE_NORMS;
use serde_json::json;

use crate::settings::SettingsError;

/// Bins of a run's steps.
const BINS: u16 = 8;

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
For a softmax policy π over logits z, E‖∇_z log π(a)‖² = 1 − exp(−H₂(π)), H₂
being the Rényi-2 entropy: uncertain policies have large gradients, confident
ones small. Each row draws one random distribution, from nearly uniform to
nearly certain, and compares the mean over all actions, the mean over sampled
actions, and the closed form. With --run, the distributions are those of the
run's initial policy at its own steps, and beside them stands the norm of the
parameters' gradient.

Examples:
  empg prop1
  empg prop1 --vocabulary 1000 --rows 20 --seed 7
  empg prop1 --run runs/households-dapo-empg-s0
  empg prop1 --json | tail -n 1 | jq .max_error")]
pub(crate) struct Prop1Args {
    /// Actions (tokens) of each distribution
    #[arg(long, default_value_t = 64)]
    vocabulary: usize,
    /// Distributions
    #[arg(long, default_value_t = 12)]
    rows: usize,
    /// Sampled actions per distribution; 0 samples none
    #[arg(long, default_value_t = 20_000)]
    samples: usize,
    /// Seed of the distributions and samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A run: its initial policy's steps instead of random distributions
    #[arg(long, value_name = "RUN", conflicts_with_all = ["vocabulary", "rows", "samples", "seed"])]
    run: Option<PathBuf>,
    /// Percentile bins of entropy, with --run [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    bins: Option<u16>,
}

struct Row {
    entropy: f64,
    renyi2: f64,
    expected: f64,
    /// None where nothing was sampled.
    sampled: Option<f64>,
    closed: f64,
}

/// Prints the table, and with `json` a last line of JSON with all of it.
pub(crate) fn run(args: Prop1Args, json: bool) -> anyhow::Result<()> {
    let Prop1Args { vocabulary, rows, samples, seed, run, bins } = args;
    if let Some(run) = run {
        return of_run(&run, bins.unwrap_or(BINS).into(), json);
    }
    if bins.is_some() {
        let what = "--bins bears on a run's steps: give --run RUN, or leave it out";
        return Err(SettingsError::Conflict(what.to_owned()).into());
    }
    if rows == 0 {
        bail!("--rows must be at least 1");
    }
    if !(1..=65_536).contains(&vocabulary) {
        bail!("--vocabulary {vocabulary}: must be in 1..=65536");
    }
    let mut random = Random(seed);
    let table: Vec<Row> = (0..rows)
        .map(|row| {
            // Logits of standard deviation 0.1 to 10.
            let spread = 0.1 * 100f64.powf(row as f64 / rows.saturating_sub(1).max(1) as f64);
            measure(&mut random, vocabulary, spread, samples)
        })
        .collect::<anyhow::Result<_>>()?;
    let error = |row: &Row| (row.expected - row.closed).abs();
    let max_error = table.iter().map(error).fold(0.0, f64::max);

    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:>9}  {:>9}  {:>12}  {:>12}  {:>12}  {:>9}",
        "H (nats)", "H₂ (nats)", "E‖∇log π‖²", "sampled", "1 − exp(−H₂)", "error"
    )?;
    for row in &table {
        writeln!(
            out,
            "{:>9.4}  {:>9.4}  {:>12.8}  {:>12}  {:>12.8}  {:>9.1e}",
            row.entropy,
            row.renyi2,
            row.expected,
            row.sampled.map_or("–".to_owned(), |sampled| format!("{sampled:.8}")),
            row.closed,
            error(row)
        )?;
    }
    writeln!(
        out,
        "largest error {max_error:.1e} over {rows} distributions of {vocabulary} actions"
    )?;
    if json {
        let rows: Vec<_> = table
            .iter()
            .map(|row| {
                json!({
                    "entropy": row.entropy,
                    "renyi2": row.renyi2,
                    "expected": row.expected,
                    "sampled": row.sampled,
                    "closed_form": row.closed,
                })
            })
            .collect();
        let line = json!({
            "vocabulary": vocabulary,
            "samples": samples,
            "seed": seed,
            "max_error": max_error,
            "rows": rows,
        });
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    Ok(())
}

/// The coupling on a run's own steps, by entropy.
fn of_run(path: &Path, bins: usize, json: bool) -> anyhow::Result<()> {
    let run = Run::open(path)?;
    if !run.analyses()?.iter().any(|name| name == SCORE_NORMS) {
        bail!(
            "{}: the run has no table of score norms. A run writes it at its end, unless \
             record.entropy_probe or record.gradient_probe is 0",
            path.display()
        );
    }
    let Some(found) = coupling(&run.analysis(SCORE_NORMS)?, bins) else {
        bail!("{}: the table of score norms is empty", path.display());
    };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:>13}  {:>5}  {:>10}  {:>12}  {:>8}  {:>11}  95 % interval",
        "H (nats)", "steps", "E‖∇log π‖²", "1 − exp(−H₂)", "sampled", "‖∇_θ log π‖²"
    )?;
    for bin in &found.bins {
        let interval = bin
            .gradient_interval
            .map(|i| format!("{:.4} … {:.4}", i.low, i.high))
            .unwrap_or_default();
        writeln!(
            out,
            "{:>13}  {:>5}  {:>10.6}  {:>12.6}  {:>8.4}  {:>11.4}   {interval}",
            format!("{:.3}–{:.3}", bin.range.0, bin.range.1),
            bin.steps,
            bin.expected,
            bin.closed_form,
            bin.sampled,
            bin.gradient,
        )?;
    }
    writeln!(
        out,
        "{} steps; largest error of the proposition {:.1e}; rank correlation of H with 1 − exp(−H₂) \
         {:.3}, with ‖∇_θ log π‖² {:.3}",
        found.steps, found.max_error, found.rank_closed_form, found.rank_gradient
    )?;
    if json {
        writeln!(out, "{}", json!({ "run": path.display().to_string(), "coupling": found }))?;
    }
    out.flush()?;
    Ok(())
}

fn measure(
    random: &mut Random,
    vocabulary: usize,
    spread: f64,
    samples: usize,
) -> anyhow::Result<Row> {
    let logits: Vec<f64> = (0..vocabulary).map(|_| spread * random.normal()).collect();
    let p = entropy::softmax(&logits, 1.0)?;
    // ‖e_a − π‖² of every action, written out; the two means differ in how they weigh the actions.
    let norms: Vec<f64> = (0..vocabulary).map(|action| prop1::score_norm(&p, action)).collect();
    let mut cumulative = 0.0;
    let thresholds: Vec<f64> = p
        .iter()
        .map(|p| {
            cumulative += p;
            cumulative
        })
        .collect();
    let drawn: f64 = (0..samples)
        .map(|_| {
            let u = random.uniform() * cumulative;
            norms[thresholds.partition_point(|t| *t <= u).min(vocabulary - 1)]
        })
        .sum();
    Ok(Row {
        entropy: entropy::token_entropy(&logits, 1.0)?,
        renyi2: prop1::renyi2(&p),
        expected: p.iter().zip(&norms).map(|(p, norm)| p * norm).sum(),
        sampled: (samples > 0).then(|| drawn / samples as f64),
        closed: prop1::closed_form(&p),
    })
}

/// SplitMix64: enough for a demonstration, the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..1.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_and_samples_come_near() {
        let mut random = Random(3);
        for spread in [0.1, 1.0, 10.0] {
            let row = measure(&mut random, 50, spread, 20_000).unwrap();
            assert!((row.expected - row.closed).abs() < 1e-12);
            assert!((row.sampled.unwrap() - row.closed).abs() < 0.02);
        }
        assert_eq!(measure(&mut random, 50, 1.0, 0).unwrap().sampled, None);
    }
}
