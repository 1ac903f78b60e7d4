//! `empg env search`: the documents that queries find.

use std::io::Write;

use anyhow::bail;
use clap::Args;
use empg_env::retrieval::{Hit, Searcher, anserini_scores};
use empg_env::search::{Bm25Retriever, Corpus, Retriever};
use empg_env::webshop::Catalogue;
use serde::{Deserialize, Serialize};

use super::lines::{each_line, write_line};
use super::source::{Which, note};

/// Arguments of `empg env search`.
#[derive(Args, Debug)]
pub(super) struct SearchArgs {
    #[command(flatten)]
    which: Which,
    /// How many documents of each query
    #[arg(long, default_value_t = 10)]
    top: usize,
}

/// A query, as an object or alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Query {
    Object { query: String },
    Text(String),
}

#[derive(Serialize)]
struct Found<'a> {
    query: &'a str,
    hits: Vec<(&'a str, f32)>,
}

/// Answers queries.
pub(super) fn run(args: &SearchArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let SearchArgs { which, top } = args;
    which.check()?;
    match which.env.as_str() {
        "webshop" => shop(&*which.data.catalogue()?, *top, out),
        "search" => match which.data.corpus()? {
            Some(file) if !file.is_dir() && !file.to_string_lossy().contains("://") => {
                let corpus = Corpus::load(file)?;
                note(corpus.notices());
                passages(&Bm25Retriever::new(corpus.into()), *top, out)
            }
            _ => other(&*which.data.retriever()?, *top, out),
        },
        env => bail!("{env:?} has no search: it is webshop or search"),
    }
}

fn shop(catalogue: &Catalogue, top: usize, out: &mut impl Write) -> anyhow::Result<()> {
    each_query(|query| {
        let found = catalogue.search(query, top).into_iter();
        let mut hits: Vec<Hit> = found.map(|(doc, score)| Hit { doc, score }).collect();
        anserini_scores(&mut hits);
        let hits = hits.iter().map(|hit| (catalogue.product(hit.doc).asin(), hit.score)).collect();
        write_line(out, &Found { query, hits })
    })
}

fn passages(bm25: &Bm25Retriever, top: usize, out: &mut impl Write) -> anyhow::Result<()> {
    let mut searcher = Searcher::new(bm25.index());
    let mut hits = Vec::new();
    each_query(|query| {
        searcher.search(query, top, &mut hits);
        anserini_scores(&mut hits);
        let named = |hit: &Hit| Some((bm25.corpus().id(hit.doc as usize)?, hit.score));
        let hits = hits.iter().filter_map(named).collect();
        write_line(out, &Found { query, hits })
    })
}

/// Any retriever, with the scores that it gives.
fn other(retriever: &dyn Retriever, top: usize, out: &mut impl Write) -> anyhow::Result<()> {
    each_query(|query| {
        let lists = retriever.retrieve(&[query], top)?;
        let hits = lists.iter().flatten().map(|hit| (hit.id.as_str(), hit.score)).collect();
        write_line(out, &Found { query, hits })
    })
}

fn each_query(mut each: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    each_line(|line| match serde_json::from_str(line) {
        Ok(Query::Object { query } | Query::Text(query)) => each(&query),
        Err(_) => bail!("expected {{\"query\": TEXT}} or a JSON text"),
    })
}
