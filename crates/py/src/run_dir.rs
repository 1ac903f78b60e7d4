//! The reader of run directories, for `empg.read_run`.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use arrow_schema::ArrowError;
use empg_run::Run;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use serde_json::{Map, Value};

use crate::env_errors;
use crate::frame::Table;
use crate::{json_rows, trajectory_rows};

/// A run as it was when it was opened or last refreshed.
#[pyclass(frozen, module = "empg._core")]
pub(crate) struct RunReader {
    run: RwLock<Run>,
}

#[pymethods]
impl RunReader {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let run = py.detach(|| Run::open(path)).map_err(|e| env_errors::run(&e))?;
        Ok(Self { run: RwLock::new(run) })
    }

    /// Looks again at what is committed.
    fn refresh(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.run.write().unwrap_or_else(PoisonError::into_inner).refresh())
            .map_err(|e| env_errors::run(&e))
    }

    /// The manifest, as JSON.
    fn manifest(&self) -> PyResult<String> {
        serde_json::to_string(self.get().manifest())
            .map_err(|e| PyRuntimeError::new_err(e.to_string()))
    }

    /// The resolved configuration, as JSON.
    fn config(&self) -> PyResult<String> {
        let run = self.get();
        let text = run.config().map_err(|e| env_errors::run(&e))?;
        let value: Value = toml::from_str(&text).map_err(|e| {
            let path = run.path().join("config.toml");
            PyValueError::new_err(format!("{} is no TOML: {e}", path.display()))
        })?;
        Ok(value.to_string())
    }

    /// The last committed step.
    #[getter]
    fn step(&self) -> Option<u64> {
        self.get().manifest().step
    }

    /// Training steps that have trajectories.
    #[getter]
    fn trajectory_steps(&self) -> Vec<u64> {
        self.get().trajectory_steps().collect()
    }

    /// Names of the panels.
    #[getter]
    fn panels(&self) -> PyResult<Vec<String>> {
        self.get().panels().map_err(|e| env_errors::run(&e))
    }

    /// One row per committed step; the keys in `skip` are left out.
    fn metrics(&self, py: Python<'_>, skip: Vec<String>) -> PyResult<Table> {
        py.detach(move || {
            let skip: Vec<&str> = skip.iter().map(String::as_str).collect();
            let rows = self.get().metrics().map_err(|e| env_errors::run(&e))?;
            json_rows::table(&rows, &skip).map_err(|e| arrow(&e))
        })
    }

    /// One row per entry of the lists that a metric holds, with the step before it.
    fn nested(&self, py: Python<'_>, key: &str) -> PyResult<Table> {
        py.detach(|| {
            let rows = self.get().metrics().map_err(|e| env_errors::run(&e))?;
            let mut entries: Vec<Map<String, Value>> = Vec::new();
            for mut row in rows {
                let Some(Value::Array(list)) = row.remove(key) else { continue };
                for entry in list {
                    let Value::Object(mut entry) = entry else { continue };
                    entry.insert("step".to_owned(), row.get("step").cloned().unwrap_or_default());
                    entries.push(entry);
                }
            }
            json_rows::table(&entries, &[]).map_err(|e| arrow(&e))
        })
    }

    /// One row per committed step: wall-clock quantities.
    fn timings(&self, py: Python<'_>) -> PyResult<Table> {
        py.detach(|| {
            let rows = self.get().timings().map_err(|e| env_errors::run(&e))?;
            json_rows::table(&rows, &[]).map_err(|e| arrow(&e))
        })
    }

    /// The lines of a panel.
    fn panel(&self, py: Python<'_>, name: &str) -> PyResult<Table> {
        py.detach(|| {
            let rows = self.get().panel(name).map_err(|e| env_errors::run(&e))?;
            json_rows::table(&rows, &[]).map_err(|e| arrow(&e))
        })
    }

    /// The agent steps of training steps, in the order given.
    fn trajectories(&self, py: Python<'_>, steps: Vec<u64>) -> PyResult<Table> {
        py.detach(|| {
            let run = self.get();
            let mut batches = Vec::with_capacity(steps.len());
            for step in steps {
                let rows = run.trajectories(step).map_err(|e| env_errors::run(&e))?;
                batches.push(trajectory_rows::batch(&rows).map_err(|e| arrow(&e))?);
            }
            Ok(Table::of(trajectory_rows::schema(), batches))
        })
    }
}

impl RunReader {
    /// The run as it is now; reading goes on while another thread refreshes.
    fn get(&self) -> Run {
        self.run.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn arrow(error: &ArrowError) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}
