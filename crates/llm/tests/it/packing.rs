//! A pack gives what its contexts give one by one.

use empg_llm::{Model, ModelConfig, PackedBatch, Target, TargetGrad, Workspace};

use crate::shapes::{family, small, tokens};

/// Every root-to-leaf context of the pack as a batch of its own, with the targets that its own
/// segment carries and their indices.
fn unpacked(batch: &PackedBatch) -> Vec<(PackedBatch, Vec<usize>)> {
    let context = |mut segment: usize| {
        let mut parts = vec![batch.segments[segment].range.clone()];
        while let Some(parent) = batch.segments[segment].parent {
            let start = batch.segments[parent].range.start;
            parts.push(start..start + batch.segments[segment].parent_len);
            segment = parent;
        }
        parts.reverse();
        parts
    };
    (0..batch.segments.len())
        .map(|s| {
            let parts = context(s);
            let all: Vec<u32> =
                parts.iter().flat_map(|r| batch.tokens[r.clone()].iter().copied()).collect();
            let own = batch.segments[s].range.clone();
            let prefix = all.len() - own.len();
            let mut single = PackedBatch::default();
            single.push(&all, None);
            let mut indices = Vec::new();
            for (i, t) in batch.targets.iter().enumerate() {
                if own.contains(&t.row) {
                    indices.push(i);
                    single.targets.push(Target { row: prefix + t.row - own.start, token: t.token });
                }
            }
            (single, indices)
        })
        .collect()
}

fn gradient(i: usize) -> TargetGrad {
    TargetGrad { dlogprob: (i as f32 + 0.5).sin(), dentropy: (i as f32).cos() * 0.3 }
}

fn check(config: ModelConfig, batch: &PackedBatch) {
    let model = Model::init(config, 11).expect("model");
    let mut ws = Workspace::new();
    let mut packed = vec![0.0; model.layout.len()];
    let scores = model
        .forward_backward(batch, 0.9, &mut |i, _| gradient(i), &mut packed, &mut ws)
        .expect("packed");
    let mut separate = vec![0.0; model.layout.len()];
    for (single, indices) in unpacked(batch) {
        let alone = model
            .forward_backward(
                &single,
                0.9,
                &mut |i, _| gradient(indices[i]),
                &mut separate,
                &mut ws,
            )
            .expect("alone");
        for (i, score) in indices.iter().zip(alone) {
            assert!((score.logprob - scores[*i].logprob).abs() < 1e-5, "{score:?}");
            assert!((score.entropy - scores[*i].entropy).abs() < 1e-5, "{score:?}");
        }
    }
    for spec in model.layout.entries() {
        let (a, b) = (&packed[spec.range.clone()], &separate[spec.range.clone()]);
        let largest = b.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-5 * (1.0 + largest), "{}: {a} against {b}", spec.name);
        }
    }
}

#[test]
fn shared_prefixes() {
    check(small(), &family(29));
    check(ModelConfig { qk_norm: true, ..small() }, &family(29));
    check(ModelConfig { qkv_bias: true, tie_word_embeddings: false, ..small() }, &family(29));
}

#[test]
fn segments_longer_than_a_block_and_a_tile() {
    let config = ModelConfig {
        hidden_size: 32,
        head_dim: 16,
        max_position_embeddings: 600,
        num_kv_heads: 4,
        ..small()
    };
    let mut batch = PackedBatch::default();
    let root = batch.push(&tokens(300, 29, 1), None);
    batch.push(&tokens(150, 29, 2), Some((root, 300)));
    batch.push(&tokens(67, 29, 3), Some((root, 299)));
    batch.push(&tokens(200, 29, 3), None);
    batch.targets = (0..batch.tokens.len())
        .filter(|r| r % 3 == 0 || *r > 680)
        .map(|row| Target { row, token: (row % 29) as u32 })
        .collect();
    check(config, &batch);
}

#[test]
fn a_reused_workspace_changes_nothing() {
    let model = Model::init(small(), 2).expect("model");
    let batch = family(29);
    let mut tiny = PackedBatch::default();
    tiny.push(&[1, 2], None);
    tiny.targets.push(Target { row: 1, token: 3 });
    let mut ws = Workspace::new();
    let first = model.score(&batch, 1.0, &mut ws).expect("scores");
    model.score(&tiny, 1.0, &mut ws).expect("scores");
    assert_eq!(model.score(&batch, 1.0, &mut ws).expect("scores"), first);
    let two = model.score(&batch, 1.0, &mut Workspace::with_threads(2)).expect("scores");
    for (a, b) in first.iter().zip(two) {
        assert!((a.logprob - b.logprob).abs() < 1e-5);
    }
}
