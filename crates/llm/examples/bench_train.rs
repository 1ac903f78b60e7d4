//! Tokens per second of a training pass on one thread.
//!
//! `cargo run --release -p empg-llm --example bench_train -- [hidden] [layers] [rows] [segment]`

use std::time::Instant;

use empg_llm::{Model, ModelConfig, PackedBatch, Target, TargetGrad, Workspace};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let mut next = |default: usize| arguments.next().unwrap_or(Ok(default));
    let (hidden, layers, rows, segment) = (next(128)?, next(4)?, next(4096)?, next(400)?);
    let config = ModelConfig {
        vocab_size: 1024,
        hidden_size: hidden,
        intermediate_size: hidden * 3,
        num_layers: layers,
        num_heads: hidden / 32,
        num_kv_heads: hidden / 64,
        head_dim: 32,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: true,
        qkv_bias: false,
        max_position_embeddings: 4096,
    };
    let model = Model::init(config, 1)?;
    let mut batch = PackedBatch::default();
    while batch.tokens.len() < rows {
        let start = batch.tokens.len();
        let tokens: Vec<u32> = (0..segment).map(|i| ((start + i) * 37 % 1024) as u32).collect();
        batch.push(&tokens, None);
        // About the share of sampled tokens in an episode.
        for row in (start + 20..start + segment - 6).step_by(30) {
            batch.targets.extend((0..5).map(|i| Target { row: row + i, token: 7 }));
        }
    }
    let mut ws = Workspace::new();
    let mut grads = vec![0.0; model.layout.len()];
    let mut best = [f64::INFINITY; 2];
    for _ in 0..8 {
        let start = Instant::now();
        model.score(&batch, 1.0, &mut ws)?;
        best[0] = best[0].min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let grad = TargetGrad { dlogprob: 1e-3, dentropy: 1e-4 };
        model.forward_backward(&batch, 1.0, &mut |_, _| grad, &mut grads, &mut ws)?;
        best[1] = best[1].min(start.elapsed().as_secs_f64());
    }
    let n = batch.tokens.len() as f64;
    eprintln!(
        "{} parameters, {n} rows, {} targets: forward {:.0} tokens/s, forward and backward {:.0} tokens/s",
        model.params.len(),
        batch.targets.len(),
        n / best[0],
        n / best[1]
    );
    Ok(())
}
