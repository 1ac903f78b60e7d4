//! What holds for every batch.

use empg::{
    Advantage, Batch, Credit, DrGrpo, Empg, EmpgOptions, End, Group, Grpo, Normalize, Rloo,
    Segment, Shape, Step, StepCredit, StepKey, StepRow, StepTable, TokenScore, Trajectory,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A rollout whose steps have these token entropies.
pub(crate) fn rollout(reward: f64, steps: &[Vec<f32>]) -> Trajectory {
    let mut at = 0;
    let steps: Vec<Step> = steps
        .iter()
        .map(|entropies| {
            let scores: Vec<TokenScore> =
                entropies.iter().map(|&entropy| TokenScore { logprob: -1.0, entropy }).collect();
            let start = at + 2;
            at = start + scores.len();
            Step::new(0, start..at, scores)
        })
        .collect();
    let segments = vec![Segment { tokens: vec![0; at] }];
    Trajectory::new("task", segments, steps, reward, End::Terminated).unwrap()
}

fn batches() -> impl Strategy<Value = Batch> {
    let step = vec(0.0f32..4.0, 1..6);
    let rollouts = vec((-1.0f64..1.0, vec(step, 1..6)), 2..5);
    vec(rollouts, 1..4).prop_map(|groups| Batch {
        groups: groups
            .into_iter()
            .map(|rollouts| Group {
                task: "task".into(),
                rollouts: rollouts.iter().map(|(reward, steps)| rollout(*reward, steps)).collect(),
            })
            .collect(),
    })
}

fn tables() -> impl Strategy<Value = StepTable> {
    vec((-2.0f64..2.0, vec(0.0f64..5.0, 1..8)), 1..8).prop_map(|trajectories| {
        let rows = trajectories.iter().enumerate().flat_map(|(trajectory, (base, entropies))| {
            entropies.iter().enumerate().map(move |(step, &entropy)| StepRow {
                key: StepKey { trajectory: trajectory as u64, step: step as u32 },
                entropy,
                base: *base,
            })
        });
        StepTable::new(rows.collect()).unwrap()
    })
}

fn options() -> impl Strategy<Value = EmpgOptions> {
    let bounds = prop_oneof![Just(Normalize::Minmax), Just(Normalize::Quantile)];
    (0.0f64..3.0, 0.0f64..3.0, 0.0f64..1.0, any::<bool>(), bounds, any::<bool>()).prop_map(
        |(k, k_f, zeta, linear, normalize, gate_bonus)| EmpgOptions {
            // A linear g with k ≥ 1 may be 0 everywhere but at the clearest step.
            k: if linear { k / 3.1 } else { k },
            k_f,
            zeta,
            shape: if linear { Shape::Linear } else { Shape::Exp },
            normalize,
            gate_bonus,
            ..EmpgOptions::default()
        },
    )
}

fn mean(credit: &[StepCredit], value: impl Fn(&StepCredit) -> f64) -> f64 {
    credit.iter().map(value).sum::<f64>() / credit.len() as f64
}

fn assign(options: EmpgOptions, batch: &Batch) -> Credit {
    Empg { base: Grpo::default(), options }.assign(batch).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn g_has_mean_one_and_centred_steps_sum_to_zero(table in tables(), options in options()) {
        let credit = options.modulate(&table).unwrap();
        prop_assert!((mean(&credit, |c| c.g) - 1.0).abs() < 1e-6);
        prop_assert!(mean(&credit, |c| c.advantage).abs() < 1e-9);
        for c in &credit {
            prop_assert!((0.0..=1.0).contains(&c.h_norm) && c.g >= 0.0 && c.bonus >= 0.0);
            prop_assert!((c.base * c.g + c.bonus - c.centring - c.advantage).abs() < 1e-12);
        }
    }

    #[test]
    fn clearer_steps_are_scaled_up(table in tables(), options in options()) {
        let mut credit = options.modulate(&table).unwrap();
        credit.sort_by(|a, b| a.entropy.total_cmp(&b.entropy));
        prop_assert!(credit.windows(2).all(|pair| pair[0].g >= pair[1].g));
    }

    #[test]
    fn equal_entropies_leave_g_at_one(entropy in 0.0f64..5.0, table in tables(), options in options()) {
        let rows = table.rows().iter().map(|row| StepRow { entropy, ..*row }).collect();
        let credit = options.modulate(&StepTable::new(rows).unwrap()).unwrap();
        prop_assert!(credit.iter().all(|c| (c.g - 1.0).abs() < 1e-7));
    }

    #[test]
    fn shards_merge_to_the_same_bits(
        table in tables(),
        options in options(),
        owners in vec(0usize..4, 64),
        turn in 0usize..64,
    ) {
        let mut shards = vec![Vec::new(); 4];
        let mut rows = table.rows().to_vec();
        let turn = turn % rows.len();
        rows.rotate_left(turn);
        for (row, owner) in rows.iter().zip(owners) {
            shards[owner].push(*row);
        }
        let shards = shards.into_iter().map(|rows| StepTable::new(rows).unwrap());
        let whole = StepTable::gather(shards).unwrap();
        prop_assert_eq!(&whole, &table);
        let bits = |credit: Vec<StepCredit>| -> Vec<u64> {
            credit.iter().flat_map(|c| [c.g.to_bits(), c.advantage.to_bits()]).collect()
        };
        prop_assert_eq!(bits(options.modulate(&whole).unwrap()), bits(options.modulate(&table).unwrap()));
    }

    #[test]
    fn rollouts_may_change_places(batch in batches(), options in options(), turn in 0usize..8) {
        let credit = assign(options, &batch);
        let mut turned = batch.clone();
        for group in &mut turned.groups {
            let turn = turn % group.rollouts.len();
            group.rollouts.rotate_left(turn);
        }
        turned.groups.reverse();
        let other = assign(options, &turned);
        for (place, c) in credit.iter() {
            let group = batch.groups.len() - 1 - place.group;
            let size = batch.groups[place.group].rollouts.len();
            let rollout = (place.rollout + size - turn % size) % size;
            let moved = other.step(group, rollout, place.step);
            prop_assert!((c.advantage - moved.advantage).abs() < 1e-9);
            prop_assert!((c.g - moved.g).abs() < 1e-12);
        }
    }

    #[test]
    fn without_strength_the_base_is_only_centred(batch in batches()) {
        let base = Grpo::default().assign(&batch).unwrap();
        let off = EmpgOptions { k: 0.0, zeta: 0.0, ..EmpgOptions::default() };
        let steps_mean = mean(base.steps(), |c| c.base);
        for ((_, b), (_, e)) in base.iter().zip(assign(off, &batch).iter()) {
            prop_assert!((b.advantage - steps_mean - e.advantage).abs() < 1e-6);
        }
        let off = EmpgOptions { center: false, ..off };
        for ((_, b), (_, e)) in base.iter().zip(assign(off, &batch).iter()) {
            prop_assert!((b.advantage - e.advantage).abs() < 1e-6 * b.advantage.abs().max(1.0));
        }
    }

    #[test]
    fn bases_count_each_rollout_once(batch in batches()) {
        for credit in [
            Grpo::default().assign(&batch).unwrap(),
            DrGrpo.assign(&batch).unwrap(),
            Rloo.assign(&batch).unwrap(),
        ] {
            for (group, rollouts) in batch.groups.iter().enumerate() {
                let sum: f64 =
                    (0..rollouts.rollouts.len()).map(|r| credit.step(group, r, 0).base).sum();
                prop_assert!(sum.abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_batch_survives_its_file(batch in batches()) {
        let text = serde_json::to_string(&batch).unwrap();
        prop_assert_eq!(serde_json::from_str::<Batch>(&text).unwrap(), batch);
    }
}
