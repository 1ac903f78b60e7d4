//! Practice (DAgger; Ross et al., 2011): the policy plays, the expert says at every turn what it
//! would have done there. The policy learns to recover from its own mistakes, which
//! demonstrations do not show.

use std::sync::atomic::AtomicBool;

use empg::TokenId;
use empg_env::{Manner, Split, TaskSet};

use crate::TrainError;
use crate::config::{Context, RolloutConfig};
use crate::policy::Policy;
use crate::rollout::{Episode, Job, RolloutSettings, rollout};
use crate::script::Script;
use crate::seed;
use crate::voice::Voice;

/// Episodes of the policy with an expert's advice.
pub struct Practice<'a> {
    /// The tasks.
    pub tasks: &'a dyn TaskSet,
    /// Which of them.
    pub split: Split,
    /// How well the adviser plays.
    pub manner: Manner,
    /// How the policy plays.
    pub rollout: RolloutConfig,
}

impl std::fmt::Debug for Practice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Practice").field("manner", &self.manner).finish_non_exhaustive()
    }
}

/// A played episode: its tokens, and for every turn where the policy's command stands and what the
/// expert would have said (`None`: the same).
#[derive(Debug)]
pub(crate) struct Advised {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) turns: Vec<(std::ops::Range<usize>, Option<Vec<TokenId>>)>,
}

impl Practice<'_> {
    /// Plays `episodes` tasks that `seed` chooses and asks for advice.
    pub(crate) fn play(
        &self,
        policy: &Policy,
        episodes: usize,
        seed: u64,
        threads: usize,
        stop: &AtomicBool,
    ) -> Result<Vec<Advised>, TrainError> {
        let mut jobs = Vec::with_capacity(episodes);
        for group in 0..episodes {
            let place = seed::derive(&[seed, group as u64]);
            let index = self.tasks.len(self.split).map_or(place >> 32, |n| place % n.max(1));
            let task = self.tasks.task(self.split, index)?;
            jobs.push(Job { task, env_seed: place, sampling_seed: place, group });
        }
        // Advice hangs off one growing context, whatever the configuration's is.
        let config = RolloutConfig { context: Context::Full, ..self.rollout.clone() };
        let settings = RolloutSettings::training(&config, threads);
        let played = rollout(policy, self.tasks, &jobs, &settings, stop)?;
        let script = policy.script(&config, self.tasks.name())?;
        let voice = Voice::new(&policy.tokenizer, &script, &config)?;
        played.iter().zip(&jobs).map(|(e, job)| self.advise(&voice, &script, e, job)).collect()
    }

    fn advise(
        &self,
        voice: &Voice<'_>,
        script: &Script,
        episode: &Episode,
        job: &Job,
    ) -> Result<Advised, TrainError> {
        let mut expert = self.tasks.expert(self.manner, job.env_seed).ok_or_else(|| {
            TrainError::Tasks(format!("{} has no expert to ask", self.tasks.name()))
        })?;
        let mut before: Option<&str> = None;
        let mut turns = Vec::with_capacity(episode.turns.len());
        for (turn, step) in episode.turns.iter().zip(episode.trajectory.steps()) {
            expert.observe(before, &turn.observation);
            before = Some(&turn.action);
            let thought = expert.thought();
            let advice = expert.next_action();
            // An own thought that leads to the same command stands; without the form it does not.
            let agreed = advice == turn.action && script.read(&turn.said).valid;
            let other = if agreed { None } else { Some(voice.turn(&thought, &advice)?) };
            turns.push((step.sampled(), other));
        }
        let tokens =
            episode.trajectory.segments().first().map_or_else(Vec::new, |s| s.tokens.clone());
        Ok(Advised { tokens, turns })
    }
}
