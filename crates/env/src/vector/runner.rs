//! The environments of a vector, over threads.

use std::sync::{Arc, Mutex};

use super::crew::{Crew, Slots, Work, lock};
use super::slot::{Begin, Phase, Shared, Slot};
use super::{Autoreset, TaskOrder, Turn, VectorError};
use crate::{Projection, Split, Task, TaskSet};

/// How a [`Vector`] runs.
#[derive(Clone, Copy, Debug)]
pub struct VectorOptions {
    /// How many environments.
    pub environments: usize,
    /// Where tasks are drawn from.
    pub split: Split,
    /// Environment `i` starts with seed `seed + i` until a reset says otherwise.
    pub seed: u64,
    /// What follows the end of an episode.
    pub autoreset: Autoreset,
    /// Reads actions out of what a model wrote; `None`: the texts are the actions.
    pub projection: Option<Projection>,
    /// Whether turns list the admissible commands.
    pub admissible: bool,
    /// Threads, never more than environments; 0: one per core, and one per environment where these are
    /// played elsewhere. A search at a remote retriever is waited for, and worth a thread per
    /// environment too.
    pub threads: usize,
}

impl Default for VectorOptions {
    /// One environment of the training split, seed 0, all commands listed, every core.
    fn default() -> Self {
        Self {
            environments: 1,
            split: Split::Train,
            seed: 0,
            autoreset: Autoreset::default(),
            projection: None,
            admissible: true,
            threads: 0,
        }
    }
}

/// Environments that are stepped together.
pub struct Vector {
    shared: Arc<Shared>,
    slots: Slots,
    threads: usize,
    /// The process that started them, and the threads.
    crew: Option<(u32, Crew)>,
}

