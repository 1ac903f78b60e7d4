//! Base advantages from the rewards of groups, and DAPO's filter and shaping.

use empg::{DrGrpo, GroupError, Grpo, Overlong, Rloo, advantages_by_group, flat_by_group};
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::arrays::{bad, integers_as, numbers, shape_of};
use crate::errors::plain;

type Floats<'py> = Bound<'py, PyArray1<f64>>;

/// Rewards and, for each, the index of its group.
fn grouped(
    rewards: &Bound<'_, PyAny>,
    groups: &Bound<'_, PyAny>,
) -> PyResult<(Vec<f64>, Vec<usize>)> {
    let rewards = numbers("rewards", rewards)?;
    let groups = if groups.hasattr("tolist")? { &groups.call_method0("tolist")? } else { groups };
    let seen = PyDict::new(groups.py());
    let mut indices = Vec::with_capacity(rewards.len());
    for (row, id) in groups.try_iter().map_err(|error| bad("groups", error))?.enumerate() {
        let wrong = |error: PyErr| bad("groups", format!("row {row}: {error}"));
        let key = key(&id?, NESTED).map_err(wrong)?;
        let index = if let Some(index) = seen.get_item(&key).map_err(wrong)? {
            index.extract()?
        } else {
            let next = seen.len();
            seen.set_item(key, next).map_err(wrong)?;
            next
        };
        indices.push(index);
    }
    if indices.len() != rewards.len() {
        let (got, wanted) = (shape_of(&[indices.len()]), shape_of(&[rewards.len()]));
        return Err(bad("groups", format!("shape {got}, expected {wanted} as rewards")));
    }
    Ok((rewards, indices))
}

/// Sequences within sequences that an id may have.
const NESTED: usize = 32;

/// An id as Python compares it by hash and `==`: arrays and lists by what is in them, numbers of numpy
/// and torch as Python's.
fn key<'py>(id: &Bound<'py, PyAny>, nested: usize) -> PyResult<Bound<'py, PyAny>> {
    let id = if id.hasattr("tolist")? { id.call_method0("tolist")? } else { id.clone() };
    if !(id.is_instance_of::<PyList>() || id.is_instance_of::<PyTuple>()) {
        return Ok(id);
    }
    if nested == 0 {
        return Err(pyo3::exceptions::PyValueError::new_err("an id that is nested too deeply"));
    }
    let parts = id.try_iter()?.map(|part| key(&part?, nested - 1));
    Ok(PyTuple::new(id.py(), parts.collect::<PyResult<Vec<_>>>()?)?.into_any())
}

fn compared<'py>(
    py: Python<'py>,
    rewards: &Bound<'py, PyAny>,
    groups: &Bound<'py, PyAny>,
    advantages: impl Fn(&[f64]) -> Result<Vec<f64>, GroupError> + Send + Sync,
) -> PyResult<Floats<'py>> {
    let (rewards, groups) = grouped(rewards, groups)?;
    py.detach(|| advantages_by_group(&rewards, &groups, advantages))
        .map(|all| PyArray1::from_vec(py, all))
        .map_err(|(row, error)| match error {
            GroupError::NotFinite(_) => {
                let shape = shape_of(&[rewards.len()]);
                bad("rewards", format!("{} at row {row} of shape {shape}", rewards[row]))
            }
            GroupError::Eps(_) => bad("eps", "must be finite and at least 0"),
            GroupError::One => bad(
                "groups",
                format!(
                    "the group of row {row} has no other row, and has nothing to be compared with"
                ),
            ),
            other => bad("groups", format!("the group of row {row}: {other}")),
        })
}

