//! Analyzer and search: no text makes either fail, and what is found is what full scoring says.
#![no_main]

use empg_env::retrieval::{Bm25, analyze, anserini_scores, words};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut end = 0;
    for word in words(&text) {
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        assert!(start >= end && !word.is_empty() && word.encode_utf16().count() <= 255);
        end = start + word.len();
    }
    let _ = analyze(&text);
    // Lines are documents; the last is the query too.
    let docs: Vec<&str> = text.lines().collect();
    let query = docs.last().copied().unwrap_or_default();
    let index = Bm25::build(&docs).ties_by(&docs);
    let all = index.search(query, docs.len());
    assert_eq!(index.search(query, 3), all[..all.len().min(3)]);
    for hit in &all {
        assert_eq!(index.explain(hit.doc, query).map(|e| e.score), Some(hit.score));
    }
    anserini_scores(&mut all.clone());
});
