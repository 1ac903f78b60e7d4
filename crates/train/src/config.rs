//! The typed configuration of a training run: what `config.toml` holds.
//!
//! Every key has a default; a recipe (`algo.name`) fills the keys that were left open. The
//! resolved configuration, with every value explicit, is what a run directory records.

mod environment;

use empg::loss::Aggregation;
use empg::{Clarity, EmpgOptions, Normalize, Overlong, Shape};
use empg_llm::{LoraConfig, Model, Precision};
use serde::{Deserialize, Serialize};

use crate::update::Workers;

pub use environment::EnvConfig;

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seed from which every other seed derives.
    pub seed: u64,
    /// Batches that are played and learned from, each in up to `algo.epochs` × `algo.minibatches`
    /// updates.
    pub steps: u64,
    /// Worker threads; 0 means one per core.
    pub threads: usize,
    /// The environment.
    pub env: EnvConfig,
    /// The policy.
    pub model: ModelSource,
    /// How episodes are sampled.
    pub rollout: RolloutConfig,
    /// What an episode is worth.
    pub reward: RewardConfig,
    /// The estimator, the loss and the update.
    pub algo: AlgoConfig,
    /// Entropy modulation.
    pub empg: EmpgConfig,
    /// The optimiser.
    pub optim: OptimConfig,
    /// Evaluation panels.
    pub eval: EvalConfig,
    /// Checkpoints.
    pub checkpoint: CheckpointConfig,
    /// What is recorded of each step.
    pub record: RecordConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            steps: 60,
            threads: 0,
            env: EnvConfig::default(),
            model: ModelSource::default(),
            rollout: RolloutConfig::default(),
            reward: RewardConfig::default(),
            algo: AlgoConfig::default(),
            empg: EmpgConfig::default(),
            optim: OptimConfig::default(),
            eval: EvalConfig::default(),
            checkpoint: CheckpointConfig::default(),
            record: RecordConfig::default(),
        }
    }
}

/// Where the policy comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSource {
    /// `tiny` (embedded) or a checkpoint directory.
    pub path: String,
    /// Compute type of matrix products: `f32` (`auto` chooses it too) or `bf16`; weights and sums are
    /// f32 in either.
    pub dtype: String,
    /// Device: `cpu` (`auto` chooses it too).
    pub device: String,
    /// Computes each block's activations again in the backward pass instead of keeping them: less
    /// memory, one more forward pass.
    pub gradient_checkpointing: bool,
    /// Memory (GB, 10⁹ bytes) in which sampling keeps its forward passes, so that the first update of
    /// a step goes backward from them instead of computing them again; 0 keeps none. Whole groups are
    /// kept, as many as fit; a quarter is for the distributions that tokens were sampled from. Of
    /// `algo.minibatches` only the first finds its weights.
    #[serde(skip_serializing_if = "is_zero")]
    pub tape_gb: f64,
    /// Trains low-rank adapters beside the frozen weights instead of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

// As serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl ModelSource {
    /// The format of the factors of matrix products.
    pub fn precision(&self) -> Precision {
        if self.dtype == "bf16" { Precision::Bf16 } else { Precision::F32 }
    }

    /// Buffers for training passes of a model with so many threads.
    pub(crate) fn workers(&self, model: &Model, threads: usize) -> Workers {
        let precision = self.precision();
        let checkpointing = self.gradient_checkpointing;
        Workers::of(model, threads, |workspace| {
            workspace.precision(precision).checkpointing(checkpointing)
        })
    }
}

impl Default for ModelSource {
    fn default() -> Self {
        Self {
            path: "tiny".into(),
            dtype: "auto".into(),
            device: "auto".into(),
            lora: None,
            gradient_checkpointing: false,
            tape_gb: 0.0,
        }
    }
}

/// How the context of a turn is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Context {
    /// One context that grows by every turn.
    #[default]
    Full,
    /// The task and the last `n` turns, rebuilt at every turn: each turn is its own segment.
    Window(usize),
}

