//! DAPO's recipe around [`Grpo`](crate::Grpo): which groups to drop, and how over-long answers are
//! shaped. Its clip is [`loss::Clip::higher`](crate::loss::Clip::higher), its loss
//! [`loss::Aggregation::TokenMean`](crate::loss::Aggregation::TokenMean).

use serde::{Deserialize, Serialize};

use crate::error::AdvantageError;
use crate::trajectory::Group;

/// Whether all rewards are equal (true for none or one): such a group carries no signal.
pub fn flat_rewards(rewards: &[f64]) -> bool {
    rewards.windows(2).all(|pair| pair[0] == pair[1])
}

/// Whether all rewards of a group are equal: dynamic sampling drops and re-samples such groups.
pub fn flat(group: &Group) -> bool {
    group.rollouts.windows(2).all(|pair| pair[0].reward() == pair[1].reward())
}

/// Soft over-long punishment: free up to `max − buffer` tokens, then falling linearly to −`penalty`
/// at `max` tokens and staying there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Overlong {
    /// Sampled tokens at which the whole penalty applies.
    pub max: usize,
    /// Tokens over which it grows.
    pub buffer: usize,
    /// The whole penalty.
    pub penalty: f64,
}

impl Overlong {
    /// Checks the options' domains.
    ///
    /// # Errors
    /// A penalty that is negative, NaN or infinite; a buffer longer than `max`.
    pub fn validate(&self) -> Result<(), AdvantageError> {
        if !(self.penalty.is_finite() && self.penalty >= 0.0) {
            let needs = "must be finite and at least 0";
            let value = self.penalty;
            return Err(AdvantageError::Option { name: "overlong.penalty", value, needs });
        }
        if self.buffer > self.max {
            let needs = "must not exceed overlong.max";
            let value = self.buffer as f64;
            return Err(AdvantageError::Option { name: "overlong.buffer", value, needs });
        }
        Ok(())
    }

    /// What to add to the reward of a trajectory with that many sampled tokens: 0 or negative.
    pub fn shaping(&self, tokens: usize) -> f64 {
        let free = self.max.saturating_sub(self.buffer);
        if tokens <= free {
            return 0.0;
        }
        if tokens >= self.max {
            return -self.penalty;
        }
        -self.penalty * (tokens - free) as f64 / self.buffer as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_punishment_grows_over_the_buffer() {
        let overlong = Overlong { max: 100, buffer: 20, penalty: 2.0 };
        overlong.validate().unwrap();
        let at = |tokens| overlong.shaping(tokens);
        assert_eq!((at(0), at(80), at(90), at(100), at(500)), (0.0, 0.0, -1.0, -2.0, -2.0));
        let sudden = Overlong { buffer: 0, ..overlong };
        assert_eq!((sudden.shaping(100), sudden.shaping(101)), (0.0, -2.0));
    }

    #[test]
    fn options_outside_their_domain_are_named() {
        let good = Overlong { max: 10, buffer: 2, penalty: 1.0 };
        for bad in [Overlong { penalty: f64::NAN, ..good }, Overlong { penalty: -1.0, ..good }] {
            assert!(bad.validate().unwrap_err().to_string().contains("overlong.penalty"));
        }
        let bad = Overlong { buffer: 11, ..good };
        assert!(bad.validate().unwrap_err().to_string().contains("overlong.buffer"));
    }

    #[test]
    fn a_flat_group_has_one_reward() {
        assert!(flat_rewards(&[]) && flat_rewards(&[0.3]) && flat_rewards(&[0.1; 5]));
        assert!(!flat_rewards(&[0.0, 0.0, 1.0]));
    }
}
