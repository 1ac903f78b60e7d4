//! Every word of the generated world, its passages and its questions.

use std::collections::BTreeSet;

use super::generated::{RELATIONS, first_and_last_names, words};

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

/// First and last names of people, in lower case.
pub fn people() -> (Vec<String>, Vec<String>) {
    let lower = |names: &[&str]| names.iter().map(|name| name.to_lowercase()).collect();
    let (first, last) = first_and_last_names();
    (lower(first), lower(last))
}
