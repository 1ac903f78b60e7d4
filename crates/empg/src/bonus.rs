//! What the future-clarity bonus rewards.

use serde::{Deserialize, Serialize};

use crate::modulation::EmpgOptions;

/// A source of bonus for a step that has a next step in its trajectory.
pub trait BonusSource {
    /// f, before its weight ζ, from the normalised entropies (0..=1) of the step and of the next.
    fn clarity(&self, options: &EmpgOptions, current: f64, next: f64) -> f64;
}

/// The sources that options can name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clarity {
    /// f(Hn of the next step): the paper's (Eq. 11).
    #[default]
    NextEntropy,
    /// max(0, Hn − Hn of the next step): only a step that makes its successor clearer is
    /// rewarded, so that a trajectory that is confident throughout earns nothing.
    EntropyDrop,
}

impl BonusSource for Clarity {
    fn clarity(&self, options: &EmpgOptions, current: f64, next: f64) -> f64 {
        match self {
            Self::NextEntropy => options.shape.value(options.k_f, next),
            Self::EntropyDrop => (current - next).max(0.0),
        }
    }
}
