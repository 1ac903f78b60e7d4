//! How Deep Search is played.

use serde::{Deserialize, Serialize};

/// Whose texts and rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// verl-agent's: results as a JSON string, the last answer counts.
    #[default]
    VerlAgent,
    /// Search-R1's: results as plain text, a sentence answers an action that cannot be read.
    SearchR1,
}

/// How Deep Search is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchOptions {
    /// Whose texts and rules.
    pub protocol: Protocol,
    /// Passages of a search.
    pub topk: usize,
}

impl Default for SearchOptions {
    /// verl-agent's protocol with three passages.
    fn default() -> Self {
        Self { protocol: Protocol::default(), topk: 3 }
    }
}
