//! Fine-tuning on the expert's episodes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{Ran, run_in};

/// So little of everything that a step takes no time.
const SHORT: &str = "--batch-tokens 200 --threads 1 --set eval.episodes=1 --set eval.max_turns=1";

fn sft(dir: &Path, args: &str) -> Ran {
    run_in(dir, &format!("sft {SHORT} {args}"))
}

fn done(dir: &Path, args: &str) -> Ran {
    let ran = sft(dir, args);
    assert_eq!(ran.code, Some(0), "{args}: {}", ran.stderr);
    ran
}

fn refused(dir: &Path, args: &str, code: i32) -> String {
    let ran = sft(dir, args);
    assert_eq!(ran.code, Some(code), "{args}: {}", ran.stderr);
    ran.stderr
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn adapter_config(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
}

#[test]
fn a_settings_file_counts() {
    let dir = tempfile::tempdir().unwrap();
    let file = "steps = 20\nseed = 7\n[optim]\nlr = 0.004\nwarmup = 0\nschedule = \"constant\"\n\
                [model]\npath = \"tiny\"\nlora = { rank = 2, alpha = 4 }\n[empg]\nk = 2.0\n";
    fs::write(dir.path().join("c.toml"), file).unwrap();
    let ran = done(dir.path(), "--config c.toml --set steps=1 --out a");
    for part in ["fine-tuning tiny", "1 steps", "seed 7", "learning rate 0.004, 0 steps of warm-up"]
    {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    let steps = lines(&dir.path().join("a/sft.jsonl"));
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0]["lr"], 0.004);
    assert_eq!(adapter_config(&dir.path().join("a"))["base_model_name_or_path"], "tiny");
    done(dir.path(), "--config c.toml --steps 1 --lr 0.001 --out b");
    assert_eq!(lines(&dir.path().join("b/sft.jsonl"))[0]["lr"], 0.001);

    let error = refused(dir.path(), "--set empg.k=2 --steps 1 --out c", 2);
    assert!(error.contains("empg.k"), "{error}");
    let error = refused(dir.path(), "--set model.lora={rank=2} --steps 1 --out c", 2);
    assert!(error.contains("--model"), "{error}");
    assert!(!dir.path().join("c").exists());
}

#[test]
fn adapters_of_the_embedded_family_go_on_being_trained() {
    let dir = tempfile::tempdir().unwrap();
    done(dir.path(), "--steps 1 --out base");
    done(dir.path(), "--model base --set model.lora={rank=2,alpha=4} --steps 1 --out one");
    let before = fs::read(dir.path().join("one/adapter_model.safetensors")).unwrap();
    for (args, out) in [("", "two"), ("--set model.lora={rank=2,alpha=4}", "three")] {
        done(dir.path(), &format!("--model one {args} --steps 1 --out {out}"));
        let folder = dir.path().join(out);
        assert!(!folder.join("model.safetensors").exists(), "the frozen weights are not copied");
        let after = fs::read(folder.join("adapter_model.safetensors")).unwrap();
        assert!(after.len() == before.len() && after != before);
        let base = adapter_config(&folder)["base_model_name_or_path"].clone();
        assert!(base.as_str().unwrap().ends_with("base"), "{base}");
        let args = format!("eval --model {out} --episodes 1 --max-turns 1");
        let ran = run_in(dir.path(), &args);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
}

#[test]
fn adapters_do_not_take_the_place_of_their_model() {
    let dir = tempfile::tempdir().unwrap();
    done(dir.path(), "--steps 1 --out base");
    let lora = "--set model.lora={rank=2}";
    done(dir.path(), &format!("--model base {lora} --steps 1 --out one"));
    for model in [format!("base {lora}"), "one".to_owned()] {
        for out in ["base", "./base/", "one/../base"] {
            let error = refused(dir.path(), &format!("--model {model} --steps 1 --out {out}"), 2);
            assert!(error.contains("folder of their own"), "{error}");
        }
    }
    assert!(!dir.path().join("base/adapter_config.json").exists());
    // What replaces only itself may.
    done(dir.path(), "--model one --steps 1 --out one --force");
}

#[test]
fn no_new_adapters_on_a_model_that_has_to_grow() {
    let dir = tempfile::tempdir().unwrap();
    done(dir.path(), "--steps 1 --out base");
    // As of a version whose contexts were shorter.
    let file = dir.path().join("base/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["max_position_embeddings"] = 1024.into();
    fs::write(&file, config.to_string()).unwrap();
    let lora = "--set model.lora={rank=2} --steps 1";
    let error = refused(dir.path(), &format!("--model base {lora} --out one"), 2);
    assert!(error.contains("1024 positions") && error.contains("without model.lora"), "{error}");
    assert!(!dir.path().join("one").exists());
    // As it says.
    done(dir.path(), "--model base --steps 1 --out grown");
    done(dir.path(), &format!("--model grown {lora} --out one"));
}
