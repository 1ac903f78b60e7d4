//! Gradients of every tensor against finite differences.

use empg_llm::{Model, ModelConfig, PackedBatch, Target, TargetGrad, Workspace};

use crate::shapes::{family, small};

/// L = Σ a_i·logp_i + b_i·H_i, in f64, with fixed coefficients.
fn coefficients(i: usize) -> TargetGrad {
    TargetGrad {
        dlogprob: (i as f32 * 1.3 + 0.4).sin(),
        dentropy: 0.5 * (i as f32 * 0.7 + 1.0).cos(),
    }
}

fn loss(model: &Model, batch: &PackedBatch, temperature: f32, ws: &mut Workspace) -> f64 {
    let scores = model.score(batch, temperature, ws).expect("scores");
    let terms = scores.iter().enumerate().map(|(i, s)| {
        let c = coefficients(i);
        f64::from(c.dlogprob) * f64::from(s.logprob) + f64::from(c.dentropy) * f64::from(s.entropy)
    });
    terms.sum()
}

fn check(config: ModelConfig, temperature: f32) {
    let batch = family(config.vocab_size);
    let mut model = Model::init(config, 7).expect("model");
    // Away from the initial values, where norms are 1 and biases 0 and mistakes could hide.
    for (i, p) in model.params.iter_mut().enumerate() {
        *p = *p * 1.5 + 0.1 * ((i as f32) * 0.37).sin();
    }
    let mut ws = Workspace::new();
    let mut grads = vec![0.0; model.layout.len()];
    let scores = model
        .forward_backward(&batch, temperature, &mut |i, _| coefficients(i), &mut grads, &mut ws)
        .expect("gradients");
    assert_eq!(scores, model.score(&batch, temperature, &mut ws).expect("scores"));

    let layout = model.layout.clone();
    for spec in layout.entries() {
        // A direction per tensor: all elements at once, so that rounding matters less, and a few
        // single elements.
        let len = spec.range.len();
        let size: f64 =
            grads[spec.range.clone()].iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(size > 1e-4, "{}: gradient vanishes", spec.name);
        let mut directions: Vec<Vec<(usize, f32)>> = vec![
            (0..len).map(|i| (i, ((i * 7 % 11) as f32 - 5.0) / 5.0)).collect(),
            (0..len).map(|i| (i, (i as f32 * 2.1).cos())).collect(),
        ];
        let largest = (0..len)
            .max_by(|&a, &b| {
                let g = |i: usize| grads[spec.range.start + i].abs();
                g(a).total_cmp(&g(b))
            })
            .expect("not empty");
        directions.push(vec![(largest, 1.0)]);
        for direction in directions {
            let norm = direction.iter().map(|d| d.1 * d.1).sum::<f32>().sqrt();
            let h = 4e-3 / norm;
            let base = model.params.clone();
            let mut at = |step: f32| {
                for (i, d) in &direction {
                    model.params[spec.range.start + i] = base[spec.range.start + i] + step * d;
                }
                let value = loss(&model, &batch, temperature, &mut ws);
                model.params.copy_from_slice(&base);
                value
            };
            // Fourth order, so that h can be large enough for f32.
            let numeric =
                (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * f64::from(h));
            let analytic: f64 = direction
                .iter()
                .map(|(i, d)| f64::from(grads[spec.range.start + i]) * f64::from(*d))
                .sum();
            let scale = size * f64::from(norm);
            assert!(
                (numeric - analytic).abs() < 3e-3 * scale.max(0.3 * f64::from(norm)),
                "{}: {analytic} against {numeric} (scale {scale})",
                spec.name
            );
        }
    }
}

#[test]
fn tied() {
    check(small(), 1.0);
}

#[test]
fn untied_with_bias_and_temperature() {
    check(ModelConfig { tie_word_embeddings: false, qkv_bias: true, ..small() }, 0.7);
}

#[test]
fn normalised_heads() {
    check(ModelConfig { qk_norm: true, head_dim: 6, ..small() }, 0.9);
}

#[test]
fn one_key_head_and_a_head_width_of_its_own() {
    check(ModelConfig { num_kv_heads: 1, head_dim: 6, num_layers: 1, ..small() }, 1.6);
}

#[test]
fn gradients_are_added() {
    let model = Model::init(small(), 1).expect("model");
    let batch = family(model.config.vocab_size);
    let mut ws = Workspace::new();
    let mut run = |grads: &mut [f32]| {
        model
            .forward_backward(&batch, 1.0, &mut |i, _| coefficients(i), grads, &mut ws)
            .expect("gradients");
    };
    let mut once = vec![0.0; model.layout.len()];
    run(&mut once);
    let mut twice = vec![0.0; model.layout.len()];
    run(&mut twice);
    assert!(once.iter().zip(&twice).all(|(a, b)| a.to_bits() == b.to_bits()), "same bits");
    run(&mut twice);
    for (a, b) in once.iter().zip(&twice) {
        assert!((2.0 * a - b).abs() <= 1e-5 + 1e-4 * b.abs());
    }
}

#[test]
fn several_targets_on_a_row_and_their_order() {
    let model = Model::init(small(), 3).expect("model");
    let mut batch = PackedBatch::default();
    batch.push(&[1, 2, 3], None);
    let target = |row, token| Target { row, token };
    batch.targets = vec![target(2, 4), target(0, 2), target(2, 9), target(2, 4)];
    let mut seen = Vec::new();
    let mut grads = vec![0.0; model.layout.len()];
    let mut ws = Workspace::new();
    let scores = model
        .forward_backward(
            &batch,
            1.0,
            &mut |i, score| {
                seen.push((i, score));
                TargetGrad { dlogprob: 1.0, dentropy: 0.0 }
            },
            &mut grads,
            &mut ws,
        )
        .expect("gradients");
    assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [1, 0, 2, 3]);
    assert!(seen.iter().all(|(i, s)| scores[*i] == *s));
    assert_eq!(scores[0], scores[3]);
    assert_ne!(scores[0].logprob, scores[2].logprob);
}
