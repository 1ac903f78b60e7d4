//! Ranked search.
//!
//! Documents are looked at in windows whose rounded scores fit into the nearest cache. Rounded up,
//! the scores bound the true ones from both sides: true ≤ rounded < true + one step per term. The
//! k-th best of the rounded scores therefore names the few documents that can be among the best k,
//! and only these are scored exactly. A query so long that its rounded scores could overflow has all
//! its documents scored exactly.

use std::cmp::Ordering;
use std::ops::Deref;

use super::index::{Bm25, Reader};
use super::score::{STEPS, part};
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

/// Documents of a window; a power of two, so that an index into it needs no check.
const WINDOW: usize = 1 << 14;
/// Documents of which the greatest rounded score is taken first.
const CHUNK: usize = 64;
/// Rounded scores beyond this could overflow.
const ROUNDED: f32 = 65_000.0 / STEPS;

/// A term of the query, and what is left of its postings.
#[derive(Clone, Copy, Debug)]
struct QueryTerm {
    term: u32,
    repetitions: u32,
    /// The next posting, and where those of this window and all end.
    at: usize,
    window_end: usize,
    end: usize,
}

/// Searches an index, one query after the other; `I` is `&Bm25`, `Arc<Bm25>` or the like.
#[derive(Clone, Debug)]
pub struct Searcher<I> {
    index: I,
    scratch: Scratch,
}

#[derive(Clone, Debug)]
struct Scratch {
    reader: Reader,
    query: Vec<QueryTerm>,
    rounded: Box<[u16; WINDOW]>,
    /// The greatest rounded scores.
    maxima: Vec<u16>,
    /// Documents to score exactly, within the window, and their scores.
    candidates: Vec<u16>,
    sums: Vec<f64>,
}

impl<I: Deref<Target = Bm25>> Searcher<I> {
    /// A searcher over an index.
    pub fn new(index: I) -> Self {
        let scratch = Scratch {
            reader: Reader::default(),
            query: Vec::new(),
            rounded: window(),
            maxima: Vec::new(),
            candidates: Vec::new(),
            sums: Vec::new(),
        };
        Self { index, scratch }
    }

    /// The index.
    pub fn index(&self) -> &Bm25 {
        &self.index
    }

    /// As [`Bm25::search`], into `hits`, which is cleared first.
    pub fn search(&mut self, query: &str, top: usize, hits: &mut Vec<Hit>) {
        hits.clear();
        self.scratch.read(&self.index, query);
        if top > 0 && !self.scratch.query.is_empty() {
            self.scratch.run(&self.index, top, hits);
        }
    }
}

impl Scratch {
    /// The different terms of a query that documents hold, in the order of the query.
    fn read(&mut self, index: &Bm25, query: &str) {
        self.query.clear();
        for word in words(query) {
            let Some(term) = index.lexicon.find(word, &mut self.reader) else { continue };
            let known = if self.query.len() <= 64 {
                self.query.iter_mut().find(|t| t.term == term)
            } else {
                None
            };
            if let Some(known) = known {
                known.repetitions += 1;
            } else {
                let postings = index.postings(term);
                let (at, end) = (postings.start, postings.end);
                self.query.push(QueryTerm { term, repetitions: 1, at, window_end: at, end });
            }
        }
        if self.query.len() > 64 {
            self.query.sort_unstable_by_key(|t| t.term);
            self.query.dedup_by(|later, first| {
                let same = later.term == first.term;
                if same {
                    first.repetitions += later.repetitions;
                }
                same
            });
        }
    }

    fn run(&mut self, index: &Bm25, top: usize, hits: &mut Vec<Hit>) {
        let bound: f32 =
            self.query.iter().map(|t| t.repetitions as f32 * index.weights[t.term as usize]).sum();
        let steps: u32 = self.query.iter().map(|t| t.repetitions).sum();
        let exact = bound + steps as f32 / STEPS > ROUNDED;
        for start in (0..index.len()).step_by(WINDOW) {
            let end = (start + WINDOW).min(index.len());
            let mut postings = 0;
            for term in &mut self.query {
                term.at = term.window_end;
                term.window_end = if end == index.len() {
                    term.end
                } else {
                    term.at
                        + index.docs[term.at..term.end].partition_point(|&doc| (doc as usize) < end)
                };
                postings += term.window_end - term.at;
            }
            if postings == 0 {
                continue;
            }
            self.candidates.clear();
            if exact {
                self.candidates.extend(0..(end - start) as u16);
            } else {
                let used = (end - start).next_multiple_of(CHUNK);
                self.add_rounded(index);
                self.choose(used, top, steps, hits);
                self.rounded[..used].fill(0);
            }
            self.score(index, start, postings);
            for (&doc, &sum) in self.candidates.iter().zip(&self.sums) {
                if sum > 0.0 {
                    hits.push(Hit { doc: start as u32 + u32::from(doc), score: sum as f32 });
                }
            }
            best(index, top, hits);
        }
    }

