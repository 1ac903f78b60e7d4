//! `empg score`: log-probability and entropy of every token, one JSON object a line.

mod line;
mod packs;

use std::io::{self, BufRead, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use empg_llm::Model;

use crate::models::{self, Which};
use crate::settings::{self, SettingsError};
use line::Line;
use packs::Packs;

/// Parameters from which on threads share one pass instead of taking whole passes each.
const SHARED_PASSES: usize = 1 << 24;

#[derive(Args, Debug)]
#[command(after_help = "\
Input, one text a line:  {\"tokens\": [ids], …}
Output: the same line with \"logprobs\" and \"entropy\" added (nats), both as long as \"tokens\".
Position t scores token t given the tokens before it, over the full vocabulary of
softmax(z / T); position 0 is null. Other fields pass through as they are; old \"logprobs\" and
\"entropy\" are replaced.

Examples:
  echo '{\"tokens\": [5, 6, 7]}' | empg score --model tiny
  empg score --model SmolLM2-135M-Instruct.Q4_1.gguf < rollouts.jsonl > scored.jsonl
  empg score --model Qwen/Qwen2.5-0.5B-Instruct --temperature 0.7 < in.jsonl | jq .entropy")]
pub(crate) struct ScoreArgs {
    /// Model: tiny (embedded), a directory, a GGUF file, a run or an id on the Hugging Face Hub
    #[arg(long, value_name = "tiny|DIR|GGUF|HF-id|RUN")]
    model: String,
    /// Temperature of the scored distribution
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f32,
    /// Tokens of a pass: more are faster up to a point and take more memory; a longer line goes
    /// alone
    #[arg(long, value_name = "N", default_value = "4096", value_parser = super::at_least_one)]
    batch_tokens: NonZeroUsize,
    /// Threads; 0 = all cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

/// Scores the lines of stdin and writes them to stdout; the output is JSONL either way.
pub(crate) fn run(args: ScoreArgs, _json: bool) -> anyhow::Result<()> {
    let ScoreArgs { model, temperature, batch_tokens, threads } = args;
    if !(temperature > 0.0 && temperature.is_finite()) {
        let why = format!("--temperature is {temperature}; scores need a positive finite one");
        return Err(SettingsError::Conflict(why).into());
    }
    let threads = settings::threads(threads)?;
    let model = models::locate(&model, Which::Last)?.policy.model;
    let begun = Instant::now();
    let (input, out) = (io::stdin().lock(), io::stdout().lock());
    let seen = score(&model, temperature, batch_tokens.get(), threads, input, out)?;
    if seen.lines == 0 {
        crate::say!("stdin holds no line: nothing was scored");
        return Ok(());
    }
    let seconds = begun.elapsed().as_secs_f64();
    crate::say!(
        "{} lines, {} tokens: mean log-probability {:.4}, mean entropy {:.4} nats, {:.0} tokens/s",
        seen.lines,
        seen.tokens,
        seen.logprob / seen.scored.max(1) as f64,
        seen.entropy / seen.scored.max(1) as f64,
        seen.tokens as f64 / seconds.max(1e-9),
    );
    Ok(())
}

/// Sums over all lines.
#[derive(Debug, Default)]
struct Seen {
    lines: usize,
    tokens: usize,
    scored: usize,
    logprob: f64,
    entropy: f64,
}

fn score(
    model: &Model,
    temperature: f32,
    batch_tokens: usize,
    threads: usize,
    mut input: impl BufRead,
    mut out: impl Write,
) -> anyhow::Result<Seen> {
    let shared = model.params.len() >= SHARED_PASSES;
    let (workers, threads) = if shared { (1, threads) } else { (threads, 1) };
    let mut packs = Packs::new(model, temperature, workers, threads);
    let mut seen = Seen::default();
    let mut waiting: Vec<Line> = Vec::new();
    let mut tokens = 0;
    let mut flush = |waiting: &mut Vec<Line>, seen: &mut Seen| -> anyhow::Result<()> {
        for (line, scores) in waiting.iter().zip(packs.score(waiting, batch_tokens)?) {
            seen.lines += 1;
            seen.tokens += line.tokens.len();
            seen.scored += scores.len();
            for score in &scores {
                seen.logprob += f64::from(score.logprob);
                seen.entropy += f64::from(score.entropy);
            }
            out.write_all(line.with(&scores).as_bytes())?;
        }
        out.flush()?;
        waiting.clear();
        Ok(())
    };
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        if input.read_until(b'\n', &mut text).context("cannot read stdin")? == 0 {
            break;
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        let line = match Line::read(number, text.trim_ascii(), &model.config) {
            Ok(line) => line,
            Err(error) => {
                // What came before is worth its work.
                flush(&mut waiting, &mut seen)?;
                return Err(error);
            }
        };
        tokens += line.tokens.len();
        waiting.push(line);
        if tokens >= workers * batch_tokens {
            flush(&mut waiting, &mut seen)?;
            tokens = 0;
        }
    }
    flush(&mut waiting, &mut seen)?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use empg_llm::{PackedBatch, Target, Workspace};
    use serde_json::Value;

    use super::*;

    fn output(budget: usize, threads: usize, input: &str) -> anyhow::Result<String> {
        let model = empg_train::tiny()?.model;
        let mut out = Vec::new();
        let scored = score(&model, 0.7, budget, threads, input.as_bytes(), &mut out);
        let text = String::from_utf8(out)?;
        scored.map(|_| text.clone()).map_err(|e| e.context(text))
    }

    #[test]
    fn lines_come_back_with_scores_whatever_the_budget() {
        let long: Vec<u32> = (0..300).map(|i| 5 + i * 7 % 90).collect();
        let input = format!(
            "{{\"id\": \"é\\u0041\", \"tokens\": {long:?}, \"x\": 1.50}}\n\n\
             {{\"entropy\":[1],\"tokens\":[9],\"logprobs\":null}}\n\
             {{\"tokens\":[]}}\n{{\"tokens\":[4,5,6,7]}}"
        );
        let text = output(1000, 1, &input).expect("scores");
        for (budget, threads) in [(1, 1), (3, 3), (302, 2)] {
            assert_eq!(output(budget, threads, &input).expect("scores"), text);
        }
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("{\"id\":\"é\\u0041\",\"tokens\":[5, 12"), "{}", lines[0]);
        assert!(lines[0].contains("\"x\":1.50,\"logprobs\":[null,-"), "{}", lines[0]);
        assert_eq!(lines[1], r#"{"tokens":[9],"logprobs":[null],"entropy":[null]}"#);
        assert_eq!(lines[2], r#"{"tokens":[],"logprobs":[],"entropy":[]}"#);

        let model = empg_train::tiny().expect("loads").model;
        let mut batch = PackedBatch::default();
        batch.push(&long, None);
        batch.targets = (1..300).map(|i| Target { row: i - 1, token: long[i] }).collect();
        let scores = model.score(&batch, 0.7, &mut Workspace::new()).expect("scores");
        let row: Value = serde_json::from_str(lines[0]).expect("JSON");
        assert_eq!(row["entropy"].as_array().map(Vec::len), Some(300));
        for (i, score) in scores.iter().enumerate() {
            assert_eq!(
                row["logprobs"][i + 1].as_f64(),
                Some(score.logprob.to_string().parse().unwrap())
            );
            assert_eq!(
                row["entropy"][i + 1].as_f64(),
                Some(score.entropy.to_string().parse().unwrap())
            );
        }
    }

    #[test]
    fn errors_name_the_line_and_what_came_before_is_written() {
        let good = r#"{"tokens":[4,5]}"#;
        let long = format!("{{\"tokens\":{:?}}}", vec![4; 5000]);
        for (bad, why) in [
            ("[1]", "line 3: not a JSON object"),
            ("{\"tokens\":[1,", "line 3: "),
            ("{\"token\":[1]}", "line 3: \"tokens\" is missing"),
            ("{\"tokens\":[1,-2]}", "line 3: \"tokens\": "),
            ("{\"tokens\":[1.5]}", "line 3: \"tokens\": "),
            ("{\"tokens\":\"a\"}", "line 3: \"tokens\": "),
            ("{\"tokens\":[1],\"tokens\":[1]}", "line 3: \"tokens\" is given twice"),
            ("{\"tokens\":[1,99999]}", "line 3: token 99999 at index 1"),
            (&long, "line 3: 5000 tokens; the model's context holds 4096"),
        ] {
            let error = output(100, 2, &format!("{good}\n{good}\n{bad}\n")).expect_err("refused");
            let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
            assert_eq!(chain[0].lines().count(), 2, "{bad}: {chain:?}");
            assert!(chain[1].starts_with(why), "{bad}: {chain:?}");
        }
    }
}
