//! One policy update: packs → PPO clip and KL → backward → clip → AdamW.

use empg::TokenScore;
use empg::loss::{self, Clip};
use empg_llm::{Floats, Model, PackedBatch, Tape, TapeRow, TargetGrad, TensorSpec, Workspace};

use crate::TrainError;
use crate::config::AlgoConfig;
use crate::optim::{AdamW, OptimStats};
use crate::pack::{LossTarget, MicroBatch};
use crate::policy::split_threads;
use crate::seed;

/// What the loss is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossSettings {
    /// Clip range of the ratio.
    pub clip: Clip,
    /// β of the k3 KL to the reference.
    pub kl_coef: f64,
    /// Coefficient of the entropy bonus.
    pub entropy_coef: f64,
    /// Temperature of the policy's distribution.
    pub temperature: f32,
}

impl LossSettings {
    /// The settings of a resolved configuration.
    pub fn new(algo: &AlgoConfig, temperature: f32) -> Self {
        Self {
            clip: Clip { low: algo.clip_low.unwrap_or(0.2), high: algo.clip_high.unwrap_or(0.2) },
            kl_coef: algo.kl_coef.unwrap_or(0.0),
            entropy_coef: algo.entropy_coef,
            temperature,
        }
    }
}

/// Sums over the targets of one or more micro-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// Weighted loss; the minibatch's loss once all its micro-batches are added, in a step's report
    /// the mean of the minibatches of its last pass.
    pub loss: f64,
    /// Targets.
    pub tokens: f64,
    /// Targets whose ratio was clipped.
    pub clipped: f64,
    /// Σ k3 of KL(π_old ‖ π_new).
    pub kl_old: f64,
    /// Largest |log π_new − log π_old|.
    pub max_log_ratio: f64,
}

impl LossSums {
    /// Adds another part.
    pub fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.tokens += other.tokens;
        self.clipped += other.clipped;
        self.kl_old += other.kl_old;
        self.max_log_ratio = self.max_log_ratio.max(other.max_log_ratio);
    }
}

/// Buffers of the workers, kept between updates.
#[derive(Debug, Default)]
pub struct Workers {
    slots: Vec<Slot>,
    dropout: Option<u64>,
}

/// A pack, and where a tape has the forward pass of its rows.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// Tokens and targets.
    pub packed: &'a PackedBatch,
    /// The tape and its rows.
    pub taped: Option<(&'a Tape, &'a [TapeRow])>,
}

impl<'a> From<&'a PackedBatch> for Pass<'a> {
    fn from(packed: &'a PackedBatch) -> Self {
        Self { packed, taped: None }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) workspace: Workspace,
    pub(crate) grads: Floats,
}

impl Workers {
    /// Buffers for training a model: a large model's threads share one pass and one gradient.
    /// `set_up` says how they compute.
    pub fn of(model: &Model, threads: usize, set_up: impl Fn(Workspace) -> Workspace) -> Self {
        let (workers, shared) = split_threads(model, threads.max(1));
        let slot = || Slot {
            workspace: set_up(Workspace::with_threads(shared)),
            grads: Floats::default(),
        };
        Self { slots: (0..workers.max(1)).map(|_| slot()).collect(), dropout: None }
    }

    /// Buffers for a number of threads.
    pub fn new(threads: usize) -> Self {
        Self { slots: (0..threads.max(1)).map(|_| Slot::default()).collect(), dropout: None }
    }

    /// Gives the memory of all buffers back until the next gradient.
    pub(crate) fn release(&mut self) {
        for slot in &mut self.slots {
            slot.workspace.release();
            slot.grads = Floats::default();
        }
    }

    /// The memory of the first worker's gradient, whatever it holds: the next gradient begins with zeros.
    pub(crate) fn idle_gradient(&mut self, model: &Model) -> &mut [f32] {
        let size = model.trainable().len();
        self.slots.first_mut().map_or(&mut [], |slot| {
            if slot.grads.len() != size {
                slot.grads = Floats::zeros(size);
            }
            &mut slot.grads
        })
    }

