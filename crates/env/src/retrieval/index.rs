//! The inverted index.

use std::collections::HashMap;

use super::analyze::Term;
use super::score::{idf, inverse_norms, length_byte};
use super::words::words;

/// BM25 over a fixed set of documents, with Lucene's scores and Lucene's order (k1 = 0.9, b = 0.4).
///
/// Documents are numbered from 0 in the order in which they came. Of documents with equal scores the
/// one that came first ranks first, unless [`ties_by`](Self::ties_by) says otherwise.
#[derive(Clone, Debug)]
pub struct Bm25 {
    pub(super) terms: HashMap<Box<str>, u32>,
    /// Where a term's postings begin, and after the last term the end.
    pub(super) starts: Vec<usize>,
    pub(super) docs: Vec<u32>,
    pub(super) counts: Vec<u32>,
    /// Per document: its length in one byte.
    pub(super) lengths: Vec<u8>,
    /// Documents that hold at least one term.
    pub(super) filled: u64,
    pub(super) inverse_norms: [f32; 256],
    pub(super) average: f32,
    /// Per document: its place among documents with equal scores, where that is not its number.
    pub(super) rank: Option<Vec<u32>>,
}

impl Bm25 {
    /// Indexes documents.
    pub fn build<S: AsRef<str>>(docs: impl IntoIterator<Item = S>) -> Self {
        let mut builder = Builder::default();
        let mut term = Term::default();
        for text in docs {
            for word in words(text.as_ref()) {
                if let Some(term) = term.of(word) {
                    builder.term(term);
                }
            }
            builder.end_document();
        }
        builder.finish()
    }

    /// Indexes documents given as what [`analyze`](super::analyze) makes of their text.
    pub fn build_from_terms<D, T>(docs: impl IntoIterator<Item = D>) -> Self
    where
        D: IntoIterator<Item = T>,
        T: AsRef<str>,
    {
        let mut builder = Builder::default();
        for terms in docs {
            for term in terms {
                builder.term(term.as_ref());
            }
            builder.end_document();
        }
        builder.finish()
    }

    /// Ranks documents with equal scores by these ids, one per document, in byte order (as Anserini
    /// does; `"10"` comes before `"9"`).
    #[must_use]
    pub fn ties_by<S: AsRef<str>>(mut self, ids: &[S]) -> Self {
        let mut order: Vec<u32> = (0..self.lengths.len() as u32).collect();
        order.sort_by_key(|&doc| ids.get(doc as usize).map(AsRef::as_ref));
        let mut rank = vec![0; order.len()];
        for (place, &doc) in order.iter().enumerate() {
            rank[doc as usize] = place as u32;
        }
        self.rank = Some(rank);
        self
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// How many different terms there are.
    pub fn terms(&self) -> usize {
        self.terms.len()
    }

    pub(super) fn weight(&self, term: u32) -> f32 {
        let (from, to) = (self.starts[term as usize], self.starts[term as usize + 1]);
        idf(self.filled, (to - from) as u64)
    }
}

/// Takes documents term by term.
#[derive(Default)]
struct Builder {
    terms: HashMap<Box<str>, u32>,
    postings: Vec<Vec<(u32, u32)>>,
    lengths: Vec<u8>,
    length: u32,
    filled: u64,
    total: u64,
}

impl Builder {
    fn term(&mut self, text: &str) {
        let doc = self.lengths.len() as u32;
        self.length = self.length.saturating_add(1);
        let id = if let Some(&id) = self.terms.get(text) {
            id
        } else {
            let id = self.terms.len() as u32;
            self.terms.insert(text.into(), id);
            self.postings.push(Vec::new());
            id
        };
        match self.postings[id as usize].last_mut() {
            Some((last, count)) if *last == doc => *count += 1,
            _ => self.postings[id as usize].push((doc, 1)),
        }
    }

    fn end_document(&mut self) {
        let length = std::mem::take(&mut self.length);
        self.filled += u64::from(length > 0);
        self.total += u64::from(length);
        self.lengths.push(length_byte(length));
    }

    fn finish(self) -> Bm25 {
        let Self { terms, postings, lengths, filled, total, .. } = self;
        let average = if filled == 0 { 1.0 } else { (total as f64 / filled as f64) as f32 };
        let mut starts = vec![0];
        let (mut docs, mut counts) = (Vec::new(), Vec::new());
        for list in postings {
            for (doc, count) in list {
                docs.push(doc);
                counts.push(count);
            }
            starts.push(docs.len());
        }
        let inverse_norms = inverse_norms(average);
        Bm25 { terms, starts, docs, counts, lengths, filled, inverse_norms, average, rank: None }
    }
}
