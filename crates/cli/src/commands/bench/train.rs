//! `empg bench train`: tokens trained a second.

use std::time::Instant;

use clap::Args;
use empg_llm::{PackedBatch, Target, TargetGrad, Workspace};
use empg_train::AdamW;
use empg_train::config::OptimConfig;

use super::super::at_least_one;
use super::figures::{Figures, Peaks};
use super::subject::{
    Count, SubjectArgs, check_length, count, median, multiplied, step_name, text,
};
use crate::say;

#[derive(Args, Clone, Debug)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Sequences
    #[arg(long, default_value_t = count(4), value_parser = at_least_one)]
    batch: Count,
    /// Tokens of a sequence
    #[arg(long, default_value_t = count(512), value_parser = at_least_one)]
    seq: Count,
    /// Steps behind the first, which touches its buffers for the first time; their median is reported
    #[arg(long, default_value_t = count(3), value_parser = at_least_one)]
    steps: Count,
    /// AdamW after every backward pass
    #[arg(long)]
    optimizer: bool,
    /// Activations computed again in the backward pass instead of kept
    #[arg(long)]
    checkpointing: bool,
}

pub(super) fn run(args: &TrainArgs, json: bool) -> anyhow::Result<()> {
    let TrainArgs { subject, batch, seq, steps, optimizer, checkpointing } = args;
    let (batch, seq) = (batch.get(), seq.get());
    let mut model = subject.open()?;
    check_length(&model, seq)?;
    let peaks = Peaks::measure(subject);
    let mut packed = PackedBatch::default();
    for sequence in 0..batch {
        // One more than the sequence: every position predicts its successor.
        let tokens = text(&model, seq + 1, sequence as u64);
        let first = packed.tokens.len();
        packed.push(&tokens[..seq], None);
        let targets = tokens[1..].iter().enumerate();
        packed.targets.extend(targets.map(|(i, &token)| Target { row: first + i, token }));
    }
    let tokens = batch * seq;
    let mut workspace = subject.workspace().checkpointing(*checkpointing);
    let mut grads = empg_llm::Floats::zeros(model.layout.len());
    let mut adam = optimizer.then(|| {
        AdamW::new(OptimConfig::default(), model.params.len(), 1 + steps.get() as u64)
            .with_threads(subject.threads())
    });
    let mut seconds = Vec::new();
    for step in 0..=steps.get() {
        let start = Instant::now();
        grads.clear(subject.threads());
        let each = 1.0 / tokens as f32;
        let mut loss = |_: usize, _| TargetGrad { dlogprob: -each, dentropy: 0.0 };
        let scores = model.forward_backward(&packed, 1.0, &mut loss, &mut grads, &mut workspace)?;
        if let Some(adam) = &mut adam {
            let layout = model.layout.clone();
            adam.update(&layout, &mut model.params, &mut grads)?;
        }
        let taken = start.elapsed().as_secs_f64();
        if step > 0 {
            seconds.push(taken);
        }
        let mean = scores.iter().map(|s| f64::from(-s.logprob)).sum::<f64>() / tokens as f64;
        say!("{}: loss {mean:.4}, {taken:.2} s", step_name(step));
    }
    let mut figures = Figures {
        seconds: median(seconds),
        tokens: tokens as f64,
        flop: 6.0 * multiplied(&model) as f64 * tokens as f64,
        bytes: None,
        more: Vec::new(),
    };
    figures.add("parameters", "parameters", model.params.len() as f64, "");
    figures.print(subject, &peaks, json)
}

impl SubjectArgs {
    /// Buffers for passes in the number type.
    pub(super) fn workspace(&self) -> Workspace {
        Workspace::with_threads(self.threads()).precision(self.dtype.precision())
    }
}
