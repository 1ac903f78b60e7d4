//! A generated world: people, films, books, companies, bands, cities and countries, a passage about
//! each, and questions that take two to four searches.
//!
//! Questions of the training distribution use one set of wordings and relation chains; those
//! outside of it ([`Domain::Out`]) use another wording, and chains of relations that training never
//! combines. Distractors: other passages mention the same names, names share their words, and some
//! things have a second name that only their own passage gives away.

mod relation;
mod words;
mod world;

pub(crate) use self::relation::{RELATIONS, parse, read};
pub(crate) use self::words::{all as words, first_and_last_names};
pub use self::world::{KnowledgeBase, knowledge_base};

/// Where a question comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The training distribution.
    In,
    /// Other wordings, other chains of relations.
    Out,
}

/// A generated question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedQuestion {
    /// The question.
    pub question: String,
    /// Every accepted answer.
    pub golden_answers: Vec<String>,
    /// Facts that the answer takes: 2 to 4.
    pub hops: usize,
    /// Where it comes from.
    pub domain: Domain,
}

/// Questions of a split of a world: training, held out in the domain, held out of it.
#[derive(Clone, Debug, Default)]
pub struct GeneratedQuestions {
    /// To train on.
    pub train: Vec<GeneratedQuestion>,
    /// Of the training distribution, about other things.
    pub seen: Vec<GeneratedQuestion>,
    /// Outside of it.
    pub unseen: Vec<GeneratedQuestion>,
}
