//! A run that stops and is resumed ends with the bytes of one that did not.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use empg_env::{Split, TaskSet as _};
use empg_llm::{LoraConfig, load_path, write_files};
use empg_run::{Run, RunDir};
use empg_train::{
    Config, Job, Policy, RolloutSettings, Silent, TrainError, Trainer, load_policy, policy_files,
    rollout,
};

use crate::toy::{Lamps, config, policy};

fn start(dir: &Path) -> (RunDir, Trainer) {
    start_with(dir, config())
}

fn start_with(dir: &Path, config: Config) -> (RunDir, Trainer) {
    let run = RunDir::create(dir, "", &serde_json::json!({})).unwrap();
    (run, Trainer::new(config, Arc::new(Lamps::default()), policy()).unwrap())
}

fn bytes(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for file in [
        "checkpoints/step-000003/model.safetensors",
        "checkpoints/step-000003/optimizer.safetensors",
        "checkpoints/step-000003/trainer.json",
        "checkpoints/step-000003/state.json",
        "metrics.jsonl",
        "manifest.json",
        "panels/unseen.jsonl",
    ] {
        let path = dir.join(file);
        files.push((file.to_owned(), fs::read(&path).unwrap_or_else(|e| panic!("{file}: {e}"))));
    }
    files
}

/// Stops the run once its first step is committed.
struct StopAfterOne(Arc<std::sync::atomic::AtomicBool>);
impl empg_train::Observer for StopAfterOne {
    fn on(&mut self, progress: empg_train::Progress<'_>) {
        if matches!(progress, empg_train::Progress::Step { .. }) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

#[test]
fn a_resumed_run_equals_an_undisturbed_one() {
    compare(&config());
    let mut taped = Config { threads: 1, ..config() };
    taped.model.tape_gb = 0.01;
    compare(&taped);
}

fn compare(config: &Config) {
    let tmp = tempfile::tempdir().unwrap();
    let whole = tmp.path().join("whole");
    let (mut run, mut trainer) = start_with(&whole, config.clone());
    let summary = trainer.run(Some(&mut run), &mut Silent).unwrap();

    let parts = tmp.path().join("parts");
    let (mut run, mut trainer) = start_with(&parts, config.clone());
    let mut observer = StopAfterOne(trainer.stop_flag());
    let stopped = trainer.run(Some(&mut run), &mut observer);
    assert!(matches!(stopped, Err(TrainError::Interrupted)), "{stopped:?}");
    drop((run, trainer));

    let (mut run, checkpoint) = RunDir::resume(&parts).unwrap();
    let checkpoint = checkpoint.unwrap();
    assert_eq!(checkpoint.step, 1);
    let mut trainer =
        Trainer::resume(config.clone(), Arc::new(Lamps::default()), policy(), &checkpoint).unwrap();
    let resumed = trainer.run(Some(&mut run), &mut Silent).unwrap();
    assert_eq!(resumed.before, summary.before);
    assert_eq!(resumed.after, summary.after);
    let recorded = |dir: &Path| {
        let run = Run::open(dir).unwrap();
        run.trajectory_steps().map(|s| run.trajectories(s).unwrap()).collect::<Vec<_>>()
    };
    let rows = recorded(&whole);
    assert!(!rows.is_empty(), "nothing was learned from in three steps");
    assert_eq!(rows, recorded(&parts));
    for ((file, a), (_, b)) in bytes(&whole).iter().zip(&bytes(&parts)) {
        assert!(a == b, "{file} differs");
    }
}

#[test]
fn another_reference_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let (mut run, mut trainer) = start(&tmp.path().join("run"));
    trainer.run(Some(&mut run), &mut Silent).unwrap();
    drop((run, trainer));
    let (_run, checkpoint) = RunDir::resume(tmp.path().join("run")).unwrap();
    let mut other = policy();
    other.model.params[0] += 1.0;
    let refused =
        Trainer::resume(config(), Arc::new(Lamps::default()), other, &checkpoint.unwrap());
    assert!(matches!(refused, Err(TrainError::Checkpoint(_))));
}

#[test]
fn what_lies_beside_the_weights_stays_beside_them() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llm/tests/goldens/qwen2-tiny");
    let policy = load_policy(&model).unwrap();
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("run");
    let mut run = RunDir::create(&dir, "", &serde_json::json!({})).unwrap();
    let lamps = || Arc::new(Lamps::default());
    let mut trainer = Trainer::new(config(), lamps(), policy.clone()).unwrap();
    let mut observer = StopAfterOne(trainer.stop_flag());
    trainer.run(Some(&mut run), &mut observer).unwrap_err();
    drop((run, trainer));
    let (mut run, checkpoint) = RunDir::resume(&dir).unwrap();
    let mut trainer =
        Trainer::resume(config(), lamps(), policy.clone(), &checkpoint.unwrap()).unwrap();
    trainer.run(Some(&mut run), &mut Silent).unwrap();
    let checkpoint = dir.join("checkpoints/step-000003");
    for file in ["generation_config.json", "tokenizer_config.json", "chat_template.jinja"] {
        let [one, other] = [&model, &checkpoint].map(|dir| fs::read(dir.join(file)).unwrap());
        assert_eq!(other, one, "{file}");
    }
    let again = load_policy(&checkpoint).unwrap();
    assert_eq!((again.side, &again.end_tokens), (policy.side, &policy.end_tokens));
    assert_eq!(again.end_tokens, [0, 2]);
}

