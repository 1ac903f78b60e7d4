//! The goldens that `tools/empg_goldens.py` wrote.

use std::ops::Range;

use empg::loss::{self, Clip};
use empg::{Base, DrGrpo, EmpgOptions, Grpo, Real, Rloo, StepSpans, TokenRows};
use serde::Deserialize;

const F64: f64 = 1e-6;
const F32: f64 = 2e-5;

#[derive(Deserialize)]
struct Case {
    name: String,
    options: EmpgOptions,
    rows: usize,
    width: usize,
    steps: Vec<Vec<(usize, usize)>>,
    entropy: Vec<f64>,
    advantages: Vec<f64>,
    f64: Vec<f64>,
    f32: Vec<f64>,
}

impl Case {
    fn spans(&self) -> StepSpans {
        let rows = TokenRows::padded(self.rows, self.width);
        let range = |&(start, end): &(usize, usize)| -> Range<usize> { start..end };
        StepSpans::new(rows, self.steps.iter().map(|row| row.iter().map(range))).unwrap()
    }

    fn check<T: Real + PartialEq + std::fmt::Debug>(&self, expected: &[f64], bound: f64) {
        let cast = |values: &[f64]| values.iter().map(|&v| T::nearest(v)).collect::<Vec<T>>();
        let (spans, entropy, given) = (self.spans(), cast(&self.entropy), cast(&self.advantages));
        let mut in_place = given.clone();
        let credit = self.options.modulate_tokens(&spans, &entropy, &mut in_place, 1).unwrap();
        close(&self.name, &in_place, expected, bound);

        let mut out = vec![T::nearest(7.0); given.len()];
        let base = Base::Tokens(&given);
        let again = self.options.modulate_tokens_into(&spans, &entropy, base, &mut out, 2).unwrap();
        assert_eq!(out, in_place, "{}", self.name);
        assert_eq!(again, credit, "{}", self.name);

        if given.chunks(self.width).all(|row| row.iter().all(|a| *a == row[0])) {
            let per_row: Vec<T> = given.iter().copied().step_by(self.width).collect();
            let base = Base::Rows(&per_row);
            self.options.modulate_tokens_into(&spans, &entropy, base, &mut out, 0).unwrap();
            close(&self.name, &out, expected, bound);
        }
    }
}

fn close<T: Real>(name: &str, got: &[T], expected: &[f64], bound: f64) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (token, (&got, &y)) in got.iter().zip(expected).enumerate() {
        let x: f64 = got.into();
        assert!((x - y).abs() <= bound * y.abs().max(1.0), "{name}: token {token}: {x} ≠ {y}");
    }
}

#[test]
fn modulation_equals_numpy_in_both_precisions() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../goldens/modulation.json")).unwrap();
    assert_eq!(cases.len(), 33);
    for case in &cases {
        case.check::<f64>(&case.f64, F64);
        case.check::<f32>(&case.f32, F32);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct GroupCase {
    rewards: Vec<f64>,
    grpo: Vec<f64>,
    #[serde(rename = "grpo-ddof-0")]
    grpo_ddof_0: Vec<f64>,
    trl: Vec<f64>,
    dr_grpo: Vec<f64>,
    rloo: Vec<f64>,
}

#[test]
fn base_estimators_equal_numpy() {
    let cases: Vec<GroupCase> =
        serde_json::from_str(include_str!("../goldens/groups.json")).unwrap();
    for case in &cases {
        let r = &case.rewards;
        let grpo = Grpo::default();
        close("grpo", &grpo.advantages(r).unwrap(), &case.grpo, F64);
        close("ddof 0", &Grpo { ddof: 0, ..grpo }.advantages(r).unwrap(), &case.grpo_ddof_0, F64);
        close("trl", &Grpo::trl().advantages(r).unwrap(), &case.trl, F64);
        close("dr-grpo", &DrGrpo::advantages(r).unwrap(), &case.dr_grpo, F64);
        close("rloo", &Rloo::advantages(r).unwrap(), &case.rloo, F64);
    }
}

#[derive(Deserialize)]
struct LossCase {
    logp: f64,
    logp_old: f64,
    logp_ref: f64,
    advantage: f64,
    ppo: f64,
    k1: f64,
    k2: f64,
    k3: f64,
}

#[test]
fn losses_equal_numpy() {
    let cases: Vec<LossCase> = serde_json::from_str(include_str!("../goldens/loss.json")).unwrap();
    for c in &cases {
        let ppo = loss::ppo(c.logp, c.logp_old, c.advantage, Clip::higher());
        let got = [
            ppo.loss,
            loss::k1(c.logp, c.logp_ref).value,
            loss::k2(c.logp, c.logp_ref).value,
            loss::k3(c.logp, c.logp_ref).value,
        ];
        close("loss", &got, &[c.ppo, c.k1, c.k2, c.k3], F64);
    }
}
