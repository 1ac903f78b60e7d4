//! Runs the binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The binary, with nothing of the caller's terminal.
pub(crate) fn empg() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_empg"));
    command.env("NO_COLOR", "1").env("COLUMNS", "100").stdin(Stdio::null());
    command
}

/// What a run of the binary gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs with arguments separated by spaces.
pub(crate) fn run(args: &str) -> Ran {
    empg().args(args.split_whitespace()).output().unwrap().into()
}

/// Runs in a folder.
pub(crate) fn run_in(dir: &Path, args: &str) -> Ran {
    empg().current_dir(dir).args(args.split_whitespace()).output().unwrap().into()
}

/// Settings of a run that takes a second: few, short episodes.
pub(crate) const SMALL: &str = "--set rollout.groups=2 --set rollout.group_size=2 \
    --set rollout.max_turns=3 --set algo.dynamic_sampling=false --set algo.minibatches=1 \
    --set eval.episodes=2 --set record.trajectories_every=1 \
    --set reward.invalid_penalty=0.1 --threads 2";

/// The files that must be the same however often a run was interrupted, by their path.
pub(crate) fn deterministic_files(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    collect(run, run, &mut files);
    let exempt = |name: &str| {
        name.starts_with("events.") || matches!(name, "timings.jsonl" | "created.json" | "run.lock")
    };
    files.retain(|(name, _)| !exempt(name));
    files.sort();
    files
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            files.push((name, fs::read(&path).unwrap()));
        }
    }
}

/// A small model of the engine's tests.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../llm/tests/goldens").join(name)
}

/// Compares two runs byte for byte.
pub(crate) fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (deterministic_files(a), deterministic_files(b));
    let names =
        |files: &[(String, Vec<u8>)]| files.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        assert!(a == b, "{name} differs ({} and {} bytes)", a.len(), b.len());
    }
}

/// Runs with arguments separated by spaces and a text on stdin.
pub(crate) fn run_with(dir: &Path, args: &str, input: &str) -> Ran {
    use std::io::Write as _;

    let mut child = empg()
        .current_dir(dir)
        .args(args.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A command that stops early does not read on.
        let _ = stdin.write_all(input.as_bytes());
    });
    let ran = child.wait_with_output().unwrap().into();
    writer.join().unwrap();
    ran
}
