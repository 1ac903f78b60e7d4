//! The decoder against the scoring pass, and against itself in other batches.

use std::sync::Arc;

use empg::{TokenId, TokenScore};
use empg_llm::{
    DecodeError, DecodeWeights, Decoder, Model, ModelConfig, PackedBatch, Precision,
    SamplingParams, Target, Turn, Workspace,
};

const STOP: TokenId = 2;

fn config(heads: usize, kv_heads: usize, head_dim: usize) -> ModelConfig {
    ModelConfig {
        vocab_size: 61,
        hidden_size: 40,
        intermediate_size: 52,
        num_layers: 3,
        num_heads: heads,
        num_kv_heads: kv_heads,
        head_dim,
        rope_theta: 10_000.0,
        rope_scaling: None,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
        qkv_bias: false,
        qk_norm: false,
        max_position_embeddings: 512,
    }
}

/// Weights large enough that attention and distributions are far from uniform.
fn model(config: ModelConfig) -> Model {
    let mut model = Model::init(config, 7).expect("valid");
    for (i, p) in model.params.iter_mut().enumerate() {
        *p = *p * 1.5 + 0.02 * ((i as f32) * 0.37).sin();
    }
    let embed = model.layout.find("model.embed_tokens.weight").expect("there").range.clone();
    for p in &mut model.params[embed] {
        *p *= 10.0;
    }
    model
}

fn tokens(n: usize, seed: u32) -> Vec<TokenId> {
    (0..n as u32).map(|i| 3 + (i * 7 + seed * 13 + i * i) % 58).collect()
}

fn params(temperature: f32) -> SamplingParams {
    SamplingParams { temperature, max_tokens: 6, stop: vec![STOP], ..SamplingParams::default() }
}

/// Scores of `context[from..]` by the packed pass.
fn rescore(model: &Model, context: &[TokenId], from: usize, temperature: f32) -> Vec<TokenScore> {
    let mut batch = PackedBatch::default();
    batch.push(context, None);
    batch.targets =
        (from..context.len()).map(|i| Target { row: i - 1, token: context[i] }).collect();
    model.score(&batch, temperature, &mut Workspace::new()).expect("scores")
}

fn assert_scores(found: &[TokenScore], exact: &[TokenScore]) {
    assert_eq!(found.len(), exact.len());
    for (f, e) in found.iter().zip(exact) {
        assert!((f.logprob - e.logprob).abs() < 1e-4, "{f:?} {e:?}");
        assert!((f.entropy - e.entropy).abs() < 1e-4, "{f:?} {e:?}");
    }
}

#[test]
fn scores_equal_the_scoring_pass_over_growing_contexts_with_forks() {
    for config in [
        config(4, 2, 10),
        config(4, 4, 16),
        config(3, 1, 34),
        ModelConfig { qk_norm: true, ..config(8, 2, 8) },
        ModelConfig { qkv_bias: true, tie_word_embeddings: false, ..config(8, 2, 8) },
    ] {
        let model = model(config);
        let mut decoder = Decoder::new(&model, 400).expect("fits");
        for temperature in [1.0, 0.7] {
            let params = params(temperature);
            // One prompt, a fork before and a fork after anything is computed.
            let prompt = tokens(45, 1);
            let a = decoder.open(&prompt).expect("opens");
            let b = decoder.fork(a).expect("forks");
            decoder.append(b, &tokens(5, 9)).expect("fits");
            let c = decoder.fork(b).expect("forks");
            let mut contexts = vec![prompt.clone(), prompt.clone(), prompt.clone()];
            contexts[1].extend(tokens(5, 9));
            contexts[2].extend(tokens(5, 9));
            let mut live = vec![a, b, c];
            for turn in 0..8_u64 {
                let requests: Vec<_> =
                    live.iter().enumerate().map(|(i, s)| (*s, 100 * turn + i as u64)).collect();
                let turns = decoder.generate(&requests, &params).expect("generates");
                for ((turn, context), &seq) in turns.iter().zip(&mut contexts).zip(&live) {
                    let from = context.len();
                    context.extend(&turn.tokens);
                    assert_scores(&turn.scores, &rescore(&model, context, from, temperature));
                    assert_eq!(decoder.len(seq), context.len());
                }
                for (i, &seq) in live.iter().enumerate() {
                    let more = tokens(3 + i + turn as usize, i as u32);
                    decoder.append(seq, &more).expect("fits");
                    contexts[i].extend(more);
                }
                if turn == 2 {
                    live.push(decoder.fork(live[0]).expect("forks"));
                    contexts.push(contexts[0].clone());
                    decoder.append(live[0], &[5]).expect("fits");
                    contexts[0].push(5);
                }
            }
            assert_eq!(decoder.open_sequences(), 4);
            for seq in live {
                decoder.close(seq);
            }
            assert_eq!(decoder.open_sequences(), 0);
            assert_eq!(decoder.cache_bytes(), 0);
        }
    }
}

