//! Searches a corpus, or reads texts as the search reads them, line by line; the counterpart of
//! `tools/LuceneSearch.java`.
//!
//! ```sh
//! # {"id", "contents"} lines, queries as JSON strings, and how many passages per query
//! cargo run --release -p empg-env --example search_corpus -- CORPUS QUERIES 10
//! # JSON strings on stdin: their words as they stand, or the terms made of them
//! cargo run --release -p empg-env --example search_corpus -- words|terms
//! ```
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{BufRead, BufReader, BufWriter, Write, stdin, stdout};

use empg_env::retrieval::{Bm25, Searcher, analyze, anserini_scores, words};
use empg_env::search::Corpus;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut out = BufWriter::new(stdout().lock());
    match arguments[..] {
        ["words"] => {
            for line in stdin().lock().lines() {
                let text: String = serde_json::from_str(&line?)?;
                let all: Vec<&str> = words(&text).collect();
                writeln!(out, "{}", serde_json::to_string(&all)?)?;
            }
        }
        ["terms"] => {
            for line in stdin().lock().lines() {
                let text: String = serde_json::from_str(&line?)?;
                writeln!(out, "{}", serde_json::to_string(&analyze(&text))?)?;
            }
        }
        [corpus, queries, top] => {
            let (corpus, top) = (Corpus::load(corpus)?, top.parse()?);
            let ids: Vec<&str> = corpus.iter().map(|(id, _)| id).collect();
            let index = Bm25::build(corpus.iter().map(|(_, contents)| contents)).ties_by(&ids);
            let mut searcher = Searcher::new(&index);
            let mut hits = Vec::new();
            for line in BufReader::new(std::fs::File::open(queries)?).lines() {
                let query: String = serde_json::from_str(&line?)?;
                searcher.search(&query, top, &mut hits);
                anserini_scores(&mut hits);
                let found: Vec<(&str, f32)> =
                    hits.iter().map(|hit| (ids[hit.doc as usize], hit.score)).collect();
                writeln!(out, "{}", serde_json::to_string(&found)?)?;
            }
        }
        _ => return Err("usage: search_corpus CORPUS QUERIES TOP | words | terms".into()),
    }
    Ok(())
}
