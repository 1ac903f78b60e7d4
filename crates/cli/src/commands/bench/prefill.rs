//! `empg bench prefill`: prompt tokens a second.

use std::time::Instant;

use clap::Args;
use empg_llm::SamplingParams;

use super::super::at_least_one;
use super::figures::{Figures, Peaks};
use super::subject::{Count, SubjectArgs, check_length, count, head, median, multiplied, text};

#[derive(Args, Clone, Debug)]
pub(super) struct PrefillArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Prompts
    #[arg(long, default_value_t = count(1), value_parser = at_least_one)]
    batch: Count,
    /// Tokens of a prompt
    #[arg(long, default_value_t = count(512), value_parser = at_least_one)]
    seq: Count,
    /// Repetitions; the median is reported
    #[arg(long, default_value_t = count(5), value_parser = at_least_one)]
    steps: Count,
}

pub(super) fn run(args: &PrefillArgs, json: bool) -> anyhow::Result<()> {
    let PrefillArgs { subject, batch, seq, steps } = args;
    let (batch, seq) = (batch.get(), seq.get());
    let model = subject.open()?;
    check_length(&model, seq + 1)?;
    let peaks = Peaks::measure(subject);
    let mut decoder = subject.decoder(&model, seq + 1)?;
    let prompts: Vec<_> = (0..batch).map(|i| text(&model, seq, i as u64)).collect();
    let params = SamplingParams { max_tokens: 1, ..SamplingParams::default() };
    let mut seconds = Vec::new();
    // The first repetition fills the buffers.
    for step in 0..=steps.get() {
        let mut requests = Vec::new();
        for prompt in &prompts {
            requests.push((decoder.open(prompt)?, 1));
        }
        let start = Instant::now();
        decoder.generate(&requests, &params)?;
        if step > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
        for (seq, _) in requests {
            decoder.close(seq);
        }
    }
    let blocks = (multiplied(&model) - head(&model)) as f64;
    let tokens = (batch * seq) as f64;
    let c = &model.config;
    // A query meets half of the keys on average; products with keys and with values.
    let attention = 4.0 * c.attention_size() as f64 * c.num_layers as f64 * seq as f64 / 2.0;
    let figures = Figures {
        seconds: median(seconds),
        tokens,
        flop: (2.0 * blocks + attention) * tokens + 2.0 * head(&model) as f64 * batch as f64,
        bytes: None,
        more: Vec::new(),
    };
    figures.print(subject, &peaks, json)
}
