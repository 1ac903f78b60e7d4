//! EMPG's options from keyword arguments.

use empg::{EmpgOptions, Normalize, Shape};
use pyo3::prelude::*;

use crate::arrays::bad;
use crate::errors::plain;

/// # Errors
/// ValueError for a value outside its domain.
pub(crate) fn options(
    k: f64,
    k_f: f64,
    zeta: f64,
    shape: &str,
    normalize: &str,
    quantile: (f64, f64),
    gate_bonus: bool,
    center: bool,
    paper_exact: bool,
) -> PyResult<EmpgOptions> {
    let shape = match shape {
        "exp" => Shape::Exp,
        "linear" => Shape::Linear,
        other => return Err(bad("shape", format!("{other:?}, expected \"exp\" or \"linear\""))),
    };
    let normalize = match normalize {
        "minmax" => Normalize::Minmax,
        "quantile" => Normalize::Quantile,
        other => {
            let why = format!("{other:?}, expected \"minmax\" or \"quantile\"");
            return Err(bad("normalize", why));
        }
    };
    let options = EmpgOptions {
        k,
        k_f,
        zeta,
        shape,
        normalize,
        quantile_low: quantile.0,
        quantile_high: quantile.1,
        gate_bonus,
        center,
        paper_exact,
        ..EmpgOptions::default()
    };
    options.validate().map_err(|error| plain(&error))?;
    Ok(options)
}
