//! The policy: a model, its tokenizer, what ends its turns, and what else its authors say.

use empg::TokenId;
use empg_llm::{LoadedModel, LoraConfig, Model, ModelConfig, SideFiles, Tokenizer};

use crate::TrainError;
use crate::config::{ConfigError, RolloutConfig};
use crate::script::Script;
use crate::seed;

/// A model with the tokenizer that it was trained with.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The weights.
    pub model: Model,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Tokens that end a turn beside ChatML's: those that the model's authors name.
    pub end_tokens: Vec<TokenId>,
    /// What its authors say beside the weights, to be written with them again.
    pub side: SideFiles,
}

/// Longest context of a new policy. The configuration's default is a quarter of it: pages of a real
/// shop are long.
pub(crate) const POSITIONS: usize = 4096;

/// Parameters from which on threads share one pass instead of taking whole passes each: a gradient
/// and a cache for every thread would not fit.
const SHARED_PASSES: usize = 1 << 24;

impl Policy {
    /// The script of episodes in an environment.
    ///
    /// # Errors
    /// A prompt that cannot be used.
    pub fn script(&self, config: &RolloutConfig, env: &str) -> Result<Script, TrainError> {
        let language_model = !self.tokenizer.is_word_level();
        let template = config.template.as_deref();
        Ok(Script::with_template(&config.prompt, template, env, language_model)?)
    }

    /// Gives the model, which `base` names, new adapters where a configuration asks for some and it
    /// has none yet.
    ///
    /// # Errors
    /// Adapters that cannot be made, or others than the model has.
    pub fn adapt(
        &mut self,
        lora: Option<&LoraConfig>,
        base: &str,
        seed: u64,
    ) -> Result<(), TrainError> {
        let wrong = |what: String| ConfigError { key: "model.lora", what };
        match (lora, &self.model.adapters) {
            (Some(lora), None) => {
                let seed = seed::derive(&[seed, seed::name("lora")]);
                let made = self.model.adapt(lora.clone(), Some(base.to_owned()), seed);
                made.map_err(|e| wrong(e.to_string()))?;
            }
            (Some(lora), Some(adapters)) => {
                let mut wanted = lora.clone();
                wanted.targets.sort_unstable();
                if wanted != adapters.config {
                    let what =
                        "asks for other adapters than the model has: leave it open to train \
                                those, or start from the merged model"
                            .to_owned();
                    return Err(wrong(what).into());
                }
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// An untrained policy of about a million parameters for a tokenizer: 4 layers of width 128.
    ///
    /// # Errors
    /// A tokenizer without tokens.
    pub fn untrained(tokenizer: Tokenizer, seed: u64) -> Result<Self, TrainError> {
        let config = ModelConfig {
            vocab_size: tokenizer.vocab_size(),
            hidden_size: 128,
            intermediate_size: 384,
            num_layers: 4,
            num_heads: 4,
            num_kv_heads: 4,
            head_dim: 32,
            rope_theta: 10_000.0,
            rope_scaling: None,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
            qkv_bias: false,
            qk_norm: false,
            max_position_embeddings: POSITIONS,
        };
        Ok(Self {
            model: Model::init(config, seed)?,
            tokenizer,
            end_tokens: Vec::new(),
            side: SideFiles::default(),
        })
    }
}

impl From<LoadedModel> for Policy {
    fn from(loaded: LoadedModel) -> Self {
        let end_tokens = loaded.end_tokens();
        let LoadedModel { model, tokenizer, side, .. } = loaded;
        Self { model, tokenizer, end_tokens, side }
    }
}

/// How many passes over a model run side by side, and how many threads share each of them.
pub fn split_threads(model: &Model, threads: usize) -> (usize, usize) {
    if model.params.len() < SHARED_PASSES { (threads, 1) } else { (1, threads) }
}
