//! EMPG over flat arrays of tokens: the entry point for other trainers' batches.
//!
//! Two passes over memory: one reads the entropies inside steps (and checks the advantages), one
//! writes the advantages; between them stands the step table. Rows are shared out over scoped
//! threads; each step is summed by one thread in one order, so the result has the same bits for
//! any number of threads.

use std::ops::Range;
use std::thread;

use crate::credit::StepCredit;
use crate::error::AdvantageError;
use crate::modulation::EmpgOptions;
use crate::rows::{StepSpans, TokenRows};
use crate::table::{StepKey, StepRow, StepTable};

/// Fewer tokens than this are not worth another thread.
const TOKENS_PER_THREAD: usize = 1 << 16;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// `f32` or `f64`. Sums and statistics are always f64.
pub trait Real:
    sealed::Sealed
    + Copy
    + Send
    + Sync
    + std::ops::Mul<Output = Self>
    + std::ops::Add<Output = Self>
    + Into<f64>
{
    /// 0.
    const ZERO: Self;
    /// The nearest value.
    fn nearest(value: f64) -> Self;
    /// Neither NaN nor infinite.
    fn finite(self) -> bool;
}

impl Real for f32 {
    const ZERO: Self = 0.0;

    fn nearest(value: f64) -> Self {
        value as Self
    }

    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;

    fn nearest(value: f64) -> Self {
        value
    }

    fn finite(self) -> bool {
        self.is_finite()
    }
}

