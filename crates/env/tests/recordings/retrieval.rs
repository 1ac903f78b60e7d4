//! Analyzer and search against recordings of Lucene.

use std::collections::HashMap;
use std::path::Path;

use empg_env::retrieval::{Bm25, Searcher, analyze, anserini_scores};
use libtest_mimic::Failed;
use serde::Deserialize;

use super::lines;

#[derive(Deserialize)]
struct Passage {
    id: String,
    contents: String,
}

#[derive(Deserialize)]
struct Recorded {
    query: String,
    hits: Vec<(String, f32)>,
}

/// The first ten passages of every recorded question, with their scores.
pub(super) fn passages(data: &Path) -> Result<(), Failed> {
    let passages: Vec<Passage> = lines(&data.join("deepsearch/wiki_small.jsonl.gz"))?;
    let ids: Vec<String> = passages.iter().map(|p| p.id.clone()).collect();
    let index = Bm25::build(passages.iter().map(|p| &p.contents)).ties_by(&ids);
    let mut searcher = Searcher::new(&index);
    let mut hits = Vec::new();
    for recorded in lines::<Recorded>(&data.join("deepsearch/bm25.jsonl.gz"))? {
        searcher.search(&recorded.query, 10, &mut hits);
        anserini_scores(&mut hits);
        let found: Vec<(String, f32)> =
            hits.iter().map(|hit| (ids[hit.doc as usize].clone(), hit.score)).collect();
        if found != recorded.hits {
            return Err(
                format!("{:?}: {found:?} instead of {:?}", recorded.query, recorded.hits).into()
            );
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Tokens {
    id: String,
    tokens: Vec<String>,
}

#[derive(Deserialize)]
struct ShopQuery {
    query: String,
    tokens: Vec<String>,
    hits: Vec<(String, f32)>,
}

/// WebShop's products, as the terms that Lucene made of them: its queries find what Lucene found.
pub(super) fn products(data: &Path) -> Result<(), Failed> {
    let products: Vec<Tokens> = lines(&data.join("webshop/doc_tokens_1k.jsonl.gz"))?;
    let place: HashMap<&str, usize> =
        products.iter().enumerate().map(|(i, p)| (p.id.as_str(), i)).collect();
    let ids: Vec<&str> = products.iter().map(|p| p.id.as_str()).collect();
    let index = Bm25::build_from_terms(products.iter().map(|p| &p.tokens)).ties_by(&ids);
    for recorded in lines::<ShopQuery>(&data.join("webshop/search.jsonl.gz"))? {
        if analyze(&recorded.query) != recorded.tokens {
            return Err(
                format!("{:?}: terms {:?}", recorded.query, analyze(&recorded.query)).into()
            );
        }
        let mut found = index.search(&recorded.query, recorded.hits.len().max(50));
        anserini_scores(&mut found);
        let found: Vec<(&str, f32)> =
            found.iter().map(|hit| (ids[hit.doc as usize], hit.score)).collect();
        let expected: Vec<(&str, f32)> =
            recorded.hits.iter().map(|(id, score)| (ids[place[id.as_str()]], *score)).collect();
        if found != expected {
            return Err(format!("{:?}: {found:?} instead of {expected:?}", recorded.query).into());
        }
    }
    Ok(())
}
