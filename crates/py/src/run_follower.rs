//! A growing run, step by step, for `empg.track`.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use empg_run::{Follower, scalars};
use pyo3::prelude::*;

use crate::env_errors;

/// A step: its number, when it was committed (seconds since 1970), its scalars by name.
type Step = (u64, Option<f64>, Vec<(String, f64)>);

/// Reads of a run what was added since the last look.
#[pyclass(frozen, module = "empg._core")]
pub(crate) struct RunFollower {
    follower: Mutex<Follower>,
}

#[pymethods]
impl RunFollower {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let follower = py.detach(|| Follower::open(path)).map_err(|e| env_errors::run(&e))?;
        Ok(Self { follower: Mutex::new(follower) })
    }

    /// Whether the run went back since the last look, and the steps that are new.
    fn look(&self, py: Python<'_>) -> PyResult<(bool, Vec<Step>)> {
        py.detach(|| {
            let news = self.get().look().map_err(|e| env_errors::run(&e))?;
            let steps = news.steps.into_iter().map(|step| {
                let parts = [&step.metrics, &step.timings];
                let values = parts.into_iter().flat_map(scalars);
                (step.step, step.seconds, values.filter(|(name, _)| name != "step").collect())
            });
            Ok((news.rewound, steps.collect()))
        })
    }

    /// Whether everything that was committed at the last look has been given.
    #[getter]
    fn caught_up(&self) -> bool {
        self.get().caught_up()
    }

    /// Whether a process writes the run now.
    #[getter]
    fn is_being_written(&self) -> bool {
        self.get().run().is_being_written()
    }

    /// When the run was created, in seconds since 1970.
    #[getter]
    fn created(&self) -> Option<f64> {
        self.get().run().created()
    }
}

impl RunFollower {
    fn get(&self) -> MutexGuard<'_, Follower> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
