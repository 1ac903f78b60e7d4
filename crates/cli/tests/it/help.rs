//! Help texts, and what is said to wrong usage.

use crate::program::{empg, run};

#[test]
fn every_command_explains_itself_with_examples() {
    for command in ["", "train", "eval", "score", "track", "config", "config show", "config init"] {
        let ran = run(&format!("{command} --help"));
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let name = if command.is_empty() { "empg".into() } else { command.replace(' ', "_") };
        insta::assert_snapshot!(format!("help_{name}"), ran.stdout);
    }
}

/// The subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = list.take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?;
        name.split_whitespace().next().map(str::to_owned)
    });
    names.filter(|name| name != "help").collect()
}

#[test]
fn no_command_is_without_examples() {
    let mut commands = vec![String::new()];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        let help = run(&format!("{command} --help")).stdout;
        assert!(help.contains("Example"), "empg {command}: {help}");
        seen += 1;
        commands.extend(subcommands(&help).iter().map(|name| format!("{command} {name}")));
    }
    assert!(seen > 35, "{seen}");
}

#[test]
fn wrong_usage_exits_with_2() {
    assert_eq!(run("").code, Some(2));
    assert_eq!(run("dance").code, Some(2));
    assert_eq!(run("train --algo ppo").code, Some(2));
    let ran = run("train --resume runs/x --seed 3");
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("--seed"), "{}", ran.stderr);
}

#[test]
fn the_version_is_told() {
    let ran = run("--version");
    assert_eq!(ran.stdout.trim(), format!("empg {}", env!("CARGO_PKG_VERSION")));
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_is_no_error() {
    use std::process::Stdio;

    let mut child = empg()
        .args(["config", "show"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}
