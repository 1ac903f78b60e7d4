//! The embedded policy `tiny`, and how it is made.

use empg_env::households::{DemonstrationOptions, ExpertStyle, demonstration, vocabulary};
use empg_env::{Split, TaskSet};
use empg_llm::{Tokenizer, model_from_bytes, tiny_tokenizer};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::rollout::Policy;
use crate::sft::{DemoTurn, Demonstrations};

const CONFIG: &[u8] = include_bytes!("../assets/tiny/config.json");
const WEIGHTS: &[u8] = include_bytes!("../assets/tiny/model.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../assets/tiny/tokenizer.json");

/// The embedded policy: grounded in households, but careless (see `empg sft --preset tiny`).
///
/// # Errors
/// Not expected: the embedded files are tested.
pub fn tiny() -> Result<Policy, TrainError> {
    let (model, tokenizer) = model_from_bytes(CONFIG, WEIGHTS, TOKENIZER)?;
    Ok(Policy { model, tokenizer })
}

/// The tokenizer of `tiny`: one token per instance name of a household.
///
/// # Errors
/// Not expected.
pub fn household_tokenizer() -> Result<Tokenizer, TrainError> {
    Ok(tiny_tokenizer(&vocabulary(), &[])?)
}

/// Which expert is imitated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The clean expert, with noise that is seen but not imitated: grounding.
    #[default]
    Grounded,
    /// The careless expert: admissible mistakes for reinforcement to unlearn.
    ColdStart,
}

/// Demonstrations of the observing expert on the tasks of a split.
pub struct ExpertDemonstrations<'a> {
    /// The tasks.
    pub tasks: &'a dyn TaskSet,
    /// Which of them.
    pub split: Split,
    /// How the expert errs, noise, turns.
    pub options: DemonstrationOptions,
}

impl std::fmt::Debug for ExpertDemonstrations<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExpertDemonstrations")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Stage {
    /// How the expert of this stage is played.
    pub fn options(self) -> DemonstrationOptions {
        let style = match self {
            Self::Grounded => ExpertStyle::clean(),
            Self::ColdStart => ExpertStyle::cold_start(),
        };
        DemonstrationOptions { style, noise: 0.1, max_turns: 30 }
    }
}

impl Demonstrations for ExpertDemonstrations<'_> {
    fn episode(&self, index: u64) -> Result<Vec<DemoTurn>, TrainError> {
        // Generated splits have no end; a 32-bit range keeps the identifiers short.
        let place = match self.tasks.len(self.split) {
            Some(n) => index % n.max(1),
            None => index >> 32,
        };
        let task = self.tasks.task(self.split, place)?;
        let mut env = self.tasks.make();
        let played = demonstration(&mut *env, &task.id, index, &self.options)?;
        let turn = |t: empg_env::households::DemonstrationTurn| DemoTurn {
            observation: t.observation,
            action: t.action,
            imitate: t.imitate,
        };
        Ok(played.turns.into_iter().map(turn).collect())
    }
}
