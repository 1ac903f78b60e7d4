//! How Deep Search is played.

use std::fmt;
use std::str::FromStr;

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

impl FromStr for Protocol {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "verl-agent" => Ok(Self::VerlAgent),
            "search-r1" => Ok(Self::SearchR1),
            _ => Err(format!("no protocol is called {name:?}: it is verl-agent or search-r1")),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VerlAgent => "verl-agent",
            Self::SearchR1 => "search-r1",
        })
    }
}

/// How Deep Search is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchOptions {
    /// Whose texts and rules.
    pub protocol: Protocol,
    /// Passages of a search.
    pub topk: usize,
    /// Longest observation in Search-R1's protocol, in the tokens of the set's
    /// [`TokenCut`](crate::search::TokenCut); what is longer is cut off. verl-agent has no such limit.
    pub observation_tokens: usize,
}

impl Default for SearchOptions {
    /// verl-agent's protocol with three passages; 500 tokens.
    fn default() -> Self {
        Self { protocol: Protocol::default(), topk: 3, observation_tokens: 500 }
    }
}
