//! Environments for `empg.envs`: one object that holds many and steps them over threads.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use empg_env::search::Protocol;
use empg_env::vector::{Autoreset, Turn, Vector, VectorError, VectorOptions};
use empg_env::{NAMES, Projection, Source, Split, TaskSet};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use crate::env_errors;
use crate::env_source::{Rules, Which, one_of, split, tasks};
use crate::turns::Turns;

/// How long a call that waits for others goes without asking whether it is interrupted.
const PATIENCE: Duration = Duration::from_millis(100);

/// Many environments. Nothing here holds the interpreter while environments run.
#[pyclass(frozen, module = "empg._core")]
pub(crate) struct Environments {
    tasks: Arc<dyn TaskSet>,
    split: Split,
    count: usize,
    vector: Arc<Mutex<Option<Vector>>>,
    closed: Arc<AtomicBool>,
    /// Calls wait for a server.
    waits: bool,
    /// Keeps the data open for environments that are made meanwhile.
    _source: Arc<Source>,
}

#[pymethods]
impl Environments {
    #[new]
    #[pyo3(signature = (
        name, count = 1, *, data = None, corpus = None, world_seed = 0, split = "train", seed = 0,
        autoreset = "NextStep", parse = false, admissible = true, threads = 0, max_steps = None,
        data_version = "2.1.2+", mode = "text", human_goals = false, goal_seed = 0,
        splits = "verl-agent", protocol = "verl-agent", topk = 3, observation_tokens = 500
    ))]
    fn new(
        py: Python<'_>,
        name: &str,
        count: usize,
        data: Option<PathBuf>,
        corpus: Option<PathBuf>,
        world_seed: u64,
        split: &str,
        seed: u64,
        autoreset: &str,
        parse: bool,
        admissible: bool,
        threads: usize,
        max_steps: Option<i64>,
        data_version: &str,
        mode: &str,
        human_goals: bool,
        goal_seed: u32,
        splits: &str,
        protocol: &str,
        topk: usize,
        observation_tokens: usize,
    ) -> PyResult<Self> {
        let rules = Rules {
            max_steps,
            data_version,
            mode,
            human_goals,
            goal_seed,
            splits,
            protocol,
            topk,
            observation_tokens,
        };
        let options = rules.options(name, data.is_none())?;
        let split = self::split(split)?;
        let vector = VectorOptions {
            environments: count,
            split,
            seed,
            autoreset: one_of(
                "autoreset_mode",
                autoreset,
                [
                    ("NextStep", Autoreset::NextStep),
                    ("SameStep", Autoreset::SameStep),
                    ("Disabled", Autoreset::Disabled),
                ],
            )?,
            projection: if parse { Some(reading(name, options.search.protocol)?) } else { None },
            admissible,
            threads,
        };
        let which = Which { name: name.to_owned(), data, corpus, world: world_seed };
        // A retriever by its address; all else is in this process.
        let corpus = which.corpus.as_ref().and_then(|corpus| corpus.to_str());
        let waits = corpus.is_some_and(|corpus| corpus.contains("://"));
        py.detach(|| {
            let source = which.open().map_err(|e| env_errors::env(&e))?;
            let tasks = tasks(&source, options)?;
            let vector = Vector::new(Arc::clone(&tasks), vector);
            let vector = vector.map_err(|e| env_errors::vector(&e))?;
            let (vector, closed) = (Arc::new(Mutex::new(Some(vector))), Arc::default());
            Ok(Self { tasks, split, count, vector, closed, waits, _source: source })
        })
    }

    /// Begins episodes: in all environments, or in those of the mask. Where some cannot begin theirs,
    /// the turns say why.
    #[pyo3(signature = (seeds = None, tasks = None, mask = None))]
    fn reset(
        &self,
        py: Python<'_>,
        seeds: Option<Vec<Option<u64>>>,
        tasks: Option<Vec<Option<String>>>,
        mask: Option<Vec<bool>>,
    ) -> PyResult<Turns> {
        let turns = self.call(py, move |vector| {
            match vector.reset(seeds.as_deref(), tasks.as_deref(), mask.as_deref()) {
                Err(VectorError::Reset { turns, .. }) => Ok(turns),
                other => other,
            }
        })?;
        Turns::of(py, &turns)
    }

    /// Plays one action in every environment.
    fn step(&self, py: Python<'_>, actions: &Bound<'_, PyAny>) -> PyResult<Turns> {
        let actions = Actions::of(actions)?;
        let texts = actions.texts()?;
        let turns = if self.waits {
            let texts: Vec<String> = texts.into_iter().map(str::to_owned).collect();
            self.call(py, move |vector| vector.step(&texts))
        } else {
            self.call_here(py, |vector| vector.step(&texts))
        }?;
        let turns: Vec<Option<Turn>> = turns.into_iter().map(Some).collect();
        Turns::of(py, &turns)
    }

    /// Frees the environments; every later call is refused.
    fn close(&self, py: Python<'_>) {
        self.closed.store(true, Ordering::SeqCst);
        py.detach(|| match self.vector.try_lock() {
            Ok(mut vector) => *vector = None,
            Err(TryLockError::Poisoned(vector)) => *vector.into_inner() = None,
            // A call that was given up frees them when it is through.
            Err(TryLockError::WouldBlock) if self.waits => {}
            Err(TryLockError::WouldBlock) => {
                *self.vector.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
        });
    }

    /// How many environments there are.
    #[getter]
    fn count(&self) -> usize {
        self.count
    }

    /// How many tasks the split has; `None` where they are generated without end.
    #[getter]
    fn num_tasks(&self) -> Option<u64> {
        self.tasks.len(self.split)
    }

    /// Identifier and type of the task at an index of the split.
    fn task(&self, index: u64) -> PyResult<(String, String)> {
        let task = self.tasks.task(self.split, index).map_err(|e| env_errors::env(&e))?;
        Ok((task.id, task.kind))
    }
}

