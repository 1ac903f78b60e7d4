//! Tokens per second of a training pass.
//!
//! `cargo run --release -p empg-llm --example bench_train -- [tiny|smollm] [rows] [segment] [threads] [f32|bf16] [passes]`

use std::time::Instant;

use empg_llm::{Model, ModelConfig, PackedBatch, Precision, Target, TargetGrad, Workspace};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| {
        arguments.get(i).map_or(Ok(default), |a: &String| a.parse::<usize>())
    };
    let small = arguments.first().is_none_or(|a| a == "tiny");
    let (rows, segment, threads) =
        (number(1, if small { 4096 } else { 2048 })?, number(2, 400)?, number(3, 1)?);
    let bf16 = arguments.get(4).is_some_and(|a| a == "bf16");
    let config = if small {
        ModelConfig {
            vocab_size: 1024,
            hidden_size: 128,
            intermediate_size: 384,
            num_layers: 4,
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 32,
            rope_theta: 10_000.0,
            rope_scaling: None,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            qkv_bias: false,
            qk_norm: false,
            max_position_embeddings: 4096,
        }
    } else {
        ModelConfig {
            vocab_size: 49_152,
            hidden_size: 576,
            intermediate_size: 1536,
            num_layers: 30,
            num_heads: 9,
            num_kv_heads: 3,
            head_dim: 64,
            rope_theta: 100_000.0,
            rope_scaling: None,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
            qkv_bias: false,
            qk_norm: false,
            max_position_embeddings: 8192,
        }
    };
    let model = Model::init(config, 1)?;
    let mut batch = PackedBatch::default();
    while batch.tokens.len() < rows {
        let start = batch.tokens.len();
        let tokens: Vec<u32> = (0..segment).map(|i| ((start + i) * 37 % 1024) as u32).collect();
        batch.push(&tokens, None);
        // About the share of sampled tokens in an episode, or all.
        if small {
            for row in (start + 20..start + segment - 6).step_by(30) {
                batch.targets.extend((0..5).map(|i| Target { row: row + i, token: 7 }));
            }
        } else {
            batch.targets.extend((start..start + segment).map(|row| Target { row, token: 7 }));
        }
    }
    let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
    let mut ws = Workspace::with_threads(threads).precision(precision);
    let mut grads = vec![0.0; model.layout.len()];
    let mut best = [f64::INFINITY; 2];
    for _ in 0..number(5, if small { 8 } else { 3 })? {
        let start = Instant::now();
        model.score(&batch, 1.0, &mut ws)?;
        best[0] = best[0].min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let grad = TargetGrad { dlogprob: 1e-3, dentropy: 1e-4 };
        model.forward_backward(&batch, 1.0, &mut |_, _| grad, &mut grads, &mut ws)?;
        best[1] = best[1].min(start.elapsed().as_secs_f64());
    }
    let n = batch.tokens.len() as f64;
    let flop = 6e-9 * model.params.len() as f64 * n;
    eprintln!(
        "{} parameters, {n} rows, {} targets: forward {:.0} tokens/s, forward and backward {:.0} tokens/s ({:.0} GFLOP/s)",
        model.params.len(),
        batch.targets.len(),
        n / best[0],
        n / best[1],
        flop / best[1],
    );
    Ok(())
}
