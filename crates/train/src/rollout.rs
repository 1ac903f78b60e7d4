//! Episodes: the only place that goes back and forth between environment and model.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use empg::{End, Limit, Segment, Step, TokenId, Trajectory};
use empg_env::{Env, EnvEnd, Task, TaskSet};
use empg_llm::{
    DecodeWeights, Decoder, Precision, SamplingParams, SeqId, Tape, TapeFamily, TapeRow,
};

use crate::TrainError;
use crate::aside::each;
use crate::config::{Context, RolloutConfig};
use crate::policy::{Policy, split_threads};
use crate::script::Script;
use crate::seed;
use crate::voice::{Story, Voice};

/// One episode to play.
#[derive(Clone, Debug)]
pub struct Job {
    /// The task.
    pub task: Task,
    /// Seed of the environment; equal within a group.
    pub env_seed: u64,
    /// Seed of the episode's sampling.
    pub sampling_seed: u64,
    /// Rollouts of one group stand beside each other and share this number.
    pub group: usize,
}

/// How episodes are played.
#[derive(Clone, Debug)]
pub struct RolloutSettings {
    /// Limits, context, sampling.
    pub config: RolloutConfig,
    /// Sampling temperature (overrides the configuration's; 0 for greedy evaluation).
    pub temperature: f32,
    /// Turns of an episode (overrides the configuration's).
    pub max_turns: usize,
    /// Commands in a row without effect that end the episode; 0 never does.
    pub stuck_after: usize,
    /// Worker threads; each plays its share of the groups with a decoder of its own, or all share one
    /// decoder of a large model.
    pub threads: usize,
    /// The format of the decoder's products.
    pub precision: Precision,
}

impl RolloutSettings {
    /// The settings of training rollouts.
    pub fn training(config: &RolloutConfig, threads: usize) -> Self {
        Self {
            temperature: config.temperature,
            max_turns: config.max_turns,
            stuck_after: config.stuck_after,
            config: config.clone(),
            threads,
            precision: Precision::F32,
        }
    }

    /// The same with products in another format.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }
}

/// One turn as a person reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct TurnText {
    /// What the agent saw.
    pub observation: String,
    /// What it said.
    pub said: String,
    /// The command in it; all of it where the prompt is plain.
    pub action: String,
    /// Whether it had the asked form and the environment understood it.
    pub effect: bool,
}

/// A finished episode.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// Tokens, steps and scores; its reward is the sum of the environment's, before penalties.
    pub trajectory: Trajectory,
    /// The task's type.
    pub kind: String,
    /// The group it belongs to.
    pub group: usize,
    /// Whether the task was solved.
    pub won: bool,
    /// Commands without effect.
    pub ineffective: usize,
    /// The turns in words.
    pub turns: Vec<TurnText>,
    /// What a tape has of it.
    pub taped: Taped,
}

/// Where a tape has an episode.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taped {
    /// Its group; `None` if nothing is kept.
    pub family: Option<TapeFamily>,
    /// Rows of every segment's tokens, as far as they were computed.
    pub segments: Vec<Vec<TapeRow>>,
}

impl Episode {
    /// Tokens that the policy sampled.
    pub fn sampled_tokens(&self) -> usize {
        self.trajectory.steps().iter().map(|s| s.sampled().len()).sum()
    }

    /// Tokens of all contexts.
    pub fn context_tokens(&self) -> usize {
        self.trajectory.segments().iter().map(|s| s.tokens.len()).sum()
    }
}

/// Sequences that one decoder holds at a time; bounds the memory of the caches.
const LIVE_SEQUENCES: usize = 128;

