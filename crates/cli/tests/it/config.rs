//! Settings on the command line.

use std::fmt::Write as _;
use std::fs;

use crate::program::{run, run_in};

/// The error text of a command that must fail with wrong usage.
fn refused(args: &str) -> String {
    let ran = run(args);
    assert_eq!(ran.code, Some(2), "{args}: {}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout, "");
    ran.stderr
}

#[test]
fn mistakes_are_named_with_what_would_be_right() {
    let mut text = String::new();
    for args in [
        "train --set rollout.group_sise=4",
        "train --set lr=1e-3",
        "train --set rollout.groups=many",
        "train --set empg.k=-1",
        "train --set empg.zeta=nan",
        "train --set rollout.group_size=1",
        "train --set rollout.temperature=0",
        "train --set algo.name=ppo",
        "train --set reward.overlong={max=3}",
        "train --set seed",
        "train --set model.dtype=f64",
        "train --set eval.splits=[]",
        "train --env chess",
        "config show --set seed=-1",
    ] {
        write!(text, "$ empg {args}\n{}", refused(args)).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn files_are_checked_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.toml"), "steps = 3\n\n[rollout]\ngroup = 4\n").unwrap();
    let ran = run_in(dir.path(), "train --config a.toml");
    assert_eq!(ran.code, Some(2));
    insta::assert_snapshot!(ran.stderr, @"error: a.toml:4: there is no key `rollout.group`; did you mean `rollout.groups`?");
    fs::write(dir.path().join("b.toml"), "steps = 3\n[rollout\n").unwrap();
    let ran = run_in(dir.path(), "train --config b.toml");
    assert!(ran.stderr.contains("b.toml:2"), "{}", ran.stderr);
    let ran = run_in(dir.path(), "train --config none.toml");
    assert!(ran.stderr.contains("none.toml"), "{}", ran.stderr);
}

#[test]
fn show_explains_every_setting() {
    let ran = run("config show --threads 2");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    // Presets are tuned; what stays is which settings there are and what they mean.
    let names: String = ran
        .stdout
        .lines()
        .map(|line| match line.split_once(" =") {
            Some((key, _)) if !line.starts_with("# ") || key.split(' ').count() == 2 => {
                format!("{key} =\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    insta::assert_snapshot!(names);
}

#[test]
fn init_writes_what_train_reads() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run_in(dir.path(), "config init --env alfworld --seed 5");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "empg.toml\n"), "{}", ran.stderr);
    let again = run_in(dir.path(), "config init");
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    let direct = run_in(dir.path(), "config show --env alfworld --seed 5");
    let through = run_in(dir.path(), "config show --config empg.toml");
    assert_eq!(direct.stdout, through.stdout);
    // Threads that are asked for stay, be they as many as here; others are every machine's own.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (flag, line) in [
        (format!("--threads {cores}"), format!("\nthreads = {cores}\n")),
        (String::new(), "\n# threads = 0\n".to_owned()),
    ] {
        let ran = run_in(dir.path(), &format!("config init --force t.toml {flag}"));
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let text = std::fs::read_to_string(dir.path().join("t.toml")).unwrap();
        assert!(text.contains(&line), "{text}");
    }
}
