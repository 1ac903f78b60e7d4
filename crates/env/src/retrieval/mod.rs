//! Sparse retrieval as Lucene does it: one analyzer, BM25 in single precision, the same order of
//! equal scores. WebShop's search and Deep Search's corpora both stand on it. And dense retrieval:
//! inner products of embeddings.

mod analyze;
mod anserini;
mod build;
mod classes;
mod dense;
mod explain;
mod index;
mod npy;
mod score;
mod search;
mod stem;
mod table;
mod words;

pub use analyze::analyze;
pub use anserini::anserini_scores;
pub use dense::{Dense, DifferentLengths};
pub use explain::{Explanation, TermPart};
pub use index::Bm25;
pub use npy::{Matrix, NpyError};
pub use search::{Hit, Searcher};
pub use words::{Words, words};
