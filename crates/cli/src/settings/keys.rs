//! Every key of the configuration, in the order in which it is shown, with what it means.

/// A key and its meaning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Dotted name.
    pub(crate) name: &'static str,
    /// What it decides, for the comment above it.
    pub(crate) meaning: &'static str,
}

impl Key {
    /// The part before the last dot; empty for keys of the top level.
    pub(crate) fn section(&self) -> &'static str {
        self.name.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The environments that it bears on, which its meaning begins with; none where it bears on all.
    pub(crate) fn environments(&self) -> Vec<&'static str> {
        let Some((named, _)) = self.meaning.split_once(": ") else { return Vec::new() };
        match self.section() {
            "env" => named.split(", ").collect(),
            _ => Vec::new(),
        }
    }

    /// The part after the last dot.
    pub(crate) fn leaf(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, leaf)| leaf)
    }
}

macro_rules! keys {
    ($($name:literal $meaning:literal)*) => { &[$(Key { name: $name, meaning: $meaning }),*] };
}

/// All keys.
pub(crate) const KEYS: &[Key] = keys! {
    "seed" "Seed from which every other seed derives."
    "steps" "Batches that are played and learned from, each in up to algo.epochs x algo.minibatches updates."
    "threads" "Worker threads; 0 means one per core. The same number gives the same bytes."
    "env.name" "households, webshop, search (generated where env.data is open), alfworld, openenv or stdio."
    "env.data" "alfworld, webshop, search: the folder with the environment's data."
    "env.corpus" "search: the passages, where they lie outside of env.data, or a retriever's address."
    "env.data_version" "alfworld, households: which wording, 2.1.1 or 2.1.2+."
    "env.mode" "webshop: how a page is printed, text or text_rich."
    "env.human_goals" "webshop: people's instructions instead of synthetic ones."
    "env.goal_seed" "webshop: seed of prices and of the goals' order."
    "env.splits" "webshop: whose splits of the goals, verl-agent or original."
    "env.protocol" "search: whose texts and rules, verl-agent or search-r1."
    "env.topk" "search: passages of a search."
    "env.url" "openenv: the server's address, http://HOST:PORT."
    "env.command" "stdio: the program that speaks one JSON object a line, with its arguments."
    "env.timeout" "openenv, stdio: longest wait for an answer, in seconds."
    "env.retries" "openenv: how often a connection that cannot be had is tried again."
    "env.sessions" "openenv, stdio: environments at a time; 0 means 64 sessions or 16 processes."
    "env.tasks" "openenv, stdio: tasks of each split; 0 means without end."
    "env.action_field" "openenv: the action's field that takes the text; open: what the server's schema suggests."
    "env.observation_field" "openenv, stdio: the observation's field that is read; open: text, message, … or all of it."
    "env.reset" "openenv, stdio: added to every reset, e.g. { split = \"{split}\" }; knows {split}, {index}, {seed}, {task}."
    "model.path" "tiny (embedded), a model directory, a GGUF file or an id on the Hugging Face Hub."
    "model.dtype" "Compute type: f32 (auto chooses it too) or bf16 factors with f32 weights and sums."
    "model.device" "Device: cpu (auto chooses it too)."
    "model.lora" "Trains adapters beside frozen weights: { rank = 16, alpha = 32, dropout = 0, targets = [\"q_proj\", …] }."
    "model.gradient_checkpointing" "Computes activations again in the backward pass: less memory, one more forward pass."
    "model.tape_gb" "Memory (GB) in which sampling keeps forward passes for a step's first update; 0: they are computed again."
    "rollout.groups" "Tasks of a batch."
    "rollout.group_size" "Rollouts of each task."
    "rollout.max_turns" "Turns of an episode."
    "rollout.max_turn_tokens" "Sampled tokens of a turn."
    "rollout.max_context_tokens" "Tokens of a context; an episode that needs more is cut off."
    "rollout.max_observation_tokens" "Tokens of an observation, cut off at its end; 0 means no limit."
    "rollout.max_episode_tokens" "Sampled tokens of an episode; 0 means no limit."
    "rollout.temperature" "Sampling temperature T; log-probabilities and entropies are those of softmax(z/T)."
    "rollout.top_k" "Sample from the k most probable tokens only."
    "rollout.top_p" "Sample from the smallest set of tokens with this probability mass only."
    "rollout.stuck_after" "Ends a training episode after so many commands in a row without effect; 0 never does."
    "rollout.context" "\"full\" (one growing context) or { window = N } (the task and the last N turns)."
    "rollout.admissible" "Lists the admissible commands in window contexts."
    "rollout.prompt" "How the environment talks: plain, alfworld, webshop, search, a template file; auto: by environment and model."
    "rollout.system" "Text of a system turn at the beginning of every context; empty for none."
    "reward.outcome" "success (1 where the task was solved) or score (the environment's own, e.g. webshop's)."
    "reward.invalid_penalty" "Subtracted for every command without effect."
    "reward.overlong" "DAPO's soft punishment of long episodes: { max = TOKENS, buffer = TOKENS, penalty = X }."
    "algo.name" "Recipe, which decides the keys left open: grpo or dapo."
    "algo.base" "Base advantage estimator: grpo, dr-grpo or rloo."
    "algo.ddof" "Delta degrees of freedom of a group's standard deviation."
    "algo.eps" "Added to a group's standard deviation."
    "algo.clip_low" "The ratio is clipped below 1 - this."
    "algo.clip_high" "The ratio is clipped above 1 + this (grpo 0.2, dapo 0.28)."
    "algo.aggregation" "Loss aggregation: token-mean (dapo), sequence-mean (grpo) or step-mean."
    "algo.kl_coef" "Weight of the KL to the reference in the loss (grpo 0.01, dapo 0); it is measured anyway."
    "algo.entropy_coef" "Weight of the entropy bonus."
    "algo.dynamic_sampling" "Drops groups whose rewards are all equal and samples others (grpo false, dapo true)."
    "algo.max_rounds" "Rounds of sampling for a batch, the first included."
    "algo.epochs" "Passes over a batch."
    "algo.minibatches" "Updates a pass at most; groups stay whole."
    "algo.micro_batch_tokens" "Tokens of a micro-batch; the gradient does not depend on it (the masks of adapters' dropout do)."
    "empg.enabled" "Entropy modulation of the advantages; false leaves the base exactly as it is."
    "empg.k" "Strength of the self-calibrating gradient scaling; 0 switches it off."
    "empg.k_f" "Sharpness of the future-clarity bonus."
    "empg.zeta" "Weight of the future-clarity bonus; 0 switches it off."
    "empg.shape" "Shape of g and f: exp or linear."
    "empg.normalize" "Normalisation of the step entropies over the batch: minmax or quantile."
    "empg.quantile_low" "Lower bound of the quantile normalisation."
    "empg.quantile_high" "Upper bound of the quantile normalisation."
    "empg.bonus" "What the bonus rewards: next-entropy (the paper's) or entropy-drop."
    "empg.gate_bonus" "No bonus where the base advantage is 0, as in groups whose rewards are all equal."
    "empg.center" "Subtracts the mean over all steps."
    "optim.lr" "Peak learning rate."
    "optim.beta1" "Decay of the first moment."
    "optim.beta2" "Decay of the second moment."
    "optim.eps" "Added to the root of the second moment."
    "optim.weight_decay" "Decoupled weight decay of matrices; norms and biases have none."
    "optim.warmup" "Optimiser steps of linear warm-up."
    "optim.schedule" "What follows the warm-up: constant, cosine or linear."
    "optim.max_grad_norm" "Gradients are scaled down to this norm; 0 leaves them."
    "eval.splits" "Splits played before and after: seen, unseen, train. The last one is the headline."
    "eval.episodes" "Episodes a split; 0 means the whole split."
    "eval.every" "Evaluates every so many steps as well; 0 means before and after only."
    "eval.panel_seed" "Seed of the panel; independent of the run's seed, so that runs compare."
    "eval.temperature" "Sampling temperature of evaluation; 0 takes the most probable token."
    "eval.max_turns" "Turns of an evaluation episode; 0 means as in training."
    "checkpoint.every" "Steps between checkpoints; the last step always has one."
    "checkpoint.keep" "How many of the newest are kept, besides the best and the last."
    "record.trajectories_every" "Steps between recorded batches of trajectories; 0 records none."
    "record.entropy_probe" "Evaluation episodes of the initial policy that the trained one scores again; 0 for none."
    "record.gradient_probe" "Steps of those episodes whose gradients are measured, for Proposition 1; 0 for none."
    "record.track" "Trackers that mirror the run while it is written: \"mlflow\" (MLFLOW_TRACKING_URI) or \"mlflow=URL\"."
};

