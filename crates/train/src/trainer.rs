//! The training loop.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use empg::{Advantage, Batch, Credit, DrGrpo, Empg, Grpo, Rloo, loss};
use empg_env::TaskSet;
use empg_llm::{Adapters, Model, Tape};
use empg_run::{RunDir, StepRecord};

use crate::TrainError;
use crate::config::{Base, Config, ConfigError};
use crate::dynamics::{self, ENTROPY_DYNAMICS};
use crate::evaluate::{Evaluation, Panel, evaluation_settings};
use crate::groups::{Collected, Collector, TaskStream};
use crate::metrics::{StepReport, Timings};
use crate::optim::AdamW;
use crate::pack::{ReferenceLogprobs, pack, pack_on_tape};
use crate::policy::{Policy, split_threads};
use crate::rollout::{Episode, Lent};
use crate::score_norms::SCORE_NORMS;
use crate::seed;
use crate::state;
use crate::update::{LossSettings, LossSums, Workers, update};

/// Who watches a run.
pub trait Observer {
    /// Something happened.
    fn on(&mut self, progress: Progress<'_>);
}

/// What an observer sees.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A panel is about to be played after step `step`.
    Evaluating {
        /// The step.
        step: u64,
        /// Episodes of all panels.
        episodes: usize,
    },
    /// The panels were played.
    Evaluated {
        /// The step.
        step: u64,
        /// One per split.
        evaluations: &'a [Evaluation],
    },
    /// A step was made and, if there is a run directory, committed.
    Step {
        /// What it showed.
        report: &'a StepReport,
        /// Steps of the whole run.
        steps: u64,
    },
}

/// An observer that says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on(&mut self, _: Progress<'_>) {}
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Evaluations before training, one per split.
    pub before: Vec<Evaluation>,
    /// Evaluations after training, one per split.
    pub after: Vec<Evaluation>,
    /// Steps done.
    pub steps: u64,
    /// Seconds of each phase, summed over what this process did.
    pub seconds: Timings,
}

/// The policy as it was when the run began.
#[derive(Debug)]
pub(crate) enum Reference {
    /// All weights.
    Weights(Box<Model>),
    /// The policy's frozen weights with these adapters; none where the run began without.
    Adapters(Option<Adapters>),
}

impl Reference {
    /// What `policy` is now. With adapters no weight is copied.
    fn of(policy: &Policy, fresh: bool) -> Self {
        match &policy.model.adapters {
            None => Self::Weights(Box::new(policy.model.clone())),
            Some(_) if fresh => Self::Adapters(None),
            Some(adapters) => Self::Adapters(Some(adapters.clone())),
        }
    }

    /// Lets the policy and the reference change places: again, and everything is as before.
    pub(crate) fn swap(&mut self, policy: &mut Policy) {
        match self {
            Self::Weights(model) => std::mem::swap(&mut policy.model, model),
            Self::Adapters(adapters) => std::mem::swap(&mut policy.model.adapters, adapters),
        }
    }
}

/// Trains a policy on a task set.
pub struct Trainer {
    pub(crate) config: Config,
    pub(crate) tasks: Arc<dyn TaskSet>,
    pub(crate) policy: Policy,
    pub(crate) reference: Reference,
    advantage: Box<dyn Advantage + Send + Sync>,
    pub(crate) optimizer: AdamW,
    pub(crate) workers: Workers,
    /// What sampling kept for the first update of a step.
    tape: Option<Tape>,
    pub(crate) stream: TaskStream,
    pub(crate) panels: Vec<Panel>,
    pub(crate) step: u64,
    pub(crate) before: Vec<Evaluation>,
    pub(crate) latest: Vec<Evaluation>,
    pub(crate) stop: Arc<AtomicBool>,
    commit_seconds: f64,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("step", &self.step).finish_non_exhaustive()
    }
}

impl Trainer {
    /// A trainer at step 0. The policy as it is at this moment is the reference. With `model.lora` a
    /// policy without adapters gets new ones; one that has adapters goes on training them. A template
    /// of the prompt is read here and never again.
    ///
    /// # Errors
    /// A configuration that cannot be trained, a prompt that cannot be used, tasks that cannot be had.
    pub fn new(
        config: Config,
        tasks: Arc<dyn TaskSet>,
        mut policy: Policy,
    ) -> Result<Self, TrainError> {
        let mut config = config.resolve()?;
        config.rollout.read_prompt()?;
        policy.script(&config.rollout, tasks.name())?;
        let fresh = policy.model.adapters.is_none();
        policy.adapt(config.model.lora.as_ref(), &config.model.path, config.seed)?;
        let tape = blank_tape(&policy, &config)?;
        let mut panels = Vec::new();
        for &split in &config.eval.splits {
            panels.push(Panel::choose(
                &*tasks,
                split,
                config.eval.episodes,
                config.eval.panel_seed,
            )?);
        }
        let parameters = policy.model.trainable().len();
        Ok(Self {
            reference: Reference::of(&policy, fresh),
            advantage: advantage(&config)?,
            optimizer: AdamW::new(config.optim.clone(), parameters, config.updates())
                .with_threads(config.threads),
            workers: config.model.workers(&policy.model, config.threads),
            tape,
            stream: TaskStream::new(seed::derive(&[config.seed, seed::name("stream")]), 0),
            panels,
            step: 0,
            before: Vec::new(),
            latest: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            commit_seconds: 0.0,
            config,
            tasks,
            policy,
        })
    }

