//! `empg advantage`: credit for trajectories of any trainer, one JSON object a line.
//!
//! Two passes: the first keeps of each line its steps (entropy, base) and its numbers, the second
//! writes each line again with its credit. A pipe is spooled to a temporary file between them, so
//! memory is bounded by the step table plus a batch of lines of about a megabyte.

mod batches;
mod fields;
mod line;
mod number;
mod table;
mod write;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use empg::{CreditSummary, EmpgOptions, Normalize, Shape};

use batches::{Tee, cut, lines, parallel, read_batches};
use table::Seen;
use write::Writer;

#[derive(Args, Debug)]
#[command(after_help = "\
Input, one trajectory a line:
  {\"entropy\": [per token], \"mask\": [0/1 per token] or \"steps\": [[start, end], …],
   \"group\"?: any, \"reward\"?: number, \"advantage\"?: number or [per token], …}
Output: the same line with \"advantages\" [per token] and \"credit\" [per step] added. Other fields
pass through; old \"advantages\" and \"credit\" are replaced; \"steps\" goes before \"mask\".
Lines without \"group\" form one group. Entropies (nats) outside steps may be null or NaN.

Examples:
  empg advantage < rollouts.jsonl > credited.jsonl
  zcat rollouts.jsonl.gz | empg advantage --base rloo --zeta 0.05 > credited.jsonl
  empg advantage --normalize quantile --gate-bonus < rollouts.jsonl | jq '.credit[0]'")]
pub(crate) struct AdvantageArgs {
    /// Base advantage [default: given when rows carry "advantage", else grpo]
    #[arg(long, value_enum)]
    base: Option<BaseName>,
    /// Strength of the gradient scaling; 0 leaves the bonus alone
    #[arg(long, default_value_t = 1.0)]
    k: f64,
    /// Strength of the future clarity
    #[arg(long, default_value_t = 1.0)]
    k_f: f64,
    /// Weight of the future-clarity bonus; 0 leaves the scaling alone
    #[arg(long, default_value_t = 0.1)]
    zeta: f64,
    /// How both fall with entropy
    #[arg(long, value_enum, default_value_t = ShapeName::Exp)]
    shape: ShapeName,
    /// Bounds of the entropy normalisation
    #[arg(long, value_enum, default_value_t = NormalizeName::Minmax)]
    normalize: NormalizeName,
    /// Lower bound with --normalize quantile
    #[arg(long, default_value_t = 0.05)]
    quantile_low: f64,
    /// Upper bound with --normalize quantile
    #[arg(long, default_value_t = 0.95)]
    quantile_high: f64,
    /// No bonus where the base advantage is 0
    #[arg(long)]
    gate_bonus: bool,
    /// Do not subtract the mean over steps
    #[arg(long)]
    no_center: bool,
    /// Tokens outside steps get A − mean, as in the paper's pseudo-code, instead of 0
    #[arg(long)]
    paper_exact: bool,
    /// Delta degrees of freedom of GRPO's standard deviation
    #[arg(long, default_value_t = 1)]
    ddof: u32,
    /// Added to GRPO's standard deviation (TRL: 1e-4)
    #[arg(long, default_value_t = 1e-6)]
    eps: f64,
    /// Threads; 0 = all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BaseName {
    Given,
    Grpo,
    DrGrpo,
    Rloo,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShapeName {
    Exp,
    Linear,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NormalizeName {
    Minmax,
    Quantile,
}

/// Credits the trajectories of stdin and writes them to stdout; the output is JSONL either way.
#[expect(clippy::needless_pass_by_value, reason = "every command is given its arguments whole")]
pub(crate) fn run(args: AdvantageArgs, _json: bool) -> anyhow::Result<()> {
    let stdout = io::stdout().lock();
    let summary = credit(&args, stdin_file()?, stdout)?;
    crate::say!(
        "{} steps: entropy {:.4} / {:.4} / {:.4} nats (min / mean / max), g {:.3}..{:.3} \
         (spread {:.4}), mean bonus {:.4}, centring {:+.4}",
        summary.steps,
        summary.entropy_min,
        summary.entropy_mean,
        summary.entropy_max,
        summary.g_min,
        summary.g_max,
        summary.g_std,
        summary.bonus_mean,
        summary.centring,
    );
    Ok(())
}

/// Where the lines come from: a file is read twice, anything else is spooled while it is read.
enum Source {
    File(File),
    Stream(Box<dyn Read>),
}

#[cfg(unix)]
fn stdin_file() -> anyhow::Result<Source> {
    use std::os::fd::AsFd as _;
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned().context("cannot read stdin")?);
    let regular = stdin.metadata().is_ok_and(|about| about.is_file());
    Ok(if regular { Source::File(stdin) } else { Source::Stream(Box::new(stdin)) })
}

#[cfg(not(unix))]
fn stdin_file() -> anyhow::Result<Source> {
    Ok(Source::Stream(Box::new(io::stdin())))
}

fn credit(
    args: &AdvantageArgs,
    source: Source,
    mut out: impl Write,
) -> anyhow::Result<CreditSummary> {
    let options = options(args);
    options.validate()?;
    let threads = crate::settings::threads(args.threads)?;

    let mut seen = Seen::default();
    let (mut file, start) = match source {
        Source::File(mut file) => {
            let start = file.stream_position().context("cannot read stdin")?;
            read_batches(&mut file, |batch| seen.add(batch, threads))?;
            (file, start)
        }
        Source::Stream(mut stream) => {
            let mut spool =
                tempfile::tempfile().context("cannot create a temporary file for the pipe")?;
            let mut tee = Tee { from: &mut *stream, to: &mut spool };
            read_batches(&mut tee, |batch| seen.add(batch, threads))?;
            (spool, 0)
        }
    };
    if seen.rows.is_empty() {
        bail!("stdin holds no trajectory: expected one JSON object a line");
    }
    if seen.steps.is_empty() && !options.paper_exact {
        bail!("no line has a step: every \"mask\" is 0 or \"steps\" is empty");
    }
    seen.set_bases(args)?;
    let credits = seen.credits(&options)?;
    let summary = CreditSummary::of(&credits);

    file.seek(SeekFrom::Start(start)).context("cannot read the input a second time")?;
    let writer = Writer { seen: &seen, credits: &credits, exact: options.paper_exact };
    let mut row = 0;
    read_batches(&mut file, |batch| {
        let parts = cut(batch, threads);
        let mut at = row;
        let firsts: Vec<usize> = parts
            .iter()
            .map(|part| {
                let first = at;
                at += lines(part).count();
                first
            })
            .collect();
        row = at;
        for part in parallel(&parts, |index, part| writer.lines(firsts[index], part)) {
            out.write_all(&part?)?;
        }
        Ok(())
    })?;
    if row != seen.rows.len() {
        bail!("the input changed while it was read: {} lines, then {row}", seen.rows.len());
    }
    out.flush()?;
    Ok(summary)
}

fn options(args: &AdvantageArgs) -> EmpgOptions {
    EmpgOptions {
        k: args.k,
        k_f: args.k_f,
        zeta: args.zeta,
        shape: match args.shape {
            ShapeName::Exp => Shape::Exp,
            ShapeName::Linear => Shape::Linear,
        },
        normalize: match args.normalize {
            NormalizeName::Minmax => Normalize::Minmax,
            NormalizeName::Quantile => Normalize::Quantile,
        },
        quantile_low: args.quantile_low,
        quantile_high: args.quantile_high,
        gate_bonus: args.gate_bonus,
        center: !args.no_center,
        paper_exact: args.paper_exact,
        ..EmpgOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::batches::BATCH_BYTES;
    use super::*;
    use clap::Parser;
    use serde_json::Value;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: AdvantageArgs,
    }

    fn output(flags: &[&str], input: &str) -> anyhow::Result<String> {
        let args = Command::parse_from([&["advantage"], flags].concat()).args;
        let mut out = Vec::new();
        let stream = Box::new(io::Cursor::new(input.to_owned().into_bytes()));
        credit(&args, Source::Stream(stream), &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    fn rows(flags: &[&str], input: &str) -> Vec<Value> {
        let text = output(flags, input).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    const TWO: &str = r#"{"group": "a", "reward": 1, "mask": [0,1,1,0,1], "entropy": [null, 0.5, 1.5, NaN, 0.25], "text": "}],\"\\"}

{"group": "a", "reward": 0.0, "steps": [[1, 3]], "entropy": [9e9, 0.5, 0.75]}
"#;

    #[test]
    fn lines_come_back_with_their_credit() {
        let text = output(&[], TWO).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let first = TWO.lines().next().unwrap();
        // The line as it was, whatever it holds: NaN is not JSON for serde.
        assert!(lines[0].starts_with(&first[..first.len() - 1]));
        let rest = lines[0].split("\"advantages\":").nth(1).unwrap();
        let row: Value = serde_json::from_str(&format!("{{\"advantages\":{rest}")).unwrap();
        let credit = row["credit"].as_array().unwrap();
        assert_eq!(credit.len(), 2);
        assert_eq!((&credit[0]["start"], &credit[0]["end"]), (&1.into(), &3.into()));
        assert_eq!(credit[0]["entropy"], 1.0);
        assert!(credit[1]["f_next"].is_null());
        let a = &row["advantages"];
        assert_eq!((&a[0], &a[3]), (&0.0.into(), &0.0.into()));
        assert_eq!(
            (&a[1], &a[2], &a[4]),
            (&credit[0]["advantage"], &a[1], &credit[1]["advantage"])
        );
        let other: Value = serde_json::from_str(lines[1]).unwrap();
        let sum = credit[0]["advantage"].as_f64().unwrap()
            + credit[1]["advantage"].as_f64().unwrap()
            + other["credit"][0]["advantage"].as_f64().unwrap();
        assert!(sum.abs() < 1e-12);
    }

    #[test]
    fn given_bases_may_vary_within_a_step() {
        let input = r#"{"advantage":[5,1,2,3,4],"mask":[0,1,1,0,1],"entropy":[0,1,1,0,1]}"#;
        let row = &rows(&["--k", "0", "--zeta", "0"], input)[0];
        let expected = [0.0, -1.5, -0.5, 0.0, 1.5];
        let close = |row: &Value, expected: [f64; 5]| {
            for (token, y) in expected.iter().enumerate() {
                assert!((row["advantages"][token].as_f64().unwrap() - y).abs() < 1e-6, "{row}");
            }
        };
        close(row, expected);
        let row = &rows(&["--k", "0", "--zeta", "0", "--paper-exact"], input)[0];
        close(row, [2.5, -1.5, -0.5, 0.5, 1.5]);
    }

    #[test]
    fn a_second_run_replaces_the_first() {
        let input = TWO.replace("NaN", "0.1");
        let once = output(&[], &input).unwrap();
        assert_eq!(output(&[], &once).unwrap(), once);
        let moved = "{\"credit\":[{}], \"reward\":1,\"advantages\":[1],\"steps\":[[0,1]],\"entropy\":[1],\"advantage\":2}";
        let row = &rows(&[], moved)[0];
        assert_eq!(row["advantages"].as_array().unwrap().len(), 1);
        assert_eq!(row["credit"][0]["base"], 2.0);
    }

    #[test]
    fn errors_name_line_and_field() {
        let row = r#"{"reward":1,"mask":[1,0],"entropy":[1,2]}"#;
        for (line, why) in [
            ("[1]", "line 2: not a JSON object"),
            ("{\"mask\":[1]", "line 2: byte 11: expected ',' or '}'"),
            ("{\"x\":tru,\"mask\":[1]}", "line 2: field \"x\": expected"),
            ("{\"mask\":[1]}", "line 2, field \"entropy\": missing"),
            ("{\"mask\":[1,2],\"entropy\":[1,1]}", "field \"mask\": token 1: expected 0 or 1"),
            ("{\"entropy\":[1]}", "line 2, field \"mask\": missing"),
            (
                "{\"mask\":[1,1],\"entropy\":[1]}",
                "field \"mask\": 2 entries, but \"entropy\" has 1",
            ),
            (
                "{\"steps\":[[1,1]],\"entropy\":[1]}",
                "field \"steps\": step 0: the range [1, 1] is empty",
            ),
            ("{\"steps\":[[0,2]],\"entropy\":[1]}", "field \"steps\": step 0 ends at 2"),
            (
                "{\"mask\":[0,1],\"entropy\":[1,NaN]}",
                "field \"entropy\": step 0, token 1: NaN is not finite",
            ),
            (
                "{\"mask\":[0,1],\"entropy\":[1,x]}",
                "field \"entropy\": token 1: \"x\" is not a number",
            ),
            ("{\"mask\":[0,1],\"entropy\":[1,2", "field \"entropy\": the array does not end"),
            (
                "{\"mask\":[1],\"entropy\":[1],\"reward\":\"a\"}",
                "field \"reward\": expected a finite",
            ),
            ("{\"mask\":[1],\"entropy\":[1]}", "line 2, field \"reward\": missing"),
            (
                "{\"mask\":[1],\"entropy\":[1],\"reward\":1,\"group\":7}",
                "line 1, field \"group\": a group of one",
            ),
            (
                "{\"mask\":[1],\"entropy\":[1],\"advantage\":1}",
                "line 1, field \"advantage\": missing",
            ),
            ("{\"mask\":[1],\"mask\":[1],\"entropy\":[1]}", "field \"mask\": given twice"),
        ] {
            let error = output(&[], &format!("{row}\n{line}\n")).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{line}: {error:#}");
        }
        assert!(output(&[], " \n").unwrap_err().to_string().contains("no trajectory"));
        assert!(output(&["--k=-1"], row).unwrap_err().to_string().contains("option k = -1"));
        let idle = "{\"advantage\":3,\"mask\":[0,0],\"entropy\":[1,2]}";
        assert!(output(&[], idle).unwrap_err().to_string().contains("no line has a step"));
        assert_eq!(rows(&["--paper-exact"], idle)[0]["advantages"], serde_json::json!([3.0, 3.0]));
    }

    #[test]
    fn threads_and_batches_do_not_change_a_byte() {
        let filler = "x".repeat(BATCH_BYTES / 3);
        let long = "y".repeat(5 * BATCH_BYTES);
        let rows: Vec<String> = (0..40)
            .map(|i| {
                let pad = if i == 17 { &long } else { &filler };
                let end = if i == 39 { "" } else { "\n" };
                format!(
                    "{{\"group\":{},\"reward\":{},\"pad\":\"{pad}\",\"steps\":[[0,1],[2,3]],\"entropy\":[{},0,{}]}}{end}",
                    i % 4, i % 3, 0.1 * f64::from(i), 1.0 / f64::from(i + 1),
                )
            })
            .collect();
        let input = rows.concat();
        let one = output(&["--threads", "1"], &input).unwrap();
        assert_eq!(one.lines().count(), 40);
        assert!(one == output(&["--threads", "3"], &input).unwrap());
    }
}
