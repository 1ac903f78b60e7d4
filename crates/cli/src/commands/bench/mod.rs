//! `empg bench`: how fast this machine trains and samples, beside what it could do at best.

mod adamw;
mod decode;
mod figures;
mod prefill;
mod rl;
mod subject;
mod train;

use clap::{Args, Subcommand};

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Every figure stands beside the peak that this very run measured: multiply-adds
in registers (f32, bf16), reads from memory, on all threads. Models:
smollm2-135m (that shape with random weights, nothing to download), tiny, a
folder, a GGUF file, a run.

Examples:
  empg bench train --batch 4 --seq 512
  empg bench decode --batch 16 --seq 512 --dtype bf16
  empg bench prefill --seq 512 --dtype bf16
  empg bench adamw
  empg bench rl --dtype bf16 --json | tail -n 1 | jq .seconds")]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Forward and backward over batch × seq tokens, loss on every position
    #[command(after_help = "\
Examples:
  empg bench train --batch 4 --seq 512
  empg bench train --model tiny --optimizer")]
    Train(train::TrainArgs),
    /// Sampling for a batch of sequences that share a prompt of seq tokens, with scores
    #[command(after_help = "\
Examples:
  empg bench decode --batch 16 --seq 512 --dtype bf16
  empg bench decode --model tiny --new-tokens 32")]
    Decode(decode::DecodeArgs),
    /// A prompt's keys and values, logits at its last token only
    #[command(after_help = "\
Examples:
  empg bench prefill --seq 512 --dtype bf16
  empg bench prefill --model tiny --batch 4")]
    Prefill(prefill::PrefillArgs),
    /// One whole step of reinforcement learning: groups sampled, then one update
    #[command(after_help = "\
Examples:
  empg bench rl --dtype bf16 --json | tail -n 1 | jq .seconds
  empg bench rl --model tiny --batch 2 --group 4")]
    Rl(rl::RlArgs),
    /// The optimiser alone
    #[command(after_help = "\
Examples:
  empg bench adamw
  empg bench adamw --model tiny --threads 1")]
    Adamw(adamw::AdamwArgs),
}

/// Runs one benchmark.
pub(crate) fn run(args: BenchArgs, json: bool) -> anyhow::Result<()> {
    match args.what {
        What::Train(args) => train::run(&args, json),
        What::Decode(args) => decode::run(&args, json),
        What::Prefill(args) => prefill::run(&args, json),
        What::Rl(args) => rl::run(&args, json),
        What::Adamw(args) => adamw::run(&args, json),
    }
}