impl Environments {
    /// A call; where it waits for a server, Python's signals are heard meanwhile. One that is given up
    /// for them goes on by itself, and leaves no episode behind.
    fn call<T: Send + 'static>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut Vector) -> Result<T, VectorError> + Send + 'static,
    ) -> PyResult<T> {
        if !self.waits {
            return self.call_here(py, call);
        }
        let (vector, closed) = (Arc::clone(&self.vector), Arc::clone(&self.closed));
        // Set by whoever is first: the call that is done, or the caller who gives up. The other one ends
        // the episodes, whose turns nobody will see.
        let settled = Arc::new(AtomicBool::new(false));
        let (answer, mut answers) = channel();
        let done = Arc::clone(&settled);
        let thread =
            std::thread::Builder::new().name("empg-env-call".to_owned()).spawn(move || {
                let mut vector = vector.lock().unwrap_or_else(PoisonError::into_inner);
                // An earlier call may have been waited for in vain.
                let wanted = !done.load(Ordering::SeqCst) && !closed.load(Ordering::SeqCst);
                let result = vector.as_mut().filter(|_| wanted).map(|vector| {
                    let result = call(vector);
                    if done.swap(true, Ordering::SeqCst) {
                        vector.end_episodes();
                    }
                    result
                });
                if closed.load(Ordering::SeqCst) {
                    *vector = None;
                }
                drop(vector);
                let _ = answer.send(result);
            });
        thread
            .map_err(|error| PyRuntimeError::new_err(format!("no thread for a call: {error}")))?;
        loop {
            let answers = &mut answers;
            match py.detach(move || answers.recv_timeout(PATIENCE)) {
                Ok(Some(result)) => return result.map_err(|e| env_errors::vector(&e)),
                Ok(None) | Err(RecvTimeoutError::Disconnected) => return Err(over()),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(interrupt) = py.check_signals() {
                        if settled.swap(true, Ordering::SeqCst) {
                            py.detach(|| {
                                let vector = self.vector.lock();
                                let mut vector = vector.unwrap_or_else(PoisonError::into_inner);
                                vector.as_mut().map(Vector::end_episodes);
                            });
                        }
                        return Err(interrupt);
                    }
                }
            }
        }
    }

    fn call_here<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut Vector) -> Result<T, VectorError> + Send,
    ) -> PyResult<T> {
        py.detach(|| {
            let mut vector = self.vector.lock().unwrap_or_else(PoisonError::into_inner);
            call(vector.as_mut().ok_or_else(over)?).map_err(|e| env_errors::vector(&e))
        })
    }
}

fn over() -> PyErr {
    PyRuntimeError::new_err("the environments are closed: make new ones")
}

/// The actions of a call, held while they are read without the interpreter.
struct Actions<'py>(Vec<Bound<'py, PyAny>>);

impl<'py> Actions<'py> {
    fn of(actions: &Bound<'py, PyAny>) -> PyResult<Self> {
        if actions.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err(
                "actions is one str: it is a sequence with one str for every environment",
            ));
        }
        if let Ok(list) = actions.cast::<PyList>() {
            return Ok(Self(list.iter().collect()));
        }
        if let Ok(tuple) = actions.cast::<PyTuple>() {
            return Ok(Self(tuple.iter().collect()));
        }
        let items = actions.try_iter().map_err(|_| {
            let kind = type_name(actions);
            PyTypeError::new_err(format!(
                "actions is {kind}: it is a sequence with one str for every environment"
            ))
        })?;
        Ok(Self(items.collect::<PyResult<_>>()?))
    }

    fn texts(&self) -> PyResult<Vec<&str>> {
        self.0
            .iter()
            .enumerate()
            .map(|(index, action)| {
                let text = action.cast::<PyString>().map_err(|_| {
                    let kind = type_name(action);
                    PyTypeError::new_err(format!(
                        "actions[{index}] is {kind}: every action is a str"
                    ))
                })?;
                text.to_str().map_err(|error| {
                    PyValueError::new_err(format!("actions[{index}] is no valid text: {error}"))
                })
            })
            .collect()
    }
}

fn type_name(object: &Bound<'_, PyAny>) -> String {
    let name = object.get_type().name();
    name.map_or_else(|_| "of an unknown type".to_owned(), |name| name.to_string())
}

fn projection(name: &str) -> PyResult<Projection> {
    Projection::of(name).ok_or_else(|| {
        PyValueError::new_err(format!(
            "no environment is called {name:?}: there are {}",
            NAMES.join(", ")
        ))
    })
}

/// How an environment's texts are read under a protocol, which only Deep Search has.
fn reading(name: &str, protocol: Protocol) -> PyResult<Projection> {
    Ok(match (projection(name)?, protocol) {
        (Projection::Search, Protocol::SearchR1) => Projection::SearchR1,
        (projection, _) => projection,
    })
}

/// The action in a model's text, and whether the text keeps the format of the environment.
#[pyfunction]
pub(crate) fn project(name: &str, text: &str) -> PyResult<(String, bool)> {
    let projected = projection(name)?.project(text);
    Ok((projected.action, projected.valid))
}

/// The names of the environments.
#[pyfunction]
pub(crate) fn environment_names() -> [&'static str; 4] {
    NAMES
}
