//! `empg env replay search`: recorded model outputs over a corpus.

use std::io::Write;
use std::sync::Arc;

use empg_env::search::{Episode, Protocol, Question, Retriever, Rules, SearchOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lines::{each_line, handed_through, read, write_line};
use super::source::Which;

#[derive(Deserialize)]
struct Recorded {
    question: String,
    golden_answers: Vec<String>,
    #[serde(default = "four")]
    max_turns: Option<u32>,
    #[serde(default = "three")]
    topk: usize,
    #[serde(default)]
    protocol: Protocol,
    actions: Vec<String>,
    /// Whatever else identifies the episode; handed through.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[allow(clippy::unnecessary_wraps)] // the field's type
fn four() -> Option<u32> {
    Some(4)
}

fn three() -> usize {
    3
}

#[derive(Serialize)]
struct Replayed<'a> {
    #[serde(flatten)]
    rest: &'a Map<String, Value>,
    question: &'a str,
    golden_answers: &'a [String],
    max_turns: Option<u32>,
    topk: usize,
    steps: Vec<Step<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unplayed: Option<usize>,
}

#[derive(Serialize)]
struct Step<'a> {
    action: Option<&'a str>,
    observation: String,
    reward: f64,
    done: bool,
    won: bool,
}

/// Plays recorded model outputs.
pub(super) fn run(which: &Which, out: &mut impl Write) -> anyhow::Result<()> {
    which.check()?;
    let retriever = which.data.retriever()?;
    each_line(|line| {
        let mut recorded: Recorded = read(line)?;
        handed_through(&mut recorded.rest);
        let (steps, unplayed) = play(&recorded, &*retriever)?;
        let Recorded { question, golden_answers, max_turns, topk, rest, .. } = &recorded;
        let unplayed = (unplayed > 0).then_some(unplayed);
        let (max_turns, topk) = (*max_turns, *topk);
        let line = Replayed { rest, question, golden_answers, max_turns, topk, steps, unplayed };
        write_line(out, &line)
    })
}

fn play<'a>(
    recorded: &'a Recorded,
    retriever: &dyn Retriever,
) -> anyhow::Result<(Vec<Step<'a>>, usize)> {
    let Recorded { question, golden_answers, max_turns, topk, protocol, actions, .. } = recorded;
    let options = SearchOptions { protocol: *protocol, topk: *topk, ..SearchOptions::default() };
    let rules = Rules::new(options, *max_turns);
    let mut episode = Episode::new(Arc::new(Question {
        question: question.clone(),
        golden_answers: golden_answers.clone(),
        ..Question::default()
    }));
    let observation = episode.observe().text;
    let mut steps = vec![Step { action: None, observation, reward: 0.0, done: false, won: false }];
    for action in actions {
        if episode.is_over() {
            break;
        }
        let transition = episode.step(action, &rules, retriever)?;
        steps.push(Step {
            action: Some(action),
            observation: transition.observation.text,
            reward: transition.reward,
            done: transition.end.is_some(),
            won: transition.won,
        });
    }
    let unplayed = actions.len() + 1 - steps.len();
    Ok((steps, unplayed))
}
