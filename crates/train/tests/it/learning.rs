use std::sync::Arc;

use empg_env::Split;
use empg_train::config::{Base, Recipe, Schedule};
use empg_train::{AdamW, Panel, Silent, Summary, TrainError, Trainer};

use crate::toy::{Lamps, config, policy};

fn learn(recipe: Recipe, empg: bool, steps: u64) -> Summary {
    let mut config = config();
    config.steps = steps;
    config.rollout.groups = 8;
    config.rollout.group_size = 8;
    config.optim.lr = 2e-3;
    // Without it one of the colours can die out before it was ever right.
    config.algo.entropy_coef = 0.03;
    config.algo.name = recipe;
    config.empg.enabled = empg;
    config.eval.episodes = 27;
    let mut trainer = Trainer::new(config, Arc::new(Lamps::default()), policy()).unwrap();
    let summary = trainer.run(None, &mut Silent).unwrap();
    assert_eq!(summary.steps, steps);
    assert!(summary.before[0].success < 0.2, "{:?}", summary.before);
    assert!(summary.before[0].ineffective > 0.8, "{:?}", summary.before);
    summary
}

#[test]
fn dapo_with_empg_learns_to_name_the_colours() {
    let summary = learn(Recipe::Dapo, true, 120);
    assert!(summary.after[0].success > 0.6, "{:?}", summary.after);
}

#[test]
fn every_arm_learns_which_words_are_colours() {
    for (recipe, empg) in [(Recipe::Grpo, false), (Recipe::Grpo, true), (Recipe::Dapo, false)] {
        let summary = learn(recipe, empg, 50);
        let learned = summary.before[0].ineffective - summary.after[0].ineffective;
        assert!(learned > 0.1, "{recipe:?} {empg} {:?}", summary.after);
    }
}

#[test]
fn the_schedule_ends_with_the_last_update() {
    let mut config = config();
    config.steps = 3;
    config.rollout.groups = 6;
    config.algo.minibatches = 4;
    config.algo.dynamic_sampling = Some(false);
    config.optim.lr = 1e-3;
    config.optim.warmup = 0;
    config.optim.schedule = Schedule::Linear;
    let mut trainer = Trainer::new(config, Arc::new(Lamps::default()), policy()).unwrap();
    let mut last = (0, 0.0);
    for _ in 0..3 {
        let report = trainer.step(&mut Silent).unwrap().0;
        last = (report.updates, report.lr);
    }
    assert_eq!(last.0, 3, "six groups in minibatches of two");
    // The last of nine updates is a ninth away from a tenth of the peak.
    assert!((last.1 - 1e-3 * (1.0 - 0.9 * 8.0 / 9.0)).abs() < 1e-12, "{last:?}");
}

#[test]
fn every_base_and_both_halves_of_empg_train() {
    for base in [Base::Grpo, Base::DrGrpo, Base::Rloo] {
        for (k, zeta) in [(0.0, 0.1), (1.0, 0.0)] {
            let mut config = config();
            config.steps = 1;
            config.algo.base = base;
            config.algo.epochs = 2;
            config.algo.entropy_coef = 0.01;
            config.algo.kl_coef = Some(0.01);
            config.empg.k = k;
            config.empg.zeta = zeta;
            let mut trainer = Trainer::new(config, Arc::new(Lamps::default()), policy()).unwrap();
            trainer.run(None, &mut Silent).unwrap();
        }
    }
}

#[test]
fn flat_groups_are_dropped_and_the_step_goes_on() {
    let lamps = Lamps { flat: true, ..Lamps::default() };
    let mut trainer = Trainer::new(config(), Arc::new(lamps), policy()).unwrap();
    let (report, learned) = trainer.step(&mut Silent).unwrap();
    assert!(learned.is_none());
    assert_eq!(report.groups, 0);
    assert_eq!(report.played.rounds, 2);
    assert_eq!(report.played.groups_flat, report.played.groups);
    let metrics = report.metrics();
    assert_eq!(metrics["groups_dropped"], metrics["groups_sampled"]);
    assert_eq!(metrics["groups_flat"], metrics["groups_sampled"]);
}

#[test]
fn flat_groups_that_are_trained_on_are_not_dropped() {
    let lamps = Lamps { flat: true, ..Lamps::default() };
    let mut config = config();
    config.algo.dynamic_sampling = Some(false);
    let mut trainer = Trainer::new(config, Arc::new(lamps), policy()).unwrap();
    let (report, learned) = trainer.step(&mut Silent).unwrap();
    assert!(learned.is_some());
    let metrics = report.metrics();
    assert_eq!(metrics["groups_flat"], metrics["groups"]);
    assert_eq!(metrics["groups_dropped"], 0);
}

#[test]
fn a_failing_environment_ends_its_episode_only() {
    let lamps = Lamps { broken: true, ..Lamps::default() };
    let mut trainer = Trainer::new(config(), Arc::new(lamps), policy()).unwrap();
    let (report, _) = trainer.step(&mut Silent).unwrap();
    assert!(report.played.failed > 0);
    assert!(report.played.failed < report.played.episodes);
}

#[test]
fn panels_are_the_same_every_time() {
    let a = Panel::choose(&Lamps::default(), Split::Unseen, 9, 3).unwrap();
    assert_eq!(a, Panel::choose(&Lamps::default(), Split::Unseen, 9, 3).unwrap());
    assert_ne!(a, Panel::choose(&Lamps::default(), Split::Unseen, 9, 4).unwrap());
    assert_eq!(Panel::choose(&Lamps::default(), Split::Unseen, 0, 3).unwrap().tasks.len(), 27);
}

#[test]
fn a_broken_gradient_stops_the_update_and_names_the_tensor() {
    let mut model = policy().model;
    let spec = model.layout.find("model.layers.1.mlp.down_proj.weight").unwrap().clone();
    let mut optimizer = AdamW::new(config().optim, model.params.len(), 1);
    let mut grads = vec![0.1; model.params.len()];
    grads[spec.range.start + 3] = f32::NAN;
    let before = model.params.clone();
    let layout = model.layout.clone();
    let error = optimizer.update(&layout, &mut model.params, &mut grads).unwrap_err();
    assert!(
        matches!(&error, TrainError::NotFinite { tensor, .. } if *tensor == spec.name),
        "{error}"
    );
    assert_eq!(model.params, before);
    assert_eq!(optimizer.state().2, 0);
}

#[test]
fn a_model_that_overflows_is_an_error() {
    let mut broken = policy();
    let spec = broken.model.layout.find("model.layers.1.mlp.down_proj.weight").unwrap().clone();
    broken.model.params[spec.range].fill(1e38);
    let error = Trainer::new(config(), Arc::new(Lamps::default()), broken)
        .and_then(|mut t| t.run(None, &mut Silent))
        .unwrap_err();
    assert!(!matches!(error, TrainError::Worker(_)), "{error}");
}

#[test]
fn a_stop_is_obeyed() {
    let mut trainer = Trainer::new(config(), Arc::new(Lamps::default()), policy()).unwrap();
    trainer.stop_flag().store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(trainer.run(None, &mut Silent), Err(TrainError::Interrupted)));
}