/// Runs `turns` turns of one context, alone or among others.
fn run_alone(model: &Model, prompt: &[TokenId], seed: u64, params: &SamplingParams) -> Vec<Turn> {
    let mut decoder = Decoder::new(model, 400).expect("fits");
    let seq = decoder.open(prompt).expect("opens");
    (0..4)
        .map(|t| {
            let turn = decoder.generate(&[(seq, seed + t)], params).expect("generates").remove(0);
            decoder.append(seq, &tokens(4 + t as usize, seed as u32)).expect("fits");
            turn
        })
        .collect()
}

#[test]
fn a_turn_does_not_depend_on_its_batch_to_the_bit() {
    let model = model(config(4, 2, 10));
    for params in [
        params(1.0),
        params(0.0),
        SamplingParams { top_k: Some(5), ..params(1.3) },
        SamplingParams { top_p: Some(0.6), ..params(1.0) },
    ] {
        let prompts: Vec<Vec<TokenId>> = (0..23).map(|i| tokens(20 + 9 * i, i as u32)).collect();
        let weights = Arc::new(DecodeWeights::new(&model));
        let mut decoder = Decoder::with_weights(weights, 400).expect("fits");
        let seqs: Vec<_> = prompts.iter().map(|p| decoder.open(p).expect("opens")).collect();
        let mut together: Vec<Vec<Turn>> = vec![Vec::new(); seqs.len()];
        for t in 0..4 {
            let mut order: Vec<usize> = (0..seqs.len()).collect();
            order.rotate_left(t * 5);
            let requests: Vec<_> =
                order.iter().map(|&i| (seqs[i], 1000 * i as u64 + t as u64)).collect();
            let turns = decoder.generate(&requests, &params).expect("generates");
            for (&i, turn) in order.iter().zip(turns) {
                together[i].push(turn);
                decoder.append(seqs[i], &tokens(4 + t, 1000 * i as u32)).expect("fits");
            }
        }
        for (i, prompt) in prompts.iter().enumerate() {
            assert_eq!(run_alone(&model, prompt, 1000 * i as u64, &params), together[i]);
        }
    }
}

#[test]
fn queueing_in_pieces_changes_nothing() {
    let model = model(config(4, 4, 16));
    let params = params(1.0);
    let prompt = tokens(260, 3);
    let mut decoder = Decoder::new(&model, 400).expect("fits");
    let whole = decoder.open(&prompt).expect("opens");
    let pieces = decoder.open(&prompt[..1]).expect("opens");
    for piece in prompt[1..].chunks(37) {
        decoder.append(pieces, piece).expect("fits");
        // Forks force the queue into shared beginnings.
        let fork = decoder.fork(pieces).expect("forks");
        let deeper = decoder.fork(fork).expect("forks");
        decoder.close(fork);
        decoder.generate(&[(deeper, 1)], &params).expect("generates");
        decoder.close(deeper);
    }
    let a = decoder.generate(&[(whole, 4)], &params).expect("generates");
    let b = decoder.generate(&[(pieces, 4)], &params).expect("generates");
    assert_eq!(a, b);
}

#[test]
fn forks_share_the_cache() {
    let model = model(config(4, 2, 10));
    let mut decoder = Decoder::new(&model, 400).expect("fits");
    let first = decoder.open(&tokens(200, 3)).expect("opens");
    let mut seqs = vec![first];
    for _ in 0..7 {
        seqs.push(decoder.fork(first).expect("forks"));
    }
    let requests: Vec<_> = seqs.iter().zip(0..).map(|(s, i)| (*s, i)).collect();
    let turns = decoder.generate(&requests, &params(1.0)).expect("generates");
    assert!(turns.iter().any(|t| t.tokens != turns[0].tokens), "seeds differ");
    let eight = decoder.cache_bytes();
    for seq in &seqs[1..] {
        decoder.close(*seq);
    }
    let one = decoder.cache_bytes();
    assert!(eight < 3 * one, "{eight} bytes for eight contexts, {one} for one");
    // A group of the same prompt and seed draws the same turn.
    let again = decoder.open(&tokens(200, 3)).expect("opens");
    assert_eq!(decoder.generate(&[(again, 0)], &params(1.0)).expect("generates")[0], turns[0]);
}

