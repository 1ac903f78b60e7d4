//! Runs on a real file system.

mod compat;
mod damage;
mod follow;
mod kill;
mod lifecycle;

use std::path::Path;

use empg_run::{CheckpointFiles, RunDir, StepRecord, TrajectoryRow};
use serde_json::{Map, Value, json};

const CONFIG: &str = "[trainer]\nsteps = 4\n";

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// Two agent steps of an episode.
fn rows(step: u64) -> Vec<TrajectoryRow> {
    let row = |turn: u32, f_next: Option<f64>| TrajectoryRow {
        step,
        group: 1,
        rollout: 2,
        task: "train/heat-7".to_owned(),
        kind: "heat".to_owned(),
        turn,
        observation: format!("You are in a kitchen. Turn {turn}."),
        action: format!("go to fridge {}", turn + 1),
        reward: 1.0,
        end: "terminated".to_owned(),
        won: true,
        tokens: vec![7, 1 << 31, step as u32],
        logprob: vec![-0.25, -1.5, -0.125],
        entropy: vec![0.5, 1.25, 0.0],
        h: 0.5833333333333334,
        h_norm: 0.75,
        g: 0.9,
        f_next,
        base: 0.7,
        bonus: f_next.map_or(0.0, |f| 0.1 * f),
        centring: 0.02,
        advantage: 0.61,
    };
    vec![row(0, Some(0.8)), row(1, None)]
}

/// Commits a step; even ones have a checkpoint with `score`.
fn commit(run: &mut RunDir, step: u64, score: Option<f64>) {
    let rows = rows(step);
    run.commit(&StepRecord {
        step,
        metrics: object(&json!({"success": 0.25 * step as f64, "entropy": {"mean": 0.1}})),
        timings: object(&json!({"seconds": 0.5, "tokens_per_s": 1000.0})),
        trajectories: Some(&rows),
        checkpoint: step.is_multiple_of(2).then(|| CheckpointFiles {
            files: vec![
                ("model.safetensors".to_owned(), format!("weights of {step}").into_bytes()),
                ("config.json".to_owned(), b"{}\n".to_vec()),
            ],
            score,
        }),
    })
    .unwrap();
}

/// A run of four steps with checkpoints after the second (the best) and the fourth.
fn four_steps(root: &Path) {
    let mut run = RunDir::create(root, CONFIG, &json!({"program": "empg", "seed": 1})).unwrap();
    for step in 1..=4 {
        commit(&mut run, step, Some(if step == 2 { 0.9 } else { 0.4 }));
    }
    run.write_panel("unseen", b"{\"task\":\"unseen/1\",\"seed\":3}\n").unwrap();
}
