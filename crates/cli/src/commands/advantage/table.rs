//! What the first pass keeps: rows, their steps, and from them the credit.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context as _, anyhow, bail};
use empg::{DrGrpo, EmpgOptions, GroupError, Grpo, Rloo, StepCredit, StepKey, StepRow, StepTable};

use super::batches::{cut, parallel};
use super::line::{Fault, Parsed, parse};
use super::{AdvantageArgs, BaseName};

/// What the first pass keeps of a line.
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) group: u32,
    pub(super) tokens: u32,
    pub(super) first_step: usize,
    pub(super) reward: Option<f64>,
    pub(super) given: Given,
    /// The line carries fields of an earlier run.
    pub(super) stale: bool,
    pub(super) base: f64,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Given {
    None,
    Row(f64),
    Tokens,
}

pub(super) struct StepSeen {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) entropy: f64,
    pub(super) base: f64,
}

/// What the first pass keeps of all lines.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) rows: Vec<Row>,
    pub(super) steps: Vec<StepSeen>,
    groups: HashMap<Box<[u8]>, u32>,
    lines: u64,
}

impl Seen {
    pub(super) fn add(&mut self, batch: &[u8], threads: usize) -> anyhow::Result<()> {
        let parts = cut(batch, threads);
        let parsed = parallel(&parts, |_, part| {
            let mut rows = Vec::new();
            let mut count = 0u64;
            for line in part.split_inclusive(|&b| b == b'\n') {
                count += 1;
                let line = line.trim_ascii();
                if !line.is_empty() {
                    rows.push((count, parse(line).map_err(|fault| (count, fault))?));
                }
            }
            Ok::<_, (u64, Fault)>((count, rows))
        });
        for part in parsed {
            let (count, rows) = part.map_err(|(line, Fault { field, why })| {
                let line = self.lines + line;
                if field.is_empty() {
                    anyhow!("line {line}: {why}")
                } else {
                    anyhow!("line {line}, field \"{field}\": {why}")
                }
            })?;
            for (line, Parsed { group, mut row, steps }) in rows {
                let next = self.groups.len() as u32;
                row.group = match self.groups.get(group) {
                    Some(&known) => known,
                    None => *self.groups.entry(group.into()).or_insert(next),
                };
                row.line = self.lines + line;
                row.first_step = self.steps.len();
                self.steps.extend(steps);
                self.rows.push(row);
            }
            self.lines += count;
        }
        Ok(())
    }

    pub(super) fn steps_of(&self, row: usize) -> Range<usize> {
        let end = self.rows.get(row + 1).map_or(self.steps.len(), |next| next.first_step);
        self.rows[row].first_step..end
    }

    pub(super) fn set_bases(&mut self, args: &AdvantageArgs) -> anyhow::Result<()> {
        let carries = self.rows.iter().any(|row| row.given != Given::None);
        let base = args.base.unwrap_or(if carries { BaseName::Given } else { BaseName::Grpo });
        if base == BaseName::Given {
            for row in &mut self.rows {
                match row.given {
                    Given::None => {
                        bail!(
                            "line {}, field \"advantage\": missing, and the base is given",
                            row.line
                        )
                    }
                    Given::Row(value) => row.base = value,
                    Given::Tokens => {}
                }
            }
        } else {
            self.compare_groups(base, args)?;
        }
        for row in 0..self.rows.len() {
            if base != BaseName::Given || self.rows[row].given != Given::Tokens {
                self.rows[row].given = Given::Row(self.rows[row].base);
                for step in self.steps_of(row) {
                    self.steps[step].base = self.rows[row].base;
                }
            }
        }
        Ok(())
    }

    fn compare_groups(&mut self, base: BaseName, args: &AdvantageArgs) -> anyhow::Result<()> {
        let mut members = vec![Vec::new(); self.groups.len()];
        for (index, row) in self.rows.iter().enumerate() {
            if row.reward.is_none() {
                bail!("line {}, field \"reward\": missing, and the base needs it", row.line);
            }
            members[row.group as usize].push(index);
        }
        let grpo = Grpo { ddof: args.ddof, eps: args.eps };
        for members in members {
            let rewards: Vec<f64> =
                members.iter().filter_map(|&row| self.rows[row].reward).collect();
            let bases = match base {
                BaseName::DrGrpo => DrGrpo::advantages(&rewards),
                BaseName::Rloo => Rloo::advantages(&rewards),
                BaseName::Given | BaseName::Grpo => grpo.advantages(&rewards),
            };
            let bases = bases.map_err(|error| {
                let line = members.first().map_or(0, |&row| self.rows[row].line);
                let advice = if error == GroupError::One {
                    "; the group of this line has no other line (use --base given)"
                } else {
                    ""
                };
                anyhow!("line {line}, field \"group\": {error}{advice}")
            })?;
            for (&row, base) in members.iter().zip(bases) {
                self.rows[row].base = base;
            }
        }
        Ok(())
    }

    pub(super) fn credits(&self, options: &EmpgOptions) -> anyhow::Result<Vec<StepCredit>> {
        let mut table = Vec::with_capacity(self.steps.len());
        for row in 0..self.rows.len() {
            table.extend(self.steps[self.steps_of(row)].iter().enumerate().map(|(step, seen)| {
                StepRow {
                    key: StepKey { trajectory: self.rows[row].line, step: step as u32 },
                    entropy: seen.entropy,
                    base: seen.base,
                }
            }));
        }
        options
            .modulate(&StepTable::new(table)?)
            .context("the credit cannot be computed (trajectories are counted by line)")
    }
}