#[test]
fn turns_end_at_stop_tokens_limits_and_full_contexts() {
    let model = model(config(4, 2, 10));
    let mut decoder = Decoder::new(&model, 50).expect("fits");
    let all: Vec<TokenId> = (0..61).collect();
    let params = SamplingParams { stop: all, ..params(1.0) };
    let seq = decoder.open(&tokens(44, 1)).expect("opens");
    let turn = decoder.generate(&[(seq, 1)], &params).expect("generates").remove(0);
    assert!(turn.stopped && turn.tokens.len() == 1);
    let never = SamplingParams { stop: Vec::new(), max_tokens: 3, ..params.clone() };
    let turn = decoder.generate(&[(seq, 1)], &never).expect("generates").remove(0);
    assert!(!turn.stopped && turn.tokens.len() == 3);
    assert_eq!(decoder.len(seq), 48);
    assert_eq!(
        decoder.append(seq, &[3, 3, 3]),
        Err(DecodeError::ContextFull { len: 48, added: 3, max: 50 })
    );
    let turn = decoder.generate(&[(seq, 2)], &never).expect("generates").remove(0);
    assert!(!turn.stopped && turn.tokens.len() == 2);
    assert_eq!(decoder.len(seq), 50);
    // Full: an empty turn, while others go on.
    let other = decoder.open(&[4]).expect("opens");
    let turns = decoder.generate(&[(seq, 2), (other, 3)], &never).expect("generates");
    assert!(turns[0].tokens.is_empty() && !turns[0].stopped);
    assert_eq!(turns[1].tokens.len(), 3);
    assert_eq!(decoder.generate(&[], &never).expect("nothing to do"), []);
    // Turns of unequal length in one batch: the finished ones leave.
    let stop = SamplingParams { stop: (0..30).collect(), max_tokens: 20, ..params };
    let seqs: Vec<_> = (0..9).map(|i| decoder.open(&tokens(10, i)).expect("opens")).collect();
    let requests: Vec<_> = seqs.iter().zip(0..).map(|(s, i)| (*s, i)).collect();
    let turns = decoder.generate(&requests, &stop).expect("generates");
    for turn in &turns {
        let (last, before) = turn.tokens.split_last().expect("not empty");
        assert_eq!(turn.stopped, *last < 30);
        assert!(before.iter().all(|t| *t >= 30));
    }
    let lengths: Vec<usize> = turns.iter().map(|t| t.tokens.len()).collect();
    assert!(lengths.iter().any(|l| *l != lengths[0]), "{lengths:?}");
}

#[test]
fn bad_calls_are_refused_and_change_nothing() {
    let model = model(config(4, 2, 10));
    for limit in [0, 513] {
        assert!(matches!(
            Decoder::new(&model, limit).err(),
            Some(DecodeError::ContextLimit { positions: 512, .. })
        ));
    }
    let mut decoder = Decoder::new(&model, 50).expect("fits");
    assert_eq!(decoder.open(&[]), Err(DecodeError::EmptyPrefix));
    assert!(matches!(decoder.open(&[1; 51]), Err(DecodeError::ContextFull { added: 51, .. })));
    assert!(matches!(
        decoder.open(&[1, 61]),
        Err(DecodeError::Token { index: 1, token: 61, vocab_size: 61 })
    ));
    let params = params(1.0);
    let seq = decoder.open(&[1, 2, 3]).expect("opens");
    let closed = decoder.open(&[1]).expect("opens");
    decoder.close(closed);
    decoder.close(closed);
    assert_eq!(decoder.len(closed), 0);
    assert_eq!(decoder.append(closed, &[1]), Err(DecodeError::UnknownSequence(closed)));
    assert_eq!(decoder.fork(closed), Err(DecodeError::UnknownSequence(closed)));
    let reused = decoder.open(&[1]).expect("opens");
    assert_ne!(reused, closed);
    assert_eq!(
        decoder.generate(&[(seq, 1), (closed, 1)], &params),
        Err(DecodeError::UnknownSequence(closed))
    );
    assert_eq!(decoder.generate(&[(seq, 1), (seq, 2)], &params), Err(DecodeError::Duplicate(seq)));
    let bad = SamplingParams { temperature: f32::NAN, ..params.clone() };
    assert!(matches!(decoder.generate(&[(seq, 1)], &bad), Err(DecodeError::Sampling(_))));
    assert!(decoder.append(seq, &[99]).is_err());
    assert_eq!(decoder.len(seq), 3);
    assert!(decoder.generate(&[(seq, 1)], &params).is_ok());
}

