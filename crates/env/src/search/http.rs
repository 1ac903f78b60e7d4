//! Search over HTTP: Search-R1's `/retrieve`, and verl-agent's form of it.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use ureq::Agent;

use super::passage::{Passage, Retriever, RetrieverError, split};

/// How a query is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpForm {
    /// Search-R1's, and verl-agent's from the moment when the server refuses the first.
    #[default]
    Auto,
    /// `{"queries": […], "topk", "return_scores"}`: all queries in one request.
    SearchR1,
    /// `{"query": …, "topk", "return_scores"}`: a request for every query.
    VerlAgent,
}

/// How the server is asked.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Form of the request.
    pub form: HttpForm,
    /// Longest time for one request, answer included. A request that takes longer is not repeated.
    pub timeout: Duration,
    /// How often a request is repeated after a lost connection, a status 5xx or 429.
    pub retries: u32,
    /// Pause before the first repetition; it doubles with each, up to 10 s.
    pub backoff: Duration,
    /// Most requests under way at a time; further ones wait.
    pub concurrency: usize,
}

impl Default for HttpOptions {
    /// 60 s, four repetitions after 0.25, 0.5, 1 and 2 s, 64 requests at a time.
    fn default() -> Self {
        Self {
            form: HttpForm::Auto,
            timeout: Duration::from_mins(1),
            retries: 4,
            backoff: Duration::from_millis(250),
            concurrency: 64,
        }
    }
}

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const LONGEST_ANSWER: u64 = 64 << 20;

/// A client of a retrieval server. Any number of threads may share it.
#[derive(Debug)]
pub struct HttpRetriever {
    url: String,
    options: HttpOptions,
    /// The process that it is of, and its connections.
    client: Mutex<(u32, Arc<Client>)>,
    /// The form that [`HttpForm::Auto`] has settled on.
    settled: AtomicU8,
}

/// Connections that are kept, and how many requests may be under way.
#[derive(Debug)]
struct Client {
    agent: Agent,
    places: Places,
}

impl Client {
    fn new(options: &HttpOptions) -> Arc<Self> {
        let concurrency = options.concurrency.max(1);
        let config = Agent::config_builder()
            .timeout_global(Some(options.timeout))
            .http_status_as_error(false)
            .max_redirects(3)
            .max_idle_connections(concurrency)
            .max_idle_connections_per_host(concurrency)
            .proxy(None)
            .build();
        Arc::new(Self { agent: config.into(), places: Places::new(concurrency) })
    }
}

const UNSETTLED: u8 = 0;
const SEARCH_R1: u8 = 1;
const VERL_AGENT: u8 = 2;

#[derive(Serialize)]
struct ManyQueries<'a> {
    queries: &'a [&'a str],
    topk: usize,
    return_scores: bool,
}

#[derive(Serialize)]
struct OneQuery<'a> {
    query: &'a str,
    topk: usize,
    return_scores: bool,
}

#[derive(Deserialize)]
struct Answer {
    result: Vec<Vec<Hit>>,
}

/// `{"document": {…}, "score": f}`, or the document alone where scores were not given.
#[derive(Deserialize)]
#[serde(untagged)]
enum Hit {
    Scored { document: Document, score: Option<f32> },
    Bare(Document),
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    id: Value,
    title: Option<String>,
    text: Option<String>,
    contents: Option<String>,
}

