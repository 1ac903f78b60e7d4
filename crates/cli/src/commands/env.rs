//! `empg env`: replay, list and time the environments; read actions out of model texts.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, BufRead, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use empg_env::alfworld::DataVersion;
use empg_env::{Env, EnvOptions, Projection, Source, Split, TaskSet};
use serde::{Deserialize, Serialize};

/// Arguments of `empg env`.
#[derive(Args, Debug)]
pub(crate) struct EnvArgs {
    #[command(subcommand)]
    command: EnvCommand,
}

#[derive(Debug, Subcommand)]
enum EnvCommand {
    /// Play recorded actions: JSONL in, JSONL out
    #[command(after_help = "\
Example:
  echo '{\"task\": \"households/seen/0\", \"actions\": [\"look\"]}' | empg env replay households

In:  {\"task\": ID, \"actions\": [TEXT…], \"data_version\"?: \"2.1.1\" | \"2.1.2+\", \"max_steps\"?: N}
     (2.1.2+ and 50 where left out; a null max_steps is no limit)
Out: {\"task\": ID, \"steps\": [{\"action\", \"observation\", \"admissible\", \"reward\", \"done\", \"won\"}…]}
     The first step is the reset, its action null. Actions after the end of the episode are not
     played; \"unplayed\" counts them.")]
    Replay(Which),
    /// List the tasks as JSONL
    #[command(after_help = "\
Examples:
  empg env list alfworld --data ~/.cache/alfworld --split valid_seen
  empg env list households --split unseen --limit 100")]
    List {
        #[command(flatten)]
        which: Which,
        /// train, seen (valid_seen) or unseen (valid_unseen); all three where left out
        #[arg(long, value_parser = split)]
        split: Option<Split>,
        /// At most so many tasks of a split (10 where the environment generates without end)
        #[arg(long)]
        limit: Option<u64>,
    },
    /// Time an environment on one core: steps with observation and admissible list built
    #[command(after_help = "\
Example:
  empg env bench households --json      prints {\"steps_per_s\", …}")]
    Bench {
        #[command(flatten)]
        which: Which,
        /// How long to play
        #[arg(long, default_value_t = 2.0, value_parser = seconds)]
        seconds: f64,
    },
    /// Read the action out of model texts: {"raw"} in, {"action", "valid"} out
    #[command(after_help = "\
Example:
  echo '{\"raw\": \"<think>hm</think><action>look</action>\"}' | empg env project alfworld

ENV is alfworld, households, webshop or search.")]
    Project {
        /// Whose convention
        env: String,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// alfworld or households
    env: String,
    /// The folder of the environment's data (alfworld)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Which {
    fn open(&self) -> anyhow::Result<Source> {
        Ok(Source::open(&self.env, self.data.as_deref(), None)?)
    }
}

/// Reads the name of a split.
///
/// # Errors
/// Another name.
pub(crate) fn split(name: &str) -> Result<Split, String> {
    match name {
        "train" => Ok(Split::Train),
        "seen" | "valid_seen" => Ok(Split::Seen),
        "unseen" | "valid_unseen" => Ok(Split::Unseen),
        _ => Err("it is train, seen (valid_seen) or unseen (valid_unseen)".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= 3600.0 => Ok(seconds),
        _ => Err("it is a number of seconds above 0, at most 3600".to_owned()),
    }
}

/// Runs `empg env`.
///
/// # Errors
/// Data that cannot be read, input that is not as described, an unknown task.
pub(crate) fn run(args: EnvArgs, json: bool) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match args.command {
        EnvCommand::Replay(which) => replay(&which.open()?, &mut out),
        EnvCommand::List { which, split, limit } => list(&which.open()?, split, limit, &mut out),
        EnvCommand::Bench { which, seconds } => bench(&which, seconds, json, &mut out),
        EnvCommand::Project { env } => project(&env, &mut out),
    };
    // What came before an error is still of use.
    out.flush()?;
    done
}

/// Hands each non-empty line of stdin to `each`; errors name the line.
fn each_line(mut each: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for (i, line) in io::stdin().lock().lines().enumerate() {
        let at = || format!("stdin, line {}", i + 1);
        let line = line.with_context(at)?;
        if !line.trim().is_empty() {
            each(&line).with_context(at)?;
        }
    }
    Ok(())
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

#[derive(Deserialize)]
struct Recorded {
    task: String,
    #[serde(default)]
    data_version: DataVersion,
    #[serde(default = "default_steps")]
    max_steps: Option<u32>,
    actions: Vec<String>,
}

#[allow(clippy::unnecessary_wraps)] // the field's type
fn default_steps() -> Option<u32> {
    EnvOptions::default().max_steps
}

#[derive(Serialize)]
struct Replayed<'a> {
    task: &'a str,
    steps: Vec<Step<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    unplayed: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct Step<'a> {
    action: Option<&'a str>,
    observation: String,
    admissible: Vec<String>,
    reward: f64,
    done: bool,
    won: bool,
}