/// A copy of a small language model whose conversations begin with `<|endoftext|>`, and that has
/// another end token than ChatML's.
fn beginning() -> tempfile::TempDir {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llm/tests/goldens/qwen2-tiny");
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(model).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    let template = dir.path().join("chat_template.jinja");
    let source = fs::read_to_string(&template).unwrap();
    fs::write(&template, format!("{{{{- bos_token }}}}\n{source}")).unwrap();
    let words = r#"{"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}"#;
    fs::write(dir.path().join("tokenizer_config.json"), words).unwrap();
    fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": 0}"#).unwrap();
    dir
}

#[test]
fn contexts_begin_as_the_models_conversations_do() {
    let model = beginning();
    let policy = load_policy(model.path()).unwrap();
    let without = Policy { tokenizer: policy.tokenizer.clone().with_begin(None), ..policy.clone() };
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("run");
    let mut run = RunDir::create(&dir, "", &serde_json::json!({})).unwrap();
    let lamps = || Arc::new(Lamps::default());
    let mut trainer = Trainer::new(config(), lamps(), policy.clone()).unwrap();
    let mut observer = StopAfterOne(trainer.stop_flag());
    trainer.run(Some(&mut run), &mut observer).unwrap_err();
    drop((run, trainer));
    let (_run, checkpoint) = RunDir::resume(&dir).unwrap();
    let checkpoint = checkpoint.unwrap();
    let resumed = Trainer::resume(config(), lamps(), policy.clone(), &checkpoint).unwrap();
    assert_eq!(resumed.policy().tokenizer.begin(), Some(0));
    let context = |policy: &Policy| {
        let job = Job {
            task: Lamps::default().task(Split::Train, 5).unwrap(),
            env_seed: 0,
            sampling_seed: 0,
            group: 0,
        };
        let settings = RolloutSettings::training(&config().rollout, 1);
        let set = Lamps::default();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let played = rollout(policy, &set, &[job], &settings, &stop).unwrap();
        let first = &played[0].trajectory.segments()[0];
        let sampled = played[0].trajectory.steps()[0].sampled();
        first.tokens[..sampled.start].to_vec()
    };
    let expected = [&[0], context(&without).as_slice()].concat();
    assert_eq!(context(&policy), expected);
    assert_eq!(context(resumed.policy()), expected);
    assert_eq!(context(&load_policy(&checkpoint.dir).unwrap()), expected);
}

#[test]
fn adapters_and_whole_models_are_served_alike() {
    let model = beginning();
    for template in [true, false] {
        if !template {
            fs::remove_file(model.path().join("chat_template.jinja")).unwrap();
        }
        let mut policy = load_policy(model.path()).unwrap();
        let whole = tempfile::tempdir().unwrap();
        write_files(whole.path(), &policy_files(&policy).unwrap()).unwrap();
        let whole = load_path(whole.path()).unwrap();

        policy.adapt(Some(&LoraConfig::default()), "base", 1).unwrap();
        let adapters = tempfile::tempdir().unwrap();
        write_files(adapters.path(), &policy_files(&policy).unwrap()).unwrap();
        let base = load_path(model.path()).unwrap();
        let beside = base.with_adapters(adapters.path()).unwrap();

        assert_eq!(beside.side, whole.side);
        assert_eq!(beside.generation.eos, [2, 0]);
        assert_eq!(beside.tokenizer.begin(), whole.tokenizer.begin());
        let [one, other] = [&beside, &whole].map(|m| m.chat_template.as_ref().unwrap());
        assert_eq!((one.source(), one.specials()), (other.source(), other.specials()));
        // Adapters that go on being trained say the same again.
        let sorted = |mut files: Vec<(&'static str, Vec<u8>)>| {
            files.sort();
            files
        };
        let again = Policy { model: policy.model.clone(), ..beside.into() };
        assert_eq!(sorted(policy_files(&again).unwrap()), sorted(policy_files(&policy).unwrap()));
    }
}

#[test]
fn a_checkpoint_of_a_checkpoint_has_its_bytes() {
    let policy = policy();
    let files = policy_files(&policy).unwrap();
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path(), &files).unwrap();
    let sorted = |mut files: Vec<(&'static str, Vec<u8>)>| {
        files.sort();
        files
    };
    let again = policy_files(&load_policy(dir.path()).unwrap()).unwrap();
    assert_eq!(sorted(again), sorted(files));
}
