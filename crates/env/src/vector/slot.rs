//! One environment of many, with its place in the order of tasks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::turn::{Last, Turn};
use super::{Autoreset, TaskOrder};
use crate::dice::mix;
use crate::{CommandList, Env, EnvEnd, EnvError, Projected, Projection, Split, Task, TaskSet};

/// What all environments of a vector share.
pub(super) struct Shared {
    pub(super) tasks: Arc<dyn TaskSet>,
    pub(super) split: Split,
    pub(super) order: TaskOrder,
    pub(super) autoreset: Autoreset,
    pub(super) projection: Option<Projection>,
    pub(super) admissible: bool,
}

impl Shared {
    /// Whether environments read what the model wrote themselves.
    fn reads_text(&self) -> bool {
        self.projection.is_some_and(Projection::is_read_by_environment)
    }
}

/// Where an environment is in its episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It was never reset.
    Fresh,
    /// An episode is running.
    Running,
    /// The episode is over.
    Over,
}

/// How an episode is begun.
#[derive(Clone, Debug, Default)]
pub(super) struct Begin {
    /// Starts the order of tasks anew.
    pub(super) seed: Option<u64>,
    /// The task, instead of the next of the order.
    pub(super) task: Option<Task>,
}

pub(super) struct Slot {
    env: Box<dyn Env>,
    seed: u64,
    episode: u64,
    task: Option<Arc<Task>>,
    observation: String,
    pub(super) phase: Phase,
}

impl Slot {
    pub(super) fn new(shared: &Shared, seed: u64) -> Self {
        Self {
            env: shared.tasks.make(),
            seed,
            episode: 0,
            task: None,
            observation: String::new(),
            phase: Phase::Fresh,
        }
    }

    /// Begins an episode. A failure is told in the turn, which is then truncated.
    pub(super) fn begin(&mut self, shared: &Shared, begin: Begin) -> Turn {
        if let Some(seed) = begin.seed {
            (self.seed, self.episode) = (seed, 0);
        }
        let (seed, episode) = (self.seed, self.episode);
        let task = if let Some(task) = begin.task {
            Ok(task)
        } else {
            // A given task takes no place in the order.
            self.episode += 1;
            self.task = None;
            let index = shared.order.index(seed, episode);
            guarded(|| shared.tasks.task(shared.split, index))
        };
        let begun = task.and_then(|task| {
            self.task = Some(Arc::new(task));
            let Self { env, task, .. } = self;
            let id = task.as_ref().map_or("", |task| &task.id);
            guarded(|| env.reset(id, mix(seed, episode)))
        });
        let began = true;
        match begun {
            Ok(observation) => {
                self.phase = Phase::Running;
                self.observation.clone_from(&observation.text);
                let (admissible, task) = (self.admissible(shared), self.task.clone());
                let observation = observation.text;
                Turn { observation, began, admissible, task, ..Turn::default() }
            }
            Err(failed) => {
                self.fail(shared);
                self.observation.clear();
                let task = self.task.clone();
                Turn { began, truncated: true, failed: Some(failed), task, ..Turn::default() }
            }
        }
    }

    /// Plays an action, or begins the next episode where the last one is over.
    pub(super) fn step(&mut self, shared: &Shared, text: &str) -> Turn {
        if self.phase != Phase::Running {
            return self.begin(shared, Begin::default());
        }
        let projected = shared.projection.map(|projection| projection.project(text));
        let mut turn = match &projected {
            Some(Projected { action, .. }) if !shared.reads_text() => self.play(shared, action),
            _ => self.play(shared, text),
        };
        turn.projected = projected;
        if shared.autoreset == Autoreset::SameStep && (turn.terminated || turn.truncated) {
            let next = self.begin(shared, Begin::default());
            turn.last = Some(Last {
                observation: std::mem::replace(&mut turn.observation, next.observation),
                admissible: std::mem::replace(&mut turn.admissible, next.admissible),
                task: std::mem::replace(&mut turn.task, next.task),
                failed: std::mem::replace(&mut turn.failed, next.failed),
            });
        }
        turn
    }

    fn play(&mut self, shared: &Shared, action: &str) -> Turn {
        let env = &mut self.env;
        match guarded(|| env.step(action)) {
            Ok(transition) => {
                if transition.end.is_some() {
                    self.phase = Phase::Over;
                }
                self.observation.clone_from(&transition.observation.text);
                Turn {
                    observation: transition.observation.text,
                    reward: transition.reward,
                    terminated: transition.end == Some(EnvEnd::Terminated),
                    truncated: matches!(transition.end, Some(EnvEnd::Truncated(_))),
                    won: transition.won,
                    effect: transition.effect,
                    admissible: self.admissible(shared),
                    task: self.task.clone(),
                    ..Turn::default()
                }
            }
            Err(failed) => {
                self.fail(shared);
                Turn {
                    observation: self.observation.clone(),
                    truncated: true,
                    failed: Some(failed),
                    task: self.task.clone(),
                    ..Turn::default()
                }
            }
        }
    }

    /// A fresh engine: the old one may be in any state.
    fn fail(&mut self, shared: &Shared) {
        self.env = shared.tasks.make();
        self.phase = Phase::Over;
    }

    fn admissible(&self, shared: &Shared) -> Arc<CommandList> {
        let commands = if shared.admissible {
            let env = &self.env;
            guarded(|| Ok(env.admissible_list())).unwrap_or_default()
        } else {
            CommandList::default()
        };
        Arc::new(commands)
    }
}

/// Runs a call of an environment; its error, or its panic, as text.
fn guarded<T>(call: impl FnOnce() -> Result<T, EnvError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("the environment panicked: {}", what.unwrap_or("no message")))
        }
    }
}
