use std::fs;

use empg_run::{Follower, Run, RunDir, RunError, StepRecord};
use serde_json::json;

use crate::{CONFIG, commit, four_steps, object};

fn steps(follower: &mut Follower) -> (bool, Vec<u64>) {
    let news = follower.look().unwrap();
    (news.rewound, news.steps.iter().map(|s| s.step).collect())
}

#[test]
fn a_growing_run_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDir::create(dir.path(), CONFIG, &json!({})).unwrap();
    let mut follower = Follower::open(dir.path()).unwrap();
    assert_eq!(steps(&mut follower), (false, vec![]));
    assert!(Run::open(dir.path()).unwrap().is_being_written());
    commit(&mut run, 1, None);
    commit(&mut run, 2, None);
    assert_eq!(steps(&mut follower), (false, vec![1, 2]));
    assert_eq!(steps(&mut follower), (false, vec![]));
    // Half a step more, which the next commit overwrites.
    for name in ["metrics.jsonl", "timings.jsonl"] {
        let path = dir.path().join(name);
        let bytes = [fs::read(&path).unwrap(), b"{\"step\":3,\"succ".to_vec()].concat();
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(steps(&mut follower), (false, vec![]));
    commit(&mut run, 3, None);
    let news = follower.look().unwrap();
    assert_eq!(news.steps.len(), 1);
    let step = &news.steps[0];
    assert_eq!((step.step, &step.metrics["success"]), (3, &json!(0.75)));
    assert_eq!(step.timings["tokens_per_s"], 1000.0);
    let created = follower.run().created().unwrap();
    assert!(step.seconds.unwrap() >= created && created > 1.6e9);
    drop(run);
    assert!(!Run::open(dir.path()).unwrap().is_being_written());
}

#[test]
fn a_resumed_run_is_told_from_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    four_steps(dir.path());
    let cut = |root: &std::path::Path| {
        // The last checkpoint is lost, so that the run goes back to step 2.
        fs::remove_file(root.join("checkpoints/step-000004/model.safetensors")).unwrap();
        RunDir::resume(root).unwrap().0
    };
    let mut follower = Follower::open(dir.path()).unwrap();
    assert_eq!(steps(&mut follower), (false, vec![1, 2, 3, 4]));
    let mut run = cut(dir.path());
    assert_eq!(steps(&mut follower), (true, vec![1, 2]));
    commit(&mut run, 3, None);
    let news = follower.look().unwrap();
    assert!(!news.rewound && news.steps[0].timings["seconds"] == 0.5);
    assert!(news.steps[0].seconds.is_some());

    // Back and further than before between two looks, with other lines.
    drop(run);
    let mut run = RunDir::resume(dir.path()).unwrap().0;
    for step in 3..=9 {
        let metrics = object(&json!({"success": 0.5, "longer": "x".repeat(step)}));
        let timings = object(&json!({"seconds": 0.125, "more": "y".repeat(step)}));
        let step = step as u64;
        run.commit(&StepRecord { step, metrics, timings, ..StepRecord::default() }).unwrap();
    }
    let news = follower.look().unwrap();
    assert!(news.rewound);
    assert_eq!(news.steps.len(), 9);
    let last = &news.steps[8];
    assert_eq!((&last.timings["seconds"], last.seconds.is_some()), (&json!(0.125), true));
}

#[test]
fn long_runs_are_told_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDir::create(dir.path(), CONFIG, &json!({})).unwrap();
    for step in 1..=5 {
        // The third line is longer than a look.
        let size = if step == 3 { 3 << 20 } else { 700_000 };
        let metrics = object(&json!({"text": "x".repeat(size), "value": step}));
        run.commit(&StepRecord { step, metrics, ..StepRecord::default() }).unwrap();
    }
    let mut follower = Follower::open(dir.path()).unwrap();
    let mut told = Vec::new();
    let mut looks = 0;
    while looks == 0 || !follower.caught_up() {
        let news = follower.look().unwrap();
        assert!(!news.rewound && !news.steps.is_empty());
        told.extend(news.steps.iter().map(|s| s.step));
        looks += 1;
    }
    assert_eq!(told, [1, 2, 3, 4, 5]);
    assert!(looks > 2, "{looks}");
}

#[test]
fn what_lies_beside_may_be_missing_and_what_is_committed_may_not() {
    let dir = tempfile::tempdir().unwrap();
    four_steps(dir.path());
    fs::write(dir.path().join("timings.jsonl"), "nonsense\n{\"step\":2,\"seconds\":7}\n[1]\n")
        .unwrap();
    let events = fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.path());
    let events = events.into_iter().find(|p| p.to_string_lossy().contains("tfevents")).unwrap();
    fs::remove_file(events).unwrap();
    fs::remove_file(dir.path().join("created.json")).unwrap();
    let mut follower = Follower::open(dir.path()).unwrap();
    let told = follower.look().unwrap().steps;
    assert_eq!(told.len(), 4);
    assert_eq!((told[1].timings["seconds"].as_u64(), told[2].timings.len()), (Some(7), 0));
    assert!(told.iter().all(|s| s.seconds.is_none()) && follower.run().created().is_none());

    let path = dir.path().join("metrics.jsonl");
    let whole = fs::read(&path).unwrap();
    for damaged in [whole[..whole.len() - 3].to_vec(), [b"X", &whole[1..]].concat()] {
        fs::write(&path, &damaged).unwrap();
        let error = Follower::open(dir.path()).unwrap().look().unwrap_err();
        assert!(matches!(error, RunError::Corrupt { .. }), "{error}");
    }
    assert!(matches!(Follower::open(dir.path().join("x")), Err(RunError::NotARun { .. })));
}
