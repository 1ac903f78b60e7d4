//! Runs that are killed, interrupted or damaged, and go on.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::program::{SMALL, assert_same, empg, run_in};

const STEPS: u64 = 5;

fn arguments(out: &str) -> String {
    format!("train --steps {STEPS} --seed 1 --out {out} {SMALL}")
}

fn spawn(dir: &Path, args: &str) -> Child {
    empg()
        .current_dir(dir)
        .args(args.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A run that nothing disturbs, and how long it took.
fn undisturbed(dir: &Path) -> Duration {
    let started = Instant::now();
    let ran = run_in(dir, &arguments("whole"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    started.elapsed()
}

#[test]
fn killed_runs_end_with_the_bytes_of_an_undisturbed_one() {
    let dir = tempfile::tempdir().unwrap();
    let whole = undisturbed(dir.path());
    // Fractions of the undisturbed run after which it, and then its continuation, is killed.
    for (i, [first, second]) in [[0.1, 0.6], [0.45, 0.2], [0.8, 0.5]].into_iter().enumerate() {
        let out = format!("killed-{i}");
        for fraction in [first, second] {
            // What was killed before its manifest stood is started again.
            let begun = dir.path().join(&out).join("manifest.json").exists();
            let args = if begun { format!("train --resume {out}") } else { arguments(&out) };
            let mut child = spawn(dir.path(), &args);
            std::thread::sleep(whole.mul_f64(fraction));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let begun = dir.path().join(&out).join("manifest.json").exists();
        let args = if begun { format!("train --resume {out}") } else { arguments(&out) };
        let ran = run_in(dir.path(), &args);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_same(&dir.path().join("whole"), &dir.path().join(&out));
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    undisturbed(dir.path());
    let copy = dir.path().join("copy");
    let ran = run_in(dir.path(), &arguments("copy"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let model = copy.join(format!("checkpoints/step-{STEPS:06}/model.safetensors"));
    let mut bytes = fs::read(&model).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&model, bytes).unwrap();

    let refused = run_in(dir.path(), "eval --model copy --episodes 1");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("model.safetensors"), "{}", refused.stderr);

    let ran = run_in(dir.path(), "train --resume copy");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("warning: ") && ran.stderr.contains("passed over"),
        "{}",
        ran.stderr
    );
    assert_same(&dir.path().join("whole"), &copy);
}

#[test]
fn finished_runs_say_so_and_can_be_extended() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run_in(dir.path(), &format!("train --steps 1 --out r {SMALL}"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let again = run_in(dir.path(), "train --resume r");
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("finished already"), "{}", again.stderr);
    let further = run_in(dir.path(), "train --resume r --steps 2");
    assert_eq!(further.code, Some(0), "{}", further.stderr);
    assert!(dir.path().join("r/checkpoints/step-000002").is_dir());
    let config = fs::read_to_string(dir.path().join("r/config.toml")).unwrap();
    assert!(config.contains("\nsteps = 2\n"), "{config}");
    let back = run_in(dir.path(), "train --resume r --steps 1");
    assert_eq!(back.code, Some(2), "{}", back.stderr);
}

#[test]
fn a_run_may_end_where_it_was_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    for (out, every, code) in [("plain", 0, 2), ("evaluated", 1, 0)] {
        let sets = format!("--set eval.every={every} --set checkpoint.every=1");
        let ran = run_in(dir.path(), &format!("train --steps 2 --out {out} {SMALL} {sets}"));
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        // What a stop behind the first step leaves.
        let newest = dir.path().join(out).join("checkpoints/step-000002/model.safetensors");
        fs::write(&newest, "").unwrap();
        let ended = run_in(dir.path(), &format!("train --resume {out} --steps 1"));
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert_eq!(
            ended.stderr.contains("empg eval plays it as it is"),
            code == 2,
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_corpus_may_have_moved() {
    let dir = tempfile::tempdir().unwrap();
    let passage = r#"{"id": "p0", "contents": "\"Ada Lovelace\"\nShe wrote the first program."}"#;
    let question = r#"{"id": "q1", "question": "Who wrote the first program?",
        "golden_answers": ["Ada Lovelace"], "metadata": {"split": "train"}}"#;
    fs::write(dir.path().join("old.jsonl"), passage).unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/questions.jsonl"), question.replace('\n', " ")).unwrap();
    let env = "--env search --data data --corpus old.jsonl --set eval.splits=[\"train\"]";
    let ran = run_in(dir.path(), &format!("train --steps 1 --out r {env} {SMALL}"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);

    fs::rename(dir.path().join("old.jsonl"), dir.path().join("new.jsonl")).unwrap();
    let ran = run_in(dir.path(), "train --resume r --steps 2");
    assert!(ran.code == Some(1) && ran.stderr.contains("old.jsonl"), "{}", ran.stderr);
    let ran = run_in(dir.path(), "train --resume r --steps 2 --corpus new.jsonl");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let config = fs::read_to_string(dir.path().join("r/config.toml")).unwrap();
    let place = dir.path().join("new.jsonl");
    assert!(config.contains(&format!("corpus = \"{}\"", place.display())), "{config}");
}

#[test]
fn a_run_of_another_version_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run_in(dir.path(), &format!("train --steps 1 --out r {SMALL}"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let manifest = dir.path().join("r/manifest.json");
    let text = fs::read_to_string(&manifest).unwrap().replace("\"format\": 1", "\"format\": 9");
    fs::write(&manifest, &text).unwrap();
    for args in ["train --resume r", "eval --model r"] {
        let ran = run_in(dir.path(), args);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains("format 9"), "{}", ran.stderr);
    }
    assert_eq!(fs::read_to_string(&manifest).unwrap(), text);
}

#[cfg(unix)]
#[test]
fn ctrl_c_exits_with_130_and_the_run_goes_on() {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::process::Command;

    let dir = tempfile::tempdir().unwrap();
    undisturbed(dir.path());
    let mut child = spawn(dir.path(), &arguments("stopped"));
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 && !line.starts_with("step 1/") {
        line.clear();
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.contains("empg train --resume stopped"), "{rest}");

    let ran = run_in(dir.path(), "train --resume stopped");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_same(&dir.path().join("whole"), &dir.path().join("stopped"));
}
