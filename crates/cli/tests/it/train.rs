//! Short training runs from end to end.

use std::fs;

use serde_json::Value;

use crate::program::{Ran, SMALL, empg, run, run_in};

fn last_json(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap()
}

#[test]
fn two_steps_end_with_a_comparison_and_a_run_directory() {
    let dir = tempfile::tempdir().unwrap();
    // A folder of that name does not hide the embedded policy.
    fs::create_dir(dir.path().join("tiny")).unwrap();
    let args = format!("train --steps 2 --seed 3 {SMALL}");
    let ran = run_in(dir.path(), &args);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for part in ["before", "after", "change", "95 % interval", "run: runs/households-dapo-empg-s3"]
    {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    for part in ["DAPO + EMPG", "step 2/2", "memory", "disk", "before: "] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    let root = dir.path().join("runs/households-dapo-empg-s3");
    let config = fs::read_to_string(root.join("config.toml")).unwrap();
    for line in ["seed = 3", "steps = 2", "threads = 2", "clip_high = 0.28"] {
        assert!(config.lines().any(|l| l == line), "{line}: {config}");
    }
    for file in [
        "manifest.json",
        "panels/unseen.jsonl",
        "trajectories/step-000002.parquet",
        "checkpoints/step-000002/model.safetensors",
        "checkpoints/step-000002/tokenizer.json",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    let metrics = fs::read_to_string(root.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for key in [
        "success",
        "return",
        "turns",
        "sampled_tokens",
        "step_entropy",
        "step_entropy_min",
        "step_entropy_max",
        "g_std",
        "bonus",
        "kl_reference",
        "kl_old",
        "clip_fraction",
        "grad_norm",
        "groups_flat",
        "groups_dropped",
    ] {
        assert!(lines[1].get(key).is_some(), "{key}: {}", lines[1]);
    }

    // The same name again gets a number, and the JSON of the same run says the same.
    let ran = run_in(dir.path(), &format!("{args} --json"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 1);
    let json = last_json(&ran.stdout);
    assert_eq!(json["run"], "runs/households-dapo-empg-s3-2");
    assert_eq!((&json["steps"], &json["before"]["episodes"]), (&2.into(), &2.into()));
    assert!(json["seconds"].as_f64().unwrap() > 0.0);
    let by_task = json["after"]["by_task"].as_object().unwrap();
    let episodes: u64 = by_task.values().map(|t| t["episodes"].as_u64().unwrap()).sum();
    assert_eq!(episodes, 2);

    // Its last checkpoint, on its panel, shows what the run recorded after training.
    let ran = run_in(dir.path(), "eval --model runs/households-dapo-empg-s3-2 --json");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(last_json(&ran.stdout), json["after"]);
}

#[test]
fn eval_shows_conversations_and_its_panel_is_fixed() {
    let args = "eval --model tiny --episodes 3 --max-turns 4 --panel-seed 9 --threads 2";
    let ran = run(&format!("{args} --show 1"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("\n> ") && ran.stdout.contains("95 % interval"), "{}", ran.stdout);
    let (a, b) = (run(&format!("{args} --json")), run(&format!("{args} --json")));
    assert_eq!(a.stdout, b.stdout);
    assert_eq!(last_json(&a.stdout)["episodes"], 3);
    let other = run("eval --model tiny --episodes 3 --max-turns 4 --split train --json");
    assert_eq!(other.code, Some(0), "{}", other.stderr);
}

#[test]
fn grpo_without_modulation_trains_too() {
    let dir = tempfile::tempdir().unwrap();
    let ran =
        run_in(dir.path(), &format!("train --algo grpo --empg off --steps 1 --out g {SMALL}"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("with GRPO\n"), "{}", ran.stderr);
}

#[test]
fn a_run_keeps_the_words_that_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let template = "{{ observation }}{% for command in admissible %}{% endfor %}";
    fs::write(dir.path().join("my.jinja"), template).unwrap();
    let args = format!("train --steps 1 --out r --set rollout.prompt=my.jinja {SMALL}");
    let ran = run_in(dir.path(), &args);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let kept = dir.path().join("r/prompt.jinja");
    assert_eq!(fs::read_to_string(&kept).unwrap(), template);
    let config = fs::read_to_string(dir.path().join("r/config.toml")).unwrap();
    let place = format!("{}\"", dir.path().join("my.jinja").display());
    assert!(config.contains(&place), "{config}");

    fs::remove_file(dir.path().join("my.jinja")).unwrap();
    for args in [
        "eval --model ../r --episodes 1",
        "eval --model ../r/checkpoints/step-000001 --episodes 1",
        "train --resume ../r --steps 2",
    ] {
        let ran = run_in(&elsewhere, args);
        assert_eq!(ran.code, Some(0), "{args}: {}", ran.stderr);
    }
    // Other words, where they are asked for.
    fs::write(elsewhere.join("other.jinja"), "{{ observatoin }}").unwrap();
    let ran = run_in(&elsewhere, "eval --model ../r --episodes 1 --set rollout.prompt=other.jinja");
    assert!(ran.code == Some(1) && ran.stderr.contains("other.jinja"), "{}", ran.stderr);
    // A run of an older version keeps none.
    fs::remove_file(&kept).unwrap();
    let ran = run_in(&elsewhere, "eval --model ../r --episodes 1");
    assert!(ran.code == Some(1) && ran.stderr.contains("my.jinja"), "{}", ran.stderr);

    let ran = run_in(dir.path(), "train --steps 1 --out s --set rollout.prompt=no.jinja");
    assert!(ran.code == Some(1) && ran.stderr.contains("no.jinja"), "{}", ran.stderr);
    assert!(!dir.path().join("s").exists(), "nothing is left behind");
}

#[test]
fn a_template_that_fails_late_is_mended_in_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let template = "{{ observation }}{% if turn > 2 %}\n{{ history[9].said }}{% endif %}";
    fs::write(dir.path().join("my.jinja"), template).unwrap();
    let run_with = |args: &str, more: &[&str]| -> Ran {
        let args = args.split_whitespace().chain(more.iter().copied());
        empg().current_dir(dir.path()).args(args).output().unwrap().into()
    };
    let args = format!("train --steps 1 --set rollout.prompt=my.jinja {SMALL}");
    let ran = run_with(&args, &["--out", "my run"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    for part in
        ["--resume 'my run'\n", "my run/prompt.jinja: line 2: ", "goes on once it is mended"]
    {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("my.jinja"), "{}", ran.stderr);
    let ran = run_with("eval --model", &["my run", "--episodes", "1"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    fs::write(dir.path().join("my run/prompt.jinja"), "{{ observatoin }}").unwrap();
    let ran = run_with("train --resume", &["my run"]);
    let named = "my run/prompt.jinja: line 1: `observatoin` is undefined";
    assert!(ran.code == Some(1) && ran.stderr.contains(named), "{}", ran.stderr);
    fs::write(dir.path().join("my run/prompt.jinja"), "{{ observation }}").unwrap();
    let ran = run_with("train --resume", &["my run"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("empg eval --model 'my run'\n"), "{}", ran.stderr);

    fs::write(dir.path().join("my run/prompt.jinja"), template).unwrap();
    let eval = "--episodes 1 --split valid_seen --show 1";
    let eval: Vec<&str> = ["my run"].into_iter().chain(eval.split_whitespace()).collect();
    let ran = run_with("eval --model", &eval);
    let named = "my run/prompt.jinja: line 2: ";
    assert!(ran.code == Some(1) && ran.stderr.contains(named), "{}", ran.stderr);
    fs::write(dir.path().join("my run/prompt.jinja"), "{{ observation }}").unwrap();
    let ran = run_with("eval --model", &[&eval[..], &["--max-turns", "1"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("truncated (turns)"), "{}", ran.stdout);
}

#[test]
fn a_run_is_a_model_to_start_from() {
    let dir = tempfile::tempdir().unwrap();
    let done = |args: &str| {
        let ran = run_in(dir.path(), args);
        assert_eq!(ran.code, Some(0), "{args}: {}", ran.stderr);
    };
    done(&format!("train --steps 1 --out r {SMALL}"));
    done(&format!("train --steps 1 --model r --out further {SMALL}"));
    let config = fs::read_to_string(dir.path().join("further/config.toml")).unwrap();
    let newest = dir.path().join("r/checkpoints/step-000001");
    assert!(config.contains(&format!("path = \"{}\"", newest.display())), "{config}");
    let short = "--batch-tokens 200 --threads 1 --set eval.episodes=1 --set eval.max_turns=1";
    done(&format!("sft --model r --steps 1 --set model.lora={{rank=2}} --out tuned {short}"));
    let adapters = fs::read_to_string(dir.path().join("tuned/adapter_config.json")).unwrap();
    assert!(adapters.contains(newest.to_str().unwrap()), "{adapters}");
    done("bench prefill --model r --seq 8 --threads 1");

    fs::write(newest.join("model.safetensors"), "damaged").unwrap();
    let ran = run_in(dir.path(), "train --model r --steps 1");
    assert!(ran.code == Some(1) && ran.stderr.contains("model.safetensors"), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_found_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    for (args, part) in [
        ("train --model nowhere", "nowhere"),
        ("train --env alfworld", "--data"),
        ("train --env alfworld --data nowhere", "nowhere"),
        ("eval --model nowhere", "nowhere"),
        ("train --resume nowhere", "nowhere"),
    ] {
        let ran = run_in(dir.path(), args);
        assert_eq!(ran.code, Some(1), "{args}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains(part), "{}", ran.stderr);
    }
    assert!(!dir.path().join("runs").exists(), "nothing is left behind");
    fs::create_dir(dir.path().join("full")).unwrap();
    fs::write(dir.path().join("full/notes.txt"), "mine").unwrap();
    let ran = run_in(dir.path(), &format!("train --out full --steps 1 {SMALL}"));
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("notes.txt"), "{}", ran.stderr);
}
