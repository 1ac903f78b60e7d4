//! Runs that are cut off at every file operation, at several shares of its bytes, and continued:
//! they must end with the bytes of a run that nobody disturbed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::events;
use crate::faults::{Fault, Faulty, Strike};
use crate::layout::{CREATED, EVENTS, LOCK, MANIFEST, TIMINGS};
use crate::{CheckpointFiles, Result, Run, RunDir, RunError, StepRecord, TrajectoryRow};

const STEPS: u64 = 7;
const CONFIG: &str = "[trainer]\nsteps = 7\n";

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A training step of the weights: its result depends on every one before it.
fn update(weights: &mut Vec<u8>, step: u64) {
    let mut state = u64::from(crc32fast::hash(weights)) ^ (step << 32);
    weights.clear();
    for _ in 0..40 + step {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        weights.push((state >> 56) as u8);
    }
}

/// Does it again after a full disk.
fn retrying(retry: impl Fn(&RunError), mut write: impl FnMut() -> Result<()>) -> Result<()> {
    match write() {
        Err(error @ RunError::DiskFull { .. }) => {
            retry(&error);
            write()
        }
        other => other,
    }
}

/// Trains to the end, from wherever the directory stands. `retry`: what to do when a commit
/// fails with a full disk.
fn train(root: &Path, storage: &Faulty, retry: impl Fn(&RunError)) -> Result<()> {
    let boxed = Box::new(storage.clone());
    let (mut run, checkpoint) = if root.join(MANIFEST).exists() {
        RunDir::resume_on(boxed, root)?
    } else {
        (RunDir::create_on(boxed, root, CONFIG, &json!({"seed": 1, "rate": 0.1}))?, None)
    };
    run.set_keep(1);
    let (mut step, mut weights) = match &checkpoint {
        Some(checkpoint) => (checkpoint.step, checkpoint.read("model.safetensors")?),
        None => (0, vec![1]),
    };
    assert_eq!(run.last_step(), checkpoint.map(|c| c.step));
    while step < STEPS {
        step += 1;
        update(&mut weights, step);
        let value = f64::from(weights[0]) / 255.0;
        let row = TrajectoryRow {
            step,
            action: format!("go to shelf {}", weights[1]),
            tokens: vec![u32::from(weights[2])],
            logprob: vec![-0.5],
            entropy: vec![0.1],
            ..TrajectoryRow::default()
        };
        let rows = [row];
        let record = StepRecord {
            step,
            metrics: object(json!({"success": value, "loss": {"policy": value / 3.0}})),
            timings: object(json!({"seconds": events::now()})),
            trajectories: (step != 3).then_some(rows.as_slice()),
            checkpoint: (step % 2 == 0 || step == STEPS).then(|| CheckpointFiles {
                files: vec![
                    ("model.safetensors".to_owned(), weights.clone()),
                    ("optimizer.safetensors".to_owned(), vec![step as u8; 9]),
                ],
                score: (step != 6).then_some(value),
            }),
        };
        retrying(&retry, || run.commit(&record))?;
        retrying(&retry, || run.write_panel("unseen", b"{\"task\":1}\n"))?;
    }
    Ok(())
}

/// Every file that must not differ, and its bytes.
fn durable(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                walk(root, &path, files);
            } else if ![TIMINGS, CREATED, LOCK].contains(&&*name) && !name.starts_with(EVENTS) {
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(root, root, &mut files);
    files
}

/// In memory where the system has such a place: thousands of renames wait for a disk otherwise.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

struct Undisturbed {
    files: BTreeMap<String, Vec<u8>>,
    operations: Vec<bool>,
}

fn undisturbed() -> Undisturbed {
    let dir = directory();
    let storage = Faulty::new(None);
    train(dir.path(), &storage, |e| panic!("{e}")).unwrap();
    let files = durable(dir.path());
    assert!(files.contains_key("checkpoints/step-000007/state.json"), "{:?}", files.keys());
    assert!(!files.contains_key("trajectories/step-000003.parquet"));
    Undisturbed { files, operations: storage.operations() }
}

