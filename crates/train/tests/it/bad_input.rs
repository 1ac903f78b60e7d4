//! Input that cannot be trained on is refused with its reason, and never hangs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use empg_env::TaskSet;
use empg_train::{
    DemoTurn, Demonstration, Demonstrations, SftConfig, Silent, TrainError, Trainer, fine_tune,
};

use crate::toy::{Lamps, config, policy};

struct Long;

impl Demonstrations for Long {
    fn episode(&self, _: u64) -> Result<Demonstration, TrainError> {
        let observation = "lamp ".repeat(200);
        let turn = DemoTurn {
            observation,
            thought: String::new(),
            action: "red".into(),
            admissible: Vec::new(),
            imitate: true,
        };
        Ok(Demonstration { env: "lamps".into(), turns: vec![turn] })
    }
}

#[test]
fn a_demonstration_that_never_fits_is_an_error() {
    let mut config = SftConfig { threads: 1, ..SftConfig::default() };
    config.rollout.max_context_tokens = 16;
    let stop = AtomicBool::new(false);
    let mut policy = policy();
    let error = fine_tune(&mut policy, &Long, None, &config, &stop, &mut |_, _, _| Ok(true))
        .unwrap_err()
        .to_string();
    assert!(error.contains("rollout.max_context_tokens is 16"), "{error}");
}

#[test]
fn settings_that_could_train_nothing_are_refused() {
    let refused = |change: fn(&mut empg_train::Config)| {
        let mut config = config();
        change(&mut config);
        config.resolve().unwrap_err().key
    };
    assert_eq!(refused(|c| c.rollout.max_turn_tokens = 5000), "rollout.max_turn_tokens");
    assert_eq!(refused(|c| c.rollout.groups = usize::MAX), "rollout.groups");
    assert_eq!(refused(|c| c.eval.episodes = usize::MAX), "eval.episodes");
    assert_eq!(refused(|c| c.steps = u64::MAX), "steps");
    assert_eq!(refused(|c| c.rollout.admissible = true), "rollout.admissible");
    assert_eq!(refused(|c| c.empg.quantile_high = c.empg.quantile_low), "empg.quantile_low");
}

#[test]
fn prompts_without_room_for_a_turn_are_an_error() {
    let mut config = config();
    config.rollout.max_context_tokens = 16;
    config.rollout.max_turn_tokens = 14;
    let mut trainer = Trainer::new(config, Arc::new(Lamps::default()), policy()).unwrap();
    let error = trainer.step(&mut Silent).unwrap_err().to_string();
    assert!(error.contains("rollout.max_turn_tokens = 14"), "{error}");
}

#[test]
fn an_environment_that_always_fails_says_why() {
    struct Dark;
    impl TaskSet for Dark {
        fn name(&self) -> &'static str {
            "dark"
        }
        fn len(&self, _: empg_env::Split) -> Option<u64> {
            Some(1)
        }
        fn task(&self, _: empg_env::Split, _: u64) -> Result<empg_env::Task, empg_env::EnvError> {
            Ok(empg_env::Task { id: "no number".into(), kind: "dark".into() })
        }
        fn make(&self) -> Box<dyn empg_env::Env> {
            Lamps::default().make()
        }
    }
    let mut trainer = Trainer::new(config(), Arc::new(Dark), policy()).unwrap();
    let error = trainer.step(&mut Silent).unwrap_err().to_string();
    assert!(error.contains("no room no number"), "{error}");
}
