//! Words that the environment shows to an agent. Tags and layout are interface data of verl-agent
//! (Apache-2.0) and Search-R1 (Apache-2.0); the sentence is this project's.

use std::fmt::Write as _;

/// Before the results of a search.
pub(super) const INFORMATION: &str = "<information>";
/// Behind the results of a search.
pub(super) const INFORMATION_END: &str = "</information>";
/// What opens a question.
pub(super) const SEARCH: &str = "<search>";
/// What closes it.
pub(super) const SEARCH_END: &str = "</search>";
/// What opens an answer.
pub(super) const ANSWER: &str = "<answer>";
/// What closes it.
pub(super) const ANSWER_END: &str = "</answer>";

/// Before verl-agent's results, which are a JSON string.
pub(super) const RESULT: &str = "{\"result\": ";
/// Behind them.
pub(super) const RESULT_END: &str = "}";

/// Appends a passage as verl-agent lays it out.
pub(super) fn verl_agent_passage(out: &mut String, number: usize, contents: &str) {
    let _ = writeln!(out, "Doc {number}: {contents}");
}

/// Appends a passage as Search-R1 lays it out; the title keeps its quotes.
pub(super) fn search_r1_passage(out: &mut String, number: usize, title: &str, text: &str) {
    let _ = writeln!(out, "Doc {number}(Title: {title}) {text}");
}

/// What Search-R1's protocol says to an action that cannot be read, unless a set says otherwise.
pub const CORRECTIVE: &str = "\nThat was neither a search nor an answer. Put a query between \
<search> and </search>, or the final answer between <answer> and </answer>.\n";
