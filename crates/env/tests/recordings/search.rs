//! Deep Search: recorded episodes and scores.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use empg_env::search::score::{Scores, exact_match};
use empg_env::search::score::{last_answer, last_answer_after_prompt, normalize};
use empg_env::search::{Bm25Retriever, Corpus, Episode, Question, Rules, SearchOptions, SearchSet};
use empg_env::{Projection, Split, TaskSet};
use libtest_mimic::Failed;
use serde::Deserialize;

use super::lines;

fn retriever(data: &Path) -> &'static Bm25Retriever {
    static RETRIEVER: OnceLock<Bm25Retriever> = OnceLock::new();
    RETRIEVER.get_or_init(|| {
        let corpus = Corpus::load(data.join("deepsearch/wiki_small.jsonl.gz"));
        Bm25Retriever::new(Arc::new(corpus.expect("the passages load")))
    })
}

#[derive(Deserialize)]
struct Recording {
    id: String,
    question: String,
    golden_answers: Vec<String>,
    max_turns: u32,
    topk: usize,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    raw: Option<String>,
    prompt: String,
    anchor: String,
    #[serde(default)]
    reward: f64,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    won: bool,
    is_action_valid: Option<u8>,
    postprocessed_action: Option<String>,
}

/// Every observation, reward and end; and the history that the recorded prompts hold, which is
/// made of the projected actions and the observations.
pub(crate) fn episodes(data: &Path) -> Result<(), Failed> {
    let retriever = retriever(data);
    for recording in lines::<Recording>(&data.join("deepsearch/episodes.jsonl.gz"))? {
        let Recording { id, question, golden_answers, max_turns, topk, steps } = recording;
        let options = SearchOptions { topk, ..SearchOptions::default() };
        let rules = Rules::new(options, Some(max_turns));
        let mut episode =
            Episode::new(Arc::new(Question { question, golden_answers, ..Question::default() }));
        let mut history = String::new();
        for (i, step) in steps.iter().enumerate() {
            let fail = |what: String| Failed::from(format!("{id} step {i}: {what}"));
            let Some(raw) = &step.raw else {
                let text = episode.observe().text;
                if text != step.anchor || !step.prompt.contains(&text) {
                    return Err(fail(text));
                }
                continue;
            };
            let projected = Projection::Search.project(raw);
            let transition = episode.step(raw, &rules, retriever)?;
            let same = transition.observation.text == step.anchor
                && transition.reward == step.reward
                && transition.end.is_some() == step.done
                && transition.won == step.won
                && Some(u8::from(projected.valid)) == step.is_action_valid
                && Some(&projected.action) == step.postprocessed_action.as_ref();
            if !same {
                return Err(fail(format!("{transition:?}, recorded {:?}", step.anchor)));
            }
            if !history.is_empty() {
                history.push('\n');
            }
            let observation = &transition.observation.text;
            let _ = writeln!(history, "Step {i}:{} {observation}", projected.action);
            if !step.done && !step.prompt.contains(&history) {
                return Err(fail(format!("the prompt does not hold {history:?}")));
            }
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Scored {
    solution: String,
    prediction: String,
    golden_answers: Vec<String>,
    normalized: String,
    em: u8,
    subem: u8,
    f1: f64,
    extract_verl: Option<String>,
    score_verl: f64,
    extract_searchr1: Option<String>,
}

pub(crate) fn scoring(data: &Path) -> Result<(), Failed> {
    for line in lines::<Scored>(&data.join("deepsearch/scoring.jsonl.gz"))? {
        let scores = Scores::of(&line.prediction, &line.golden_answers);
        let last = last_answer(&line.solution);
        let score = last.is_some_and(|answer| exact_match(answer, &line.golden_answers));
        let same = normalize(&line.prediction) == line.normalized
            && u8::from(scores.em) == line.em
            && u8::from(scores.subem) == line.subem
            && scores.f1 == line.f1
            && last == line.extract_verl.as_deref()
            && last_answer_after_prompt(&line.solution) == line.extract_searchr1.as_deref()
            && f64::from(u8::from(score)) == line.score_verl;
        if !same {
            return Err(format!("{:?}: {scores:?}, {last:?}", line.solution).into());
        }
    }
    Ok(())
}

/// The folder as a user points at it: its questions, its corpus, the splits.
pub(crate) fn folder(data: &Path) -> Result<(), Failed> {
    let set = SearchSet::load(data, None)?;
    let counts = [Split::Train, Split::Seen, Split::Unseen].map(|s| set.len(s).unwrap_or(0));
    if counts.iter().sum::<u64>() != 6548 || counts.contains(&0) || set.notices().len() != 2 {
        return Err(format!("{counts:?} {:?}", set.notices()).into());
    }
    let task = set.task(Split::Unseen, 0)?;
    let mut env = set.make();
    let question = env.reset(&task.id, 0)?.text;
    let found = env.step(&format!("<search>{question}</search>"))?;
    if found.observation.text.starts_with("<information>{\"result\": \"Doc 1: ") {
        Ok(())
    } else {
        Err(format!("{found:?}").into())
    }
}
