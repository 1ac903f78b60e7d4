//! What a run records of the trainer: checkpoints, panels, trajectories; and the way back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use empg::Credit;
use empg_env::TaskSet;
use empg_llm::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, Dtype, Layout, TensorFile, TensorView, adapter_files,
    adapters_from_bytes, checkpoint_files_beside, load_path, model_from_bytes, write_tensors,
};
use empg_run::{CheckpointFiles, CheckpointRef, RunDir, TrajectoryRow};
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::config::Config;
use crate::evaluate::{Evaluation, Panel};
use crate::groups::{Collected, TaskStream};
use crate::metrics::StepReport;
use crate::optim::AdamW;
use crate::policy::Policy;
use crate::seed;
use crate::trainer::{Reference, Trainer};

const OPTIMIZER: &str = "optimizer.safetensors";
const TRAINER: &str = "trainer.json";

/// What a resumed trainer needs besides weights and moments.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainerState {
    step: u64,
    optimizer_step: u64,
    task_cursor: u64,
    /// FNV-1a over the reference's bits: the reference is loaded anew, and must be the same.
    reference: String,
    before: Vec<Evaluation>,
    latest: Vec<Evaluation>,
}

/// A policy from a checkpoint directory.
///
/// # Errors
/// Files that are missing, damaged or do not belong together.
pub fn load_policy(dir: &Path) -> Result<Policy, TrainError> {
    Ok(load_path(dir)?.into())
}

impl Trainer {
    /// A trainer that continues from a checkpoint. `policy` is the one that the run began with:
    /// the reference.
    ///
    /// # Errors
    /// A damaged checkpoint, or one that does not belong to the configuration or the reference.
    pub fn resume(
        config: Config,
        tasks: Arc<dyn TaskSet>,
        policy: Policy,
        checkpoint: &CheckpointRef,
    ) -> Result<Self, TrainError> {
        let mut trainer = Self::new(config, tasks, policy)?;
        let fingerprint = trainer.reference_fingerprint();
        let text = checkpoint.read(TRAINER)?;
        let state: TrainerState = serde_json::from_slice(&text)
            .map_err(|e| TrainError::Checkpoint(format!("{TRAINER}: {e}")))?;
        if state.reference != fingerprint {
            return Err(TrainError::Checkpoint(
                "the model that the run began with has changed: model.path must name the same \
                 weights as then"
                    .into(),
            ));
        }
        if trainer.policy.model.adapters.is_some() {
            let adapters = adapters_from_bytes(
                &checkpoint.read(ADAPTER_CONFIG_FILE)?,
                &checkpoint.read(ADAPTER_FILE)?,
                &trainer.policy.model.config,
            )?;
            trainer.policy.model.adapters = Some(adapters);
        } else {
            let (model, tokenizer) = model_from_bytes(
                &checkpoint.read("config.json")?,
                &checkpoint.read("model.safetensors")?,
                &checkpoint.read("tokenizer.json")?,
            )?;
            trainer.policy.model = model;
            // What conversations begin with is said beside it.
            let begin = trainer.policy.tokenizer.begin();
            trainer.policy.tokenizer = tokenizer.with_begin(begin);
        }
        let layout = Arc::clone(trainer.policy.model.trainable());
        let (m, v) = read_moments(&checkpoint.read(OPTIMIZER)?, &layout)?;
        let config = trainer.config.clone();
        trainer.optimizer = AdamW::restore(
            config.optim.clone(),
            layout.len(),
            config.updates(),
            state.optimizer_step,
            m,
            v,
        )?
        .with_threads(config.threads);
        trainer.stream =
            TaskStream::new(seed::derive(&[config.seed, seed::name("stream")]), state.task_cursor);
        trainer.step = state.step;
        trainer.before = state.before;
        trainer.latest = state.latest;
        Ok(trainer)
    }

    /// FNV-1a over the reference's bits.
    fn reference_fingerprint(&self) -> String {
        match &self.reference {
            Reference::Weights(model) => fingerprint(&model.params),
            Reference::Adapters(at_start) => {
                let weights = fingerprint(&self.policy.model.params);
                match at_start {
                    Some(adapters) => format!("{weights}-{}", fingerprint(&adapters.params)),
                    None => weights,
                }
            }
        }
    }
}

/// The files of a policy: all weights as `transformers` opens them, or, where it has adapters, those
/// as PEFT opens them; beside them what its authors say.
///
/// # Errors
/// See [`checkpoint_files_beside`], [`SideFiles::trained_in_chatml`](empg_llm::SideFiles::trained_in_chatml)
/// and [`adapter_files`].
pub fn policy_files(policy: &Policy) -> Result<Vec<(&'static str, Vec<u8>)>, TrainError> {
    let Policy { model, tokenizer, side, .. } = policy;
    let side = side.trained_in_chatml(&model.config, tokenizer)?;
    let Some(adapters) = &model.adapters else {
        return Ok(checkpoint_files_beside(model, tokenizer, Dtype::F32, &side)?);
    };
    let mut files = adapter_files(adapters, Dtype::F32)?;
    files.extend(side.beside_adapters(&model.config, tokenizer));
    Ok(files)
}

