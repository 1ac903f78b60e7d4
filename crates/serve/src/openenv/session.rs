//! One environment and the episode that it plays.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use empg_env::{Env, EnvEnd, Split};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Shared;
use super::refusal::{Detail, Refusal};

/// A session's environment.
pub(crate) struct Session {
    shared: Arc<Shared>,
    env: Box<dyn Env>,
    episode: Option<Episode>,
    id: Option<String>,
    steps: u64,
}

/// What is being played, or was.
struct Episode {
    task: String,
    kind: String,
    over: bool,
}

/// What the agent sees, with everything else that the environment tells.
#[derive(Debug, Serialize)]
pub(crate) struct Seen {
    text: String,
    admissible: Vec<String>,
    won: bool,
    effect: bool,
    truncated: bool,
    task_id: String,
    task_type: String,
}

/// An observation with reward and end: the answer to a reset and to a step.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) observation: Seen,
    pub(crate) reward: Option<f64>,
    pub(crate) done: bool,
}

/// Where an episode stands.
#[derive(Debug, Serialize)]
pub(crate) struct State {
    episode_id: Option<String>,
    step_count: u64,
    task_id: Option<String>,
    task_type: Option<String>,
    done: bool,
}

/// What a reset may name. Other names are ignored, as OpenEnv ignores what an environment does not
/// know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ResetArguments {
    seed: Option<u64>,
    episode_id: Option<String>,
    task_id: Option<String>,
    split: Option<Split>,
}

/// Longest name that is taken.
const LONGEST_NAME: usize = 255;

impl ResetArguments {
    /// Reads the arguments of a reset.
    ///
    /// # Errors
    /// A known name with a value that it cannot have; `place` is the way to it.
    pub(crate) fn read(
        data: &Map<String, Value>,
        place: &'static [&'static str],
    ) -> Result<Self, Detail> {
        let text = |name: &'static str| match data.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.chars().count() <= LONGEST_NAME => {
                Ok(Some(text.clone()))
            }
            Some(Value::String(_)) => {
                let what = format!("String should have at most {LONGEST_NAME} characters");
                Err(Detail::new("string_too_long", place, what).of(name))
            }
            Some(_) => {
                Err(Detail::new("string_type", place, "Input should be a valid string").of(name))
            }
        };
        let seed = match data.get("seed") {
            None | Some(Value::Null) => None,
            Some(value) => match value.as_u64() {
                Some(seed) => Some(seed),
                None if value.as_i64().is_some() => {
                    let what = "Input should be greater than or equal to 0";
                    return Err(Detail::new("greater_than_equal", place, what).of("seed"));
                }
                None => {
                    let what = "Input should be a valid integer";
                    return Err(Detail::new("int_type", place, what).of("seed"));
                }
            },
        };
        let split = match text("split")?.as_deref() {
            None | Some("") => None,
            Some("train") => Some(Split::Train),
            Some("seen" | "valid_seen") => Some(Split::Seen),
            Some("unseen" | "valid_unseen") => Some(Split::Unseen),
            Some(_) => {
                let what = "Input should be 'train', 'seen' or 'unseen'";
                return Err(Detail::new("literal_error", place, what).of("split"));
            }
        };
        Ok(Self { seed, episode_id: text("episode_id")?, task_id: text("task_id")?, split })
    }
}

