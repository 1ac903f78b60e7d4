//! The subcommands.

mod advantage;
mod analyze;
mod bench;
mod chat;
mod config;
mod dashboard;
mod env;
mod eval;
mod export;
mod play;
mod prop1;
mod report;
mod score;
mod serve;
mod serve_env;
mod sft;
mod study;
mod track;
mod train;

use std::num::NonZeroUsize;

use clap::{Parser, Subcommand};

/// Trains language-model agents with Entropy-Modulated Policy Gradients.
#[derive(Debug, Parser)]
#[command(
    name = "empg",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  empg train                          a small agent learns household tasks, nothing to download
  empg eval --model runs/NAME --env households
  empg config show                    every setting with its meaning
  empg train --help

stdout is data, stderr is progress. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."
)]
pub(crate) struct Cli {
    /// Machine-readable output: the last line of stdout is one JSON object
    #[arg(long, global = true, display_order = 900)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train an agent and compare it before and after
    Train(train::TrainArgs),
    /// Play a fixed panel of tasks with a policy
    Eval(eval::EvalArgs),
    /// One page about runs: curves, tables, the credit of every step
    Report(report::ReportArgs),
    /// The paper's analyses of finished runs
    Analyze(analyze::AnalyzeArgs),
    /// Runs in a browser, live: list, comparison, the credit of every step
    Dashboard(dashboard::DashboardArgs),
    /// Run arms × environments × seeds and compare them
    Study(study::StudyArgs),
    /// Mirror runs to an MLflow server, live or afterwards
    Track(track::TrackArgs),
    /// Fine-tune on the demonstrations of an expert (how tiny is made)
    Sft(sft::SftArgs),
    /// Write a model as one GGUF file for llama.cpp
    Export(export::ExportArgs),
    /// Assign EMPG credit to any trainer's trajectories (JSONL in, JSONL out)
    Advantage(advantage::AdvantageArgs),
    /// Log-probability and entropy of every token under a model (JSONL in, JSONL out)
    Score(score::ScoreArgs),
    /// Check Proposition 1 numerically
    Prop1(prop1::Prop1Args),
    /// Talk with a model
    Chat(chat::ChatArgs),
    /// Play a task yourself
    Play(play::PlayArgs),
    /// Replay, list and time the environments
    Env(env::EnvArgs),
    /// Answer others over HTTP: environments for other trainers, passages for search agents
    Serve(serve::ServeArgs),
    /// Measure training and sampling beside this machine's peaks
    Bench(bench::BenchArgs),
    /// Show or write the settings
    #[command(after_help = "\
Examples:
  empg config show --env alfworld
  empg config init my.toml")]
    Config(config::ConfigArgs),
}

/// Runs what was asked for.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { json, command } = cli;
    match command {
        Command::Train(args) => train::run(args, json),
        Command::Eval(args) => eval::run(args, json),
        Command::Report(args) => report::run(args, json),
        Command::Analyze(args) => analyze::run(args, json),
        Command::Dashboard(args) => dashboard::run(args, json),
        Command::Study(args) => study::run(args, json),
        Command::Track(args) => track::run(args, json),
        Command::Sft(args) => sft::run(args, json),
        Command::Export(args) => export::run(args, json),
        Command::Advantage(args) => advantage::run(args, json),
        Command::Score(args) => score::run(args, json),
        Command::Prop1(args) => prop1::run(args, json),
        Command::Chat(args) => chat::run(&args, json),
        Command::Play(args) => play::run(args, json),
        Command::Env(args) => env::run(args, json),
        Command::Serve(args) => serve::run(args, json),
        Command::Bench(args) => bench::run(args, json),
        Command::Config(args) => config::run(args, json),
    }
}

/// Reads a count of at least one.
///
/// # Errors
/// Anything else.
fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    let count: usize = text.parse().map_err(|e: std::num::ParseIntError| e.to_string())?;
    NonZeroUsize::new(count).ok_or_else(|| "must be at least 1".to_owned())
}