fn replay(source: &Source, out: &mut impl Write) -> anyhow::Result<()> {
    let mut envs: HashMap<EnvOptions, Box<dyn Env>> = HashMap::new();
    each_line(|line| {
        let recorded: Recorded = serde_json::from_str(line)?;
        let options = EnvOptions {
            data_version: recorded.data_version,
            max_steps: recorded.max_steps,
            ..EnvOptions::default()
        };
        let env = match envs.entry(options) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(source.tasks(options)?.make()),
        };
        let observation = env.reset(&recorded.task, 0)?.text;
        let admissible = env.admissible();
        let mut steps = vec![Step {
            action: None,
            observation,
            admissible,
            reward: 0.0,
            done: false,
            won: false,
        }];
        for action in &recorded.actions {
            if steps.last().is_some_and(|step| step.done) {
                break;
            }
            let transition = env.step(action)?;
            steps.push(Step {
                action: Some(action),
                observation: transition.observation.text,
                admissible: env.admissible(),
                reward: transition.reward,
                done: transition.end.is_some(),
                won: transition.won,
            });
        }
        let unplayed = recorded.actions.len() + 1 - steps.len();
        write_line(out, &Replayed { task: &recorded.task, steps, unplayed })
    })
}

#[derive(Serialize)]
struct Listed<'a> {
    task: &'a str,
    kind: &'a str,
    split: Split,
}

fn list(
    source: &Source,
    split: Option<Split>,
    limit: Option<u64>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let tasks = source.tasks(EnvOptions::default())?;
    let splits = match split {
        Some(split) => vec![split],
        None => vec![Split::Train, Split::Seen, Split::Unseen],
    };
    for split in splits {
        let count = match (tasks.len(split), limit) {
            (Some(len), limit) => len.min(limit.unwrap_or(u64::MAX)),
            (None, limit) => limit.unwrap_or(10),
        };
        for index in 0..count {
            let task = tasks.task(split, index)?;
            write_line(out, &Listed { task: &task.id, kind: &task.kind, split })?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Timing<'a> {
    env: &'a str,
    steps_per_s: f64,
    steps: u64,
    episodes: u64,
    seconds: f64,
    load_seconds: f64,
}

fn bench(which: &Which, seconds: f64, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let start = Instant::now();
    let source = which.open()?;
    let load_seconds = start.elapsed().as_secs_f64();
    let tasks = source.tasks(EnvOptions::default())?;
    let ids = bench_tasks(&tasks)?;
    let mut env = tasks.make();
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let (mut steps, mut episodes) = (0_u64, 0_u64);
    let start = Instant::now();
    let limit = Duration::from_secs_f64(seconds);
    'playing: loop {
        for id in &ids {
            if start.elapsed() >= limit {
                break 'playing;
            }
            env.reset(id, 0)?;
            episodes += 1;
            let mut admissible = env.admissible();
            while !admissible.is_empty() {
                let transition = env.step(&admissible[chance.below(admissible.len())])?;
                steps += 1;
                // Built after every step, as a recording or a prompt needs it.
                admissible = env.admissible();
                if transition.end.is_some() {
                    break;
                }
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let env = which.env.as_str();
    let steps_per_s = steps as f64 / seconds;
    if json {
        write_line(out, &Timing { env, steps_per_s, steps, episodes, seconds, load_seconds })
    } else {
        writeln!(
            out,
            "{env}: {steps_per_s:.0} steps/s on one core ({steps} steps, {episodes} episodes in \
             {seconds:.2} s; loaded in {load_seconds:.2} s)"
        )?;
        Ok(())
    }
}

/// Tasks spread over the train split.
fn bench_tasks(tasks: &Arc<dyn TaskSet>) -> anyhow::Result<Vec<String>> {
    for split in [Split::Train, Split::Seen, Split::Unseen] {
        let len = tasks.len(split).unwrap_or(256);
        let count = len.min(256);
        if count > 0 {
            return (0..count).map(|i| Ok(tasks.task(split, i * len / count)?.id)).collect();
        }
    }
    bail!("the environment has no task")
}

/// A small generator of choices: the same game of chance at every call.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

#[derive(Deserialize)]
struct Raw {
    raw: String,
}

#[derive(Serialize)]
struct Action {
    action: String,
    valid: u8,
}

fn project(env: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(projection) = Projection::of(env) else {
        bail!("no action format for {env:?}: it is alfworld, households, webshop or search");
    };
    each_line(|line| {
        let raw: Raw = serde_json::from_str(line)?;
        let projected = projection.project(&raw.raw);
        let valid = u8::from(projected.valid);
        write_line(out, &Action { action: projected.action, valid })
    })
}
