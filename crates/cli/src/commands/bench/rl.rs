//! `empg bench rl`: groups of completions sampled and learned from, once.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::bail;
use clap::Args;
use empg::TokenId;
use empg_llm::{PackedBatch, SamplingParams, Tape, TapeRow, Target, TargetGrad};
use empg_train::AdamW;
use empg_train::config::OptimConfig;

use super::super::at_least_one;
use super::figures::{Figures, Peaks};
use super::subject::{
    Count, SubjectArgs, check_length, count, head, median, multiplied, step_name, text,
};
use crate::estimate::{available_memory, size};
use crate::say;

/// Rows of a micro-batch whose activations are all kept at once.
const RECOMPUTED: usize = 1424;

#[derive(Args, Clone, Debug)]
pub(super) struct RlArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Prompts
    #[arg(long, default_value_t = count(4), value_parser = at_least_one)]
    batch: Count,
    /// Completions of a prompt
    #[arg(long, default_value_t = count(8), value_parser = at_least_one)]
    group: Count,
    /// Tokens of a prompt
    #[arg(long, default_value_t = count(200), value_parser = at_least_one)]
    seq: Count,
    /// Tokens of a completion, exactly
    #[arg(long, default_value_t = count(64), value_parser = at_least_one)]
    new_tokens: Count,
    /// Rows of a micro-batch; all if not given, or 1424 with --recompute
    #[arg(long, value_parser = at_least_one)]
    budget: Option<Count>,
    /// Compute forward passes again in training instead of keeping them while sampling
    #[arg(long)]
    recompute: bool,
    /// Steps behind the first, which touches its buffers for the first time; their median is reported
    #[arg(long, default_value_t = count(3), value_parser = at_least_one)]
    steps: Count,
}

/// One sampled completion.
struct Completion {
    tokens: Vec<TokenId>,
    old_logprob: Vec<f32>,
    advantage: f32,
    /// Rows of the tape: those of the prompt and of its own tokens.
    taped: Vec<TapeRow>,
}

pub(super) fn run(args: &RlArgs, json: bool) -> anyhow::Result<()> {
    let RlArgs { subject, batch, group, seq, new_tokens, budget, recompute, steps } = args;
    let (batch, group, seq) = (batch.get(), group.get(), seq.get());
    let new = new_tokens.get();
    let most = batch * (seq + group * new);
    let budget = budget.map_or(if *recompute { RECOMPUTED } else { most }, Count::get);
    let mut model = subject.open()?;
    check_length(&model, seq + new)?;
    let peaks = Peaks::measure(subject);
    let prompts: Vec<_> = (0..batch).map(|i| text(&model, seq, i as u64)).collect();
    let sampled = (batch * group * new) as f64;

    let mut workspace = subject.workspace();
    let mut grads = empg_llm::Floats::zeros(model.layout.len());
    let mut adam = AdamW::new(OptimConfig::default(), model.params.len(), 1 + steps.get() as u64)
        .with_threads(subject.threads());
    let mut tape =
        if *recompute { None } else { Some(tape(subject, &model, (most, batch * group * new))?) };
    let (mut total, mut generating, mut updating) = (Vec::new(), Vec::new(), Vec::new());
    let (mut trained, mut head_rows, mut head_kept) = (0, 0, 0);
    for step in 0..=steps.get() {
        let start = Instant::now();
        let lent = (&mut tape, &mut *grads);
        let completions = sample(subject, &model, &prompts, group, new, step, lent)?;
        let sampling = start.elapsed().as_secs_f64();

        let middle = Instant::now();
        grads.clear(subject.threads());
        (trained, head_rows, head_kept) = (0, 0, 0);
        for pack in micro_batches(&prompts, &completions, group, budget) {
            let Pack { first, packed, taped } = pack;
            trained += packed.tokens.len();
            let (rows, alone) = target_rows(&packed);
            head_rows += rows;
            head_kept += if tape.is_some() { alone } else { 0 };
            let members = &completions[first..];
            // The clipped objective at one update per batch: its ratio is 1 but for rounding.
            let mut loss = |index: usize, score: empg::TokenScore| {
                let completion = &members[index / new];
                let ratio = (score.logprob - completion.old_logprob[index % new]).exp();
                let clipped = if completion.advantage > 0.0 { ratio > 1.2 } else { ratio < 0.8 };
                let pull = if clipped { 0.0 } else { completion.advantage * ratio };
                TargetGrad { dlogprob: -pull / sampled as f32, dentropy: 0.0 }
            };
            match &tape {
                Some(tape) => model.backward_from_tape(
                    (tape, &taped),
                    &packed,
                    1.0,
                    &mut loss,
                    &mut grads,
                    &mut workspace,
                )?,
                None => {
                    model.forward_backward(&packed, 1.0, &mut loss, &mut grads, &mut workspace)?
                }
            };
        }
        let layout = model.layout.clone();
        adam.update(&layout, &mut model.params, &mut grads)?;
        let learning = middle.elapsed().as_secs_f64();
        if step > 0 {
            generating.push(sampling);
            updating.push(learning);
            total.push(start.elapsed().as_secs_f64());
        }
        let name = step_name(step);
        say!("{name}: generating {sampling:.2} s, updating {learning:.2} s");
    }

    let kept = if tape.is_some() { trained } else { 0 };
    // Without sharing every completion carries its prompt, in sampling and in training.
    let computed = batch * seq + batch * group * (new - 1);
    let separate = batch * group * (seq + new - 1);
    let (blocks, head) = ((multiplied(&model) - head(&model)) as f64, head(&model) as f64);
    let mut figures = Figures {
        seconds: median(total),
        tokens: sampled,
        // Forward in sampling, forward and backward in training; the head at sampled tokens.
        flop: blocks * (2 * computed + 4 * trained + 2 * (trained - kept)) as f64
            + head * (2.0 * sampled + (6 * head_rows - 2 * head_kept) as f64),
        bytes: None,
        more: Vec::new(),
    };
    figures.add("generating_seconds", "seconds generating", median(generating), "");
    figures.add("updating_seconds", "seconds updating", median(updating), "");
    for (key, label, value) in [
        ("tokens_sampled", "tokens sampled", sampled),
        ("tokens_generating", "tokens computed while sampling", computed as f64),
        ("tokens_generating_unshared", "… without sharing prompts", separate as f64),
        ("tokens_training", "tokens computed while training", trained as f64),
        ("tokens_training_unshared", "… without sharing prompts", separate as f64),
        ("tokens_training_kept", "… forward passes kept while sampling", kept as f64),
        ("head_rows_training", "rows of the head in training", head_rows as f64),
        ("head_rows_training_kept", "… distributions kept while sampling", head_kept as f64),
    ] {
        figures.add(key, label, value, "");
    }
    figures.print(subject, &peaks, json)
}

