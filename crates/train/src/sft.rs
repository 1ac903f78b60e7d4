//! Supervised fine-tuning on demonstrations.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};

use empg::{TokenId, TokenScore};
use empg_llm::{PackedBatch, PackedSegment, Target, TargetGrad};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::config::{Context, ModelSource, OptimConfig, RolloutConfig};
use crate::optim::AdamW;
use crate::policy::Policy;
use crate::practice::{Advised, Practice};
use crate::rollout::TurnText;
use crate::script::Script;
use crate::update::{Pass, culprit};
use crate::voice::{Story, Voice};

/// One turn of a demonstration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoTurn {
    /// What the expert saw.
    pub observation: String,
    /// Why the action was chosen, for prompts that ask for a thought.
    pub thought: String,
    /// What was done.
    pub action: String,
    /// The admissible commands, for contexts that list them.
    pub admissible: Vec<String>,
    /// Whether the policy should learn to do it; noise is seen but not imitated.
    pub imitate: bool,
}

/// A demonstrated episode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demonstration {
    /// The environment's name: it decides the prompt.
    pub env: String,
    /// The turns, the first of them first.
    pub turns: Vec<DemoTurn>,
}

/// Where demonstrations come from: an unlimited, seeded sequence.
pub trait Demonstrations: Sync {
    /// The demonstration at an index.
    ///
    /// # Errors
    /// Data that cannot be read, an expert that cannot go on.
    fn episode(&self, index: u64) -> Result<Demonstration, TrainError>;
}

/// How to fine-tune.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SftConfig {
    /// Seed of the demonstrations.
    pub seed: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// Tokens of a batch.
    pub batch_tokens: usize,
    /// Rows of a micro-batch; the gradient does not depend on it.
    pub micro_batch_tokens: usize,
    /// Prompt, context and its length: those of the episodes that the policy will play. Longer
    /// demonstrations are cut at a turn.
    pub rollout: RolloutConfig,
    /// How the model is computed; its adapters are the policy's own.
    pub model: ModelSource,
    /// Weight of the observations' tokens in the loss (the agent's have 1), in contexts that grow.
    /// Reading what was just named is practice in copying names.
    pub observation_weight: f32,
    /// Every so many steps the policy practises on its own episodes instead; 0 means never.
    pub practice_every: u64,
    /// Episodes of a practice.
    pub practice_episodes: usize,
    /// The optimiser.
    pub optim: OptimConfig,
    /// Worker threads; 0 means one per core.
    pub threads: usize,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            steps: 2000,
            batch_tokens: 8192,
            micro_batch_tokens: 8192,
            rollout: RolloutConfig::default(),
            model: ModelSource::default(),
            observation_weight: 0.15,
            practice_every: 0,
            practice_episodes: 64,
            optim: OptimConfig {
                lr: 2e-3,
                warmup: 100,
                schedule: crate::config::Schedule::Cosine,
                weight_decay: 0.01,
                ..OptimConfig::default()
            },
            threads: 0,
        }
    }
}

impl SftConfig {
    /// What a pretrained language model starts from: it can read and write already.
    pub fn language_model() -> Self {
        let optim = OptimConfig { lr: 1e-4, warmup: 5, ..Self::default().optim };
        Self {
            steps: 100,
            batch_tokens: 4096,
            micro_batch_tokens: 2048,
            observation_weight: 0.0,
            optim,
            ..Self::default()
        }
    }
}

/// What a step of fine-tuning showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SftStep {
    /// Steps done.
    pub step: u64,
    /// Mean −log p of the imitated tokens (nats).
    pub loss: f64,
    /// Share of imitated tokens with p > 1/2: a lower bound of greedy accuracy.
    pub confident: f64,
    /// Mean −log p of the observations' tokens (nats).
    pub observation_loss: f64,
    /// Tokens of the batch.
    pub tokens: usize,
    /// Demonstrations of the batch.
    pub episodes: usize,
    /// ‖g‖₂ before clipping.
    pub grad_norm: f64,
    /// The learning rate used.
    pub lr: f64,
}