/// The files of a checkpoint after a step.
pub(crate) fn checkpoint(
    trainer: &Trainer,
    report: &StepReport,
) -> Result<CheckpointFiles, TrainError> {
    let mut files: Vec<(String, Vec<u8>)> = policy_files(&trainer.policy)?
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect();
    let (m, v, optimizer_step) = trainer.optimizer.state();
    files.push((OPTIMIZER.into(), write_moments(trainer.policy.model.trainable(), m, v)?));
    let state = TrainerState {
        step: trainer.step,
        optimizer_step,
        task_cursor: trainer.stream.cursor(),
        reference: trainer.reference_fingerprint(),
        before: trainer.before.clone(),
        latest: trainer.latest.clone(),
    };
    let text = serde_json::to_vec_pretty(&state)
        .map_err(|e| TrainError::Checkpoint(format!("{TRAINER}: {e}")))?;
    files.push((TRAINER.into(), text));
    let score = report.evaluations.last().map(|e| e.success);
    Ok(CheckpointFiles { files, score })
}

fn write_moments(layout: &Layout, m: &[f32], v: &[f32]) -> Result<Vec<u8>, TrainError> {
    let mut names = Vec::new();
    for (prefix, values) in [("exp_avg", m), ("exp_avg_sq", v)] {
        for spec in layout.entries() {
            let values = &values[spec.range.clone()];
            names.push((format!("{prefix}.{}", spec.name), &spec.shape, values));
        }
    }
    let tensors: Vec<TensorView<'_>> =
        names.iter().map(|(name, shape, values)| TensorView { name, shape, values }).collect();
    write_tensors(&tensors, Dtype::F32, &BTreeMap::new())
        .map_err(|e| TrainError::Checkpoint(format!("{OPTIMIZER}: {e}")))
}

fn read_moments(bytes: &[u8], layout: &Layout) -> Result<(Vec<f32>, Vec<f32>), TrainError> {
    let broken = |e: empg_llm::TensorFileError| TrainError::Checkpoint(format!("{OPTIMIZER}: {e}"));
    let file = TensorFile::parse(bytes).map_err(broken)?;
    let mut moments = [empg_llm::zeros(layout.len()), empg_llm::zeros(layout.len())];
    for (prefix, values) in ["exp_avg", "exp_avg_sq"].iter().zip(&mut moments) {
        for spec in layout.entries() {
            let out = &mut values[spec.range.clone()];
            file.read_into(&format!("{prefix}.{}", spec.name), &spec.shape, out).map_err(broken)?;
        }
    }
    let [m, v] = moments;
    Ok((m, v))
}

fn fingerprint(params: &[f32]) -> String {
    let hash = params.iter().fold(0xCBF2_9CE4_8422_2325_u64, |h, p| {
        (h ^ u64::from(p.to_bits())).wrapping_mul(0x0000_0100_0000_01B3)
    });
    format!("{hash:016x}")
}

/// Lists a panel's tasks in the run directory.
pub(crate) fn write_panel(run: &mut RunDir, panel: &Panel) -> Result<(), TrainError> {
    let mut lines = Vec::new();
    for task in &panel.tasks {
        let line = serde_json::to_string(task)
            .map_err(|e| TrainError::Tasks(format!("task {}: {e}", task.id)))?;
        lines.extend_from_slice(line.as_bytes());
        lines.push(b'\n');
    }
    let name = format!("{:?}", panel.split).to_lowercase();
    Ok(run.write_panel(&name, &lines)?)
}

/// The agent steps of a batch, in words and with their credit.
pub(crate) fn rows(step: u64, collected: &Collected, credit: &Credit) -> Vec<TrajectoryRow> {
    let mut rows = Vec::new();
    for (g, episodes) in collected.episodes.iter().enumerate() {
        for (r, episode) in episodes.iter().enumerate() {
            let trajectory = &collected.batch.groups[g].rollouts[r];
            for (t, (turn, agent)) in episode.turns.iter().zip(trajectory.steps()).enumerate() {
                let c = credit.step(g, r, t);
                let scores = agent.scores();
                rows.push(TrajectoryRow {
                    step,
                    group: g as u32,
                    rollout: r as u32,
                    task: trajectory.task().to_owned(),
                    kind: episode.kind.clone(),
                    turn: t as u32,
                    observation: turn.observation.clone(),
                    action: turn.said.clone(),
                    reward: trajectory.reward(),
                    end: trajectory.end().to_string(),
                    won: episode.won,
                    tokens: trajectory.segments()[agent.segment()].tokens[agent.sampled()].to_vec(),
                    logprob: scores.iter().map(|s| s.logprob).collect(),
                    entropy: scores.iter().map(|s| s.entropy).collect(),
                    h: c.entropy,
                    h_norm: c.h_norm,
                    g: c.g,
                    f_next: c.f_next,
                    base: c.base,
                    bonus: c.bonus,
                    centring: c.centring,
                    advantage: c.advantage,
                });
            }
        }
    }
    rows
}
