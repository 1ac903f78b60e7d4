//! EMPG over flat arrays of tokens: the entry point for other trainers' batches.
//!
//! Two passes over memory: one reads the entropies inside steps (and checks the advantages), one
//! writes the advantages; between them stands the step table. Rows are shared out over scoped
//! threads; each step is summed by one thread in one order, so the result has the same bits for
//! any number of threads.

use std::ops::Range;

use crate::credit::{CreditSummary, StepCredit};
use crate::error::AdvantageError;
use crate::modulation::EmpgOptions;
use crate::part::{Part, RowKeys, places};
use crate::real::{Real, all_finite, sum};
use crate::rows::StepSpans;
use crate::shards::Shards;
use crate::table::{StepRow, StepTable};

/// The base advantages of an array of tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Base<'a, T> {
    /// One per row.
    Rows(&'a [T]),
    /// One per token. A step's entry in the statistics is that of its first token, as in the
    /// pseudo-code; each token is scaled by itself.
    Tokens(&'a [T]),
}

/// The credit of rows of tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenCredit {
    /// One per step of the rows, row by row.
    pub steps: Vec<StepCredit>,
    /// The steps' names and what their credit is computed from, in the same order.
    pub rows: Vec<StepRow>,
    /// Over the whole batch, which these rows may be a part of.
    pub summary: CreditSummary,
}

impl StepTable {
    /// The table of rows of tokens, whose entropies (nats) and base advantages it takes. It may be
    /// empty: a worker may hold rows without steps, or none.
    ///
    /// # Errors
    /// Arrays of another size, an entropy or advantage inside a step that is not finite (row, step
    /// and token are named), a key that occurs twice.
    pub fn from_tokens<T: Real>(
        steps: &StepSpans,
        entropy: &[T],
        base: Base<'_, T>,
        keys: RowKeys<'_>,
        threads: usize,
    ) -> Result<Self, AdvantageError> {
        check(steps, entropy, base, keys)?;
        Self::new(read(steps, entropy, base, keys, &Shards::new(steps.rows(), threads))?)
    }
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
        self.modulate_part(steps, entropy, advantages, Part::default(), threads)
            .map(|credit| credit.steps)
    }

    /// [`modulate_tokens`](Self::modulate_tokens) for rows that may be a part of their batch.
    ///
    /// # Errors
    /// As [`modulate_tokens`](Self::modulate_tokens), the steps being counted over the whole
    /// batch; a step that occurs twice, or that the table of the whole lacks or has otherwise.
    pub fn modulate_part<T: Real>(
        &self,
        steps: &StepSpans,
        entropy: &[T],
        advantages: &mut [T],
        part: Part<'_>,
        threads: usize,
    ) -> Result<TokenCredit, AdvantageError> {
        let shards = Shards::new(steps.rows(), threads);
        let credit = self.credit(steps, entropy, Base::Tokens(advantages), part, &shards)?;
        if credit.summary.steps == 0 {
            return Ok(credit);
        }
        let outside = self.outside(&credit);
        shards.write(steps.rows(), advantages, |row, out: &mut [T]| {
            let mut from = 0;
            for (span, credit) in steps.of_row(row).iter().zip(&credit.steps[steps.indices(row)]) {
                fill_outside(&mut out[from..span.start], outside);
                let step = StepValues::of(credit, out[span.start]);
                for a in &mut out[span.clone()] {
                    *a = step.at(*a);
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
        self.modulate_part_into(steps, entropy, base, out, Part::default(), threads)
            .map(|credit| credit.steps)
    }

    /// [`modulate_part`](Self::modulate_part) from a base into `out`, one entry per token.
    ///
    /// # Errors
    /// As [`modulate_part`](Self::modulate_part); `out` is then untouched.
    pub fn modulate_part_into<T: Real>(
        &self,
        steps: &StepSpans,
        entropy: &[T],
        base: Base<'_, T>,
        out: &mut [T],
        part: Part<'_>,
        threads: usize,
    ) -> Result<TokenCredit, AdvantageError> {
        let (expected, got) = (steps.rows().tokens(), out.len());
        if expected != got {
            return Err(AdvantageError::Length { what: "output", expected, got });
        }
        let shards = Shards::new(steps.rows(), threads);
        let credit = self.credit(steps, entropy, base, part, &shards)?;
        let outside = self.outside::<T>(&credit);
        shards.write(steps.rows(), out, |row, out: &mut [T]| {
            let range = steps.rows().range(row);
            let spans = steps.of_row(row).iter().zip(&credit.steps[steps.indices(row)]);
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
                        Some(shift) => {
                            out.iter_mut().zip(base).for_each(|(out, &a)| *out = a + shift);
                        }
                    };
                    for (span, credit) in spans {
                        copy(&mut out[from..span.start], &base[from..span.start]);
                        let step = StepValues::of(credit, base[span.start]);
                        for (out, &a) in out[span.clone()].iter_mut().zip(&base[span.clone()]) {
                            *out = step.at(a);
                        }
                        from = span.end;
                    }
                    copy(&mut out[from..], &base[from..]);
                }
            }
        });
        Ok(credit)
    }

    /// The credit alone, without writing any token.
    ///
    /// # Errors
    /// As [`modulate_part`](Self::modulate_part).
    pub fn credit_part<T: Real>(
        &self,
        steps: &StepSpans,
        entropy: &[T],
        base: Base<'_, T>,
        part: Part<'_>,
        threads: usize,
    ) -> Result<TokenCredit, AdvantageError> {
        self.credit(steps, entropy, base, part, &Shards::new(steps.rows(), threads))
    }

    /// What to add to the base outside steps; none where it becomes 0.
    fn outside<T: Real>(&self, credit: &TokenCredit) -> Option<T> {
        self.paper_exact.then(|| T::nearest(-credit.summary.centring))
    }

    fn credit<T: Real>(
        &self,
        steps: &StepSpans,
        entropy: &[T],
        base: Base<'_, T>,
        part: Part<'_>,
        shards: &Shards,
    ) -> Result<TokenCredit, AdvantageError> {
        self.validate()?;
        if steps.rows().is_empty() && part.table.is_none() {
            return Err(AdvantageError::EmptyBatch);
        }
        check(steps, entropy, base, part.keys)?;
        if part.table.map_or(steps.is_empty(), StepTable::is_empty) && !self.paper_exact {
            return Err(AdvantageError::NoSteps);
        }
        let rows = read(steps, entropy, base, part.keys, shards)?;
        let own;
        let table = if let Some(table) = part.table {
            table
        } else {
            own = StepTable::new(rows.clone())?;
            &own
        };
        let whole = self.modulate(table)?;
        let summary = CreditSummary::of(&whole);
        let steps = if table.rows() == rows {
            whole
        } else {
            places(table, &rows)?.into_iter().map(|place| whole[place]).collect()
        };
        Ok(TokenCredit { steps, rows, summary })
    }
}

