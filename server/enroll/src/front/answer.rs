//! From outcomes to HTTP answers: the only file that knows status codes.
//!
//! Statuses follow RFC 7030 §4.2.3 and the table of the EST contract. Bodies of refusals are one
//! line of text for people: code, sentence, field. They never hold database or path text.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use muster_policy::enrol::RenewalWindow;
use muster_policy::reason::{Fault, Refusal};

use crate::encoding::{Lines, encode_answer};

/// Answers fit in one piece, so that they can leave in one TLS record.
pub(crate) type Answer = Response<Full<Bytes>>;

/// The media type of CA certificates (RFC 7030 §4.1.3).
const PKCS7: HeaderValue = HeaderValue::from_static("application/pkcs7-mime");
/// The media type of issued certificates (RFC 7030 §4.2.3).
const PKCS7_CERTS_ONLY: HeaderValue =
    HeaderValue::from_static("application/pkcs7-mime; smime-type=certs-only");
/// The media type of csrattrs (RFC 7030 §4.5.2).
const CSRATTRS: HeaderValue = HeaderValue::from_static("application/csrattrs");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// RFC 8951 §3 deprecates it; one old client reads no answer without it.
const CONTENT_TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");
const BASE64: HeaderValue = HeaderValue::from_static("base64");
/// The renewal window as an RFC 9651 dictionary of dates.
const MUSTER_RENEWAL: HeaderName = HeaderName::from_static("muster-renewal");
/// The code of a refusal, for programs.
const MUSTER_REASON: HeaderName = HeaderName::from_static("muster-reason");
/// What was asked for and not granted.
const MUSTER_DROPPED: HeaderName = HeaderName::from_static("muster-dropped");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REALM: HeaderValue = HeaderValue::from_static("Basic realm=\"muster\"");
/// RFC 2046 §5.1.1: plain characters only, for clients that take it literally.
const BOUNDARY: &str = "estMusterBoundary";

