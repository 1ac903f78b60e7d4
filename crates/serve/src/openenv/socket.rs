//! A session over a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message as Frame, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};

use super::Shared;
use super::http::rpc;
use super::message::{self, Message, Unreadable};
use super::session::Session;

/// Close codes (RFC 6455).
const NORMAL: u16 = 1000;
const AWAY: u16 = 1001;
const TOO_BIG: u16 = 1009;
const FAILED: u16 = 1011;

/// How long a goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Opens a session.
pub(crate) async fn open(State(shared): State<Arc<Shared>>, upgrade: WebSocketUpgrade) -> Response {
    let limit = shared.limits.message;
    upgrade
        .max_message_size(limit)
        .max_frame_size(limit)
        .write_buffer_size(0)
        .on_upgrade(move |socket| serve(socket, shared))
}

/// Plays until the client leaves, or must.
async fn serve(mut socket: WebSocket, shared: Arc<Shared>) {
    let Some(place) = shared.places.take() else {
        let (active, most) = (shared.places.taken(), shared.places.most());
        let what = format!(
            "Server at capacity: {active}/{most} sessions active. Cannot accept new connections."
        );
        let refused = json!({"type": "error", "data": {"message": what, "code": "CAPACITY_REACHED",
            "active_sessions": active, "max_sessions": most}});
        let mut ending = shared.ending.subscribe();
        if say(&mut socket, &shared, &mut ending, refused.to_string()).await {
            // Clients read an answer to what they asked: a connection closed before is less to them.
            let _ = tokio::time::timeout(FAREWELL, socket.recv()).await;
            bye(&mut socket, NORMAL, "").await;
        }
        return;
    };
    let mut ending = shared.ending.subscribe();
    let mut session = Session::new(&shared);
    let error = |what: &str| message::error("SESSION_ERROR", what);
    // What came while the environment was at work.
    let mut early = None;
    loop {
        let came = match early.take().filter(|_| !*ending.borrow()) {
            Some(came) => came,
            None => next(&mut socket, &shared, &mut ending).await,
        };
        let text = match came {
            Next::Said(text) => text,
            Next::Gone => break,
            Next::Idle => {
                let seconds = shared.limits.idle.unwrap_or_default().as_secs_f64();
                let what = format!("the session ended after {seconds} s without a message");
                say(&mut socket, &shared, &mut ending, error(&what)).await;
                bye(&mut socket, NORMAL, "idle").await;
                break;
            }
            Next::Ending => {
                bye(&mut socket, AWAY, "the server ends").await;
                break;
            }
            Next::Bytes => {
                let what = "a message is text, not bytes";
                say(&mut socket, &shared, &mut ending, error(what)).await;
                bye(&mut socket, NORMAL, "").await;
                break;
            }
            Next::TooLong => {
                let what = format!("a message has at most {} bytes", shared.limits.message);
                say(&mut socket, &shared, &mut ending, error(&what)).await;
                bye(&mut socket, TOO_BIG, "too long").await;
                break;
            }
        };
        let answer = match Message::read(&text) {
            Ok(Message::Close) => {
                bye(&mut socket, NORMAL, "").await;
                break;
            }
            Ok(message) if shared.quick => act(&mut session, message),
            Ok(message) => match aside(&mut socket, session, message, &mut early).await {
                Ok((given_back, answer)) => {
                    session = given_back;
                    answer
                }
                Err(failed) => {
                    let what = format!("the environment failed: {failed}");
                    say(&mut socket, &shared, &mut ending, error(&what)).await;
                    bye(&mut socket, FAILED, "").await;
                    return;
                }
            },
            Err(Unreadable::Shape(what)) => {
                say(&mut socket, &shared, &mut ending, error(&what)).await;
                bye(&mut socket, NORMAL, "").await;
                break;
            }
            Err(Unreadable::Json(what)) => {
                message::error("INVALID_JSON", &format!("Invalid JSON: {what}"))
            }
            Err(Unreadable::Type(kind)) => {
                message::error("UNKNOWN_TYPE", &format!("Unknown message type: {kind}"))
            }
            Err(Unreadable::Invalid(detail)) => message::refusal(&detail.into()),
            Err(Unreadable::Refused(what)) => message::error("EXECUTION_ERROR", &what),
        };
        if !say(&mut socket, &shared, &mut ending, answer).await {
            break;
        }
    }
    // Whatever the environment holds is let go before another may take the place.
    if shared.quick {
        drop(session);
    } else {
        let _ = spawn_blocking(move || drop(session)).await;
    }
    drop(place);
}

/// Does what a message asks for on a thread of its own, and reads on meanwhile, so that pings are
/// answered however long it takes: clients hang up on who does not. Of what else comes, the first is
/// kept for later; behind it, nothing more is read.
async fn aside(
    socket: &mut WebSocket,
    mut session: Session,
    message: Message,
    early: &mut Option<Next>,
) -> Result<(Session, String), JoinError> {
    let mut work = spawn_blocking(move || {
        let answer = act(&mut session, message);
        (session, answer)
    });
    tokio::select! {
        biased;
        done = &mut work => return done,
        came = heard(socket) => *early = Some(came),
    }
    work.await
}

/// What a message leads to.
fn act(session: &mut Session, message: Message) -> String {
    let result = match message {
        Message::Reset(arguments) => session.reset(arguments),
        Message::Step(text) => session.step(&text),
        Message::State => return message::answer("state", &session.state()),
        Message::Mcp(request) => return message::answer("mcp", &rpc(&request)),
        Message::Close => return message::answer("state", &Value::Null),
    };
    match result {
        Ok(result) => message::answer("observation", &result),
        Err(refusal) => message::refusal(&refusal),
    }
}

enum Next {
    Said(Utf8Bytes),
    Bytes,
    TooLong,
    Gone,
    Idle,
    Ending,
}

/// Waits for the next message.
async fn next(socket: &mut WebSocket, shared: &Shared, ending: &mut watch::Receiver<bool>) -> Next {
    let idle = async {
        match shared.limits.idle {
            Some(idle) => tokio::time::sleep(idle).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        _ = ending.wait_for(|ending| *ending) => Next::Ending,
        heard = heard(socket) => heard,
        () = idle => Next::Idle,
    }
}

/// What the client says, or does. Nothing is lost where nobody waits for it any more.
async fn heard(socket: &mut WebSocket) -> Next {
    loop {
        match socket.recv().await {
            Some(Ok(Frame::Text(text))) => return Next::Said(text),
            Some(Ok(Frame::Binary(_))) => return Next::Bytes,
            // Pings are answered where they are read.
            Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
            Some(Err(error)) if too_long(&error) => return Next::TooLong,
            Some(Ok(Frame::Close(_)) | Err(_)) | None => return Next::Gone,
        }
    }
}

fn too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("Space limit exceeded") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Sends a message; whether the client has taken it. One that does not read would hold its session
/// for ever: it has as long as for a message of its own, and no time once the server ends.
async fn say(
    socket: &mut WebSocket,
    shared: &Shared,
    ending: &mut watch::Receiver<bool>,
    text: String,
) -> bool {
    let patience = shared.limits.idle.unwrap_or(shared.limits.patience);
    let sent = tokio::time::timeout(patience, socket.send(Frame::Text(text.into())));
    tokio::select! {
        biased;
        sent = sent => matches!(sent, Ok(Ok(()))),
        _ = ending.wait_for(|ending| *ending) => false,
    }
}

/// Says goodbye and gives the client a moment to do so as well.
async fn bye(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
    let farewell = async {
        if socket.send(Frame::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}