/// A tape for so many tokens, and distributions of some, if they fit into memory.
fn tape(
    subject: &SubjectArgs,
    model: &empg_llm::Model,
    (rows, sampled): (usize, usize),
) -> anyhow::Result<Tape> {
    let precision = subject.dtype.precision();
    let bytes = rows as u64 * Tape::row_bytes(model, precision) as u64
        + sampled as u64 * Tape::distribution_bytes(model, precision) as u64;
    if let Some(available) = available_memory().filter(|available| bytes > *available) {
        bail!(
            "forward passes of {rows} tokens take {}, {} are available: use --recompute",
            size(bytes),
            size(available)
        );
    }
    Ok(Tape::new(model, precision, rows)?.with_distributions(sampled)?)
}

/// Completions of every prompt, group by group; a group's prompt is computed once. The decoder's weights
/// lie in `memory`.
fn sample(
    subject: &SubjectArgs,
    model: &empg_llm::Model,
    prompts: &[Vec<TokenId>],
    group: usize,
    new: usize,
    step: usize,
    (tape, memory): (&mut Option<Tape>, &mut [f32]),
) -> anyhow::Result<Vec<Completion>> {
    let mut decoder = subject.decoder_in(model, prompts[0].len() + new, memory)?;
    if let Some(mut tape) = tape.take() {
        tape.restart(model);
        decoder = decoder.with_tape(tape)?;
    }
    let mut requests = Vec::new();
    for prompt in prompts {
        let first = decoder.open(prompt)?;
        if let Some(family) = decoder.tape_family() {
            decoder.keep(first, family)?;
        }
        for member in 0..group {
            let sequence = if member == 0 { first } else { decoder.fork(first)? };
            requests.push((sequence, (step * 7919 + requests.len()) as u64));
        }
    }
    let params = SamplingParams { max_tokens: new, ..SamplingParams::default() };
    let turns = decoder.generate(&requests, &params)?;
    *tape = decoder.take_tape();
    Ok(turns
        .into_iter()
        .zip(requests)
        .enumerate()
        .map(|(i, (turn, (sequence, _)))| Completion {
            taped: decoder.tape_rows(sequence),
            old_logprob: turn.scores.iter().map(|s| s.logprob).collect(),
            tokens: turn.tokens,
            // Half of a group did well.
            advantage: if i % 2 == 0 { 1.0 } else { -1.0 },
        })
        .collect())
}

