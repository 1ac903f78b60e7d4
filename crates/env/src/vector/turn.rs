//! What one call gives for one environment.

use std::sync::Arc;

use crate::{CommandList, Projected, Task};

/// One environment's part of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    /// What the agent sees now.
    pub observation: String,
    /// The reward of the action; 0 where an episode begins.
    pub reward: f64,
    /// Whether the episode reached an end state.
    pub terminated: bool,
    /// Whether the episode was cut off: by a limit, or because the environment failed.
    pub truncated: bool,
    /// Whether the task is solved.
    pub won: bool,
    /// Whether the action was understood and changed or revealed something.
    pub effect: bool,
    /// The episode began in this turn, and no action was played.
    pub began: bool,
    /// Why the environment failed, if it did. The observation is then the last one that there was.
    pub failed: Option<String>,
    /// The commands that would have an effect now, sorted; empty where the environment cannot tell.
    pub admissible: Arc<CommandList>,
    /// The task that is played now; `None` where none could be begun.
    pub task: Option<Arc<Task>>,
    /// What the model's text came to, where texts are projected.
    pub projected: Option<Projected>,
    /// The end of the episode before, where this turn both ended it and began the next.
    pub last: Option<Last>,
}

/// The end of an episode in a turn that began the next one.
#[derive(Clone, Debug, PartialEq)]
pub struct Last {
    /// What the agent saw at the end.
    pub observation: String,
    /// The commands that would have had an effect.
    pub admissible: Arc<CommandList>,
    /// The task that was played.
    pub task: Option<Arc<Task>>,
    /// Why the environment failed, if it did.
    pub failed: Option<String>,
}