#[test]
fn a_diverged_model_is_an_error() {
    let mut model = model(config(4, 2, 10));
    let range = model.layout.find("model.norm.weight").expect("there").range.clone();
    model.params[range.start] = f32::NAN;
    let mut decoder = Decoder::new(&model, 50).expect("fits");
    let seq = decoder.open(&[1, 2, 3]).expect("opens");
    assert_eq!(decoder.generate(&[(seq, 1)], &params(1.0)), Err(DecodeError::NotFinite { len: 3 }));
    assert_eq!(decoder.open_sequences(), 0);
}

/// A decoder in bf16 on a team of threads.
fn bf16(model: &Model, threads: usize) -> Decoder<'_> {
    let weights = DecodeWeights::with_precision(model, Precision::Bf16, threads);
    Decoder::with_weights(Arc::new(weights), 400).expect("fits").with_threads(threads)
}

#[test]
fn bf16_stays_near_f32() {
    for config in [
        config(4, 2, 10),
        config(6, 2, 16),
        config(3, 1, 34),
        config(14, 1, 8),
        ModelConfig { qkv_bias: true, tie_word_embeddings: false, ..config(8, 2, 8) },
    ] {
        // Calmer weights than above: rounding grows with what they amplify.
        let model = Model::init(config, 7).expect("valid");
        let mut decoder = bf16(&model, 2);
        let prompt = tokens(150, 1);
        let seq = decoder.open(&prompt).expect("opens");
        let fork = decoder.fork(seq).expect("forks");
        let params = SamplingParams { max_tokens: 40, stop: Vec::new(), ..params(1.0) };
        for turn in decoder.generate(&[(seq, 1), (fork, 2)], &params).expect("generates") {
            let mut context = prompt.clone();
            context.extend(&turn.tokens);
            let exact = rescore(&model, &context, prompt.len(), 1.0);
            for (found, exact) in turn.scores.iter().zip(&exact) {
                assert!((found.logprob - exact.logprob).abs() < 0.15, "{found:?} {exact:?}");
                assert!((found.entropy - exact.entropy).abs() < 0.03, "{found:?} {exact:?}");
            }
            let errors = turn.scores.iter().zip(&exact).map(|(f, e)| (f.logprob - e.logprob).abs());
            assert!(errors.sum::<f32>() < 0.04 * exact.len() as f32);
            assert!(turn.scores != exact, "bf16 rounds");
        }
    }
}

#[test]
fn a_turn_in_bf16_depends_on_neither_batch_nor_prefix_sharing_nor_threads() {
    let params = SamplingParams { max_tokens: 45, stop: Vec::new(), ..params(1.0) };
    for (config, lengths) in
        [(config(4, 2, 10), [31, 97]), (config(14, 1, 8), [32, 120]), (config(12, 4, 16), [33, 64])]
    {
        let model = model(config);
        let mut alone = bf16(&model, 1);
        // Groups of forks of one prompt each, of every length relative to the blocks.
        for length in lengths {
            let mut decoder = bf16(&model, 2);
            let mut requests = Vec::new();
            for group in 0..2_u64 {
                let first = decoder.open(&tokens(length, group as u32)).expect("opens");
                requests.push((first, 10 * group));
                for member in 1..6 {
                    let fork = decoder.fork(first).expect("forks");
                    decoder.append(fork, &tokens(member as usize % 3, 7)).expect("fits");
                    requests.push((fork, 10 * group + member));
                }
            }
            let together = decoder.generate(&requests, &params).expect("generates");
            for (request, turn) in requests.iter().zip(&together) {
                let (group, member) = (request.1 / 10, request.1 % 10);
                let mut context = tokens(length, group as u32);
                if member > 0 {
                    context.extend(tokens(member as usize % 3, 7));
                }
                let seq = alone.open(&context).expect("opens");
                let turn_alone = alone.generate(&[(seq, request.1)], &params).expect("generates");
                assert_eq!(&turn_alone[0], turn, "{length} {request:?}");
                alone.close(seq);
            }
        }
    }
}

#[test]
fn threads_change_nothing_in_f32() {
    let model = model(config(6, 2, 16));
    let run = |threads| {
        let weights = DecodeWeights::with_precision(&model, Precision::F32, threads);
        let decoder = Decoder::with_weights(Arc::new(weights), 400).expect("fits");
        let mut decoder = decoder.with_threads(threads);
        let first = decoder.open(&tokens(230, 1)).expect("opens");
        let mut requests = vec![(first, 0)];
        requests.extend((1..9).map(|seed| (decoder.fork(first).expect("forks"), seed)));
        decoder.generate(&requests, &params(1.0)).expect("generates")
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
}
