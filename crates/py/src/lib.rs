//! The Python extension module `empg._core`: glue between numpy arrays and the library crates.

use pyo3::prelude::*;

/// The native part of the package `empg`.
#[pymodule]
mod _core {
    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
