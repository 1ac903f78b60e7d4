//! `empg env bench`: steps per second.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use empg_env::{EnvOptions, Split, TaskSet};
use serde::Serialize;

use super::lines::write_line;
use super::source::Which;

#[derive(Serialize)]
struct Timing<'a> {
    env: &'a str,
    steps_per_s: f64,
    steps: u64,
    episodes: u64,
    seconds: f64,
    load_seconds: f64,
    at_once: u16,
}

/// Times an environment.
pub(super) fn run(
    which: &Which,
    options: EnvOptions,
    seconds: f64,
    at_once: u16,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let source = which.open()?;
    let load_seconds = start.elapsed().as_secs_f64();
    let tasks = source.tasks(options)?;
    let ids = bench_tasks(&tasks)?;
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(seconds);
    let counts = std::thread::scope(|scope| {
        let players: Vec<_> = (0..at_once)
            .map(|i| {
                let (tasks, ids) = (&*tasks, &ids);
                scope.spawn(move || play(tasks, ids, &which.env, usize::from(i), end))
            })
            .collect();
        players
            .into_iter()
            .map(|player| player.join().unwrap_or_else(|_| bail!("a thread failed")))
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    let (steps, episodes) =
        counts.into_iter().fold((0, 0), |(steps, episodes), (s, e)| (steps + s, episodes + e));
    let seconds = start.elapsed().as_secs_f64();
    let env = which.env.as_str();
    let steps_per_s = steps as f64 / seconds;
    if json {
        write_line(
            out,
            &Timing { env, steps_per_s, steps, episodes, seconds, load_seconds, at_once },
        )
    } else {
        let how = match at_once {
            1 => "on one core".to_owned(),
            n => format!("with {n} environments"),
        };
        writeln!(
            out,
            "{env}: {steps_per_s:.0} steps/s {how} ({steps} steps, {episodes} episodes in \
             {seconds:.2} s; loaded in {load_seconds:.2} s)"
        )?;
        Ok(())
    }
}

/// Plays until the time is over; steps and episodes.
fn play(
    tasks: &dyn TaskSet,
    ids: &[String],
    name: &str,
    from: usize,
    end: Instant,
) -> anyhow::Result<(u64, u64)> {
    let mut env = tasks.make();
    let mut player = Player::new(name);
    let (mut steps, mut episodes) = (0_u64, 0_u64);
    for id in ids.iter().cycle().skip(from % ids.len()) {
        if Instant::now() >= end {
            break;
        }
        player.begin(&env.reset(id, 0)?.text);
        episodes += 1;
        let mut admissible = env.admissible();
        while let Some(action) = player.choose(&admissible) {
            let transition = env.step(&action)?;
            steps += 1;
            player.see(&transition.observation.text);
            // Built after every step, as a recording or a prompt needs it.
            admissible = env.admissible();
            if transition.end.is_some() || (tasks.elsewhere().is_some() && Instant::now() >= end) {
                break;
            }
        }
    }
    Ok((steps, episodes))
}

/// What the benchmark plays: anything admissible; in the shop also searches for words of the
/// instruction; in Deep Search the question, then words of what was found, then an answer.
struct Player {
    game: Game,
    chance: Chance,
    /// The task, and what was seen last, as words to search for.
    task: Vec<String>,
    seen: Vec<String>,
    turn: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Game {
    Commands,
    Shop,
    Search,
    /// Elsewhere: anything admissible, or a word where nothing is known.
    Unknown,
}

impl Player {
    fn new(env: &str) -> Self {
        let game = match env {
            "webshop" => Game::Shop,
            "search" => Game::Search,
            "openenv" | "stdio" => Game::Unknown,
            _ => Game::Commands,
        };
        let chance = Chance(0x9e37_79b9_7f4a_7c15);
        Self { game, chance, task: Vec::new(), seen: Vec::new(), turn: 0 }
    }

    fn begin(&mut self, text: &str) {
        self.turn = 0;
        self.seen.clear();
        self.task.clear();
        if matches!(self.game, Game::Shop | Game::Search) {
            let goal = text.split("Instruction: [SEP] ").last().unwrap_or_default();
            self.task.extend(goal.split_whitespace().map(str::to_owned));
        }
    }

    fn see(&mut self, text: &str) {
        if self.game == Game::Search {
            self.seen.clear();
            self.seen.extend(text.split_whitespace().take(64).map(str::to_owned));
        }
    }

    fn choose(&mut self, admissible: &[String]) -> Option<String> {
        self.turn += 1;
        match self.game {
            Game::Commands => self.any(admissible).cloned(),
            Game::Unknown => {
                Some(self.any(admissible).map_or_else(|| "look".to_owned(), Clone::clone))
            }
            Game::Shop => {
                if self.turn == 1 || admissible.len() < 2 || self.chance.below(8) == 0 {
                    let words = 3 + self.chance.below(6);
                    return Some(format!("search[{}]", self.words(false, words)));
                }
                let action = self.any(admissible)?;
                let plain = !action.contains('[');
                Some(if plain { format!("click[{action}]") } else { action.clone() })
            }
            Game::Search => Some(match self.turn {
                1 => format!("<search>{}</search>", self.task.join(" ")),
                2 | 3 if self.chance.below(4) > 0 => {
                    format!("<search>{}</search>", self.words(true, 4))
                }
                _ => format!("<answer>{}</answer>", self.words(true, 2)),
            }),
        }
    }

    fn any<'a>(&mut self, choices: &'a [String]) -> Option<&'a String> {
        if choices.is_empty() { None } else { choices.get(self.chance.below(choices.len())) }
    }

    /// So many words in a row, of what was seen last or of the task.
    fn words(&mut self, seen: bool, count: usize) -> String {
        let from = if seen && !self.seen.is_empty() { &self.seen } else { &self.task };
        let start = self.chance.below(from.len().saturating_sub(count).max(1));
        from[start.min(from.len())..].iter().take(count).cloned().collect::<Vec<_>>().join(" ")
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
