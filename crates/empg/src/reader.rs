//! Reading the steps of rows of tokens: means of entropies, and base advantages.

// Calls the same code compiled for wider vectors, where the machine has them.
#![allow(unsafe_code, clippy::inline_always)]

use std::ops::Range;

use crate::error::AdvantageError;
use crate::part::RowKeys;
use crate::real::{Real, all_equal, all_finite, sum};
use crate::rows::StepSpans;
use crate::table::StepRow;
use crate::tokens::Base;

/// Rows read, and whether the tokens of each step have one base.
type Read = Result<(Vec<StepRow>, Vec<bool>), AdvantageError>;

/// Steps that are asked for before the one that is read.
const AHEAD: usize = 3;

#[inline(always)]
fn prefetch<T>(tokens: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in tokens.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64; a hint reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = tokens;
}

/// Arrays of tokens whose sizes have been checked against the steps.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a, T> {
    pub(crate) steps: &'a StepSpans,
    pub(crate) entropy: &'a [T],
    pub(crate) base: Base<'a, T>,
    pub(crate) keys: RowKeys<'a>,
}

impl<T: Real> Reader<'_, T> {
    /// The steps of some rows. The bits do not depend on the machine: the order of every sum is
    /// fixed, and nothing is contracted.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Read {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has AVX2.
            return unsafe { self.rows_avx2(rows) };
        }
        self.rows_here(rows)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn rows_avx2(&self, rows: Range<usize>) -> Read {
        self.rows_here(rows)
    }

    #[inline(always)]
    fn rows_here(&self, rows: Range<usize>) -> Read {
        let count = rows.clone().map(|row| self.steps.indices(row).len()).sum();
        let (mut table, mut uniform) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for row in rows {
            let range = self.steps.rows().range(row);
            let entropy = &self.entropy[range.clone()];
            let spans = self.steps.of_row(row);
            for span in &spans[..AHEAD.min(spans.len())] {
                self.prefetch(&range, span);
            }
            for (step, span) in spans.iter().enumerate() {
                if let Some(span) = spans.get(step + AHEAD) {
                    self.prefetch(&range, span);
                }
                let tokens = &entropy[span.clone()];
                let mean = sum(tokens) / tokens.len() as f64;
                let (base, equal) = match self.base {
                    Base::Rows(base) => (base[row], true),
                    Base::Tokens(base) => {
                        let base = &base[range.clone()][span.clone()];
                        (base[0], all_equal(base))
                    }
                };
                if !(mean.is_finite() && base.finite() && (equal || self.finite(row, span))) {
                    return Err(self.culprit(row, step, span));
                }
                table.push(StepRow {
                    key: self.keys.key(row, step),
                    entropy: mean,
                    base: base.into(),
                });
                uniform.push(equal);
            }
        }
        Ok((table, uniform))
    }

    /// Asks for the memory of a step that will be read soon: steps lie apart, and what lies between
    /// them keeps the machine from guessing.
    #[inline(always)]
    fn prefetch(&self, row: &Range<usize>, span: &Range<usize>) {
        prefetch(&self.entropy[row.clone()][span.clone()]);
        if let Base::Tokens(base) = self.base {
            prefetch(&base[row.clone()][span.clone()]);
        }
    }

    /// Whether the base of every token of a step is finite.
    fn finite(&self, row: usize, span: &Range<usize>) -> bool {
        match self.base {
            Base::Rows(base) => base[row].finite(),
            Base::Tokens(base) => all_finite(&base[self.steps.rows().range(row)][span.clone()]),
        }
    }

    /// What is not finite in a step.
    #[cold]
    fn culprit(&self, row: usize, step: usize, span: &Range<usize>) -> AdvantageError {
        let fail = |what, step: Option<usize>, token: Option<usize>| AdvantageError::NotFinite {
            what,
            trajectory: row as u64,
            step: step.map(|step| step as u64),
            token: token.map(|at| (span.start + at) as u64),
        };
        let range = self.steps.rows().range(row);
        match self.base {
            Base::Rows(base) if !base[row].finite() => {
                return fail("base advantage", None, None);
            }
            Base::Tokens(base) => {
                let own = &base[range.clone()][span.clone()];
                if let Some(bad) = own.iter().position(|a| !a.finite()) {
                    return fail("advantage", Some(step), Some(bad));
                }
            }
            Base::Rows(_) => {}
        }
        let own = &self.entropy[range][span.clone()];
        fail("entropy", Some(step), own.iter().position(|h| !h.finite()))
    }
}