/// How episodes are sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutConfig {
    /// Tasks of a batch.
    pub groups: usize,
    /// Rollouts of each task.
    pub group_size: usize,
    /// Turns of an episode.
    pub max_turns: usize,
    /// Sampled tokens of a turn.
    pub max_turn_tokens: usize,
    /// Tokens of a context.
    pub max_context_tokens: usize,
    /// Tokens of an observation, cut off at its end; 0 means no limit.
    pub max_observation_tokens: usize,
    /// Sampled tokens of an episode; 0 means no limit. The last turn may have what is left only.
    pub max_episode_tokens: usize,
    /// Sampling temperature T; log-probabilities and entropies are those of softmax(z/T).
    pub temperature: f32,
    /// Sample from the k most probable tokens only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Sample from the smallest set of tokens with this probability mass only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Ends a training episode after so many commands in a row without effect; 0 never does.
    /// Evaluation never does.
    pub stuck_after: usize,
    /// `"full"` or `{ window = n }`.
    pub context: Context,
    /// Lists the admissible commands in window contexts.
    pub admissible: bool,
    /// How the environment talks and turns are read: `plain` (the turn is the command), a prompt
    /// of this crate (`alfworld`, `webshop`, `search`), the path of a template, or `auto`.
    pub prompt: String,
    /// The text of the template where `prompt` is a path and it has been read
    /// ([`RolloutConfig::read_prompt`]); it is no setting.
    #[serde(skip)]
    pub template: Option<String>,
    /// Text of a system turn at the beginning of every context; empty for none.
    pub system: String,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            groups: 16,
            group_size: 8,
            max_turns: 30,
            max_turn_tokens: 16,
            max_context_tokens: 1024,
            max_observation_tokens: 0,
            max_episode_tokens: 0,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            stuck_after: 3,
            context: Context::Full,
            admissible: false,
            prompt: "auto".into(),
            template: None,
            system: String::new(),
        }
    }
}

/// What counts as an episode's outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// 1 where the task was solved, else 0.
    Success,
    /// The sum of the environment's rewards: WebShop's score between 0 and 1.
    #[default]
    Score,
}

/// What an episode is worth: R = outcome − penalties.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardConfig {
    /// `success` or `score`.
    pub outcome: Outcome,
    /// Subtracted for every command without effect.
    pub invalid_penalty: f64,
    /// DAPO's soft punishment of long episodes, over their sampled tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlong: Option<Overlong>,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self { outcome: Outcome::default(), invalid_penalty: 0.0, overlong: None }
    }
}

/// Recipe names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// Group-normalised advantages, symmetric clip, sequence-mean loss, KL in the loss.
    Grpo,
    /// GRPO's advantages with clip-higher, token-mean loss, dynamic sampling, no KL in the loss.
    #[default]
    Dapo,
}

/// Base advantage estimators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// (R − mean) / (std + eps) within the group.
    #[default]
    Grpo,
    /// R − mean within the group.
    DrGrpo,
    /// R − mean of the other rollouts.
    Rloo,
}

/// The estimator, the loss and the update. Keys left open are the recipe's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlgoConfig {
    /// `grpo` or `dapo`.
    pub name: Recipe,
    /// Base advantage estimator.
    pub base: Base,
    /// Delta degrees of freedom of the group's standard deviation.
    pub ddof: u32,
    /// Added to the group's standard deviation.
    pub eps: f64,
    /// ε_lo of the clip (GRPO 0.2, DAPO 0.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_low: Option<f64>,
    /// ε_hi of the clip (GRPO 0.2, DAPO 0.28).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_high: Option<f64>,
    /// Loss aggregation (GRPO `sequence-mean`, DAPO `token-mean`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<Aggregation>,
    /// β of the k3 KL to the reference in the loss (GRPO 0.01, DAPO 0). KL is measured anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_coef: Option<f64>,
    /// Coefficient of the entropy bonus.
    pub entropy_coef: f64,
    /// Drops groups whose rewards are all equal and samples others (GRPO false, DAPO true).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_sampling: Option<bool>,
    /// Rounds of sampling for a batch, the first included.
    pub max_rounds: usize,
    /// Passes over a batch.
    pub epochs: usize,
    /// Updates a pass at most; groups stay whole.
    pub minibatches: usize,
    /// Rows of a micro-batch; the gradient does not depend on it, but for the masks of adapters'
    /// dropout, which follow the micro-batches.
    pub micro_batch_tokens: usize,
}