impl HttpRetriever {
    /// A client of the server at `url`, e.g. `http://127.0.0.1:8000/retrieve`. The first request
    /// connects.
    ///
    /// # Errors
    /// An address that is no `http://` one: encrypted connections are not supported.
    pub fn new(url: &str, options: HttpOptions) -> Result<Self, RetrieverError> {
        let refuse = |what: &str| {
            Err(RetrieverError::Address { url: url.to_owned(), what: what.to_owned() })
        };
        let Some((scheme, rest)) = url.split_once("://") else {
            return refuse("expected http://HOST:PORT/retrieve");
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => {
                return refuse(
                    "https is not supported: run the server in your own network, or a proxy that \
                     takes http",
                );
            }
            _ => return refuse("expected http://HOST:PORT/retrieve"),
        }
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.is_empty() || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refuse("expected http://HOST:PORT/retrieve");
        }
        let settled = AtomicU8::new(match options.form {
            HttpForm::Auto => UNSETTLED,
            HttpForm::SearchR1 => SEARCH_R1,
            HttpForm::VerlAgent => VERL_AGENT,
        });
        let client = Mutex::new((std::process::id(), Client::new(&options)));
        Ok(Self { url: url.to_owned(), options, client, settled })
    }

    /// The connections of a process. After a fork the child makes its own: on shared ones each would
    /// read the other's answers.
    fn client(&self, process: u32) -> Arc<Client> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if client.0 != process {
            let lost = std::mem::replace(&mut *client, (process, Client::new(&self.options)));
            // The parent goes on with it.
            std::mem::forget(lost);
        }
        Arc::clone(&client.1)
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn many(&self, queries: &[&str], topk: usize) -> Result<Vec<Vec<Passage>>, RetrieverError> {
        let body = serde_json::to_vec(&ManyQueries { queries, topk, return_scores: true });
        let body = body.map_err(|e| self.shape(&e.to_string(), ""))?;
        self.ask(&body, queries.len()..=queries.len(), topk)
    }

    fn one_by_one(
        &self,
        queries: &[&str],
        topk: usize,
    ) -> Result<Vec<Vec<Passage>>, RetrieverError> {
        let one = |query: &str| {
            let body = serde_json::to_vec(&OneQuery { query, topk, return_scores: true });
            let body = body.map_err(|e| self.shape(&e.to_string(), ""))?;
            // Nothing found is no list in this form.
            Ok(self.ask(&body, 0..=1, topk)?.pop().unwrap_or_default())
        };
        let threads = queries.len().min(self.options.concurrency.max(1)).min(16);
        if threads <= 1 {
            return queries.iter().map(|query| one(query)).collect();
        }
        std::thread::scope(|scope| {
            let share = queries.len().div_ceil(threads);
            let workers: Vec<_> = queries
                .chunks(share)
                .map(|part| {
                    scope.spawn(|| part.iter().map(|q| one(q)).collect::<Result<Vec<_>, _>>())
                })
                .collect();
            let mut lists = Vec::with_capacity(queries.len());
            for worker in workers {
                let part = worker
                    .join()
                    .map_err(|_| RetrieverError::Failed("a retrieving thread failed".to_owned()))?;
                lists.extend(part?);
            }
            Ok(lists)
        })
    }

    /// Posts a request until it is answered, with a list for each of so many queries, or given up.
    fn ask(
        &self,
        body: &[u8],
        queries: RangeInclusive<usize>,
        topk: usize,
    ) -> Result<Vec<Vec<Passage>>, RetrieverError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (error, again) = match self.post(body, attempts) {
                Ok(answer) => return self.read(&answer, &queries, topk),
                Err(failed) => failed,
            };
            if !again || attempts > self.options.retries {
                return Err(error);
            }
            let factor = 1_u32.checked_shl(attempts - 1).unwrap_or(u32::MAX);
            std::thread::sleep(self.options.backoff.saturating_mul(factor).min(LONGEST_PAUSE));
        }
    }

    /// One attempt: the answer's text, or the error and whether another attempt makes sense.
    fn post(&self, body: &[u8], attempts: u32) -> Result<String, (RetrieverError, bool)> {
        let client = self.client(std::process::id());
        let _place = client.places.take();
        let sent = client
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .send(body);
        let mut response = sent.map_err(|error| self.lost(&error, attempts))?;
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string();
        if (200..300).contains(&status) {
            return text.map_err(|error| self.lost(&error, attempts));
        }
        let body = start_of(&text.unwrap_or_default());
        let error = RetrieverError::Status { url: self.url.clone(), status, body, attempts };
        Err((error, status >= 500 || status == 429))
    }

    /// A request without an answer.
    fn lost(&self, error: &ureq::Error, attempts: u32) -> (RetrieverError, bool) {
        let url = self.url.clone();
        match error {
            ureq::Error::Timeout(_) => {
                (RetrieverError::Timeout { url, limit: self.options.timeout }, false)
            }
            ureq::Error::BodyExceedsLimit(limit) => {
                let what = format!("it is longer than {limit} bytes");
                (RetrieverError::Shape { url, what }, false)
            }
            ureq::Error::BadUri(what) => {
                (RetrieverError::Address { url, what: what.clone() }, false)
            }
            ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                (RetrieverError::Shape { url, what: e.to_string() }, false)
            }
            _ => (RetrieverError::Unreachable { url, what: error.to_string(), attempts }, true),
        }
    }

    fn shape(&self, what: &str, answer: &str) -> RetrieverError {
        let what = format!("{what}; it begins with {:?}", start_of(answer));
        RetrieverError::Shape { url: self.url.clone(), what }
    }

    fn read(
        &self,
        text: &str,
        queries: &RangeInclusive<usize>,
        topk: usize,
    ) -> Result<Vec<Vec<Passage>>, RetrieverError> {
        let answer: Answer = serde_json::from_str(text).map_err(|e| {
            self.shape(
                &format!("expected {{\"result\": [[{{\"document\", \"score\"}}]]}}: {e}"),
                text,
            )
        })?;
        let found = answer.result.len();
        if !queries.contains(&found) {
            let asked = queries.end();
            return Err(self.shape(&format!("{asked} queries, {found} lists of passages"), text));
        }
        let lists = answer
            .result
            .into_iter()
            .map(|hits| hits.into_iter().take(topk).map(passage).collect::<Result<Vec<_>, _>>());
        lists.collect::<Result<_, _>>().map_err(|what| self.shape(what, text))
    }
}

