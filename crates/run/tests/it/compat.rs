//! Runs of format 1 stay readable.

use std::fs;
use std::path::{Path, PathBuf};

use empg_run::{Run, RunDir};

use crate::{CONFIG, commit, four_steps, rows};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/run_v1")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_run_of_format_1_opens() {
    let run = Run::open(fixture()).unwrap();
    assert_eq!(run.config().unwrap(), CONFIG);
    assert_eq!(run.manifest().info()["program"], "empg");
    assert_eq!((run.metrics().unwrap().len(), run.timings().unwrap().len()), (4, 4));
    assert_eq!(run.metrics().unwrap()[3]["success"], 1.0);
    for step in 1..=4 {
        assert_eq!(run.trajectories(step).unwrap(), rows(step));
    }
    let (best, last) = (run.best().unwrap().unwrap(), run.last().unwrap().unwrap());
    assert_eq!((best.step, best.score, last.step), (2, Some(0.9), 4));
    assert_eq!(best.read("model.safetensors").unwrap(), b"weights of 2");
    assert_eq!(run.panel("unseen").unwrap().len(), 1);
}

#[test]
fn a_run_of_format_1_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(), dir.path());
    let (mut run, checkpoint) = RunDir::resume(dir.path()).unwrap();
    assert_eq!(checkpoint.unwrap().step, 4);
    assert!(run.warnings().is_empty(), "{:?}", run.warnings());
    commit(&mut run, 5, None);
    assert_eq!(Run::open(dir.path()).unwrap().metrics().unwrap().len(), 5);
}

/// Made the fixture. A run of a format that was released is never written again.
#[test]
#[ignore = "writes the fixture where it is missing"]
fn write_the_fixture() {
    if !fixture().exists() {
        four_steps(&fixture());
    }
}
