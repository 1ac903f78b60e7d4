//! Bring your own environment: implement `Env` and `TaskSet`, hand them to the trainer.
//!
//! Three lamps light up one after the other; naming the colour of each earns a third of the
//! reward. A policy without any training learns it from that alone.
//!
//! `cargo run --release --example own_environment`

#![allow(clippy::print_stdout)]

use std::sync::Arc;

use empg_env::{Env, EnvEnd, EnvError, Observation, Split, Task, TaskSet, Transition};
use empg_llm::{Names, tiny_tokenizer};
use empg_train::{Config, Observer, Policy, Progress, Trainer};

const COLOURS: [&str; 3] = ["red", "green", "blue"];

struct Lamps;

impl TaskSet for Lamps {
    fn name(&self) -> &'static str {
        "lamps"
    }
    fn len(&self, _: Split) -> Option<u64> {
        Some(27)
    }
    fn task(&self, _: Split, index: u64) -> Result<Task, EnvError> {
        Ok(Task { id: index.to_string(), kind: "lamps".into() })
    }
    fn make(&self) -> Box<dyn Env> {
        Box::new(Room { code: 0, lamp: 0, hits: 0 })
    }
}

struct Room {
    code: usize,
    lamp: u32,
    hits: u32,
}

impl Room {
    fn colour(&self) -> &'static str {
        COLOURS[self.code / 3usize.pow(self.lamp) % 3]
    }
    fn look(&self) -> Observation {
        Observation { text: format!("lamp {}", self.colour()) }
    }
}

impl Env for Room {
    fn reset(&mut self, task: &str, _seed: u64) -> Result<Observation, EnvError> {
        let code = task.parse().map_err(|_| EnvError::Failed(format!("no room {task}")))?;
        *self = Self { code, lamp: 0, hits: 0 };
        Ok(self.look())
    }
    fn step(&mut self, action: &str) -> Result<Transition, EnvError> {
        let hit = action == self.colour();
        self.hits += u32::from(hit);
        self.lamp += 1;
        Ok(Transition {
            observation: self.look(),
            reward: f64::from(u8::from(hit)) / 3.0,
            end: (self.lamp == 3).then_some(EnvEnd::Terminated),
            won: self.hits == 3,
            effect: COLOURS.contains(&action),
        })
    }
}

struct Print;

impl Observer for Print {
    fn on(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Step { report, .. } if report.step % 10 == 0 => {
                println!("step {:3}  success {:.2}", report.step, report.success());
            }
            _ => {}
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tokenizer =
        tiny_tokenizer(&Names { words: &["lamp", "red", "green", "blue"], ..Names::default() })?;
    let policy = Policy::untrained(tokenizer, 0)?;
    let mut config = Config { steps: 150, ..Config::default() };
    config.rollout.max_turn_tokens = 2;
    config.optim.lr = 1e-3;
    config.algo.entropy_coef = 0.1;
    let summary = Trainer::new(config, Arc::new(Lamps), policy)?.run(None, &mut Print)?;
    println!("before {:.2}", summary.before[0].success);
    println!("after  {:.2}", summary.after[0].success);
    Ok(())
}