/// What must hold at any moment at which the process may have died: all that the manifest
/// commits can be read and is what the undisturbed run has.
fn check_readable(root: &Path, expected: &Undisturbed) -> Option<u64> {
    if !root.join(MANIFEST).exists() {
        return None;
    }
    let run = Run::open(root).unwrap();
    let lines = run.metrics().unwrap();
    let step = run.manifest().step;
    assert_eq!(lines.last().and_then(|l| l["step"].as_u64()), step);
    let bytes = run.manifest().metrics.bytes as usize;
    let metrics = fs::read(root.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics[..bytes], expected.files["metrics.jsonl"][..bytes]);
    for step in run.trajectory_steps() {
        assert_eq!(run.trajectories(step).unwrap().len(), 1);
    }
    for checkpoint in run.checkpoints().unwrap() {
        checkpoint.verify().unwrap();
    }
    assert_eq!(run.timings().unwrap().len(), lines.len());
    step
}

/// Trains through the strikes, one start each, and then to the end.
fn survive(strikes: &[Strike], expected: &Undisturbed) {
    let dir = directory();
    let root = dir.path().join("run");
    for &strike in strikes {
        let result = train(&root, &Faulty::new(Some(strike)), |e| panic!("{e}"));
        let step = check_readable(&root, expected);
        match result {
            Ok(()) => assert_eq!(step, Some(STEPS)),
            Err(RunError::Io { .. }) => {}
            Err(error) => panic!("{strike:?}: {error}"),
        }
    }
    train(&root, &Faulty::new(None), |e| panic!("{e}")).unwrap();
    check_readable(&root, expected);
    let files = durable(&root);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&files), names(&expected.files), "{strikes:?}");
    for (name, bytes) in &files {
        assert!(*bytes == expected.files[name], "{strikes:?}: {name} differs");
    }
}

#[test]
fn a_run_killed_at_any_operation_ends_with_the_same_bytes() {
    let expected = undisturbed();
    for (operation, &content) in expected.operations.iter().enumerate() {
        let shares: &[u8] = if content { &[0, 128, 254, 255] } else { &[0, 255] };
        for &share in shares {
            survive(&[Strike { fault: Fault::Kill, operation, share }], &expected);
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_no_recorded_step() {
    let expected = undisturbed();
    for operation in 0..expected.operations.len() {
        survive(&[Strike { fault: Fault::PowerCut, operation, share: 0 }], &expected);
    }
}

#[test]
fn a_resume_that_is_cut_off_is_resumed_as_well() {
    let expected = undisturbed();
    let half = expected.operations.len() / 2;
    for first in [half, half + 9, half + 17] {
        for second in 0..24 {
            for fault in [Fault::Kill, Fault::PowerCut] {
                let strike = |fault, operation| Strike { fault, operation, share: 128 };
                survive(&[strike(Fault::Kill, first), strike(fault, second)], &expected);
            }
        }
    }
}

#[test]
fn a_disk_that_fills_up_at_any_operation_loses_nothing_and_says_where() {
    let expected = undisturbed();
    let mut named = 0;
    for operation in 0..expected.operations.len() {
        for share in [0, 128] {
            let dir = directory();
            let root = dir.path().join("run");
            let strike = Strike { fault: Fault::DiskFull, operation, share };
            let storage = Faulty::new(Some(strike));
            let told = std::cell::Cell::new(false);
            let result = train(&root, &storage, |error| {
                let RunError::DiskFull { bytes, .. } = error else { panic!("{error}") };
                let text = error.to_string();
                assert!(*bytes > 0 && text.contains("--resume"), "{text}");
                assert!(text.contains(root.to_str().unwrap()), "{text}");
                check_readable(&root, &expected);
                storage.free_some_space();
                told.set(true);
            });
            named += usize::from(told.get());
            if let Err(error) = result {
                // The start has nothing to retry: it is simply started again.
                assert!(matches!(error, RunError::DiskFull { .. }), "{error}");
                assert!(!root.join(MANIFEST).exists());
                train(&root, &Faulty::new(None), |e| panic!("{e}")).unwrap();
            }
            assert!(durable(&root) == expected.files, "{strike:?}");
        }
    }
    assert!(named > 50, "the disk was full in {named} commits only");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_series_of_kills_and_power_cuts_ends_with_the_same_bytes(
        strikes in prop::collection::vec((any::<bool>(), 0..160usize, any::<u8>()), 1..6)
    ) {
        static EXPECTED: LazyLock<Undisturbed> = LazyLock::new(undisturbed);
        let expected = &*EXPECTED;
        let strikes: Vec<Strike> = strikes
            .into_iter()
            .map(|(power, operation, share)| {
                let fault = if power { Fault::PowerCut } else { Fault::Kill };
                Strike { fault, operation, share }
            })
            .collect();
        survive(&strikes, expected);
    }
}
