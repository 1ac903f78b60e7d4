//! From documents to an index.

use std::collections::HashMap;

use super::index::{Bm25, Lexicon, Reader};
use super::score::{idf, impact, inverse_norms, length_byte, part};
use super::words::words;

/// Takes documents one after the other.
#[derive(Default)]
pub(super) struct Builder {
    lexicon: Lexicon,
    reader: Reader,
    /// The different terms of all documents, one document after the other, with their counts.
    seen: Vec<u32>,
    counts: Vec<u8>,
    /// Counts of 255 and more, by place in `seen`.
    large: HashMap<usize, u32>,
    /// Where a document ends in `seen`.
    ends: Vec<usize>,
    /// Per term: its last place in `seen`, plus one.
    last: Vec<usize>,
    /// Per term: how many documents hold it.
    frequencies: Vec<u32>,
    lengths: Vec<u8>,
    /// The sum of all lengths, and how many are not zero.
    total: u64,
    filled: u64,
}

impl Builder {
    /// Takes a document.
    pub(super) fn text(&mut self, text: &str) {
        let start = self.seen.len();
        let mut length = 0_u32;
        for word in words(text) {
            if let Some(term) = self.lexicon.add(word, &mut self.reader) {
                self.term(term, start);
                length = length.saturating_add(1);
            }
        }
        self.end(length);
    }

    /// Takes a document as its terms.
    pub(super) fn terms<T: AsRef<str>>(&mut self, terms: impl IntoIterator<Item = T>) {
        let start = self.seen.len();
        let mut length = 0_u32;
        for term in terms {
            let (term, _) = self.lexicon.terms.add(term.as_ref().as_bytes());
            self.term(term, start);
            length = length.saturating_add(1);
        }
        self.end(length);
    }

    #[inline]
    fn term(&mut self, term: u32, start: usize) {
        let term_at = term as usize;
        if term_at >= self.last.len() {
            self.last.resize(term_at + 1, 0);
            self.frequencies.resize(term_at + 1, 0);
        }
        let last = self.last[term_at];
        if last > start {
            let count = &mut self.counts[last - 1];
            *count = count.saturating_add(1);
            if *count == u8::MAX {
                *self.large.entry(last - 1).or_insert(u32::from(u8::MAX) - 1) += 1;
            }
        } else {
            self.seen.push(term);
            self.counts.push(1);
            self.last[term_at] = self.seen.len();
            self.frequencies[term_at] += 1;
        }
    }

    fn end(&mut self, length: u32) {
        self.ends.push(self.seen.len());
        self.total += u64::from(length);
        self.filled += u64::from(length > 0);
        self.lengths.push(length_byte(length));
    }

    /// Sorts all postings by term.
    pub(super) fn finish(self) -> Bm25 {
        let Self {
            lexicon,
            seen,
            counts,
            large,
            ends,
            last,
            frequencies,
            lengths,
            total,
            filled,
            ..
        } = self;
        drop(last);
        let average = if filled == 0 { 1.0 } else { (total as f64 / filled as f64) as f32 };
        let inverse_norms = Box::new(inverse_norms(average));
        let weights: Vec<f32> = frequencies.iter().map(|&df| idf(filled, u64::from(df))).collect();
        let mut starts = Vec::with_capacity(weights.len() + 1);
        let mut end = 0;
        for &df in &frequencies {
            starts.push(end);
            end += df as usize;
        }
        let mut next = starts.clone();
        starts.push(end);
        let mut docs = vec![0; end];
        let mut impacts = vec![0; end];
        let mut sorted = vec![0; end];
        let mut sorted_large = HashMap::with_capacity(large.len());
        let mut from = 0;
        for (doc, &to) in ends.iter().enumerate() {
            let inv = inverse_norms[usize::from(lengths[doc])];
            for at in from..to {
                let term = seen[at] as usize;
                let posting = next[term];
                next[term] += 1;
                let count = match counts[at] {
                    u8::MAX => {
                        let count = large.get(&at).copied().unwrap_or(255);
                        sorted_large.insert(posting, count);
                        count
                    }
                    count => u32::from(count),
                };
                docs[posting] = doc as u32;
                sorted[posting] = counts[at];
                impacts[posting] = impact(part(weights[term], count as f32, inv));
            }
            from = to;
        }
        let counts = (sorted, sorted_large);
        Bm25::new(lexicon, weights, starts, docs, impacts, counts, lengths, inverse_norms)
    }
}
