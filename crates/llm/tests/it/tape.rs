//! Gradients from what sampling kept against those of a forward pass of their own.

use std::sync::Arc;

use empg::{TokenId, TokenScore};
use empg_llm::{
    DecodeError, DecodeWeights, Decoder, EngineError, Floats, LoraConfig, Model, ModelConfig,
    PackedBatch, Precision, SamplingParams, Tape, TapeError, TapeRow, Target, TargetGrad,
    Workspace,
};

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 61,
        hidden_size: 40,
        intermediate_size: 64,
        num_layers: 3,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 8,
        rope_theta: 10_000.0,
        rope_scaling: None,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
        qkv_bias: false,
        qk_norm: false,
        max_position_embeddings: 1024,
    }
}

fn model(config: ModelConfig) -> Model {
    let mut model = Model::init(config, 7).expect("valid");
    for (i, p) in model.params.iter_mut().enumerate() {
        *p = *p * 1.5 + 0.02 * ((i as f32) * 0.37).sin();
    }
    model
}

fn tokens(n: usize, seed: u32) -> Vec<TokenId> {
    (0..n as u32).map(|i| 3 + (i * 7 + seed * 13 + i * i) % 58).collect()
}

/// A pack with the rows of a tape, and how its scores were sampled.
struct Played {
    batch: PackedBatch,
    rows: Vec<TapeRow>,
    sampled: Vec<TokenScore>,
    tape: Tape,
}

/// Two groups of three: a shared prompt, a turn, an observation, another turn. The prompts take more
/// than one pass.
fn play(model: &Model, precision: Precision, threads: usize) -> Played {
    play_on(model, precision, threads, Tape::new(model, precision, 2000).expect("a tape"))
}

fn play_on(model: &Model, precision: Precision, threads: usize, tape: Tape) -> Played {
    let params = SamplingParams { max_tokens: 5, ..SamplingParams::default() };
    let weights = Arc::new(DecodeWeights::with_precision(model, precision, threads));
    let decoder = Decoder::with_weights(weights, 700).expect("a decoder").with_threads(threads);
    let mut decoder = decoder.with_tape(tape).expect("its tape");
    let prompts = [tokens(530, 1), tokens(20, 2)];
    let mut members = Vec::new();
    for (group, prompt) in prompts.iter().enumerate() {
        let first = decoder.open(prompt).expect("opens");
        let family = decoder.tape_family().expect("a tape");
        decoder.keep(first, family).expect("is open");
        for i in 0..3 {
            let seq = if i == 0 { first } else { decoder.fork(first).expect("forks") };
            members.push((group, seq, prompt.clone(), Vec::new()));
        }
    }
    for turn in 0..2u64 {
        let requests: Vec<_> =
            members.iter().enumerate().map(|(i, m)| (m.1, turn * 10 + i as u64)).collect();
        let turns = decoder.generate(&requests, &params).expect("samples");
        for (i, (member, turn)) in members.iter_mut().zip(turns).enumerate() {
            let (_, seq, context, scores) = member;
            let start = context.len();
            context.extend_from_slice(&turn.tokens);
            scores.extend((start..context.len()).zip(turn.scores));
            let seen = tokens(4, i as u32);
            decoder.append(*seq, &seen).expect("appends");
            context.extend_from_slice(&seen);
        }
    }
    let mut batch = PackedBatch::default();
    let (mut rows, mut sampled) = (Vec::new(), Vec::new());
    let mut parent = (usize::MAX, 0);
    for (group, seq, context, scores) in members {
        let (share, taped) = (prompts[group].len(), decoder.tape_rows(seq));
        let end = scores.last().expect("sampled").0;
        assert_eq!(taped.len(), end, "all but the last sampled token and what came behind it");
        if parent.0 != group {
            parent = (group, batch.push(&context[..share], None));
            rows.extend_from_slice(&taped[..share]);
        }
        let last = batch.segments[parent.1].range.end - 1;
        let first = batch.tokens.len();
        batch.push(&context[share..end], Some((parent.1, share)));
        rows.extend_from_slice(&taped[share..end]);
        for (position, score) in scores {
            let row = if position == share { last } else { first + position - 1 - share };
            batch.targets.push(Target { row, token: context[position] });
            sampled.push(score);
        }
    }
    let tape = decoder.take_tape().expect("it was there");
    // Prompts but for their last tokens once; every member's rest, but for what was not computed.
    assert_eq!(tape.len(), 529 + 19 + 6 * (1 + 5 + 4 + 5 - 1));
    Played { batch, rows, sampled, tape }
}