    /// Seed of what the adapters' dropout leaves out in the next gradients.
    pub fn set_dropout_seed(&mut self, seed: u64) {
        self.dropout = Some(seed);
    }

    /// Threads that work at a time.
    pub fn threads(&self) -> usize {
        self.slots.len()
    }

    /// Loss and gradient of a minibatch, whose taped parts lie on `tape`.
    ///
    /// # Errors
    /// A pack that the engine refuses, a loss that is not finite.
    pub fn gradient(
        &mut self,
        model: &Model,
        minibatch: &[MicroBatch],
        tape: Option<&Tape>,
        settings: &LossSettings,
    ) -> Result<(LossSums, &mut [f32]), TrainError> {
        let packs = minibatch.iter().map(|m| Pass {
            packed: &m.packed,
            taped: tape.and_then(|tape| Some((tape, m.taped.as_deref()?))),
        });
        let packs: Vec<Pass<'_>> = packs.collect();
        let (parts, grads) = self.accumulate(
            model,
            &packs,
            settings.temperature,
            |pack, target, score, sums: &mut LossSums| {
                token_loss(&minibatch[pack].targets[target], score, settings, sums)
            },
        )?;
        let mut sums = LossSums::default();
        for part in &parts {
            sums.add(part);
        }
        if !sums.loss.is_finite() {
            return Err(TrainError::NotFinite { what: "loss", tensor: culprit(model, grads) });
        }
        Ok((sums, grads))
    }

