//! The Python extension module `empg._core`: glue between numpy arrays and the library crates.

mod arrays;
mod bases;
mod batch;
mod commands;
mod credit;
mod env_errors;
mod env_source;
mod envs;
mod errors;
mod frame;
mod json_rows;
mod modulate;
mod options;
mod run_dir;
mod run_follower;
mod spans;
mod steps;
mod table;
mod trajectory_rows;
mod turns;

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
    module.add_class::<envs::Environments>()?;
    module.add_class::<turns::Turns>()?;
    module.add_class::<turns::Ends>()?;
    module.add_class::<commands::Commands>()?;
    commands::register(module.py())?;
    module.add_function(wrap_pyfunction!(envs::project, module)?)?;
    module.add_function(wrap_pyfunction!(envs::environment_names, module)?)?;
    module.add_class::<run_dir::RunReader>()?;
    module.add_class::<run_follower::RunFollower>()?;
    module.add_class::<frame::Table>()?;
    Ok(())
}
