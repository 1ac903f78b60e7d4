//! Base advantages: one number per trajectory from the outcomes of its group, for all its steps.

use serde::{Deserialize, Serialize};

use crate::credit::Credit;
use crate::dapo::flat_rewards;
use crate::error::AdvantageError;
use crate::trajectory::{Batch, Trajectory};

/// Assigns credit to every step of a batch: pure, no tensors, once per rollout batch.
pub trait Advantage {
    /// One credit per step.
    ///
    /// # Errors
    /// An empty batch, a batch without steps, groups or options for which the estimator is not
    /// defined.
    fn assign(&self, batch: &Batch) -> Result<Credit, AdvantageError>;
}

impl<T: Advantage + ?Sized> Advantage for Box<T> {
    fn assign(&self, batch: &Batch) -> Result<Credit, AdvantageError> {
        (**self).assign(batch)
    }
}

impl<T: Advantage + ?Sized> Advantage for &T {
    fn assign(&self, batch: &Batch) -> Result<Credit, AdvantageError> {
        (**self).assign(batch)
    }
}

/// Group-relative advantage: A_i = (R_i − mean R) / (std R + eps) over the group's trajectories,
/// each counted once. A group of equal rewards gets exactly 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Grpo {
    /// Delta degrees of freedom of the standard deviation.
    pub ddof: u32,
    /// Added to the standard deviation.
    pub eps: f64,
}

impl Default for Grpo {
    /// ddof 1, eps 1e-6: verl's.
    fn default() -> Self {
        Self { ddof: 1, eps: 1e-6 }
    }
}

impl Grpo {
    /// TRL's constants: ddof 1, eps 1e-4.
    pub const fn trl() -> Self {
        Self { ddof: 1, eps: 1e-4 }
    }

    /// The advantages of one group.
    ///
    /// # Errors
    /// [`GroupError`] for fewer than two rewards, too few for `ddof`, or a reward or `eps` that
    /// is not finite.
    pub fn advantages(&self, rewards: &[f64]) -> Result<Vec<f64>, GroupError> {
        if !(self.eps.is_finite() && self.eps >= 0.0) {
            return Err(GroupError::Eps(self.eps));
        }
        let mean = mean_of(rewards)?;
        if rewards.len() == 1 {
            return Err(GroupError::One);
        }
        if rewards.len() <= self.ddof as usize {
            return Err(GroupError::Ddof);
        }
        if flat_rewards(rewards) {
            return Ok(vec![0.0; rewards.len()]);
        }
        let squares: f64 = rewards.iter().map(|r| (r - mean) * (r - mean)).sum();
        let free = (rewards.len() - self.ddof as usize) as f64;
        let std = if squares.is_finite() {
            (squares / free).sqrt()
        } else {
            // Squares of such rewards overflow, their quotients by the largest do not.
            let most = rewards.iter().map(|r| (r - mean).abs()).fold(0.0, f64::max);
            let squares: f64 = rewards.iter().map(|r| ((r - mean) / most).powi(2)).sum();
            most * (squares / free).sqrt()
        };
        Ok(rewards.iter().map(|r| (r - mean) / (std + self.eps)).collect())
    }
}

/// Dr. GRPO: A_i = R_i − mean R, without the division by the standard deviation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrGrpo;

impl DrGrpo {
    /// The advantages of one group. A group of one gets 0.
    ///
    /// # Errors
    /// [`GroupError::NotFinite`].
    pub fn advantages(rewards: &[f64]) -> Result<Vec<f64>, GroupError> {
        let mean = mean_of(rewards)?;
        if flat_rewards(rewards) {
            return Ok(vec![0.0; rewards.len()]);
        }
        Ok(rewards.iter().map(|r| r - mean).collect())
    }
}

/// REINFORCE leave-one-out: A_i = R_i − the mean of the other rewards of the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rloo;

impl Rloo {
    /// The advantages of one group.
    ///
    /// # Errors
    /// [`GroupError`] for a group of one or a reward that is not finite.
    pub fn advantages(rewards: &[f64]) -> Result<Vec<f64>, GroupError> {
        let mean = mean_of(rewards)?;
        let n = rewards.len() as f64;
        if rewards.len() == 1 {
            return Err(GroupError::One);
        }
        if flat_rewards(rewards) {
            return Ok(vec![0.0; rewards.len()]);
        }
        // R_i − (n·mean − R_i)/(n − 1) = (R_i − mean)·n/(n − 1)
        Ok(rewards.iter().map(|r| (r - mean) * n / (n - 1.0)).collect())
    }
}

