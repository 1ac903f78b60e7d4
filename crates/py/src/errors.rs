//! What the core refuses, as Python exceptions that name the argument, the shape and the row.

use empg::AdvantageError;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays::bad;

/// The arguments as messages name them.
pub(crate) struct Labels {
    pub(crate) advantages: String,
    pub(crate) entropy: String,
}

/// A core error about tokens of these arguments.
pub(crate) fn of_tokens(error: &AdvantageError, labels: &Labels) -> PyErr {
    match *error {
        AdvantageError::NotFinite { what, trajectory, step, token } => {
            let label = match what {
                "entropy" => &labels.entropy,
                "advantage" | "base advantage" => &labels.advantages,
                // A credit: it is named by its trajectory in the batch.
                _ => return plain(error),
            };
            let step = step.map_or(String::new(), |step| format!(", step {step}"));
            match token {
                Some(token) => {
                    bad(label, format!("not finite at row {trajectory}{step}, token {token}"))
                }
                None => bad(label, format!("not finite at row {trajectory}{step}")),
            }
        }
        AdvantageError::EmptyBatch => bad(&labels.entropy, "the batch has no row"),
        AdvantageError::NoSteps => bad(
            &labels.entropy,
            "no row has a step (all of mask is 0, or steps is empty): the statistics are taken \
             over steps",
        ),
        AdvantageError::TooManySteps { .. } => bad("first_step", error),
        AdvantageError::DuplicateStep(key) => bad(
            "trajectories",
            format!(
                "trajectory {} step {} occurs twice: give rows of one trajectory their first_step",
                key.trajectory, key.step
            ),
        ),
        AdvantageError::UnknownStep(_) | AdvantageError::StepDiffers { .. } => bad("table", error),
        _ => plain(error),
    }
}

/// A core error about anything else.
pub(crate) fn plain(error: &AdvantageError) -> PyErr {
    match error {
        AdvantageError::Option { name, value, needs } => {
            let name = match *name {
                "k-f" => "k_f",
                "quantile-low" | "quantile-high" => "quantile",
                "overlong.penalty" => "penalty",
                "overlong.buffer" => "buffer",
                other => other,
            };
            let needs = match *needs {
                "must be below quantile-high" => "the lower must be below the upper",
                "must not exceed overlong.max" => "must not exceed max_length",
                other => other,
            };
            bad(name, format!("{value}: {needs}"))
        }
        _ => PyValueError::new_err(error.to_string()),
    }
}