/// The key of a dotted name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.name == name)
}

/// Whether keys lie under a dotted name.
pub(crate) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|k| k.section() == name && !name.is_empty())
}

/// The key that a misspelt name most probably means: compared whole, and by its last part, so
/// that a key in the wrong section is found too.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let last = name.rsplit('.').next().unwrap_or(name);
    let sections = [
        "env",
        "model",
        "rollout",
        "reward",
        "algo",
        "empg",
        "optim",
        "eval",
        "checkpoint",
        "record",
    ];
    let keys = KEYS.iter().map(|key| {
        let whole = strsim::normalized_damerau_levenshtein(name, key.name);
        let part = strsim::normalized_damerau_levenshtein(last, key.leaf());
        // A little below 1, so that an equal whole name beats an equal last part.
        (whole.max(part * 0.95), key.name)
    });
    let sections =
        sections.into_iter().map(|s| (strsim::normalized_damerau_levenshtein(name, s), s));
    keys.chain(sections)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_environment_name_it() {
        let of = |name: &str| find(name).unwrap().environments();
        assert_eq!(of("env.name"), [""; 0]);
        assert_eq!(of("env.data"), ["alfworld", "webshop", "search"]);
        assert_eq!(of("env.reset"), ["openenv", "stdio"]);
        assert_eq!(of("env.data_version"), ["alfworld", "households"]);
        assert_eq!(of("optim.warmup"), [""; 0]);
        let known = ["households", "alfworld", "webshop", "search", "openenv", "stdio"];
        for key in KEYS {
            for name in key.environments() {
                assert!(known.contains(&name), "{}: {name}", key.name);
            }
        }
    }

    #[test]
    fn misspelt_and_misplaced_keys_are_recognised() {
        for (given, meant) in [
            ("rollout.group_sise", "rollout.group_size"),
            ("rolout.groups", "rollout.groups"),
            ("lr", "optim.lr"),
            ("algo.zeta", "empg.zeta"),
            ("empg.enable", "empg.enabled"),
            ("sed", "seed"),
            ("rolout", "rollout"),
        ] {
            assert_eq!(nearest(given), Some(meant), "{given}");
        }
        assert_eq!(nearest("qqqqqqq"), None);
    }
}
