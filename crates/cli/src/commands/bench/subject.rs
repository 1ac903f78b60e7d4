//! What is measured: a model, a number type, threads.

use std::num::NonZeroUsize;

use anyhow::bail;
use clap::Args;
use empg::TokenId;
use empg_llm::{Model, ModelConfig, Precision};

use crate::models::{self, Which};

#[derive(Args, Clone, Debug)]
pub(super) struct SubjectArgs {
    /// smollm2-135m (random weights), or what train takes: tiny, a folder, a GGUF file, a run
    #[arg(long, default_value = "smollm2-135m")]
    pub(super) model: String,
    /// Number type of the products
    #[arg(long, value_enum, default_value_t = BenchDtype::F32)]
    pub(super) dtype: BenchDtype,
    /// Threads; all cores if not given
    #[arg(long, value_name = "N", value_parser = super::super::at_least_one)]
    threads: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum BenchDtype {
    /// 32-bit floats
    F32,
    /// bf16 products with f32 sums
    Bf16,
}

impl BenchDtype {
    /// Bytes of one number.
    pub(super) fn bytes(self) -> f64 {
        match self {
            Self::F32 => 4.0,
            Self::Bf16 => 2.0,
        }
    }

    pub(super) fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl SubjectArgs {
    pub(super) fn threads(&self) -> usize {
        self.threads
            .or_else(|| std::thread::available_parallelism().ok())
            .map_or(1, NonZeroUsize::get)
    }

    pub(super) fn open(&self) -> anyhow::Result<Model> {
        Ok(match self.model.as_str() {
            "smollm2-135m" => Model::init(smollm2_135m(), 1)?,
            path => models::locate(path, Which::Last)?.policy.model,
        })
    }
}

/// The shape of SmolLM2-135M: 134.5 million weights.
fn smollm2_135m() -> ModelConfig {
    let shape = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "head_dim": 64, "hidden_act": "silu", "rope_theta": 100000.0, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true, "max_position_embeddings": 8192}"#;
    serde_json::from_str(shape).expect("a valid shape")
}

/// Weights that take part in every token's products: an embedding table is only looked up, unless
/// it is the head as well.
pub(super) fn multiplied(model: &Model) -> usize {
    let c = &model.config;
    let looked_up = if c.tie_word_embeddings { 0 } else { c.vocab_size * c.hidden_size };
    model.params.len() - looked_up
}

/// Weights of the output head.
pub(super) fn head(model: &Model) -> usize {
    model.config.vocab_size * model.config.hidden_size
}

/// Refuses contexts that the model has no positions for.
pub(super) fn check_length(model: &Model, tokens: usize) -> anyhow::Result<()> {
    let most = model.config.max_position_embeddings;
    if tokens > most {
        bail!("{tokens} tokens: the model has {most} positions");
    }
    Ok(())
}

/// Tokens that repeat nothing in sight.
pub(super) fn text(model: &Model, tokens: usize, seed: u64) -> Vec<TokenId> {
    let mut state = seed ^ 0x9E37_79B9_7F4A_7C15;
    (0..tokens)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % model.config.vocab_size as u64) as TokenId
        })
        .collect()
}

/// A count of at least one.
pub(super) type Count = NonZeroUsize;

/// For `default_value_t`.
pub(super) fn count(n: usize) -> Count {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

/// The name of a step, of which the first does not count.
pub(super) fn step_name(step: usize) -> String {
    if step == 0 { "first step, not counted".into() } else { format!("step {step}") }
}

/// The middle one.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
