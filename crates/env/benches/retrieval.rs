//! How fast passages are indexed and searched, on one core.
//!
//! `EMPG_TEST_DATA=DIR cargo bench -p empg-env --bench retrieval` reads `DIR/deepsearch`;
//! `-- products N` measures an index of N made-up products instead, about 60 words each.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use empg_env::retrieval::{Bm25, Searcher};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

#[derive(Deserialize)]
struct Passage {
    contents: String,
}

#[derive(Deserialize)]
struct Question {
    #[serde(alias = "query")]
    question: String,
}

fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, Box<dyn Error>> {
    let mut text = String::new();
    MultiGzDecoder::new(BufReader::new(File::open(path)?)).read_to_string(&mut text)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|a| a == "products") {
        let count = arguments.get(at + 1).map_or(Ok(100_000), |n| n.parse())?;
        products(count);
        return Ok(());
    }
    let Some(data) = std::env::var_os("EMPG_TEST_DATA").map(PathBuf::from) else {
        println!("EMPG_TEST_DATA is not set: nothing to measure");
        return Ok(());
    };
    let data = data.join("deepsearch");
    let started = Instant::now();
    let passages: Vec<Passage> = lines(&data.join("wiki_small.jsonl.gz"))?;
    let read = started.elapsed();
    let started = Instant::now();
    let index = Bm25::build(passages.iter().map(|p| &p.contents));
    println!(
        "{} passages, {} terms: read in {:.3} s, indexed in {:.3} s",
        index.len(),
        index.terms(),
        read.as_secs_f64(),
        started.elapsed().as_secs_f64()
    );
    for file in ["bm25.jsonl.gz", "qa_all.jsonl.gz"] {
        let questions: Vec<Question> = lines(&data.join(file))?;
        let questions: Vec<String> = questions.into_iter().map(|q| q.question).collect();
        for top in [3, 10, 50] {
            println!(
                "{file}: {:.0} queries/s for the best {top}",
                rate(&index, &questions, top, 40_000)
            );
        }
    }
    Ok(())
}

/// Queries a second, the best of 25 rounds.
fn rate(index: &Bm25, questions: &[String], top: usize, at_least: usize) -> f64 {
    let mut searcher = Searcher::new(index);
    let mut hits = Vec::new();
    let mut best = 0.0_f64;
    let repetitions = at_least.div_ceil(questions.len());
    for _ in 0..25 {
        let started = Instant::now();
        for _ in 0..repetitions {
            for question in questions {
                searcher.search(question, top, &mut hits);
                std::hint::black_box(&hits);
            }
        }
        best = best.max((repetitions * questions.len()) as f64 / started.elapsed().as_secs_f64());
    }
    best
}

/// Words drawn with the frequencies of a language: the n-th about n times rarer than the first.
fn products(count: usize) {
    let mut state = 1_u64;
    let mut word = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let uniform = (state >> 11) as f64 / (1_u64 << 53) as f64;
        // Zipf's law over a million words.
        1_000_000_f64.powf(uniform) as u64
    };
    let mut text = |words: usize| {
        let mut text = String::with_capacity(words * 7);
        for _ in 0..words {
            let mut n = word().wrapping_mul(2_654_435_761) % 308_915_776;
            text.push(' ');
            for _ in 0..6 {
                text.push(char::from(b'a' + (n % 26) as u8));
                n /= 26;
            }
        }
        text
    };
    let started = Instant::now();
    let index = Bm25::build((0..count).map(|_| text(60)));
    println!(
        "{count} products, {} terms: made and indexed in {:.1} s",
        index.terms(),
        started.elapsed().as_secs_f64()
    );
    let questions: Vec<String> = (0..500).map(|_| text(12)).collect();
    println!("{:.0} queries/s of 12 words for the best 50", rate(&index, &questions, 50, 500));
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        println!("{}", status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default());
    }
}