#[derive(Clone, Copy, Debug)]
struct TargetKind {
    weight: f32,
    imitated: bool,
}

#[derive(Debug, Default)]
struct Pack {
    packed: PackedBatch,
    kinds: Vec<TargetKind>,
}

#[derive(Default)]
struct Sums {
    imitated: f64,
    imitated_count: f64,
    confident: f64,
    observed: f64,
    observed_count: f64,
}

/// What a step learned from.
#[derive(Debug)]
pub struct SftBatch<'a>(&'a [Pack]);

/// A context and what is learned in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SftSequence {
    /// The context.
    pub tokens: Vec<TokenId>,
    /// (position, token, weight): the token is learned as what follows the context up to that
    /// position, that one included; the weights of a batch are divided by their sum.
    pub targets: Vec<(usize, TokenId, f32)>,
}

impl SftBatch<'_> {
    /// The contexts, each complete in itself, for other trainers.
    pub fn sequences(&self) -> Vec<SftSequence> {
        let mut all: Vec<SftSequence> = Vec::new();
        for Pack { packed, kinds } in self.0 {
            let from = all.len();
            for segment in &packed.segments {
                let mut tokens = match segment.parent {
                    Some(parent) => {
                        let context = &all[from + parent];
                        let own = packed.segments[parent].range.len();
                        let before = context.tokens.len() - own;
                        context.tokens[..before + segment.parent_len].to_vec()
                    }
                    None => Vec::new(),
                };
                let before = tokens.len();
                tokens.extend_from_slice(&packed.tokens[segment.range.clone()]);
                let inside = packed.targets.iter().zip(kinds);
                let inside = inside.filter(|(target, _)| segment.range.contains(&target.row));
                let targets = inside
                    .map(|(t, kind)| (before + t.row - segment.range.start, t.token, kind.weight))
                    .collect();
                all.push(SftSequence { tokens, targets });
            }
        }
        all.retain(|sequence| !sequence.targets.is_empty());
        all
    }
}

