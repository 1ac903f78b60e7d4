//! Writes what this engine makes of a checkpoint, for `tools/check_checkpoint.py` to compare with
//! transformers: tokens of some texts, a rendered conversation, log-probabilities of its tokens.
//!
//! `cargo run --release -p empg-llm --example checkpoint_probe -- DIR`
//!
//! A directory without a checkpoint gets a small random one first. Adapters are put beside the model
//! that they name.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;

use empg_llm::{
    ADAPTER_CONFIG_FILE, CONFIG_FILE, ChatMl, Dtype, Model, ModelConfig, Names, PackedBatch, Role,
    Target, Workspace, adapter_base, load_adapters, load_model, save_model, tiny_tokenizer,
};

const TEXTS: [&str; 8] = [
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see a cabinet 2, a cabinet 1, and a fridge 1.\n\nYour task is to: put a clean mug in cabinet.",
    "You arrive at loc 12. On the cabinet 2, you see a mug 2, and a knife 1.",
    "The fridge 1 is open. In it, you see nothing.",
    "You clean the mug 2 using the fridge 1.",
    "Nothing happens.",
    "take zebra 7 from cabinet 1, 42",
    "Ünïcödé \u{1F600} text",
    "go to cabinet 1",
];

fn random(dir: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let names = [("cabinet", 3), ("fridge", 1), ("knife", 2), ("mug", 3)];
    let tokenizer = tiny_tokenizer(&Names { things: &names, ..Names::default() })?;
    let config = ModelConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 48,
        intermediate_size: 96,
        num_layers: 3,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 12,
        rope_theta: 10_000.0,
        rope_scaling: None,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
        qkv_bias: false,
        qk_norm: false,
        max_position_embeddings: 256,
    };
    let mut model = Model::init(config, 11)?;
    // Far from uniform, so that a mistake shows.
    model.params.iter_mut().for_each(|p| *p *= 2.0);
    save_model(dir, &model, &tokenizer, Dtype::F32)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: checkpoint_probe DIR")?);
    let adapted = dir.join(ADAPTER_CONFIG_FILE).exists();
    if !adapted && !dir.join(CONFIG_FILE).exists() {
        random(&dir)?;
    }
    let base = if adapted { adapter_base(&dir)?.model.map(PathBuf::from) } else { None };
    let (mut model, tokenizer) = load_model(base.as_deref().unwrap_or(&dir))?;
    if adapted {
        model.adapters = Some(load_adapters(&dir, &model.config)?);
    }
    let chat = ChatMl::new(&tokenizer)?;
    let mut texts = Vec::new();
    for text in TEXTS {
        texts.push(serde_json::json!({ "text": text, "tokens": tokenizer.encode(text)? }));
    }
    let mut conversation = chat.turn(&tokenizer, Role::System, "look at mug")?;
    conversation.extend(chat.first_turn(&tokenizer, TEXTS[0])?);
    conversation.extend(tokenizer.encode(TEXTS[7])?);
    conversation.push(chat.end_of_turn());
    conversation.extend(chat.next_turn(&tokenizer, true, TEXTS[1])?);
    let mut batch = PackedBatch::default();
    batch.push(&conversation, None);
    batch.targets = conversation
        .iter()
        .enumerate()
        .skip(1)
        .map(|(i, &token)| Target { row: i - 1, token })
        .collect();
    let scores = model.score(&batch, 1.0, &mut Workspace::new())?;
    let probe = serde_json::json!({
        "texts": texts,
        "messages": [
            { "role": "system", "content": "look at mug" },
            { "role": "user", "content": TEXTS[0] },
            { "role": "assistant", "content": TEXTS[7] },
            { "role": "user", "content": TEXTS[1] },
        ],
        "tokens": conversation,
        "logprobs": scores.iter().map(|s| s.logprob).collect::<Vec<_>>(),
        "entropies": scores.iter().map(|s| s.entropy).collect::<Vec<_>>(),
    });
    let path = dir.join("probe.json");
    std::fs::write(&path, format!("{probe:#}\n"))?;
    println!("{}", path.display());
    Ok(())
}
