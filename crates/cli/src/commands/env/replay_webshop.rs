//! `empg env replay webshop`: recorded actions in a shop.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write;
use std::sync::Arc;

use empg_env::Env as _;
use empg_env::webshop::{Available, Mode, WebshopEnv, WebshopOptions, WebshopSet};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lines::{each_line, handed_through, read, write_line};
use super::source::Which;

#[derive(Deserialize)]
struct Recorded {
    #[serde(default)]
    env_seed: u32,
    session: Option<usize>,
    task: Option<String>,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    human_goals: bool,
    max_steps: Option<u32>,
    actions: Vec<String>,
    /// Whatever else identifies the episode; handed through.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Serialize)]
struct Replayed<'a> {
    #[serde(flatten)]
    rest: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env_seed: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<usize>,
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    human_goals: Option<bool>,
    steps: Vec<Step<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unplayed: Option<usize>,
}

#[derive(Serialize)]
struct Step<'a> {
    action: Option<&'a str>,
    observation: String,
    reward: f64,
    done: bool,
    won: bool,
    /// Null once the episode is over, as in the recordings.
    admissible: Option<Available>,
}

/// Plays recorded actions.
pub(super) fn run(which: &Which, out: &mut impl Write) -> anyhow::Result<()> {
    which.check()?;
    let catalogue = which.data.catalogue()?;
    let mut envs: HashMap<(Mode, Option<u32>), WebshopEnv> = HashMap::new();
    each_line(|line| {
        let mut recorded: Recorded = read(line)?;
        handed_through(&mut recorded.rest);
        let Recorded { env_seed, session, mode, human_goals, max_steps, .. } = recorded;
        let kind = if human_goals { "webshop-human" } else { "webshop" };
        let task = match (&recorded.task, session) {
            (Some(task), None) => task.clone(),
            (None, Some(session)) => format!("{kind}/{env_seed}/{session}"),
            _ => anyhow::bail!("expected either \"session\" (with \"env_seed\") or \"task\""),
        };
        let env = match envs.entry((mode, max_steps)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let options =
                    WebshopOptions { mode, human_goals, env_seed, ..WebshopOptions::default() };
                let set = WebshopSet::new(Arc::clone(&catalogue), options, max_steps)?;
                entry.insert(set.environment())
            }
        };
        let (steps, unplayed) = play(env, &task, &recorded.actions)?;
        let unplayed = (unplayed > 0).then_some(unplayed);
        let Recorded { task, rest, .. } = &recorded;
        // A task's name says seed and kind of goals itself.
        let (task, named) = (task.as_deref(), task.is_some());
        let (env_seed, human_goals) =
            ((!named).then_some(env_seed), (!named).then_some(human_goals));
        let line = Replayed { rest, task, env_seed, session, mode, human_goals, steps, unplayed };
        write_line(out, &line)
    })
}

fn play<'a>(
    env: &mut WebshopEnv,
    task: &str,
    actions: &'a [String],
) -> anyhow::Result<(Vec<Step<'a>>, usize)> {
    let observation = env.reset(task, 0)?.text;
    let admissible = Some(env.available());
    let mut steps =
        vec![Step { action: None, observation, reward: 0.0, done: false, won: false, admissible }];
    for action in actions {
        let transition = env.step(action)?;
        let done = transition.end.is_some();
        steps.push(Step {
            action: Some(action),
            observation: transition.observation.text,
            reward: transition.reward,
            done,
            won: transition.won,
            admissible: (!done).then(|| env.available()),
        });
        if done {
            break;
        }
    }
    let unplayed = actions.len() + 1 - steps.len();
    Ok((steps, unplayed))
}
