//! Admissible commands: a sequence that makes Python strings only of what is looked at.

use std::sync::Arc;

use empg_env::CommandList;
use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PySlice, PyString, PyTuple, PyType};

/// A sequence of strings, made on access.
#[pyclass(frozen, module = "empg._core")]
pub(crate) struct Commands {
    texts: Arc<CommandList>,
}

impl Commands {
    pub(crate) fn of(texts: Arc<CommandList>) -> Self {
        Self { texts }
    }

    fn list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.texts.iter())
    }
}

#[pymethods]
impl Commands {
    #[new]
    fn new(texts: Vec<String>) -> Self {
        Self { texts: Arc::new(texts.into_iter().collect()) }
    }

    fn __len__(&self) -> usize {
        self.texts.len()
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let len = self.texts.len() as isize;
        if let Ok(slice) = index.cast::<PySlice>() {
            let range = slice.indices(len)?;
            let picked = (0..range.slicelength as isize)
                .filter_map(|i| self.texts.get((range.start + i * range.step) as usize));
            return Ok(PyList::new(py, picked.collect::<Vec<_>>())?.into_any());
        }
        let at: isize = index.extract().map_err(|_| {
            let kind = index.get_type().name().map_or_else(|_| String::new(), |n| n.to_string());
            PyTypeError::new_err(format!("commands are indexed by int or slice, not {kind}"))
        })?;
        let place = if at < 0 { at + len } else { at };
        match usize::try_from(place).ok().and_then(|i| self.texts.get(i)) {
            Some(text) => Ok(PyString::new(py, text).into_any()),
            None => Err(PyIndexError::new_err(format!("index {at} of {len} commands"))),
        }
    }

    fn __contains__(&self, text: &Bound<'_, PyAny>) -> bool {
        let text = text.cast::<PyString>().ok();
        let text = text.as_ref().and_then(|text| text.to_str().ok());
        text.is_some_and(|text| self.texts.iter().any(|other| other == text))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.list(py)?.try_iter()
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        PyList::new(py, self.texts.iter().rev().collect::<Vec<_>>())?.try_iter()
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        if let Ok(other) = other.cast::<Self>() {
            let equal = other.get().texts == self.texts;
            return Ok(equal.into_pyobject(py)?.to_owned().into_any().unbind());
        }
        if other.is_instance_of::<PyList>() || other.is_instance_of::<PyTuple>() {
            let equal = match other.extract::<Vec<String>>() {
                Ok(other) => self.texts.iter().eq(other.iter().map(String::as_str)),
                Err(_) => false,
            };
            return Ok(equal.into_pyobject(py)?.to_owned().into_any().unbind());
        }
        Ok(py.NotImplemented())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Commands({})", self.list(py)?.repr()?.to_str()?))
    }

    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyType>, (Bound<'py, PyList>,))> {
        Ok((py.get_type::<Self>(), (self.list(py)?,)))
    }

    fn index(&self, text: &str) -> PyResult<usize> {
        let place = self.texts.iter().position(|other| other == text);
        place.ok_or_else(|| PyValueError::new_err(format!("{text:?} is not among the commands")))
    }

    fn count(&self, text: &str) -> usize {
        self.texts.iter().filter(|other| *other == text).count()
    }
}

/// Lets `isinstance(commands, collections.abc.Sequence)` hold.
pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    let sequence = py.import("collections.abc")?.getattr("Sequence")?;
    sequence.call_method1("register", (py.get_type::<Commands>(),))?;
    Ok(())
}
