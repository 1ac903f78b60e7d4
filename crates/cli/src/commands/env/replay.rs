//! `empg env replay`: recorded actions, played again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;

use empg_env::alfworld::DataVersion;
use empg_env::{Env, EnvOptions, Source};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lines::{each_line, handed_through, read, write_line};

#[derive(Deserialize)]
struct Recorded {
    task: String,
    #[serde(default)]
    data_version: DataVersion,
    #[serde(default = "default_steps")]
    max_steps: Option<u32>,
    actions: Vec<String>,
    /// Whatever else identifies the episode; handed through.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[allow(clippy::unnecessary_wraps)] // the field's type
fn default_steps() -> Option<u32> {
    EnvOptions::default().max_steps
}

#[derive(Serialize)]
struct Replayed<'a> {
    #[serde(flatten)]
    rest: &'a Map<String, Value>,
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

/// Plays recorded actions of ALFWorld or households.
pub(super) fn run(source: &Source, out: &mut impl Write) -> anyhow::Result<()> {
    let mut envs: HashMap<EnvOptions, Box<dyn Env>> = HashMap::new();
    each_line(|line| {
        let mut recorded: Recorded = read(line)?;
        handed_through(&mut recorded.rest);
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
        write_line(out, &Replayed { rest: &recorded.rest, task: &recorded.task, steps, unplayed })
    })
}