impl Default for AlgoConfig {
    fn default() -> Self {
        Self {
            name: Recipe::Dapo,
            base: Base::Grpo,
            ddof: 1,
            eps: 1e-6,
            clip_low: None,
            clip_high: None,
            aggregation: None,
            kl_coef: None,
            entropy_coef: 0.0,
            dynamic_sampling: None,
            max_rounds: 2,
            epochs: 1,
            minibatches: 2,
            micro_batch_tokens: 8192,
        }
    }
}

impl AlgoConfig {
    /// The keys that a recipe decides where they are open, by their last part.
    pub const OF_RECIPE: [&str; 5] =
        ["clip_low", "clip_high", "aggregation", "kl_coef", "dynamic_sampling"];

    fn fill(&mut self) {
        let dapo = self.name == Recipe::Dapo;
        self.clip_low.get_or_insert(0.2);
        self.clip_high.get_or_insert(if dapo { 0.28 } else { 0.2 });
        self.aggregation.get_or_insert(if dapo {
            Aggregation::TokenMean
        } else {
            Aggregation::SequenceMean
        });
        self.kl_coef.get_or_insert(if dapo { 0.0 } else { 0.01 });
        self.dynamic_sampling.get_or_insert(dapo);
    }

    /// Groups of a minibatch, where a batch has `groups`: they stay whole, so that there may be fewer
    /// minibatches than asked for.
    pub(crate) fn minibatch_groups(&self, groups: usize) -> usize {
        groups.div_ceil(self.minibatches.max(1)).max(1)
    }

    /// Updates that a batch of `groups` is worth.
    pub(crate) fn updates(&self, groups: usize) -> u64 {
        let pass = groups.div_ceil(self.minibatch_groups(groups));
        (self.epochs as u64).saturating_mul(pass as u64)
    }
}

/// Entropy modulation of the base advantages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmpgConfig {
    /// Off leaves the base exactly as it is.
    pub enabled: bool,
    /// Strength k of the self-calibrating gradient scaling (Eq. 10); 0 switches it off.
    pub k: f64,
    /// Strength k' of the future-clarity bonus' shape (Eq. 11).
    pub k_f: f64,
    /// Weight ζ of the future-clarity bonus (Eq. 8); 0 switches it off.
    pub zeta: f64,
    /// Shape of g and f.
    pub shape: Shape,
    /// Normalisation of step entropies.
    pub normalize: Normalize,
    /// Lower bound of the `quantile` normalisation.
    pub quantile_low: f64,
    /// Upper bound of the `quantile` normalisation.
    pub quantile_high: f64,
    /// What the bonus rewards.
    pub bonus: Clarity,
    /// No bonus where the base advantage is 0, as in groups whose rewards are all equal.
    pub gate_bonus: bool,
    /// Subtracts the mean over all steps (Eq. 7).
    pub center: bool,
}

impl Default for EmpgConfig {
    fn default() -> Self {
        let options = EmpgOptions::default();
        Self {
            enabled: true,
            k: options.k,
            k_f: options.k_f,
            zeta: options.zeta,
            shape: options.shape,
            normalize: options.normalize,
            quantile_low: options.quantile_low,
            quantile_high: options.quantile_high,
            bonus: options.bonus,
            gate_bonus: options.gate_bonus,
            center: options.center,
        }
    }
}

/// Learning-rate schedules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The peak from the warm-up's end on.
    #[default]
    Constant,
    /// Half a cosine from the peak to a tenth of it.
    Cosine,
    /// A straight line from the peak to a tenth of it.
    Linear,
}

/// The optimiser (AdamW).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimConfig {
    /// Peak learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of matrices; norms and biases have none.
    pub weight_decay: f64,
    /// Optimiser steps of linear warm-up.
    pub warmup: u64,
    /// What follows the warm-up.
    pub schedule: Schedule,
    /// Gradients are scaled down to this norm; 0 leaves them.
    pub max_grad_norm: f64,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            lr: 3e-4,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.0,
            warmup: 4,
            schedule: Schedule::Constant,
            max_grad_norm: 1.0,
        }
    }
}

