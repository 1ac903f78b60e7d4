//! `empg bench decode`: sampled tokens a second, log-probability and entropy of each included.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use empg_llm::{DecodeWeights, Decoder, Model, SamplingParams};

use super::super::at_least_one;
use super::figures::{Figures, Peaks};
use super::subject::{Count, SubjectArgs, check_length, count, median, multiplied, text};

#[derive(Args, Clone, Debug)]
pub(super) struct DecodeArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Sequences that are sampled together
    #[arg(long, default_value_t = count(16), value_parser = at_least_one)]
    batch: Count,
    /// Tokens of the prompt that they share
    #[arg(long, default_value_t = count(512), value_parser = at_least_one)]
    seq: Count,
    /// Tokens that every sequence samples
    #[arg(long, default_value_t = count(64), value_parser = at_least_one)]
    new_tokens: Count,
    /// Repetitions; the median is reported
    #[arg(long, default_value_t = count(3), value_parser = at_least_one)]
    steps: Count,
    /// Every sequence computes a prompt of its own
    #[arg(long)]
    no_sharing: bool,
}

pub(super) fn run(args: &DecodeArgs, json: bool) -> anyhow::Result<()> {
    let DecodeArgs { subject, batch, seq, new_tokens, steps, no_sharing } = args;
    let (batch, seq, new) = (batch.get(), seq.get(), new_tokens.get());
    let model = subject.open()?;
    check_length(&model, seq + new + 1)?;
    let peaks = Peaks::measure(subject);
    let mut decoder = subject.decoder(&model, seq + new + 1)?;
    let one = SamplingParams { max_tokens: 1, ..SamplingParams::default() };
    let many = SamplingParams { max_tokens: new, ..SamplingParams::default() };
    let mut seconds = Vec::new();
    let mut cache = 0;
    for step in 0..=steps.get() {
        let mut requests = Vec::new();
        for i in 0..batch {
            let sequence = match requests.first() {
                Some(&(first, _)) if !no_sharing => decoder.fork(first)?,
                _ => decoder.open(&text(&model, seq, i as u64))?,
            };
            requests.push((sequence, (step * batch + i) as u64));
        }
        // The prompt and a first token, not timed.
        decoder.generate(&requests, &one)?;
        let start = Instant::now();
        decoder.generate(&requests, &many)?;
        if step > 0 {
            seconds.push(start.elapsed().as_secs_f64() / new as f64);
        }
        cache = decoder.cache_bytes();
        for (sequence, _) in requests {
            decoder.close(sequence);
        }
    }
    let weights = multiplied(&model) as f64;
    let c = &model.config;
    let context = seq as f64 + new as f64 / 2.0;
    let attention = 4.0 * c.attention_size() as f64 * c.num_layers as f64 * context;
    let mut figures = Figures {
        seconds: median(seconds),
        tokens: batch as f64,
        flop: (2.0 * weights + attention) * batch as f64,
        // Weights once and every block of keys and values once.
        bytes: Some(weights * subject.dtype.bytes() + cache as f64),
        more: Vec::new(),
    };
    figures.add("cache_bytes", "keys and values, bytes", cache as f64, "");
    figures.print(subject, &peaks, json)
}

impl SubjectArgs {
    /// A decoder in the number type.
    pub(super) fn decoder<'m>(
        &self,
        model: &'m Model,
        max_context: usize,
    ) -> anyhow::Result<Decoder<'m>> {
        self.decoder_in(model, max_context, &mut [])
    }

    /// The same with its weights in lent memory.
    pub(super) fn decoder_in<'m>(
        &self,
        model: &'m Model,
        max_context: usize,
        memory: &'m mut [f32],
    ) -> anyhow::Result<Decoder<'m>> {
        let (precision, threads) = (self.dtype.precision(), self.threads());
        let weights = DecodeWeights::in_memory(model, precision, threads, memory);
        let decoder = Decoder::with_weights(Arc::new(weights), max_context)?;
        Ok(decoder.with_threads(threads))
    }
}