/// Fine-tunes a policy; `report` sees every step and may stop the run by returning false.
///
/// # Errors
/// A prompt that cannot be used, demonstrations that cannot be had, a gradient that is not finite, an interruption.
pub fn fine_tune(
    policy: &mut Policy,
    demonstrations: &dyn Demonstrations,
    practice: Option<&Practice<'_>>,
    config: &SftConfig,
    stop: &AtomicBool,
    report: &mut dyn FnMut(&Policy, &SftStep, &SftBatch<'_>) -> Result<bool, TrainError>,
) -> Result<(), TrainError> {
    let mut config = config.clone();
    // Once: batches do not change with the file.
    config.rollout.read_prompt()?;
    let config = &config;
    let threads = if config.threads == 0 {
        std::thread::available_parallelism().map_or(1, usize::from)
    } else {
        config.threads
    };
    let mut workers = config.model.workers(&policy.model, threads);
    let mut optimizer =
        AdamW::new(config.optim.clone(), policy.model.trainable().len(), config.steps)
            .with_threads(threads);
    let mut cursor = 0u64;
    let positions = policy.model.config.max_position_embeddings;
    for step in 1..=config.steps {
        if stop.load(Ordering::Relaxed) {
            return Err(TrainError::Interrupted);
        }
        let due = config.practice_every > 0 && step.is_multiple_of(config.practice_every);
        let (packs, episodes) = match practice.filter(|_| due) {
            Some(practice) => {
                let place = crate::seed::derive(&[config.seed, step, 1]);
                let episodes = config.practice_episodes;
                let advised = practice.play(policy, episodes, place, threads, stop)?;
                let rows: usize = advised.iter().map(|episode| episode.tokens.len()).sum();
                let parts = rows.div_ceil(config.micro_batch_tokens.max(1)).max(threads);
                let mut packs: Vec<Pack> = (0..parts).map(|_| Pack::default()).collect();
                for (i, episode) in advised.iter().enumerate() {
                    packs[i % parts].push_advised(episode, positions);
                }
                packs.retain(|p| !p.packed.targets.is_empty());
                (packs, episodes)
            }
            None => gather(policy, demonstrations, config, &mut cursor, threads, stop)?,
        };
        // Whoever gathered stopped where it was: what there is may be nothing.
        if stop.load(Ordering::Relaxed) {
            return Err(TrainError::Interrupted);
        }
        let total: f64 = packs.iter().flat_map(|p| &p.kinds).map(|k| f64::from(k.weight)).sum();
        let scale = (1.0 / total.max(1e-9)) as f32;
        workers.set_dropout_seed(crate::seed::derive(&[config.seed, step, 2]));
        let refs: Vec<Pass<'_>> = packs.iter().map(|p| Pass::from(&p.packed)).collect();
        let tokens = packs.iter().map(|p| p.packed.tokens.len()).sum();
        let (parts, grads) = workers.accumulate(
            &policy.model,
            &refs,
            1.0,
            |pack, target, score: TokenScore, sums: &mut Sums| {
                let kind = packs[pack].kinds[target];
                let loss = -f64::from(score.logprob);
                if kind.imitated {
                    sums.imitated += loss;
                    sums.imitated_count += 1.0;
                    sums.confident += f64::from(u8::from(score.logprob > -std::f32::consts::LN_2));
                } else {
                    sums.observed += loss;
                    sums.observed_count += 1.0;
                }
                TargetGrad { dlogprob: -kind.weight * scale, dentropy: 0.0 }
            },
        )?;
        let sum = |f: fn(&Sums) -> f64| parts.iter().map(f).sum::<f64>();
        if !sum(|s| s.imitated).is_finite() {
            let tensor = culprit(&policy.model, grads);
            return Err(TrainError::NotFinite { what: "loss", tensor });
        }
        let layout = policy.model.trainable().clone();
        let stats = optimizer.update(&layout, policy.model.trainable_params_mut(), grads)?;
        let record = SftStep {
            step,
            loss: sum(|s| s.imitated) / sum(|s| s.imitated_count).max(1.0),
            confident: sum(|s| s.confident) / sum(|s| s.imitated_count).max(1.0),
            observation_loss: sum(|s| s.observed) / sum(|s| s.observed_count).max(1.0),
            tokens,
            episodes,
            grad_norm: stats.grad_norm,
            lr: stats.lr,
        };
        if !report(policy, &record, &SftBatch(&packs))? {
            break;
        }
    }
    Ok(())
}

/// Fills one batch: every thread makes its share of the demonstrations.
fn gather(
    policy: &Policy,
    demonstrations: &dyn Demonstrations,
    config: &SftConfig,
    cursor: &mut u64,
    threads: usize,
    stop: &AtomicBool,
) -> Result<(Vec<Pack>, usize), TrainError> {
    let share = config.batch_tokens.div_ceil(threads);
    let start = *cursor;
    let parts: Vec<Result<(Vec<Pack>, u64), TrainError>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads as u64)
            .map(|worker| {
                scope.spawn(move || {
                    let mut scripts = BTreeMap::new();
                    let mut packs = Packs::new(config.micro_batch_tokens);
                    let mut made = 0;
                    while packs.rows < share && !stop.load(Ordering::Relaxed) {
                        let index = start + made * threads as u64 + worker;
                        let shown =
                            demonstrations.episode(crate::seed::derive(&[config.seed, index]))?;
                        let script = match scripts.entry(shown.env.clone()) {
                            Entry::Occupied(known) => known.into_mut(),
                            Entry::Vacant(open) => {
                                open.insert(policy.script(&config.rollout, &shown.env)?)
                            }
                        };
                        for sequence in sequences(policy, script, &shown.turns, config)? {
                            packs.push(sequence);
                        }
                        made += 1;
                    }
                    Ok((packs.finish(), made))
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|h| h.join().unwrap_or_else(|_| Err(TrainError::Worker("demonstrations".into()))))
            .collect()
    });
    let mut packs = Vec::with_capacity(threads);
    let (mut most, mut episodes) = (0, 0);
    for part in parts {
        let (part, made) = part?;
        most = most.max(made);
        episodes += made as usize;
        packs.extend(part);
    }
    *cursor += most * threads as u64;
    Ok((packs, episodes))
}

/// A context to learn from: its tokens, and what each of them counts as a target.
#[derive(Debug, Default)]
struct Sequence {
    tokens: Vec<TokenId>,
    kinds: Vec<Option<TargetKind>>,
}

impl Sequence {
    fn extend(&mut self, tokens: &[TokenId], kind: Option<TargetKind>) {
        self.tokens.extend_from_slice(tokens);
        self.kinds.resize(self.tokens.len(), kind);
    }
}

/// The contexts of a demonstration: one that grows, or one for every imitated turn.
fn sequences(
    policy: &Policy,
    script: &Script,
    turns: &[DemoTurn],
    config: &SftConfig,
) -> Result<Vec<Sequence>, TrainError> {
    let voice = Voice::new(&policy.tokenizer, script, &config.rollout)?;
    let limit = config.rollout.max_context_tokens.min(policy.model.config.max_position_embeddings);
    let intro = turns.first().map_or("", |turn| turn.observation.as_str());
    let told: Vec<TurnText> = turns
        .iter()
        .map(|turn| TurnText {
            observation: turn.observation.clone(),
            said: script.say(&turn.thought, &turn.action),
            action: turn.action.clone(),
            effect: true,
        })
        .collect();
    let weighed = |weight: f32, imitated| (weight > 0.0).then_some(TargetKind { weight, imitated });
    let observed = weighed(config.observation_weight, false);
    let windows = matches!(config.rollout.context, Context::Window(_));
    let mut made = Vec::new();
    let mut open = Sequence::default();
    for (i, turn) in turns.iter().enumerate() {
        let listed = if windows && config.rollout.admissible { &turn.admissible[..] } else { &[] };
        let story = Story {
            intro,
            turns: &told[..i],
            observation: &turn.observation,
            admissible: listed,
            invalid: false,
        };
        if windows && !turn.imitate {
            continue;
        }
        let piece =
            if windows || i == 0 { voice.opening(&story)? } else { voice.next(&story, true)? };
        let said = voice.turn(&turn.thought, &turn.action)?;
        let before = if windows { 0 } else { open.tokens.len() };
        if before + piece.len() + said.len() > limit {
            if i == 0 || (windows && made.is_empty()) {
                return Err(TrainError::Tasks(format!(
                    "the first turn of a demonstration has {} tokens, but \
                     rollout.max_context_tokens is {limit}",
                    piece.len() + said.len(),
                )));
            }
            if windows {
                continue;
            }
            break;
        }
        open.extend(&piece, if windows { None } else { observed });
        open.extend(&said, weighed(f32::from(u8::from(turn.imitate)), true));
        if windows {
            made.push(std::mem::take(&mut open));
        }
    }
    if !open.tokens.is_empty() {
        made.push(open);
    }
    Ok(made)
}

/// Packs that are being filled.
struct Packs {
    budget: usize,
    rows: usize,
    full: Vec<Pack>,
    open: Pack,
}

impl Packs {
    fn new(budget: usize) -> Self {
        Self { budget, rows: 0, full: Vec::new(), open: Pack::default() }
    }

    fn push(&mut self, sequence: Sequence) {
        let held = self.open.packed.tokens.len();
        if held > 0 && held + sequence.tokens.len() > self.budget {
            self.full.push(std::mem::take(&mut self.open));
        }
        self.rows += sequence.tokens.len();
        self.open.push(sequence);
    }

    fn finish(mut self) -> Vec<Pack> {
        self.full.push(self.open);
        self.full
    }
}

impl Pack {
    /// A context of its own: it attends to nothing else in the pack.
    fn push(&mut self, sequence: Sequence) {
        let start = self.packed.tokens.len();
        for (position, kind) in sequence.kinds.into_iter().enumerate() {
            // The first token of all is predicted by nothing.
            if let Some(kind) = kind.filter(|_| position > 0) {
                let token = sequence.tokens[position];
                self.packed.targets.push(Target { row: start + position - 1, token });
                self.kinds.push(kind);
            }
        }
        self.packed.push(&sequence.tokens, None);
    }

    /// The policy's own episode: its commands where the expert agrees, the expert's as side
    /// branches where it does not, as far as the model has positions for them.
    fn push_advised(&mut self, episode: &Advised, positions: usize) {
        let imitated = TargetKind { weight: 1.0, imitated: true };
        let Some(end) = episode.turns.last().map(|(range, _)| range.end) else { return };
        let start = self.packed.tokens.len();
        self.packed.tokens.extend_from_slice(&episode.tokens[..end]);
        self.packed.positions.extend(0..end as u32);
        let main = self.packed.segments.len();
        self.packed.segments.push(PackedSegment {
            range: start..start + end,
            parent: None,
            parent_len: 0,
        });
        for (range, advice) in &episode.turns {
            let Some(advice) = advice else {
                for position in range.clone() {
                    let token = episode.tokens[position];
                    self.packed.targets.push(Target { row: start + position - 1, token });
                    self.kinds.push(imitated);
                }
                continue;
            };
            // The branch's last token is predicted, not read.
            let room = (positions + 1).saturating_sub(range.start);
            let advice = &advice[..advice.len().min(room)];
            if advice.is_empty() {
                continue;
            }
            let branch = self.packed.tokens.len();
            let read = &advice[..advice.len() - 1];
            self.packed.tokens.extend_from_slice(read);
            self.packed.positions.extend((0..read.len()).map(|i| (range.start + i) as u32));
            if !read.is_empty() {
                self.packed.segments.push(PackedSegment {
                    range: branch..branch + read.len(),
                    parent: Some(main),
                    parent_len: range.start,
                });
            }
            for (i, &token) in advice.iter().enumerate() {
                let row = if i == 0 { start + range.start - 1 } else { branch + i - 1 };
                self.packed.targets.push(Target { row, token });
                self.kinds.push(imitated);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advice_is_a_sequence_of_its_own() {
        let mut pack = Pack::default();
        let kind = Some(TargetKind { weight: 0.5, imitated: true });
        pack.push(Sequence { tokens: vec![7, 8], kinds: vec![None, kind] });
        // Tokens 3 to 5 are a turn that the expert would have played as 20, 21.
        let turns = vec![(1..3, None), (3..5, Some(vec![20, 21]))];
        pack.push_advised(&Advised { tokens: vec![10, 11, 12, 13, 14], turns }, 5);
        let found = SftBatch(&[Pack::default(), pack]).sequences();
        let of = |tokens: &[TokenId], targets: &[(usize, TokenId, f32)]| SftSequence {
            tokens: tokens.to_vec(),
            targets: targets.to_vec(),
        };
        assert_eq!(
            found,
            [
                of(&[7, 8], &[(0, 8, 0.5)]),
                of(&[10, 11, 12, 13, 14], &[(0, 11, 1.0), (1, 12, 1.0), (2, 20, 1.0)]),
                of(&[10, 11, 12, 20], &[(3, 21, 1.0)]),
            ]
        );
    }

    #[test]
    fn an_advice_ends_where_the_models_positions_do() {
        for (positions, read, learned) in [(7, 3, 4), (5, 2, 3), (4, 1, 2), (3, 0, 1)] {
            let mut pack = Pack::default();
            let turns = vec![(3..4, Some(vec![20, 21, 22, 23]))];
            pack.push_advised(&Advised { tokens: vec![10, 11, 12, 13], turns }, positions);
            let farthest = pack.packed.positions[4..].iter().max().map_or(3, |p| *p as usize);
            assert!(farthest < positions.max(4), "{positions}: {farthest}");
            assert_eq!(pack.packed.tokens.len() - 4, read, "{positions}");
            assert_eq!(pack.packed.targets.len(), learned, "{positions}");
        }
    }
}
