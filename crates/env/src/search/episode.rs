//! One question being answered: what the environment does with each turn.

use std::sync::Arc;

use empg::Limit;

use super::options::{Protocol, SearchOptions};
use super::passage::{Passage, Retriever, RetrieverError};
use super::question::Question;
use super::score::{exact_match, last_answer};
use super::strings::{
    ANSWER, ANSWER_END, CORRECTIVE, INFORMATION, INFORMATION_END, RESULT, RESULT_END, SEARCH,
    SEARCH_END, search_r1_passage, verl_agent_passage,
};
use crate::python_text::{is_space, json_string};
use crate::{EnvEnd, Observation, Projection, Transition};

/// Length in bytes of the longest beginning of a text that has at most so many tokens.
///
/// [`words`] counts words between white space, which costs nothing and is close to a third below a
/// real tokenizer's count; a trainer that wants the exact budget hands in its tokenizer's.
pub type TokenCut = Arc<dyn Fn(&str, usize) -> usize + Send + Sync>;

/// The [`TokenCut`] that counts words between white space.
pub fn words(text: &str, budget: usize) -> usize {
    let mut count = 0;
    let mut inside = false;
    for (at, c) in text.char_indices() {
        if c.is_whitespace() {
            if inside && count == budget {
                return at;
            }
            inside = false;
        } else if !inside {
            if count == budget {
                return at;
            }
            inside = true;
            count += 1;
        }
    }
    text.len()
}

/// The texts and limits that a set of tasks shares.
#[derive(Clone)]
pub struct Rules {
    /// Protocol and number of passages.
    pub options: SearchOptions,
    /// Turns with a search (Search-R1 grants one more, for the answer); `None`: no limit.
    pub max_turns: Option<u32>,
    /// What Search-R1's protocol says to an action that cannot be read.
    pub corrective: Arc<str>,
    /// How observation tokens are counted.
    pub cut: TokenCut,
}

impl Rules {
    /// The project's own corrective sentence; tokens counted as words.
    pub fn new(options: SearchOptions, max_turns: Option<u32>) -> Self {
        Self { options, max_turns, corrective: CORRECTIVE.into(), cut: Arc::new(words) }
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules")
            .field("options", &self.options)
            .field("max_turns", &self.max_turns)
            .field("corrective", &self.corrective)
            .finish_non_exhaustive()
    }
}

/// One question being answered.
#[derive(Clone, Debug)]
pub struct Episode {
    question: Arc<Question>,
    /// Actions and observations so far, one after the other.
    said: String,
    turns: u32,
    over: bool,
}

impl Episode {
    /// Before the first turn.
    pub fn new(question: Arc<Question>) -> Self {
        Self { question, said: String::new(), turns: 0, over: false }
    }

    /// What the environment shows first: the question.
    pub fn observe(&self) -> Observation {
        Observation { text: self.question.question.clone() }
    }

    /// Whether the episode has ended.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Plays one turn: `raw` is what the model wrote. After the end nothing happens any more.
    ///
    /// verl-agent: the action is read by [`Projection::Search`]; the episode ends with an action that
    /// holds an answer or with the last turn, whose search is not carried out. Search-R1: the first
    /// complete search or answer counts, one more turn than `max_turns` is granted, the last without
    /// a search. The reward is the exact match of the last answer in all that was said.
    ///
    /// # Errors
    /// The retriever failed; the episode is over then.
    pub fn step(
        &mut self,
        raw: &str,
        rules: &Rules,
        retriever: &dyn Retriever,
    ) -> Result<Transition, RetrieverError> {
        if self.over {
            return Ok(self.transition(String::new(), 0.0, Some(EnvEnd::Terminated), false, false));
        }
        let result = match rules.options.protocol {
            Protocol::VerlAgent => self.verl_agent(raw, rules, retriever),
            Protocol::SearchR1 => self.search_r1(raw, rules, retriever),
        };
        self.over |= result.is_err();
        result
    }

    fn verl_agent(
        &mut self,
        raw: &str,
        rules: &Rules,
        retriever: &dyn Retriever,
    ) -> Result<Transition, RetrieverError> {
        let projected = Projection::Search.project(raw);
        let action = projected.action.as_str();
        self.turns += 1;
        self.said.push_str(action);
        // The original looks for both tags anywhere in the action, in this letter case.
        let answered = action.contains(ANSWER) && action.contains(ANSWER_END);
        if let Some(transition) = self.finish(answered, self.is_last(rules, 0), projected.valid) {
            return Ok(transition);
        }
        let Some(query) = inner(action, SEARCH, SEARCH_END) else {
            return Ok(self.transition(String::new(), 0.0, None, false, projected.valid));
        };
        let query = query.trim_matches(is_space);
        let mut result = String::new();
        for (i, passage) in find(retriever, query, rules.options.topk)?.iter().enumerate() {
            let contents = passage.contents.trim_matches(is_space);
            verl_agent_passage(&mut result, i + 1, contents);
        }
        let mut text = [INFORMATION, RESULT].concat();
        json_string(&result, false, &mut text);
        text.push_str(RESULT_END);
        text.push_str(INFORMATION_END);
        self.said.push('\n');
        self.said.push_str(&text);
        self.said.push('\n');
        Ok(self.transition(text, 0.0, None, false, projected.valid))
    }

