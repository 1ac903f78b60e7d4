//! `empg export`: GGUF files out of models.

use std::path::Path;

use serde_json::Value;

use crate::program::{run, run_in};

/// A small model in mixed element types.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../llm/tests/goldens/tiny_llama.gguf");

#[test]
fn a_model_becomes_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut sizes = Vec::new();
    for kind in ["q8_0", "f16", "bf16", "f32"] {
        let file = format!("{kind}.gguf");
        let ran = run_in(
            dir.path(),
            &format!("export --model {SOURCE} --gguf {file} --type {kind} --json"),
        );
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let line: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
        let bytes = std::fs::metadata(dir.path().join(&file)).unwrap().len();
        assert_eq!(line["gguf"], file.as_str());
        assert_eq!(line["bytes"], bytes);
        sizes.push(bytes);
        // What was written is a model like the first.
        let again = run_in(
            dir.path(),
            &format!("export --model {file} --gguf again.gguf --force --type {kind}"),
        );
        assert_eq!(again.code, Some(0), "{}", again.stderr);
    }
    assert!(sizes[0] < sizes[1] && sizes[1] == sizes[2] && sizes[2] < sizes[3], "{sizes:?}");
    assert!(
        std::fs::read_dir(dir.path())
            .unwrap()
            .all(|f| { f.unwrap().path().extension().is_some_and(|e| e == "gguf") })
    );
}

#[test]
fn adapters_become_a_whole_model_that_plays_alike() {
    let dir = tempfile::tempdir().unwrap();
    let done = |command: &str| {
        let ran = run_in(dir.path(), command);
        assert_eq!(ran.code, Some(0), "{command}: {}", ran.stderr);
        ran.stdout
    };
    done(
        "sft --model tiny --steps 2 --batch-tokens 600 --lr 1e-1 --out adapters \
         --save-batches --set model.lora={rank=2,alpha=64} --set eval.episodes=1 --set eval.max_turns=2",
    );
    let steps = std::fs::read_to_string(dir.path().join("adapters/sft.jsonl")).unwrap();
    let steps: Vec<Value> = steps.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(steps.iter().map(|s| s["step"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert!(steps.iter().all(|s| s["loss"].as_f64().unwrap() > 0.0));

    let batches = std::fs::read_to_string(dir.path().join("adapters/batches.jsonl")).unwrap();
    let batches: Vec<Value> = batches.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for (step, batch) in steps.iter().zip(&batches) {
        assert_eq!(batch["step"], step["step"]);
        let sequences = batch["sequences"].as_array().unwrap();
        let tokens = sequences.iter().map(|s| s["tokens"].as_array().unwrap().len()).sum::<usize>();
        assert_eq!(Some(tokens as u64), step["tokens"].as_u64());
    }
    assert_eq!(batches.len(), 2);

    done("export --model adapters --out merged");
    let ran = run_in(dir.path(), "export --model tiny --out merged");
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("holds a model already"), "{}", ran.stderr);
    let has = |file: &str| dir.path().join("merged").join(file).is_file();
    assert!(has("model.safetensors") && has("config.json") && has("tokenizer.json"));
    assert!(!has("adapter_config.json"));
    let plays = |model: &str| {
        let options = "--episodes 6 --set eval.temperature=0 --set eval.max_turns=8 --json";
        done(&format!("eval --model {model} {options}"))
    };
    let adapted = plays("adapters");
    assert_eq!(plays("merged"), adapted);
    // What the adapters learned shows, so that a model without them would be noticed.
    assert_ne!(plays("tiny"), adapted);

    // A whole model in the adapters' place leaves nothing of them.
    let whole = "sft --model merged --steps 1 --batch-tokens 600 --out adapters \
                 --set eval.episodes=1 --set eval.max_turns=2";
    let ran = run_in(dir.path(), whole);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("--force"), "{}", ran.stderr);
    assert!(has_adapters(dir.path()));
    done(&format!("{whole} --force"));
    let there = |file: &str| dir.path().join("adapters").join(file).exists();
    assert!(there("model.safetensors") && there("config.json"));
    assert!(!has_adapters(dir.path()) && !there("adapter_model.safetensors"));
    plays("adapters");
    // The other way round nothing is trained before it is refused.
    let before = std::fs::read(dir.path().join("adapters/sft.jsonl")).unwrap();
    let ran = run_in(
        dir.path(),
        "sft --model merged --steps 1 --out adapters --set model.lora={rank=2,alpha=64}",
    );
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("holds a whole model"), "{}", ran.stderr);
    assert_eq!(std::fs::read(dir.path().join("adapters/sft.jsonl")).unwrap(), before);
}

