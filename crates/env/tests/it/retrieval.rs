//! Search against a plain reading of its definition.

use std::collections::{BTreeMap, BTreeSet};

use empg_env::retrieval::{Bm25, Hit, Searcher, analyze, words};
use proptest::prelude::*;

/// A document's length as Lucene stores it: 4 significant bits of what exceeds 24.
fn stored(length: usize) -> f32 {
    if length < 24 {
        return length as f32;
    }
    let (mut rest, mut shift) = (length - 24, 0);
    while rest >= 16 {
        rest >>= 1;
        shift += 1;
    }
    (24 + (rest << shift)) as f32
}

/// Every document's score, best first, ties by place.
fn plain(docs: &[String], query: &str, places: &[usize]) -> Vec<(u32, f32)> {
    let docs: Vec<Vec<String>> = docs.iter().map(|d| analyze(d)).collect();
    let filled = docs.iter().filter(|d| !d.is_empty()).count();
    let total: usize = docs.iter().map(Vec::len).sum();
    let average = (total as f64 / filled.max(1) as f64) as f32;
    let mut repetitions = BTreeMap::new();
    for term in analyze(query) {
        *repetitions.entry(term).or_insert(0_u32) += 1;
    }
    let mut scores: Vec<(u32, f32)> = Vec::new();
    for (number, doc) in docs.iter().enumerate() {
        let mut sum = 0.0_f64;
        for (term, &times) in &repetitions {
            let tf = doc.iter().filter(|t| *t == term).count();
            if tf == 0 {
                continue;
            }
            let df = docs.iter().filter(|d| d.contains(term)).count() as f64;
            let idf = (1.0 + (filled as f64 - df + 0.5) / (df + 0.5)).ln() as f32;
            let w = times as f32 * idf;
            let inv =
                1.0_f32 / (0.9_f32 * ((1.0_f32 - 0.4_f32) + 0.4_f32 * stored(doc.len()) / average));
            sum += f64::from(w - w / (1.0 + tf as f32 * inv));
        }
        if sum > 0.0 {
            scores.push((number as u32, sum as f32));
        }
    }
    scores
        .sort_by(|a, b| b.1.total_cmp(&a.1).then(places[a.0 as usize].cmp(&places[b.0 as usize])));
    scores
}

fn pairs(hits: &[Hit]) -> Vec<(u32, f32)> {
    hits.iter().map(|hit| (hit.doc, hit.score)).collect()
}

/// Few words, so that documents share them and scores are equal now and then.
fn text(words: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let word = prop_oneof![
        8 => "[a-d]{1,2}x".prop_map(String::from),
        2 => Just("running".to_owned()),
        1 => Just("the".to_owned()),
        1 => "\\PC{0,4}".prop_map(String::from),
    ];
    prop::collection::vec(word, words).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn search_is_the_best_of_full_scoring(
        docs in prop::collection::vec(text(0..40), 0..120),
        queries in prop::collection::vec(text(0..12), 1..4),
        top in 0..30_usize,
        reversed in any::<bool>(),
    ) {
        let mut index = Bm25::build(&docs);
        let mut places: Vec<usize> = (0..docs.len()).collect();
        if reversed {
            places.reverse();
            let ids: Vec<String> = places.iter().map(|place| format!("{place:06}")).collect();
            index = index.ties_by(&ids);
        }
        let mut searcher = Searcher::new(&index);
        let mut hits = Vec::new();
        for query in &queries {
            let mut expected = plain(&docs, query, &places);
            expected.truncate(top);
            searcher.search(query, top, &mut hits);
            prop_assert_eq!(pairs(&hits), expected);
        }
    }

    #[test]
    fn words_are_parts_of_the_text_in_order(text in "\\PC{0,200}|[a-b.'_\u{5d0}\u{200d}\u{1f44d}\u{fe0f}\u{20e3}#1]{0,60}") {
        let mut rest = text.as_str();
        for word in words(&text) {
            prop_assert!(!word.is_empty());
            prop_assert!(word.encode_utf16().count() <= 255);
            let at = rest.find(word);
            prop_assert!(at.is_some());
            rest = &rest[at.unwrap_or(0) + word.len()..];
        }
    }
}

#[test]
fn many_windows_and_many_repetitions_agree_with_full_scoring() {
    // More documents than a window holds, one term in all of them, counts beyond a byte.
    let docs: Vec<String> = (0..40_000_u32)
        .map(|n| {
            let mut text = format!("all w{} w{}", n % 7, n % 1013);
            if n % 9_001 == 5 {
                text += &" often".repeat(200 + n as usize / 100);
            }
            text
        })
        .collect();
    let index = Bm25::build(&docs);
    for (query, term) in [("often", "often"), ("w3 w1012", "w3"), ("all often often w6", "all")] {
        let all = index.search(query, docs.len());
        assert!(all.iter().any(|hit| docs[hit.doc as usize].contains(term)));
        for top in [1, 3, 50, 5_000] {
            assert_eq!(index.search(query, top), all[..top.min(all.len())], "{query} {top}");
        }
        for hit in all.iter().step_by(997) {
            let explained = index.explain(hit.doc, query).expect("the document exists");
            assert_eq!(explained.score, hit.score);
        }
    }
    let often = index.explain(5 + 9_001 * 3, "often").expect("the document exists");
    assert_eq!(often.terms[0].count, 200 + 27_008 / 100);
}

#[test]
fn queries_of_a_megabyte_end_and_agree() {
    let docs: Vec<String> = (0..2_000_u32).map(|n| format!("w{n} v{} common", n % 50)).collect();
    let index = Bm25::build(&docs);
    let long: String =
        (0..150_000_u32).map(|n| format!("w{}", n % 4_000)).collect::<Vec<_>>().join(" ");
    assert!(long.len() > 800_000);
    let hits = index.search(&long, 10);
    let first: BTreeSet<u32> = hits.iter().map(|hit| hit.doc).collect();
    assert_eq!(first, (0..10).collect());
    assert!(
        hits.iter().all(|hit| index.explain(hit.doc, &long).is_some_and(|e| e.score == hit.score))
    );
    assert_eq!(index.search(&"x".repeat(1 << 20), 10), []);
    assert_eq!(index.search(&"common ".repeat(1 << 17), 3).len(), 3);
    assert_eq!(index.search(&"\u{0}\u{1b}[2J\u{7f}\n\r\t".repeat(1 << 17), 3), []);
}

#[test]
fn empty_indexes_and_empty_documents() {
    let none: [&str; 0] = [];
    let index = Bm25::build(none);
    assert!(index.is_empty());
    assert_eq!(index.search("anything", 10), []);
    assert_eq!(index.explain(0, "anything"), None);
    let index = Bm25::build(["", "the", "word", ""]);
    assert_eq!(index.len(), 4);
    assert_eq!(index.search("the word", 10).len(), 1);
    // Documents without terms count neither for a term's rarity nor for the mean length.
    assert_eq!(index.search("word", 1)[0].score, Bm25::build(["word"]).search("word", 1)[0].score);
}
