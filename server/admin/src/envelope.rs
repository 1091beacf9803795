//! The envelope around every answer: `success`, `errors`, `messages`, `result`, and for lists
//! `result_info` (contract §1.3).
//!
//! Some clients judge by `success` and others by the status, so both are made in one place and
//! always agree.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::paging::PageInfo;
use crate::paging::ends::Behind;

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    envelope: Envelope,
}

#[derive(Debug, Serialize)]
struct Envelope {
    success: bool,
    errors: Vec<Value>,
    messages: Vec<Value>,
    result: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_info: Option<PageInfo>,
}

impl Answer {
    /// One object.
    pub(crate) fn one(result: &impl Serialize) -> Result<Self, ApiError> {
        Ok(Self::of(Envelope::success(serde_json::to_value(result).map_err(ApiError::internal)?)))
    }

    /// A page of a list.
    pub(crate) fn list(result: &impl Serialize, info: PageInfo) -> Result<Self, ApiError> {
        let result = serde_json::to_value(result).map_err(ApiError::internal)?;
        Ok(Self::of(Envelope { result_info: Some(info), ..Envelope::success(result) }))
    }

    fn of(envelope: Envelope) -> Self {
        Self { status: StatusCode::OK, headers: HeaderMap::new(), envelope }
    }

    /// Says that something was made.
    #[must_use]
    pub(crate) const fn created(mut self) -> Self {
        self.status = StatusCode::CREATED;
        self
    }

    /// Says which state of the object this is, for `If-Match`.
    #[must_use]
    pub(crate) fn tagged(mut self, tag: HeaderValue) -> Self {
        self.headers.insert(ETAG, tag);
        self
    }

    /// Adds a message for people.
    #[must_use]
    pub(crate) fn with_message(mut self, code: u16, message: &str) -> Self {
        self.envelope.messages.push(json!({ "code": code, "message": message }));
        self
    }
}

impl Envelope {
    const fn success(result: Value) -> Self {
        Self { success: true, errors: Vec::new(), messages: Vec::new(), result, result_info: None }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = respond(self.status, &self.envelope);
        response.headers_mut().extend(self.headers);
        if let Some(end) = self.envelope.result_info.and_then(|info| info.end) {
            response.extensions_mut().insert(Behind(end));
        }
        response
    }
}

/// Adds a message for people to an answer that was made before. Answers to changes are whole JSON texts in memory.
pub(crate) async fn add_message(response: Response, code: u16, message: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    let octets = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return ApiError::internal(error).into_response(),
    };
    let body = with_message(&octets, code, message).map_or_else(|| Body::from(octets), Body::from);
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, body)
}

/// The envelope with one message more; none when it is no envelope.
fn with_message(envelope: &[u8], code: u16, message: &str) -> Option<Vec<u8>> {
    let mut envelope: Value = serde_json::from_slice(envelope).ok()?;
    let messages = envelope.get_mut("messages")?.as_array_mut()?;
    messages.push(json!({ "code": code, "message": message }));
    serde_json::to_vec(&envelope).ok()
}

/// The answer of an error; its headers are the error's own business.
pub(crate) fn failure(error: &ApiError) -> Response {
    let errors = core::iter::once(error).chain(&error.also).map(entry).collect();
    respond(error.status, &Envelope { success: false, errors, ..Envelope::success(Value::Null) })
}

fn entry(error: &ApiError) -> Value {
    let mut entry = json!({ "code": error.code, "message": error.message });
    if let (Some(pointer), Some(entry)) = (&error.pointer, entry.as_object_mut()) {
        entry.insert("source".to_owned(), json!({ "pointer": pointer }));
    }
    entry
}

fn respond(status: StatusCode, envelope: &Envelope) -> Response {
    // Text and numbers in a tree: serialising it can't fail.
    let body = serde_json::to_vec(envelope).unwrap_or_default();
    let json = HeaderValue::from_static("application/json");
    (status, [(CONTENT_TYPE, json)], body).into_response()
}
