//! Updates that go backward from what sampling kept.

use std::sync::Arc;

use empg_llm::{LoraConfig, Module, Precision, Tape};
use empg_train::config::{ConfigError, Context, Outcome};
use empg_train::{Config, Silent, StepReport, TrainError, Trainer};

use crate::toy::{Lamps, config, policy};

/// One step with a tape of so many bytes: its report and the trained parameters.
fn step(config: &Config, tape_gb: f64) -> (StepReport, Vec<f32>) {
    let mut config = config.clone();
    config.model.tape_gb = tape_gb;
    let mut trainer = Trainer::new(config, Arc::new(Lamps::default()), policy()).unwrap();
    let (report, learned) = trainer.step(&mut Silent).unwrap();
    assert!(learned.is_some() && report.grad_norm > 0.0, "nothing was learned from");
    (report, trainer.policy().model.trainable_params().to_vec())
}

/// The largest difference.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn alone() -> Config {
    let mut config = config();
    config.threads = 1;
    config.algo.minibatches = 1;
    // An untrained policy rarely names a colour.
    config.reward.outcome = Outcome::Score;
    config.rollout.group_size = 32;
    // Adam divides a first gradient by itself: what is 0 but for rounding must not count.
    config.optim.eps = 1e-3;
    config
}

#[test]
fn an_update_from_the_tape_is_that_of_a_forward_pass() {
    let lora = LoraConfig { rank: 2, targets: Module::ALL.to_vec(), ..LoraConfig::default() };
    for context in [Context::Full, Context::Window(1)] {
        for lora in [None, Some(lora.clone())] {
            let mut config = alone();
            config.rollout.context = context;
            config.model.lora = lora;
            // Several micro-batches.
            config.algo.micro_batch_tokens = 40;
            let (computed, expected) = step(&config, 0.0);
            let (taped, found) = step(&config, 0.1);
            assert_eq!(taped.played, computed.played);
            assert!(taped.rows_taped == taped.rows && computed.rows_taped == 0, "{taped:?}");
            assert!(taped.rows < computed.rows, "a segment's last token is no input");
            assert!((taped.grad_norm / computed.grad_norm - 1.0).abs() < 1e-4);
            assert!((taped.loss.loss - computed.loss.loss).abs() < 1e-5);
            assert!(taped.loss.max_log_ratio < 1e-4);
            let far = apart(&found, &expected);
            let moved = config.optim.lr as f32;
            assert!(far < 0.01 * moved, "{far}, a step is {moved}");
        }
    }
}

#[test]
fn only_the_first_update_of_a_step_finds_its_weights() {
    let mut config = alone();
    (config.algo.minibatches, config.algo.epochs) = (2, 2);
    let (report, _) = step(&config, 0.1);
    assert!(report.updates >= 3 && report.rows_taped > 0);
    assert!(report.rows_taped < report.rows / 2, "{} of {}", report.rows_taped, report.rows);
}

#[test]
fn groups_that_do_not_fit_are_computed_again() {
    let mut window = alone();
    window.rollout.context = Context::Window(1);
    for config in [alone(), window] {
        shares_of_a_tape(&config);
    }
}

fn shares_of_a_tape(config: &Config) {
    let row = Tape::row_bytes(&policy().model, Precision::F32) as f64;
    let (all, expected) = step(config, 0.1);
    let mut some = 0;
    for share in 1..8 {
        let rows = all.played.context_tokens * share / 8;
        let (report, found) = step(config, rows as f64 * row / 1e9);
        assert!(report.rows_taped <= rows && report.played == all.played);
        some += usize::from((1..all.rows).contains(&report.rows_taped));
        assert!(apart(&found, &expected) < 0.01 * config.optim.lr as f32);
    }
    assert!(some > 0, "never a part of the groups");
    assert_eq!(step(config, row / 2e9).0.rows_taped, 0);
}

#[test]
fn a_tape_that_would_stay_empty_is_refused() {
    let refused = |config: Config| match Trainer::new(config, Arc::new(Lamps::default()), policy())
        .map(drop)
    {
        Err(TrainError::Config(ConfigError { key, what })) => (key, what),
        other => panic!("{other:?}"),
    };
    let mut config = alone();
    config.model.tape_gb = 0.1;
    let (key, what) = refused(Config { threads: 2, ..config.clone() });
    assert!(key == "model.tape_gb" && what.contains("threads = 1"), "{what}");
    config.model.lora = Some(LoraConfig { dropout: 0.1, ..LoraConfig::default() });
    let (key, what) = refused(config.clone());
    assert!(key == "model.tape_gb" && what.contains("dropout"), "{what}");
    config.model.tape_gb = -1.0;
    assert_eq!(refused(config).0, "model.tape_gb");
}