    /// Adds up the rounded scores of a window.
    fn add_rounded(&mut self, index: &Bm25) {
        let rounded = &mut *self.rounded;
        for term in &self.query {
            let range = term.at..term.window_end;
            let postings = index.docs[range.clone()].iter().zip(&index.impacts[range]);
            if term.repetitions == 1 {
                for (&doc, &impact) in postings {
                    let sum = &mut rounded[doc as usize % WINDOW];
                    *sum = sum.wrapping_add(impact);
                }
            } else {
                for (&doc, &impact) in postings {
                    let sum = &mut rounded[doc as usize % WINDOW];
                    *sum = sum.wrapping_add(impact.wrapping_mul(term.repetitions as u16));
                }
            }
        }
    }

    /// Finds the documents of a window that can be among the best.
    fn choose(&mut self, used: usize, top: usize, steps: u32, hits: &[Hit]) {
        let rounded = &self.rounded[..used];
        self.maxima.clear();
        self.maxima.extend(rounded.as_chunks::<CHUNK>().0.iter().map(|chunk| {
            chunk.iter().fold(0, |greatest, &sum| if sum > greatest { sum } else { greatest })
        }));
        // What the k-th best truly reaches at least: by the rounded scores of this window, and by the
        // scores of those before.
        let here = kth_greatest(&mut self.maxima.clone(), top)
            .map_or(0, |kth| u32::from(kth).saturating_sub(steps));
        let before = if hits.len() < top {
            0
        } else {
            hits.last().map_or(0, |hit| ((hit.score * STEPS).floor() as u32).saturating_sub(1))
        };
        let least = here.saturating_sub(1).max(before).clamp(1, u32::from(u16::MAX)) as u16;
        for (chunk, _) in self.maxima.iter().enumerate().filter(|&(_, &greatest)| greatest >= least)
        {
            let first = chunk * CHUNK;
            for (at, &sum) in rounded[first..first + CHUNK].iter().enumerate() {
                if sum >= least {
                    self.candidates.push((first + at) as u16);
                }
            }
        }
    }

    /// Scores the candidates of a window that starts at a document.
    fn score(&mut self, index: &Bm25, start: usize, postings: usize) {
        self.sums.clear();
        self.sums.resize(self.candidates.len(), 0.0);
        let add = |sum: &mut f64, w: f32, posting: usize, doc: usize| {
            let inv = index.inverse_norms[usize::from(index.lengths[doc])];
            *sum += f64::from(part(w, index.count(posting) as f32, inv));
        };
        // A look into a term's postings costs about as much as eight postings read in a row.
        if self.candidates.len() * self.query.len() * 8 < postings {
            for term in &self.query {
                let w = term.repetitions as f32 * index.weights[term.term as usize];
                let mut at = term.at;
                for (&candidate, sum) in self.candidates.iter().zip(&mut self.sums) {
                    let doc = start + usize::from(candidate);
                    at += index.docs[at..term.window_end].partition_point(|&d| (d as usize) < doc);
                    if at < term.window_end && index.docs[at] as usize == doc {
                        add(sum, w, at, doc);
                    }
                }
            }
            return;
        }
        // Each candidate's place, plus one, stands where its rounded score stood.
        for (place, &doc) in self.candidates.iter().enumerate() {
            self.rounded[usize::from(doc) % WINDOW] = place as u16 + 1;
        }
        for term in &self.query {
            let w = term.repetitions as f32 * index.weights[term.term as usize];
            for posting in term.at..term.window_end {
                let doc = index.docs[posting] as usize;
                let place = self.rounded[doc % WINDOW];
                if place != 0 {
                    add(&mut self.sums[usize::from(place) - 1], w, posting, doc);
                }
            }
        }
        for &doc in &self.candidates {
            self.rounded[usize::from(doc) % WINDOW] = 0;
        }
    }
}

/// An empty window.
fn window() -> Box<[u16; WINDOW]> {
    vec![0; WINDOW].into_boxed_slice().try_into().expect("it has a window's length")
}

/// The k-th greatest value; `None` if there are fewer.
fn kth_greatest(values: &mut [u16], k: usize) -> Option<u16> {
    if values.len() < k {
        return None;
    }
    Some(*values.select_nth_unstable_by(k - 1, |a, b| b.cmp(a)).1)
}

/// Keeps the best `top` hits, best first.
fn best(index: &Bm25, top: usize, hits: &mut Vec<Hit>) {
    let order = |a: &Hit, b: &Hit| -> Ordering {
        b.score.total_cmp(&a.score).then_with(|| index.place(a.doc).cmp(&index.place(b.doc)))
    };
    if top < hits.len() {
        hits.select_nth_unstable_by(top - 1, order);
        hits.truncate(top);
    }
    hits.sort_unstable_by(order);
}
