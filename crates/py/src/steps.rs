//! Finding steps: by a mask, or by the chat template's markers.

use empg::{ChatMarkers, ResponseStart, TokenRows};
use pyo3::prelude::*;

use crate::arrays::{Given, bad, integers_as, shape_of};
use crate::spans::{from_mask, rows, to_lists};

type Steps = Vec<Vec<(usize, usize)>>;

/// Find steps as runs of 1.
///
/// Parameters
/// ----------
/// mask : array of 0 and 1 (B, T), (T,) for one row, or (N,) with offsets
/// offsets : integers (B + 1,), optional
///     Where the rows of a ragged mask begin and end.
///
/// Returns
/// -------
/// list of lists of (start, end), one per row
///
/// Raises
/// ------
/// ValueError
///     An entry that is neither 0 nor 1 (row and token are named), offsets that do not fit.
#[pyfunction]
#[pyo3(signature = (mask, *, offsets=None))]
pub(crate) fn steps_from_mask(
    py: Python<'_>,
    mask: &Bound<'_, PyAny>,
    offsets: Option<&Bound<'_, PyAny>>,
) -> PyResult<Steps> {
    let mask = Given::new("mask", mask)?;
    let rows = match (mask.shape(), offsets) {
        (&[tokens], None) => TokenRows::padded(1, tokens),
        _ => rows(&mask, offsets)?,
    };
    Ok(to_lists(&from_mask(py, rows, mask.shape(), &mask, 0)?))
}

/// Find steps between the markers of a chat template.
///
/// A step begins after `header` and ends before the next `end`; an unterminated last turn runs to
/// the end of the response; a response that begins inside an assistant turn opens a step at 0.
///
/// Parameters
/// ----------
/// tokens : integers (B, T), or a list of B lists of token ids
///     The responses.
/// header, end : lists of token ids
///     What opens an assistant turn, as `tokenizer.encode("<|im_start|>assistant\n")`, and what
///     closes a turn.
/// lengths : integers (B,), optional
///     Tokens of each response before its padding; all by default.
/// include_end : bool
///     Whether a step includes the end marker: the policy sampled it.
/// start : {"detect", "inside", "outside"}
///     Whether responses begin inside an assistant turn.
///
/// Returns
/// -------
/// list of lists of (start, end), one per row
///
/// Raises
/// ------
/// ValueError
///     An empty marker, token ids or lengths that do not fit.
#[pyfunction]
#[pyo3(signature = (tokens, *, header, end, lengths=None, include_end=false, start="detect"))]
pub(crate) fn steps_from_chatml(
    py: Python<'_>,
    tokens: &Bound<'_, PyAny>,
    header: &Bound<'_, PyAny>,
    end: &Bound<'_, PyAny>,
    lengths: Option<&Bound<'_, PyAny>>,
    include_end: bool,
    start: &str,
) -> PyResult<Steps> {
    let start = match start {
        "detect" => ResponseStart::Detect,
        "inside" => ResponseStart::Inside,
        "outside" => ResponseStart::Outside,
        other => {
            let why = format!("{other:?}, expected \"detect\", \"inside\" or \"outside\"");
            return Err(bad("start", why));
        }
    };
    let header: Vec<u32> = integers_as("header", header, None)?;
    let end: Vec<u32> = integers_as("end", end, None)?;
    let mut responses: Vec<Vec<u32>> = Vec::new();
    let whole = tokens.try_iter().map_err(|_| {
        let class = tokens.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
        pyo3::exceptions::PyTypeError::new_err(format!(
            "tokens: expected an array or lists of token ids, got {class}"
        ))
    })?;
    for (row, response) in whole.enumerate() {
        let ids = integers_as("tokens", &response?, None);
        responses.push(ids.map_err(|error| bad(&format!("row {row} of tokens"), error))?);
    }
    if let Some(lengths) = lengths {
        let lengths: Vec<usize> = integers_as("lengths", lengths, Some(responses.len()))?;
        for (row, (response, length)) in responses.iter_mut().zip(lengths).enumerate() {
            if length > response.len() {
                let why = format!(
                    "{length} at row {row}, whose shape is {}",
                    shape_of(&[response.len()])
                );
                return Err(bad("lengths", why));
            }
            response.truncate(length);
        }
    }
    let markers = ChatMarkers { header: &header, end: &end, include_end, start };
    py.detach(|| {
        responses
            .iter()
            .map(|response| {
                let steps = empg::steps_from_chatml(response, &markers)?;
                Ok(steps.into_iter().map(|step| (step.start, step.end)).collect())
            })
            .collect::<Result<Steps, empg::AdvantageError>>()
    })
    .map_err(|error| bad(if header.is_empty() { "header" } else { "end" }, error))
}