/// What a step does to a token's base.
struct StepValues<T> {
    base: T,
    advantage: T,
    scale: T,
    shift: T,
}

impl<T: Real> StepValues<T> {
    fn of(credit: &StepCredit, base: T) -> Self {
        Self {
            base,
            advantage: T::nearest(credit.advantage),
            scale: T::nearest(credit.g),
            shift: T::nearest(credit.bonus - credit.centring),
        }
    }

    /// The step's own advantage where the base is the step's, as it is for one base per row.
    fn at(&self, base: T) -> T {
        if base == self.base { self.advantage } else { base * self.scale + self.shift }
    }
}

fn fill_outside<T: Real>(out: &mut [T], shift: Option<T>) {
    match shift {
        None => out.fill(T::ZERO),
        Some(shift) => out.iter_mut().for_each(|a| *a = *a + shift),
    }
}

fn check<T: Real>(
    steps: &StepSpans,
    entropy: &[T],
    base: Base<'_, T>,
    keys: RowKeys<'_>,
) -> Result<(), AdvantageError> {
    let rows = steps.rows();
    let (what, wanted, got) = match base {
        Base::Rows(base) => ("base advantages", rows.len(), base.len()),
        Base::Tokens(base) => ("advantages", rows.tokens(), base.len()),
    };
    for (what, expected, got) in [("entropy", rows.tokens(), entropy.len()), (what, wanted, got)] {
        if expected != got {
            return Err(AdvantageError::Length { what, expected, got });
        }
    }
    keys.check(steps)
}

/// The steps of all rows, row by row.
fn read<T: Real>(
    steps: &StepSpans,
    entropy: &[T],
    base: Base<'_, T>,
    keys: RowKeys<'_>,
    shards: &Shards,
) -> Result<Vec<StepRow>, AdvantageError> {
    let parts = shards.map(|rows: Range<usize>| {
        let count = rows.clone().map(|row| steps.indices(row).len()).sum();
        let mut table = Vec::with_capacity(count);
        for row in rows {
            read_row(steps, row, entropy, base, keys, &mut table)?;
        }
        Ok(table)
    });
    let mut table = Vec::with_capacity(steps.len());
    for part in parts {
        table.extend(part?);
    }
    Ok(table)
}

fn read_row<T: Real>(
    steps: &StepSpans,
    row: usize,
    entropy: &[T],
    base: Base<'_, T>,
    keys: RowKeys<'_>,
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
        table.push(StepRow { key: keys.key(row, step), entropy: mean, base });
    }
    Ok(())
}
