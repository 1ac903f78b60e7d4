use std::fs;

use empg_run::{Run, RunDir, RunError, StepRecord};
use serde_json::json;

use crate::{CONFIG, commit, four_steps, rows};

#[test]
fn what_is_committed_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    four_steps(dir.path());
    let run = Run::open(dir.path()).unwrap();
    assert_eq!(run.config().unwrap(), CONFIG);
    assert_eq!(run.manifest().info()["seed"], 1);
    assert_eq!(run.manifest().step, Some(4));
    let metrics = run.metrics().unwrap();
    assert_eq!(metrics.len(), 4);
    assert_eq!((&metrics[2]["step"], &metrics[2]["success"]), (&json!(3), &json!(0.75)));
    assert_eq!(run.timings().unwrap()[3]["tokens_per_s"], 1000.0);
    assert_eq!(run.trajectories(3).unwrap(), rows(3));
    assert!(matches!(run.trajectories(9), Err(RunError::NoTrajectories { step: 9, .. })));
    let (best, last) = (run.best().unwrap().unwrap(), run.last().unwrap().unwrap());
    assert_eq!((best.step, best.score, last.step), (2, Some(0.9), 4));
    assert_eq!(last.read("model.safetensors").unwrap(), b"weights of 4");
    assert!(last.read("other").is_err());
    assert_eq!(run.panels().unwrap(), ["unseen"]);
    assert_eq!(run.panel("unseen").unwrap()[0]["seed"], 3);
    assert!(run.panel("../manifest").is_err());
}

#[test]
fn a_template_is_kept_beside_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    four_steps(dir.path());
    assert_eq!(Run::open(dir.path()).unwrap().prompt().unwrap(), None);
    let (mut run, _) = RunDir::resume(dir.path()).unwrap();
    run.write_prompt("{{ observation }}\n").unwrap();
    drop(run);
    RunDir::resume(dir.path()).unwrap();
    let kept = Run::open(dir.path()).unwrap().prompt().unwrap();
    assert_eq!(kept.as_deref(), Some("{{ observation }}\n"));
    fs::write(dir.path().join("prompt.jinja"), [0xFF]).unwrap();
    let error = Run::open(dir.path()).unwrap().prompt().unwrap_err().to_string();
    assert!(error.contains("prompt.jinja"), "{error}");
}

#[test]
fn a_reader_sees_committed_steps_only_while_the_run_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDir::create(dir.path(), CONFIG, &json!({})).unwrap();
    let mut reader = Run::open(dir.path()).unwrap();
    assert!(reader.metrics().unwrap().is_empty() && reader.last().unwrap().is_none());
    commit(&mut run, 1, None);
    assert!(reader.metrics().unwrap().is_empty());
    reader.refresh().unwrap();
    assert_eq!(reader.metrics().unwrap().len(), 1);
    // Half a step more.
    for name in ["metrics.jsonl", "timings.jsonl"] {
        let path = dir.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(b"{\"step\":2,\"succ");
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!((reader.metrics().unwrap().len(), reader.timings().unwrap().len()), (1, 1));
    commit(&mut run, 2, None);
    reader.refresh().unwrap();
    assert_eq!(reader.metrics().unwrap().len(), 2);
}

