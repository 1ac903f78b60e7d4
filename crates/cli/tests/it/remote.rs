//! Environments elsewhere: served, connected to, and as child processes.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::program::{SMALL, assert_same, empg, run, run_in, run_with};

/// A running `empg serve env`.
struct Served {
    child: Child,
    url: String,
}

impl Served {
    fn start(args: &str) -> Self {
        let mut child = empg()
            .args(["serve", "env"])
            .args(args.split_whitespace())
            .args(["--port", "0", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        Self { child, url: told["url"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A game in the shell: the third step ends it, and `look` is worth something.
#[cfg(unix)]
const GAME: &str = r#"#!/bin/sh
while read -r line; do
  case "$line" in
    *reset*) n=0; echo '{"observation": "you are in a room", "admissible": ["look", "wait"]}';;
    *) n=$((n+1)); r=0; done=false; [ $n = 3 ] && done=true
       case "$line" in *look*) r=1;; esac
       echo "{\"observation\": \"turn $n\", \"reward\": $r, \"done\": $done}";;
  esac
done
"#;

#[test]
fn a_served_environment_is_trained_on_the_same_way_every_time() {
    let served = Served::start("households");
    let dir = tempfile::tempdir().unwrap();
    for out in ["a", "b"] {
        // The number of sessions changes what is played together, and nothing else.
        let sessions = if out == "a" { 64 } else { 3 };
        let args = format!(
            "train --env openenv --url {} --steps 1 --seed 5 {SMALL} --out {out} --set env.sessions={sessions}",
            served.url
        );
        let ran = run_in(dir.path(), &args);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(
            ran.stdout.contains("households") && !ran.stderr.contains("failed"),
            "{}",
            ran.stderr
        );
    }
    let metrics = |out: &str| std::fs::read(dir.path().join(out).join("metrics.jsonl")).unwrap();
    assert_eq!(metrics("a"), metrics("b"));
    let play = format!("play openenv --url {} --json", served.url);
    let ran = run_with(dir.path(), &play, "?\nlook\nquit\n");
    assert!(ran.stdout.contains("Your task") && ran.stdout.contains("look"), "{}", ran.stdout);
    let bench = format!("env bench openenv --url {} --seconds 0.2 --at-once 4 --json", served.url);
    let told: Value = serde_json::from_str(&run(&bench).stdout).unwrap();
    assert!(told["steps_per_s"].as_f64().unwrap() > 0.0 && told["at_once"] == 4, "{told}");
}

#[cfg(unix)]
#[test]
fn a_second_interrupt_ends_a_server_at_once() {
    use std::io::Write as _;
    use std::time::{Duration, Instant};

    let mut served = Served::start("households");
    let address = served.url.strip_prefix("http://").unwrap();
    // A request that does not arrive whole holds the end up.
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream
        .write_all(b"POST /reset HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    let id = served.child.id().to_string();
    for _ in 0..2 {
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(served.child.wait().unwrap().code(), Some(130));
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

#[cfg(unix)]
#[test]
fn a_program_is_trained_on_the_same_way_every_time() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("game.sh"), GAME).unwrap();
    for out in ["a", "b"] {
        let ran = empg()
            .current_dir(dir.path())
            .args(["train", "--env", "stdio", "--command", "sh game.sh"])
            .args(["--steps", "1", "--out", out])
            .args(SMALL.split_whitespace())
            .output()
            .unwrap();
        let stderr = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(0), "{stderr}");
    }
    assert_same(&dir.path().join("a"), &dir.path().join("b"));
    // The configuration remembers the program.
    let ran = run_in(dir.path(), "eval --model a --episodes 2 --show 1");
    assert!(ran.stdout.contains("turn 1"), "{}{}", ran.stdout, ran.stderr);
}

#[cfg(unix)]
#[test]
fn a_program_that_fails_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bad.sh"), "read -r line; echo 'no lamp' >&2; exit 7\n")
        .unwrap();
    for command in ["train --steps 1 --out run", "eval --model tiny --episodes 3"] {
        let ran = empg()
            .current_dir(dir.path())
            .args(command.split_whitespace())
            .args(["--env", "stdio", "--command", "sh bad.sh"])
            .args(["--set", "eval.episodes=2"])
            .output()
            .unwrap();
        let stderr = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{stderr}");
        for part in ["every episode", "exit status: 7", "no lamp"] {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
    }
    // A few failures are a warning; the rest is learned from.
    let sometimes = r#"n=0; while read -r line; do n=$((n+1)); [ $n = 9 ] && exit 4; case "$line" in *reset*) t=0;; *) t=$((t+1));; esac
        d=false; [ "$t" = 2 ] && d=true; echo "{\"observation\": \"o\", \"reward\": $t, \"done\": $d}"; done"#;
    std::fs::write(dir.path().join("sometimes.sh"), sometimes).unwrap();
    let ran = empg()
        .current_dir(dir.path())
        .args(["train", "--steps", "2", "--out", "some", "--env", "stdio"])
        .args(["--command", "sh sometimes.sh", "--set", "env.sessions=2"])
        .args(SMALL.split_whitespace())
        .args(["--set", "rollout.group_size=4"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("episodes failed; the first: step"), "{stderr}");
}

#[cfg(target_os = "linux")]
#[test]
fn children_do_not_outlive_a_killed_program() {
    use std::time::{Duration, Instant};

    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    // It does not notice the end of its input.
    let script = format!(
        "echo $$ > {}; read -r line; echo '{{\"observation\": \"o\"}}'; while :; do sleep 0.1; done",
        pid.display()
    );
    std::fs::write(dir.path().join("deaf.sh"), script).unwrap();
    let mut player = empg()
        .current_dir(dir.path())
        .args(["play", "stdio", "--command", "sh deaf.sh"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(player.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "o\n");
    let child = std::fs::read_to_string(&pid).unwrap();
    let there = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    assert!(there());
    player.kill().unwrap();
    player.wait().unwrap();
    let started = Instant::now();
    while there() {
        assert!(started.elapsed() < Duration::from_secs(10), "{child} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for args in [
        "train --env openenv",
        "train --env stdio",
        "train --env openenv --url https://example.org",
        "train --env openenv --url ftp://example.org",
        "train --env stdio --command /no/such/program",
        "train --env openenv --url http://localhost:1 --set env.timeout=0",
        "train --env openenv --url http://localhost:1 --set env.sessions=5000",
        "train --env openenv --url http://localhost:1 --set env.reset={seed=3}",
        "sft --env openenv --url http://localhost:1 --out model",
        "play households --url http://localhost:1",
        "play stdio",
        "env bench openenv --url http://localhost:1 --timeout 0",
        "serve env chess",
        "serve env households --sessions 0",
        "serve env households --idle=-1",
    ] {
        let ran = run_in(dir.path(), args);
        assert!(matches!(ran.code, Some(1 | 2)), "{args}: {}{}", ran.stdout, ran.stderr);
        write!(text, "$ empg {args}\n{}", ran.stderr).unwrap();
    }
    insta::assert_snapshot!(text);
}