    /// The resolved configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The policy as it is now.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// The evaluation panels, one per split.
    pub fn panels(&self) -> &[Panel] {
        &self.panels
    }

    /// Set it to stop: the step under way is dropped, what is committed stays.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Trains to the last step, with evaluations before and after, committing every step to the
    /// run directory if there is one.
    ///
    /// # Errors
    /// The first failure; everything committed stays.
    pub fn run(
        &mut self,
        mut run: Option<&mut RunDir>,
        observer: &mut dyn Observer,
    ) -> Result<Summary, TrainError> {
        let mut seconds = Timings::default();
        if self.step == 0 && self.before.is_empty() {
            if let Some(run) = run.as_deref_mut() {
                if let Some(template) = &self.config.rollout.template {
                    run.write_prompt(template)?;
                }
                for panel in &self.panels {
                    state::write_panel(run, panel)?;
                }
            }
            let clock = Instant::now();
            let evaluations = self.evaluate(observer)?;
            self.before.clone_from(&evaluations);
            self.latest.clone_from(&evaluations);
            let mut report = StepReport { evaluations, ..StepReport::default() };
            report.timings.evaluate = clock.elapsed().as_secs_f64();
            report.timings.total = report.timings.evaluate;
            seconds.evaluate += report.timings.evaluate;
            self.commit(run.as_deref_mut(), &report, None)?;
        }
        while self.step < self.config.steps {
            let (report, collected) = self.step(observer)?;
            self.commit(run.as_deref_mut(), &report, collected.as_ref())?;
            seconds.add(&report.timings);
            observer.on(Progress::Step { report: &report, steps: self.config.steps });
        }
        if let Some(run) = run
            && self.config.record.entropy_probe > 0
        {
            let episodes = self.probe()?;
            if self.config.record.gradient_probe > 0 {
                let table = self.score_norms(&episodes)?;
                run.write_analysis(SCORE_NORMS, &dynamics::lines(&table)?)?;
            }
            let table = self.rescore(episodes)?;
            run.write_analysis(ENTROPY_DYNAMICS, &dynamics::lines(&table)?)?;
        }
        seconds.commit += self.commit_seconds;
        Ok(Summary {
            before: self.before.clone(),
            after: self.latest.clone(),
            steps: self.step,
            seconds,
        })
    }

    /// One step: play, assign credit, update, evaluate where it is due.
    ///
    /// # Errors
    /// The first failure. The trainer may then have taken a part of the step: go on from the last
    /// committed checkpoint ([`Trainer::resume`]), not from here.
    pub fn step(
        &mut self,
        observer: &mut dyn Observer,
    ) -> Result<(StepReport, Option<(Collected, Credit)>), TrainError> {
        let begun = Instant::now();
        let mut report = StepReport { step: self.step + 1, ..StepReport::default() };
        report.timings.commit = self.commit_seconds;

        let collector = Collector { config: &self.config, tasks: &*self.tasks, stop: &self.stop };
        let mut tape = match self.tape.take() {
            Some(tape) => Some(tape),
            None => blank_tape(&self.policy, &self.config)?,
        };
        if let Some(tape) = &mut tape {
            tape.restart(&self.policy.model);
        }
        let (policy, stream) = (&self.policy, &mut self.stream);
        let lent = Lent { tape: &mut tape, memory: self.workers.idle_gradient(&policy.model) };
        let collected = collector.collect(policy, stream, report.step, lent)?;
        report.timings.rollout = begun.elapsed().as_secs_f64();
        report.played = collected.played.clone();
        report.groups = collected.batch.groups.len();
        report.rollouts = collected.batch.groups.iter().map(|g| g.rollouts.len()).sum();

        let credit = if collected.batch.groups.is_empty() {
            None
        } else {
            Some(self.learn(&collected, tape.as_ref(), &mut report)?)
        };
        self.tape = tape;
        self.step += 1;
        let every = self.config.eval.every;
        if self.step == self.config.steps || (every > 0 && self.step.is_multiple_of(every)) {
            let clock = Instant::now();
            report.evaluations = self.evaluate(observer)?;
            self.latest.clone_from(&report.evaluations);
            report.timings.evaluate = clock.elapsed().as_secs_f64();
        }
        report.timings.total = begun.elapsed().as_secs_f64();
        let working = report.timings.total - report.timings.evaluate;
        report.timings.tokens_per_s = report.played.context_tokens as f64 / working.max(1e-9);
        Ok((report, credit.map(|credit| (collected, credit))))
    }

