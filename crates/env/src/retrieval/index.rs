//! The inverted index.

use std::collections::HashMap;
use std::ops::Range;

use super::analyze::Term;
use super::build::Builder;
use super::table::Table;

/// BM25 over a fixed set of documents, with Lucene's scores and Lucene's order (k1 = 0.9, b = 0.4).
///
/// Documents are numbered from 0 in the order in which they came. Of documents with equal scores the
/// one that came first ranks first, unless [`ties_by`](Self::ties_by) says otherwise.
///
/// A term in a document takes seven bytes: the document's number, how often the term stands there,
/// and its score rounded up to the next 256th, by which a search finds the few documents that it
/// then scores exactly.
#[derive(Clone, Debug)]
pub struct Bm25 {
    pub(super) lexicon: Lexicon,
    /// Per term: idf.
    pub(super) weights: Vec<f32>,
    /// Where a term's postings begin, and after the last term the end.
    pub(super) starts: Vec<usize>,
    pub(super) docs: Vec<u32>,
    pub(super) impacts: Vec<u16>,
    counts: Vec<u8>,
    /// Counts of 255 and more, by posting.
    large: HashMap<usize, u32>,
    /// Per document: its length in one byte.
    pub(super) lengths: Vec<u8>,
    pub(super) inverse_norms: Box<[f32; 256]>,
    /// Per document: its place among documents with equal scores, where that is not its number.
    rank: Option<Vec<u32>>,
}

impl Bm25 {
    /// Indexes documents.
    pub fn build<S: AsRef<str>>(docs: impl IntoIterator<Item = S>) -> Self {
        let mut builder = Builder::default();
        for text in docs {
            builder.text(text.as_ref());
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
            builder.terms(terms);
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
        self.weights.len()
    }

    pub(super) fn new(
        lexicon: Lexicon,
        weights: Vec<f32>,
        starts: Vec<usize>,
        docs: Vec<u32>,
        impacts: Vec<u16>,
        (counts, large): (Vec<u8>, HashMap<usize, u32>),
        lengths: Vec<u8>,
        inverse_norms: Box<[f32; 256]>,
    ) -> Self {
        Self {
            lexicon,
            weights,
            starts,
            docs,
            impacts,
            counts,
            large,
            lengths,
            inverse_norms,
            rank: None,
        }
    }

    /// Where a term's postings lie.
    #[inline]
    pub(super) fn postings(&self, term: u32) -> Range<usize> {
        self.starts[term as usize]..self.starts[term as usize + 1]
    }

    /// How often the term stands in the document of a posting.
    #[inline]
    pub(super) fn count(&self, posting: usize) -> u32 {
        match self.counts[posting] {
            u8::MAX => self.large.get(&posting).copied().unwrap_or(255),
            count => u32::from(count),
        }
    }

    /// A document's place among documents with equal scores.
    #[inline]
    pub(super) fn place(&self, doc: u32) -> u32 {
        self.rank.as_ref().map_or(doc, |rank| rank[doc as usize])
    }
}

/// The terms of an index, and the words that were seen to lead to them.
#[derive(Clone, Debug, Default)]
pub(super) struct Lexicon {
    pub(super) terms: Table,
    words: Table,
    /// Per word: its term, or [`STOP`].
    term_of: Vec<u32>,
}

/// Marks a stop word.
const STOP: u32 = u32::MAX;

/// What is needed to read words.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    term: Term,
    lower: Vec<u8>,
}

impl Reader {
    /// The word with its ASCII letters in lower case: words that differ in nothing else share a term.
    #[inline]
    fn lower(&mut self, word: &str) {
        self.lower.clear();
        self.lower.extend(word.bytes().map(|b| b.to_ascii_lowercase()));
    }
}

impl Lexicon {
    /// The term of a word, if any document holds it.
    #[inline]
    pub(super) fn find(&self, word: &str, reader: &mut Reader) -> Option<u32> {
        reader.lower(word);
        if let Some(word) = self.words.find(&reader.lower) {
            return Some(self.term_of[word as usize]).filter(|&term| term != STOP);
        }
        self.terms.find(reader.term.of(word)?.as_bytes())
    }

    /// The term of a word, a new one if need be; `None` for a stop word.
    #[inline]
    pub(super) fn add(&mut self, word: &str, reader: &mut Reader) -> Option<u32> {
        reader.lower(word);
        let (number, new) = self.words.add(&reader.lower);
        if new {
            let term = reader.term.of(word).map_or(STOP, |term| self.terms.add(term.as_bytes()).0);
            self.term_of.push(term);
        }
        Some(self.term_of[number as usize]).filter(|&term| term != STOP)
    }
}