/// Plays all jobs; the episodes come back in the order of the jobs.
///
/// An environment that fails ends its episode as [`End::Failed`]; the others go on. `stop` is
/// looked at between turns.
///
/// # Errors
/// A model or tokenizer that cannot continue, or [`TrainError::Interrupted`].
pub fn rollout(
    policy: &Policy,
    tasks: &dyn TaskSet,
    jobs: &[Job],
    settings: &RolloutSettings,
    stop: &AtomicBool,
) -> Result<Vec<Episode>, TrainError> {
    let lent = Lent { tape: &mut None, memory: &mut [] };
    rollout_with(policy, tasks, jobs, settings, stop, lent)
}

/// What training lends to sampling.
pub(crate) struct Lent<'a> {
    /// Of the policy as it is: it keeps what is computed, where one decoder computes it all, a large
    /// model's, which all threads share, or that of one thread.
    pub(crate) tape: &'a mut Option<Tape>,
    /// Where the decoders' weights may lie; what it holds is lost.
    pub(crate) memory: &'a mut [f32],
}

/// The same with what training lends.
pub(crate) fn rollout_with(
    policy: &Policy,
    tasks: &dyn TaskSet,
    jobs: &[Job],
    settings: &RolloutSettings,
    stop: &AtomicBool,
    Lent { tape, memory }: Lent<'_>,
) -> Result<Vec<Episode>, TrainError> {
    // Environments that are elsewhere may be used by so many at a time only.
    let places = tasks.elsewhere();
    let most = places.map_or(usize::MAX, NonZeroUsize::get);
    let script = policy.script(&settings.config, tasks.name())?;
    let (threads, shared) = split_threads(&policy.model, settings.threads);
    let threads = threads.clamp(1, most);
    let live = (most / threads).min(LIVE_SEQUENCES);
    // Groups stay together, so that a shared prompt is computed once.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        match groups.last_mut() {
            Some(last)
                if jobs[last[0]].group == job.group && (places.is_none() || last.len() < live) =>
            {
                last.push(index);
            }
            _ => groups.push(vec![index]),
        }
    }
    let precision = settings.precision;
    let weights = DecodeWeights::in_memory(&policy.model, precision, settings.threads, memory);
    let weights = Arc::new(weights);
    let workers = threads.min(groups.len().max(1));
    let shares: Vec<Vec<&[usize]>> = (0..workers)
        .map(|w| groups.iter().skip(w).step_by(workers).map(Vec::as_slice).collect())
        .collect();
    let mut tape = Some(tape).filter(|_| workers == 1);
    let played: Vec<Result<Vec<(usize, Episode)>, TrainError>> = std::thread::scope(|scope| {
        let handles: Vec<_> = shares
            .iter()
            .map(|share| {
                let stage =
                    Stage { policy, weights: &weights, shared, tasks, jobs, script: &script };
                let tape = tape.take();
                scope.spawn(move || {
                    let mut none = None;
                    play_share(&stage, share, live, settings, stop, tape.unwrap_or(&mut none))
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|h| h.join().unwrap_or_else(|_| Err(TrainError::Worker("rollout".into()))))
            .collect()
    });
    let mut episodes: Vec<Option<Episode>> = vec![None; jobs.len()];
    for share in played {
        for (index, episode) in share? {
            episodes[index] = Some(episode);
        }
    }
    Ok(episodes.into_iter().flatten().collect())
}

/// What all episodes of a rollout share.
struct Stage<'a> {
    policy: &'a Policy,
    weights: &'a Arc<DecodeWeights<'a>>,
    /// Threads of one decoder.
    shared: usize,
    tasks: &'a dyn TaskSet,
    jobs: &'a [Job],
    script: &'a Script,
}

fn play_share(
    stage: &Stage<'_>,
    groups: &[&[usize]],
    live: usize,
    settings: &RolloutSettings,
    stop: &AtomicBool,
    tape: &mut Option<Tape>,
) -> Result<Vec<(usize, Episode)>, TrainError> {
    let mut finished = Vec::new();
    let mut next = 0;
    while next < groups.len() {
        let mut wave = Vec::new();
        let mut size = 0;
        while next < groups.len() && (size == 0 || size + groups[next].len() <= live) {
            size += groups[next].len();
            wave.push(groups[next]);
            next += 1;
        }
        finished.extend(play_wave(stage, &wave, settings, stop, tape)?);
    }
    Ok(finished)
}

/// One episode that is being played.
struct Live {
    job: usize,
    env: Box<dyn Env>,
    seq: Option<SeqId>,
    /// The open segment.
    context: Vec<TokenId>,
    segments: Vec<Segment>,
    /// The closed segments'.
    taped: Taped,
    steps: Vec<Step>,
    turns: Vec<TurnText>,
    observation: String,
    task_text: String,
    ineffective: usize,
    stuck: usize,
    sampled: usize,
    outcome: Return,
    won: bool,
    /// The last turn did not have the asked form.
    invalid: bool,
    end: Option<End>,
}

fn play_wave(
    stage: &Stage<'_>,
    groups: &[&[usize]],
    settings: &RolloutSettings,
    stop: &AtomicBool,
    tape: &mut Option<Tape>,
) -> Result<Vec<(usize, Episode)>, TrainError> {
    let &Stage { policy, weights, shared, tasks, jobs, script } = stage;
    let config = &settings.config;
    let voice = Voice::new(&policy.tokenizer, script, config)?;
    let limit = config.max_context_tokens.min(policy.model.config.max_position_embeddings);
    let mut decoder = Decoder::with_weights(Arc::clone(weights), limit)?.with_threads(shared);
    if let Some(tape) = tape.take() {
        decoder = decoder.with_tape(tape)?;
    }
    let places = tasks.elsewhere();
    let mut lives: Vec<Live> = groups
        .iter()
        .flat_map(|group| group.iter())
        .map(|&job| Live::new(job, tasks.make()))
        .collect();
    each(lives.iter_mut().collect(), places, |live| live.start(&jobs[live.job]));
    let mut starting = lives.iter_mut();
    for group in groups {
        // Equal prompts share one computed prefix.
        let mut prompt: Option<(Vec<TokenId>, SeqId)> = None;
        let family = decoder.tape_family();
        for live in starting.by_ref().take(group.len()) {
            if live.end.is_none() {
                live.context = opening(&voice, config, live)?;
                if live.context.len() + config.max_turn_tokens > limit {
                    live.end = Some(End::Truncated(Limit::ContextTokens));
                } else {
                    let seq = match &prompt {
                        Some((prefix, seq)) if *prefix == live.context => decoder.fork(*seq)?,
                        _ => open(&mut decoder, &live.context, family)?,
                    };
                    live.taped.family = family;
                    if prompt.is_none() {
                        prompt = Some((live.context.clone(), seq));
                    }
                    live.seq = Some(seq);
                }
            }
        }
    }
    let params = SamplingParams {
        temperature: settings.temperature,
        top_k: config.top_k,
        top_p: config.top_p,
        max_tokens: config.max_turn_tokens,
        stop: [&[voice.end_of_turn()], policy.end_tokens.as_slice()].concat(),
    };
    for turn in 0..settings.max_turns {
        let active: Vec<usize> = (0..lives.len()).filter(|&i| lives[i].end.is_none()).collect();
        if active.is_empty() {
            break;
        }
        if stop.load(Ordering::Relaxed) {
            return Err(TrainError::Interrupted);
        }
        let mut requests = Vec::with_capacity(active.len());
        for &i in &active {
            let seed = seed::derive(&[jobs[lives[i].job].sampling_seed, turn as u64]);
            if let Some(seq) = lives[i].seq {
                requests.push((seq, seed));
            }
        }
        let sampled = decoder.generate(&requests, &params)?;
        let mut turns = Vec::with_capacity(active.len());
        let mut stopped = Vec::with_capacity(active.len());
        let acting = lives.iter_mut().filter(|live| live.end.is_none());
        for (live, mut sample) in acting.zip(sampled) {
            // What was sampled beyond the episode's budget was not said: the batch is sampled together,
            // and a sequence's tokens do not depend on how many follow.
            let left = left_of_budget(config, live.sampled);
            if sample.tokens.len() > left {
                sample.tokens.truncate(left);
                sample.scores.truncate(left);
                sample.stopped = false;
            }
            let said = policy.tokenizer.decode(&sample.tokens)?;
            let start = live.context.len();
            live.context.extend_from_slice(&sample.tokens);
            live.sampled += sample.tokens.len();
            let range = start..live.context.len();
            live.steps.push(Step::new(live.segments.len(), range, sample.scores));
            turns.push((live, said));
            // Another end token is no end of the turn: that is appended behind it.
            let last = sample.tokens.last().copied();
            stopped.push(sample.stopped && last == Some(voice.end_of_turn()));
        }
        each(turns, places, |(live, said)| act(live, said, script, settings));
        for (&i, stopped) in active.iter().zip(stopped) {
            let live = &mut lives[i];
            if live.end.is_none() && turn + 1 == settings.max_turns {
                live.end = Some(End::Truncated(Limit::Turns));
            }
            if live.end.is_none() {
                proceed(live, &voice, &mut decoder, config, limit, stopped)?;
            }
            if live.end.is_some()
                && let Some(seq) = live.seq.take()
            {
                live.taped.segments.push(decoder.tape_rows(seq));
                decoder.close(seq);
            }
        }
    }
    *tape = decoder.take_tape();
    lives
        .into_iter()
        .map(|live| {
            let job = live.job;
            Ok((job, seal(live, &jobs[job])?))
        })
        .collect()
}

impl Live {
    fn new(job: usize, env: Box<dyn Env>) -> Self {
        Self {
            job,
            env,
            seq: None,
            context: Vec::new(),
            segments: Vec::new(),
            taped: Taped::default(),
            steps: Vec::new(),
            turns: Vec::new(),
            observation: String::new(),
            task_text: String::new(),
            ineffective: 0,
            stuck: 0,
            sampled: 0,
            outcome: Return::default(),
            won: false,
            invalid: false,
            end: None,
        }
    }

    /// The episode so far.
    fn story<'s>(&'s self, admissible: &'s [String]) -> Story<'s> {
        Story {
            intro: &self.task_text,
            turns: &self.turns,
            observation: &self.observation,
            admissible,
            invalid: self.invalid,
        }
    }

    fn start(&mut self, job: &Job) {
        match self.env.reset(&job.task.id, job.env_seed) {
            Ok(observation) => {
                self.task_text.clone_from(&observation.text);
                self.observation = observation.text;
            }
            Err(error) => self.end = Some(End::Failed(error.to_string())),
        }
    }
}

/// A sum of rewards in which their order does as good as never show: equal rewards give equal returns,
/// so that groups of them are found flat.
#[derive(Clone, Copy, Debug, Default)]
struct Return {
    sum: f64,
    /// What the sum's rounding lost (Neumaier).
    lost: f64,
}

impl Return {
    fn add(&mut self, reward: f64) {
        let sum = self.sum + reward;
        self.lost += if self.sum.abs() >= reward.abs() {
            (self.sum - sum) + reward
        } else {
            (reward - sum) + self.sum
        };
        self.sum = sum;
    }

    fn value(self) -> f64 {
        self.sum + self.lost
    }
}

/// Plays what was said in the environment and books what it led to.
fn act(live: &mut Live, said: String, script: &Script, settings: &RolloutSettings) {
    let observation = std::mem::take(&mut live.observation);
    let spoken = script.read(&said);
    let played = live.env.step(script.played(&said, &spoken));
    let action = spoken.action;
    let transition = match played {
        Ok(transition) => transition,
        Err(error) => {
            live.turns.push(TurnText { observation, said, action, effect: false });
            live.end = Some(End::Failed(error.to_string()));
            return;
        }
    };
    // What does not have the asked form counts as a command without effect, whatever it led to.
    let effect = transition.effect && spoken.valid;
    live.invalid = !spoken.valid;
    live.turns.push(TurnText { observation, said, action, effect });
    live.observation = transition.observation.text;
    live.won = transition.won;
    live.outcome.add(transition.reward);
    if effect {
        live.stuck = 0;
    } else {
        live.ineffective += 1;
        live.stuck += 1;
    }
    live.end = match transition.end {
        Some(EnvEnd::Terminated) => Some(End::Terminated),
        Some(EnvEnd::Truncated(limit)) => Some(End::Truncated(limit)),
        None if settings.stuck_after > 0 && live.stuck >= settings.stuck_after => {
            Some(End::Truncated(Limit::Stuck))
        }
        None => None,
    };
}

/// Tokens that an episode may still sample.
fn left_of_budget(config: &RolloutConfig, sampled: usize) -> usize {
    match config.max_episode_tokens {
        0 => usize::MAX,
        most => most.saturating_sub(sampled),
    }
}

/// Brings the context to the point where the next turn is sampled.
fn proceed(
    live: &mut Live,
    voice: &Voice<'_>,
    decoder: &mut Decoder<'_>,
    config: &RolloutConfig,
    limit: usize,
    stopped: bool,
) -> Result<(), TrainError> {
    if left_of_budget(config, live.sampled) == 0 {
        live.end = Some(End::Truncated(Limit::EpisodeTokens));
        return Ok(());
    }
    match config.context {
        Context::Full => {
            let next = voice.next(&live.story(&[]), stopped)?;
            if live.context.len() + next.len() + config.max_turn_tokens > limit {
                live.end = Some(End::Truncated(Limit::ContextTokens));
                return Ok(());
            }
            live.context.extend_from_slice(&next);
            if let Some(seq) = live.seq {
                decoder.append(seq, &next)?;
            }
        }
        Context::Window(_) => {
            live.segments.push(Segment { tokens: std::mem::take(&mut live.context) });
            live.context = opening(voice, config, live)?;
            if let Some(seq) = live.seq.take() {
                live.taped.segments.push(decoder.tape_rows(seq));
                decoder.close(seq);
            }
            if live.context.len() + config.max_turn_tokens > limit {
                live.end = Some(End::Truncated(Limit::ContextTokens));
                return Ok(());
            }
            live.seq = Some(open(decoder, &live.context, live.taped.family)?);
        }
    }
    Ok(())
}

/// Opens a context that a tape keeps, if there is one.
fn open(
    decoder: &mut Decoder<'_>,
    context: &[TokenId],
    family: Option<TapeFamily>,
) -> Result<SeqId, TrainError> {
    let seq = decoder.open(context)?;
    if let Some(family) = family {
        decoder.keep(seq, family)?;
    }
    Ok(seq)
}

/// The context in which a segment's first turn is sampled.
fn opening(
    voice: &Voice<'_>,
    config: &RolloutConfig,
    live: &Live,
) -> Result<Vec<TokenId>, TrainError> {
    let listed = config.admissible && matches!(config.context, Context::Window(_));
    let admissible = if listed { live.env.admissible() } else { Vec::new() };
    voice.opening(&live.story(&admissible))
}

fn seal(mut live: Live, job: &Job) -> Result<Episode, TrainError> {
    // A rebuilt context in which nothing was sampled any more is no segment.
    let last = live.segments.len();
    if live.steps.iter().any(|s| s.segment() == last) || live.segments.is_empty() {
        live.segments.push(Segment { tokens: live.context });
    }
    let end = live.end.unwrap_or(End::Truncated(Limit::Turns));
    let trajectory = Trajectory::new(
        job.task.id.as_str(),
        live.segments,
        live.steps,
        live.outcome.value(),
        end,
    )?;
    Ok(Episode {
        trajectory,
        kind: job.task.kind.clone(),
        group: job.group,
        won: live.won,
        ineffective: live.ineffective,
        turns: live.turns,
        taped: live.taped,
    })
}
