//! `modulate` and `explain`.

use empg::{EmpgOptions, Part, TokenCredit};
use numpy::{PyArrayDyn, PyArrayMethods as _, PyReadwriteArrayDyn};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::arrays::{Given, bad, shape_of};
use crate::batch::{Float, Rows};
use crate::credit::Credit;
use crate::errors::of_tokens;
use crate::options::{Quantile, options};
use crate::table::StepTable;

/// Modulate advantages by step entropy (EMPG).
///
/// Parameters
/// ----------
/// advantages : array (B,) or (B, T); ragged: (B,) or (N,)
///     Base advantages, per row or per token. If B = N, they are taken per token. Per token they
///     have the precision of `entropy`; per row they are read in it.
/// entropy : array (B, T); ragged: (N,)
///     Token entropies in nats; read inside steps only.
/// mask : array of 0 and 1, shape of `entropy`, optional
///     Steps are its runs of 1. Give this or `steps`.
/// steps : list of lists of (start, end), one per row, or integer array (S, 3), optional
///     Token ranges within each row; the array holds row, start and end.
/// offsets : integers (B + 1,), optional
///     Where the rows of ragged arrays begin and end.
/// trajectories : integers (B,), optional
///     Which trajectory of the whole batch each row belongs to; by default its own.
/// first_step : integers (B,), optional
///     Index within its trajectory of each row's first step, where trajectories are cut into rows.
/// table : StepTable, optional
///     Steps of the whole batch, gathered from all workers; statistics are then taken over it.
/// k, k_f, zeta : float
///     Strength of the scaling g, strength of the future clarity f, weight of the bonus.
/// shape : {"exp", "linear"}
///     How g and f fall with entropy.
/// normalize : {"minmax", "quantile"}
///     Bounds of the entropies; `quantile` holds the two for the latter.
/// gate_bonus : bool
///     No bonus where the base advantage is 0.
/// center : bool
///     Subtract the mean over steps.
/// paper_exact : bool
///     Tokens outside steps become A - mean, as in the paper's pseudo-code, instead of 0.
/// out : array of the result's shape and dtype, optional
///     Where to write; may be `advantages` itself, but share no other memory with what is read.
/// threads : int
///     0 = all cores. The result does not depend on it.
///
/// Returns
/// -------
/// array of the shape of `entropy`, with the dtype (and device) of `advantages`
///     Of torch where either is; numpy's otherwise, also of arrays that were read through DLPack.
///     With the precision of `entropy` where advantages per row have another. `out` if it was given.
///
/// Raises
/// ------
/// ValueError
///     Shapes, dtypes or values that do not fit: the argument, its shape and the row are named.
/// TypeError
///     An argument that is no array.
///
/// Notes
/// -----
/// The interpreter lock is released: no other thread may write to the arrays meanwhile.
#[pyfunction]
#[pyo3(
    signature = (
        advantages, entropy, *, mask=None, steps=None, offsets=None, trajectories=None,
        first_step=None, table=None, k=1.0, k_f=1.0, zeta=0.1, shape="exp", normalize="minmax",
        quantile=Quantile(0.05, 0.95), gate_bonus=false, center=true, paper_exact=false, out=None,
        threads=0
    ),
    text_signature = "(advantages, entropy, *, mask=None, steps=None, offsets=None, \
        trajectories=None, first_step=None, table=None, k=1.0, k_f=1.0, zeta=0.1, shape='exp', \
        normalize='minmax', quantile=(0.05, 0.95), gate_bonus=False, center=True, \
        paper_exact=False, out=None, threads=0)"
)]
pub(crate) fn modulate<'py>(
    advantages: &Bound<'py, PyAny>,
    entropy: &Bound<'py, PyAny>,
    mask: Option<&Bound<'py, PyAny>>,
    steps: Option<&Bound<'py, PyAny>>,
    offsets: Option<&Bound<'py, PyAny>>,
    trajectories: Option<&Bound<'py, PyAny>>,
    first_step: Option<&Bound<'py, PyAny>>,
    table: Option<&Bound<'py, StepTable>>,
    k: f64,
    k_f: f64,
    zeta: f64,
    shape: &str,
    normalize: &str,
    quantile: Quantile,
    gate_bonus: bool,
    center: bool,
    paper_exact: bool,
    out: Option<&Bound<'py, PyAny>>,
    threads: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let options =
        options(k, k_f, zeta, shape, normalize, quantile, gate_bonus, center, paper_exact)?;
    let rows =
        Rows::new(advantages, entropy, mask, steps, offsets, trajectories, first_step, threads)?;
    let call = Call { rows: &rows, options: &options, table, threads };
    let double = rows.is_double();
    let Some(out) = out else {
        let result = if double { call.fresh::<f64>() } else { call.fresh::<f32>() }?;
        return rows.give_back(result);
    };
    let target = Given::new("out", out)?;
    if target.shape() != rows.entropy.shape() {
        let (got, wanted) = (shape_of(target.shape()), shape_of(rows.entropy.shape()));
        return Err(bad("out", format!("shape {got}, expected {wanted}")));
    }
    if double { call.write::<f64>(&target) } else { call.write::<f32>(&target) }?;
    Ok(out.clone())
}

