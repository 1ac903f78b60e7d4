//! `empg play`: a person plays a task.

use std::io::{self, BufRead, Write};

use clap::Args;
use empg_env::alfworld::DataVersion;
use empg_env::{EnvEnd, Split};
use serde::Serialize;

/// Arguments of `empg play`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  empg play households
  empg play alfworld --data ~/.cache/alfworld --split valid_seen --index 3
  empg play webshop --env-seed 7
  empg play search --data FOLDER

Type commands as the game shows them; `?` lists those that work now, `quit`
leaves. In search, a line is a query; `= ` before it makes it the answer.")]
pub(crate) struct PlayArgs {
    #[command(flatten)]
    which: super::env::Which,
    #[command(flatten)]
    rules: super::env::RuleArgs,
    /// Play this task (see `empg env list`)
    #[arg(long, value_name = "ID", conflicts_with_all = ["split", "index"])]
    task: Option<String>,
    /// train, seen (valid_seen) or unseen (valid_unseen)
    #[arg(long, default_value = "unseen", value_parser = super::env::split)]
    split: Split,
    /// Which task of the split
    #[arg(long, default_value_t = 0)]
    index: u64,
    /// alfworld, households: whose texts, 2.1.1 or 2.1.2+ [default: 2.1.2+]
    #[arg(long)]
    data_version: Option<DataVersion>,
    /// Steps before the episode ends (50; webshop 15, search 4, generated 6)
    #[arg(long)]
    max_steps: Option<u32>,
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
    let PlayArgs { which, rules, task, split, index, data_version, max_steps } = args;
    let tasks = which.tasks(&rules, data_version, max_steps)?;
    let tagged = which.env == "search";
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
                let transition = match command.strip_prefix('=') {
                    _ if !tagged || command.starts_with('<') => env.step(command)?,
                    Some(answer) => env.step(&format!("<answer>{}</answer>", answer.trim()))?,
                    None => env.step(&format!("<search>{command}</search>"))?,
                };
                steps += 1;
                won = transition.won;
                writeln!(out, "{}", transition.observation.text)?;
                if let Some(end) = transition.end {
                    let how = match end {
                        EnvEnd::Terminated if won => "Solved",
                        EnvEnd::Terminated => "Over, not solved",
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
