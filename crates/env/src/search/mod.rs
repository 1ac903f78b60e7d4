//! Deep Search: questions that take several searches, over a corpus, as verl-agent and Search-R1 play
//! them.

mod bm25_retriever;
mod corpus;
mod dense_retriever;
mod episode;
mod expert;
mod folder;
pub mod generated;
mod http;
mod lines;
mod options;
mod parquet_rows;
mod passage;
mod question;
mod questions;
pub mod score;
mod set;
mod strings;
mod vocabulary;

pub use bm25_retriever::Bm25Retriever;
pub use corpus::Corpus;
pub use dense_retriever::{DenseRetriever, MismatchError};
pub(crate) use episode::first_action;
pub use episode::{Episode, Rules, TokenCut, words};
pub use expert::SearchExpert;
pub use folder::{CORPUS, Found};
pub use http::{HttpForm, HttpOptions, HttpRetriever};
pub use options::{Protocol, SearchOptions};
pub use passage::{Passage, Retriever, RetrieverError, split};
pub use question::Question;
pub use questions::{IN_DOMAIN, OUT_OF_DOMAIN, Questions};
pub use set::{SearchSet, retriever};
pub use strings::CORRECTIVE;
pub use vocabulary::{people, vocabulary};