fn coefficients(i: usize) -> TargetGrad {
    let x = i as f32;
    TargetGrad { dlogprob: (x * 0.7).sin() + 0.3, dentropy: 0.2 * (x * 1.3).cos() }
}

/// Distance relative to the length of `b`.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let far: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
    (far / b.iter().map(|b| square(f64::from(*b))).sum::<f64>()).sqrt()
}

fn workspace(precision: Precision, threads: usize) -> Workspace {
    Workspace::with_threads(threads).precision(precision)
}

/// Scores and gradient by a forward pass, and from the tape.
fn both(
    model: &Model,
    played: &Played,
    precision: Precision,
    threads: usize,
) -> [(Vec<TokenScore>, Floats); 2] {
    let len = model.trainable().len();
    let Played { batch, rows, tape, .. } = played;
    let (mut computed, mut taped) = (Floats::zeros(len), Floats::zeros(len));
    let mut loss = |i: usize, _| coefficients(i);
    let mut ws = workspace(precision, threads);
    let scores = model.forward_backward(batch, 0.8, &mut loss, &mut computed, &mut ws);
    let scores = scores.expect("computes");
    // A workspace that was used, and a fresh one.
    let mut fresh = workspace(precision, threads).checkpointing(threads == 1);
    let ws = if threads == 1 { &mut fresh } else { &mut ws };
    let kept = model.backward_from_tape((tape, rows), batch, 0.8, &mut loss, &mut taped, ws);
    [(scores, computed), (kept.expect("is on the tape"), taped)]
}

fn check(model: &Model, threads: usize) {
    let exact = play(model, Precision::F32, threads);
    let [(scores, gradient), (kept, taped)] = both(model, &exact, Precision::F32, threads);
    for (a, b) in scores.iter().zip(&kept) {
        assert!((a.logprob - b.logprob).abs() < 1e-4 && (a.entropy - b.entropy).abs() < 1e-4);
    }
    let far = distance(&taped, &gradient);
    assert!(far < 2e-5, "f32: {far}");

    // In bfloat16 as far from exact numbers as a forward pass of its own.
    let rough = play(model, Precision::Bf16, threads);
    let [(_, computed), (_, taped)] = both(model, &rough, Precision::Bf16, threads);
    let mut exact = Floats::zeros(gradient.len());
    let mut loss = |i: usize, _| coefficients(i);
    let mut ws = workspace(Precision::F32, threads);
    model.forward_backward(&rough.batch, 0.8, &mut loss, &mut exact, &mut ws).expect("computes");
    let (computed, taped) = (distance(&computed, &exact), distance(&taped, &exact));
    assert!(computed > 1e-4 && taped < 1.5 * computed, "bf16: {taped}, computed {computed}");
}

#[test]
fn gradients_are_those_of_a_forward_pass() {
    for threads in [1, 2] {
        check(&model(config()), threads);
        // Gate and up in one panel; everything else that a block can have.
        let odd = ModelConfig { intermediate_size: 52, hidden_size: 39, ..config() };
        check(&model(odd), threads);
        let qwen2 = ModelConfig { qkv_bias: true, tie_word_embeddings: false, ..config() };
        check(&model(qwen2), threads);
        check(&model(ModelConfig { qk_norm: true, ..config() }), threads);
        check(&model(ModelConfig { num_layers: 1, ..config() }), threads);
    }
}