impl Session {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let env = shared.tasks.make();
        Self { shared: Arc::clone(shared), env, episode: None, id: None, steps: 0 }
    }

    /// Starts an episode: of the task that is named, or of the one that the seed chooses. Equal
    /// seeds choose equal tasks; without a seed, any. An environment that is itself elsewhere gets the
    /// seed as it came where nobody asked for a split, so that what a client holds out is held out there
    /// too.
    pub(crate) fn reset(&mut self, arguments: ResetArguments) -> Result<Outcome, Refusal> {
        let ResetArguments { seed, episode_id, task_id, split } = arguments;
        let tasks = &self.shared.tasks;
        let chosen = seed.unwrap_or_else(any_number);
        let (task, kind) = if let Some(task) = task_id {
            (task, String::new())
        } else {
            // A split that was asked for, by the reset or for the server, is not the seed's to choose.
            let (split, number) = match split.or(self.shared.split) {
                Some(split) => (split, chosen),
                None => seed.and_then(|seed| tasks.place(seed)).unwrap_or((Split::Train, chosen)),
            };
            let index = match tasks.len(split) {
                Some(0) => {
                    let what = format!("{} has no tasks in the split {split:?}", tasks.name());
                    return Err(Refusal::Failed(what));
                }
                Some(n) => number % n,
                None => number & u64::from(u32::MAX),
            };
            let task = tasks.task(split, index)?;
            (task.id, task.kind)
        };
        self.episode = None;
        self.steps = 0;
        let observation = self.env.reset(&task, chosen)?;
        self.id = Some(episode_id.unwrap_or_else(|| format!("{:016x}", any_number())));
        let seen = Seen {
            text: observation.text,
            admissible: self.env.admissible(),
            won: false,
            effect: true,
            truncated: false,
            task_id: task.clone(),
            task_type: kind.clone(),
        };
        self.episode = Some(Episode { task, kind, over: false });
        Ok(Outcome { observation: seen, reward: None, done: false })
    }

    /// Plays an action.
    pub(crate) fn step(&mut self, text: &str) -> Result<Outcome, Refusal> {
        let Some(episode) = &mut self.episode else {
            return Err(Refusal::Failed("no episode is running: call reset first".to_owned()));
        };
        if episode.over {
            return Err(Refusal::Failed("the episode is over: call reset first".to_owned()));
        }
        let transition = match self.env.step(text) {
            Ok(transition) => transition,
            Err(error) => {
                episode.over = true;
                return Err(error.into());
            }
        };
        self.steps += 1;
        episode.over = transition.end.is_some();
        Ok(Outcome {
            observation: Seen {
                text: transition.observation.text,
                admissible: if episode.over { Vec::new() } else { self.env.admissible() },
                won: transition.won,
                effect: transition.effect,
                truncated: matches!(transition.end, Some(EnvEnd::Truncated(_))),
                task_id: episode.task.clone(),
                task_type: episode.kind.clone(),
            },
            reward: Some(transition.reward),
            done: episode.over,
        })
    }

    /// Where the episode stands.
    pub(crate) fn state(&self) -> State {
        let part = |part: fn(&Episode) -> String| self.episode.as_ref().map(part);
        State {
            episode_id: self.id.clone(),
            step_count: self.steps,
            task_id: part(|e| e.task.clone()),
            task_type: part(|e| e.kind.clone()),
            done: self.episode.as_ref().is_some_and(|e| e.over),
        }
    }
}

/// A number that nobody chose.
fn any_number() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(data: Value) -> Result<ResetArguments, Detail> {
        let Value::Object(data) = data else { unreachable!() };
        ResetArguments::read(&data, &["data"])
    }

    #[test]
    fn arguments_are_read_or_refused_by_name() {
        assert_eq!(read(json!({})).unwrap(), ResetArguments::default());
        let all = json!({"seed": 3, "episode_id": "e", "task_id": null, "split": "valid_seen",
            "other": [1]});
        let all = read(all).unwrap();
        assert_eq!((all.seed, all.split), (Some(3), Some(Split::Seen)));
        for (data, kind, field) in [
            (json!({"seed": -1}), "greater_than_equal", "seed"),
            (json!({"seed": 1.5}), "int_type", "seed"),
            (json!({"seed": "3"}), "int_type", "seed"),
            (json!({"episode_id": 3}), "string_type", "episode_id"),
            (json!({"task_id": "x".repeat(256)}), "string_too_long", "task_id"),
            (json!({"split": "test"}), "literal_error", "split"),
        ] {
            let detail = read(data).unwrap_err();
            assert_eq!((detail.kind, detail.field.as_deref()), (kind, Some(field)));
        }
    }
}