/// Explain how the credit of each step comes about.
///
/// Parameters
/// ----------
/// See `modulate`; the same without `out`.
///
/// Returns
/// -------
/// Credit
///     One entry per step of the rows, row by row, with `row`, `start` and `end`; its summary is
///     that of the whole batch.
///
/// Raises
/// ------
/// ValueError, TypeError
///     As `modulate`.
#[pyfunction]
#[pyo3(
    signature = (
        advantages, entropy, *, mask=None, steps=None, offsets=None, trajectories=None,
        first_step=None, table=None, k=1.0, k_f=1.0, zeta=0.1, shape="exp", normalize="minmax",
        quantile=Quantile(0.05, 0.95), gate_bonus=false, center=true, paper_exact=false, threads=0
    ),
    text_signature = "(advantages, entropy, *, mask=None, steps=None, offsets=None, \
        trajectories=None, first_step=None, table=None, k=1.0, k_f=1.0, zeta=0.1, shape='exp', \
        normalize='minmax', quantile=(0.05, 0.95), gate_bonus=False, center=True, \
        paper_exact=False, threads=0)"
)]
pub(crate) fn explain<'py>(
    advantages: &Bound<'py, PyAny>,
    entropy: &Bound<'py, PyAny>,
    mask: Option<&Bound<'py, PyAny>>,
    steps: Option<&Bound<'py, PyAny>>,
    offsets: Option<&Bound<'py, PyAny>>,
    trajectories: Option<&Bound<'py, PyAny>>,
    first_step: Option<&Bound<'py, PyAny>>,
    table: Option<&Bound<'py, StepTable>>,
    k: f64,
    k_f: f64,
    zeta: f64,
    shape: &str,
    normalize: &str,
    quantile: Quantile,
    gate_bonus: bool,
    center: bool,
    paper_exact: bool,
    threads: usize,
) -> PyResult<Credit> {
    let options =
        options(k, k_f, zeta, shape, normalize, quantile, gate_bonus, center, paper_exact)?;
    let rows =
        Rows::new(advantages, entropy, mask, steps, offsets, trajectories, first_step, threads)?;
    let call = Call { rows: &rows, options: &options, table, threads };
    let credit = if rows.is_double() { call.credit::<f64>() } else { call.credit::<f32>() }?;
    Ok(Credit::of_rows(credit, &rows.steps))
}

struct Call<'a, 'py> {
    rows: &'a Rows<'py>,
    options: &'a EmpgOptions,
    table: Option<&'a Bound<'py, StepTable>>,
    threads: usize,
}

impl<'py> Call<'_, 'py> {
    fn part(&self) -> Part<'_> {
        Part { keys: self.rows.keys(), table: self.table.map(|table| &table.get().0) }
    }

    fn credit<T: Float>(&self) -> PyResult<TokenCredit> {
        let (entropy, advantages) = (self.rows.entropy::<T>()?, self.rows.advantages::<T>()?);
        let (entropy, base) = (entropy.as_slice()?, self.rows.base(advantages.as_slice()?));
        let (part, steps) = (self.part(), &self.rows.steps);
        let (options, threads) = (self.options, self.threads);
        let py = self.rows.entropy.array.py();
        py.detach(|| options.credit_part(steps, entropy, base, part, threads))
            .map_err(|error| of_tokens(&error, &self.rows.labels()))
    }

    /// A new numpy array with the result.
    fn fresh<T: Float>(&self) -> PyResult<Bound<'py, PyAny>> {
        let py = self.rows.entropy.array.py();
        let shape = PyTuple::new(py, self.rows.entropy.shape())?;
        let array = py.import("numpy")?.call_method1("empty", (shape, T::NAME))?;
        let array = array.cast_into::<PyArrayDyn<T>>()?;
        self.write_into(|| array.try_readwrite().map_err(|error| bad("out", error)))?;
        Ok(array.into_any())
    }

    /// The result in the target, whose shape fits.
    fn write<T: Float>(&self, target: &Given<'py>) -> PyResult<()> {
        if !target.shared || target.is_half() {
            return target.fill(self.fresh::<T>()?);
        }
        let Rows { advantages, entropy, mask, steps, .. } = self.rows;
        let address = advantages.address::<T>();
        let same = advantages.shared && address.is_some() && address == target.address::<T>();
        let read = [Some(entropy), mask.as_ref()].into_iter().flatten();
        if self.rows.is_per_row() || !same {
            return self.write_into(|| {
                target.apart_from(read.chain([advantages]))?;
                target.floats_mut::<T>(T::NAME)
            });
        }
        // Checks dtype and layout of the advantages, as everywhere.
        drop(self.rows.advantages::<T>()?);
        let entropy = self.rows.entropy::<T>()?;
        target.apart_from(read)?;
        let mut both = target.floats_mut::<T>(T::NAME)?;
        let (entropy, both) = (entropy.as_slice()?, both.as_slice_mut()?);
        let (part, options, threads) = (self.part(), self.options, self.threads);
        let py = self.rows.entropy.array.py();
        py.detach(|| options.modulate_part(steps, entropy, both, part, threads))
            .map_err(|error| of_tokens(&error, &self.rows.labels()))?;
        Ok(())
    }

    /// Borrows the inputs, then what `out` gives.
    fn write_into<T: Float>(
        &self,
        out: impl FnOnce() -> PyResult<PyReadwriteArrayDyn<'py, T>>,
    ) -> PyResult<()> {
        let (entropy, advantages) = (self.rows.entropy::<T>()?, self.rows.advantages::<T>()?);
        let mut out = out()?;
        let (entropy, base) = (entropy.as_slice()?, self.rows.base(advantages.as_slice()?));
        let out = out.as_slice_mut()?;
        let (part, steps) = (self.part(), &self.rows.steps);
        let (options, threads) = (self.options, self.threads);
        let py = self.rows.entropy.array.py();
        py.detach(|| options.modulate_part_into(steps, entropy, base, out, part, threads))
            .map_err(|error| of_tokens(&error, &self.rows.labels()))?;
        Ok(())
    }
}
