//! The page and what it is made of, and what is said where there is none.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use empg_report::assets;

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page.
pub(super) async fn page() -> Response {
    ([(header::CONTENT_TYPE, HTML)], assets::DASHBOARD_PAGE).into_response()
}

/// A style or script: these, and nothing from the disk.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "style.css" => (STYLE, assets::STYLE),
        "chart.css" => (STYLE, assets::CHART_STYLE),
        "dashboard.css" => (STYLE, assets::DASHBOARD_STYLE),
        "chart-library.js" => (SCRIPT, assets::CHART_LIBRARY),
        "charts.js" => (SCRIPT, assets::CHARTS),
        "viewer.js" => (SCRIPT, assets::VIEWER),
        name => match assets::DASHBOARD_MODULES.iter().find(|(own, _)| *own == name) {
            Some((_, text)) => (SCRIPT, *text),
            None => return unknown().await,
        },
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

pub(super) async fn unknown() -> Response {
    error(StatusCode::NOT_FOUND, "there is nothing at this address; the page is at /")
}

/// A visitor without the token.
pub(super) fn locked(path: &str) -> Response {
    if path == "/" {
        let page = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>EMPG runs: token \
                    needed</title><h1>A token is needed</h1><p>Open the address that <code>empg \
                    dashboard</code> printed; it ends with <code>/?token=…</code>.</p></html>";
        let headers = [(header::CONTENT_TYPE, HTML), (header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, headers, page).into_response();
    }
    let mut refused = error(
        StatusCode::UNAUTHORIZED,
        "a token is needed: open the address that was printed, or send Authorization: Bearer TOKEN",
    );
    refused
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
    refused
}

/// `{"error": "…"}`.
pub(super) fn error(status: StatusCode, what: &str) -> Response {
    json(status, serde_json::json!({ "error": what }).to_string())
}

/// JSON that is written already.
pub(super) fn json(status: StatusCode, text: impl Into<axum::body::Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text.into()).into_response()
}
