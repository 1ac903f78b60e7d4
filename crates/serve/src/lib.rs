//! What others can ask over HTTP: environments ([`OpenEnv`]), passages ([`Retrieval`]), and what
//! became of runs ([`Dashboard`]).
//!
//! The retriever of Deep Search: BM25 over a corpus, for whoever trains with
//! Search-R1, verl-agent, verl or SkyRL and points at a `/retrieve` address.
//!
//! - `POST /retrieve {"queries": [...], "topk": 3, "return_scores": true}` (Search-R1) or
//!   `{"query": "...", ...}` (verl-agent) answers `{"result": [[...], ...]}`, one list per query, best
//!   first: `{"document": {"id", "title", "text", "contents"}, "score"}`, or the documents alone
//!   without `return_scores`.
//! - `GET /health` answers `{"status": "ok", "passages": N}`.
//! - Everything else, and every request that cannot be answered, gets a status of 400 or more and
//!   `{"error": "what, and what to do"}`.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use empg_serve::{Limits, Retrieval, Server, block_on, interrupted};
//!
//! let corpus = empg_env::search::Corpus::load("corpus.jsonl")?;
//! let retrieval = Retrieval::new(corpus, Limits::default());
//! block_on(2, 0, async {
//!     let server = Server::bind(retrieval, "127.0.0.1", 8000).await?;
//!     server.run(interrupted()).await
//! })??;
//! # Ok(())
//! # }
//! ```

mod answer;
mod callers;
mod dashboard;
mod openenv;
mod request;
mod retrieval;
mod server;

pub use dashboard::{Dashboard, DashboardError, DashboardOptions, Token, TokenError};
pub use openenv::{OpenEnv, SessionLimits};
pub use retrieval::{Limits, Retrieval};
pub use server::{Listening, ServeError, Server, Service, block_on, interrupted};
