//! Sparse retrieval as Lucene does it: one analyzer, BM25 in single precision, the same order of
//! equal scores. WebShop's search and Deep Search's corpora both stand on it.
