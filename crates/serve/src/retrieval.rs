//! The routes, and what is behind them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use empg_env::retrieval::{Bm25, Searcher, anserini_scores};
use empg_env::search::Corpus;

use crate::answer::{self, Results};
use crate::request::Request;

/// What one request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Passages per query where a request names no number.
    pub default_topk: usize,
    /// Passages per query at most.
    pub topk: usize,
    /// Passages of all queries of a request at most.
    pub passages: usize,
    /// Bytes of a request's body at most.
    pub body: usize,
    /// How long a body may take to arrive.
    pub patience: Duration,
}

impl Default for Limits {
    /// 3 passages per query (as Search-R1), at most 1000; 100,000 in one answer; bodies of 8 MiB
    /// within 30 seconds.
    fn default() -> Self {
        Self {
            default_topk: 3,
            topk: 1000,
            passages: 100_000,
            body: 8 << 20,
            patience: Duration::from_secs(30),
        }
    }
}

/// A corpus, its index, and the requests that it answers.
#[derive(Clone, Debug)]
pub struct Retrieval {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    corpus: Corpus,
    index: Arc<Bm25>,
    limits: Limits,
    /// Searchers that nobody uses now.
    searchers: Mutex<Vec<Searcher<Arc<Bm25>>>>,
}

/// Requests beyond these are searched beside the threads that serve connections.
const SMALL_BODY: usize = 16 << 10;
const SMALL_ANSWER: usize = 256;

impl Retrieval {
    /// Indexes a corpus; passages with equal scores come in the byte order of their identifiers.
    pub fn new(corpus: Corpus, limits: Limits) -> Self {
        let ids: Vec<&str> = corpus.iter().map(|(id, _)| id).collect();
        let index = Bm25::build(corpus.iter().map(|(_, contents)| contents)).ties_by(&ids);
        drop(ids);
        let shared = Shared { corpus, index: Arc::new(index), limits, searchers: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The passages.
    pub fn corpus(&self) -> &Corpus {
        &self.shared.corpus
    }

    /// The index; its documents are positions in the corpus.
    pub fn index(&self) -> &Bm25 {
        &self.shared.index
    }

    /// The routes, for a server of one's own, which has to see to it who calls: [`Server`](crate::Server)
    /// refuses pages of other sites.
    pub fn router(self) -> Router {
        Router::new()
            .route("/retrieve", post(retrieve).fallback(wrong_method))
            .route("/health", get(health).fallback(wrong_method))
            .fallback(unknown)
            .with_state(self)
    }
}

impl Shared {
    fn answer(&self, request: &Request) -> Response {
        let free = self.searchers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut searcher = free.unwrap_or_else(|| Searcher::new(Arc::clone(&self.index)));
        let mut results = Results::new();
        let mut hits = Vec::new();
        for query in &request.queries {
            searcher.search(query, request.topk, &mut hits);
            anserini_scores(&mut hits);
            results.list(&self.corpus, &hits, request.scores);
        }
        self.searchers.lock().unwrap_or_else(PoisonError::into_inner).push(searcher);
        results.finish()
    }
}

async fn retrieve(State(retrieval): State<Retrieval>, headers: HeaderMap, body: Body) -> Response {
    let shared = retrieval.shared;
    let limits = shared.limits;
    let too_large = || {
        let what = format!(
            "the request is larger than {} bytes: send fewer queries at a time",
            limits.body
        );
        answer::error(StatusCode::PAYLOAD_TOO_LARGE, &what)
    };
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|n| n > limits.body as u64) {
        return too_large();
    }
    let body = match tokio::time::timeout(limits.patience, to_bytes(body, limits.body)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if is_limit(&error) => return too_large(),
        Ok(Err(error)) => {
            return answer::error(
                StatusCode::BAD_REQUEST,
                &format!("the body did not arrive: {error}"),
            );
        }
        Err(_) => {
            let what = format!("the body did not arrive within {:?}", limits.patience);
            return answer::error(StatusCode::REQUEST_TIMEOUT, &what);
        }
    };
    if body.len() > SMALL_BODY {
        return aside(move || match Request::read(&body, &limits) {
            Ok(request) => shared.answer(&request),
            Err(what) => answer::error(StatusCode::BAD_REQUEST, &what),
        })
        .await;
    }
    match Request::read(&body, &limits) {
        Ok(request) if request.queries.len() * request.topk <= SMALL_ANSWER => {
            shared.answer(&request)
        }
        Ok(request) => aside(move || shared.answer(&request)).await,
        Err(what) => answer::error(StatusCode::BAD_REQUEST, &what),
    }
}

/// Answers on a thread of its own, so that others need not wait.
async fn aside(answer: impl FnOnce() -> Response + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(answer).await {
        Ok(response) => response,
        Err(error) => {
            let what = format!("the search failed: {error}");
            answer::error(StatusCode::INTERNAL_SERVER_ERROR, &what)
        }
    }
}

/// Whether reading a body failed for its length.
pub(crate) fn is_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        cause = error.source();
    }
    false
}

async fn health(State(retrieval): State<Retrieval>) -> Response {
    answer::health(retrieval.corpus().len())
}

async fn wrong_method(method: Method) -> Response {
    let what = format!("{method} is not answered here: POST /retrieve, GET /health");
    answer::error(StatusCode::METHOD_NOT_ALLOWED, &what)
}

async fn unknown() -> Response {
    answer::error(StatusCode::NOT_FOUND, "no such address: POST /retrieve, GET /health")
}