#[test]
fn adapters_without_dropout_learn_from_a_tape() {
    let adapted = |dropout| {
        let mut model = model(config());
        let lora = LoraConfig { rank: 3, dropout, ..LoraConfig::default() };
        model.adapt(lora, None, 5).expect("adapts");
        for (i, p) in model.trainable_params_mut().iter_mut().enumerate() {
            *p += 0.05 * ((i as f32) * 0.61).cos();
        }
        model
    };
    check(&adapted(0.0), 2);
    let refused = Tape::new(&adapted(0.1), Precision::F32, 10).map(drop);
    assert_eq!(refused, Err(TapeError::Dropout));
    let rows = usize::MAX;
    let refused =
        Tape::new(&model(ModelConfig { num_layers: 1, ..config() }), Precision::F32, rows);
    assert_eq!(refused.map(drop), Err(TapeError::Memory { rows }));
}

#[test]
fn scores_are_those_that_were_sampled() {
    for precision in [Precision::F32, Precision::Bf16] {
        let model = model(config());
        let Played { batch, rows, sampled, tape } = play(&model, precision, 2);
        let mut grads = Floats::zeros(model.params.len());
        let mut ws = workspace(precision, 2);
        let mut loss = |i: usize, _| coefficients(i);
        let scores =
            model.backward_from_tape((&tape, &rows), &batch, 1.0, &mut loss, &mut grads, &mut ws);
        for (a, b) in scores.expect("is on the tape").iter().zip(&sampled) {
            assert!((a.logprob - b.logprob).abs() < 1e-5 && (a.entropy - b.entropy).abs() < 1e-5);
        }
    }
}

/// The gradients of a loss with entropies of such weight.
fn loss(dentropy: f32) -> impl FnMut(usize, TokenScore) -> TargetGrad {
    move |i, _| TargetGrad { dentropy: dentropy * (i as f32).cos(), ..coefficients(i) }
}

/// Scores and gradient from a tape, of losses at a temperature with entropies or without.
fn from_tape(
    model: &Model,
    played: &Played,
    precision: Precision,
    (temperature, dentropy): (f32, f32),
) -> (Vec<TokenScore>, Floats) {
    let Played { batch, rows, tape, .. } = played;
    let mut grads = Floats::zeros(model.trainable().len());
    let (mut loss, mut ws) = (loss(dentropy), workspace(precision, 2));
    let scores =
        model.backward_from_tape((tape, rows), batch, temperature, &mut loss, &mut grads, &mut ws);
    (scores.expect("is on the tape"), grads)
}

#[test]
fn distributions_stand_in_for_products_with_the_head() {
    // One token a lane, two a lane and one over, whole lines.
    for (precision, vocab_size, threads) in [
        (Precision::F32, 61, 1),
        (Precision::Bf16, 61, 2),
        (Precision::F32, 64, 2),
        (Precision::Bf16, 64, 1),
    ] {
        let model = model(ModelConfig { vocab_size, ..config() });
        let without = play(&model, precision, threads);
        // All of them, some, none.
        for count in [60, 13, 0] {
            let tape = Tape::new(&model, precision, 2000).expect("a tape");
            let tape = tape.with_distributions(count).expect("room");
            let kept = play_on(&model, precision, threads, tape);
            for at in [(1.0, 0.0), (1.0, 0.3), (0.8, 0.3)] {
                let (computed, expected) = from_tape(&model, &without, precision, at);
                let (scores, found) = from_tape(&model, &kept, precision, at);
                for (a, b) in scores.iter().zip(&computed) {
                    assert!((a.logprob - b.logprob).abs() < 1e-5);
                    assert!((a.entropy - b.entropy).abs() < 1e-5);
                }
                let far = distance(&found, &expected);
                if precision == Precision::F32 {
                    assert!(far < 1e-6, "{count} {at:?}: {far}");
                } else {
                    // In bfloat16 as far from exact numbers as with products.
                    let mut exact = Floats::zeros(found.len());
                    let mut loss = loss(at.1);
                    let mut ws = workspace(Precision::F32, threads);
                    let done =
                        model.forward_backward(&kept.batch, at.0, &mut loss, &mut exact, &mut ws);
                    done.expect("computes");
                    let (found, computed) = (distance(&found, &exact), distance(&expected, &exact));
                    assert!(found < 1.1 * computed, "{count} {at:?}: {found}, {computed}");
                }
                // Of another temperature than the sampler's there is none.
                let used = precision == Precision::Bf16 && count > 0 && at.0 == 1.0;
                assert_eq!(far > 1e-5, used, "{precision:?} {count} {at:?}: {far}");
            }
            // What was sampled, to the bit, but where a group's prompts end in one row.
            let (scores, _) = from_tape(&model, &kept, precision, (1.0, 0.0));
            let equal = |i: &usize| scores[*i] == kept.sampled[*i];
            let equal = (0..scores.len()).filter(equal).count();
            assert!(count < 60 || equal >= scores.len() - 6, "{equal} of {}", scores.len());
        }
        let count = usize::MAX;
        let refused = Tape::new(&model, precision, 1).expect("a tape").with_distributions(count);
        assert_eq!(refused.map(drop), Err(TapeError::Memory { rows: count }));
    }
}