impl std::fmt::Debug for Vector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vector")
            .field("tasks", &self.shared.tasks.name())
            .field("environments", &self.slots.len())
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl Vector {
    /// Environments of a task set; none has an episode before [`Vector::reset`].
    ///
    /// # Errors
    /// No environment, a split without tasks.
    pub fn new(tasks: Arc<dyn TaskSet>, options: VectorOptions) -> Result<Self, VectorError> {
        let VectorOptions { environments, split, seed, autoreset, projection, admissible, threads } =
            options;
        if environments == 0 {
            return Err(VectorError::Empty);
        }
        let order = TaskOrder::new(tasks.len(split)).ok_or_else(|| VectorError::NoTasks {
            set: tasks.name().to_owned(),
            split: match split {
                Split::Train => "train",
                Split::Seen => "seen",
                Split::Unseen => "unseen",
            },
            hint: ": choose another split, or data that has it",
        })?;
        let tasks_elsewhere = tasks.elsewhere();
        let shared = Shared { tasks, split, order, autoreset, projection, admissible };
        let slots = (0..environments as u64)
            .map(|i| Mutex::new(Slot::new(&shared, seed.wrapping_add(i))))
            .collect();
        let threads = match (threads, tasks_elsewhere) {
            (0, Some(sessions)) => sessions.get(),
            (0, None) => cores(),
            (threads, _) => threads,
        };
        let threads = threads.min(environments);
        Ok(Self { shared: Arc::new(shared), slots, threads, crew: None })
    }

    /// How many environments there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none, which [`Vector::new`] rules out.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many threads step them.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The tasks.
    pub fn tasks(&self) -> &Arc<dyn TaskSet> {
        &self.shared.tasks
    }

    /// Begins an episode in every environment that the mask selects (`None`: in all); the others'
    /// turns are `None`. A seed starts an environment's order of tasks anew. A task is played instead
    /// of the next one, and takes no place in the order.
    ///
    /// # Errors
    /// Lists of another length, an unknown task (nothing has changed then); an environment that
    /// cannot begin ([`VectorError::Reset`] holds what the others did).
    pub fn reset(
        &mut self,
        seeds: Option<&[Option<u64>]>,
        tasks: Option<&[Option<String>]>,
        mask: Option<&[bool]>,
    ) -> Result<Vec<Option<Turn>>, VectorError> {
        let count = |what, found: Option<usize>| match found {
            Some(found) if found != self.slots.len() => {
                Err(VectorError::Count { what, found, expected: self.slots.len() })
            }
            _ => Ok(()),
        };
        count("seeds", seeds.map(<[_]>::len))?;
        count("tasks", tasks.map(<[_]>::len))?;
        count("reset mask", mask.map(<[_]>::len))?;
        if mask.is_some_and(|mask| !mask.contains(&true)) {
            return Err(VectorError::EmptyMask);
        }
        let mut work = Vec::with_capacity(self.slots.len());
        for index in 0..self.slots.len() {
            if mask.is_some_and(|mask| !mask[index]) {
                work.push(Work::Rest);
                continue;
            }
            let task: Option<Task> = match tasks.and_then(|tasks| tasks[index].as_deref()) {
                Some(id) => {
                    let found = self.shared.tasks.find(id);
                    Some(found.map_err(|source| VectorError::Task { index, source })?)
                }
                None => None,
            };
            let seed = seeds.and_then(|seeds| seeds[index]);
            work.push(Work::Begin(Begin { seed, task }));
        }
        let turns = self.round(work)?;
        let mut first = None;
        for (index, turn) in turns.iter().enumerate() {
            if let Some((turn, reason)) = turn.as_ref().and_then(|t| Some((t, t.failed.as_ref()?)))
            {
                lock(&self.slots[index]).phase = Phase::Fresh;
                let task = turn.task.as_ref().map_or_else(String::new, |task| task.id.clone());
                first.get_or_insert((index, task, reason.clone()));
            }
        }
        match first {
            None => Ok(turns),
            Some((index, task, reason)) => Err(VectorError::Reset { index, task, reason, turns }),
        }
    }

    /// Ends all episodes: every environment is as before its first reset, and goes on with its next
    /// task. For turns that nobody will see.
    pub fn end_episodes(&mut self) {
        for slot in self.slots.iter() {
            lock(slot).phase = Phase::Fresh;
        }
    }

    /// Plays one action in every environment. An environment that fails has its reason in
    /// [`Turn::failed`] and its episode truncated; the others go on.
    ///
    /// # Errors
    /// Another number of actions, a step before `reset`, or after the end where auto-reset is
    /// disabled; nothing has changed then.
    pub fn step<S: AsRef<str>>(&mut self, actions: &[S]) -> Result<Vec<Turn>, VectorError> {
        if actions.len() != self.slots.len() {
            return Err(VectorError::Count {
                what: "actions",
                found: actions.len(),
                expected: self.slots.len(),
            });
        }
        let phases = self.slots.iter().map(|slot| lock(slot).phase);
        let mut over = Vec::new();
        for (index, phase) in phases.enumerate() {
            match phase {
                Phase::Fresh => return Err(VectorError::NotStarted(index)),
                Phase::Over => over.push(index),
                Phase::Running => {}
            }
        }
        if self.shared.autoreset == Autoreset::Disabled && !over.is_empty() {
            return Err(VectorError::Over(over));
        }
        let work = actions.iter().map(|action| Work::Step(action.as_ref().to_owned()));
        // Nobody rests.
        Ok(self.round(work.collect())?.into_iter().flatten().collect())
    }

    /// One piece of work for every environment, over the threads.
    fn round(&mut self, work: Vec<Work>) -> Result<Vec<Option<Turn>>, VectorError> {
        // Threads do not survive a fork of the process: a child makes its own.
        let process = std::process::id();
        if let Some((_, lost)) = self.crew.take_if(|(owner, _)| *owner != process) {
            std::mem::forget(lost);
        }
        let (_, crew) = match &mut self.crew {
            Some(crew) => crew,
            none => {
                let threads = self.threads;
                let waiting = threads > cores();
                let crew = Crew::start(threads - 1, waiting)
                    .map_err(|e| VectorError::Threads { threads, reason: e.to_string() })?;
                none.insert((process, crew))
            }
        };
        Ok(crew.round(&self.shared, &self.slots, work))
    }
}

/// The cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
