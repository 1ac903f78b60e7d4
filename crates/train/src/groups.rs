//! From tasks to groups: which tasks come next, DAPO's dynamic sampling, rewards.

use std::sync::atomic::AtomicBool;

use empg::{Batch, End, Group, flat};
use empg_env::{Split, Task, TaskSet};

use crate::TrainError;
use crate::config::{Base, Config, Outcome, RewardConfig};
use crate::policy::Policy;
use crate::rollout::{Episode, Job, Lent, RolloutSettings, rollout_with};
use crate::seed;

/// The training tasks in the order in which they are drawn: every epoch a new permutation.
#[derive(Debug)]
pub(crate) struct TaskStream {
    seed: u64,
    cursor: u64,
    epoch: Option<(u64, Vec<u64>)>,
}

impl TaskStream {
    pub(crate) fn new(seed: u64, cursor: u64) -> Self {
        Self { seed, cursor, epoch: None }
    }

    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    fn next(&mut self, tasks: &dyn TaskSet) -> Result<Task, TrainError> {
        let cursor = self.cursor;
        let index = match tasks.len(Split::Train) {
            Some(0) => {
                return Err(TrainError::Tasks(format!("{} has no training tasks", tasks.name())));
            }
            // Generated tasks: a run reads its own stretch of the sequence.
            None => seed::derive(&[self.seed, seed::name("task"), cursor]) >> 32,
            Some(n) => {
                let epoch = cursor / n;
                if self
                    .epoch
                    .as_ref()
                    .is_none_or(|(e, order)| *e != epoch || order.len() as u64 != n)
                {
                    let mut order: Vec<u64> = (0..n).collect();
                    seed::Rng::new(seed::derive(&[self.seed, seed::name("epoch"), epoch]))
                        .shuffle(&mut order);
                    self.epoch = Some((epoch, order));
                }
                self.epoch.as_ref().map_or(0, |(_, order)| order[(cursor % n) as usize])
            }
        };
        self.cursor += 1;
        Ok(tasks.task(Split::Train, index)?)
    }
}

/// Groups that an update can learn from, and what it took to get them.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The groups, rewards with penalties.
    pub batch: Batch,
    /// The episodes behind `batch`, in the same order.
    pub episodes: Vec<Vec<Episode>>,
    /// Every episode that was played, in short.
    pub played: Played,
}

/// Sums over all episodes played for a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Played {
    /// Episodes.
    pub episodes: usize,
    /// Episodes won.
    pub won: usize,
    /// Σ R, penalties included.
    pub reward: f64,
    /// Turns.
    pub turns: usize,
    /// Sampled tokens.
    pub sampled_tokens: usize,
    /// Tokens of all contexts.
    pub context_tokens: usize,
    /// Commands without effect.
    pub ineffective: usize,
    /// Episodes that the environment failed.
    pub failed: usize,
    /// What the first of them said.
    pub failure: Option<String>,
    /// Episodes cut off by a limit.
    pub truncated: usize,
    /// Groups sampled.
    pub groups: usize,
    /// Groups whose rewards were all equal.
    pub groups_flat: usize,
    /// Groups dropped: flat ones with dynamic sampling, and those of which fewer than two rollouts were
    /// left.
    pub groups_dropped: usize,
    /// Rounds of sampling.
    pub rounds: usize,
}

/// Plays training episodes until a batch is full.
pub struct Collector<'a> {
    /// The resolved configuration.
    pub config: &'a Config,
    /// The tasks.
    pub tasks: &'a dyn TaskSet,
    /// Set to stop between turns.
    pub stop: &'a AtomicBool,
}