#[test]
fn a_forgotten_family_gives_its_distributions_back() {
    let model = model(config());
    let tape = Tape::new(&model, Precision::Bf16, 100).expect("a tape");
    let decoder = Decoder::with_weights(
        Arc::new(DecodeWeights::with_precision(&model, Precision::Bf16, 1)),
        100,
    );
    let tape = tape.with_distributions(8).expect("room");
    let mut decoder = decoder.expect("a decoder").with_tape(tape).expect("its tape");
    let params = SamplingParams { max_tokens: 8, ..SamplingParams::default() };
    let mut far = Vec::new();
    for round in 0..2 {
        let prompt = tokens(9, round);
        let seq = decoder.open(&prompt).expect("opens");
        let family = decoder.tape_family().expect("a tape");
        decoder.keep(seq, family).expect("is open");
        let turn = &decoder.generate(&[(seq, 3)], &params).expect("samples")[0];
        let mut batch = PackedBatch::default();
        batch.push(&[&prompt[..], &turn.tokens[..7]].concat(), None);
        batch.targets =
            turn.tokens.iter().zip(8..).map(|(&token, row)| Target { row, token }).collect();
        let rows = decoder.tape_rows(seq);
        let mut tape = decoder.take_tape().expect("it was there");
        let played = Played { batch, rows, sampled: Vec::new(), tape };
        let (scores, _) = from_tape(&model, &played, Precision::Bf16, (1.0, 0.0));
        far.push(scores == turn.scores);
        tape = played.tape;
        tape.forget(family);
        decoder = decoder.with_tape(tape).expect("its tape");
    }
    assert_eq!(far, [true, true], "scores are the sampler's where its distributions are kept");
}

#[test]
fn new_room_forgets_the_distributions_that_were_kept() {
    let model = model(config());
    let tape = |count| {
        let tape = Tape::new(&model, Precision::F32, 2000).expect("a tape");
        tape.with_distributions(count).expect("room")
    };
    let without = play(&model, Precision::F32, 2);
    let (_, expected) = from_tape(&model, &without, Precision::F32, (1.0, 0.3));
    for count in [0, 3, 60] {
        let mut played = play_on(&model, Precision::F32, 2, tape(60));
        played.tape = played.tape.with_distributions(count).expect("room");
        let (_, found) = from_tape(&model, &played, Precision::F32, (1.0, 0.3));
        assert_eq!(distance(&found, &expected), 0.0, "{count}");
    }
}

