//! What one step of training showed, and how it is recorded.

use empg::CreditSummary;
use serde_json::{Map, Value, json};

use crate::evaluate::Evaluation;
use crate::groups::Played;
use crate::update::LossSums;

/// Seconds of each phase of a step: wall clock, recorded apart from the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Playing episodes.
    pub rollout: f64,
    /// Scoring under the reference.
    pub reference: f64,
    /// Assigning credit.
    pub credit: f64,
    /// Packing, forward, backward, optimiser.
    pub update: f64,
    /// Evaluating.
    pub evaluate: f64,
    /// Writing the step before this one.
    pub commit: f64,
    /// The whole step.
    pub total: f64,
    /// Tokens of all contexts played, a second of the whole step.
    pub tokens_per_s: f64,
}

impl Timings {
    /// Adds another step's seconds.
    pub(crate) fn add(&mut self, other: &Self) {
        self.rollout += other.rollout;
        self.reference += other.reference;
        self.credit += other.credit;
        self.update += other.update;
        self.evaluate += other.evaluate;
        self.commit += other.commit;
        self.total += other.total;
    }
}

/// What one step of training showed.
#[derive(Clone, Debug, Default)]
pub struct StepReport {
    /// The step, from 1; 0 is the evaluation before training.
    pub step: u64,
    /// The episodes played.
    pub played: Played,
    /// Groups and rollouts that were learned from.
    pub groups: usize,
    /// Rollouts that were learned from.
    pub rollouts: usize,
    /// Entropy, g, bonus and advantage of the steps; `None` if nothing was left to learn from.
    pub credit: Option<CreditSummary>,
    /// Sums of the update's last pass over the batch.
    pub loss: LossSums,
    /// Optimiser steps of this update; 0 where nothing was left to learn from, and then the numbers
    /// of the update say nothing.
    pub updates: u64,
    /// Mean ‖g‖₂ before clipping.
    pub grad_norm: f64,
    /// The last learning rate.
    pub lr: f64,
    /// Mean k3 of π_old against the reference over the sampled tokens, before the update.
    pub kl_reference: f64,
    /// Mean token entropy while sampling (nats).
    pub token_entropy: f64,
    /// Rows that were trained on, and rows saved by sharing prompts.
    pub rows: usize,
    /// Rows that separate sequences would have had on top.
    pub rows_saved: usize,
    /// Rows whose forward pass was kept while sampling.
    pub rows_taped: usize,
    /// Evaluations after this step.
    pub evaluations: Vec<Evaluation>,
    /// Wall clock.
    pub timings: Timings,
}

impl StepReport {
    /// The deterministic part, for `metrics.jsonl`.
    pub fn metrics(&self) -> Map<String, Value> {
        let mut map = Map::new();
        if self.step > 0 {
            let played = &self.played;
            let share =
                |part: f64, whole: usize| if whole == 0 { 0.0 } else { part / whole as f64 };
            let tokens = self.loss.tokens.max(1.0);
            let mut put = |key: &str, value: Value| {
                map.insert(key.into(), value);
            };
            put("episodes", json!(played.episodes));
            put("success", json!(share(played.won as f64, played.episodes)));
            put("return", json!(share(played.reward, played.episodes)));
            put("turns", json!(share(played.turns as f64, played.episodes)));
            put("sampled_tokens", json!(played.sampled_tokens));
            put("context_tokens", json!(played.context_tokens));
            put("ineffective", json!(share(played.ineffective as f64, played.turns)));
            put("truncated", json!(played.truncated));
            put("failed", json!(played.failed));
            put("groups", json!(self.groups));
            put("groups_sampled", json!(played.groups));
            put("groups_flat", json!(played.groups_flat));
            put("groups_dropped", json!(played.groups_dropped));
            put("sampling_rounds", json!(played.rounds));
            if let Some(credit) = &self.credit {
                put("steps", json!(credit.steps));
                put("step_entropy", json!(credit.entropy_mean));
                put("step_entropy_min", json!(credit.entropy_min));
                put("step_entropy_max", json!(credit.entropy_max));
                put("g_min", json!(credit.g_min));
                put("g_max", json!(credit.g_max));
                put("g_std", json!(credit.g_std));
                put("bonus", json!(credit.bonus_mean));
                put("centring", json!(credit.centring));
                put("advantage_abs", json!(credit.advantage_abs_mean));
            }
            // A step that learned nothing has no such numbers; zeros would read as a policy at rest.
            if self.updates > 0 {
                put("token_entropy", json!(self.token_entropy));
                put("loss", json!(self.loss.loss));
                put("kl_reference", json!(self.kl_reference));
                put("kl_old", json!(self.loss.kl_old / tokens));
                put("clip_fraction", json!(self.loss.clipped / tokens));
                put("max_log_ratio", json!(self.loss.max_log_ratio));
                put("grad_norm", json!(self.grad_norm));
                put("lr", json!(self.lr));
            }
            put("updates", json!(self.updates));
            put("train_rows", json!(self.rows));
            put("train_rows_saved", json!(self.rows_saved));
            if self.rows_taped > 0 {
                put("train_rows_taped", json!(self.rows_taped));
            }
        }
        if !self.evaluations.is_empty() {
            map.insert("eval".into(), json!(self.evaluations));
        }
        map
    }

    /// The wall-clock part, for `timings.jsonl` and the event file.
    pub fn timings(&self) -> Map<String, Value> {
        let t = &self.timings;
        let entries = [
            ("rollout_s", t.rollout),
            ("reference_s", t.reference),
            ("credit_s", t.credit),
            ("update_s", t.update),
            ("evaluate_s", t.evaluate),
            ("commit_s", t.commit),
            ("total_s", t.total),
            ("tokens_per_s", t.tokens_per_s),
        ];
        entries.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect()
    }

    /// Share of the played episodes that were won, 0–1.
    pub fn success(&self) -> f64 {
        if self.played.episodes == 0 {
            0.0
        } else {
            self.played.won as f64 / self.played.episodes as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What only an update has.
    const OF_AN_UPDATE: [&str; 8] = [
        "token_entropy",
        "loss",
        "kl_reference",
        "kl_old",
        "clip_fraction",
        "max_log_ratio",
        "grad_norm",
        "lr",
    ];

    #[test]
    fn a_step_that_learned_nothing_has_no_numbers_of_an_update() {
        let idle = StepReport { step: 3, ..StepReport::default() }.metrics();
        assert_eq!((&idle["updates"], &idle["groups"]), (&json!(0), &json!(0)));
        let learned = StepReport { step: 3, updates: 1, ..StepReport::default() }.metrics();
        for key in OF_AN_UPDATE {
            assert!(!idle.contains_key(key), "{key} of a step without an update");
            assert_eq!(learned[key], json!(0.0), "{key}");
        }
    }
}
