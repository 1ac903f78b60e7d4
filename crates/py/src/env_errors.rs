//! Errors of environments and runs as Python exceptions.

use std::path::Path;

use empg_env::EnvError;
use empg_env::vector::VectorError;
use empg_run::RunError;
use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyRuntimeError, PyValueError};

/// What an environment refused.
pub(crate) fn env(error: &EnvError) -> PyErr {
    let text = error.to_string();
    match error {
        EnvError::Data { path, .. } if !Path::new(path).exists() => {
            PyFileNotFoundError::new_err(text)
        }
        EnvError::UnknownTask { .. } | EnvError::Data { .. } => PyValueError::new_err(text),
        _ => PyRuntimeError::new_err(text),
    }
}

/// What a vector refused.
pub(crate) fn vector(error: &VectorError) -> PyErr {
    let text = error.to_string();
    match error {
        VectorError::NotStarted(_)
        | VectorError::Over(_)
        | VectorError::Reset { .. }
        | VectorError::Threads { .. } => PyRuntimeError::new_err(text),
        _ => PyValueError::new_err(text),
    }
}

/// Why a run could not be read.
pub(crate) fn run(error: &RunError) -> PyErr {
    let text = error.to_string();
    match error {
        RunError::NotARun { .. } => PyFileNotFoundError::new_err(text),
        RunError::Io { .. } | RunError::DiskFull { .. } => PyOSError::new_err(text),
        _ => PyValueError::new_err(text),
    }
}
