//! Any model text is read, and played under both protocols.
#![no_main]

use std::sync::Arc;

use empg_env::Projection;
use empg_env::search::{
    Bm25Retriever, Corpus, Episode, Protocol, Question, Rules, SearchOptions,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for projection in [Projection::Search, Projection::SearchR1] {
        let projected = projection.project(text);
        assert!(projected.valid <= !projected.action.is_empty());
    }
    let corpus = Corpus::from_passages([("0", "\"Title\"\ntext"), ("1", "more <answer>text")]);
    let retriever = Bm25Retriever::new(Arc::new(corpus));
    for protocol in [Protocol::VerlAgent, Protocol::SearchR1] {
        let options = SearchOptions { protocol, ..SearchOptions::default() };
        let rules = Rules::new(options, Some(2));
        let mut episode = Episode::new(Arc::new(Question {
            question: "who?".to_owned(),
            golden_answers: vec!["text".to_owned()],
            ..Question::default()
        }));
        for _ in 0..3 {
            let _ = episode.step(text, &rules, &retriever);
        }
        assert!(episode.is_over());
    }
});
