//! The built-in retriever: BM25 over a corpus in memory.

use std::sync::Arc;

use super::corpus::Corpus;
use super::passage::{Passage, Retriever, RetrieverError};
use crate::retrieval::{Bm25, Searcher};

/// A corpus and its index. Shared by any number of threads.
#[derive(Debug)]
pub struct Bm25Retriever {
    corpus: Arc<Corpus>,
    index: Bm25,
}

impl Bm25Retriever {
    /// Indexes the contents of every passage. Passages with equal scores come in the byte order of
    /// their identifiers.
    pub fn new(corpus: Arc<Corpus>) -> Self {
        let ids: Vec<&str> = corpus.iter().map(|(id, _)| id).collect();
        let index = Bm25::build(corpus.iter().map(|(_, contents)| contents)).ties_by(&ids);
        Self { corpus, index }
    }

    /// The passages.
    pub fn corpus(&self) -> &Arc<Corpus> {
        &self.corpus
    }

    /// The index; its documents are positions in the corpus.
    pub fn index(&self) -> &Bm25 {
        &self.index
    }
}

impl Retriever for Bm25Retriever {
    fn retrieve(&self, queries: &[&str], topk: usize) -> Result<Vec<Vec<Passage>>, RetrieverError> {
        let mut searcher = Searcher::new(&self.index);
        let mut hits = Vec::new();
        let passages = |query: &&str| {
            searcher.search(query, topk, &mut hits);
            hits.iter().filter_map(|hit| self.corpus.passage(hit.doc as usize, hit.score)).collect()
        };
        Ok(queries.iter().map(passages).collect())
    }
}
