//! Against PyTorch: logits, log-probabilities, entropies, every gradient, ten training losses.
//! `tools/llm_goldens.py` writes the files.

use std::{collections::HashMap, fs, path::Path};

use empg_llm::{Model, ModelConfig, PackedBatch, Target, TargetGrad, Workspace};
use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) config: ModelConfig,
    tokens: Vec<Vec<u32>>,
    pub(crate) temperature: f32,
    pub(crate) coefficient_a: Vec<f64>,
    pub(crate) coefficient_b: Vec<f64>,
    loss: f64,
    adamw: AdamW,
    training_losses: Vec<f64>,
}

#[derive(Deserialize)]
struct AdamW {
    lr: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
}

pub(crate) type Tensors = HashMap<String, Vec<f32>>;

pub(crate) fn read(name: &str) -> (Golden, Tensors) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let text = fs::read_to_string(folder.join(format!("{name}.json"))).expect("golden text");
    let tensors = tensors(&folder.join(format!("{name}.safetensors")));
    (serde_json::from_str(&text).expect("golden json"), tensors)
}

pub(crate) fn tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).expect("golden tensors");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    file.tensors()
        .into_iter()
        .map(|(key, view)| {
            let (numbers, _) = view.data().as_chunks::<4>();
            (key, numbers.iter().map(|b| f32::from_le_bytes(*b)).collect())
        })
        .collect()
}

pub(crate) fn model(golden: &Golden, tensors: &Tensors) -> Model {
    let mut model = Model::init(golden.config.clone(), 0).expect("model");
    let layout = model.layout.clone();
    for spec in layout.entries() {
        model.params[spec.range.clone()].copy_from_slice(&tensors[&format!("param.{}", spec.name)]);
    }
    model
}

/// Every sequence with its next tokens as targets.
pub(crate) fn batch(golden: &Golden) -> PackedBatch {
    let mut batch = PackedBatch::default();
    for tokens in &golden.tokens {
        let start = batch.tokens.len();
        batch.push(tokens, None);
        for (i, &token) in tokens.iter().enumerate().skip(1) {
            batch.targets.push(Target { row: start + i - 1, token });
        }
    }
    batch
}

pub(crate) fn close(what: &str, got: f64, want: f64, bound: f64) {
    assert!((got - want).abs() <= bound, "{what}: {got}, PyTorch has {want}");
}

fn check(name: &str) {
    let (golden, tensors) = read(name);
    let mut model = model(&golden, &tensors);
    let mut ws = Workspace::new();
    let train = batch(&golden);
    let vocab = golden.config.vocab_size;

    // Logits up to the constant that a softmax does not see: all log-probabilities of all rows.
    let mut every = train.clone();
    every.targets = (0..every.tokens.len())
        .flat_map(|row| (0..vocab).map(move |t| Target { row, token: t as u32 }))
        .collect();
    let scores = model.score(&every, 1.0, &mut ws).expect("scores");
    for (row, logits) in scores.chunks(vocab).zip(tensors["logits"].chunks(vocab)) {
        let z: f64 = logits.iter().map(|z| f64::from(*z).exp()).sum::<f64>().ln();
        for (score, logit) in row.iter().zip(logits) {
            close("logit", f64::from(score.logprob), f64::from(*logit) - z, 1e-4);
        }
    }

    let count = train.targets.len() as f64;
    let gradient = |i: usize| TargetGrad {
        dlogprob: (-golden.coefficient_a[i] / count) as f32,
        dentropy: (-golden.coefficient_b[i] / count) as f32,
    };
    let mut grads = vec![0.0; model.layout.len()];
    let scores = model
        .forward_backward(&train, golden.temperature, &mut |i, _| gradient(i), &mut grads, &mut ws)
        .expect("gradients");
    let mut loss = 0.0;
    for (i, score) in scores.iter().enumerate() {
        let (logprob, entropy) = (f64::from(score.logprob), f64::from(score.entropy));
        close("log-probability", logprob, f64::from(tensors["logprob"][i]), 1e-4);
        close("entropy", entropy, f64::from(tensors["entropy"][i]), 1e-4);
        loss -= (golden.coefficient_a[i] * logprob + golden.coefficient_b[i] * entropy) / count;
    }
    close("loss", loss, golden.loss, 1e-4);
    for spec in model.layout.entries() {
        let want = &tensors[&format!("grad.{}", spec.name)];
        let largest = want.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        for (g, w) in grads[spec.range.clone()].iter().zip(want) {
            close(&spec.name, f64::from(*g), f64::from(*w), 1e-4 * f64::from(largest));
        }
    }

    let mut moments = vec![(0.0f64, 0.0f64); model.params.len()];
    for (step, want) in golden.training_losses.iter().enumerate() {
        grads.fill(0.0);
        let even = TargetGrad { dlogprob: (-1.0 / count) as f32, dentropy: 0.0 };
        let scores = model
            .forward_backward(&train, 1.0, &mut |_, _| even, &mut grads, &mut ws)
            .expect("gradients");
        let loss = -scores.iter().map(|s| f64::from(s.logprob)).sum::<f64>() / count;
        close("training loss", loss, *want, 1e-4 * want.abs().max(1.0));
        golden.adamw.step(step as i32 + 1, &mut model.params, &grads, &mut moments);
    }
}

impl AdamW {
    fn step(&self, t: i32, params: &mut [f32], grads: &[f32], moments: &mut [(f64, f64)]) {
        let (b1, b2) = self.betas;
        for ((p, g), (m, v)) in params.iter_mut().zip(grads).zip(moments) {
            let g = f64::from(*g);
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            let (m, v) = (*m / (1.0 - b1.powi(t)), *v / (1.0 - b2.powi(t)));
            let decayed = f64::from(*p) * (1.0 - self.lr * self.weight_decay);
            *p = (decayed - self.lr * m / (v.sqrt() + self.eps)) as f32;
        }
    }
}

#[test]
fn llama() {
    check("llama");
}

#[test]
fn llama_with_scaled_rotary_frequencies() {
    check("llama3");
}

#[test]
fn qwen3_with_normalised_heads() {
    check("qwen3");
}

#[test]
fn qwen2_with_bias() {
    check("qwen2");
}
