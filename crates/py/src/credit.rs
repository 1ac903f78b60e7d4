//! `Credit`: one entry per step, column by column.

use empg::{CreditSummary, StepCredit, StepRow, StepSpans, TokenCredit};
use numpy::PyArray1;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The credit of steps: advantage = base * g + bonus - centring.
#[pyclass(frozen, module = "empg")]
pub(crate) struct Credit {
    rows: Vec<StepRow>,
    steps: Vec<StepCredit>,
    summary: CreditSummary,
    /// Row, start and end of each step, where the steps are those of rows of tokens.
    places: Option<Vec<[i64; 3]>>,
}

impl Credit {
    pub(crate) fn of_rows(credit: TokenCredit, spans: &StepSpans) -> Self {
        let places = (0..spans.rows().len()).flat_map(|row| {
            spans.of_row(row).iter().map(move |s| [row as i64, s.start as i64, s.end as i64])
        });
        let places = Some(places.collect());
        Self { rows: credit.rows, steps: credit.steps, summary: credit.summary, places }
    }

    pub(crate) fn of_table(rows: Vec<StepRow>, steps: Vec<StepCredit>) -> Self {
        Self { rows, summary: CreditSummary::of(&steps), steps, places: None }
    }

    fn column<'py>(
        &self,
        py: Python<'py>,
        value: impl Fn(&StepCredit) -> f64,
    ) -> Bound<'py, PyArray1<f64>> {
        PyArray1::from_iter(py, self.steps.iter().map(value))
    }

    fn place<'py>(&self, py: Python<'py>, column: usize) -> Option<Bound<'py, PyArray1<i64>>> {
        let places = self.places.as_ref()?;
        Some(PyArray1::from_iter(py, places.iter().map(|place| place[column])))
    }
}

#[pymethods]
impl Credit {
    /// Row of each step, int64 (S,); None for the credit of a table.
    #[getter]
    fn row<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<i64>>> {
        self.place(py, 0)
    }

    /// First token of each step within its row, int64 (S,); None for the credit of a table.
    #[getter]
    fn start<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<i64>>> {
        self.place(py, 1)
    }

    /// One past the last token of each step within its row, int64 (S,); None for the credit of a
    /// table.
    #[getter]
    fn end<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<i64>>> {
        self.place(py, 2)
    }

    /// Trajectory of each step, uint64 (S,).
    #[getter]
    fn trajectory<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        PyArray1::from_iter(py, self.rows.iter().map(|row| row.key.trajectory))
    }

    /// Index of each step within its trajectory, uint32 (S,).
    #[getter]
    fn step<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        PyArray1::from_iter(py, self.rows.iter().map(|row| row.key.step))
    }

    /// Final advantage, float64 (S,).
    #[getter]
    fn advantage<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.column(py, |c| c.advantage)
    }

    /// Base advantage, float64 (S,).
    #[getter]
    fn base<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.column(py, |c| c.base)
    }

    /// Mean token entropy in nats, float64 (S,).
    #[getter]
    fn entropy<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.column(py, |c| c.entropy)
    }

    /// Entropy normalised over the batch to 0..1, float64 (S,).
    #[getter]
    fn h_norm<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.column(py, |c| c.h_norm)
    }

    /// Gradient scaling, float64 (S,); its mean over the batch is 1.
    #[getter]
    fn g<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.column(py, |c| c.g)
    }

    /// Clarity of the next step, float64 (S,); NaN for the last of a trajectory.
    #[getter]
    fn f_next<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.column(py, |c| c.f_next.unwrap_or(f64::NAN))
    }

    /// zeta * f_next, or 0; float64 (S,).
    #[getter]
    fn bonus<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.column(py, |c| c.bonus)
    }

    /// The mean that was subtracted, float64 (S,).
    #[getter]
    fn centring<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.column(py, |c| c.centring)
    }

    /// Statistics of the whole batch to log, as a dict of numbers.
    #[getter]
    fn summary<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let CreditSummary {
            steps,
            entropy_min,
            entropy_mean,
            entropy_max,
            g_min,
            g_max,
            g_std,
            bonus_mean,
            base_mean,
            centring,
            advantage_abs_mean,
        } = self.summary;
        let dict = PyDict::new(py);
        dict.set_item("steps", steps)?;
        for (name, value) in [
            ("entropy_min", entropy_min),
            ("entropy_mean", entropy_mean),
            ("entropy_max", entropy_max),
            ("g_min", g_min),
            ("g_max", g_max),
            ("g_std", g_std),
            ("bonus_mean", bonus_mean),
            ("base_mean", base_mean),
            ("centring", centring),
            ("advantage_abs_mean", advantage_abs_mean),
        ] {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    /// Return all columns as a dict of arrays.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        if self.places.is_some() {
            for (column, name) in ["row", "start", "end"].into_iter().enumerate() {
                dict.set_item(name, self.place(py, column))?;
            }
        }
        dict.set_item("trajectory", self.trajectory(py))?;
        dict.set_item("step", self.step(py))?;
        dict.set_item("advantage", self.advantage(py))?;
        dict.set_item("base", self.base(py))?;
        dict.set_item("entropy", self.entropy(py))?;
        dict.set_item("h_norm", self.h_norm(py))?;
        dict.set_item("g", self.g(py))?;
        dict.set_item("f_next", self.f_next(py))?;
        dict.set_item("bonus", self.bonus(py))?;
        dict.set_item("centring", self.centring(py))?;
        Ok(dict)
    }

    /// Describe the credit of one step in words and terms.
    ///
    /// Raises
    /// ------
    /// IndexError
    ///     There is no such step.
    fn describe(&self, index: isize) -> PyResult<String> {
        let count = self.steps.len() as isize;
        let place = if index < 0 { index.saturating_add(count) } else { index };
        let credit = usize::try_from(place).ok().and_then(|place| self.steps.get(place));
        credit
            .map(|credit| credit.explain().to_string())
            .ok_or_else(|| PyIndexError::new_err(format!("step {index} of {count}")))
    }

    fn __len__(&self) -> usize {
        self.steps.len()
    }

    fn __repr__(&self) -> String {
        let s = &self.summary;
        format!(
            "Credit(steps={}, g={:.4}..{:.4}, bonus_mean={:.4}, centring={:+.4})",
            self.steps.len(),
            s.g_min,
            s.g_max,
            s.bonus_mean,
            s.centring
        )
    }
}