/// A micro-batch.
#[derive(Default)]
struct Pack {
    /// Index of its first completion.
    first: usize,
    packed: PackedBatch,
    /// Rows of the tape.
    taped: Vec<TapeRow>,
}

/// Rows with targets, and those of them where all targets are one token.
fn target_rows(packed: &PackedBatch) -> (usize, usize) {
    let mut rows: BTreeMap<usize, Option<TokenId>> = BTreeMap::new();
    for target in &packed.targets {
        let token = rows.entry(target.row).or_insert(Some(target.token));
        *token = token.filter(|token| *token == target.token);
    }
    (rows.len(), rows.values().flatten().count())
}

/// Packs of at most `budget` rows (or one completion): each begins with the prompts that its
/// completions continue.
fn micro_batches(
    prompts: &[Vec<TokenId>],
    completions: &[Completion],
    group: usize,
    budget: usize,
) -> Vec<Pack> {
    let mut done = Vec::new();
    let mut open = Pack::default();
    let mut parent: Option<(usize, usize)> = None;
    for (i, completion) in completions.iter().enumerate() {
        let prompt = &prompts[i / group];
        // The last token of a completion predicts nothing.
        let own = &completion.tokens[..completion.tokens.len() - 1];
        let mut shared = parent.filter(|(of, _)| *of == i / group);
        let need = own.len() + if shared.is_some() { 0 } else { prompt.len() };
        let rows = open.packed.tokens.len();
        if rows > 0 && rows + need > budget {
            done.push(std::mem::replace(&mut open, Pack { first: i, ..Pack::default() }));
            shared = None;
        }
        let Pack { packed, taped, .. } = &mut open;
        let (_, segment) = *shared.get_or_insert_with(|| {
            taped.extend(completion.taped.iter().take(prompt.len()));
            (i / group, packed.push(prompt, None))
        });
        taped.extend(completion.taped.iter().skip(prompt.len()));
        parent = shared;
        let last = packed.segments[segment].range.end - 1;
        let first = packed.tokens.len();
        if !own.is_empty() {
            packed.push(own, Some((segment, prompt.len())));
        }
        let rows = std::iter::once(last).chain(first..);
        let targets = completion.tokens.iter().zip(rows);
        packed.targets.extend(targets.map(|(&token, row)| Target { row, token }));
    }
    if !open.packed.tokens.is_empty() {
        done.push(open);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_hold_a_prompt_once_and_every_token_as_a_target() {
        let prompts = vec![vec![1, 2, 3], vec![4, 5, 6]];
        let completions: Vec<Completion> = (0..6)
            .map(|i| Completion {
                tokens: vec![10 + i, 20 + i],
                old_logprob: vec![0.0; 2],
                advantage: 1.0,
                taped: if i < 3 { vec![0, 1, 2, 10 + i] } else { vec![5, 6, 7, 10 + i] },
            })
            .collect();
        let whole = micro_batches(&prompts, &completions, 3, 100);
        assert_eq!(whole.len(), 1);
        let packed = &whole[0].packed;
        assert_eq!(packed.tokens, [1, 2, 3, 10, 11, 12, 4, 5, 6, 13, 14, 15]);
        assert_eq!(packed.targets.len(), 12);
        assert_eq!(whole[0].taped, [0, 1, 2, 10, 11, 12, 5, 6, 7, 13, 14, 15]);
        assert_eq!(target_rows(packed), (2 + 6, 6), "first tokens share their prompt's last row");
        assert_eq!(packed.targets[0], Target { row: 2, token: 10 });
        assert_eq!(packed.targets[1], Target { row: 3, token: 20 });
        assert_eq!(packed.positions[3..6], [3, 3, 3]);
        let split = micro_batches(&prompts, &completions, 3, 5);
        assert_eq!(split.iter().map(|b| b.first).collect::<Vec<_>>(), [0, 2, 3, 5]);
        let rows: usize = split.iter().map(|b| b.packed.tokens.len()).sum();
        assert_eq!(rows, 4 * 3 + 6);
        assert!(split.iter().all(|b| b.packed.targets.len() == 2 * (b.packed.segments.len() - 1)));
    }
}
