//! Episodes as the sampler recorded them: segments of token ids, agent steps with their scores.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A token of the policy's vocabulary.
pub type TokenId = u32;

/// One growing context of token ids. A context rebuild opens a new segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Prompt, observations and sampled tokens in the order in which the model saw them.
    pub tokens: Vec<TokenId>,
}

/// What the sampler recorded about one sampled token, in nats, at the sampling temperature,
/// over the full vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenScore {
    /// log π_old(token | prefix) under softmax(z/T).
    pub logprob: f32,
    /// Shannon entropy of softmax(z/T) where the token was drawn.
    pub entropy: f32,
}

/// One agent turn: a run of sampled tokens in a segment, its stop token included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    segment: usize,
    sampled: Range<usize>,
    scores: Vec<TokenScore>,
}

impl Step {
    /// A step of `segments[segment]` that covers the tokens `sampled`; one score a token.
    pub fn new(segment: usize, sampled: Range<usize>, scores: Vec<TokenScore>) -> Self {
        Self { segment, sampled, scores }
    }

    /// Index of the segment that the step was sampled in.
    pub fn segment(&self) -> usize {
        self.segment
    }

    /// Positions of the sampled tokens within the segment.
    pub fn sampled(&self) -> Range<usize> {
        self.sampled.clone()
    }

    /// Scores, one per sampled token.
    pub fn scores(&self) -> &[TokenScore] {
        &self.scores
    }

    /// H_it: the mean token entropy of the step (nats).
    pub fn entropy(&self) -> f64 {
        let sum: f64 = self.scores.iter().map(|s| f64::from(s.entropy)).sum();
        sum / self.scores.len() as f64
    }
}

/// The limit that cut an episode off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The environment's or the recipe's number of turns.
    Turns,
    /// The model's context is full.
    ContextTokens,
    /// The episode's token budget is spent.
    EpisodeTokens,
    /// Several commands in a row had no effect.
    Stuck,
}

/// How an episode ended. The three are never mixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The environment reached an end of its own.
    Terminated,
    /// A limit cut the episode off.
    Truncated(Limit),
    /// The environment failed; the text says why.
    Failed(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminated => f.write_str("terminated"),
            Self::Truncated(limit) => write!(f, "truncated ({limit:?})"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// Why a trajectory was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrajectoryError {
    /// A step that covers no token.
    #[error("task {task}: step {step} is empty")]
    EmptyStep {
        /// The task.
        task: String,
        /// Index of the step.
        step: usize,
    },
    /// A step that points outside its segment, or at a segment that is not there.
    #[error("task {task}: step {step} lies outside segment {segment}")]
    OutOfSegment {
        /// The task.
        task: String,
        /// Index of the step.
        step: usize,
        /// The segment it names.
        segment: usize,
    },
    /// Steps that overlap or run backwards.
    #[error("task {task}: step {step} overlaps or precedes the step before it")]
    OutOfOrder {
        /// The task.
        task: String,
        /// Index of the step.
        step: usize,
    },
    /// Not one score per sampled token.
    #[error("task {task}: step {step} has {scores} scores for {tokens} tokens")]
    ScoreCount {
        /// The task.
        task: String,
        /// Index of the step.
        step: usize,
        /// Scores given.
        scores: usize,
        /// Tokens sampled.
        tokens: usize,
    },
    /// A log-probability, entropy or reward that is NaN or infinite.
    #[error("task {task}: {what} is not finite (step {step:?}, token {token:?})")]
    NotFinite {
        /// The task.
        task: String,
        /// Which quantity.
        what: &'static str,
        /// Index of the step, if it belongs to one.
        step: Option<usize>,
        /// Index of the token within the step.
        token: Option<usize>,
    },
}

/// What a file holds: not sealed before it is checked again.
#[derive(Deserialize)]
struct Unsealed {
    task: String,
    segments: Vec<Segment>,
    steps: Vec<Step>,
    reward: f64,
    end: End,
}

impl TryFrom<Unsealed> for Trajectory {
    type Error = TrajectoryError;

    fn try_from(unsealed: Unsealed) -> Result<Self, TrajectoryError> {
        let Unsealed { task, segments, steps, reward, end } = unsealed;
        Self::new(task, segments, steps, reward, end)
    }
}

/// A sealed episode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unsealed")]
pub struct Trajectory {
    task: String,
    segments: Vec<Segment>,
    steps: Vec<Step>,
    reward: f64,
    end: End,
}

impl Trajectory {
    /// Validates and seals an episode. `reward` is R_i: the outcome minus its penalties.
    ///
    /// # Errors
    /// Empty, misplaced or overlapping steps, scores that do not match their tokens, values that
    /// are not finite.
    pub fn new(
        task: impl Into<String>,
        segments: Vec<Segment>,
        steps: Vec<Step>,
        reward: f64,
        end: End,
    ) -> Result<Self, TrajectoryError> {
        let task = task.into();
        if !reward.is_finite() {
            return Err(TrajectoryError::NotFinite {
                task,
                what: "reward",
                step: None,
                token: None,
            });
        }
        let mut previous: Option<&Step> = None;
        for (index, step) in steps.iter().enumerate() {
            let Range { start, end } = step.sampled();
            if start >= end {
                return Err(TrajectoryError::EmptyStep { task, step: index });
            }
            if segments.get(step.segment).is_none_or(|s| end > s.tokens.len()) {
                return Err(TrajectoryError::OutOfSegment {
                    task,
                    step: index,
                    segment: step.segment,
                });
            }
            if previous.is_some_and(|p| {
                p.segment > step.segment || (p.segment == step.segment && p.sampled.end > start)
            }) {
                return Err(TrajectoryError::OutOfOrder { task, step: index });
            }
            if step.scores.len() != end - start {
                let (scores, tokens) = (step.scores.len(), end - start);
                return Err(TrajectoryError::ScoreCount { task, step: index, scores, tokens });
            }
            for (token, score) in step.scores.iter().enumerate() {
                let what = if !score.entropy.is_finite() {
                    "entropy"
                } else if score.logprob.is_finite() {
                    continue;
                } else {
                    "log-probability"
                };
                return Err(TrajectoryError::NotFinite {
                    task,
                    what,
                    step: Some(index),
                    token: Some(token),
                });
            }
            previous = Some(step);
        }
        Ok(Self { task, segments, steps, reward, end })
    }

    /// The task's identifier.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The contexts that the model saw.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The agent's turns.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// R_i.
    pub fn reward(&self) -> f64 {
        self.reward
    }

    /// How the episode ended.
    pub fn end(&self) -> &End {
        &self.end
    }

    /// The same episode with another reward (penalties, overlong shaping).
    ///
    /// # Errors
    /// A reward that is not finite.
    pub fn with_reward(self, reward: f64) -> Result<Self, TrajectoryError> {
        if reward.is_finite() {
            Ok(Self { reward, ..self })
        } else {
            let task = self.task;
            Err(TrajectoryError::NotFinite { task, what: "reward", step: None, token: None })
        }
    }
}

/// The rollouts of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The task's identifier.
    pub task: String,
    /// Independent rollouts of it under the same policy.
    pub rollouts: Vec<Trajectory>,
}

/// What one update learns from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Groups in a fixed order.
    pub groups: Vec<Group>,
}
