//! Data folders that are missing, damaged or of another make.

use std::io::Write;
use std::path::Path;

use empg_env::EnvError;
use empg_env::alfworld::{AlfworldSet, DataVersion};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::{KITCHEN, TASK};

fn load(folder: &Path) -> String {
    match AlfworldSet::load(folder, DataVersion::default(), Some(50)) {
        Err(error @ EnvError::Data { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn packed(lines: &[String]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    for line in lines {
        writeln!(gz, "{line}").expect("memory takes it");
    }
    gz.finish().expect("memory takes it")
}

fn record() -> String {
    serde_json::json!({
        "path": "train/pick-x/trial_1", "domain": "d", "grammar": "g", "task_desc": TASK,
        "pddl_problem": KITCHEN,
    })
    .to_string()
}

#[test]
fn a_folder_without_games_says_what_belongs_there() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(load(folder.path()).contains("games.jsonl.gz"));
    assert!(load(&folder.path().join("none")).contains("no such folder"));
}

#[test]
fn a_truncated_file_is_told_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines: Vec<String> = (0..50).map(|i| format!("{{\"n\": {i}, \"solvable\": 1}}")).collect();
    let whole = packed(&lines);
    std::fs::write(folder.path().join("games.jsonl.gz"), &whole[..whole.len() / 2])
        .expect("a file");
    let error = load(folder.path());
    assert!(error.contains("games.jsonl.gz:"), "{error}");
}

#[test]
fn a_bad_line_is_told_with_its_number() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = [String::new(), "{\"path\": 3}".to_owned()];
    std::fs::write(folder.path().join("games.jsonl.gz"), packed(&lines)).expect("a file");
    let error = load(folder.path());
    assert!(error.contains("games.jsonl.gz:2:"), "{error}");
}

#[test]
fn a_domain_that_is_missing_or_unknown_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("games.jsonl.gz"), packed(&[record()])).expect("a file");
    let error = load(folder.path());
    assert!(error.contains("domain_d.pddl is not beside"), "{error}");
    std::fs::write(folder.path().join("domain_d.pddl"), "(define (domain other))").expect("a file");
    std::fs::write(folder.path().join("grammar_g.twl2"), "grammar :: \"\";").expect("a file");
    let error = load(folder.path());
    assert!(error.contains("domain_d.pddl (fingerprint"), "{error}");
}

#[test]
fn an_original_directory_that_is_damaged_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let trial = folder.path().join("json_2.1.1/train/pick_and_place_simple-x/trial_1");
    std::fs::create_dir_all(&trial).expect("a folder");
    std::fs::write(trial.join("game.tw-pddl"), "{\"grammar\": ").expect("a file");
    // Without traj_data.json ALFWorld's loader passes by.
    assert!(load(folder.path()).contains("no ALFWorld game"));
    std::fs::write(trial.join("traj_data.json"), "{}").expect("a file");
    let error = load(folder.path());
    assert!(error.contains("trial_1") && error.contains("game.tw-pddl:1:"), "{error}");
}
