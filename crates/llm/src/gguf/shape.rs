//! The shape of the model that a GGUF file's metadata describe.

use serde_json::json;

use super::error::GgufError;
use super::file::GgufFile;
use super::names::{EMBEDDING, HEAD};
use crate::config::{ConfigError, ModelConfig};

/// Architectures whose computation this engine has.
pub(super) const ARCHITECTURES: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// The architecture's name and the model's shape.
///
/// # Errors
/// Keys that are missing or of the wrong type, and everything that the engine does not compute.
pub(super) fn read_shape<'a>(file: &GgufFile<'a>) -> Result<(&'a str, ModelConfig), GgufError> {
    let kind = file.text("general.type")?.unwrap_or("model");
    if kind != "model" {
        return Err(unsupported(format!("general.type {kind:?}")));
    }
    if let Some(parts) = file.count("split.count")?.filter(|&n| n > 1) {
        return Err(unsupported(format!("a model split into {parts} files")));
    }
    let arch = file
        .text("general.architecture")?
        .ok_or_else(|| GgufError::MissingKey { key: "general.architecture".to_owned() })?;
    if !ARCHITECTURES.contains(&arch) {
        return Err(unsupported(format!(
            "architecture {arch:?} (llama, qwen2 and qwen3 are known)"
        )));
    }
    let key = |name: &str| format!("{arch}.{name}");
    refuse_variants(file, &key)?;
    let optional = |name: &str| file.count(&key(name));
    let count = |name: &str| -> Result<usize, GgufError> {
        optional(name)?.ok_or_else(|| GgufError::MissingKey { key: key(name) })
    };
    let (hidden, heads) = (count("embedding_length")?, count("attention.head_count")?);
    let head_dim = match optional("attention.key_length")? {
        Some(length) => length,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = optional(name)?.filter(|&n| n != head_dim) {
            return Err(unsupported(format!("{arch}.{name} {other} with heads of {head_dim}")));
        }
    }
    let embedding = file
        .tensor(EMBEDDING)
        .ok_or_else(|| GgufError::Missing { tensor: EMBEDDING.to_owned() })?;
    let eps = "attention.layer_norm_rms_epsilon";
    let eps = file.float(&key(eps))?.ok_or_else(|| GgufError::MissingKey { key: key(eps) })?;
    let theta = file.float(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    // Through the form that all checkpoints have, so that a field of the configuration that comes
    // later has its default here as well.
    let mut config = json!({
        "model_type": arch,
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": count("feed_forward_length")?,
        "num_hidden_layers": count("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": optional("attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rope_theta": theta,
        "rms_norm_eps": eps,
        "tie_word_embeddings": file.tensor(HEAD).is_none(),
        "attention_bias": arch == "qwen2",
        "max_position_embeddings": count("context_length")?,
    });
    if file.text(&key("rope.scaling.type"))? == Some("linear") {
        let factor = file.float(&key("rope.scaling.factor"))?;
        config["rope_scaling"] = json!({ "rope_type": "linear", "factor": factor });
    }
    let config: ModelConfig = serde_json::from_value(config).map_err(|e| {
        GgufError::Config(ConfigError::Unsupported { what: format!("{arch} ({e})") })
    })?;
    Ok((arch, config))
}

/// Refuses keys that change the computation.
fn refuse_variants(file: &GgufFile<'_>, key: &impl Fn(&str) -> String) -> Result<(), GgufError> {
    let key_of = key;
    let scaling = file.text(&key_of("rope.scaling.type"))?.unwrap_or("none");
    if !["none", "linear"].contains(&scaling) {
        return Err(unsupported(format!("rotary scaling {scaling:?}")));
    }
    let factor = file.float(&key_of("rope.scaling.factor"))?;
    if let Some(other) = factor.filter(|&f| scaling == "none" && f != 1.0) {
        return Err(unsupported(format!("{} {other}", key_of("rope.scaling.factor"))));
    }
    // Keys whose given value means that nothing changes.
    let neutral = [
        ("rope.scale_linear", 1.0),
        ("rope.scaling.attn_factor", 1.0),
        ("expert_count", 0.0),
        ("expert_used_count", 0.0),
        ("attention.sliding_window", 0.0),
        ("attention.max_alibi_bias", 0.0),
        ("attention.clamp_kqv", 0.0),
        ("attn_logit_softcapping", 0.0),
        ("final_logit_softcapping", 0.0),
        ("logit_scale", 1.0),
        ("embedding_scale", 1.0),
        ("residual_scale", 1.0),
    ];
    for (name, value) in neutral {
        if let Some(other) = file.float(&key_of(name))?.filter(|&v| v != value) {
            return Err(unsupported(format!("{} {other}", key_of(name))));
        }
    }
    for (name, value) in [("attention.causal", true), ("use_parallel_residual", false)] {
        if file.flag(&key_of(name))?.is_some_and(|v| v != value) {
            return Err(unsupported(format!("{} {}", key_of(name), !value)));
        }
    }
    if file.value(&key_of("attention.scale")).is_some() {
        return Err(unsupported(key_of("attention.scale")));
    }
    Ok(())
}

fn unsupported(what: String) -> GgufError {
    GgufError::Unsupported { what }
}
