//! Threads, gradient checkpointing and bfloat16 give the same training pass, each to its own
//! precision.

use empg::TokenScore;
use empg_llm::{Model, ModelConfig, PackedBatch, Precision, Target, TargetGrad, Workspace};

use crate::shapes::{small, tokens};

/// Odd sizes, heads of several widths, more rows than a tile and than the head takes at once.
fn setting() -> (Model, PackedBatch) {
    let config = ModelConfig {
        vocab_size: 61,
        hidden_size: 45,
        intermediate_size: 77,
        num_heads: 6,
        num_kv_heads: 3,
        qkv_bias: true,
        qk_norm: false,
        max_position_embeddings: 700,
        ..small()
    };
    let mut batch = PackedBatch::default();
    let root = batch.push(&tokens(310, 61, 1), None);
    batch.push(&tokens(150, 61, 2), Some((root, 310)));
    batch.push(&tokens(67, 61, 3), Some((root, 299)));
    batch.push(&tokens(200, 61, 3), None);
    let rows = (0..batch.tokens.len()).filter(|r| r % 5 != 0);
    batch.targets = rows.map(|row| Target { row, token: (row % 61) as u32 }).collect();
    (Model::init(config, 3).expect("model"), batch)
}

/// What the loss asks of a target.
fn pull(target: usize) -> TargetGrad {
    let i = target as f32;
    TargetGrad { dlogprob: (i + 0.5).sin(), dentropy: 0.3 * i.cos() }
}

fn pass(model: &Model, batch: &PackedBatch, mut ws: Workspace) -> (Vec<TokenScore>, Vec<f32>) {
    let mut grads = vec![0.0; model.layout.len()];
    let mut loss = |i: usize, _| pull(i);
    // Twice: buffers that were used before must not show.
    for _ in 0..2 {
        grads.fill(0.0);
        model.forward_backward(batch, 0.9, &mut loss, &mut grads, &mut ws).expect("a pass");
    }
    (model.score(batch, 0.9, &mut ws).expect("scores"), grads)
}

/// The largest deviation of scores, and of gradients relative to their tensor's length.
fn distance(
    model: &Model,
    a: &(Vec<TokenScore>, Vec<f32>),
    b: &(Vec<TokenScore>, Vec<f32>),
) -> (f32, f64) {
    let score = |(a, b): (&TokenScore, &TokenScore)| {
        (a.logprob - b.logprob).abs().max((a.entropy - b.entropy).abs())
    };
    let scores = a.0.iter().zip(&b.0).map(score).fold(0.0, f32::max);
    let tensors = model.layout.entries().iter().map(|spec| {
        let (a, b) = (&a.1[spec.range.clone()], &b.1[spec.range.clone()]);
        let square = |x: f32| f64::from(x) * f64::from(x);
        let apart: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
        let length: f64 = a.iter().map(|a| square(*a)).sum();
        assert!(length > 0.0, "{}: no gradient", spec.name);
        (apart / length).sqrt()
    });
    (scores, tensors.fold(0.0, f64::max))
}

#[test]
fn threads_change_the_last_bits_of_gradients_only() {
    let (model, batch) = setting();
    let one = pass(&model, &batch, Workspace::new());
    for precision in [Precision::F32, Precision::Bf16] {
        let one = pass(&model, &batch, Workspace::new().precision(precision));
        let two = pass(&model, &batch, Workspace::with_threads(2).precision(precision));
        assert_eq!(one.0, two.0);
        let (_, gradients) = distance(&model, &one, &two);
        let bound = if precision == Precision::F32 { 2e-5 } else { 2e-2 };
        assert!(gradients < bound, "{precision:?}: {gradients}");
        // The same threads, the same bits.
        let again = pass(&model, &batch, Workspace::with_threads(2).precision(precision));
        assert_eq!(two.1, again.1);
    }
    let three = pass(&model, &batch, Workspace::with_threads(3));
    assert!(distance(&model, &one, &three).1 < 2e-5);
}

#[test]
fn checkpointing_changes_nothing() {
    let (model, batch) = setting();
    for threads in [1, 2] {
        let kept = pass(&model, &batch, Workspace::with_threads(threads));
        let again = pass(&model, &batch, Workspace::with_threads(threads).checkpointing(true));
        assert_eq!(kept, again);
    }
}

#[test]
fn bfloat16_stays_near_f32() {
    let (model, batch) = setting();
    let full = pass(&model, &batch, Workspace::new());
    let half = pass(&model, &batch, Workspace::new().precision(Precision::Bf16));
    let (scores, gradients) = distance(&model, &full, &half);
    assert!(scores > 0.0 && scores < 0.02, "{scores}");
    assert!(gradients < 0.05, "{gradients}");
}

/// A step of training moves a weight by much less than bfloat16 numbers lie apart.
#[test]
fn bfloat16_sees_small_steps_from_weights_that_are_bfloat16() {
    let (mut model, batch) = setting();
    for weight in &mut model.params {
        *weight = half::bf16::from_f32(*weight).to_f32();
    }
    let workspace = |precision| Workspace::new().precision(precision);
    let (_, gradient) = pass(&model, &batch, workspace(Precision::F32));
    let mut moved = model.clone();
    for (weight, gradient) in moved.params.iter_mut().zip(&gradient) {
        *weight -= 0.001 * weight.abs() * gradient.signum();
    }
    let change = |precision| {
        let total = |model: &Model| -> f64 {
            let scores = model.score(&batch, 0.9, &mut workspace(precision)).expect("scores");
            let value = |(i, score): (usize, &TokenScore)| {
                let grad = pull(i);
                f64::from(grad.dlogprob * score.logprob + grad.dentropy * score.entropy)
            };
            scores.iter().enumerate().map(value).sum()
        };
        total(&moved) - total(&model)
    };
    let (full, half) = (change(Precision::F32), change(Precision::Bf16));
    assert!((half / full - 1.0).abs() < 0.3, "{half} instead of {full}");
}
