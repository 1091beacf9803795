//! The files that pages load: one style sheet, htmx and a script of our own, embedded.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

const STYLE: &str = include_str!("../../assets/style.css");
const ICON: &str = include_str!("../../assets/icon.svg");
/// htmx 2.0.11, 0BSD, as published.
const HTMX: &str = include_str!("../../assets/htmx-2.0.11.min.js");
const LIVE: &str = include_str!("../../assets/live.js");

/// `GET /assets/{file}`
pub(super) async fn file(Path(file): Path<String>) -> Response {
    let (kind, body) = match file.as_str() {
        "style.css" => ("text/css; charset=utf-8", STYLE),
        "icon.svg" => ("image/svg+xml", ICON),
        "htmx.js" => ("text/javascript; charset=utf-8", HTMX),
        "live.js" => ("text/javascript; charset=utf-8", LIVE),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "public, max-age=3600")], body).into_response()
}
