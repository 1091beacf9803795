//! What is public: health, readiness, metrics, and revocation lists.
//!
//! None of it needs a token: a CRL is signed and meant for everybody (RFC 5280 §5), the rest is only
//! on the loopback listener.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, StatusCode};
use muster_policy::identity::CaId;
use muster_policy::time::UnixTime;
use muster_store::record::CrlState;
use prometheus_client::registry::Registry;

use crate::Api;
use crate::error::{ApiError, CODE_ROUTE};

/// Longest time a cache may keep a CRL: a revocation made now must be seen soon.
const CRL_CACHE_MAX_S: u64 = 300;
/// RFC 2585 §4.2.
const CRL_MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/pkix-crl");
const METRICS_MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The ledger can be read and written, and a CA can sign for devices.
pub(crate) async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let account = api.registrar().account();
    let unready = match api.read(move |reader| reader.account(account)).await {
        Err(_) => "the ledger can't be read\n",
        Ok(None) => "the account is missing\n",
        Ok(Some(_)) if api.registrar().ledger().stats().is_failing => "the ledger can't be written\n",
        Ok(Some(_)) if api.registrar().authority().trust().issuing.is_none() => {
            "no CA can issue to devices\n"
        }
        Ok(Some(_)) => return "ready\n".into_response(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, unready).into_response()
}

/// Every figure of the process.
pub(crate) async fn metrics(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    figures(api.registry())
}

/// The same of a process without an API.
pub(crate) fn figures(registry: &Registry) -> Result<Response, ApiError> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).map_err(ApiError::internal)?;
    Ok(([(CONTENT_TYPE, METRICS_MEDIA_TYPE)], text).into_response())
}

/// The newest revocation list of a CA of the account, DER.
pub(crate) async fn crl(
    State(api): State<Arc<Api>>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let missing = || ApiError::new(StatusCode::NOT_FOUND, CODE_ROUTE, "there is no such CRL");
    let id: CaId = file.strip_suffix(".crl").and_then(|id| id.parse().ok()).ok_or_else(missing)?;
    let account = api.registrar().account();
    let crl = api
        .read(move |reader| {
            let ours = reader.ca(id)?.is_some_and(|ca| ca.account == account);
            if ours { reader.crl(id) } else { Ok(None) }
        })
        .await?
        .ok_or_else(missing)?;
    Ok(respond(crl, &headers, api.now()))
}

fn respond(crl: CrlState, asked: &HeaderMap, now: UnixTime) -> Response {
    let etag = format!("\"{}\"", crl.number);
    let modified = httpdate::fmt_http_date(crl.this_update.to_offset_date_time().into());
    let max_age = crl.next_update.since(now).as_secs().min(CRL_CACHE_MAX_S);
    let headers = [
        (ETAG, etag.clone()),
        (LAST_MODIFIED, modified),
        (CACHE_CONTROL, format!("public, max-age={max_age}, must-revalidate")),
    ];
    if is_known(asked, &etag, crl.this_update) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(CONTENT_TYPE, CRL_MEDIA_TYPE)], crl.der.into_vec()).into_response()
}

/// Whether the client has this list already (RFC 9110 §13.2.2: the entity tag goes before the date). By its date
/// only when it is that of this list (§13.1.3 allows it): a later one may be of a list that was signed by a clock
/// that was ahead, and knows less.
fn is_known(asked: &HeaderMap, etag: &str, this_update: UnixTime) -> bool {
    let text = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(tags) = text(IF_NONE_MATCH) {
        let weak = |tag: &str| tag.trim().trim_start_matches("W/") == etag;
        return tags.trim() == "*" || tags.split(',').any(weak);
    }
    let since = text(IF_MODIFIED_SINCE).and_then(|date| httpdate::parse_http_date(date).ok());
    since.is_some_and(|since| since == std::time::SystemTime::from(this_update.to_offset_date_time()))
}
