use empg::loss::Aggregation;
use empg_train::Config;
use empg_train::config::Recipe;

#[test]
fn recipes_fill_what_was_left_open() {
    let dapo = Config::default().resolve().unwrap();
    assert_eq!(dapo.algo.clip_high, Some(0.28));
    assert_eq!(dapo.algo.kl_coef, Some(0.0));
    assert_eq!(dapo.algo.dynamic_sampling, Some(true));
    assert_eq!(dapo.algo.aggregation, Some(Aggregation::TokenMean));
    let mut grpo = Config::default();
    grpo.algo.name = Recipe::Grpo;
    grpo.algo.kl_coef = Some(0.5);
    let grpo = grpo.resolve().unwrap();
    assert_eq!(grpo.algo.clip_high, Some(0.2));
    assert_eq!(grpo.algo.kl_coef, Some(0.5));
    assert_eq!(grpo.algo.dynamic_sampling, Some(false));
    assert_eq!(grpo.algo.aggregation, Some(Aggregation::SequenceMean));
}

#[test]
fn untrainable_values_are_named() {
    let refused = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config.resolve().unwrap_err()
    };
    assert_eq!(refused(|c| c.empg.k = -1.0).key, "empg.k");
    assert_eq!(refused(|c| c.empg.zeta = f64::NAN).key, "empg.zeta");
    assert_eq!(refused(|c| c.rollout.temperature = 0.0).key, "rollout.temperature");
    assert_eq!(refused(|c| c.optim.lr = f64::INFINITY).key, "optim.lr");
    assert_eq!(refused(|c| c.model.dtype = "f8".into()).key, "model.dtype");
    assert_eq!(refused(|c| c.eval.splits.clear()).key, "eval.splits");
    let one = refused(|c| c.rollout.group_size = 1);
    assert_eq!(one.key, "rollout.group_size");
    assert!(one.what.contains("at least 2"), "{one}");
    assert_eq!(refused(|c| c.optim.beta1 = 0.999_999_999).key, "optim.beta1");
    assert_eq!(refused(|c| c.rollout.temperature = 1e-21).key, "rollout.temperature");
}
