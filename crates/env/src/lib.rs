//! Text environments for language-model agents. No tensors here.

pub mod alfworld;
mod command_list;
mod dice;
mod expert;
pub mod households;
mod projection;
mod python_text;
mod registry;
pub mod remote;
pub mod retrieval;
pub mod search;
pub mod vector;
pub mod webshop;
mod word_marks;

pub use command_list::CommandList;
pub use expert::{Demonstration, DemonstrationTurn, Expert, Manner, Showing};
pub use projection::{Projected, Projection};
pub use registry::{EnvOptions, NAMES, Source, open};

use empg::Limit;
use serde::{Deserialize, Serialize};

/// What the agent sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The text, as the environment prints it.
    pub text: String,
}

/// What one action led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// What the agent sees now.
    pub observation: Observation,
    /// The environment's reward of this step.
    pub reward: f64,
    /// Whether the episode is over, and why.
    pub end: Option<EnvEnd>,
    /// Whether the task is solved.
    pub won: bool,
    /// Whether the action was understood and changed or revealed something
    /// (ALFWorld: false for "Nothing happens.").
    pub effect: bool,
}

/// Why the environment itself ended the episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnvEnd {
    /// An end state of the task.
    Terminated,
    /// A limit of the environment.
    Truncated(Limit),
}

/// Which tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// What the policy learns from.
    Train,
    /// Held-out tasks of the training distribution (ALFWorld: `valid_seen`).
    Seen,
    /// Held-out tasks of another distribution (ALFWorld: `valid_unseen`).
    Unseen,
}

/// One task of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Identifier, unique within the set; `Env::reset` takes it.
    pub id: String,
    /// The task's type (for tables), e.g. `pick_clean_then_place_in_recep`.
    pub kind: String,
}

/// A set of tasks and the engine that plays them.
pub trait TaskSet: Send + Sync {
    /// The environment's name on the command line.
    fn name(&self) -> &str;
    /// How many tasks the split has; `None` means unlimited.
    fn len(&self, split: Split) -> Option<u64>;
    /// The task at an index of a split.
    ///
    /// # Errors
    /// An index past the end, data that cannot be read.
    fn task(&self, split: Split, index: u64) -> Result<Task, EnvError>;
    /// The task of an identifier. Generated sets know more tasks than a split lists; what this finds,
    /// an engine can be reset to.
    ///
    /// # Errors
    /// An unknown task, data that cannot be read.
    fn find(&self, id: &str) -> Result<Task, EnvError> {
        let mut endless = false;
        for split in [Split::Train, Split::Seen, Split::Unseen] {
            let Some(len) = self.len(split) else {
                endless = true;
                continue;
            };
            for index in 0..len {
                let task = self.task(split, index)?;
                if task.id == id {
                    return Ok(task);
                }
            }
        }
        if endless {
            // The engine knows.
            return Ok(Task { id: id.to_owned(), kind: String::new() });
        }
        Err(EnvError::UnknownTask { task: id.to_owned(), set: self.name().to_owned(), hint: None })
    }
    /// Split and index of a seed, where a seed is all that a task is known by and those of the splits
    /// lie apart: who serves such tasks to others hands their seeds on as they are. `None`: seeds say
    /// nothing about splits.
    fn place(&self, _seed: u64) -> Option<(Split, u64)> {
        None
    }
    /// A fresh engine that can reset to any task of the set.
    fn make(&self) -> Box<dyn Env>;

    /// How many environments may be used at a time where they are played elsewhere: answers are then
    /// waited for, so their steps are taken side by side on threads of their own. `None`: played
    /// here, as many as one likes.
    fn elsewhere(&self) -> Option<std::num::NonZeroUsize> {
        None
    }

    /// A player of these tasks that acts on observations; `None` where the set has none.
    fn expert(&self, _manner: Manner, _seed: u64) -> Option<Box<dyn Expert>> {
        None
    }

    /// Plays a task with the expert; `None` where the set has none.
    ///
    /// # Errors
    /// What the environment refuses: an unknown task, data that cannot be read.
    fn demonstrate(
        &self,
        _task: &str,
        _seed: u64,
        _showing: &Showing,
    ) -> Result<Option<Demonstration>, EnvError> {
        Ok(None)
    }
}

/// One environment instance.
pub trait Env: Send {
    /// Starts an episode of a task.
    ///
    /// # Errors
    /// An unknown task, data that cannot be read.
    fn reset(&mut self, task: &str, seed: u64) -> Result<Observation, EnvError>;

    /// Plays one action.
    ///
    /// # Errors
    /// No episode is running, or the environment failed. An action that the environment does not
    /// understand is no error.
    fn step(&mut self, action: &str) -> Result<Transition, EnvError>;

    /// The commands that would have an effect now, sorted; empty if the environment cannot tell.
    fn admissible(&self) -> Vec<String> {
        Vec::new()
    }

    /// [`Env::admissible`] in one piece.
    fn admissible_list(&self) -> CommandList {
        self.admissible().into_iter().collect()
    }
}

/// Why an environment refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// No such task.
    #[error("no task {task:?} in {set}{}", hint.as_deref().map(|h| format!(" ({h})")).unwrap_or_default())]
    UnknownTask {
        /// What was asked for.
        task: String,
        /// The task set.
        set: String,
        /// The nearest name, or what to do.
        hint: Option<String>,
    },
    /// `step` before `reset`, or after the end.
    #[error("no episode is running: call reset first")]
    NotRunning,
    /// Data that cannot be read.
    #[error("{path}{}: {what}", line.map(|l| format!(":{l}")).unwrap_or_default())]
    Data {
        /// The file.
        path: String,
        /// The line (from 1), where there is one.
        line: Option<usize>,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The environment itself failed.
    #[error("{0}")]
    Failed(String),
}