    fn search_r1(
        &mut self,
        raw: &str,
        rules: &Rules,
        retriever: &dyn Retriever,
    ) -> Result<Transition, RetrieverError> {
        self.turns += 1;
        self.said.push_str(response(raw));
        let (query, answered) = match first_action(raw) {
            Some((true, query)) => (Some(query.trim_matches(is_space)), false),
            Some((false, _)) => (None, true),
            None => (None, false),
        };
        let effect = query.is_some() || answered;
        if let Some(transition) = self.finish(answered, self.is_last(rules, 1), effect) {
            return Ok(transition);
        }
        let text = match query {
            None => rules.corrective.to_string(),
            Some(query) => {
                let mut result = String::new();
                for (i, passage) in find(retriever, query, rules.options.topk)?.iter().enumerate() {
                    let (title, text) =
                        passage.contents.split_once('\n').unwrap_or((&passage.contents, ""));
                    search_r1_passage(&mut result, i + 1, title, text);
                }
                let result = result.trim_matches(is_space);
                format!("\n\n{INFORMATION}{result}{INFORMATION_END}\n\n")
            }
        };
        let mut kept = (rules.cut)(&text, rules.options.observation_tokens).min(text.len());
        while !text.is_char_boundary(kept) {
            kept -= 1;
        }
        let text = &text[..kept];
        self.said.push_str(text);
        Ok(self.transition(text.to_owned(), 0.0, None, false, effect))
    }

    /// Whether this turn was the last, `extra` turns being granted.
    fn is_last(&self, rules: &Rules, extra: u32) -> bool {
        rules.max_turns.is_some_and(|limit| self.turns >= limit.saturating_add(extra))
    }

    /// The transition that ends the episode, if it ends.
    fn finish(&mut self, answered: bool, last: bool, effect: bool) -> Option<Transition> {
        let end = match (answered, last) {
            (true, _) => EnvEnd::Terminated,
            (false, true) => EnvEnd::Truncated(Limit::Turns),
            (false, false) => return None,
        };
        self.over = true;
        let golden = &self.question.golden_answers;
        let won = last_answer(&self.said).is_some_and(|answer| exact_match(answer, golden));
        Some(self.transition(String::new(), f64::from(u8::from(won)), Some(end), won, effect))
    }

    #[allow(clippy::unused_self)] // reads as a sentence where it is used
    fn transition(
        &self,
        text: String,
        reward: f64,
        end: Option<EnvEnd>,
        won: bool,
        effect: bool,
    ) -> Transition {
        Transition { observation: Observation { text }, reward, end, won, effect }
    }
}

/// The passages of one query, an empty one too: whether that finds anything is the retriever's.
fn find(
    retriever: &dyn Retriever,
    query: &str,
    topk: usize,
) -> Result<Vec<Passage>, RetrieverError> {
    let mut lists = retriever.retrieve(&[query], topk)?;
    match (lists.pop(), lists.is_empty()) {
        (Some(passages), true) => Ok(passages),
        _ => Err(RetrieverError::Failed("one query must have one list of passages".to_owned())),
    }
}

/// What stands between the first `open` and the next `close`.
fn inner<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(open)?;
    Some(after.split_once(close)?.0)
}

/// What Search-R1 keeps of what a model wrote: nothing behind the first closing tag.
fn response(raw: &str) -> &str {
    let end = [SEARCH_END, ANSWER_END].iter().find_map(|tag| Some(raw.find(tag)? + tag.len()));
    &raw[..end.unwrap_or(raw.len())]
}

/// The query (true) or the answer (false) that Search-R1 reads in what a model wrote.
pub(crate) fn first_action(raw: &str) -> Option<(bool, &str)> {
    first_block(response(raw))
}