#[test]
fn a_run_is_not_overwritten_and_foreign_files_are_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    four_steps(dir.path());
    let error = RunDir::create(dir.path(), CONFIG, &json!({})).unwrap_err();
    assert!(error.to_string().contains("--resume"), "{error}");

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("thesis.tex"), "x").unwrap();
    let error = RunDir::create(other.path(), CONFIG, &json!({})).unwrap_err();
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1, "nothing is left behind");
    assert!(matches!(RunDir::resume(other.path()), Err(RunError::NotARun { .. })));
    assert!(matches!(Run::open(other.path().join("none")), Err(RunError::NotARun { .. })));
    assert!(matches!(Run::open(other.path().join("thesis.tex")), Err(RunError::NotARun { .. })));
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn files_of_the_same_names_are_only_taken_over_from_a_start_that_was_killed() {
    let names = [
        "config.toml",
        "metrics.jsonl",
        "timings.jsonl",
        "created.json",
        "manifest.json.tmp",
        "events.out.tfevents.1000000000.empg",
    ];
    for name in names {
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join(name);
        fs::write(&theirs, "mine").unwrap();
        let error = RunDir::create(dir.path(), CONFIG, &json!({})).unwrap_err();
        assert!(matches!(&error, RunError::NotEmpty { found, .. } if found == name), "{error}");
        assert_eq!(fs::read(&theirs).unwrap(), b"mine");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }
    // A start leaves its lock before anything else, and then the time of its creation.
    let dir = tempfile::tempdir().unwrap();
    for name in ["run.lock", "created.json.tmp"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    fs::create_dir(dir.path().join("panels")).unwrap();
    for name in ["config.toml", "metrics.jsonl"] {
        fs::write(dir.path().join(name), "half").unwrap();
    }
    let run = RunDir::create(dir.path(), CONFIG, &json!({})).unwrap();
    assert_eq!(fs::read_to_string(run.path().join("config.toml")).unwrap(), CONFIG);
    assert!(Run::open(dir.path()).unwrap().metrics().unwrap().is_empty());
}

#[test]
fn event_files_of_other_programs_stay() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = dir.path().join("events.out.tfevents.1000000000.host.4711.0");
    fs::write(&theirs, "their scalars").unwrap();
    let error = RunDir::create(dir.path(), CONFIG, &json!({})).unwrap_err();
    assert!(matches!(error, RunError::NotEmpty { .. }), "{error}");
    assert_eq!(fs::read(&theirs).unwrap(), b"their scalars");

    // One that came later is not taken for the run's own.
    fs::remove_file(&theirs).unwrap();
    four_steps(dir.path());
    fs::write(&theirs, "their scalars").unwrap();
    drop(RunDir::resume(dir.path()).unwrap());
    assert_eq!(fs::read(&theirs).unwrap(), b"their scalars");
    assert_eq!(Run::open(dir.path()).unwrap().timings().unwrap().len(), 4);
}

#[test]
fn two_writers_are_one_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDir::create(dir.path(), CONFIG, &json!({})).unwrap();
    commit(&mut run, 1, None);
    assert!(matches!(RunDir::resume(dir.path()), Err(RunError::Locked { .. })));
    drop(run);
    RunDir::resume(dir.path()).unwrap();
}

#[test]
fn a_writer_that_is_still_dying_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDir::create(dir.path(), CONFIG, &json!({})).unwrap();
    commit(&mut run, 1, None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(200));
            drop(run);
        });
        RunDir::resume(dir.path()).unwrap();
    });
}

#[test]
fn steps_only_increase() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDir::create(dir.path(), CONFIG, &json!({})).unwrap();
    commit(&mut run, 5, None);
    for step in [5, 4] {
        let record = StepRecord { step, ..StepRecord::default() };
        assert!(matches!(run.commit(&record), Err(RunError::StepOrder { last: 5, .. })));
    }
    commit(&mut run, 9, None);
    assert_eq!(Run::open(dir.path()).unwrap().metrics().unwrap().len(), 2);
}

#[test]
fn resuming_without_a_checkpoint_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDir::create(dir.path(), CONFIG, &json!({})).unwrap();
    commit(&mut run, 1, None);
    drop(run);
    let (mut run, checkpoint) = RunDir::resume(dir.path()).unwrap();
    assert!(checkpoint.is_none() && run.last_step().is_none());
    assert_eq!(run.config(), CONFIG);
    commit(&mut run, 1, None);
    assert_eq!(Run::open(dir.path()).unwrap().metrics().unwrap().len(), 1);
}

#[test]
fn files_of_the_user_survive_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    four_steps(dir.path());
    let notes = [dir.path().join("notes.md"), dir.path().join("checkpoints/mine")];
    for path in &notes {
        fs::write(path, "x").unwrap();
    }
    fs::write(dir.path().join("metrics.jsonl.tmp"), "x").unwrap();
    RunDir::resume(dir.path()).unwrap();
    assert!(notes.iter().all(|p| p.exists()));
    assert!(!dir.path().join("metrics.jsonl.tmp").exists());
}

#[test]
fn names_and_scores_that_cannot_be_used_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDir::create(dir.path(), CONFIG, &json!({})).unwrap();
    let mut refused = |names: &[&str], score| {
        let files = names.iter().map(|n| ((*n).to_owned(), Vec::new())).collect();
        let checkpoint = Some(empg_run::CheckpointFiles { files, score });
        let record = StepRecord { step: 1, checkpoint, ..StepRecord::default() };
        let error = run.commit(&record).unwrap_err();
        assert!(run.last_step().is_none());
        error
    };
    for names in [&["../x"][..], &["state.json"], &["a", "a"]] {
        assert!(matches!(refused(names, None), RunError::FileName { .. }), "{names:?}");
    }
    assert!(matches!(refused(&[], Some(f64::NAN)), RunError::Score { step: 1, .. }));
    assert!(matches!(run.write_panel("a/b", b""), Err(RunError::FileName { .. })));
}
