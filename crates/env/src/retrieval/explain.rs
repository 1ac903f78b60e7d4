//! Why a document scored what it scored.

use super::index::{Bm25, Reader};
use super::score::{length, part};
use super::words::words;

/// One term's part in a document's score.
#[derive(Clone, Debug, PartialEq)]
pub struct TermPart {
    /// The index term.
    pub term: String,
    /// How often it stands in the query.
    pub repetitions: u32,
    /// How many documents hold it.
    pub documents: u32,
    /// Its weight: ln(1 + (N − df + ½) / (df + ½)).
    pub idf: f32,
    /// How often it stands in the document.
    pub count: u32,
    /// w − w / (1 + count / (k1 · (1 − b + b · length / mean length))), w = repetitions · idf; 0 where
    /// the document lacks the term.
    pub part: f32,
}

/// A document's score, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The sum of the parts.
    pub score: f32,
    /// The document's length in terms, as it is stored (beyond 39 rounded down to four bits).
    pub length: u32,
    /// The query's terms that any document holds, in its order.
    pub terms: Vec<TermPart>,
}

impl Bm25 {
    /// Takes the score of a document for a query apart; `None` if there is no such document.
    pub fn explain(&self, doc: u32, query: &str) -> Option<Explanation> {
        let length_byte = *self.lengths.get(doc as usize)?;
        let mut reader = Reader::default();
        let mut terms: Vec<(u32, TermPart)> = Vec::new();
        for word in words(query) {
            let Some(term) = self.lexicon.find(word, &mut reader) else { continue };
            if let Some((_, known)) = terms.iter_mut().find(|(known, _)| *known == term) {
                known.repetitions += 1;
                continue;
            }
            let postings = self.postings(term);
            let found = self.docs[postings.clone()].binary_search(&doc);
            let part = TermPart {
                term: String::from_utf8_lossy(self.lexicon.terms.get(term)).into_owned(),
                repetitions: 1,
                documents: postings.len() as u32,
                idf: self.weights[term as usize],
                count: found.map_or(0, |at| self.count(postings.start + at)),
                part: 0.0,
            };
            terms.push((term, part));
        }
        let inv = self.inverse_norms[usize::from(length_byte)];
        let mut sum = 0.0;
        for (_, term) in &mut terms {
            term.part = part(term.repetitions as f32 * term.idf, term.count as f32, inv);
            sum += f64::from(term.part);
        }
        let terms = terms.into_iter().map(|(_, term)| term).collect();
        Some(Explanation { score: sum as f32, length: length(length_byte), terms })
    }
}