fn has_adapters(dir: &Path) -> bool {
    dir.join("adapters/adapter_config.json").exists()
}

#[test]
fn adapters_of_adapters_are_refused_before_anything_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let adapters = |folder: &str, base: &str| {
        let path = dir.path().join(folder);
        std::fs::create_dir_all(&path).unwrap();
        let text = serde_json::json!({ "peft_type": "LORA", "base_model_name_or_path": base,
            "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"] });
        std::fs::write(path.join("adapter_config.json"), text.to_string()).unwrap();
    };
    adapters("itself", "itself");
    adapters("one", "other");
    adapters("other", "one");
    for (model, base) in [("itself", "itself"), ("one", "other"), ("other", "one")] {
        let ran = run_in(dir.path(), &format!("eval --model {model} --episodes 1"));
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        let needle = format!("belong to {base}, which holds adapters of its own");
        assert!(ran.stderr.contains(&needle), "{}", ran.stderr);
    }
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run_in(dir.path(), "export --model tiny --gguf tiny.gguf");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("byte-pair"), "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    std::fs::copy(SOURCE, dir.path().join("m.gguf")).unwrap();
    let ran = run_in(dir.path(), "export --model m.gguf --gguf m.gguf");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("another file"), "{}", ran.stderr);
    // Nor over the model that adapters belong to.
    let base = dir.path().join("m.gguf");
    let mut model = empg_llm::load_gguf(&base).unwrap().model;
    let lora = empg_llm::LoraConfig { rank: 2, ..empg_llm::LoraConfig::default() };
    model.adapt(lora, Some(base.display().to_string()), 1).unwrap();
    let adapters = model.adapters.as_ref().unwrap();
    let files = empg_llm::adapter_files(adapters, empg_llm::Dtype::F32).unwrap();
    empg_llm::write_files(&dir.path().join("adapters"), &files).unwrap();
    let before = std::fs::read(&base).unwrap();
    let ran = run_in(dir.path(), "export --model adapters --gguf m.gguf");
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("the adapters belong to"), "{}", ran.stderr);
    assert_eq!(std::fs::read(&base).unwrap(), before);
    // Nor over a file that is there.
    std::fs::write(dir.path().join("other.gguf"), "something else").unwrap();
    let ran = run_in(dir.path(), "export --model m.gguf --gguf other.gguf");
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("--force"), "{}", ran.stderr);
    assert_eq!(std::fs::read(dir.path().join("other.gguf")).unwrap(), b"something else");
    // A run's folder opens as the run.
    std::fs::create_dir(dir.path().join("run")).unwrap();
    std::fs::write(dir.path().join("run/manifest.json"), "{}").unwrap();
    for command in ["export --model m.gguf --out run", "sft --model tiny --steps 1 --out run"] {
        let ran = run_in(dir.path(), command);
        assert_eq!(ran.code, Some(2), "{command}: {}", ran.stderr);
        assert!(ran.stderr.contains("is a run's"), "{}", ran.stderr);
    }
    let ran = run_in(dir.path(), "export --model missing.gguf --gguf out.gguf");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("missing.gguf"), "{}", ran.stderr);
    assert_eq!(run("export --model m.gguf --gguf o.gguf --type q2_k").code, Some(2));
    let damaged = std::fs::read(SOURCE).unwrap();
    std::fs::write(dir.path().join("m.gguf"), &damaged[..damaged.len() - 40]).unwrap();
    let ran = run_in(dir.path(), "eval --model m.gguf --env households --episodes 1");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("truncated") && ran.stderr.contains("offset"), "{}", ran.stderr);
}
