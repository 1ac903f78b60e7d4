//! The routes beside the sessions: stateless calls, and what describes the server.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::refusal::{Detail, Refusal};
use super::session::{Outcome, ResetArguments, Session};
use super::{Shared, message, schema};

/// A body as an object; an empty one is `{}`.
async fn object(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
) -> Result<Map<String, Value>, Response> {
    let limit = shared.limits.message;
    let too_large = || {
        detail(
            StatusCode::PAYLOAD_TOO_LARGE,
            &json!(format!("the body is larger than {limit} bytes")),
        )
    };
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|n| n > limit as u64) {
        return Err(too_large());
    }
    let bytes = match tokio::time::timeout(shared.limits.patience, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) if crate::retrieval::is_limit(&error) => return Err(too_large()),
        Ok(Err(error)) => {
            let what = json!(format!("the body did not arrive: {error}"));
            return Err(detail(StatusCode::BAD_REQUEST, &what));
        }
        Err(_) => {
            let what =
                json!(format!("the body did not arrive within {:?}", shared.limits.patience));
            return Err(detail(StatusCode::REQUEST_TIMEOUT, &what));
        }
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => {
            let what = "Input should be a valid dictionary";
            Err(unprocessable(&Detail::new("model_attributes_type", &["body"], what)))
        }
        Err(error) => {
            let what = format!("JSON decode error: {error}");
            Err(unprocessable(&Detail::new("json_invalid", &["body"], what)))
        }
    }
}

/// A fresh environment is reset and told what it shows; then it is gone.
pub(crate) async fn reset(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match object(&shared, &headers, body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    match ResetArguments::read(&body, &["body"]) {
        Ok(arguments) => alone(shared, move |session| session.reset(arguments)).await,
        Err(wrong) => unprocessable(&wrong),
    }
}

/// A fresh environment is asked to take a step, which none can without a reset: that is what a
/// stateless step means. Episodes are played over `/ws`.
pub(crate) async fn step(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match object(&shared, &headers, body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let positive = |value: &Value| value.as_f64().is_some_and(|n| n > 0.0);
    if body.get("timeout_s").is_some_and(|v| !v.is_null() && !positive(v)) {
        let what = "Input should be greater than 0";
        return unprocessable(&Detail::new("greater_than", &["body"], what).of("timeout_s"));
    }
    let action = match body.get("action") {
        Some(Value::Object(action)) => message::action(action, &["body", "action"]),
        Some(_) => {
            let what = "Input should be a valid dictionary";
            Err(Detail::new("dict_type", &["body", "action"], what))
        }
        None => Err(Detail::new("missing", &["body", "action"], "Field required")),
    };
    match action {
        Ok(text) => alone(shared, move |session| session.step(&text)).await,
        Err(wrong) => unprocessable(&wrong),
    }
}

/// Does something with an environment of its own.
async fn alone(
    shared: Arc<Shared>,
    work: impl FnOnce(&mut Session) -> Result<Outcome, Refusal> + Send + 'static,
) -> Response {
    let Some(place) = shared.places.take() else {
        let what = json!("Server at capacity: try again when a session has ended");
        return detail(StatusCode::SERVICE_UNAVAILABLE, &what);
    };
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&mut Session::new(&shared));
        drop(place);
        result
    });
    match done.await {
        Ok(Ok(result)) => answer(StatusCode::OK, &result),
        Ok(Err(Refusal::Invalid(wrong))) => unprocessable(&wrong),
        Ok(Err(Refusal::Failed(what))) => {
            let what =
                format!("{what} (each request has an environment of its own: play over /ws)");
            detail(StatusCode::INTERNAL_SERVER_ERROR, &json!(what))
        }
        Err(error) => {
            let what = json!(format!("the environment failed: {error}"));
            detail(StatusCode::INTERNAL_SERVER_ERROR, &what)
        }
    }
}

/// The state of a fresh environment.
pub(crate) async fn state(State(shared): State<Arc<Shared>>) -> Response {
    answer(StatusCode::OK, &Session::new(&shared).state())
}

pub(crate) async fn health() -> Response {
    answer(StatusCode::OK, &json!({"status": "healthy"}))
}

pub(crate) async fn metadata(State(shared): State<Arc<Shared>>) -> Response {
    answer(StatusCode::OK, &schema::metadata(shared.tasks.name()))
}

pub(crate) async fn schema() -> Response {
    answer(StatusCode::OK, &schema::schemas())
}

pub(crate) async fn openapi() -> Response {
    answer(StatusCode::OK, &schema::openapi())
}

/// JSON-RPC for tools, which no environment of ours has: the answers that OpenEnv gives then.
pub(crate) async fn mcp(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match object(&shared, &headers, body).await {
        Ok(request) => answer(StatusCode::OK, &rpc(&Value::Object(request))),
        Err(refused) if refused.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            answer(StatusCode::OK, &rpc_error(&Value::Null, -32700, "Parse error"))
        }
        Err(refused) => refused,
    }
}

/// The answer to a JSON-RPC request.
pub(crate) fn rpc(request: &Value) -> Value {
    let id = request.get("id").filter(|id| id.is_string() || id.is_number());
    let id = id.cloned().unwrap_or_default();
    if request.get("jsonrpc").is_some_and(|version| version != "2.0") {
        return rpc_error(&id, -32600, "Invalid request: jsonrpc is not \"2.0\"");
    }
    match request.get("method").and_then(Value::as_str) {
        Some("tools/list" | "tools/call") => {
            rpc_error(&id, -32603, "Environment does not support MCP")
        }
        Some(method) => {
            let method: String = method.chars().take(100).collect();
            rpc_error(&id, -32601, &format!("Method not found: {method}"))
        }
        None => rpc_error(&id, -32600, "Invalid request: method is required"),
    }
}

fn rpc_error(id: &Value, code: i64, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

pub(crate) async fn wrong_method(method: Method, uri: Uri) -> Response {
    let what = format!("Method Not Allowed: {method} {}", uri.path());
    detail(StatusCode::METHOD_NOT_ALLOWED, &json!(what))
}

pub(crate) async fn unknown() -> Response {
    let what = "Not Found: sessions are at /ws; /reset, /step, /state, /health, /metadata, /schema";
    detail(StatusCode::NOT_FOUND, &json!(what))
}

fn unprocessable(wrong: &Detail) -> Response {
    detail(StatusCode::UNPROCESSABLE_ENTITY, &json!([wrong.json(&[])]))
}

/// What a caller is told who may not ask.
pub(crate) fn refused(status: StatusCode, what: &str) -> Response {
    detail(status, &json!(what))
}

fn detail(status: StatusCode, detail: &Value) -> Response {
    answer(status, &json!({ "detail": detail }))
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    // Texts and finite numbers cannot fail to be written to memory.
    let body = serde_json::to_vec(body).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
