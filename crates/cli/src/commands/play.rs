//! `empg play`: a person plays a task.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use clap::Args;
use empg_env::alfworld::DataVersion;
use empg_env::{EnvEnd, EnvOptions, Source, Split};
use serde::Serialize;

/// Arguments of `empg play`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  empg play households
  empg play alfworld --data ~/.cache/alfworld --split valid_seen --index 3

Type commands as the game shows them; `?` lists those that work now, `quit` leaves.")]
pub(crate) struct PlayArgs {
    /// alfworld or households
    env: String,
    /// The folder of the environment's data (alfworld)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Play this task (see `empg env list`)
    #[arg(long, value_name = "ID", conflicts_with_all = ["split", "index"])]
    task: Option<String>,
    /// train, seen (valid_seen) or unseen (valid_unseen)
    #[arg(long, default_value = "unseen", value_parser = super::env::split)]
    split: Split,
    /// Which task of the split
    #[arg(long, default_value_t = 0)]
    index: u64,
    /// Whose texts: 2.1.1 or 2.1.2+
    #[arg(long, default_value_t = DataVersion::default())]
    data_version: DataVersion,
    /// Steps before the episode ends
    #[arg(long, default_value_t = 50)]
    max_steps: u32,
}

#[derive(Serialize)]
struct Outcome<'a> {
    task: &'a str,
    steps: u32,
    won: bool,
}

/// Runs `empg play`.
///
/// # Errors
/// Data that cannot be read, an unknown task.
pub(crate) fn run(args: PlayArgs, json: bool) -> anyhow::Result<()> {
    let PlayArgs { env, data, task, split, index, data_version, max_steps } = args;
    let source = Source::open(&env, data.as_deref(), None)?;
    let tasks = source.tasks(EnvOptions {
        data_version,
        max_steps: Some(max_steps),
        ..EnvOptions::default()
    })?;
    let task = match task {
        Some(task) => task,
        None => tasks.task(split, index)?.id,
    };
    let mut env = tasks.make();
    let mut out = io::stdout().lock();
    writeln!(out, "{}", env.reset(&task, 0)?.text)?;
    let mut lines = io::stdin().lock().lines();
    let (mut steps, mut won) = (0, false);
    loop {
        crate::say_part!("> ");
        let Some(line) = lines.next().transpose()? else { break };
        match line.trim() {
            "" => {}
            "quit" | "exit" => break,
            "?" => {
                for command in env.admissible() {
                    writeln!(out, "  {command}")?;
                }
            }
            command => {
                let transition = env.step(command)?;
                steps += 1;
                won = transition.won;
                writeln!(out, "{}", transition.observation.text)?;
                if let Some(end) = transition.end {
                    let how = match end {
                        EnvEnd::Terminated => "Solved",
                        EnvEnd::Truncated(_) => "Out of steps",
                    };
                    crate::say!("{how} after {steps} steps.");
                    break;
                }
            }
        }
    }
    if json {
        let outcome = Outcome { task: &task, steps, won };
        writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
    }
    Ok(())
}
