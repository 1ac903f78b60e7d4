//! `empg bench adamw`: the optimiser beside the time that its bytes take.

use std::time::Instant;

use clap::Args;
use empg_train::AdamW;
use empg_train::config::OptimConfig;

use super::super::at_least_one;
use super::figures::{Figures, Peaks};
use super::subject::{Count, SubjectArgs, count, median};

#[derive(Args, Clone, Debug)]
pub(super) struct AdamwArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Steps; the median is reported
    #[arg(long, default_value_t = count(7), value_parser = at_least_one)]
    steps: Count,
}

/// Bytes per parameter: weight, gradient and two moments are read, all but the gradient written.
const BYTES: f64 = 28.0;
/// Operations per parameter, a square root and a division counted as one each.
const FLOP: f64 = 14.0;

pub(super) fn run(args: &AdamwArgs, json: bool) -> anyhow::Result<()> {
    let AdamwArgs { subject, steps } = args;
    let mut model = subject.open()?;
    let peaks = Peaks::measure(subject);
    let parameters = model.params.len();
    let layout = model.layout.clone();
    let mut adam = AdamW::new(OptimConfig::default(), parameters, steps.get() as u64)
        .with_threads(subject.threads());
    let mut grads: Vec<f32> = (0..parameters).map(|i| (i % 17) as f32 * 1e-6 - 8e-6).collect();
    let mut seconds = Vec::new();
    // The first step touches the moments' pages for the first time.
    for step in 0..=steps.get() {
        let start = Instant::now();
        adam.update(&layout, &mut model.params, &mut grads)?;
        if step > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let bytes = BYTES * parameters as f64;
    let mut figures = Figures {
        seconds: median(seconds),
        tokens: 0.0,
        flop: FLOP * parameters as f64,
        bytes: Some(bytes),
        more: Vec::new(),
    };
    let least = bytes / (peaks.read_gb_s * 1e9);
    figures.add("parameters", "parameters", parameters as f64, "");
    figures.add("times_of_bytes", "of its bytes' time", figures.seconds / least, " ×");
    figures.print(subject, &peaks, json)
}
