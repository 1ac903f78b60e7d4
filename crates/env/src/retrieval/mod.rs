//! Sparse retrieval as Lucene does it: one analyzer, BM25 in single precision, the same order of
//! equal scores. WebShop's search and Deep Search's corpora both stand on it.

mod analyze;
mod anserini;
mod build;
mod classes;
mod explain;
mod index;
mod score;
mod search;
mod stem;
mod table;
mod words;

pub use analyze::analyze;
pub use anserini::anserini_scores;
pub use explain::{Explanation, TermPart};
pub use index::Bm25;
pub use search::{Hit, Searcher};
pub use words::{Words, words};
