//! Rows of tokens from the arguments that `modulate`, `explain` and `StepTable.from_tokens` share.

use empg::{Base, Real, RowKeys, StepSpans};
use numpy::{Element, PyReadonlyArrayDyn};
use pyo3::prelude::*;

use crate::arrays::{Given, Origin, bad, integers_as, shape_of, to_torch};
use crate::errors::Labels;
use crate::spans;

/// A float type of both numpy and the core.
pub(crate) trait Float: Real + Element {
    /// numpy's name.
    const NAME: &'static str;
}

impl Float for f32 {
    const NAME: &'static str = "float32";
}

impl Float for f64 {
    const NAME: &'static str = "float64";
}

/// The arguments, their rows and steps found and their sizes checked.
pub(crate) struct Rows<'py> {
    pub(crate) advantages: Given<'py>,
    pub(crate) entropy: Given<'py>,
    pub(crate) mask: Option<Given<'py>>,
    pub(crate) steps: StepSpans,
    trajectories: Option<Vec<u64>>,
    first_steps: Option<Vec<u32>>,
    per_row: bool,
}

impl<'py> Rows<'py> {
    /// # Errors
    /// TypeError for what is no array, ValueError for arrays that do not fit together.
    pub(crate) fn new(
        advantages: &Bound<'py, PyAny>,
        entropy: &Bound<'py, PyAny>,
        mask: Option<&Bound<'py, PyAny>>,
        steps: Option<&Bound<'py, PyAny>>,
        offsets: Option<&Bound<'py, PyAny>>,
        trajectories: Option<&Bound<'py, PyAny>>,
        first_step: Option<&Bound<'py, PyAny>>,
        threads: usize,
    ) -> PyResult<Self> {
        let advantages = Given::new("advantages", advantages)?;
        let entropy = Given::new("entropy", entropy)?;
        let rows = spans::rows(&entropy, offsets)?;
        let count = rows.len();
        let per_row = if advantages.shape() == entropy.shape() {
            false
        } else if advantages.shape() == [count] {
            true
        } else {
            let (got, whole) = (shape_of(advantages.shape()), shape_of(entropy.shape()));
            let rows = shape_of(&[count]);
            let why = format!("shape {got}, expected {whole} as entropy, or {rows}: one per row");
            return Err(bad("advantages", why));
        };
        let trajectories = trajectories
            .map(|given| integers_as("trajectories", given, Some(count)))
            .transpose()?;
        let first_steps =
            first_step.map(|given| integers_as("first_step", given, Some(count))).transpose()?;
        let py = entropy.array.py();
        let mask = mask.map(|mask| Given::new("mask", mask)).transpose()?;
        let steps = spans::steps(py, rows, entropy.shape(), mask.as_ref(), steps, threads)?;
        Ok(Self { advantages, entropy, mask, steps, trajectories, first_steps, per_row })
    }

    /// Whether the rows are computed in f64.
    pub(crate) fn is_double(&self) -> bool {
        self.entropy.is_double()
    }

    pub(crate) fn labels(&self) -> Labels {
        Labels { advantages: self.advantages.label(), entropy: self.entropy.label() }
    }

    pub(crate) fn keys(&self) -> RowKeys<'_> {
        RowKeys {
            trajectories: self.trajectories.as_deref(),
            first_steps: self.first_steps.as_deref(),
        }
    }

    pub(crate) fn entropy<T: Float>(&self) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
        self.entropy.floats("float32 or float64")
    }

    pub(crate) fn advantages<T: Float>(&self) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
        let wanted = format!("{} as entropy", T::NAME);
        // One number per row costs nothing to convert, and group estimators give float64.
        if self.per_row {
            self.advantages.floats_as(T::NAME, &wanted)
        } else {
            self.advantages.floats(&wanted)
        }
    }

    pub(crate) fn base<'a, T: Float>(&self, advantages: &'a [T]) -> Base<'a, T> {
        if self.per_row { Base::Rows(advantages) } else { Base::Tokens(advantages) }
    }

    /// The result in the dtype of the advantages, on the device of those or of the entropies,
    /// whichever are of torch. Where one base per row is of another precision than the result was
    /// computed in, that of the computation stays.
    pub(crate) fn give_back(&self, result: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let computed = self.per_row && self.advantages.is_double() != self.is_double();
        match (&self.advantages.origin, &self.entropy.origin) {
            (Origin::Torch { tensor }, _) => {
                let dtype = (!computed).then(|| tensor.getattr("dtype")).transpose()?;
                to_torch(result, tensor, dtype)
            }
            (Origin::Numpy { half }, entropy) => {
                let result = if *half && !computed {
                    result.call_method1("astype", ("float16",))?
                } else {
                    result
                };
                match entropy {
                    Origin::Torch { tensor } => to_torch(result, tensor, None),
                    Origin::Numpy { .. } => Ok(result),
                }
            }
        }
    }

    pub(crate) fn is_per_row(&self) -> bool {
        self.per_row
    }
}
