//! Tensor names and the order of rotary channels: GGUF's beside Hugging Face's.

use std::borrow::Cow;

/// Parts of a block: Hugging Face's name and GGUF's.
const PARTS: [(&str, &str); 14] = [
    ("input_layernorm.weight", "attn_norm.weight"),
    ("self_attn.q_proj.weight", "attn_q.weight"),
    ("self_attn.k_proj.weight", "attn_k.weight"),
    ("self_attn.v_proj.weight", "attn_v.weight"),
    ("self_attn.q_proj.bias", "attn_q.bias"),
    ("self_attn.k_proj.bias", "attn_k.bias"),
    ("self_attn.v_proj.bias", "attn_v.bias"),
    ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    ("self_attn.o_proj.weight", "attn_output.weight"),
    ("post_attention_layernorm.weight", "ffn_norm.weight"),
    ("mlp.gate_proj.weight", "ffn_gate.weight"),
    ("mlp.up_proj.weight", "ffn_up.weight"),
    ("mlp.down_proj.weight", "ffn_down.weight"),
];

pub(super) const EMBEDDING: &str = "token_embd.weight";
pub(super) const HEAD: &str = "output.weight";

/// What GGUF calls the tensor that a checkpoint calls `name`.
pub(super) fn gguf_name(name: &str) -> Cow<'_, str> {
    match name {
        "model.embed_tokens.weight" => EMBEDDING.into(),
        "model.norm.weight" => "output_norm.weight".into(),
        "lm_head.weight" => HEAD.into(),
        _ => block_name(name).map_or(Cow::Borrowed(name), Cow::Owned),
    }
}

fn block_name(name: &str) -> Option<String> {
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (_, gguf) = PARTS.iter().find(|(hf, _)| *hf == part)?;
    Some(format!("blk.{layer}.{gguf}"))
}

/// How the rows of a tensor are ordered in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// As in a checkpoint.
    Same,
    /// Within each head the two channels that turn together lie side by side; in a checkpoint they
    /// lie half a head apart.
    Interleaved {
        /// Rows of a head.
        head_dim: usize,
    },
}

impl RowOrder {
    /// Of a tensor by its Hugging Face name; only files of the `llama` architecture interleave.
    pub(super) fn of(name: &str, architecture: &str, head_dim: usize) -> Self {
        let rotary = name.contains(".q_proj.") || name.contains(".k_proj.");
        if rotary && architecture == "llama" && head_dim >= 2 {
            Self::Interleaved { head_dim }
        } else {
            Self::Same
        }
    }

    /// The row of the file that holds row `row` of the checkpoint.
    pub(super) fn stored(self, row: usize) -> usize {
        match self {
            Self::Same => row,
            Self::Interleaved { head_dim } => {
                let (head, channel) = (row / head_dim, row % head_dim);
                let (side, pair) = (channel / (head_dim / 2), channel % (head_dim / 2));
                head * head_dim + 2 * pair + side
            }
        }
    }

    /// The row of the checkpoint that row `row` of the file holds.
    pub(super) fn loaded(self, row: usize) -> usize {
        match self {
            Self::Same => row,
            Self::Interleaved { head_dim } => {
                let (head, channel) = (row / head_dim, row % head_dim);
                let (pair, side) = (channel / 2, channel % 2);
                head * head_dim + side * (head_dim / 2) + pair
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_two_heads() {
        let order = RowOrder::of("model.layers.0.self_attn.q_proj.weight", "llama", 6);
        let stored: Vec<usize> = (0..12).map(|r| order.stored(r)).collect();
        assert_eq!(stored, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
        assert!((0..12).all(|r| order.loaded(order.stored(r)) == r));
        let qwen = RowOrder::of("model.layers.0.self_attn.q_proj.weight", "qwen2", 6);
        assert_eq!(qwen, RowOrder::Same);
        let value = RowOrder::of("model.layers.0.self_attn.v_proj.weight", "llama", 6);
        assert_eq!(value, RowOrder::Same);
    }

    #[test]
    fn names() {
        assert_eq!(gguf_name("model.layers.12.mlp.up_proj.weight"), "blk.12.ffn_up.weight");
        assert_eq!(gguf_name("model.layers.0.self_attn.k_norm.weight"), "blk.0.attn_k_norm.weight");
        assert_eq!(gguf_name("lm_head.weight"), "output.weight");
        assert_eq!(gguf_name("something.else"), "something.else");
    }
}
