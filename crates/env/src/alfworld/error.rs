//! Why a game was refused.

/// What is wrong with a game.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GameError {
    /// The problem text breaks the format.
    #[error("problem line {line}: {what}")]
    Syntax {
        /// Line of the problem text, from 1.
        line: usize,
        /// What was met, and what was expected.
        what: String,
    },
    /// A domain whose rules are not built in.
    #[error("the domain {name} is not one of ALFWorld's: its rules are unknown here")]
    UnknownDomain {
        /// The domain's name and fingerprint.
        name: String,
    },
    /// A grammar whose texts are not built in.
    #[error("the grammar {name} is not one of ALFWorld's: its texts are unknown here")]
    UnknownGrammar {
        /// The grammar's name and fingerprint.
        name: String,
    },
    /// A goal that none of the six task types has.
    #[error("the goal is not one of ALFWorld's six task types: {what}")]
    UnknownGoal {
        /// What did not fit.
        what: String,
    },
    /// More than the engine holds.
    #[error("{found} {what}: the engine holds at most {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many the problem has.
        found: usize,
        /// How many are possible.
        limit: usize,
    },
    /// Facts that contradict each other or are missing.
    #[error("{what}")]
    Inconsistent {
        /// Which.
        what: String,
    },
}
