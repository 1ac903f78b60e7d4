//! Changes as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::unfold;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::{Shared, pages};

/// A comment is sent after so long a silence, so that everyone between knows that the line is up.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// `hello` at first: the server's name for itself and the version, from which a page that was away
/// knows what it missed; then a change each; `again` where a page was too slow to be told everything.
pub(super) async fn events(State(shared): State<Arc<Shared>>) -> Response {
    let Ok(place) = Arc::clone(&shared.followers).try_acquire_owned() else {
        return pages::error(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many pages are kept up to date already: close some",
        );
    };
    let changes = shared.board.changes();
    let ending = shared.ending.subscribe();
    let version = shared.board.shown().version;
    let hello = json!({ "boot": shared.board.boot(), "version": version }).to_string();
    drop(shared);
    let state = (changes, ending, place, Some(hello));
    let events = unfold(state, move |(mut changes, mut ending, place, first)| async move {
        if *ending.borrow() {
            return None;
        }
        let event = if let Some(hello) = first {
            Event::default().event("hello").id(version.to_string()).data(hello)
        } else {
            tokio::select! {
                change = changes.recv() => match change {
                    Ok(change) => Event::default()
                        .event(change.name)
                        .id(change.version.to_string())
                        .data(&*change.data),
                    Err(RecvError::Lagged(_)) => Event::default().event("again").data("{}"),
                    Err(RecvError::Closed) => return None,
                },
                _ = ending.wait_for(|end| *end) => return None,
            }
        };
        Some((Ok::<_, Infallible>(event), (changes, ending, place, None)))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}
