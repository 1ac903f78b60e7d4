//! The forms in which verl-agent hands WebShop to a model, and its rewards.

use std::fmt::Write as _;
use std::ops::Range;

use super::episode::Available;
use super::python_random::Mt19937;
use super::strings::SEPARATOR;
use crate::Transition;

/// Stands for a search of any words in a list of actions.
pub const SEARCH_ACTION: &str = "search[<your query>]";

/// Longer prompts with a history are replaced by prompts without one (in characters).
pub const LONGEST_PROMPT: usize = 13_000;

/// The reward of an episode that is won; all others give 0.
pub const REWARD: f64 = 10.0;

/// An observation: what follows the goal, every part in quotes. A page without the goal stays as it
/// is.
pub fn observation(text: &str, goal: &str) -> String {
    let mut parts = text.split(SEPARATOR);
    if parts.by_ref().all(|part| part != goal) {
        return text.to_owned();
    }
    let quoted: Vec<String> = parts.map(|part| format!("'{part}'")).collect();
    quoted.join(SEPARATOR)
}

/// The list of actions, one a line.
pub fn actions(available: &Available) -> String {
    let mut out = String::new();
    if available.has_search_bar {
        out.push_str("'search[<your query>]',");
    }
    for text in &available.clickables {
        if !out.is_empty() {
            out.push('\n');
        }
        // Writing to a string does not fail.
        let _ = write!(out, "'click[{text}]',");
    }
    out
}

/// Whether a prompt with a history may be shown; otherwise one without takes its place.
pub fn fits(prompt: &str) -> bool {
    prompt.len() <= LONGEST_PROMPT || prompt.chars().count() <= LONGEST_PROMPT
}

/// The reward of a step.
pub fn reward(transition: &Transition) -> f64 {
    if transition.won { REWARD } else { 0.0 }
}

/// Draws the sessions of a batch as verl-agent does: each batch distinct ones of a range.
#[derive(Clone, Debug)]
pub struct Sessions {
    random: Mt19937,
    range: Range<u32>,
}

impl Sessions {
    /// Draws from a range with NumPy's `RandomState(seed)`.
    pub fn new(seed: u32, range: Range<u32>) -> Self {
        Self { random: Mt19937::numpy(seed), range }
    }

    /// The sessions of the next batch, each `group` times in a row.
    pub fn draw(&mut self, count: usize, group: usize) -> Vec<u32> {
        let drawn = self.random.choice(self.range.clone(), count);
        drawn.into_iter().flat_map(|session| std::iter::repeat_n(session, group)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_follows_the_goal() {
        let text = "Instruction: [SEP] buy [SEP] a [SEP]  [SEP] it's";
        assert_eq!(observation(text, "buy"), "'a' [SEP] '' [SEP] 'it's'");
        assert_eq!(observation("Thank you", "buy"), "Thank you");
        assert_eq!(observation("x [SEP] buy", "buy"), "");
    }

    #[test]
    fn lists_actions() {
        let clickables = vec!["search".to_owned()];
        let available = Available { has_search_bar: true, clickables };
        assert_eq!(actions(&available), "'search[<your query>]',\n'click[search]',");
        assert_eq!(actions(&Available::default()), "");
    }

    #[test]
    fn groups_follow_each_other() {
        let mut sessions = Sessions::new(0, 0..500);
        assert_eq!(sessions.draw(2, 2), [90, 90, 254, 254]);
    }
}