fn passage(hit: Hit) -> Result<Passage, &'static str> {
    let (document, score) = match hit {
        Hit::Scored { document, score } => (document, score.unwrap_or_default()),
        Hit::Bare(document) => (document, 0.0),
    };
    let Document { id, title, text, contents } = document;
    let contents = match (contents, &title, &text) {
        (Some(contents), ..) => contents,
        (None, Some(title), Some(text)) => format!("\"{title}\"\n{text}"),
        (None, None, Some(text)) => text.clone(),
        (None, ..) => return Err("a document has neither `contents` nor `text`"),
    };
    let id = match id {
        Value::String(id) => id,
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let (first, rest) = split(&contents);
    let title = title.unwrap_or_else(|| first.to_owned());
    let text = text.unwrap_or_else(|| rest.to_owned());
    Ok(Passage { id, title, text, contents, score })
}

fn start_of(text: &str) -> String {
    let start: String = text.chars().take(200).collect();
    if start.len() < text.len() { start + "…" } else { start }
}

impl Retriever for HttpRetriever {
    fn retrieve(&self, queries: &[&str], topk: usize) -> Result<Vec<Vec<Passage>>, RetrieverError> {
        if queries.is_empty() {
            return Ok(Vec::new());
        }
        match self.settled.load(Ordering::Relaxed) {
            SEARCH_R1 => self.many(queries, topk),
            VERL_AGENT => self.one_by_one(queries, topk),
            _ => {
                let first = self.many(queries, topk);
                let refused = matches!(
                    &first,
                    Err(RetrieverError::Status { status: 400 | 422, .. }
                        | RetrieverError::Shape { .. })
                );
                if !refused {
                    if first.is_ok() {
                        self.settled.store(SEARCH_R1, Ordering::Relaxed);
                    }
                    return first;
                }
                match self.one_by_one(queries, topk) {
                    Ok(lists) => {
                        self.settled.store(VERL_AGENT, Ordering::Relaxed);
                        Ok(lists)
                    }
                    // What the server said to the usual form tells more, unless it took the other one.
                    Err(error @ RetrieverError::Shape { .. }) => Err(error),
                    Err(_) => first,
                }
            }
        }
    }
}

/// A counting semaphore.
#[derive(Debug)]
struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

struct Place<'a>(&'a Places);

impl Places {
    fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), freed: Condvar::new() }
    }

    fn take(&self) -> Place<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_process_has_connections_of_its_own() {
        let options = HttpOptions { concurrency: 1, ..HttpOptions::default() };
        let retriever = HttpRetriever::new("http://localhost:8000", options).unwrap();
        let own = retriever.client(std::process::id());
        assert!(Arc::ptr_eq(&own, &retriever.client(std::process::id())));
        let child = std::process::id() + 1;
        // A request that was under way in the parent takes no place of the child.
        let _busy = own.places.take();
        let forked = retriever.client(child);
        assert!(!Arc::ptr_eq(&own, &forked) && Arc::ptr_eq(&forked, &retriever.client(child)));
        drop(forked.places.take());
    }

    #[test]
    fn addresses_that_cannot_be_used_are_refused() {
        for (url, part) in [
            ("https://example.org/retrieve", "https is not supported"),
            ("ftp://example.org", "expected http://"),
            ("localhost:8000", "expected http://"),
            ("http:///retrieve", "expected http://"),
            ("http://a b/retrieve", "expected http://"),
        ] {
            let error = HttpRetriever::new(url, HttpOptions::default()).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(url), "{error}");
        }
    }
}
