//! Any bytes are a corpus or refused; a corpus can be indexed.
#![no_main]

use std::sync::Arc;

use empg_env::search::{Bm25Retriever, Corpus, Retriever};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(corpus) = Corpus::parse(bytes) {
        let query = corpus.contents(0).unwrap_or_default().to_owned();
        let retriever = Bm25Retriever::new(Arc::new(corpus));
        let _ = retriever.retrieve(&[&query], 3);
    }
});
