//! Writing a line again, with its credit.

use std::io::Write as _;
use std::ops::Range;

use anyhow::{anyhow, bail};
use empg::StepCredit;

use super::batches::lines;
use super::fields::{Fields, fields};
use super::line::{Fault, fault};
use super::number::numbers;
use super::table::{Given, Row, Seen, StepSeen};

/// Writes the lines again, with their credit.
pub(super) struct Writer<'a> {
    pub(super) seen: &'a Seen,
    pub(super) credits: &'a [StepCredit],
    pub(super) exact: bool,
}

impl Writer<'_> {
    pub(super) fn lines(&self, first: usize, part: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(2 * part.len());
        for (index, line) in lines(part).enumerate() {
            let Some(row) = self.seen.rows.get(first + index) else {
                bail!("the input grew while it was read");
            };
            self.line(first + index, row, line, &mut out).map_err(|Fault { field, why }| {
                anyhow!("line {} changed while it was read: {field} {why}", row.line)
            })?;
        }
        Ok(out)
    }

    fn line(&self, index: usize, row: &Row, line: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let Some((b'}', body)) = line.split_last() else {
            return Err(Fault { field: "", why: "no JSON object".into() });
        };
        let again = row.stale || row.given == Given::Tokens;
        let fields = if again { fields(line)? } else { Fields::default() };
        let mut from = 0;
        for Range { start, end } in fields.stale {
            out.extend_from_slice(&body[from..start.max(from)]);
            from = end;
        }
        out.extend_from_slice(&body[from.min(body.len())..]);
        while out.last().is_some_and(|b| b.is_ascii_whitespace() || *b == b',') {
            out.pop();
        }
        out.extend_from_slice(b",\"advantages\":[");
        let steps = self.seen.steps_of(index);
        let (spans, credits) = (&self.seen.steps[steps.clone()], &self.credits[steps]);
        match (row.given, fields.advantage) {
            (Given::Tokens, Some(array)) => self.vary(array, spans, credits, out)?,
            _ => self.repeat(row, spans, credits, out),
        }
        if out.last() == Some(&b',') {
            out.pop();
        }
        out.extend_from_slice(b"],\"credit\":[");
        for (step, (span, c)) in spans.iter().zip(credits).enumerate() {
            out.extend_from_slice(if step == 0 { b"{" } else { b",{" });
            let _ = write!(out, "\"start\":{},\"end\":{}", span.start, span.end);
            for (name, value) in
                [("entropy", Some(c.entropy)), ("h_norm", Some(c.h_norm)), ("g", Some(c.g))]
                    .into_iter()
                    .chain([("f_next", c.f_next), ("base", Some(c.base))])
                    .chain([("bonus", Some(c.bonus)), ("advantage", Some(c.advantage))])
            {
                let _ = write!(out, ",\"{name}\":");
                push(out, value.unwrap_or(f64::NAN));
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"]}\n");
        Ok(())
    }

    /// What is subtracted outside steps, where those are not 0.
    fn centring(&self) -> f64 {
        self.credits.first().map_or(0.0, |c| c.centring)
    }

    /// One base for the whole row.
    fn repeat(&self, row: &Row, spans: &[StepSeen], credits: &[StepCredit], out: &mut Vec<u8>) {
        let outside = if self.exact { row.base - self.centring() } else { 0.0 };
        let mut from = 0;
        for (span, credit) in spans.iter().zip(credits) {
            push_times(out, outside, (span.start - from) as usize);
            push_times(out, credit.advantage, (span.end - span.start) as usize);
            from = span.end;
        }
        push_times(out, outside, (row.tokens - from) as usize);
    }

    /// A base per token, mostly the same for a whole step.
    fn vary(
        &self,
        array: &[u8],
        spans: &[StepSeen],
        credits: &[StepCredit],
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let centring = self.centring();
        let mut current = 0;
        let mut last = (f64::NAN, 0..0);
        let mut beyond = None;
        numbers("advantage", array, |token, base, _| {
            let token = token as u32;
            while spans.get(current).is_some_and(|span| token >= span.end) {
                current += 1;
            }
            let value = match spans.get(current).filter(|span| token >= span.start) {
                Some(span) if base == span.base => credits[current].advantage,
                Some(_) => {
                    let c = &credits[current];
                    base * c.g + (c.bonus - c.centring)
                }
                None if self.exact => base - centring,
                None => 0.0,
            };
            if !value.is_finite() {
                beyond.get_or_insert(token);
            }
            if value == last.0 {
                out.extend_from_within(last.1.clone());
                return;
            }
            let start = out.len();
            push(out, value);
            out.push(b',');
            last = (value, start..out.len());
        })?;
        match beyond {
            Some(token) => fault(
                "advantage",
                format!("token {token}: its advantage is beyond what a number holds"),
            ),
            None => Ok(()),
        }
    }
}

/// A number in its shortest form that reads back the same; `null` where it is not finite.
fn push(out: &mut Vec<u8>, value: f64) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, &value);
}

/// A number with a comma after it, `count` times.
fn push_times(out: &mut Vec<u8>, value: f64, count: usize) {
    if count == 0 {
        return;
    }
    let start = out.len();
    push(out, value);
    out.push(b',');
    let size = out.len() - start;
    let goal = start + size * count;
    out.reserve(goal - out.len());
    while out.len() < goal {
        let more = (goal - out.len()).min(out.len() - start);
        out.extend_from_within(start..start + more);
    }
}
