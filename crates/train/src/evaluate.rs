//! Evaluation on fixed task panels.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use empg::End;
use empg_env::{Split, Task, TaskSet};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::config::Config;
use crate::policy::Policy;
use crate::rollout::{Episode, Job, Lent, RolloutSettings, rollout_with};
use crate::seed;

/// The tasks of an evaluation: the same ones with the same seeds every time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panel {
    /// The split that they come from.
    pub split: Split,
    /// Seed of the choice and of the sampling.
    pub seed: u64,
    /// The tasks.
    pub tasks: Vec<Task>,
}

impl Panel {
    /// Chooses `episodes` tasks of a split without repetition; 0, or more than there are, means
    /// all of them. An unlimited split needs a number.
    ///
    /// # Errors
    /// Tasks that cannot be read, an empty split.
    pub fn choose(
        tasks: &dyn TaskSet,
        split: Split,
        episodes: usize,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let mut rng = seed::Rng::new(seed::derive(&[seed, seed::name("panel"), split as u64]));
        let indices: Vec<u64> = match tasks.len(split) {
            Some(0) => {
                return Err(TrainError::Tasks(format!(
                    "{} has no {split:?} tasks to evaluate on",
                    tasks.name()
                )));
            }
            Some(n) => {
                let mut all: Vec<u64> = (0..n).collect();
                if episodes > 0 && (episodes as u64) < n {
                    rng.shuffle(&mut all);
                    all.truncate(episodes);
                    all.sort_unstable();
                }
                all
            }
            None if episodes == 0 => {
                return Err(TrainError::Tasks(format!(
                    "{} generates tasks without end: eval.episodes must be at least 1",
                    tasks.name()
                )));
            }
            // A 32-bit range keeps the identifiers short; repetitions are skipped.
            None => {
                let mut chosen = std::collections::BTreeSet::new();
                let mut order = Vec::with_capacity(episodes);
                while order.len() < episodes {
                    let index = rng.next_u64() >> 32;
                    if chosen.insert(index) {
                        order.push(index);
                    }
                }
                order
            }
        };
        let tasks =
            indices.into_iter().map(|i| tasks.task(split, i)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { split, seed, tasks })
    }

    /// Plays the panel once.
    ///
    /// # Errors
    /// See [`rollout`](crate::rollout()).
    pub fn play(
        &self,
        policy: &Policy,
        tasks: &dyn TaskSet,
        settings: &RolloutSettings,
        stop: &AtomicBool,
    ) -> Result<(Evaluation, Vec<Episode>), TrainError> {
        self.play_in(policy, tasks, settings, stop, &mut [])
    }

    /// The same with the decoders' weights in `memory`.
    pub(crate) fn play_in(
        &self,
        policy: &Policy,
        tasks: &dyn TaskSet,
        settings: &RolloutSettings,
        stop: &AtomicBool,
        memory: &mut [f32],
    ) -> Result<(Evaluation, Vec<Episode>), TrainError> {
        let jobs: Vec<Job> = self
            .tasks
            .iter()
            .enumerate()
            .map(|(i, task)| Job {
                task: task.clone(),
                env_seed: seed::derive(&[self.seed, i as u64, 0]),
                sampling_seed: seed::derive(&[self.seed, i as u64, 1]),
                group: i,
            })
            .collect();
        let lent = Lent { tape: &mut None, memory };
        let episodes = rollout_with(policy, tasks, &jobs, settings, stop, lent)?;
        Ok((Evaluation::of(self.split, &episodes), episodes))
    }
}

/// The settings of evaluation episodes.
pub fn evaluation_settings(config: &Config) -> RolloutSettings {
    let max_turns =
        if config.eval.max_turns > 0 { config.eval.max_turns } else { config.rollout.max_turns };
    RolloutSettings {
        temperature: config.eval.temperature,
        max_turns,
        stuck_after: 0,
        config: config.rollout.clone(),
        threads: config.threads,
        precision: config.model.precision(),
    }
}

/// Episodes and successes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Episodes played.
    pub episodes: usize,
    /// Episodes won.
    pub won: usize,
    /// Share of episodes won, 0–1.
    pub success: f64,
}

/// What a panel showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The split.
    pub split: Split,
    /// Share of episodes won, 0–1; those that failed are not.
    pub success: f64,
    /// Episodes played, failed ones among them.
    pub episodes: usize,
    /// By task type.
    pub by_task: BTreeMap<String, Tally>,
    /// Mean turns of an episode.
    pub turns: f64,
    /// Share of commands without effect, 0–1.
    pub ineffective: f64,
    /// Episodes that a limit cut off.
    pub truncated: usize,
    /// Episodes that failed because the environment did.
    pub failed: usize,
    /// What the first of them said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Evaluation {
    /// Counts episodes.
    pub fn of(split: Split, episodes: &[Episode]) -> Self {
        let mut by_task: BTreeMap<String, Tally> = BTreeMap::new();
        let (mut won, mut turns, mut ineffective) = (0, 0, 0);
        let (mut truncated, mut failed, mut failure) = (0, 0, None);
        for episode in episodes {
            let tally = by_task.entry(episode.kind.clone()).or_default();
            tally.episodes += 1;
            tally.won += usize::from(episode.won);
            won += usize::from(episode.won);
            turns += episode.turns.len();
            ineffective += episode.ineffective;
            match episode.trajectory.end() {
                End::Terminated => {}
                End::Truncated(_) => truncated += 1,
                End::Failed(why) => {
                    failed += 1;
                    failure.get_or_insert_with(|| why.clone());
                }
            }
        }
        for tally in by_task.values_mut() {
            tally.success = ratio(tally.won, tally.episodes);
        }
        Self {
            split,
            success: ratio(won, episodes.len()),
            episodes: episodes.len(),
            by_task,
            turns: ratio(turns, episodes.len()),
            ineffective: ratio(ineffective, turns),
            truncated,
            failed,
            failure,
        }
    }

    /// The 95 % Wilson interval of the success rate.
    pub fn interval(&self) -> (f64, f64) {
        wilson(self.success, self.episodes)
    }
}

/// The 95 % Wilson score interval of a proportion.
pub fn wilson(share: f64, n: usize) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (z, n) = (1.959_963_985, n as f64);
    let centre = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0))
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
