//! Every word of the generated world, its passages and its questions.

use std::collections::BTreeSet;

use super::generated::{RELATIONS, words};

/// Words of results and of passages without facts.
const INTERFACE: &[&str] =
    &["found", "doc", "also", "known", "as", "festival", "was", "opened", "by", "guest", "title"];

/// Words in lower case and a fixed order.
pub fn vocabulary() -> Vec<String> {
    let mut seen = BTreeSet::new();
    let templates = RELATIONS.iter().flat_map(|r| {
        std::iter::once(&r.noun).chain(r.statements).chain(r.questions).chain(r.other_questions)
    });
    let phrases = INTERFACE.iter().chain(templates).copied().chain(words());
    phrases
        .flat_map(|phrase| phrase.split(|c: char| !c.is_alphanumeric() && c != '{'))
        .filter(|word| !word.is_empty() && !word.starts_with('{'))
        .map(str::to_lowercase)
        .filter(|word| seen.insert(word.clone()))
        .collect()
}
