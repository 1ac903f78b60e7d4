//! EMPG over flat arrays of tokens: the entry point for other trainers' batches.
//!
//! Two passes over memory: one reads the entropies inside steps (and checks the advantages), one
//! writes the advantages; between them stands the step table. Rows are shared out over scoped
//! threads; each step is summed by one thread in one order, so the result has the same bits for
//! any number of threads.

use crate::credit::{CreditSummary, StepCredit};
use crate::error::AdvantageError;
use crate::modulation::EmpgOptions;
use crate::part::{Part, RowKeys, places};
use crate::reader::Reader;
use crate::real::{Real, fill};
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
    /// Whether all tokens of the step have one base.
    uniform: Vec<bool>,
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
        Self::new(read(steps, entropy, base, keys, &Shards::new(steps.rows(), threads))?.0)
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
            for (span, index) in steps.of_row(row).iter().zip(steps.indices(row)) {
                fill_outside(&mut out[from..span.start], outside);
                let step = StepValues::of(&credit.steps[index], out[span.start]);
                if credit.uniform[index] {
                    fill(&mut out[span.clone()], step.advantage);
                } else {
                    for a in &mut out[span.clone()] {
                        *a = step.at(*a);
                    }
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
            let spans = steps.of_row(row).iter().zip(steps.indices(row));
            match base {
                Base::Rows(base) => {
                    let filler = outside.map_or(T::ZERO, |shift| base[row] + shift);
                    out.fill(filler);
                    for (span, index) in spans {
                        fill(&mut out[span.clone()], T::nearest(credit.steps[index].advantage));
                    }
                }
                Base::Tokens(base) => {
                    let base = &base[range];
                    match outside {
                        None => out.fill(T::ZERO),
                        Some(shift) => {
                            out.iter_mut().zip(base).for_each(|(out, &a)| *out = a + shift);
                        }
                    }
                    for (span, index) in spans {
                        let step = StepValues::of(&credit.steps[index], base[span.start]);
                        let out = &mut out[span.clone()];
                        if credit.uniform[index] {
                            fill(out, step.advantage);
                        } else {
                            for (out, &a) in out.iter_mut().zip(&base[span.clone()]) {
                                *out = step.at(a);
                            }
                        }
                    }
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

    /// The credit of these rows in a table of more, or of the same in another order.
    fn placed(
        &self,
        table: &StepTable,
        rows: Vec<StepRow>,
    ) -> Result<(Vec<StepRow>, Vec<StepCredit>, CreditSummary), AdvantageError> {
        let whole = self.modulate(table)?;
        let steps = places(table, &rows)?.into_iter().map(|place| whole[place]).collect();
        Ok((rows, steps, CreditSummary::of(&whole)))
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
        let (rows, uniform) = read(steps, entropy, base, part.keys, shards)?;
        let (rows, steps, summary) = match part.table {
            None if rows.is_sorted_by(|a, b| a.key < b.key) => {
                let table = StepTable::of_sorted(rows);
                let steps = self.modulate(&table)?;
                let summary = CreditSummary::of(&steps);
                (table.into(), steps, summary)
            }
            None => self.placed(&StepTable::new(rows.clone())?, rows)?,
            Some(table) => self.placed(table, rows)?,
        };
        Ok(TokenCredit { steps, rows, summary, uniform })
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
        None => fill(out, T::ZERO),
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

/// The steps of all rows, row by row, and whether the tokens of each have one base.
fn read<T: Real>(
    steps: &StepSpans,
    entropy: &[T],
    base: Base<'_, T>,
    keys: RowKeys<'_>,
    shards: &Shards,
) -> Result<(Vec<StepRow>, Vec<bool>), AdvantageError> {
    let reader = Reader { steps, entropy, base, keys };
    let mut parts = shards.map(|rows| reader.rows(rows)).into_iter();
    let (mut table, mut uniform) = parts.next().unwrap_or_else(|| Ok(Default::default()))?;
    for part in parts {
        let (rows, flags) = part?;
        table.extend(rows);
        uniform.extend(flags);
    }
    Ok((table, uniform))
}
