//! Environments in child processes: good ones, and every way to be a bad one.

use std::time::{Duration, Instant};

use empg_env::remote::{StdioOptions, StdioSet};
use empg_env::{EnvEnd, EnvError, Split, TaskSet};

/// A set whose program is a shell script; `$0` in it is `argument`.
fn script(text: &str, argument: &str) -> StdioSet {
    let quoted = text.replace('\'', r"'\''");
    let command = format!("sh -c '{quoted}' '{argument}'");
    let options = StdioOptions { timeout: Duration::from_secs(20), ..StdioOptions::new(command) };
    StdioSet::start(options).unwrap()
}

/// Answers every request with its number and the process's.
const COUNTER: &str =
    r#"n=0; while read -r line; do n=$((n+1)); echo "{\"observation\": \"$n $$\"}"; done"#;

fn failure(result: Result<impl std::fmt::Debug, EnvError>) -> String {
    match result {
        Err(EnvError::Failed(what)) => what,
        other => panic!("{other:?}"),
    }
}

/// Waits until a process is gone.
#[cfg(target_os = "linux")]
fn gone(pid: &str) -> bool {
    let started = Instant::now();
    let there = || {
        // A zombie has nothing to run any more.
        let status = std::fs::read_to_string(std::path::Path::new("/proc").join(pid).join("stat"));
        status.is_ok_and(|s| !s.contains(") Z "))
    };
    while there() {
        if started.elapsed() > Duration::from_secs(5) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[test]
fn one_process_plays_one_episode_after_another() {
    let set = script(COUNTER, "");
    assert_eq!(set.task(Split::Train, 7).unwrap().id, "train/7");
    let mut env = set.make();
    assert!(matches!(env.step("x"), Err(EnvError::NotRunning)));
    let first = env.reset("train/7", 0).unwrap().text;
    let (count, pid) = first.split_once(' ').unwrap();
    assert_eq!(count, "1");
    assert_eq!(env.step("a").unwrap().observation.text, format!("2 {pid}"));
    // Two at a time are two processes; one that is free is used again.
    let mut other = set.make();
    assert!(!other.reset("train/7", 0).unwrap().text.ends_with(pid));
    drop(env);
    assert_eq!(set.make().reset("train/8", 0).unwrap().text, format!("3 {pid}"));
}

#[test]
fn requests_and_answers_are_as_specified() {
    let text = r#"read -r line; printf '%s\n' "$line" >> "$0"; echo '{"observation": "begin", "admissible": ["a", "b"], "more": 1}'
        read -r line; printf '%s\n' "$line" >> "$0"; echo '{"observation": {"x": 1, "message": "m"}, "effect": false, "reward": -0.5}'
        read -r line; echo '{"observation": "end", "reward": 2, "done": true, "won": false}'
        read -r line"#;
    let dir = tempfile::tempdir().unwrap();
    let heard = dir.path().join("heard");
    let set = script(text, &heard.display().to_string());
    let mut env = set.make();
    assert_eq!(env.reset("unseen/2", 0).unwrap().text, "begin");
    assert_eq!(env.admissible(), ["a", "b"]);
    let step = env.step("say \"ü\"\nnow").unwrap();
    assert_eq!((step.observation.text.as_str(), step.effect, step.reward), ("m", false, -0.5));
    assert!(env.admissible().is_empty());
    let step = env.step("end").unwrap();
    assert_eq!((step.end, step.won, step.reward), (Some(EnvEnd::Terminated), false, 2.0));
    let heard = std::fs::read_to_string(heard).unwrap();
    let lines: Vec<serde_json::Value> =
        heard.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0], serde_json::json!({"type": "reset", "seed": (2_u64 << 28) + 2}));
    assert_eq!(lines[1], serde_json::json!({"type": "step", "action": "say \"ü\"\nnow"}));
}

