//! Runs made for tests, through the writer that training uses.

use std::path::{Path, PathBuf};

use empg_run::{RunDir, StepRecord, TrajectoryRow};
use serde_json::{Map, Value, json};

/// What no page may execute.
pub(crate) const EVIL: &str = "</script><script>window.planted = 1</script><img src=x onerror=\"window.planted = 2\"> ünï\u{2028}";

/// A run that is being written.
pub(crate) struct Training {
    dir: RunDir,
    step: u64,
    recorded: Option<Vec<TrajectoryRow>>,
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

impl Training {
    /// Begins a run and evaluates it before training.
    pub(crate) fn begin(folder: &Path, name: &str, seed: u64, empg: bool, steps: u64) -> Self {
        let config = format!(
            "seed = {seed}\nsteps = {steps}\n[env]\nname = \"households\"\n[model]\npath = \"tiny\"\n\
             [algo]\nname = \"dapo\"\n[empg]\nenabled = {empg}\nk = 1.0\nzeta = 0.1\n"
        );
        let algo = if empg { "DAPO + EMPG" } else { "DAPO" };
        let info = json!({"empg": "0.1.0", "env": "households", "algo": algo, "seed": seed});
        let dir = RunDir::create(folder.join(name), &config, &info).unwrap();
        let mut training = Self { dir, step: 0, recorded: None };
        training.commit(&[], Some(0.5));
        training.step = 1;
        training
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// The next step records these rows.
    pub(crate) fn record(&mut self, rows: Vec<TrajectoryRow>) {
        self.recorded = Some(rows);
    }

    /// Commits a step with this success and, where it is one, an evaluation.
    pub(crate) fn step(&mut self, success: f64, evaluated: Option<f64>) {
        self.commit(&[("success", success)], evaluated);
        self.step += 1;
    }

    fn commit(&mut self, metrics: &[(&str, f64)], evaluated: Option<f64>) {
        let x = self.step as f64;
        let mut line = object(json!({
            "return": 0.5 + x / 100.0, "turns": 20.0 - x / 10.0, "step_entropy": 0.8 - x / 100.0,
            "step_entropy_min": 0.01, "step_entropy_max": 1.9, "kl_reference": x / 50.0,
            "clip_fraction": 0.01, "grad_norm": 0.5, "g_std": 0.3, "bonus": 0.06,
        }));
        if self.step == 0 {
            line.clear();
        }
        // A number that is none is written as null.
        line.extend(metrics.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
        if let Some(success) = evaluated {
            let kind = |share: f64| json!({"episodes": 8, "success": share, "won": share * 8.0});
            line.insert(
                "eval".to_owned(),
                json!([{"split": "unseen", "success": success, "episodes": 16, "by_task": {
                    "pick_and_place_simple": kind(success),
                    "look_at_obj_in_light": kind(success),
                }}]),
            );
        }
        let rows = self.recorded.take();
        let record = StepRecord {
            step: self.step,
            metrics: line,
            timings: object(json!({"total_s": 2.0, "tokens_per_s": 1000.0})),
            trajectories: rows.as_deref(),
            checkpoint: None,
        };
        self.dir.commit(&record).unwrap();
    }
}

/// The rows of a step: `groups` tasks with `rollouts` episodes of `turns` turns each.
pub(crate) fn rows(step: u64, groups: u32, rollouts: u32, turns: u32) -> Vec<TrajectoryRow> {
    let mut rows = Vec::new();
    for group in 0..groups {
        for rollout in 0..rollouts {
            let won = (group + rollout) % 3 != 0;
            for turn in 0..turns {
                let wave = f64::from((group * 31 + rollout * 17 + turn * 7) % 100) / 100.0;
                let base = if won { 0.8 } else { -0.9 };
                let bonus = if turn + 1 < turns { 0.05 } else { 0.0 };
                let g = 1.4 - 0.8 * wave;
                rows.push(TrajectoryRow {
                    step,
                    group,
                    rollout,
                    task: format!("households/train/{group}"),
                    kind: [
                        "pick_and_place_simple",
                        "look_at_obj_in_light",
                        "pick_two_obj_and_place",
                    ][group as usize % 3]
                        .to_owned(),
                    turn,
                    observation: if (group, rollout, turn) == (0, 0, 1) {
                        EVIL.to_owned()
                    } else {
                        format!("You arrive at drawer {turn}. On it you see a mug {group}.")
                    },
                    action: format!("take mug {group} from drawer {turn}"),
                    reward: f64::from(u8::from(won)),
                    end: if won { "won" } else { "turns" }.to_owned(),
                    won,
                    tokens: vec![1, 2, 3],
                    logprob: vec![-0.1; 3],
                    entropy: vec![0.1, wave as f32, 0.4],
                    h: wave,
                    h_norm: wave,
                    g,
                    f_next: (turn + 1 < turns).then_some(0.5),
                    base,
                    bonus,
                    centring: 0.02,
                    advantage: base * g + bonus - 0.02,
                });
            }
        }
    }
    rows
}
