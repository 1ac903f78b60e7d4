//! Deep Search from files: what is found, what is refused and how that is said.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use empg_env::search::{
    Bm25Retriever, Corpus, Episode, Found, Protocol, Question, Questions, Retriever as _, Rules,
    SearchOptions, SearchSet,
};
use empg_env::{Split, TaskSet as _};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

const PASSAGES: &str = r#"{"id": "0", "contents": "\"Ada Lovelace\"\nAda Lovelace wrote the first program."}
{"id": "1", "contents": "\"Charles Babbage\"\nCharles Babbage designed the Analytical Engine."}
"#;
const QUESTIONS: &str = r#"{"id": "q1", "data_source": "nq", "question": "Who wrote the first program?", "golden_answers": ["Ada Lovelace"], "metadata": {"split": "train"}}
{"id": "q2", "data_source": "musique", "question": "Who designed the engine?", "golden_answers": ["Babbage"]}
"#;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn gzip(path: &Path, text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    let bytes = encoder.finish().unwrap();
    fs::write(path, &bytes).unwrap();
    bytes
}

fn refusal(dir: &Path, corpus: Option<&Path>) -> String {
    SearchSet::load(dir, corpus).unwrap_err().to_string()
}

#[test]
fn a_folder_is_played() {
    let dir = folder(&[("questions.jsonl", QUESTIONS), ("notes.txt", "mine")]);
    gzip(&dir.path().join("passages.jsonl.gz"), PASSAGES);
    let set = SearchSet::load(dir.path(), None).unwrap();
    assert_eq!(Split::Train as usize, 0);
    let counts = [Split::Train, Split::Seen, Split::Unseen].map(|split| set.len(split));
    assert_eq!(counts, [Some(1), Some(0), Some(1)]);
    assert_eq!(set.task(Split::Unseen, 0).unwrap().kind, "musique");
    assert!(set.task(Split::Seen, 0).is_err());
    let mut env = set.make();
    assert_eq!(env.reset("q1", 0).unwrap().text, "Who wrote the first program?");
    let found = env.step("<search>first program</search>").unwrap();
    assert_eq!(
        found.observation.text,
        r#"<information>{"result": "Doc 1: \"Ada Lovelace\"\nAda Lovelace wrote the first program.\n"}</information>"#
    );
    assert!(env.step("<answer>ada lovelace</answer>").unwrap().won);
    assert!(env.reset("q3", 0).is_err());

    // The folder above, and the same under Search-R1's protocol.
    let above = tempfile::tempdir().unwrap();
    fs::rename(dir.path(), above.path().join("deepsearch")).unwrap();
    let set = SearchSet::load(above.path(), None).unwrap();
    let options = SearchOptions { protocol: Protocol::SearchR1, ..SearchOptions::default() };
    let set = set.with(options, Some(1)).with_corrective("no\n");
    let mut env = set.make();
    env.reset("search/train/0", 0).unwrap();
    assert_eq!(env.step("hm").unwrap().observation.text, "no\n");
    assert!(env.step("<answer>Ada Lovelace</answer>").unwrap().won);
}

#[test]
fn what_is_missing_or_ambiguous_is_said() {
    let dir = folder(&[("questions.jsonl", QUESTIONS)]);
    assert!(refusal(dir.path(), None).contains("--corpus"));
    let none = dir.path().join("none.jsonl");
    assert!(refusal(dir.path(), Some(&none)).contains("none.jsonl"));
    assert!(refusal(&dir.path().join("nowhere"), None).contains("nowhere"));
    let https = Path::new("https://example.org/retrieve");
    assert!(refusal(dir.path(), Some(https)).contains("https is not supported"));
    fs::write(dir.path().join("a.jsonl"), PASSAGES).unwrap();
    fs::write(dir.path().join("b.jsonl"), PASSAGES).unwrap();
    let several = refusal(dir.path(), None);
    assert!(several.contains("a.jsonl") && several.contains("b.jsonl"), "{several}");
    gzip(&dir.path().join("wiki_small.jsonl.gz"), PASSAGES);
    assert!(SearchSet::load(dir.path(), None).is_ok());
    let dir = folder(&[("passages.jsonl", PASSAGES)]);
    assert!(refusal(dir.path(), None).contains("no questions here"));
}