/// Why a group's rewards have no advantage.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A group of one, where the estimator compares rollouts.
    #[error("a group of one has nothing to be compared with")]
    One,
    /// No degree of freedom left.
    #[error("ddof leaves no degree of freedom")]
    Ddof,
    /// A reward that is not finite.
    #[error("reward {0} of the group is not finite")]
    NotFinite(usize),
    /// An `eps` that is negative, NaN or infinite.
    #[error("eps = {0}: must be finite and at least 0")]
    Eps(f64),
}

fn mean_of(rewards: &[f64]) -> Result<f64, GroupError> {
    if let Some(index) = rewards.iter().position(|r| !r.is_finite()) {
        return Err(GroupError::NotFinite(index));
    }
    Ok(rewards.iter().sum::<f64>() / rewards.len().max(1) as f64)
}

fn assign(
    batch: &Batch,
    name: &'static str,
    ddof: u32,
    advantages: impl Fn(&[f64]) -> Result<Vec<f64>, GroupError>,
) -> Result<Credit, AdvantageError> {
    let mut bases = Vec::with_capacity(batch.groups.len());
    let mut first = 0;
    for (index, group) in batch.groups.iter().enumerate() {
        let rewards: Vec<f64> = group.rollouts.iter().map(Trajectory::reward).collect();
        let base = if rewards.is_empty() { Ok(Vec::new()) } else { advantages(&rewards) };
        bases.push(base.map_err(|error| match error {
            GroupError::One => AdvantageError::GroupOfOne {
                group: index,
                task: group.task.clone(),
                estimator: name,
            },
            GroupError::Ddof => AdvantageError::Ddof {
                group: index,
                task: group.task.clone(),
                rollouts: rewards.len(),
                ddof,
            },
            GroupError::NotFinite(rollout) => AdvantageError::NotFinite {
                what: "reward",
                trajectory: (first + rollout) as u64,
                step: None,
                token: None,
            },
            GroupError::Eps(value) => AdvantageError::Option {
                name: "eps",
                value,
                needs: "must be finite and at least 0",
            },
        })?);
        first += rewards.len();
    }
    Credit::from_bases(batch, &bases)
}

impl Advantage for Grpo {
    fn assign(&self, batch: &Batch) -> Result<Credit, AdvantageError> {
        assign(batch, "grpo", self.ddof, |rewards| self.advantages(rewards))
    }
}

impl Advantage for DrGrpo {
    fn assign(&self, batch: &Batch) -> Result<Credit, AdvantageError> {
        assign(batch, "dr-grpo", 0, Self::advantages)
    }
}

impl Advantage for Rloo {
    fn assign(&self, batch: &Batch) -> Result<Credit, AdvantageError> {
        assign(batch, "rloo", 0, Self::advantages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpo_standardises_a_group() {
        let a = Grpo { ddof: 1, eps: 0.0 }.advantages(&[0.0, 1.0]).unwrap();
        assert!((a[0] + 0.5f64.sqrt()).abs() < 1e-12);
        assert!((a[1] - 0.5f64.sqrt()).abs() < 1e-12);
        let a = Grpo { ddof: 0, eps: 0.0 }.advantages(&[0.0, 1.0]).unwrap();
        assert_eq!(a, [-1.0, 1.0]);
        assert_eq!(Grpo::trl().eps, 1e-4);
    }

    #[test]
    fn rloo_compares_with_the_others() {
        assert_eq!(Rloo::advantages(&[1.0, 0.0, 0.0]).unwrap(), [1.0, -0.5, -0.5]);
        assert_eq!(DrGrpo::advantages(&[1.0, 0.0]).unwrap(), [0.5, -0.5]);
    }

    #[test]
    fn equal_rewards_give_exactly_zero() {
        let rewards = [0.1; 7];
        assert_eq!(Grpo::default().advantages(&rewards).unwrap(), [0.0; 7]);
        assert_eq!(Rloo::advantages(&rewards).unwrap(), [0.0; 7]);
    }

    #[test]
    fn undefined_groups_are_refused() {
        let grpo = Grpo::default();
        assert_eq!(grpo.advantages(&[1.0]), Err(GroupError::One));
        assert_eq!(Rloo::advantages(&[1.0]), Err(GroupError::One));
        assert_eq!(DrGrpo::advantages(&[1.0]), Ok(vec![0.0]));
        assert_eq!(Grpo { ddof: 2, eps: 0.0 }.advantages(&[0.0, 1.0]), Err(GroupError::Ddof));
        assert_eq!(grpo.advantages(&[0.0, f64::NAN]), Err(GroupError::NotFinite(1)));
        let bad = Grpo { eps: -1.0, ..grpo };
        assert_eq!(bad.advantages(&[0.0, 1.0]), Err(GroupError::Eps(-1.0)));
    }
}