/// Evaluation panels: the same tasks with the same seeds every time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Splits that are evaluated before and after: `seen`, `unseen`. The last one is the headline.
    pub splits: Vec<empg_env::Split>,
    /// Episodes a split; at most the split's size, 0 means the whole split.
    pub episodes: usize,
    /// Evaluates every so many steps as well; 0 means before and after only.
    pub every: u64,
    /// Seed of the panel (independent of the run's seed, so that runs compare).
    pub panel_seed: u64,
    /// Sampling temperature; 0 takes the most probable token.
    pub temperature: f32,
    /// Turns of an evaluation episode; 0 means as in training.
    pub max_turns: usize,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            splits: vec![empg_env::Split::Unseen],
            episodes: 256,
            every: 0,
            panel_seed: 0,
            temperature: 1.0,
            max_turns: 0,
        }
    }
}

/// When checkpoints are written and which are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps between checkpoints; the last step always has one.
    pub every: u64,
    /// How many of the newest are kept, besides the best and the last.
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 1, keep: 2 }
    }
}

/// What is recorded of each step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordConfig {
    /// Steps between recorded batches of trajectories; 0 records none.
    pub trajectories_every: u64,
    /// Evaluation episodes of the initial policy whose step entropies the trained one scores again,
    /// for the analysis of entropy dynamics; 0 for none.
    pub entropy_probe: usize,
    /// Steps of those episodes whose score norms and parameter gradients are measured, for
    /// Proposition 1 on the policy itself; 0 for none.
    pub gradient_probe: usize,
    /// Trackers that mirror the run while it is written, e.g. `mlflow=http://127.0.0.1:5000`. The
    /// trainer itself does not know them.
    pub track: Vec<String>,
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self { trajectories_every: 10, entropy_probe: 64, gradient_probe: 96, track: Vec::new() }
    }
}

/// A configuration that cannot be trained.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct ConfigError {
    /// The key, dotted.
    pub key: &'static str,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

impl Config {
    /// Fills the keys that the recipe decides and checks every value.
    ///
    /// # Errors
    /// The first key whose value cannot be trained with.
    pub fn resolve(mut self) -> Result<Self, ConfigError> {
        self.algo.fill();
        if self.threads == 0 {
            self.threads = std::thread::available_parallelism().map_or(1, usize::from);
        }
        self.check()?;
        Ok(self)
    }

    /// Optimiser steps of the whole run, if every batch is full: what the learning rate's schedule
    /// spans.
    pub(crate) fn updates(&self) -> u64 {
        self.steps.saturating_mul(self.algo.updates(self.rollout.groups))
    }

    /// The modulation's options; `None` where EMPG is off.
    pub fn empg_options(&self) -> Option<EmpgOptions> {
        self.empg.enabled.then_some(EmpgOptions {
            k: self.empg.k,
            k_f: self.empg.k_f,
            zeta: self.empg.zeta,
            shape: self.empg.shape,
            normalize: self.empg.normalize,
            quantile_low: self.empg.quantile_low,
            quantile_high: self.empg.quantile_high,
            bonus: self.empg.bonus,
            gate_bonus: self.empg.gate_bonus,
            center: self.empg.center,
            paper_exact: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_counted_as_they_are_made() {
        let mut config = Config { steps: 5, ..Config::default() };
        assert_eq!(config.updates(), 10, "16 groups in two minibatches");
        for (groups, minibatches, epochs, expected) in
            [(6, 4, 1, 3), (6, 4, 2, 6), (5, 3, 1, 3), (1, 2, 1, 1), (7, 7, 1, 7), (9, 8, 1, 5)]
        {
            config.algo.minibatches = minibatches;
            config.algo.epochs = epochs;
            assert_eq!(config.algo.updates(groups), expected, "{groups} groups, {minibatches}");
            // As the trainer cuts a batch.
            let order: Vec<usize> = (0..groups).collect();
            let cut = order.chunks(config.algo.minibatch_groups(groups)).count();
            assert_eq!((cut * epochs) as u64, expected);
        }
        config.algo.epochs = usize::MAX;
        assert_eq!(Config { steps: u64::MAX, ..config }.updates(), u64::MAX);
    }
}
