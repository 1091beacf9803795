//! Forms: read, bounded, and only with the secret that the session's own pages carry.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::Dashboard;
use super::visit::Visit;

/// Largest form: a list of some 10,000 devices to import.
const FORM_MAX_BYTES: usize = 2 << 20;
/// Most fields of a form.
const FIELDS_MAX: usize = 200;
/// A form that is slower than this is not coming.
const FORM_TIMEOUT: core::time::Duration = core::time::Duration::from_secs(30);
/// The field that holds the session's secret.
pub(super) const CSRF_FIELD: &str = "csrf";

/// The fields of a form that the visitor's own session sent.
#[derive(Debug, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// A field without the space around it; none when it is missing or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.trim());
        value.filter(|value| !value.is_empty())
    }

    /// A number for the API; other text stays what it is, and the API refuses it in its words.
    pub(super) fn number(&self, name: &str) -> Option<Value> {
        self.get(name).map(|text| text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from))
    }

    /// Every value of a field that may be there several times.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.trim())
    }

    /// The words of a field, between commas, spaces or line ends.
    pub(super) fn words(&self, name: &str) -> Vec<&str> {
        let text = self.get(name).unwrap_or_default();
        text.split([',', ' ', '\n', '\r', '\t']).filter(|word| !word.is_empty()).collect()
    }

    /// Reads a body.
    pub(super) async fn read(request: Request) -> Result<Self, Response> {
        let body = Limited::new(request.into_body(), FORM_MAX_BYTES).collect();
        let Ok(body) = tokio::time::timeout(FORM_TIMEOUT, body).await else {
            return Err((StatusCode::REQUEST_TIMEOUT, "the form did not arrive in time\n").into_response());
        };
        let Ok(body) = body else {
            let message = "the form is too large, or ended early\n";
            return Err((StatusCode::PAYLOAD_TOO_LARGE, message).into_response());
        };
        let octets = body.to_bytes();
        let fields = form_urlencoded::parse(&octets).into_owned().take(FIELDS_MAX);
        Ok(Self(fields.collect()))
    }
}

/// A visitor's form.
pub(super) struct Sent(pub(super) Visit, pub(super) Form);

impl FromRequest<Arc<Dashboard>> for Sent {
    type Rejection = Response;

    async fn from_request(request: Request, dashboard: &Arc<Dashboard>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, dashboard).await;
        let visit = visit.map_err(IntoResponse::into_response)?;
        let form = Form::read(Request::from_parts(parts, body)).await?;
        let given = form.get(CSRF_FIELD).unwrap_or_default();
        if bool::from(given.as_bytes().ct_eq(visit.session.csrf.as_bytes())) {
            Ok(Self(visit, form))
        } else {
            let message = "this form is not one of your session; load the page again\n";
            Err((StatusCode::FORBIDDEN, message).into_response())
        }
    }
}