#[test]
fn a_tape_of_something_else_is_refused() {
    let mut model = model(config());
    let mut played = play(&model, Precision::F32, 1);
    let run = |model: &Model, played: &Played, precision| {
        let mut grads = Floats::zeros(model.params.len());
        let Played { batch, rows, tape, .. } = played;
        let mut loss = |i: usize, _| coefficients(i);
        let mut ws = workspace(precision, 1);
        model.backward_from_tape((tape, rows), batch, 1.0, &mut loss, &mut grads, &mut ws)
    };
    let at = |result: Result<_, EngineError>| match result.expect_err("refused") {
        EngineError::Tape { row, .. } => row,
        other => panic!("{other}"),
    };
    assert_eq!(at(run(&model, &played, Precision::Bf16).map(drop)), 0);
    played.rows.swap(3, 4);
    assert_eq!(at(run(&model, &played, Precision::F32).map(drop)), 3);
    played.rows.swap(3, 4);
    let row = played.rows.pop();
    let end = played.rows.len();
    assert_eq!(at(run(&model, &played, Precision::F32).map(drop)), end);
    played.rows.extend(row);
    // Nothing was sampled inside a prompt: the last block did not go on with it.
    played.batch.targets.push(Target { row: 7, token: 5 });
    assert_eq!(at(run(&model, &played, Precision::F32).map(drop)), 7);
    played.batch.targets.pop();
    run(&model, &played, Precision::F32).expect("is on the tape");
    model.params[0] += 1.0;
    assert_eq!(at(run(&model, &played, Precision::F32).map(drop)), 0);
    let decoder = Decoder::new(&model, 100).expect("a decoder");
    assert_eq!(decoder.with_tape(played.tape).map(drop), Err(DecodeError::Tape));
}

#[test]
fn the_last_families_make_room() {
    let model = model(config());
    let prompts = [1, 2, 3].map(|seed| tokens(8, seed));
    let params = SamplingParams { max_tokens: 4, ..SamplingParams::default() };
    let open =
        |decoder: &mut Decoder<'_>| [0, 1, 2].map(|i| decoder.open(&prompts[i]).expect("opens"));
    let mut plain = Decoder::new(&model, 100).expect("a decoder");
    let seqs = open(&mut plain);
    let plain = plain.generate(&seqs.map(|seq| (seq, 1)), &params).expect("samples");

    // Each takes 8 and 3 rows; what came before a family was given up is of no use.
    for (capacity, expected) in
        [(33, [11, 11, 11]), (32, [11, 11, 0]), (23, [11, 11, 0]), (16, [11, 0, 0]), (10, [0; 3])]
    {
        let tape = Tape::new(&model, Precision::F32, capacity).expect("a tape");
        let decoder = Decoder::new(&model, 100).expect("a decoder");
        let mut decoder = decoder.with_tape(tape).expect("its tape");
        let seqs = open(&mut decoder);
        let families = seqs.map(|seq| {
            let family = decoder.tape_family().expect("a tape");
            decoder.keep(seq, family).expect("is open");
            family
        });
        let turns = decoder.generate(&seqs.map(|seq| (seq, 1)), &params).expect("samples");
        assert_eq!(turns, plain, "a tape changes nothing");
        assert_eq!(seqs.map(|seq| decoder.tape_rows(seq).len()), expected, "{capacity}");
        // A row is one context's only.
        let mut rows: Vec<_> = seqs.iter().flat_map(|seq| decoder.tape_rows(*seq)).collect();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), expected.iter().sum::<usize>());
        // A family that was given up does not come back.
        let lost = || (0..3).filter(|&i| expected[i] == 0);
        for i in lost() {
            decoder.keep(seqs[i], families[i]).expect("is open");
        }
        decoder.generate(&seqs.map(|seq| (seq, 2)), &params).expect("samples");
        assert!(lost().all(|i| decoder.tape_rows(seqs[i]).is_empty()));
        let mut tape = decoder.take_tape().expect("it was there");
        assert!(lost().all(|i| !tape.holds(families[i])));
        let kept = tape.len();
        tape.forget(families[0]);
        assert!(!tape.holds(families[0]) && (tape.len() < kept || expected[0] == 0));
        tape.restart(&model);
        assert!(tape.is_empty() && !tape.holds(families[0]));
    }
}
