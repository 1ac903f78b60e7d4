//! Training: rollout, credit, packing, loss, optimiser, trainer, supervised start, evaluation.
//!
//! One iteration reads top to bottom in [`Trainer::step`]: play episodes, form groups, assign
//! credit, pack, update.

mod aside;
mod check;
pub mod config;
mod dynamics;
mod evaluate;
mod groups;
mod metrics;
mod optim;
mod pack;
mod policy;
mod practice;
mod rollout;
mod score_norms;
mod script;
pub mod seed;
mod sft;
mod state;
mod tiny;
mod trainer;
mod update;
mod voice;

pub use config::{Config, ConfigError};
pub use dynamics::{ENTROPY_DYNAMICS, ProbedStep};
pub use evaluate::{Evaluation, Panel, Tally, evaluation_settings, wilson};
pub use groups::{Collected, Collector};
pub use metrics::{StepReport, Timings};
pub use optim::{AdamW, OptimStats};
pub use pack::{LossTarget, MicroBatch, PackStats, pack};
pub use policy::{Policy, split_threads};
pub use practice::Practice;
pub use rollout::{Episode, Job, RolloutSettings, Taped, TurnText, rollout};
pub use score_norms::{SCORE_NORMS, StepNorms};
pub use script::{Scene, Script, ScriptError, Spoken};
pub use sft::{
    DemoTurn, Demonstration, Demonstrations, SftBatch, SftConfig, SftSequence, SftStep, fine_tune,
};
pub use state::{load_policy, policy_files};
pub use tiny::{
    ExpertDemonstrations, Stage, extend_vocabulary, tiny, tiny_preset_tokenizer, with_vocabulary,
};
pub use trainer::{Observer, Progress, Silent, Summary, Trainer};
pub use update::{LossSettings, LossSums, Pass, Workers, update};

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A configuration that cannot be trained.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The environment's tasks cannot be had.
    #[error("{0}")]
    Tasks(String),
    /// The environment refused or failed.
    #[error(transparent)]
    Env(#[from] empg_env::EnvError),
    /// The engine refused its input.
    #[error(transparent)]
    Engine(#[from] empg_llm::EngineError),
    /// The decoder refused its input.
    #[error(transparent)]
    Decode(#[from] empg_llm::DecodeError),
    /// The tokenizer refused its input.
    #[error(transparent)]
    Tokenizer(#[from] empg_llm::TokenizerError),
    /// A model file that cannot be read or written.
    #[error(transparent)]
    Model(#[from] empg_llm::CheckpointError),
    /// A prompt that cannot be used.
    #[error(transparent)]
    Script(#[from] crate::script::ScriptError),
    /// An episode that breaks its own rules.
    #[error(transparent)]
    Trajectory(#[from] empg::TrajectoryError),
    /// Credit that is not defined for the batch.
    #[error(transparent)]
    Advantage(#[from] empg::AdvantageError),
    /// The run directory.
    #[error(transparent)]
    Run(#[from] empg_run::RunError),
    /// A checkpoint that does not fit the run.
    #[error("checkpoint: {0}")]
    Checkpoint(String),
    /// A loss or gradient that is NaN or infinite; the last good checkpoint stands.
    #[error(
        "the {what} is not finite (first in {tensor}); the last checkpoint is unharmed: train \
         from it (--model RUN) with a smaller optim.lr or optim.max_grad_norm"
    )]
    NotFinite {
        /// `loss`, `gradient` or `weight`.
        what: &'static str,
        /// The tensor.
        tensor: String,
    },
    /// A worker thread died.
    #[error("a {0} worker stopped unexpectedly; please report it with the configuration")]
    Worker(String),
    /// Ctrl-C: everything recorded is committed.
    #[error("interrupted")]
    Interrupted,
}
