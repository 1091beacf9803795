//! From reasons to HTTP answers: the only file of the edge that knows status codes of refusals.
//!
//! One reason makes the status, the code for programs and the sentence for people. A page never
//! quotes the request, so there is nothing to escape, and never names what is behind the edge.

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use muster_policy::reason::{Fault, Reason};

use crate::http::body::ResponseBody;
use crate::http::offers::Piece;

/// The code of a refusal, for programs; the EST front sends the same header.
const MUSTER_REASON: HeaderName = HeaderName::from_static("muster-reason");
/// How soon a client may hope for better, in seconds.
const RETRY_SECONDS: u16 = 5;

/// What passes to origins, which may know fewer, or others (RFC 9110 §15.5.6 demands a list).
const PASSED_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// The answer to a request that is not served.
pub(crate) fn refusal(reason: Reason, request: &HeaderMap) -> Response<ResponseBody> {
    let status = status(reason);
    let (content_type, body) = if wants_html(request) {
        ("text/html; charset=utf-8", html(reason, status))
    } else {
        ("application/json", json(reason))
    };
    let body = Full::new(Piece::unwatched(Bytes::from(body))).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(MUSTER_REASON, HeaderValue::from_static(reason.code()));
    match status {
        StatusCode::SERVICE_UNAVAILABLE => headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS)),
        StatusCode::METHOD_NOT_ALLOWED => headers.insert(ALLOW, PASSED_METHODS),
        _ => None,
    };
    response
}

pub(crate) const fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::OriginTimeout => return StatusCode::GATEWAY_TIMEOUT,
        Reason::MethodRefused => return StatusCode::METHOD_NOT_ALLOWED,
        _ => {}
    }
    match reason.fault() {
        // RFC 9110 §15.5.2: 401 names a scheme to authenticate by, and certificates have none.
        Fault::Authentication | Fault::Forbidden => StatusCode::FORBIDDEN,
        Fault::Malformed => StatusCode::BAD_REQUEST,
        Fault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Fault::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Fault::NotFound => StatusCode::NOT_FOUND,
        Fault::NotOffered => StatusCode::NOT_IMPLEMENTED,
        Fault::TooOften => StatusCode::TOO_MANY_REQUESTS,
        Fault::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Fault::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        Fault::Origin => StatusCode::BAD_GATEWAY,
    }
}

/// Browsers say `text/html` first; programs that say nothing get JSON.
fn wants_html(request: &HeaderMap) -> bool {
    request.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains("text/html"))
}

fn json(reason: Reason) -> String {
    // Codes and sentences are constants without quotes or backslashes; a test holds them to it.
    format!("{{\"reason\":\"{}\",\"message\":\"{}\"}}\n", reason.code(), reason.sentence())
}

fn html(reason: Reason, status: StatusCode) -> String {
    let title = status.canonical_reason().unwrap_or("Refused");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status} {title}</title></head>\n\
         <body><h1>{title}</h1><p>{}</p><p><small>{}</small></p></body></html>\n",
        reason.sentence(),
        reason.code(),
        status = status.as_str(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_plain_json_and_an_error() {
        for reason in Reason::ALL {
            let parsed: serde_json::Value = serde_json::from_str(&json(*reason)).expect("JSON");
            assert_eq!(parsed["reason"], reason.code());
            assert!(!reason.sentence().contains(['<', '>', '&']), "{reason}");
            assert!(status(*reason).is_client_error() || status(*reason).is_server_error());
        }
    }

    #[test]
    fn browsers_get_a_page_and_programs_get_json() {
        let mut request = HeaderMap::new();
        let kind = |request: &HeaderMap| {
            refusal(Reason::CertificateRevoked, request).headers()[CONTENT_TYPE].clone()
        };
        assert_eq!(kind(&request), "application/json");
        request.insert(ACCEPT, HeaderValue::from_static("text/html,application/xhtml+xml"));
        assert_eq!(kind(&request), "text/html; charset=utf-8");
    }
}
