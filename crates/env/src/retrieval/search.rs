//! Ranked search.

use std::cmp::Ordering;

use super::analyze::Term;
use super::index::Bm25;
use super::score::part;
use super::words::words;

/// A document that a search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Its number.
    pub doc: u32,
    /// Its BM25 score.
    pub score: f32,
}

impl Bm25 {
    /// The best `top` documents for a query, best first. Documents without any term of the query are
    /// never among them.
    ///
    /// In a loop, use a [`Searcher`]: it keeps its buffers.
    pub fn search(&self, query: &str, top: usize) -> Vec<Hit> {
        let mut hits = Vec::new();
        Searcher::new(self).search(query, top, &mut hits);
        hits
    }
}

/// Searches an index, one query after the other.
#[derive(Clone, Debug)]
pub struct Searcher<'a> {
    index: &'a Bm25,
    term: Term,
    query: Vec<(u32, u32)>,
    scores: Vec<f64>,
    touched: Vec<u32>,
}

impl<'a> Searcher<'a> {
    /// A searcher over an index.
    pub fn new(index: &'a Bm25) -> Self {
        Self {
            index,
            term: Term::default(),
            query: Vec::new(),
            scores: vec![0.0; index.len()],
            touched: Vec::new(),
        }
    }

    /// As [`Bm25::search`], into `hits`, which is cleared first.
    pub fn search(&mut self, query: &str, top: usize, hits: &mut Vec<Hit>) {
        let index = self.index;
        hits.clear();
        self.query.clear();
        for word in words(query) {
            let Some(&id) = self.term.of(word).and_then(|text| index.terms.get(text)) else {
                continue;
            };
            match self.query.iter_mut().find(|(known, _)| *known == id) {
                Some((_, repetitions)) => *repetitions += 1,
                None => self.query.push((id, 1)),
            }
        }
        for &(term, repetitions) in &self.query {
            let w = repetitions as f32 * index.weight(term);
            let range = index.starts[term as usize]..index.starts[term as usize + 1];
            for (&doc, &count) in index.docs[range.clone()].iter().zip(&index.counts[range]) {
                let inv = index.inverse_norms[usize::from(index.lengths[doc as usize])];
                let score = &mut self.scores[doc as usize];
                if *score == 0.0 {
                    self.touched.push(doc);
                }
                *score += f64::from(part(w, count as f32, inv));
            }
        }
        for doc in self.touched.drain(..) {
            let score = std::mem::take(&mut self.scores[doc as usize]) as f32;
            hits.push(Hit { doc, score });
        }
        let place = |doc: u32| index.rank.as_ref().map_or(doc, |rank| rank[doc as usize]);
        let order = |a: &Hit, b: &Hit| -> Ordering {
            b.score.total_cmp(&a.score).then_with(|| place(a.doc).cmp(&place(b.doc)))
        };
        if top < hits.len() {
            if top > 0 {
                hits.select_nth_unstable_by(top - 1, order);
            }
            hits.truncate(top);
        }
        hits.sort_unstable_by(order);
    }
}
