//! How WebShop is played.

use serde::{Deserialize, Serialize};

/// How a page is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nodes joined by ` [SEP] `.
    #[default]
    Text,
    /// One node a line, buttons marked.
    TextRich,
}

/// Which goals a split holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Splits {
    /// verl-agent's: goals 0–499 validate, the others train.
    #[default]
    VerlAgent,
    /// The original's: 0–499 test, 500–1,499 validate, the others train.
    Original,
}

/// How WebShop is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebshopOptions {
    /// How a page is printed.
    pub mode: Mode,
    /// People's instructions instead of synthetic ones.
    pub human_goals: bool,
    /// Seed of prices and of the goals' order.
    pub env_seed: u32,
    /// Which goals a split holds.
    pub splits: Splits,
}
