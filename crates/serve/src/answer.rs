//! Answers as JSON.

use std::io::Write as _;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use empg_env::retrieval::Hit;
use empg_env::search::{Corpus, split};
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    title: &'a str,
    text: &'a str,
    contents: &'a str,
}

#[derive(Serialize)]
struct Scored<'a> {
    document: Document<'a>,
    score: f32,
}

/// Builds `{"result": [[…], …]}` list by list.
pub(crate) struct Results {
    body: Vec<u8>,
    lists: usize,
}

impl Results {
    pub(crate) fn new() -> Self {
        let mut body = Vec::with_capacity(8 << 10);
        body.extend_from_slice(b"{\"result\":[");
        Self { body, lists: 0 }
    }

    /// Adds the passages of one query.
    pub(crate) fn list(&mut self, corpus: &Corpus, hits: &[Hit], scores: bool) {
        if self.lists > 0 {
            self.body.push(b',');
        }
        self.lists += 1;
        self.body.push(b'[');
        let mut first = true;
        for hit in hits {
            let doc = hit.doc as usize;
            let (Some(id), Some(contents)) = (corpus.id(doc), corpus.contents(doc)) else {
                continue;
            };
            let (title, text) = split(contents);
            let document = Document { id, title, text, contents };
            if !std::mem::take(&mut first) {
                self.body.push(b',');
            }
            // Neither texts nor finite numbers can fail to be written to memory.
            let _ = if scores {
                serde_json::to_writer(&mut self.body, &Scored { document, score: hit.score })
            } else {
                serde_json::to_writer(&mut self.body, &document)
            };
        }
        self.body.push(b']');
    }

    pub(crate) fn finish(mut self) -> Response {
        self.body.extend_from_slice(b"]}");
        json(StatusCode::OK, self.body)
    }
}

/// `{"status": "ok", "passages": N}`.
pub(crate) fn health(passages: usize) -> Response {
    let mut body = Vec::new();
    // Memory takes every write.
    let _ = write!(body, "{{\"status\":\"ok\",\"passages\":{passages}}}");
    json(StatusCode::OK, body)
}

/// `{"error": "…"}`.
pub(crate) fn error(status: StatusCode, what: &str) -> Response {
    let body = serde_json::json!({ "error": what }).to_string();
    json(status, body.into_bytes())
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
