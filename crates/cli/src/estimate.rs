//! What a run will need: memory and disk, from its configuration alone.

use empg_llm::{Adapters, Model};
use empg_train::{Config, split_threads};

/// Bytes that a run will need at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// Resident memory.
    pub(crate) memory: u64,
    /// Space in the run directory.
    pub(crate) disk: u64,
}

/// Sequences that one worker decodes at a time.
const LIVE: u64 = 128;
/// Tasks, engines, the allocator and the program itself.
const BASE: u64 = 60 << 20;

/// Estimates the peak of a run that trains `model`. Contexts are taken as full, so a run usually stays
/// below it.
pub(crate) fn estimate(config: &Config, policy: &Model) -> Need {
    let model = &policy.config;
    let (workers, _) = split_threads(policy, config.threads.max(1));
    let (threads, parameters) = (workers as u64, policy.params.len() as u64);
    let adapters = match (&policy.adapters, &config.model.lora) {
        (Some(adapters), _) => Some(adapters.params.len()),
        (None, Some(lora)) => Some(Adapters::count(lora, model).unwrap_or_default()),
        (None, None) => None,
    };
    let rollouts = (config.rollout.groups * config.rollout.group_size) as u64;
    let context = config.rollout.max_context_tokens.min(model.max_position_embeddings) as u64;
    let (layers, hidden) = (model.num_layers as u64, model.hidden_size as u64);
    let kv = 2 * layers * (model.num_kv_heads * model.head_dim) as u64 * 4;

    // The weights and two moments of what is trained; without adapters there is a reference, too.
    let trained = adapters.map_or(parameters, |count| count as u64);
    let kept = parameters * 4 * if adapters.is_some() { 1 } else { 2 } + trained * 8;
    // A gradient per worker. Where all weights are trained, the decoder's copy of them lies in one
    // while episodes are played.
    let copies = trained * 4 * threads + if adapters.is_some() { parameters * 4 } else { 0 };
    // Groups stay together, whatever their size.
    let wave = LIVE.max(config.rollout.group_size as u64) * threads;
    let played = rollouts.min(wave) * context * kv;
    // A whole split may be of any size.
    let panel = match config.eval.episodes as u64 {
        0 => LIVE * threads,
        episodes => episodes.min(LIVE * threads),
    };
    let evaluated = panel * context * kv;
    // What the backward pass keeps of every token, and as much again for its own buffers.
    let width = 4 * hidden + model.qkv_size() as u64 + 3 * model.intermediate_size as u64;
    // A segment that is longer than a micro-batch has one of its own.
    let batch = rollouts * context;
    let share = (config.algo.micro_batch_tokens as u64).min(batch.div_ceil(threads));
    let rows = (threads * share.max(context)).min(batch);
    let training = rows * 4 * (layers * width + 2 * hidden);
    // A token with its score, a few words of text each.
    let episodes = 2 * rollouts * context * 24;
    let tape = (config.model.tape_gb * 1e9) as u64;
    // The workers keep their buffers until a checkpoint is due. Where every step has one, playing and
    // learning take turns, but the allocator does not give everything back in between.
    let kept_back = played.min(training) / if config.checkpoint.every == 1 { 2 } else { 1 };
    let learning = copies + played.max(training) + kept_back;
    // Behind the update and before the checkpoint.
    let evaluating = if config.eval.splits.is_empty() { 0 } else { copies + evaluated + training };
    let step = learning.max(evaluating) + episodes + tape;
    // A checkpoint lies in memory as it is written, when all that is gone.
    let checkpoint = trained * 12 + (4 << 20);
    let memory = BASE + kept + step.max(checkpoint);

    let directories = config.checkpoint.keep as u64 + 2;
    let recorded = match config.record.trajectories_every {
        0 => 0,
        every => config.steps / every,
    };
    let trajectories = recorded * rollouts * config.rollout.max_turns as u64 * 120;
    let disk = checkpoint * directories + trajectories + config.steps * 4096 + (1 << 20);
    Need { memory, disk }
}

/// Memory that the system could give now; `None` where it does not tell.
pub(crate) fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// A size in words: `312 MB`, `2.4 GB`.
pub(crate) fn size(bytes: u64) -> String {
    let mb = bytes as f64 / 1e6;
    if mb < 1000.0 { format!("{} MB", mb.ceil()) } else { format!("{:.1} GB", mb / 1000.0) }
}

#[cfg(test)]
mod tests {
    use empg_llm::LoraConfig;
    use empg_train::config::ModelSource;

    use super::*;

    #[test]
    fn more_rollouts_and_longer_contexts_need_more() {
        let model = empg_train::tiny().unwrap().model;
        let small = Config::default().resolve().unwrap();
        let mut large = small.clone();
        large.rollout.group_size *= 4;
        large.rollout.max_context_tokens *= 2;
        large.eval.episodes *= 4;
        let adapters = Config {
            model: ModelSource { lora: Some(LoraConfig::default()), ..ModelSource::default() },
            ..small.clone()
        };
        let adapters = estimate(&adapters, &model);
        let (small, large) = (estimate(&small, &model), estimate(&large, &model));
        assert!(adapters.memory < small.memory && adapters.disk < small.disk, "{adapters:?}");
        assert!(small.memory < large.memory && small.disk < large.disk, "{small:?} {large:?}");
        let mut taped = Config::default().resolve().unwrap();
        taped.model.tape_gb = 1.5;
        assert_eq!(estimate(&taped, &model).memory, small.memory + 1_500_000_000);
        assert_eq!((size(3_100_000), size(2_450_000_000)), ("4 MB".into(), "2.5 GB".into()));
    }

    /// Memory with a small change to the defaults.
    fn memory(change: impl FnOnce(&mut Config)) -> u64 {
        let model = empg_train::tiny().unwrap().model;
        let mut config = Config { threads: 2, ..Config::default() }.resolve().unwrap();
        config.checkpoint.every = 1;
        change(&mut config);
        estimate(&config, &model).memory
    }

    #[test]
    fn a_segment_longer_than_a_micro_batch_is_one() {
        let of = |tokens: usize| memory(|c| c.algo.micro_batch_tokens = tokens);
        assert_eq!(of(1), of(1024));
        assert!(of(1024) < of(2048));
        let one = |tokens: usize| {
            memory(|c| {
                (c.rollout.groups, c.rollout.group_size) = (1, 1);
                c.algo.micro_batch_tokens = tokens;
            })
        };
        assert_eq!(one(1), one(8192), "there is only one");
    }

    #[test]
    fn a_whole_split_is_no_empty_one() {
        let of = |episodes: usize| memory(|c| c.eval.episodes = episodes);
        assert_eq!((of(0), of(10_000)), (of(256), of(256)));
        assert!(of(8) < of(0));
    }

    #[test]
    fn what_is_kept_between_steps_counts() {
        let of = |every: u64| {
            memory(|c| {
                c.eval.splits.clear();
                c.checkpoint.every = every;
            })
        };
        assert!(of(1) < of(10));
        assert_eq!((of(0), of(2)), (of(10), of(10)));
    }

    #[test]
    fn an_evaluation_has_no_weights_of_its_own() {
        let without = memory(|c| c.eval.splits.clear());
        assert_eq!(memory(|c| c.eval.episodes = 1), without);
        assert!(memory(|c| c.eval.episodes = 256) > without);
    }
}
