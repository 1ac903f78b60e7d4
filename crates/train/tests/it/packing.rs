//! Packing must not change the loss: neither its budget nor its sharing of prompts.

use std::sync::atomic::AtomicBool;

use empg::loss::{Aggregation, Clip};
use empg::{Advantage, Batch, Credit, Empg, EmpgOptions, Group, Grpo};
use empg_env::{Split, TaskSet};
use empg_train::config::{Config, Context};
use empg_train::{Job, LossSettings, Policy, RolloutSettings, Workers, pack, rollout};

use crate::toy::{Lamps, config, policy};

fn play(policy: &Policy, config: &Config) -> Batch {
    let mut jobs = Vec::new();
    for group in 0..3 {
        for r in 0..4 {
            let task = Lamps::default().task(Split::Train, group * 5).unwrap();
            jobs.push(Job {
                task,
                env_seed: 0,
                sampling_seed: group * 10 + r,
                group: group as usize,
            });
        }
    }
    let settings = RolloutSettings::training(&config.rollout, 2);
    let episodes =
        rollout(policy, &Lamps::default(), &jobs, &settings, &AtomicBool::new(false)).unwrap();
    assert_eq!(episodes.len(), jobs.len());
    let groups = episodes
        .chunks(4)
        .map(|members| Group {
            task: members[0].trajectory.task().to_owned(),
            rollouts: members
                .iter()
                .enumerate()
                // Rewards that differ, whatever an untrained policy earned.
                .map(|(i, e)| e.trajectory.clone().with_reward(i as f64).unwrap())
                .collect(),
        })
        .collect();
    Batch { groups }
}

fn credit(batch: &Batch) -> Credit {
    Empg { base: Grpo::default(), options: EmpgOptions::default() }.assign(batch).unwrap()
}

fn settings() -> LossSettings {
    LossSettings { clip: Clip::higher(), kl_coef: 0.1, entropy_coef: 0.01, temperature: 1.0 }
}

fn gradient(
    policy: &Policy,
    batch: &Batch,
    aggregation: Aggregation,
    budget: usize,
    threads: usize,
) -> (f64, Vec<f32>) {
    let members: Vec<usize> = (0..batch.groups.len()).collect();
    let (packs, _) = pack(batch, &members, &credit(batch), None, aggregation, budget);
    let total: f32 = packs.iter().flat_map(|p| &p.targets).map(|t| t.weight).sum();
    assert!((total - 1.0).abs() < 1e-5, "weights sum to {total}");
    let mut workers = Workers::new(threads);
    let (sums, grads) = workers.gradient(&policy.model, &packs, None, &settings()).unwrap();
    assert!(sums.max_log_ratio < 1e-4, "sampling and training disagree: {sums:?}");
    assert_eq!(sums.clipped, 0.0);
    (sums.loss, grads.to_vec())
}

fn close(a: &[f32], b: &[f32]) {
    let scale = a.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let worst = a.iter().zip(b).fold(0.0f32, |m, (x, y)| m.max((x - y).abs()));
    assert!(worst <= 2e-6 * scale.max(1e-3), "gradients differ by {worst} of {scale}");
}

#[test]
fn the_gradient_does_not_depend_on_the_budget_or_the_threads() {
    let policy = policy();
    let batch = play(&policy, &config());
    for aggregation in [Aggregation::TokenMean, Aggregation::SequenceMean, Aggregation::StepMean] {
        let (loss, whole) = gradient(&policy, &batch, aggregation, 1 << 20, 1);
        for (budget, threads) in [(40, 1), (100, 2), (1, 2)] {
            let (other, part) = gradient(&policy, &batch, aggregation, budget, threads);
            assert!((loss - other).abs() < 1e-6, "{loss} {other}");
            close(&whole, &part);
        }
    }
}

#[test]
fn shared_prompts_save_rows_and_change_nothing() {
    let policy = policy();
    let batch = play(&policy, &config());
    let members = [0, 1, 2];
    let credit = credit(&batch);
    let (packs, stats) = pack(&batch, &members, &credit, None, Aggregation::TokenMean, 1 << 20);
    assert!(stats.rows_saved > 0);
    // The same rollouts with every prompt of its own: no parents.
    let mut alone = packs[0].clone();
    alone.packed = empg_llm::PackedBatch::default();
    for (target, &[g, r, t, j]) in packs[0].targets.iter().zip(&packs[0].origin) {
        let rollout = &batch.groups[g].rollouts[r];
        let position = rollout.steps()[t].sampled().start + j;
        let start = alone.packed.tokens.len();
        let tokens = &rollout.segments()[0].tokens[..position];
        alone.packed.tokens.extend_from_slice(tokens);
        alone.packed.positions.extend(0..tokens.len() as u32);
        alone.packed.segments.push(empg_llm::PackedSegment {
            range: start..start + tokens.len(),
            parent: None,
            parent_len: 0,
        });
        let token = rollout.segments()[0].tokens[position];
        alone.packed.targets.push(empg_llm::Target { row: start + tokens.len() - 1, token });
        assert!(target.weight > 0.0);
    }
    let mut workers = Workers::new(1);
    let shared = workers.gradient(&policy.model, &packs, None, &settings()).unwrap().1.to_vec();
    let single = workers.gradient(&policy.model, &[alone], None, &settings()).unwrap().1.to_vec();
    close(&shared, &single);
}

#[test]
fn a_window_opens_a_segment_a_turn() {
    let policy = policy();
    let mut config = config();
    config.rollout.context = Context::Window(1);
    config.rollout.admissible = true;
    let batch = play(&policy, &config);
    let rollout = &batch.groups[0].rollouts[0];
    assert_eq!(rollout.segments().len(), rollout.steps().len());
    gradient(&policy, &batch, Aggregation::TokenMean, 64, 2);
}