#[test]
fn damage_is_told_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.jsonl");
    for (bytes, part) in [
        (&b""[..], "the corpus is empty"),
        (b"\n \n", "the corpus is empty"),
        (b"{\"id\": \"1\", \"contents\": \"x\"}\n{\"id\": \"2\", \"conte", "c.jsonl:2: "),
        (b"{\"id\": \"1\", \"contents\": \"\xff\"}\n", "c.jsonl:1: byte 26"),
        (b"\n{\"id\": \"1\", \"contents\": 7}\n", "c.jsonl:2: "),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = Corpus::load(&path).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let path = dir.path().join("q.jsonl");
    for (text, part) in [("", "no question"), ("\n{}\n", "q.jsonl:2: no `question`")] {
        fs::write(&path, text).unwrap();
        let error = Questions::load(&path).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let path = dir.path().join("q.parquet");
    fs::write(&path, "PAR1 nothing PAR1").unwrap();
    assert!(Questions::load(&path).unwrap_err().to_string().contains("q.parquet"));
    let path = dir.path().join("c.jsonl.gz");
    let whole = gzip(&path, &PASSAGES.repeat(100));
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = Corpus::load(&path).unwrap_err().to_string();
    assert!(error.contains("c.jsonl.gz:") && error.contains("damaged or incomplete"), "{error}");
}

#[test]
fn recordings_and_corpora_are_told_from_questions() {
    let episode = r#"{"id": "e", "question": "q", "golden_answers": ["a"], "steps": []}"#;
    let dir = folder(&[
        ("episodes.jsonl", episode),
        ("questions.jsonl", QUESTIONS),
        ("hits.jsonl", r#"{"query": "x", "hits": []}"#),
        ("passages.jsonl", PASSAGES),
        ("broken.jsonl", "{"),
    ]);
    let found = Found::look(dir.path()).unwrap();
    assert_eq!(found.questions, [dir.path().join("questions.jsonl")]);
    assert_eq!(found.corpora, [dir.path().join("passages.jsonl")]);
}

#[test]
fn long_and_odd_queries_are_searched() {
    let corpus = Corpus::parse(PASSAGES.as_bytes()).unwrap();
    let retriever = Bm25Retriever::new(Arc::new(corpus));
    let long = "ada \u{0}\u{7}\u{202e}😀 ".repeat(100_000);
    assert!(long.len() > 1 << 20);
    let lists = retriever.retrieve(&[&long, "", "\u{1}", "Babbage"], 3).unwrap();
    let ids: Vec<Vec<&str>> =
        lists.iter().map(|list| list.iter().map(|p| p.id.as_str()).collect()).collect();
    assert_eq!(ids, [vec!["0"], vec![], vec![], vec!["1"]]);
    assert_eq!(lists[3][0].title, "Charles Babbage");
}

fn model_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("<search>".to_owned()),
        Just("</search>".to_owned()),
        Just("<answer>".to_owned()),
        Just("</answer>".to_owned()),
        Just("</SEARCH>".to_owned()),
        Just("Ada Lovelace".to_owned()),
        "\\PC{0,6}",
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn loaders_survive_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Corpus::parse(&bytes);
        let _ = Questions::parse(&bytes, "x");
    }

    #[test]
    fn episodes_end_in_time_and_only_once(
        texts in prop::collection::vec(model_text(), 1..8),
        r1 in any::<bool>(),
    ) {
        let corpus = Corpus::parse(PASSAGES.as_bytes()).unwrap();
        let retriever = Bm25Retriever::new(Arc::new(corpus));
        let protocol = if r1 { Protocol::SearchR1 } else { Protocol::VerlAgent };
        let options = SearchOptions { protocol, ..SearchOptions::default() };
        let rules = Rules::new(options, Some(3));
        let mut episode = Episode::new(Arc::new(Question {
            question: "q".to_owned(),
            golden_answers: vec!["ada lovelace".to_owned()],
            ..Question::default()
        }));
        let most = if r1 { 4 } else { 3 };
        for (i, text) in texts.iter().enumerate() {
            let transition = episode.step(text, &rules, &retriever).unwrap();
            prop_assert_eq!(transition.won, transition.reward == 1.0);
            prop_assert!(transition.end.is_some() || transition.reward == 0.0);
            prop_assert!(transition.end.is_some() || i + 1 < most);
            if transition.end.is_some() {
                prop_assert!(episode.is_over());
                break;
            }
        }
    }
}
