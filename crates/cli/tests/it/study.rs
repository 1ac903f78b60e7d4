//! Studies and reports.

use std::fs;
use std::path::Path;

use crate::program::{SMALL, run_in};

const STUDY: &str = r#"
name = "small"
seeds = [0, 1]
[settings]
steps = 1
eval = { episodes = 2 }
record = { entropy_probe = 2 }
rollout = { groups = 2, group_size = 2, max_turns = 3 }
algo = { dynamic_sampling = false, minibatches = 1 }
reward = { invalid_penalty = 0.1 }
[[environments]]
name = "households"
[[arms]]
name = "dapo"
settings = { empg = { enabled = false } }
[[arms]]
name = "dapo-empg"
label = "DAPO + EMPG"
[[comparisons]]
arm = "dapo-empg"
base = "dapo"
"#;

fn cells(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(dir.join("small"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_study_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("small.toml"), STUDY).unwrap();

    let plan = run_in(dir.path(), "study small.toml --dry-run --json");
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    assert_eq!(plan["pending"].as_array().unwrap().len(), 4);

    let first = run_in(dir.path(), "study small.toml --seeds 0 --jobs 2");
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert!(first.stdout.contains("2 of 4 cells are finished"), "{}", first.stdout);
    let before = cells(dir.path());
    assert_eq!(before.len(), 2);
    assert_eq!(fs::read_dir(dir.path().join("runs/study")).unwrap().count(), 0, "runs are removed");

    let ran = run_in(dir.path(), "study small.toml --seeds 0,7 --dry-run");
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    assert!(ran.stderr.contains("--seeds 7: the study has the seeds 0, 1 only"), "{}", ran.stderr);

    let rest = run_in(dir.path(), "study small.toml --jobs 2");
    assert!(rest.stderr.contains("2 of 4 cells to run"), "{}", rest.stderr);
    assert!(rest.stdout.contains("| DAPO + EMPG − dapo | unseen | 2 |"), "{}", rest.stdout);
    let after = cells(dir.path());
    assert_eq!(after.len(), 4);
    assert!(before.iter().all(|cell| after.contains(cell)), "finished cells are kept as they are");
    let tables = fs::read_to_string(dir.path().join("small/tables.md")).unwrap();
    assert_eq!(tables, rest.stdout);
    let report = fs::read_to_string(dir.path().join("small/report.html")).unwrap();
    for part in ["Study small", "success after training", "data-environment=\"households\""] {
        assert!(report.contains(part), "{part}");
    }

    fs::write(dir.path().join("small.toml"), STUDY.replace("max_turns = 3", "max_turns = 4"))
        .unwrap();
    let other = run_in(dir.path(), "study small.toml");
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("rollout.max_turns = 3"), "{}", other.stderr);
}

#[test]
fn reports_of_runs_and_of_lines() {
    let dir = tempfile::tempdir().unwrap();
    for seed in [0, 1] {
        let args = format!("train --steps 2 --seed {seed} {SMALL} --out runs/s{seed}");
        let ran = run_in(dir.path(), &args);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    let one = run_in(dir.path(), "report runs/s0 -o one.html --json");
    let said: serde_json::Value = serde_json::from_str(&one.stdout).unwrap();
    assert_eq!((said["runs"].as_u64(), said["episodes"].as_u64()), (Some(1), Some(8)));
    let page = fs::read_to_string(dir.path().join("one.html")).unwrap();
    let parts =
        ["Entropy dynamics", "Entropy and gradients", "Credit, step by step", "DAPO + EMPG"];
    for part in parts.into_iter().chain(["class=\"charts\" data-environment"]) {
        assert!(page.contains(part), "{part}");
    }
    let both = run_in(dir.path(), "report runs -o both.html");
    assert_eq!(both.code, Some(0), "{}", both.stderr);
    assert!(both.stdout.contains("(2 runs, 16 episodes"), "every step: {}", both.stdout);
    let page = fs::read_to_string(dir.path().join("both.html")).unwrap();
    assert!(page.contains("2 seeds") && page.contains("means over seeds"));

    // A run that is being written: the last line is cut off after the committed ones.
    let metrics = dir.path().join("runs/s1/metrics.jsonl");
    let mut text = fs::read_to_string(&metrics).unwrap();
    text.push_str("{\"step\": 3, \"succ");
    fs::write(&metrics, text).unwrap();
    let ran = run_in(dir.path(), "report runs/s1 -o torn.html");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);

    // What is damaged is named, and hides nothing else.
    let damaged = dir.path().join("runs/s0/trajectories/step-000001.parquet");
    let whole = fs::read(&damaged).unwrap();
    fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    let ran = run_in(dir.path(), "report runs -o damaged.html --json");
    let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&said["episodes"], &said["episodes_shown"]), (&12.into(), &12.into()));
    assert!(ran.stderr.contains("step-000001.parquet"), "{}", ran.stderr);
    fs::write(&damaged, whole).unwrap();
    // An older page is replaced, nothing else.
    let ran = run_in(dir.path(), "report runs/s0 -o damaged.html");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let ran = run_in(dir.path(), "report runs/s0 -o runs/s0/config.toml --force");
    assert!(ran.code == Some(2) && ran.stderr.contains("a run's own file"), "{}", ran.stderr);

    let line = r#"{"entropy": [0.1, 0.9], "mask": [1, 1], "reward": 1, "advantage": 1.0, "tokens_text": ["<script>alert(1)", "</script>"]}"#;
    fs::write(dir.path().join("in.jsonl"), format!("{line}\n")).unwrap();
    let credited = crate::program::empg()
        .arg("advantage")
        .stdin(fs::File::open(dir.path().join("in.jsonl")).unwrap())
        .output()
        .unwrap();
    fs::write(dir.path().join("out.jsonl"), credited.stdout).unwrap();
    let ran = run_in(dir.path(), "report --trajectories out.jsonl -o credit.html");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let page = fs::read_to_string(dir.path().join("credit.html")).unwrap();
    assert!(page.contains("\\u003cscript\\u003ealert") && !page.contains("<script>alert"));

    // Two files of one name are two sources.
    fs::create_dir(dir.path().join("other")).unwrap();
    fs::copy(dir.path().join("out.jsonl"), dir.path().join("other/out.jsonl")).unwrap();
    let own = "report --trajectories out.jsonl -o other/../out.jsonl --force";
    let ran = run_in(dir.path(), own);
    assert!(ran.code == Some(2) && ran.stderr.contains("is what is to be"), "{}", ran.stderr);
    let both =
        "report --trajectories out.jsonl --trajectories other/out.jsonl -o credit.html --json";
    let ran = run_in(dir.path(), both);
    let line: serde_json::Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    assert_eq!((&line["episodes"], &line["episodes_shown"]), (&2.into(), &2.into()));
    let page = fs::read_to_string(dir.path().join("credit.html")).unwrap();
    for source in ["\"source\":\"out.jsonl\"", "\"source\":\"other/out.jsonl\""] {
        assert!(page.contains(source), "{source}");
    }
}