/// The base advantages of an array of tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Base<'a, T> {
    /// One per row.
    Rows(&'a [T]),
    /// One per token. A step's entry in the statistics is that of its first token, as in the
    /// pseudo-code; each token is scaled by itself.
    Tokens(&'a [T]),
}

impl EmpgOptions {
    /// Modulates `advantages` in place and returns the credit of every step, row by row.
    ///
    /// `advantages` and `entropy` (nats) have one entry per token of the rows of `steps`, padding
    /// included. Tokens outside steps become 0, or A − mean with
    /// [`paper_exact`](Self::paper_exact). `threads` = 0 means all cores.
    ///
    /// # Errors
    /// An option outside its domain, arrays of another size, an entropy or advantage inside a step
    /// that is NaN or infinite (trajectory, step and token are named), no rows, no steps (without
    /// `paper_exact`). The array is then untouched.
    pub fn modulate_tokens<T: Real>(
        &self,
        steps: &StepSpans,
        entropy: &[T],
        advantages: &mut [T],
        threads: usize,
    ) -> Result<Vec<StepCredit>, AdvantageError> {
        let shards = Shards::new(steps, threads);
        let credit = self.credit(steps, entropy, Base::Tokens(advantages), &shards)?;
        if credit.is_empty() {
            return Ok(credit);
        }
        let outside = self.outside(&credit);
        shards.write(steps, advantages, |row, out: &mut [T]| {
            let mut from = 0;
            for (span, credit) in steps.of_row(row).iter().zip(&credit[steps.indices(row)]) {
                fill_outside(&mut out[from..span.start], outside);
                let scale = T::nearest(credit.g);
                let shift = T::nearest(credit.bonus - credit.centring);
                for a in &mut out[span.clone()] {
                    *a = *a * scale + shift;
                }
                from = span.end;
            }
            fill_outside(&mut out[from..], outside);
        });
        Ok(credit)
    }

    /// [`modulate_tokens`](Self::modulate_tokens) from a base into `out`, one entry per token.
    ///
    /// # Errors
    /// As [`modulate_tokens`](Self::modulate_tokens); `out` is then untouched.
    pub fn modulate_tokens_into<T: Real>(
        &self,
        steps: &StepSpans,
        entropy: &[T],
        base: Base<'_, T>,
        out: &mut [T],
        threads: usize,
    ) -> Result<Vec<StepCredit>, AdvantageError> {
        let (expected, got) = (steps.rows().tokens(), out.len());
        if expected != got {
            return Err(AdvantageError::Length { what: "output", expected, got });
        }
        let shards = Shards::new(steps, threads);
        let credit = self.credit(steps, entropy, base, &shards)?;
        let outside = self.outside::<T>(&credit);
        shards.write(steps, out, |row, out: &mut [T]| {
            let range = steps.rows().range(row);
            let spans = steps.of_row(row).iter().zip(&credit[steps.indices(row)]);
            let mut from = 0;
            match base {
                Base::Rows(base) => {
                    let filler = outside.map_or(T::ZERO, |shift| base[row] + shift);
                    for (span, credit) in spans {
                        out[from..span.start].fill(filler);
                        out[span.clone()].fill(T::nearest(credit.advantage));
                        from = span.end;
                    }
                    out[from..].fill(filler);
                }
                Base::Tokens(base) => {
                    let base = &base[range];
                    let copy = |out: &mut [T], base: &[T]| match outside {
                        None => out.fill(T::ZERO),
                        Some(shift) => affine(out, base, T::nearest(1.0), shift),
                    };
                    for (span, credit) in spans {
                        copy(&mut out[from..span.start], &base[from..span.start]);
                        let scale = T::nearest(credit.g);
                        let shift = T::nearest(credit.bonus - credit.centring);
                        affine(&mut out[span.clone()], &base[span.clone()], scale, shift);
                        from = span.end;
                    }
                    copy(&mut out[from..], &base[from..]);
                }
            }
        });
        Ok(credit)
    }

    /// What to add to the base outside steps; none where it becomes 0.
    fn outside<T: Real>(&self, credit: &[StepCredit]) -> Option<T> {
        self.paper_exact.then(|| T::nearest(-credit.first().map_or(0.0, |c| c.centring)))
    }

    fn credit<T: Real>(
        &self,
        steps: &StepSpans,
        entropy: &[T],
        base: Base<'_, T>,
        shards: &Shards,
    ) -> Result<Vec<StepCredit>, AdvantageError> {
        self.validate()?;
        let rows = steps.rows();
        if rows.is_empty() {
            return Err(AdvantageError::EmptyBatch);
        }
        let (what, wanted, got) = match base {
            Base::Rows(base) => ("base advantages", rows.len(), base.len()),
            Base::Tokens(base) => ("advantages", rows.tokens(), base.len()),
        };
        for (what, expected, got) in
            [("entropy", rows.tokens(), entropy.len()), (what, wanted, got)]
        {
            if expected != got {
                return Err(AdvantageError::Length { what, expected, got });
            }
        }
        if steps.is_empty() && !self.paper_exact {
            return Err(AdvantageError::NoSteps);
        }
        self.modulate(&shards.table(steps, entropy, base)?)
    }
}

fn fill_outside<T: Real>(out: &mut [T], shift: Option<T>) {
    match shift {
        None => out.fill(T::ZERO),
        Some(shift) => out.iter_mut().for_each(|a| *a = *a + shift),
    }
}

fn affine<T: Real>(out: &mut [T], base: &[T], scale: T, shift: T) {
    for (out, &base) in out.iter_mut().zip(base) {
        *out = base * scale + shift;
    }
}

/// Rows shared out over threads, in order, by tokens.
struct Shards(Vec<Range<usize>>);

impl Shards {
    fn new(steps: &StepSpans, threads: usize) -> Self {
        let rows = steps.rows();
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let wanted = if threads == 0 { cores() } else { threads };
        let count = wanted.min(rows.tokens() / TOKENS_PER_THREAD).clamp(1, rows.len().max(1));
        let mut shards = Vec::with_capacity(count);
        let mut from = 0;
        for shard in 1..=count {
            let tokens = (rows.tokens() as u128 * shard as u128 / count as u128) as usize;
            let mut to = from;
            while to < rows.len() && (shard == count || rows.range(to).end <= tokens) {
                to += 1;
            }
            shards.push(from..to);
            from = to;
        }
        Self(shards)
    }

    fn table<T: Real>(
        &self,
        steps: &StepSpans,
        entropy: &[T],
        base: Base<'_, T>,
    ) -> Result<StepTable, AdvantageError> {
        let part = |rows: Range<usize>| {
            let first = steps.indices(rows.start.min(steps.rows().len() - 1)).start;
            let count = rows.end.checked_sub(1).map_or(0, |last| steps.indices(last).end - first);
            let mut table = Vec::with_capacity(count);
            for row in rows {
                read_row(steps, row, entropy, base, &mut table)?;
            }
            Ok(table)
        };
        let (own, others) = self.0.split_first().expect("at least one shard");
        let parts: Vec<Result<Vec<StepRow>, AdvantageError>> = thread::scope(|scope| {
            let handles: Vec<_> = others
                .iter()
                .map(|rows| {
                    let rows = rows.clone();
                    scope.spawn(|| part(rows))
                })
                .collect();
            let mut parts = vec![part(own.clone())];
            for handle in handles {
                parts.push(handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            parts
        });
        let mut table = Vec::with_capacity(steps.len());
        for part in parts {
            table.extend(part?);
        }
        StepTable::new(table)
    }

    fn write<T: Real>(
        &self,
        steps: &StepSpans,
        mut out: &mut [T],
        row: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let write = |rows: Range<usize>, mut out: &mut [T]| {
            for index in rows {
                let (own, rest) = out.split_at_mut(steps.rows().range(index).len());
                row(index, own);
                out = rest;
            }
        };
        thread::scope(|scope| {
            let mut own = None;
            for rows in &self.0 {
                let tokens = tokens_of(steps.rows(), rows);
                let (part, rest) = std::mem::take(&mut out).split_at_mut(tokens);
                out = rest;
                let rows = rows.clone();
                if own.is_none() {
                    own = Some((rows, part));
                } else {
                    let write = &write;
                    scope.spawn(move || write(rows, part));
                }
            }
            if let Some((rows, part)) = own {
                write(rows, part);
            }
        });
    }
}

fn tokens_of(rows: &TokenRows, some: &Range<usize>) -> usize {
    some.clone().map(|row| rows.range(row).len()).sum()
}

fn read_row<T: Real>(
    steps: &StepSpans,
    row: usize,
    entropy: &[T],
    base: Base<'_, T>,
    table: &mut Vec<StepRow>,
) -> Result<(), AdvantageError> {
    let range = steps.rows().range(row);
    let entropy = &entropy[range.clone()];
    for (step, span) in steps.of_row(row).iter().enumerate() {
        let fail = |what, token: Option<usize>| AdvantageError::NotFinite {
            what,
            trajectory: row as u64,
            step: Some(step as u64),
            token: token.map(|token| token as u64),
        };
        let base = match base {
            Base::Rows(base) if base[row].finite() => base[row].into(),
            Base::Rows(_) => {
                return Err(AdvantageError::NotFinite {
                    what: "base advantage",
                    trajectory: row as u64,
                    step: None,
                    token: None,
                });
            }
            Base::Tokens(base) => {
                let base = &base[range.clone()][span.clone()];
                if !all_finite(base) {
                    let bad = base.iter().position(|a| !a.finite());
                    return Err(fail("advantage", bad.map(|at| span.start + at)));
                }
                base[0].into()
            }
        };
        let tokens = &entropy[span.clone()];
        let mean = sum(tokens) / tokens.len() as f64;
        if !mean.is_finite() {
            let bad = tokens.iter().position(|h| !h.finite());
            return Err(fail("entropy", bad.map(|at| span.start + at)));
        }
        let key = StepKey { trajectory: row as u64, step: step as u32 };
        table.push(StepRow { key, entropy: mean, base });
    }
    Ok(())
}

/// Sum in f64 over 16 lanes: an order that depends on the slice alone.
fn sum<T: Real>(values: &[T]) -> f64 {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut lanes = [0.0f64; 16];
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane += value.into();
        }
    }
    let mut total: f64 = rest.iter().map(|&value| value.into()).sum();
    for lane in lanes {
        total += lane;
    }
    total
}

/// Whether no value is NaN or infinite: 0·x is 0 for finite x only.
fn all_finite<T: Real>(values: &[T]) -> bool {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut lanes = [T::ZERO; 16];
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane = *lane + value * T::ZERO;
        }
    }
    lanes.iter().chain(rest).all(|value| value.finite())
}
