//! Tokens per second of the decoder and of the tokenizer, on one thread.
//!
//! `cargo bench -p empg-llm --bench decode`
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use empg::TokenId;
use empg_llm::{ChatMl, Decoder, Model, ModelConfig, Names, SamplingParams, tiny_tokenizer};

fn config(hidden: usize, layers: usize, heads: usize, kv_heads: usize) -> ModelConfig {
    ModelConfig {
        vocab_size: 1024,
        hidden_size: hidden,
        intermediate_size: hidden * 3,
        num_layers: layers,
        num_heads: heads,
        num_kv_heads: kv_heads,
        head_dim: hidden / heads,
        rope_theta: 10_000.0,
        rope_scaling: None,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
        qkv_bias: false,
        qk_norm: false,
        max_position_embeddings: 2048,
    }
}

/// Median seconds of a few runs.
fn median(mut run: impl FnMut() -> Duration) -> f64 {
    let mut times: Vec<f64> = (0..5).map(|_| run().as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn decoder_speed(name: &str, config: &ModelConfig, context: usize) {
    const BATCH: usize = 64;
    let model = Model::init(config.clone(), 1).expect("valid");
    let prompt: Vec<TokenId> = (0..context as u32).map(|i| (i * 37) % 1024).collect();
    let one = SamplingParams { max_tokens: 1, ..SamplingParams::default() };
    let many = SamplingParams { max_tokens: 32, ..SamplingParams::default() };
    let mut decoder = Decoder::new(&model, 2048).expect("fits");
    let prefill = median(|| {
        let seqs: Vec<_> = (0..BATCH).map(|i| decoder.open(&prompt[i..]).expect("opens")).collect();
        let requests: Vec<_> = seqs.iter().zip(0..).map(|(s, i)| (*s, i)).collect();
        let start = Instant::now();
        decoder.generate(&requests, &one).expect("generates");
        let time = start.elapsed();
        for seq in seqs {
            decoder.close(seq);
        }
        time
    });
    let decode = median(|| {
        let seqs: Vec<_> = (0..BATCH).map(|i| decoder.open(&prompt[i..]).expect("opens")).collect();
        let requests: Vec<_> = seqs.iter().zip(0..).map(|(s, i)| (*s, i)).collect();
        decoder.generate(&requests, &one).expect("generates");
        let start = Instant::now();
        decoder.generate(&requests, &many).expect("generates");
        let time = start.elapsed();
        for seq in seqs {
            decoder.close(seq);
        }
        time
    });
    let prefilled: usize = (0..BATCH).map(|i| context - i).sum();
    println!(
        "{name}: {:.2} M parameters, prefill {:.0} tokens/s, decode at {BATCH} x ~{context} {:.0} tokens/s",
        model.params.len() as f64 / 1e6,
        prefilled as f64 / prefill,
        (BATCH * 32) as f64 / decode,
    );
}

fn tokenizer_speed() {
    let names: Vec<(String, u32)> =
        (0..60).map(|i| (format!("thing{}", (b'a' + i % 26) as char), 9)).collect();
    let names: Vec<(&str, u32)> = names.iter().map(|(n, m)| (n.as_str(), *m)).collect();
    let tokenizer = tiny_tokenizer(&Names { things: &names, ..Names::default() }).expect("builds");
    let chat = ChatMl::new(&tokenizer).expect("has ChatML");
    let texts = [
        "You arrive at thinga 2. On the thinga 2, you see a thingb 1, a thingc 3, and a thingd 1.",
        "You arrive at thingx 4. The thingx 4 is closed.",
        "You open the thingx 4. The thingx 4 is open. In it, you see nothing.",
        "You pick up the thingb 1 from the thinga 2.",
        "Nothing happens.",
    ];
    let mut tokens = 0;
    let seconds = median(|| {
        tokens = 0;
        let start = Instant::now();
        for _ in 0..2000 {
            for text in texts {
                tokens += chat.next_turn(&tokenizer, true, text).expect("encodes").len();
            }
        }
        start.elapsed()
    });
    println!(
        "tokenizer: {:.0} observations/s, {:.2} M tokens/s",
        (2000 * texts.len()) as f64 / seconds,
        tokens as f64 / seconds / 1e6
    );
}

fn main() {
    tokenizer_speed();
    for context in [100, 300] {
        decoder_speed("128 x 4, 4 heads", &config(128, 4, 4, 4), context);
        decoder_speed("128 x 4, 4 heads on 2", &config(128, 4, 4, 2), context);
        decoder_speed("192 x 5, 6 heads on 2", &config(192, 5, 6, 2), context);
    }
    decoder_speed("256 x 6, 8 heads on 2", &config(256, 6, 8, 2), 300);
}
