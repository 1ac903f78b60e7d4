//! Environments as an [OpenEnv](https://github.com/meta-pytorch/OpenEnv) server.
//!
//! `/ws` is a session: an environment of its own for as long as the WebSocket lives. `POST /reset`
//! and `POST /step` are stateless, as OpenEnv defines them: each has a fresh environment. `GET
//! /health`, `/metadata`, `/schema`, `/state` and `/openapi.json` describe the server.

mod http;
mod message;
mod places;
mod refusal;
mod schema;
mod session;
mod socket;

pub(crate) use self::http::refused;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get, post};
use empg_env::{EnvError, Split, TaskSet};
use tokio::sync::watch;

use self::places::Places;

/// What the sessions may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions at a time.
    pub sessions: usize,
    /// A session in which nothing is asked, or an answer is not taken, for so long ends; `None`: never
    /// for want of a question.
    pub idle: Option<Duration>,
    /// Bytes of a message or of a request's body at most.
    pub message: usize,
    /// How long a body may take to arrive, and an answer to be taken where `idle` is `None`.
    pub patience: Duration,
}

impl Default for SessionLimits {
    /// 1,024 sessions, an hour, 1 MiB within 30 seconds.
    fn default() -> Self {
        Self {
            sessions: 1024,
            idle: Some(Duration::from_hours(1)),
            message: 1 << 20,
            patience: Duration::from_secs(30),
        }
    }
}

/// Environments, and the sessions that play them.
#[derive(Clone)]
pub struct OpenEnv {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    tasks: Arc<dyn TaskSet>,
    /// What a reset plays that names no split; open: what its seed says, else training tasks.
    split: Option<Split>,
    limits: SessionLimits,
    places: Places,
    /// Whether a step may be taken on the thread that serves connections.
    quick: bool,
    ending: watch::Sender<bool>,
}

impl std::fmt::Debug for OpenEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shared { tasks, split, limits, .. } = &*self.shared;
        let mut debug = f.debug_struct("OpenEnv");
        debug.field("tasks", &tasks.name()).field("split", split).field("limits", limits);
        debug.finish_non_exhaustive()
    }
}

impl OpenEnv {
    /// A server of these tasks. `split` is what a reset plays that names none; where it is open too, the
    /// seed's ([`TaskSet::place`]), or a training task.
    ///
    /// # Errors
    /// A split without tasks.
    pub fn new(
        tasks: Arc<dyn TaskSet>,
        split: Option<Split>,
        limits: SessionLimits,
    ) -> Result<Self, EnvError> {
        let usual = split.unwrap_or(Split::Train);
        if tasks.len(usual) == Some(0) {
            let what = format!("{} has no tasks in the split {usual:?}", tasks.name());
            return Err(EnvError::Failed(what));
        }
        // Searches and what is asked of others take their time.
        let quick = matches!(tasks.name(), "alfworld" | "households");
        let places = Places::new(limits.sessions);
        let shared =
            Shared { tasks, split, limits, places, quick, ending: watch::Sender::new(false) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Sessions that are open now.
    pub fn sessions(&self) -> usize {
        self.shared.places.taken()
    }

    /// The routes, for a server of one's own, which has to see to it who calls: [`Server`](crate::Server)
    /// refuses pages of other sites.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/ws", any(socket::open))
            .route("/reset", post(http::reset))
            .route("/step", post(http::step))
            .route("/state", get(http::state))
            .route("/health", get(http::health))
            .route("/metadata", get(http::metadata))
            .route("/schema", get(http::schema))
            .route("/openapi.json", get(http::openapi))
            .route("/mcp", post(http::mcp))
            .method_not_allowed_fallback(http::wrong_method)
            .fallback(http::unknown)
            .with_state(Arc::clone(&self.shared))
    }

    /// Asks all sessions to end, and waits until they have.
    pub(crate) async fn end(&self) {
        self.shared.ending.send_replace(true);
        self.shared.places.all_free().await;
    }
}
