//! A program's tasks, and the children that run it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use super::child::Child;
use super::command::words;
use super::episode::Episode;
use crate::remote::Notice;
use crate::remote::agreement::Agreement;
use crate::remote::place::Place;
use crate::{Env, EnvError, Split, Task, TaskSet};

/// How a program is asked.
#[derive(Clone, Debug)]
pub struct StdioOptions {
    /// Program and arguments, as a shell would read them, without variables.
    pub command: String,
    /// The observation's field that the policy reads where it is an object.
    pub observation_field: Option<String>,
    /// Added to every reset. `{split}`, `{index}`, `{seed}` and `{task}` in texts are filled in.
    pub reset: Map<String, Value>,
    /// Longest wait for an answer; a process that takes longer is ended.
    pub timeout: Duration,
    /// Processes at a time; so many are kept between episodes at most.
    pub sessions: usize,
    /// Tasks of each split; `None`: without end.
    pub tasks: Option<u64>,
    /// Who is told of what is no error.
    pub notice: Notice,
}

impl StdioOptions {
    /// 60 s, 16 processes, tasks without end.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            observation_field: None,
            reset: Map::new(),
            timeout: Duration::from_mins(1),
            sessions: 16,
            tasks: None,
            notice: Notice::default(),
        }
    }
}

/// The tasks of a program that speaks one JSON object a line.
#[derive(Clone, Debug)]
pub struct StdioSet {
    program: Arc<Program>,
    max_steps: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Program {
    pub(super) options: StdioOptions,
    pub(super) agreement: Agreement,
    words: Vec<String>,
    /// Children that no episode uses.
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle(Vec<Child>);

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} children", self.0.len())
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        Child::farewell(&mut self.0);
    }
}

impl StdioSet {
    /// Starts the program once, to see that it can be started; the first episode plays on it.
    ///
    /// # Errors
    /// A command that is none, a program that cannot be started.
    pub fn start(options: StdioOptions) -> Result<Self, EnvError> {
        let words = words(&options.command).map_err(|what| {
            EnvError::Failed(format!("env.command {:?}: {what}", options.command))
        })?;
        let agreement = Agreement::new(options.notice.clone());
        let first = Child::start(&words).map_err(EnvError::Failed)?;
        let idle = Mutex::new(Idle(vec![first]));
        let program = Arc::new(Program { options, agreement, words, idle });
        Ok(Self { program, max_steps: None })
    }

    /// The same program; episodes are cut off after so many steps.
    #[must_use]
    pub fn with(&self, max_steps: Option<u32>) -> Self {
        Self { program: Arc::clone(&self.program), max_steps }
    }
}

impl TaskSet for StdioSet {
    fn name(&self) -> &'static str {
        "stdio"
    }

    fn len(&self, _: Split) -> Option<u64> {
        self.program.options.tasks
    }

    fn task(&self, split: Split, index: u64) -> Result<Task, EnvError> {
        Ok(Place::at(split, index, self.program.options.tasks, "stdio")?.task("stdio"))
    }

    fn place(&self, seed: u64) -> Option<(Split, u64)> {
        Some(Place::of_seed(seed))
    }

    fn make(&self) -> Box<dyn Env> {
        Box::new(Episode::new(Arc::clone(&self.program), self.max_steps))
    }

    fn elsewhere(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.program.options.sessions.max(1))
    }
}

impl Program {
    /// A child that is free, or a new one.
    pub(super) fn child(&self) -> Result<Child, String> {
        loop {
            let free = self.idle.lock().unwrap_or_else(PoisonError::into_inner).0.pop();
            let Some(mut child) = free else { return Child::start(&self.words) };
            if child.alive() {
                return Ok(child);
            }
        }
    }

    /// Takes back the child of an episode that is over. A server has more episodes at a time than
    /// `sessions` now and then; what they needed is not kept beyond that.
    pub(super) fn give_back(&self, child: Child) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.0.len() < self.options.sessions.max(1) {
            idle.0.push(child);
            return;
        }
        // Its end may take a while: others need not wait for it.
        drop(idle);
        drop(child);
    }
}
