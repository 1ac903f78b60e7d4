use std::fs;
use std::path::Path;

use empg_run::{Run, RunDir, RunError};

use crate::{commit, four_steps};

fn snapshot(root: &Path) -> Vec<(String, u64)> {
    let mut entries = Vec::new();
    for folder in ["", "checkpoints", "trajectories"] {
        for entry in fs::read_dir(root.join(folder)).unwrap().flatten() {
            let name = entry.path().to_str().unwrap().to_owned();
            entries.push((name, entry.metadata().unwrap().len()));
        }
    }
    entries.sort();
    entries
}

#[test]
fn another_version_is_refused_with_its_number() {
    let dir = tempfile::tempdir().unwrap();
    four_steps(dir.path());
    let path = dir.path().join("manifest.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"format\": 1,", "\"format\": 99,");
    fs::write(&path, text).unwrap();
    let errors = [Run::open(dir.path()).unwrap_err(), RunDir::resume(dir.path()).unwrap_err()];
    for error in errors {
        assert!(matches!(error, RunError::OtherFormat { found: 99, supported: 1, .. }));
        assert!(error.to_string().contains("format 99"), "{error}");
    }
}

#[test]
fn a_truncated_manifest_is_an_error_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    four_steps(dir.path());
    let path = dir.path().join("manifest.json");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let before = snapshot(dir.path());
    let error = RunDir::resume(dir.path()).unwrap_err();
    let RunError::Manifest { line, .. } = &error else { panic!("{error}") };
    assert!(*line > 1 && error.to_string().contains("manifest.json"), "{error}");
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("missing", |file| fs::remove_file(file).unwrap()),
        ("instead of", |file| fs::write(file, b"weights").unwrap()),
        ("checksum", |file| fs::write(file, b"weights of 5").unwrap()),
        ("state.json", |file| fs::write(file.with_file_name("state.json"), b"{}").unwrap()),
    ];
    for (reason, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        four_steps(dir.path());
        damage(&dir.path().join("checkpoints/step-000004/model.safetensors"));
        let (mut run, checkpoint) = RunDir::resume(dir.path()).unwrap();
        let checkpoint = checkpoint.unwrap();
        assert_eq!(checkpoint.step, 2);
        assert_eq!(checkpoint.read("model.safetensors").unwrap(), b"weights of 2");
        assert_eq!(run.warnings().len(), 1);
        let warning = &run.warnings()[0];
        assert!(warning.contains(reason) && warning.contains("step-000004"), "{warning}");
        assert!(!dir.path().join("checkpoints/step-000004").exists());
        assert!(!dir.path().join("trajectories/step-000003.parquet").exists());
        commit(&mut run, 3, None);
        commit(&mut run, 4, Some(0.4));
        drop(run);

        let undisturbed = tempfile::tempdir().unwrap();
        four_steps(undisturbed.path());
        for name in ["manifest.json", "metrics.jsonl", "trajectories/step-000004.parquet"] {
            let read = |root: &Path| fs::read(root.join(name)).unwrap();
            assert!(read(dir.path()) == read(undisturbed.path()), "{reason}: {name}");
        }
    }
}

/// A link that leads to itself cannot be read by anyone; for root, missing rights would be no obstacle.
#[cfg(unix)]
#[test]
fn a_checkpoint_that_cannot_be_read_just_now_is_not_a_damaged_one() {
    for name in ["model.safetensors", "state.json"] {
        let dir = tempfile::tempdir().unwrap();
        four_steps(dir.path());
        let file = dir.path().join("checkpoints/step-000004").join(name);
        let bytes = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let before = snapshot(dir.path());
        std::os::unix::fs::symlink(&file, &file).unwrap();
        let error = RunDir::resume(dir.path()).unwrap_err();
        assert!(
            matches!(error, RunError::Io { .. }) && error.to_string().contains(name),
            "{error}"
        );
        fs::remove_file(&file).unwrap();
        assert_eq!(snapshot(dir.path()), before);
        fs::write(&file, bytes).unwrap();
        assert_eq!(RunDir::resume(dir.path()).unwrap().1.unwrap().step, 4);
    }
}

#[test]
fn a_checkpoint_without_its_folder_gives_way_too() {
    let dir = tempfile::tempdir().unwrap();
    four_steps(dir.path());
    let newest = dir.path().join("checkpoints/step-000004");
    fs::remove_dir_all(&newest).unwrap();
    fs::write(&newest, "no folder").unwrap();
    assert_eq!(RunDir::resume(dir.path()).unwrap().1.unwrap().step, 2);
}

#[test]
fn without_any_complete_checkpoint_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    four_steps(dir.path());
    for step in [2, 4] {
        fs::remove_file(dir.path().join(format!("checkpoints/step-00000{step}/config.json")))
            .unwrap();
    }
    let before = snapshot(dir.path());
    let error = RunDir::resume(dir.path()).unwrap_err();
    assert!(matches!(&error, RunError::NoUsableCheckpoint { reasons, .. } if reasons.len() == 2));
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn changed_and_lost_lines_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    four_steps(dir.path());
    let path = dir.path().join("metrics.jsonl");
    let bytes = fs::read(&path).unwrap();
    let changed = String::from_utf8(bytes.clone()).unwrap().replacen("0.25", "0.95", 1);
    for bad in [changed.as_bytes(), &bytes[..bytes.len() - 1]] {
        fs::write(&path, bad).unwrap();
        assert!(matches!(Run::open(dir.path()).unwrap().metrics(), Err(RunError::Corrupt { .. })));
        assert!(matches!(RunDir::resume(dir.path()), Err(RunError::Corrupt { .. })));
    }
    fs::write(&path, &bytes).unwrap();
    let parquet = dir.path().join("trajectories/step-000002.parquet");
    let mut bytes = fs::read(&parquet).unwrap();
    bytes[40] ^= 1;
    fs::write(&parquet, bytes).unwrap();
    let run = Run::open(dir.path()).unwrap();
    assert!(matches!(run.trajectories(2), Err(RunError::Corrupt { .. })));
    assert!(run.trajectories(1).is_ok());
}