impl Collector<'_> {
    /// Plays groups for step `step`; with dynamic sampling flat groups are dropped and others are
    /// sampled in their place, for at most `algo.max_rounds` rounds.
    ///
    /// # Errors
    /// See [`rollout`](crate::rollout()).
    pub(crate) fn collect(
        &self,
        policy: &Policy,
        stream: &mut TaskStream,
        step: u64,
        Lent { tape, memory }: Lent<'_>,
    ) -> Result<Collected, TrainError> {
        let config = self.config;
        let dynamic = config.algo.dynamic_sampling.unwrap_or(false);
        let wanted = config.rollout.groups;
        let settings = RolloutSettings::training(&config.rollout, config.threads)
            .with_precision(config.model.precision());
        // What the base can compare, where others of a group failed.
        let least = match config.algo.base {
            Base::Grpo => (config.algo.ddof as usize + 1).max(2),
            _ => 2,
        };
        let mut collected =
            Collected { batch: Batch::default(), episodes: Vec::new(), played: Played::default() };
        for round in 0..config.algo.max_rounds {
            let missing = wanted - collected.batch.groups.len();
            if missing == 0 || (round > 0 && !dynamic) {
                break;
            }
            // Later rounds expect as many flat groups as the earlier ones had.
            let played = &collected.played;
            let kept = collected.batch.groups.len();
            let draw = if round == 0 {
                wanted
            } else {
                (missing * played.groups).div_ceil(kept.max(1)).min(wanted)
            };
            collected.played.rounds += 1;
            let mut jobs = Vec::with_capacity(draw * config.rollout.group_size);
            for group in 0..draw {
                let task = stream.next(self.tasks)?;
                let place = [config.seed, step, round as u64, group as u64];
                for r in 0..config.rollout.group_size as u64 {
                    let [a, b, c, d] = place;
                    jobs.push(Job {
                        task: task.clone(),
                        env_seed: seed::derive(&place),
                        sampling_seed: seed::derive(&[a, b, c, d, r]),
                        group,
                    });
                }
            }
            let lent = Lent { tape: &mut *tape, memory: &mut *memory };
            let episodes = rollout_with(policy, self.tasks, &jobs, &settings, self.stop, lent)?;
            let mut episodes = episodes.into_iter().peekable();
            while let Some(first) = episodes.next() {
                let mut members = vec![first];
                while let Some(e) = episodes.next_if(|e| e.group == members[0].group) {
                    members.push(e);
                }
                let family = members.iter().find_map(|e| e.taped.family);
                let before = collected.batch.groups.len();
                self.sort_in(members, dynamic, least, &mut collected)?;
                if let (Some(tape), Some(family)) = (tape.as_mut(), family)
                    && collected.batch.groups.len() == before
                {
                    // Room for the next round.
                    tape.forget(family);
                }
            }
        }
        let played = &collected.played;
        if let Some(why) = played.failure.as_ref().filter(|_| played.failed == played.episodes) {
            return Err(TrainError::Tasks(format!("every episode failed; the first: {why}")));
        }
        if played.sampled_tokens == 0 {
            return Err(TrainError::Tasks(format!(
                "no prompt left room for a turn of rollout.max_turn_tokens = {}: contexts end at \
                 {} tokens (rollout.max_context_tokens, or the model's positions)",
                self.config.rollout.max_turn_tokens,
                self.config
                    .rollout
                    .max_context_tokens
                    .min(policy.model.config.max_position_embeddings)
            )));
        }
        Ok(collected)
    }

    fn sort_in(
        &self,
        members: Vec<Episode>,
        dynamic: bool,
        least: usize,
        collected: &mut Collected,
    ) -> Result<(), TrainError> {
        let played = &mut collected.played;
        played.groups += 1;
        let mut kept = Vec::new();
        let mut rollouts = Vec::new();
        for episode in members {
            let reward = reward(&episode, &self.config.reward);
            played.episodes += 1;
            played.won += usize::from(episode.won);
            played.reward += reward;
            played.turns += episode.turns.len();
            played.sampled_tokens += episode.sampled_tokens();
            played.context_tokens += episode.context_tokens();
            played.ineffective += episode.ineffective;
            match episode.trajectory.end() {
                End::Failed(why) => {
                    played.failed += 1;
                    played.failure.get_or_insert_with(|| why.clone());
                    continue;
                }
                End::Truncated(_) => played.truncated += 1,
                End::Terminated => {}
            }
            // An episode whose first prompt did not fit has nothing to learn from.
            if episode.trajectory.steps().is_empty() {
                continue;
            }
            rollouts.push(episode.trajectory.clone().with_reward(reward)?);
            kept.push(episode);
        }
        if rollouts.len() < least {
            played.groups_dropped += 1;
            return Ok(());
        }
        let group = Group { task: rollouts[0].task().to_owned(), rollouts };
        if flat(&group) {
            played.groups_flat += 1;
            if dynamic {
                played.groups_dropped += 1;
                return Ok(());
            }
        }
        if collected.batch.groups.len() < self.config.rollout.groups {
            collected.batch.groups.push(group);
            collected.episodes.push(kept);
        }
        Ok(())
    }
}

/// R = outcome − penalties.
fn reward(episode: &Episode, config: &RewardConfig) -> f64 {
    let outcome = match config.outcome {
        Outcome::Success => f64::from(u8::from(episode.won)),
        Outcome::Score => episode.trajectory.reward(),
    };
    let invalid = config.invalid_penalty * episode.ineffective as f64;
    let long = config.overlong.map_or(0.0, |o| o.shaping(episode.sampled_tokens()));
    outcome - invalid + long
}