#[test]
fn whatever_goes_wrong_is_told_and_the_next_episode_begins_anew() {
    // The first process does the damage, the next one plays.
    let good = r#"while read -r line; do echo '{"observation": "fine"}'; done"#;
    for (damage, parts) in [
        ("echo 'no such file' >&2; exit 3", ["exit status: 3", "no such file"]),
        ("kill -9 $$", ["signal: 9", "step 1"]),
        ("echo 'Loading...'", ["Loading...", "no JSON object"]),
        ("echo '[1]'", ["[1]", "no JSON object"]),
        ("echo", ["\"\"", "no JSON object"]),
        ("echo '{}'", ["no \"observation\"", "step 1"]),
        ("echo '{\"observation\": \"o\", \"reward\": \"much\"}'", ["no number", "much"]),
        ("printf '\\377\\n'", ["not UTF-8", "step 1"]),
        ("head -c 16777300 /dev/zero | tr '\\0' 'x'; echo", ["more than 16777216 bytes", "step 1"]),
        ("exec 1>&-; echo bye >&2; sleep 60", ["closed its output", "bye"]),
        ("echo '{\"error\": \"out of lamps\"}'", ["out of lamps", "step 1"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let text = format!(
            r#"if mkdir "$0" 2>/dev/null; then read -r line; echo '{{"observation": "o"}}'; read -r line; {damage}; fi; {good}"#
        );
        let set = script(&text, &mark.display().to_string());
        let mut env = set.make();
        env.reset("train/1", 0).unwrap();
        let error = failure(env.step("a"));
        for part in parts {
            assert!(error.contains(part), "{damage}: {error}");
        }
        assert!(error.len() < 1000, "{}", error.len());
        assert!(matches!(env.step("a"), Err(EnvError::NotRunning)));
        assert_eq!(env.reset("train/1", 0).unwrap().text, "fine", "{damage}");
        assert_eq!(env.step("a").unwrap().observation.text, "fine");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_does_not_answer_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    // It has a child of its own, and neither listens to the end of its input.
    let text =
        r#"sleep 600 & echo "$$ $!" >> "$0"; read -r line; echo "thinking" >&2; wait; sleep 600"#;
    let quoted = format!("sh -c '{text}' '{}'", pids.display());
    let options = StdioOptions { timeout: Duration::from_millis(300), ..StdioOptions::new(quoted) };
    let set = StdioSet::start(options).unwrap();
    let mut env = set.make();
    let started = Instant::now();
    let error = failure(env.reset("train/1", 0));
    assert!(error.contains("within 0.3 s") && error.contains("thinking"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let text = std::fs::read_to_string(pids).unwrap();
    for pid in text.split_whitespace() {
        assert!(gone(pid), "{pid} is still there");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn children_do_not_outlive_the_set() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let text = format!(r#"sleep 600 & echo "$$ $!" >> "$0"; {COUNTER}"#);
    let set = script(&text, &pids.display().to_string());
    let mut envs: Vec<_> = (0..3).map(|_| set.make()).collect();
    for env in &mut envs {
        env.reset("train/1", 0).unwrap();
    }
    drop(envs);
    drop(set);
    let text = std::fs::read_to_string(pids).unwrap();
    assert_eq!(text.lines().count(), 3);
    for pid in text.split_whitespace() {
        assert!(gone(pid), "{pid} is still there");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_more_processes_are_kept_than_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let command = format!(r#"sh -c 'echo $$ >> "$0"; {COUNTER}' '{}'"#, pids.display());
    let set = StdioSet::start(StdioOptions { sessions: 2, ..StdioOptions::new(command) }).unwrap();
    let mut envs: Vec<_> = (0..5).map(|_| set.make()).collect();
    for env in &mut envs {
        env.reset("train/1", 0).unwrap();
    }
    drop(envs);
    let text = std::fs::read_to_string(pids).unwrap();
    let there = |pid: &&str| std::path::Path::new("/proc").join(pid).exists();
    assert_eq!(text.lines().count(), 5);
    assert_eq!(text.lines().filter(there).count(), 2);
}

#[cfg(unix)]
#[test]
fn processes_that_do_not_end_are_waited_for_together() {
    let set = script(&format!("{COUNTER}; sleep 600"), "");
    let mut envs: Vec<_> = (0..8).map(|_| set.make()).collect();
    for env in &mut envs {
        env.reset("train/1", 0).unwrap();
    }
    drop(envs);
    let started = Instant::now();
    drop(set);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[test]
fn chatter_on_standard_error_is_no_trouble() {
    let text = r#"while read -r line; do head -c 300000 /dev/zero | tr '\0' 'x' >&2; echo '{"observation": "o"}'; done"#;
    let set = script(text, "");
    let mut env = set.make();
    env.reset("train/1", 0).unwrap();
    for _ in 0..3 {
        env.step("a").unwrap();
    }
}

#[test]
fn lines_that_nobody_asked_for_are_garbage() {
    let text = r#"while read -r line; do echo '{"observation": "o"}'; echo 'debug: 1'; done"#;
    let set = script(text, "");
    let mut env = set.make();
    env.reset("train/1", 0).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let error = failure(env.step("a"));
    assert!(error.contains("nobody asked for") && error.contains("debug: 1"), "{error}");
}

#[test]
fn commands_that_cannot_be_run_are_named() {
    for (command, part) in [
        ("", "empty"),
        ("sh -c 'x", "quote"),
        ("/no/such/program --now", "/no/such/program"),
        ("/", "cannot start"),
    ] {
        let error = failure(StdioSet::start(StdioOptions::new(command)));
        assert!(error.contains(part) && error.contains("env.command"), "{error}");
    }
}

#[test]
fn a_program_that_ends_at_once_fails_every_episode() {
    let set = script("echo 'import error' >&2; exit 1", "");
    let mut env = set.make();
    for _ in 0..2 {
        let error = failure(env.reset("train/1", 0));
        assert!(error.contains("exit status: 1") && error.contains("import error"), "{error}");
    }
}

#[test]
fn an_error_that_is_null_is_none() {
    let text = r#"while read -r line; do
        echo '{"observation": "o", "error": null, "reward": null, "won": null, "admissible": null}'; done"#;
    let mut env = script(text, "").make();
    assert_eq!(env.reset("train/1", 0).unwrap().text, "o");
    assert_eq!(env.step("a").unwrap().observation.text, "o");
}

#[test]
fn parts_of_the_wrong_type_end_the_episode() {
    let text = r#"read -r line; echo '{"observation": "o"}'
        read -r line; echo '{"observation": "o", "done": true, "won": "yes"}'"#;
    let mut env = script(text, "").make();
    env.reset("train/1", 0).unwrap();
    let what = failure(env.step("a"));
    assert!(what.contains("\"won\" is neither true nor false"), "{what}");
}
