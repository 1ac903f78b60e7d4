//! The embedded policy `tiny`, and how it is made.

use std::sync::Arc;

use empg_env::{DemonstrationTurn, Manner, Showing, Split, TaskSet, households, search, webshop};
use empg_llm::{Model, Names, SideFiles, Tokenizer, model_from_bytes, tiny_tokenizer};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::policy::{POSITIONS, Policy};
use crate::sft::{DemoTurn, Demonstration, Demonstrations};

const CONFIG: &[u8] = include_bytes!("../assets/tiny/config.json");
const WEIGHTS: &[u8] = include_bytes!("../assets/tiny/model.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../assets/tiny/tokenizer.json");

/// The embedded policy: grounded in households, but careless (see `empg sft --preset tiny`).
///
/// # Errors
/// Not expected: the embedded files are tested.
pub fn tiny() -> Result<Policy, TrainError> {
    let (model, tokenizer) = model_from_bytes(CONFIG, WEIGHTS, TOKENIZER)?;
    Ok(Policy { model, tokenizer, end_tokens: Vec::new(), side: SideFiles::default() })
}

/// The tokenizer of `tiny`: one token per instance name of a household, per word of the generated
/// catalogue and of the generated world; anything else in pieces.
///
/// # Errors
/// Not expected.
pub fn tiny_preset_tokenizer() -> Result<Tokenizer, TrainError> {
    let words: Vec<String> =
        webshop::vocabulary().into_iter().chain(search::vocabulary()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let pieces = webshop::asin_pieces();
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let (first, last) = search::people();
    let first: Vec<&str> = first.iter().map(String::as_str).collect();
    let last: Vec<&str> = last.iter().map(String::as_str).collect();
    Ok(tiny_tokenizer(&Names {
        things: &households::vocabulary(),
        people: (&first, &last),
        words: &words,
        tails: &pieces,
        spelling: true,
    })?)
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

/// Demonstrations of the observing experts on the tasks of a split.
pub struct ExpertDemonstrations {
    /// Environments, shown in turn; each in one or several worlds.
    pub envs: Vec<Vec<Arc<dyn TaskSet>>>,
    /// Which of them.
    pub split: Split,
    /// How the expert errs, noise, turns.
    pub showing: Showing,
}

impl std::fmt::Debug for ExpertDemonstrations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExpertDemonstrations")
            .field("showing", &self.showing)
            .finish_non_exhaustive()
    }
}

impl Stage {
    /// How well the expert of this stage plays.
    pub fn manner(self) -> Manner {
        match self {
            Self::Grounded => Manner::Clean,
            Self::ColdStart => Manner::Careless,
        }
    }

    /// How the expert of this stage is shown.
    pub fn showing(self) -> Showing {
        Showing { manner: self.manner(), noise: 0.1, max_turns: 30, admissible: false }
    }
}

impl Demonstrations for ExpertDemonstrations {
    fn episode(&self, index: u64) -> Result<Demonstration, TrainError> {
        let worlds = self.envs.get(index as usize % self.envs.len().max(1));
        let world = worlds.and_then(|w| w.get((index >> 8) as usize % w.len().max(1)));
        let Some(tasks) = world else {
            return Err(TrainError::Tasks("there is no task set to demonstrate".to_owned()));
        };
        // Generated splits have no end; a 32-bit range keeps the identifiers short.
        let place = match tasks.len(self.split) {
            Some(n) => (index >> 16) % n.max(1),
            None => index >> 32,
        };
        let task = tasks.task(self.split, place)?;
        let Some(played) = tasks.demonstrate(&task.id, index, &self.showing)? else {
            return Err(TrainError::Tasks(format!("{} has no expert to imitate", tasks.name())));
        };
        let turn = |t: DemonstrationTurn| DemoTurn {
            observation: t.observation,
            thought: t.thought,
            action: t.action,
            admissible: t.admissible,
            imitate: t.imitate,
        };
        Ok(Demonstration {
            env: tasks.name().to_owned(),
            turns: played.turns.into_iter().map(turn).collect(),
        })
    }
}

/// The policy as it goes on being fine-tuned on a tokenizer's texts: with [`extend_vocabulary`] where
/// its vocabulary is the beginning of `tokenizer`'s, else as it is, with a vocabulary of its own.
/// Adapters stay beside the weights that they were made for.
///
/// # Errors
/// A vocabulary that would have to grow under adapters.
pub fn with_vocabulary(
    policy: Policy,
    tokenizer: Tokenizer,
    seed: u64,
) -> Result<Policy, TrainError> {
    let (old, new) = (policy.tokenizer.vocab_size(), tokenizer.vocab_size());
    if differing(&policy.tokenizer, &tokenizer).is_some()
        || (old == new && policy.model.adapters.is_some())
    {
        return Ok(policy);
    }
    extend_vocabulary(&policy, tokenizer, seed)
}

/// The first token of a vocabulary that another one has not in the same place.
fn differing(old: &Tokenizer, new: &Tokenizer) -> Option<u32> {
    (0..old.vocab_size() as u32).find(|&id| old.token(id) != new.token(id))
}

/// A policy whose vocabulary is the beginning of `tokenizer`'s, with rows for the other tokens:
/// random ones of the size of the trained ones, so that attention can tell them apart. Contexts grow to
/// those of a new policy.
///
/// # Errors
/// A tokenizer that does not begin with the policy's tokens, a policy with adapters: their frozen
/// weights are another model's, and would not be kept with them.
pub fn extend_vocabulary(
    policy: &Policy,
    tokenizer: Tokenizer,
    seed: u64,
) -> Result<Policy, TrainError> {
    let (old, new) = (policy.tokenizer.vocab_size(), tokenizer.vocab_size());
    if let Some(id) = differing(&policy.tokenizer, &tokenizer) {
        let (one, other) = (policy.tokenizer.token(id), tokenizer.token(id));
        return Err(TrainError::Tasks(format!(
            "the model's vocabulary is not the beginning of the new one: token {id} is {one:?} \
             there and {other:?} here"
        )));
    }
    if policy.model.adapters.is_some() {
        return Err(TrainError::Tasks(format!(
            "the model has adapters and {old} of {new} tokens: its vocabulary can only grow without \
             them, so merge them first (empg export --model MODEL --out DIR)"
        )));
    }
    let mut config = policy.model.config.clone();
    config.vocab_size = new;
    config.max_position_embeddings = config.max_position_embeddings.max(POSITIONS);
    let mut grown = Model::init(config, seed)?;
    // Embedding rows come first in their tensor; every other tensor keeps its size.
    for entry in policy.model.layout.entries() {
        if let Some(place) = grown.layout.find(&entry.name) {
            let start = place.range.start;
            let from = &policy.model.params[entry.range.clone()];
            grown.params[start..start + from.len()].copy_from_slice(from);
        }
    }
    let rms = |row: &[f32]| (row.iter().map(|x| x * x).sum::<f32>() / row.len() as f32).sqrt();
    let width = grown.config.hidden_size;
    let rows = grown.layout.embed();
    let (trained, new_rows) = grown.params[rows].split_at_mut(old * width);
    let wanted = trained.chunks_exact(width).map(rms).sum::<f32>() / old.max(1) as f32;
    for row in new_rows.chunks_exact_mut(width) {
        let scale = wanted / rms(row).max(f32::MIN_POSITIVE);
        for x in row {
            *x *= scale;
        }
    }
    // What lay beside the weights was ours, about the smaller vocabulary.
    let (end_tokens, side) = (policy.end_tokens.clone(), SideFiles::default());
    Ok(Policy { model: grown, tokenizer, end_tokens, side })
}
