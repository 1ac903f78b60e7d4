//! What the list of episodes shows of each: small enough to send ten thousand at once.

use std::collections::HashMap;
use std::sync::Arc;

use empg_report::arms::four_digits;
use empg_run::TrajectoryRow;
use serde::Serialize;

use super::recorded::StepFile;

/// The episodes of a recorded step.
#[derive(Debug)]
pub(super) struct StepSummary {
    step: u64,
    episodes: Vec<EpisodeSummary>,
}

#[derive(Debug)]
struct EpisodeSummary {
    group: u32,
    rollout: u32,
    task: String,
    kind: String,
    end: String,
    reward: f64,
    won: bool,
    turns: u32,
    /// Mean step entropy.
    entropy: f64,
    /// Mean size of the credit.
    credit: f64,
    errors: u32,
    uncertain: u32,
}

/// Sure of itself, blamed, in an episode that was lost. The viewer's script has the same bounds.
fn is_confident_error(row: &TrajectoryRow) -> bool {
    !row.won && row.h_norm < 0.25 && row.advantage < 0.0
}

/// Unsure, in an episode that was won and better than its group.
fn is_uncertain_success(row: &TrajectoryRow) -> bool {
    row.won && row.h_norm > 0.75 && row.base > 0.0
}

/// Summarises a step.
pub(super) fn summary(file: &StepFile) -> StepSummary {
    let episodes = file
        .episodes
        .iter()
        .map(|range| {
            let rows = &file.rows[range.clone()];
            let first = &rows[0];
            let mean = |of: fn(&TrajectoryRow) -> f64| {
                four_digits(rows.iter().map(of).sum::<f64>() / rows.len() as f64)
            };
            let count =
                |of: fn(&TrajectoryRow) -> bool| rows.iter().filter(|r| of(r)).count() as u32;
            EpisodeSummary {
                group: first.group,
                rollout: first.rollout,
                task: first.task.clone(),
                kind: first.kind.clone(),
                end: first.end.clone(),
                reward: four_digits(first.reward),
                won: first.won,
                turns: rows.len() as u32,
                entropy: mean(|r| r.h),
                credit: mean(|r| r.advantage.abs()),
                errors: count(is_confident_error),
                uncertain: count(is_uncertain_success),
            }
        })
        .collect();
    StepSummary { step: file.rows.first().map_or(0, |r| r.step), episodes }
}

/// Episodes by column; texts that repeat stand once.
#[derive(Debug, Default, Serialize)]
pub(super) struct Columns {
    pub(super) source: String,
    /// What could not be read, in words.
    pub(super) notes: Vec<String>,
    texts: Vec<String>,
    step: Vec<u64>,
    group: Vec<u32>,
    rollout: Vec<u32>,
    task: Vec<usize>,
    kind: Vec<usize>,
    end: Vec<usize>,
    reward: Vec<f64>,
    won: Vec<u8>,
    turns: Vec<u32>,
    entropy: Vec<f64>,
    credit: Vec<f64>,
    errors: Vec<u32>,
    uncertain: Vec<u32>,
}

impl Columns {
    /// The episodes of these steps, in order.
    pub(super) fn of(source: String, steps: &[Arc<StepSummary>], notes: Vec<String>) -> Self {
        let mut columns = Self { source, notes, ..Self::default() };
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut texts: Vec<&str> = Vec::new();
        let mut place = |text| {
            *places.entry(text).or_insert_with(|| {
                texts.push(text);
                texts.len() - 1
            })
        };
        for (step, e) in steps.iter().flat_map(|s| s.episodes.iter().map(|e| (s.step, e))) {
            columns.step.push(step);
            columns.group.push(e.group);
            columns.rollout.push(e.rollout);
            columns.task.push(place(&e.task));
            columns.kind.push(place(&e.kind));
            columns.end.push(place(&e.end));
            columns.reward.push(e.reward);
            columns.won.push(u8::from(e.won));
            columns.turns.push(e.turns);
            columns.entropy.push(e.entropy);
            columns.credit.push(e.credit);
            columns.errors.push(e.errors);
            columns.uncertain.push(e.uncertain);
        }
        columns.texts = texts.into_iter().map(str::to_owned).collect();
        columns
    }
}