#[test]
fn what_cannot_be_reported_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::write(dir.path().join("plain.jsonl"), "{\"reward\": 1}\n").unwrap();
    for (args, expected) in [
        ("report empty", "no run in empty"),
        ("report nowhere", "nowhere"),
        ("report --trajectories plain.jsonl", "plain.jsonl:1"),
        ("study nowhere.toml", "nowhere.toml"),
    ] {
        let ran = run_in(dir.path(), args);
        assert_eq!(ran.code, Some(1), "{args}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{args}: {}", ran.stderr);
    }
    assert!(!dir.path().join("report.html").exists());
}

#[test]
fn analyses_of_runs() {
    let dir = tempfile::tempdir().unwrap();
    for (name, set) in [("base", "off"), ("both", "on"), ("scaling", "on --set empg.zeta=0")] {
        for seed in [0, 1] {
            let args = format!(
                "train --steps 1 --seed {seed} --empg {set} {SMALL} --out runs/{name}-{seed} \
                 --set record.entropy_probe=4"
            );
            let ran = run_in(dir.path(), &args);
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        }
    }
    let ran = run_in(dir.path(), "analyze entropy-dynamics runs/both-0 --bins 4");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("75–100") && ran.stdout.contains("over steps"), "{}", ran.stdout);
    let ran = run_in(dir.path(), "analyze entropy-dynamics runs --bins 4 --json");
    let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(said.as_array().unwrap().len(), 3);
    assert_eq!((&said[0]["runs"], said[0]["bins"].as_array().unwrap().len()), (&2.into(), 4));

    let ran = run_in(dir.path(), "analyze ablation runs");
    for part in ["+ gradient scaling", "+ both (EMPG)", "households unseen"] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let ran = run_in(dir.path(), "analyze stability runs/both-0");
    assert!(ran.stdout.contains("fewer than 15 steps"), "{}", ran.stdout);

    let ran = run_in(dir.path(), "prop1 --run runs/both-0 --bins 3");
    assert!(ran.stdout.contains("rank correlation"), "{} {}", ran.stdout, ran.stderr);
    let ran = run_in(dir.path(), "prop1 --run runs/both-0 --json");
    let last: serde_json::Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    assert!(last["coupling"]["max_error"].as_f64().unwrap() < 1e-6);
    assert!(last["coupling"]["bins"][0]["gradient"].as_f64().unwrap() > 0.0);

    // A run that wrote no tables, as older versions did.
    fs::remove_dir_all(dir.path().join("runs/both-0/analyses")).unwrap();
    let ran = run_in(dir.path(), "analyze entropy-dynamics runs/both-0");
    assert!(ran.code == Some(1) && ran.stderr.contains("record.entropy_probe"), "{}", ran.stderr);
    let ran = run_in(dir.path(), "prop1 --run runs/both-0");
    assert!(ran.code == Some(1) && ran.stderr.contains("record.gradient_probe"), "{}", ran.stderr);
    let ran = run_in(dir.path(), "report runs/both-0 -o old.html");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let ran = run_in(dir.path(), "analyze stability nowhere");
    assert!(ran.code == Some(1) && ran.stderr.contains("nowhere"), "{}", ran.stderr);
}
