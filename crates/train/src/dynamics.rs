//! How training changed the entropy of the agent's steps (the paper's step-level analysis): the
//! steps that the initial policy took, scored again by the trained one.

use empg::{Advantage as _, Batch, DrGrpo, Group};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::evaluate::{Panel, evaluation_settings};
use crate::pack::pack;
use crate::rollout::Episode;
use crate::trainer::Trainer;
use empg::loss::Aggregation;

/// Name of the table in a run's `analyses/`.
pub const ENTROPY_DYNAMICS: &str = "entropy-dynamics";

/// One agent step of the initial policy, seen by both policies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbedStep {
    /// The task.
    pub task: String,
    /// Its type.
    pub kind: String,
    /// Which episode of the probe.
    pub episode: usize,
    /// Which step of the episode.
    pub turn: usize,
    /// Sampled tokens of the step.
    pub tokens: usize,
    /// Whether the initial policy won the episode.
    pub won: bool,
    /// Step entropy H under the initial policy (nats): the mean over its tokens.
    pub before: f64,
    /// The same steps' entropy under the policy as it is now (nats).
    pub after: f64,
}

impl Trainer {
    /// Plays the probe and scores its steps under the policy as it is.
    ///
    /// # Errors
    /// See [`Panel::play`]; an engine that refuses the packs.
    pub fn entropy_dynamics(&mut self) -> Result<Vec<ProbedStep>, TrainError> {
        let episodes = self.probe()?;
        self.rescore(episodes)
    }

    /// Plays the first `record.entropy_probe` tasks of the last panel with the policy that the run
    /// began with, at the temperature of training.
    pub(crate) fn probe(&mut self) -> Result<Vec<Episode>, TrainError> {
        let Some(panel) = self.panels.last() else { return Ok(Vec::new()) };
        let mut tasks = panel.tasks.clone();
        tasks.truncate(self.config.record.entropy_probe);
        let panel = Panel { tasks, ..panel.clone() };
        let mut settings = evaluation_settings(&self.config);
        settings.temperature = self.config.rollout.temperature;
        // The weights change places so that no copy of the model is needed.
        self.reference.swap(&mut self.policy);
        let played = panel.play(&self.policy, &*self.tasks, &settings, &self.stop);
        self.reference.swap(&mut self.policy);
        let mut episodes = played?.1;
        episodes.retain(|episode| !episode.trajectory.steps().is_empty());
        Ok(episodes)
    }

    /// The entropies of the probe's steps, as they were and under the policy as it is.
    pub(crate) fn rescore(
        &mut self,
        episodes: Vec<Episode>,
    ) -> Result<Vec<ProbedStep>, TrainError> {
        let mut table = Vec::new();
        let mut first = Vec::with_capacity(episodes.len());
        for (e, episode) in episodes.iter().enumerate() {
            first.push(table.len());
            for (turn, step) in episode.trajectory.steps().iter().enumerate() {
                let entropies = step.scores().iter().map(|s| f64::from(s.entropy));
                table.push(ProbedStep {
                    task: episode.trajectory.task().to_owned(),
                    kind: episode.kind.clone(),
                    episode: e,
                    turn,
                    tokens: step.scores().len(),
                    won: episode.won,
                    before: entropies.sum::<f64>() / step.scores().len() as f64,
                    after: 0.0,
                });
            }
        }
        if table.is_empty() {
            return Ok(table);
        }

        let groups = episodes
            .into_iter()
            .map(|episode| Group {
                task: episode.trajectory.task().to_owned(),
                rollouts: vec![episode.trajectory],
            })
            .collect();
        let batch = Batch { groups };
        // The packs' weights are not used; any estimator that takes groups of one will do.
        let credit = DrGrpo.assign(&batch)?;
        let members: Vec<usize> = (0..batch.groups.len()).collect();
        let budget = self.budget(&batch, &members);
        let (packs, _) = pack(&batch, &members, &credit, None, Aggregation::TokenMean, budget);
        let scores =
            self.workers.score(&self.policy.model, &packs, self.config.rollout.temperature)?;
        let mut counts = vec![0usize; table.len()];
        for (pack, scores) in packs.iter().zip(&scores) {
            for (&[group, _, step, _], score) in pack.origin.iter().zip(scores) {
                table[first[group] + step].after += f64::from(score.entropy);
                counts[first[group] + step] += 1;
            }
        }
        for (step, count) in table.iter_mut().zip(counts) {
            step.after /= count.max(1) as f64;
        }
        Ok(table)
    }
}

/// A table as JSON lines.
pub(crate) fn lines<T: Serialize>(table: &[T]) -> Result<Vec<u8>, TrainError> {
    let mut lines = Vec::new();
    for (i, step) in table.iter().enumerate() {
        serde_json::to_writer(&mut lines, step)
            .map_err(|e| TrainError::Tasks(format!("row {i} of an analysis: {e}")))?;
        lines.push(b'\n');
    }
    Ok(lines)
}