    /// Credit and update for a batch, of which a tape may have forward passes.
    fn learn(
        &mut self,
        collected: &Collected,
        tape: Option<&Tape>,
        report: &mut StepReport,
    ) -> Result<Credit, TrainError> {
        let batch = &collected.batch;
        let clock = Instant::now();
        let credit = self.advantage.assign(batch)?;
        report.credit = Some(credit.summary());
        report.timings.credit = clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let reference = self.score_reference(batch, &credit, report)?;
        report.timings.reference = clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let algo = &self.config.algo;
        let settings = LossSettings::new(algo, self.config.rollout.temperature);
        let aggregation = algo.aggregation.unwrap_or_default();
        let taped = tape.map(|tape| {
            let held = |e: &Episode| e.taped.family.is_some_and(|family| tape.holds(family));
            let rows = |e: &Episode| if held(e) { e.taped.segments.clone() } else { Vec::new() };
            collected.episodes.iter().map(|group| group.iter().map(rows).collect()).collect()
        });
        let mut norms = 0.0;
        for epoch in 0..algo.epochs {
            let mut order: Vec<usize> = (0..batch.groups.len()).collect();
            seed::Rng::new(seed::derive(&[self.config.seed, report.step, epoch as u64, 3]))
                .shuffle(&mut order);
            report.loss = LossSums::default();
            let minibatches = order.chunks(algo.minibatch_groups(order.len()));
            let cuts = minibatches.len() as f64;
            for members in minibatches {
                let budget = self.budget(batch, members);
                // Behind the first update the tape is of other weights.
                let taped = taped.as_ref().filter(|_| report.updates == 0);
                let reference = Some(&reference);
                let (micro, stats) =
                    pack_on_tape(batch, members, &credit, reference, taped, aggregation, budget);
                self.workers.set_dropout_seed(seed::derive(&[
                    self.config.seed,
                    seed::name("dropout"),
                    report.step,
                    report.updates,
                ]));
                let (sums, optim) = update(
                    &mut self.policy.model,
                    &mut self.optimizer,
                    &mut self.workers,
                    &micro,
                    tape,
                    &settings,
                )?;
                report.loss.add(&sums);
                report.rows += stats.rows;
                report.rows_saved += stats.rows_saved;
                report.rows_taped += stats.rows_taped;
                report.updates += 1;
                norms += optim.grad_norm;
                report.lr = optim.lr;
            }
            report.loss.loss /= cuts;
        }
        report.grad_norm = norms / report.updates.max(1) as f64;
        report.timings.update = clock.elapsed().as_secs_f64();
        Ok(credit)
    }

    /// Rows of a micro-batch: the configured budget, or less so that every worker has a share.
    pub(crate) fn budget(&self, batch: &Batch, members: &[usize]) -> usize {
        let rows: usize = members
            .iter()
            .flat_map(|&g| &batch.groups[g].rollouts)
            .flat_map(empg::Trajectory::segments)
            .map(|s| s.tokens.len())
            .sum();
        let share = rows.div_ceil(self.workers.threads().max(1));
        self.config.algo.micro_batch_tokens.min(share.max(1))
    }

    /// log π_ref of every sampled token.
    fn score_reference(
        &mut self,
        batch: &Batch,
        credit: &Credit,
        report: &mut StepReport,
    ) -> Result<ReferenceLogprobs, TrainError> {
        let members: Vec<usize> = (0..batch.groups.len()).collect();
        let budget = self.budget(batch, &members);
        let aggregation = self.config.algo.aggregation.unwrap_or_default();
        let (packs, _) = pack(batch, &members, credit, None, aggregation, budget);
        let temperature = self.config.rollout.temperature;
        self.reference.swap(&mut self.policy);
        let scores = self.workers.score(&self.policy.model, &packs, temperature);
        self.reference.swap(&mut self.policy);
        let scores = scores?;
        let mut reference: ReferenceLogprobs = batch
            .groups
            .iter()
            .map(|group| {
                group
                    .rollouts
                    .iter()
                    .map(|r| {
                        r.steps()
                            .iter()
                            .map(|s| s.scores().iter().map(|s| s.logprob).collect())
                            .collect()
                    })
                    .collect()
            })
            .collect();
        let (mut kl, mut count) = (0.0, 0usize);
        for (pack, scores) in packs.iter().zip(&scores) {
            for ((&[g, r, t, j], target), score) in
                pack.origin.iter().zip(&pack.targets).zip(scores)
            {
                reference[g][r][t][j] = score.logprob;
                kl += loss::k3(f64::from(target.old_logprob), f64::from(score.logprob)).value;
                count += 1;
            }
        }
        report.kl_reference = kl / count.max(1) as f64;
        let entropies = batch
            .groups
            .iter()
            .flat_map(|g| &g.rollouts)
            .flat_map(empg::Trajectory::steps)
            .flat_map(empg::Step::scores);
        let (mut sum, mut n) = (0.0, 0usize);
        for score in entropies {
            sum += f64::from(score.entropy);
            n += 1;
        }
        report.token_entropy = sum / n.max(1) as f64;
        Ok(reference)
    }

