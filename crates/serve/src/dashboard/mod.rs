//! Runs in a browser: a list that follows training, comparisons, the credit of every step.
//!
//! Read-only. `GET /` is the page; `/api/…` answers it in JSON; `/api/events` tells what changes as
//! server-sent events. Runs are named by what was found in the folder, never by a path that a
//! request holds, and links that lead out of the folder are not followed.

mod access;
mod api;
mod board;
mod compare;
mod live_run;
mod pages;
mod query;
mod recorded;
mod scan;
mod stream;
mod summaries;
mod tasks;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokio::sync::{Semaphore, watch};

use self::access::Access;
pub use self::access::{Token, TokenError};
use self::board::Board;
use self::compare::Comparisons;
use self::recorded::Recorded;

/// How a dashboard looks and who may see it.
#[derive(Clone, Debug)]
pub struct DashboardOptions {
    /// What visitors have to know; `None` lets everyone in who can reach the server.
    pub token: Option<Token>,
    /// Names and addresses by which visitors may call the server, besides those of this machine's
    /// loopback; `None` accepts every name. Without a token only a list keeps other sites' pages from
    /// reading through a name that they point here.
    pub hosts: Option<Vec<String>>,
    /// How often the folder is looked at.
    pub interval: Duration,
    /// Pages that are kept up to date at a time.
    pub followers: usize,
    /// Bytes of recorded episodes that are kept in memory, about.
    pub memory: usize,
}

impl Default for DashboardOptions {
    /// Nobody but this machine, a look a second, 256 pages, 512 MiB.
    fn default() -> Self {
        Self {
            token: None,
            hosts: Some(Vec::new()),
            interval: Duration::from_secs(1),
            followers: 256,
            memory: 512 << 20,
        }
    }
}

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DashboardError {
    /// No such folder.
    #[error("cannot look into {path}: {source}; give the folder that holds the runs")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// A folder of runs as a web page.
#[derive(Clone, Debug)]
pub struct Dashboard {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    board: Arc<Board>,
    access: Access,
    recorded: Recorded,
    comparisons: Mutex<Comparisons>,
    followers: Arc<Semaphore>,
    ending: watch::Sender<bool>,
}

impl Dashboard {
    /// Looks into a folder, and goes on looking for as long as the dashboard lives.
    ///
    /// # Errors
    /// [`DashboardError::Folder`].
    pub fn open(folder: &Path, options: DashboardOptions) -> Result<Self, DashboardError> {
        let DashboardOptions { token, hosts, interval, followers, memory } = options;
        let fail = |source| DashboardError::Folder { path: folder.to_owned(), source };
        let root = folder.canonicalize().map_err(fail)?;
        std::fs::read_dir(&root).map_err(fail)?;
        let board = Arc::new(Board::new(root));
        board.look();
        Board::keep_looking(&board, interval);
        let shared = Shared {
            board,
            access: Access::new(token, hosts),
            recorded: Recorded::new(memory),
            comparisons: Mutex::default(),
            followers: Arc::new(Semaphore::new(followers)),
            ending: watch::Sender::new(false),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Runs that were found.
    pub fn runs(&self) -> usize {
        self.shared.board.len()
    }

    /// The routes, for a server of one's own.
    pub fn router(&self) -> Router {
        let shared = Arc::clone(&self.shared);
        Router::new()
            .route("/", get(pages::page))
            .route("/assets/{name}", get(pages::asset))
            .route("/api/runs", get(api::runs))
            .route("/api/run", get(api::run))
            .route("/api/compare", get(api::compare))
            .route("/api/tasks", get(api::tasks))
            .route("/api/episodes", get(api::episodes))
            .route("/api/episode", get(api::episode))
            .route("/api/group", get(api::group))
            .route("/api/search", get(api::search))
            .route("/api/events", get(stream::events))
            .fallback(pages::unknown)
            .with_state(Arc::clone(&shared))
            .layer(from_fn_with_state(shared, access::guard))
    }

    /// Ends the pages' streams.
    pub(crate) fn end(&self) {
        self.shared.ending.send_replace(true);
    }
}