    /// Forward and backward over packs with any loss on the targets. Pack i goes to worker
    /// i mod n and the workers' gradients are added in order: the result depends on the number of
    /// workers only. Returns the workers' sums and the gradient.
    ///
    /// # Errors
    /// A pack that the engine refuses.
    pub fn accumulate<S: Default + Send>(
        &mut self,
        model: &Model,
        packs: &[Pass<'_>],
        temperature: f32,
        term: impl Fn(usize, usize, TokenScore, &mut S) -> TargetGrad + Sync,
    ) -> Result<(Vec<S>, &mut [f32]), TrainError> {
        let (size, dropout) = (model.trainable().len(), self.dropout);
        let parts = self.each(packs.len(), |slot, indices| {
            if slot.grads.len() == size {
                slot.grads.clear(slot.workspace.threads());
            } else {
                slot.grads = Floats::zeros(size);
            }
            let mut sums = S::default();
            for i in indices {
                slot.workspace
                    .set_dropout_seed(dropout.map(|place| seed::derive(&[place, i as u64])));
                let mut loss = |target: usize, score: TokenScore| term(i, target, score, &mut sums);
                let Pass { packed, taped } = packs[i];
                let (grads, workspace) = (&mut slot.grads, &mut slot.workspace);
                match taped {
                    None => {
                        let loss = &mut loss;
                        model.forward_backward(packed, temperature, loss, grads, workspace)?;
                    }
                    Some(taped) => {
                        let loss = &mut loss;
                        model.backward_from_tape(
                            taped,
                            packed,
                            temperature,
                            loss,
                            grads,
                            workspace,
                        )?;
                    }
                }
            }
            Ok(sums)
        })?;
        let (first, rest) = self.slots.split_at_mut(1);
        for slot in rest.iter().take(parts.len().saturating_sub(1)) {
            for (total, part) in first[0].grads.iter_mut().zip(&*slot.grads) {
                *total += part;
            }
        }
        Ok((parts, &mut first[0].grads))
    }

    /// Scores the targets of packs under a model, pack by pack.
    ///
    /// # Errors
    /// A pack that the engine refuses.
    pub fn score(
        &mut self,
        model: &Model,
        packs: &[MicroBatch],
        temperature: f32,
    ) -> Result<Vec<Vec<TokenScore>>, TrainError> {
        let parts = self.each(packs.len(), |slot, indices| {
            indices
                .map(|i| Ok((i, model.score(&packs[i].packed, temperature, &mut slot.workspace)?)))
                .collect::<Result<Vec<_>, TrainError>>()
        })?;
        let mut scores = vec![Vec::new(); packs.len()];
        for (i, part) in parts.into_iter().flatten() {
            scores[i] = part;
        }
        Ok(scores)
    }

    /// Runs `work` on every slot that has a share of `count` items.
    pub(crate) fn each<R: Send>(
        &mut self,
        count: usize,
        work: impl Fn(&mut Slot, std::iter::StepBy<std::ops::Range<usize>>) -> Result<R, TrainError>
        + Sync,
    ) -> Result<Vec<R>, TrainError> {
        let stride = self.slots.len();
        let active = stride.min(count.max(1));
        if active == 1 {
            return Ok(vec![work(&mut self.slots[0], (0..count).step_by(stride))?]);
        }
        std::thread::scope(|scope| {
            let work = &work;
            let handles: Vec<_> = self
                .slots
                .iter_mut()
                .take(active)
                .enumerate()
                .map(|(w, slot)| scope.spawn(move || work(slot, (w..count.max(w)).step_by(stride))))
                .collect();
            handles
                .into_iter()
                .map(|h| h.join().unwrap_or_else(|_| Err(TrainError::Worker("update".into()))))
                .collect()
        })
    }
}

/// The first tensor whose weights, or else whose gradients, are not finite.
pub(crate) fn culprit(model: &Model, grads: &[f32]) -> String {
    let broken = |values: &[f32]| {
        let finite = |spec: &&TensorSpec| values[spec.range.clone()].iter().all(|x| x.is_finite());
        model.trainable().entries().iter().find(|spec| !finite(spec)).map(|spec| spec.name.clone())
    };
    broken(model.trainable_params())
        .or_else(|| broken(grads))
        .unwrap_or_else(|| "the scores of the sampled tokens".into())
}

/// −min(r·A, clip(r)·A) + β·k3(π, π_ref) − c·H of one token, weighted.
fn token_loss(
    target: &LossTarget,
    score: TokenScore,
    settings: &LossSettings,
    sums: &mut LossSums,
) -> TargetGrad {
    let (logp, weight) = (f64::from(score.logprob), f64::from(target.weight));
    let old = f64::from(target.old_logprob);
    let ppo = loss::ppo(logp, old, f64::from(target.advantage), settings.clip);
    let kl_ref = loss::k3(logp, f64::from(target.ref_logprob));
    // The tokens are drawn from the old policy: k3 of KL(π_old ‖ π).
    let kl_old = loss::k3(old, logp).value;
    let entropy = f64::from(score.entropy);
    let value = ppo.loss + settings.kl_coef * kl_ref.value - settings.entropy_coef * entropy;
    sums.loss += weight * value;
    sums.tokens += 1.0;
    sums.clipped += f64::from(u8::from(ppo.clipped));
    sums.kl_old += kl_old;
    sums.max_log_ratio = sums.max_log_ratio.max((logp - old).abs());
    TargetGrad {
        dlogprob: (weight * (ppo.dlogp + settings.kl_coef * kl_ref.dlogp)) as f32,
        dentropy: (-weight * settings.entropy_coef) as f32,
    }
}

/// One optimiser step on a minibatch.
///
/// # Errors
/// See [`Workers::gradient`] and [`AdamW::update`]. The model is unchanged then, unless a weight is
/// no longer finite: go on from a checkpoint.
pub fn update(
    model: &mut Model,
    optimizer: &mut AdamW,
    workers: &mut Workers,
    minibatch: &[MicroBatch],
    tape: Option<&Tape>,
    settings: &LossSettings,
) -> Result<(LossSums, OptimStats), TrainError> {
    let (sums, grads) = workers.gradient(model, minibatch, tape, settings)?;
    let layout = model.trainable().clone();
    let stats = optimizer.update(&layout, model.trainable_params_mut(), grads)?;
    Ok((sums, stats))
}
