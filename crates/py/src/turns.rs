//! What a call on many environments gave, as arrays and lists.

use std::sync::Arc;

use empg_env::CommandList;
use empg_env::vector::{Last, Turn};
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use crate::commands::Commands;

/// One entry per environment everywhere; `None` where an environment took no part in a reset.
#[pyclass(frozen, get_all, module = "empg._core")]
pub(crate) struct Turns {
    observations: Py<PyTuple>,
    rewards: Py<PyArray1<f64>>,
    terminated: Py<PyArray1<bool>>,
    truncated: Py<PyArray1<bool>>,
    won: Py<PyArray1<bool>>,
    effect: Py<PyArray1<bool>>,
    /// Where the observation begins an episode.
    began: Py<PyArray1<bool>>,
    commands: Py<PyList>,
    /// Identifier and type of the tasks that were begun, `None` elsewhere.
    tasks: Py<PyList>,
    /// Why environments failed; `None` where none did.
    failed: Option<Py<PyList>>,
    /// What was played, and whether the text kept the format; `None` without a projection.
    projected: Option<(Py<PyList>, Py<PyArray1<bool>>)>,
    /// The ends of episodes in a call that also began the next ones; `None` where there are none.
    ends: Option<Py<Ends>>,
}

/// Observation, commands and failure at the ends of episodes, `None` in other environments.
#[pyclass(frozen, get_all, module = "empg._core")]
pub(crate) struct Ends {
    observations: Py<PyList>,
    commands: Py<PyList>,
    failed: Option<Py<PyList>>,
    mask: Py<PyArray1<bool>>,
}

impl Turns {
    pub(crate) fn of(py: Python<'_>, turns: &[Option<Turn>]) -> PyResult<Self> {
        let flag = |of: fn(&Turn) -> bool| {
            let flags: Vec<bool> = turns.iter().map(|t| t.as_ref().is_some_and(of)).collect();
            flags.into_pyarray(py).unbind()
        };
        let rewards: Vec<f64> =
            turns.iter().map(|t| t.as_ref().map_or(0.0, |t| t.reward)).collect();
        let observations = turns.iter().map(|t| t.as_ref().map(|t| t.observation.as_str()));
        let commands = list(py, turns, |t| Some(commands(py, &t.admissible)))?;
        let tasks = list(py, turns, |t| {
            let task = t.task.as_ref().filter(|_| t.began || t.last.is_some())?;
            Some(Ok((PyString::new(py, &task.id), PyString::new(py, &task.kind))))
        })?;
        let failed = |t: &Turn| t.failed.is_some();
        let failed = if turns.iter().flatten().any(failed) {
            Some(list(py, turns, |t| Some(Ok(t.failed.as_deref()?)))?)
        } else {
            None
        };
        let projected = if turns.iter().flatten().any(|t| t.projected.is_some()) {
            let actions = list(py, turns, |t| Some(Ok(t.projected.as_ref()?.action.as_str())))?;
            Some((actions, flag(|t| t.projected.as_ref().is_some_and(|p| p.valid))))
        } else {
            None
        };
        let ends = if turns.iter().flatten().any(|t| t.last.is_some()) {
            Some(Py::new(py, Ends::of(py, turns)?)?)
        } else {
            None
        };
        Ok(Self {
            observations: PyTuple::new(py, observations.collect::<Vec<_>>())?.unbind(),
            rewards: rewards.into_pyarray(py).unbind(),
            terminated: flag(|t| t.terminated),
            truncated: flag(|t| t.truncated),
            won: flag(|t| t.won),
            effect: flag(|t| t.effect),
            began: flag(|t| t.began),
            commands,
            tasks,
            failed,
            projected,
            ends,
        })
    }
}

impl Ends {
    fn of(py: Python<'_>, turns: &[Option<Turn>]) -> PyResult<Self> {
        let last = |t: &Turn| t.last.is_some();
        let mask: Vec<bool> = turns.iter().map(|t| t.as_ref().is_some_and(last)).collect();
        let failed = |t: &Turn| t.last.as_ref().is_some_and(|l: &Last| l.failed.is_some());
        let failed = if turns.iter().flatten().any(failed) {
            Some(list(py, turns, |t| Some(Ok(t.last.as_ref()?.failed.as_deref()?)))?)
        } else {
            None
        };
        Ok(Self {
            observations: list(py, turns, |t| Some(Ok(t.last.as_ref()?.observation.as_str())))?,
            commands: list(py, turns, |t| Some(commands(py, &t.last.as_ref()?.admissible)))?,
            failed,
            mask: mask.into_pyarray(py).unbind(),
        })
    }
}

fn commands(py: Python<'_>, texts: &Arc<CommandList>) -> PyResult<Py<Commands>> {
    Py::new(py, Commands::of(Arc::clone(texts)))
}

/// One entry per environment, `None` where there is nothing.
fn list<'t, 'py, T: IntoPyObject<'py>>(
    py: Python<'py>,
    turns: &'t [Option<Turn>],
    of: impl Fn(&'t Turn) -> Option<PyResult<T>>,
) -> PyResult<Py<PyList>> {
    let entries = turns.iter().map(|turn| turn.as_ref().and_then(&of).transpose());
    Ok(PyList::new(py, entries.collect::<PyResult<Vec<_>>>()?)?.unbind())
}