fn answer(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

fn encoded(content_type: HeaderValue, der: &[u8], lines: Lines) -> Answer {
    let mut answer = answer(StatusCode::OK, content_type, encode_answer(der, lines));
    answer.headers_mut().insert(CONTENT_TRANSFER_ENCODING, BASE64);
    answer
}

/// The CA certificates, as a certs-only CMS.
pub(crate) fn ca_certificates(cms: &[u8], lines: Lines) -> Answer {
    encoded(PKCS7, cms, lines)
}

/// The attributes a request should have, or none.
pub(crate) fn csr_attributes(der: Option<&[u8]>, lines: Lines) -> Answer {
    match der {
        Some(der) => encoded(CSRATTRS, der, lines),
        None => {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer
        }
    }
}

/// An issued certificate: exactly one in the CMS.
pub(crate) fn certificate(cms: &[u8], lines: Lines, renewal: RenewalWindow, dropped: &[String]) -> Answer {
    with_renewal(encoded(PKCS7_CERTS_ONLY, cms, lines), renewal, dropped)
}

/// A key made here and its certificate (RFC 7030 §4.4.2).
pub(crate) fn key_and_certificate(
    pkcs8: &[u8],
    cms: &[u8],
    lines: Lines,
    renewal: RenewalWindow,
    dropped: &[String],
) -> Answer {
    let mut body = String::new();
    let parts = [("application/pkcs8", pkcs8), ("application/pkcs7-mime; smime-type=certs-only", cms)];
    for (media_type, der) in parts {
        body.push_str(&format!(
            "--{BOUNDARY}\r\nContent-Type: {media_type}\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
            encode_answer(der, lines).trim_end()
        ));
    }
    body.push_str(&format!("--{BOUNDARY}--\r\n"));
    let content_type = HeaderValue::from_static("multipart/mixed; boundary=estMusterBoundary");
    with_renewal(answer(StatusCode::OK, content_type, body), renewal, dropped)
}

fn with_renewal(mut answer: Answer, renewal: RenewalWindow, dropped: &[String]) -> Answer {
    let window =
        format!("renew-at=@{}, urgent-at=@{}", renewal.renew_at().as_secs(), renewal.urgent_at().as_secs());
    if let Ok(value) = HeaderValue::from_str(&window) {
        answer.headers_mut().insert(MUSTER_RENEWAL, value);
    }
    if let (false, Ok(value)) = (dropped.is_empty(), HeaderValue::from_str(&bounded_list(dropped))) {
        answer.headers_mut().insert(MUSTER_DROPPED, value);
    }
    answer
}

/// strongSwan reads a response head of at most 1024 bytes.
fn bounded_list(names: &[String]) -> String {
    names.join(", ").chars().take(200).collect()
}

/// Accepted, waits for a person (RFC 7030 §4.2.3).
pub(crate) fn waiting(retry_after: Duration) -> Answer {
    let mut answer = answer(StatusCode::ACCEPTED, TEXT, "The request waits for approval.\n");
    insert_retry_after(&mut answer, retry_after);
    answer
}

/// A refusal, and when to come again where that helps.
pub(crate) fn refusal(refusal: &Refusal, retry_after: Option<Duration>) -> Answer {
    let status = match refusal.reason.fault() {
        Fault::Authentication => StatusCode::UNAUTHORIZED,
        Fault::Forbidden => StatusCode::FORBIDDEN,
        Fault::Malformed => StatusCode::BAD_REQUEST,
        Fault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Fault::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Fault::NotFound => StatusCode::NOT_FOUND,
        Fault::NotOffered => StatusCode::NOT_IMPLEMENTED,
        Fault::TooOften => StatusCode::TOO_MANY_REQUESTS,
        Fault::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Fault::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        Fault::Origin => StatusCode::BAD_GATEWAY,
    };
    let mut answer = answer(status, TEXT, format!("{refusal}\n"));
    answer.headers_mut().insert(MUSTER_REASON, HeaderValue::from_static(refusal.reason.code()));
    match refusal.reason.fault() {
        Fault::Authentication => {
            answer.headers_mut().insert(WWW_AUTHENTICATE, REALM);
        }
        Fault::TooOften | Fault::Unavailable => {
            insert_retry_after(&mut answer, retry_after.unwrap_or(Duration::from_secs(5)));
        }
        _ => {}
    }
    answer
}

/// The same with its head alone, which has the code.
pub(crate) fn without_text(answer: Answer) -> Answer {
    let mut answer = answer.map(|_| Full::default());
    answer.headers_mut().remove(CONTENT_TYPE);
    answer
}

/// No such path.
pub(crate) fn not_found() -> Answer {
    answer(StatusCode::NOT_FOUND, TEXT, "There is no EST operation at this path.\n")
}

/// The path exists, for other methods.
pub(crate) fn method_not_allowed(allow: &'static str) -> Answer {
    let mut answer = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "The operation takes another method.\n");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// Names the request, as the log does.
pub(crate) fn with_request_id(mut answer: Answer, id: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(id) {
        answer.headers_mut().insert(REQUEST_ID, value);
    }
    answer
}

fn insert_retry_after(answer: &mut Answer, retry_after: Duration) {
    // Rounded up: a client that comes exactly then must find the door open.
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
}

#[cfg(test)]
mod tests {
    use muster_policy::reason::Reason;

    use super::*;

    #[test]
    fn every_reason_has_a_status_its_clients_know() {
        for reason in Reason::ALL {
            let answer = refusal(&Refusal::new(*reason, "/"), None);
            assert!(answer.status().is_client_error() || answer.status().is_server_error());
            let retry = answer.headers().contains_key(RETRY_AFTER);
            assert_eq!(retry, matches!(answer.status().as_u16(), 429 | 503), "{reason}");
            let challenge = answer.headers().contains_key(WWW_AUTHENTICATE);
            assert_eq!(challenge, answer.status() == StatusCode::UNAUTHORIZED, "{reason}");
        }
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let answer = waiting(Duration::from_millis(1_001));
        assert_eq!(answer.headers().get(RETRY_AFTER).map(HeaderValue::as_bytes), Some(&b"2"[..]));
    }
}