/// Group-relative advantages: (R - mean) / (std + eps) over each group.
///
/// Parameters
/// ----------
/// rewards : numbers (B,)
/// groups : ids of any kind (B,)
///     Rows with equal ids are compared with each other.
/// ddof : int
///     Delta degrees of freedom of the standard deviation.
/// eps : float
///     Added to it: 1e-6 is verl's, 1e-4 TRL's.
///
/// Returns
/// -------
/// float64 array (B,)
///     0 throughout a group of equal rewards.
///
/// Raises
/// ------
/// ValueError
///     A group of one, a reward that is not finite (the row is named).
#[pyfunction]
#[pyo3(signature = (rewards, groups, ddof=1, eps=1e-6))]
pub(crate) fn grpo<'py>(
    py: Python<'py>,
    rewards: &Bound<'py, PyAny>,
    groups: &Bound<'py, PyAny>,
    ddof: u32,
    eps: f64,
) -> PyResult<Floats<'py>> {
    let estimator = Grpo { ddof, eps };
    compared(py, rewards, groups, move |rewards| estimator.advantages(rewards))
}

/// Dr. GRPO's advantages: R - mean over each group.
///
/// Parameters
/// ----------
/// rewards : numbers (B,)
/// groups : ids of any kind (B,)
///
/// Returns
/// -------
/// float64 array (B,)
///
/// Raises
/// ------
/// ValueError
///     A reward that is not finite (the row is named).
#[pyfunction]
pub(crate) fn dr_grpo<'py>(
    py: Python<'py>,
    rewards: &Bound<'py, PyAny>,
    groups: &Bound<'py, PyAny>,
) -> PyResult<Floats<'py>> {
    compared(py, rewards, groups, DrGrpo::advantages)
}

/// Leave-one-out advantages: R - mean of the others of each group.
///
/// Parameters
/// ----------
/// rewards : numbers (B,)
/// groups : ids of any kind (B,)
///
/// Returns
/// -------
/// float64 array (B,)
///
/// Raises
/// ------
/// ValueError
///     A group of one, a reward that is not finite (the row is named).
#[pyfunction]
pub(crate) fn rloo<'py>(
    py: Python<'py>,
    rewards: &Bound<'py, PyAny>,
    groups: &Bound<'py, PyAny>,
) -> PyResult<Floats<'py>> {
    compared(py, rewards, groups, Rloo::advantages)
}

/// Tell which rows belong to groups of equal rewards, which DAPO drops and samples again.
///
/// Parameters
/// ----------
/// rewards : numbers (B,)
/// groups : ids of any kind (B,)
///
/// Returns
/// -------
/// bool array (B,)
///
/// Raises
/// ------
/// ValueError
///     Shapes that disagree, a reward that is NaN.
#[pyfunction]
pub(crate) fn flat_groups<'py>(
    py: Python<'py>,
    rewards: &Bound<'py, PyAny>,
    groups: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray1<bool>>> {
    let (rewards, groups) = grouped(rewards, groups)?;
    if let Some(row) = rewards.iter().position(|reward| reward.is_nan()) {
        let shape = shape_of(&[rewards.len()]);
        return Err(bad("rewards", format!("NaN at row {row} of shape {shape}")));
    }
    Ok(PyArray1::from_vec(py, py.detach(|| flat_by_group(&rewards, &groups))))
}

/// Punish over-long responses softly, as DAPO does: what to add to each reward.
///
/// Free up to `max_length - buffer` tokens, then falling linearly to `-penalty` at `max_length`.
///
/// Parameters
/// ----------
/// lengths : integers (B,)
///     Sampled tokens of each response.
/// max_length, buffer : int
/// penalty : float
///
/// Returns
/// -------
/// float64 array (B,), 0 or negative
///
/// Raises
/// ------
/// ValueError
///     A buffer longer than `max_length`, a negative length or penalty.
#[pyfunction]
#[pyo3(signature = (lengths, max_length, buffer, penalty=1.0))]
pub(crate) fn overlong_penalty<'py>(
    py: Python<'py>,
    lengths: &Bound<'py, PyAny>,
    max_length: usize,
    buffer: usize,
    penalty: f64,
) -> PyResult<Floats<'py>> {
    let overlong = Overlong { max: max_length, buffer, penalty };
    overlong.validate().map_err(|error| plain(&error))?;
    let lengths: Vec<usize> = integers_as("lengths", lengths, None)?;
    let all = lengths.into_iter().map(|length| overlong.shaping(length));
    Ok(PyArray1::from_iter(py, all))
}