/// The first block of `<search>` (true) or `<answer>` (false) that is closed by its own tag.
fn first_block(text: &str) -> Option<(bool, &str)> {
    let blocks = [(true, SEARCH, SEARCH_END), (false, ANSWER, ANSWER_END)];
    let first = blocks.into_iter().filter_map(|(is_search, open, close)| {
        let start = text.find(open)?;
        inner(&text[start..], open, close).map(|inner| (start, is_search, inner))
    });
    first.min_by_key(|block| block.0).map(|(_, is_search, inner)| (is_search, inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds its own query, twice.
    struct Echo;

    impl Retriever for Echo {
        fn retrieve(
            &self,
            queries: &[&str],
            topk: usize,
        ) -> Result<Vec<Vec<Passage>>, RetrieverError> {
            let passage = |q: &&str| Passage::from_contents("1".into(), format!("\"{q}\"\né"), 1.0);
            if queries.contains(&"down") {
                return Err(RetrieverError::Failed("down".to_owned()));
            }
            Ok(queries.iter().map(|q| vec![passage(q); topk.min(2)]).collect())
        }
    }

    fn episode() -> Episode {
        Episode::new(Arc::new(Question {
            question: "who?".to_owned(),
            golden_answers: vec!["Ada".to_owned()],
            ..Question::default()
        }))
    }

    fn rules(protocol: Protocol) -> Rules {
        Rules::new(SearchOptions { protocol, ..SearchOptions::default() }, Some(2))
    }

    #[test]
    fn verl_agent_searches_and_answers() {
        let rules = rules(Protocol::VerlAgent);
        let mut episode = episode();
        assert_eq!(episode.observe().text, "who?");
        let found = episode.step("<think>?</think><search> x </search>", &rules, &Echo).unwrap();
        let expected = r#"<information>{"result": "Doc 1: \"x\"\n\u00e9\nDoc 2: \"x\"\n\u00e9\n"}</information>"#;
        assert_eq!(found.observation.text, expected);
        assert!(found.effect && found.end.is_none());
        let last = episode.step("<answer>the ADA!</answer>", &rules, &Echo).unwrap();
        assert_eq!((last.reward, last.end, last.won), (1.0, Some(EnvEnd::Terminated), true));
        assert!(episode.is_over());
    }

    #[test]
    fn the_last_turn_does_not_search() {
        let rules = rules(Protocol::VerlAgent);
        let mut episode = episode();
        let nothing = episode.step("hm", &rules, &Echo).unwrap();
        assert_eq!((nothing.observation.text.as_str(), nothing.effect), ("", false));
        let last = episode.step("<search>down</search>", &rules, &Echo).unwrap();
        assert_eq!(last.end, Some(EnvEnd::Truncated(Limit::Turns)));
        assert_eq!((last.observation.text.as_str(), last.reward), ("", 0.0));
    }

    #[test]
    fn a_failing_retriever_is_no_empty_result() {
        for protocol in [Protocol::VerlAgent, Protocol::SearchR1] {
            let mut episode = episode();
            assert!(episode.step("<search>down</search>", &rules(protocol), &Echo).is_err());
            assert!(episode.is_over());
        }
    }

    #[test]
    fn search_r1_grants_a_turn_for_the_answer() {
        let rules = rules(Protocol::SearchR1);
        let mut episode = episode();
        let found = episode.step("a <search> q </search> b", &rules, &Echo).unwrap();
        let expected =
            "\n\n<information>Doc 1(Title: \"q\") é\nDoc 2(Title: \"q\") é</information>\n\n";
        assert_eq!(found.observation.text, expected);
        let invalid = episode.step("<search>open", &rules, &Echo).unwrap();
        assert_eq!(invalid.observation.text, CORRECTIVE);
        assert!(!invalid.effect && invalid.end.is_none());
        let last = episode.step("<answer> Ada </answer>", &rules, &Echo).unwrap();
        assert_eq!((last.reward, last.won), (1.0, true));
    }

    #[test]
    fn search_r1_cuts_long_observations() {
        let mut rules = rules(Protocol::SearchR1);
        rules.options.observation_tokens = 2;
        let found = episode().step("<search>q</search>", &rules, &Echo).unwrap();
        assert_eq!(found.observation.text, "\n\n<information>Doc 1(Title:");
    }

    #[test]
    fn words_are_counted_between_white_space() {
        assert_eq!(words("a b  c", 2), 3);
        assert_eq!(words(" a b", 5), 4);
        assert_eq!(words("ab", 0), 0);
    }

    #[test]
    fn blocks_close_with_their_own_tag() {
        assert_eq!(first_block("<search>a</answer> <answer>b</answer>"), Some((false, "b")));
        assert_eq!(first_block("<answer>b</answer><search>a</search>"), Some((false, "b")));
        assert_eq!(first_block("<search>a<answer>b</search>"), Some((true, "a<answer>b")));
        assert_eq!(first_block("<search>a"), None);
    }
}
