//! Faulty batches are refused with the place of the fault.

use empg_llm::{
    EngineError, Model, ModelConfig, PackedBatch, PackedSegment, TargetGrad, Workspace,
};

use crate::shapes::{family, small};

fn score(change: impl FnOnce(&mut PackedBatch)) -> EngineError {
    let model = Model::init(small(), 0).expect("model");
    let mut batch = family(29);
    change(&mut batch);
    model.score(&batch, 1.0, &mut Workspace::new()).expect_err("refused")
}

#[test]
fn batches() {
    assert_eq!(score(|b| *b = PackedBatch::default()), EngineError::EmptyBatch);
    assert!(matches!(score(|b| b.tokens[5] = 29), EngineError::Token { index: 5, token: 29, .. }));
    assert!(matches!(
        score(|b| b.positions[7] = 256),
        EngineError::Position { row: 7, position: 256, max: 256 }
    ));
    assert!(matches!(
        score(|b| {
            b.positions.pop();
        }),
        EngineError::PositionCount { .. }
    ));
    assert!(matches!(
        score(|b| b.segments[1].range.start += 1),
        EngineError::SegmentRange { segment: 1, .. }
    ));
    assert!(matches!(
        score(|b| b.segments[5].range.end += 1),
        EngineError::SegmentRange { segment: 5, .. }
    ));
    assert!(matches!(
        score(|b| {
            b.segments.pop();
        }),
        EngineError::Uncovered { .. }
    ));
    for (parent, parent_len) in [(Some(1), 1), (Some(0), 22), (Some(0), 0), (None, 3)] {
        let range = 21..30;
        let segment = PackedSegment { range, parent, parent_len };
        assert!(matches!(
            score(|b| b.segments[1] = segment),
            EngineError::Parent { segment: 1, .. }
        ));
    }
    assert!(matches!(
        score(|b| b.targets[2].row = 91),
        EngineError::TargetRow { target: 2, row: 91, rows: 91 }
    ));
    assert!(matches!(
        score(|b| b.targets[2].token = 29),
        EngineError::Token { place: "target", index: 2, .. }
    ));
    let model = Model::init(small(), 0).expect("model");
    let mut batch = family(29);
    batch.targets.clear();
    assert_eq!(model.score(&batch, 1.0, &mut Workspace::new()), Ok(Vec::new()));
}

#[test]
fn numbers() {
    let mut model = Model::init(small(), 0).expect("model");
    let batch = family(29);
    let mut ws = Workspace::new();
    for t in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = model.score(&batch, t, &mut ws).expect_err("refused");
        assert!(matches!(error, EngineError::Temperature(_)));
    }
    let mut grads = vec![0.0; model.layout.len()];
    let nan = TargetGrad { dlogprob: f32::NAN, dentropy: 0.0 };
    let error = model.forward_backward(&batch, 1.0, &mut |_, _| nan, &mut grads, &mut ws);
    assert!(matches!(error, Err(EngineError::NonFiniteLoss { target: 0, .. })));
    let error = model.forward_backward(&batch, 1.0, &mut |_, _| nan, &mut grads[1..], &mut ws);
    assert!(matches!(error, Err(EngineError::BufferLength { .. })));

    let mut bad = model.params.clone();
    let range =
        model.layout.find("model.layers.1.mlp.up_proj.weight").expect("there").range.clone();
    bad[range.start + 4] = f32::NAN;
    let error = Model::from_params(small(), bad).expect_err("refused");
    let tensor = "model.layers.1.mlp.up_proj.weight".to_owned();
    assert_eq!(error, EngineError::NonFiniteParameter { tensor, element: 4 });
    model.params[range.start] = f32::NAN;
    assert!(matches!(model.score(&batch, 1.0, &mut ws), Err(EngineError::NonFinite { .. })));

    let short = vec![0.0; 3];
    let error = Model::from_params(small(), short).expect_err("refused");
    assert!(matches!(error, EngineError::BufferLength { got: 3, .. }));
    let odd = ModelConfig { head_dim: 5, ..small() };
    assert!(matches!(Model::init(odd, 0), Err(EngineError::Config(_))));
}
