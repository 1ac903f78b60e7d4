//! A process that is killed by the system at a random moment.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use empg_run::{CheckpointFiles, Run, RunDir, StepRecord};
use serde_json::json;

use crate::{CONFIG, object, rows};

const DIRECTORY: &str = "EMPG_RUN_KILL_TEST_DIRECTORY";
const STEPS: u64 = 24;

fn train(root: &Path) {
    let (mut run, checkpoint) = if root.join("manifest.json").exists() {
        RunDir::resume(root).unwrap()
    } else {
        (RunDir::create(root, CONFIG, &json!({"seed": 1})).unwrap(), None)
    };
    let (first, mut weights) = match checkpoint {
        Some(checkpoint) => (checkpoint.step + 1, checkpoint.read("model.safetensors").unwrap()),
        None => (1, vec![1u8; 60_000]),
    };
    for step in first..=STEPS {
        for (index, weight) in weights.iter_mut().enumerate() {
            *weight = weight.wrapping_mul(31).wrapping_add(index as u8 ^ step as u8);
        }
        let (rows, sum) = (rows(step), weights.iter().map(|&w| u64::from(w)).sum::<u64>());
        run.commit(&StepRecord {
            step,
            metrics: object(&json!({"sum": sum})),
            timings: object(&json!({"seconds": 0.1})),
            trajectories: Some(&rows),
            checkpoint: (step % 3 == 0).then(|| CheckpointFiles {
                files: vec![("model.safetensors".to_owned(), weights.clone())],
                score: Some((sum % 997) as f64 / 997.0),
            }),
        })
        .unwrap();
    }
}

/// The process that is killed; without a directory it does nothing.
#[test]
#[ignore = "started by a_killed_process_is_continued_to_the_same_bytes"]
fn victim() {
    if let Some(root) = std::env::var_os(DIRECTORY) {
        train(Path::new(&root));
    }
}

#[test]
fn a_killed_process_is_continued_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (root, reference) = (dir.path().join("killed"), dir.path().join("reference"));
    train(&reference);
    let mut kills = 0;
    for attempt in 0.. {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::victim", "--ignored"])
            .env(DIRECTORY, &root)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Longer and longer, so that a slow machine comes to an end as well.
        std::thread::sleep(Duration::from_millis(15 + 11 * attempt));
        let finished = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(status) = finished {
            assert!(status.success());
            break;
        }
        kills += 1;
    }
    let (run, expected) = (Run::open(&root).unwrap(), Run::open(&reference).unwrap());
    let mut names = vec!["manifest.json".to_owned(), "metrics.jsonl".to_owned()];
    names.extend(expected.trajectory_steps().map(|s| format!("trajectories/step-{s:06}.parquet")));
    for checkpoint in expected.checkpoints().unwrap() {
        for file in ["model.safetensors", "state.json"] {
            names.push(format!("checkpoints/step-{:06}/{file}", checkpoint.step));
        }
    }
    for name in names {
        let read = |root: &Path| fs::read(root.join(&name)).unwrap();
        assert!(read(&root) == read(&reference), "{name} differs after {kills} kills");
    }
    assert_eq!(run.timings().unwrap().len() as u64, STEPS);
}
