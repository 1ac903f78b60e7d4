//! Supervised fine-tuning on demonstrations.

use std::sync::atomic::{AtomicBool, Ordering};

use empg::TokenScore;
use empg_llm::{ChatMl, PackedBatch, PackedSegment, Target, TargetGrad};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::config::OptimConfig;
use crate::optim::AdamW;
use crate::practice::{Advised, Practice};
use crate::rollout::Policy;
use crate::update::{Workers, culprit};

/// One turn of a demonstration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoTurn {
    /// What the expert saw.
    pub observation: String,
    /// What was done.
    pub action: String,
    /// Whether the policy should learn to do it; noise is seen but not imitated.
    pub imitate: bool,
}

/// Where demonstrations come from: an unlimited, seeded sequence.
pub trait Demonstrations: Sync {
    /// The demonstration at an index.
    ///
    /// # Errors
    /// Data that cannot be read, an expert that cannot go on.
    fn episode(&self, index: u64) -> Result<Vec<DemoTurn>, TrainError>;
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
    /// Tokens of a context; longer demonstrations are cut at a turn.
    pub max_context_tokens: usize,
    /// Weight of the observations' tokens in the loss (the agent's have 1). Reading what was just
    /// named is practice in copying names.
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
            max_context_tokens: 1024,
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

/// Fine-tunes a policy; `report` sees every step and may stop the run by returning false.
///
/// # Errors
/// Demonstrations that cannot be had, a gradient that is not finite, an interruption.
pub fn fine_tune(
    policy: &mut Policy,
    demonstrations: &dyn Demonstrations,
    practice: Option<&Practice<'_>>,
    config: &SftConfig,
    stop: &AtomicBool,
    report: &mut dyn FnMut(&Policy, &SftStep) -> Result<bool, TrainError>,
) -> Result<(), TrainError> {
    let threads = if config.threads == 0 {
        std::thread::available_parallelism().map_or(1, usize::from)
    } else {
        config.threads
    };
    let mut workers = Workers::new(threads);
    let mut optimizer = AdamW::new(config.optim.clone(), policy.model.params.len(), config.steps)
        .with_threads(threads);
    let mut cursor = 0u64;
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
                let mut packs: Vec<Pack> = (0..threads).map(|_| Pack::default()).collect();
                for (i, episode) in advised.iter().enumerate() {
                    packs[i % threads].push_advised(episode);
                }
                packs.retain(|p| !p.packed.targets.is_empty());
                (packs, episodes)
            }
            None => gather(policy, demonstrations, config, &mut cursor, threads, stop)?,
        };
        let total: f64 = packs.iter().flat_map(|p| &p.kinds).map(|k| f64::from(k.weight)).sum();
        let scale = (1.0 / total.max(1e-9)) as f32;
        let refs: Vec<&PackedBatch> = packs.iter().map(|p| &p.packed).collect();
        let tokens = refs.iter().map(|p| p.tokens.len()).sum();
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
        let layout = policy.model.layout.clone();
        let stats = optimizer.update(&layout, &mut policy.model.params, grads)?;
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
        if !report(policy, &record)? {
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
    let parts: Vec<Result<(Pack, u64), TrainError>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads as u64)
            .map(|worker| {
                scope.spawn(move || {
                    let chat = ChatMl::new(&policy.tokenizer)?;
                    let mut pack = Pack::default();
                    let mut made = 0;
                    while pack.packed.tokens.len() < share && !stop.load(Ordering::Relaxed) {
                        let index = start + made * threads as u64 + worker;
                        let turns =
                            demonstrations.episode(crate::seed::derive(&[config.seed, index]))?;
                        pack.push(policy, &chat, &turns, config)?;
                        made += 1;
                    }
                    Ok((pack, made))
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
        let (pack, made) = part?;
        most = most.max(made);
        episodes += made as usize;
        packs.push(pack);
    }
    *cursor += most * threads as u64;
    Ok((packs, episodes))
}

impl Pack {
    fn push(
        &mut self,
        policy: &Policy,
        chat: &ChatMl,
        turns: &[DemoTurn],
        config: &SftConfig,
    ) -> Result<(), TrainError> {
        let start = self.packed.tokens.len();
        for (i, turn) in turns.iter().enumerate() {
            let mut piece = if i == 0 {
                chat.first_turn(&policy.tokenizer, &turn.observation)?
            } else {
                chat.next_turn(&policy.tokenizer, true, &turn.observation)?
            };
            let observed = piece.len();
            piece.extend(policy.tokenizer.encode_text(&turn.action)?);
            piece.push(chat.end_of_turn());
            if self.packed.tokens.len() - start + piece.len() > config.max_context_tokens {
                if i == 0 {
                    return Err(TrainError::Tasks(format!(
                        "the first turn of a demonstration has {} tokens, but \
                         rollout.max_context_tokens is {}",
                        piece.len(),
                        config.max_context_tokens
                    )));
                }
                break;
            }
            for (i, &token) in piece.iter().enumerate() {
                let row = self.packed.tokens.len();
                let kind = if i >= observed {
                    TargetKind { weight: f32::from(u8::from(turn.imitate)), imitated: true }
                } else {
                    TargetKind { weight: config.observation_weight, imitated: false }
                };
                if row > start && kind.weight > 0.0 {
                    self.packed.targets.push(Target { row: row - 1, token });
                    self.kinds.push(kind);
                }
                self.packed.positions.push((row - start) as u32);
                self.packed.tokens.push(token);
            }
        }
        if self.packed.tokens.len() > start {
            self.packed.segments.push(PackedSegment {
                range: start..self.packed.tokens.len(),
                parent: None,
                parent_len: 0,
            });
        }
        Ok(())
    }

    /// The policy's own episode: its commands where the expert agrees, the expert's as side
    /// branches where it does not.
    fn push_advised(&mut self, episode: &Advised) {
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