    /// Plays every panel with the policy as it is.
    ///
    /// # Errors
    /// See [`Panel::play`].
    pub fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<Vec<Evaluation>, TrainError> {
        let episodes = self.panels.iter().map(|p| p.tasks.len()).sum();
        observer.on(Progress::Evaluating { step: self.step, episodes });
        let settings = evaluation_settings(&self.config);
        let mut evaluations = Vec::with_capacity(self.panels.len());
        for panel in &self.panels {
            let memory = self.workers.idle_gradient(&self.policy.model);
            let (policy, tasks) = (&self.policy, &*self.tasks);
            let played = panel.play_in(policy, tasks, &settings, &self.stop, memory)?.0;
            // No result at all is no success rate of 0.
            if let Some(why) = played.failure.as_ref().filter(|_| played.failed == played.episodes)
            {
                let what = format!("every episode of the evaluation failed; the first: {why}");
                return Err(TrainError::Tasks(what));
            }
            evaluations.push(played);
        }
        observer.on(Progress::Evaluated { step: self.step, evaluations: &evaluations });
        Ok(evaluations)
    }

    fn commit(
        &mut self,
        run: Option<&mut RunDir>,
        report: &StepReport,
        learned: Option<&(Collected, Credit)>,
    ) -> Result<(), TrainError> {
        let Some(run) = run else { return Ok(()) };
        let clock = Instant::now();
        let step = report.step;
        let every = self.config.record.trajectories_every;
        let rows = learned
            .filter(|_| every > 0 && step.is_multiple_of(every))
            .map(|(collected, credit)| state::rows(step, collected, credit));
        let due = step == 0
            || step == self.config.steps
            || (self.config.checkpoint.every > 0
                && step.is_multiple_of(self.config.checkpoint.every));
        if due {
            // A checkpoint lies in memory as it is written: as much as three copies of what is trained.
            self.workers.release();
            self.tape = None;
        }
        let checkpoint = if due { Some(state::checkpoint(self, report)?) } else { None };
        run.commit(&StepRecord {
            step,
            metrics: report.metrics(),
            timings: report.timings(),
            trajectories: rows.as_deref(),
            checkpoint,
        })?;
        self.commit_seconds = clock.elapsed().as_secs_f64();
        Ok(())
    }
}

/// A tape as long as the configuration allows; a quarter of it is for distributions.
fn blank_tape(policy: &Policy, config: &Config) -> Result<Option<Tape>, ConfigError> {
    let wrong = |what: String| ConfigError { key: "model.tape_gb", what };
    let precision = config.model.precision();
    let bytes = (config.model.tape_gb * 1e9) as usize;
    let distributions = bytes / 4 / Tape::distribution_bytes(&policy.model, precision);
    let rows = bytes / 4 * 3 / Tape::row_bytes(&policy.model, precision);
    if rows == 0 {
        return Ok(None);
    }
    if split_threads(&policy.model, config.threads).0 > 1 {
        let what = "keeps what one decoder computes, and a model this small is sampled by one on \
                    each thread: leave it at 0, or set threads = 1";
        return Err(wrong(what.into()));
    }
    let tape = Tape::new(&policy.model, precision, rows)
        .and_then(|tape| tape.with_distributions(distributions));
    tape.map(Some).map_err(|e| wrong(format!("is {}: {e}", config.model.tape_gb)))
}

/// The estimator that a configuration names.
fn advantage(config: &Config) -> Result<Box<dyn Advantage + Send + Sync>, TrainError> {
    fn over<A: Advantage + Send + Sync + 'static>(
        base: A,
        config: &Config,
    ) -> Result<Box<dyn Advantage + Send + Sync>, TrainError> {
        Ok(match config.empg_options() {
            Some(options) => {
                options.validate()?;
                Box::new(Empg { base, options })
            }
            None => Box::new(base),
        })
    }
    match config.algo.base {
        Base::Grpo => over(Grpo { ddof: config.algo.ddof, eps: config.algo.eps }, config),
        Base::DrGrpo => over(DrGrpo, config),
        Base::Rloo => over(Rloo, config),
    }
}
