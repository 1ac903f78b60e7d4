//! The Python extension module `empg._core`: glue between numpy arrays and the library crates.

mod arrays;
mod bases;
mod batch;
mod credit;
mod errors;
mod modulate;
mod options;
mod spans;
mod steps;
mod table;

use pyo3::prelude::*;

/// The native part of the package `empg`.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<credit::Credit>()?;
    module.add_class::<table::StepTable>()?;
    module.add_function(wrap_pyfunction!(modulate::modulate, module)?)?;
    module.add_function(wrap_pyfunction!(modulate::explain, module)?)?;
    module.add_function(wrap_pyfunction!(steps::steps_from_mask, module)?)?;
    module.add_function(wrap_pyfunction!(steps::steps_from_chatml, module)?)?;
    module.add_function(wrap_pyfunction!(bases::grpo, module)?)?;
    module.add_function(wrap_pyfunction!(bases::dr_grpo, module)?)?;
    module.add_function(wrap_pyfunction!(bases::rloo, module)?)?;
    module.add_function(wrap_pyfunction!(bases::flat_groups, module)?)?;
    module.add_function(wrap_pyfunction!(bases::overlong_penalty, module)?)?;
    Ok(())
}
