//! The admin API as pages use it: called in process, as the person who is logged in.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::ServiceExt as _;

use super::form::Form;
use super::layout;
use super::visit::Visit;
use crate::error::CODE_NOT_IN_FORCE;

/// What stays as it is in a part of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*');

/// Why a page can't show or do what it should, in the words of the API.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn internal(error: impl core::fmt::Display) -> Self {
        tracing::error!(%error, "a page of the dashboard failed");
        let message = "an internal error; the log of the server says more".to_owned();
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, layout::problem(&self)).into_response()
    }
}

/// What a list says about itself.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Info {
    pub(super) page: u64,
    pub(super) total_count: u64,
    pub(super) total_pages: u64,
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Listed<T> {
    pub(super) items: Vec<T>,
    pub(super) info: Info,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    errors: Vec<Said>,
    #[serde(default)]
    messages: Vec<Said>,
    result: Value,
    result_info: Option<Info>,
    /// Which state of the object this is.
    #[serde(skip)]
    tag: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    code: u16,
    message: String,
}

/// Which state of an object a page shows: the ETag that the API gave with it. It goes with the page's form, and comes back
/// with what is changed, so that nobody's change is undone by a page that was opened before it.
#[derive(Clone, Debug)]
pub(super) struct State(String);

impl State {
    /// The field that holds it.
    const FIELD: &str = "state";

    /// What a form sent back; one that sent none, or what can't be any, is of no state.
    pub(super) fn of(form: &Form) -> Self {
        let sent = form.get(Self::FIELD).filter(|tag| HeaderValue::from_str(tag).is_ok());
        Self(sent.unwrap_or_default().to_owned())
    }

    /// The field of a form.
    pub(super) fn field(&self) -> Markup {
        html! { input type="hidden" name=(Self::FIELD) value=(self.0); }
    }
}

/// Parameters of a query.
pub(super) type Pairs<'a> = &'a [(&'a str, &'a str)];

/// A part of a path, whatever a person put into the address.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// A query string, without the parameters that are empty.
pub(super) fn query(pairs: Pairs<'_>) -> String {
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

impl Visit {
    /// One of Muster's own objects.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        read(self.own(Method::GET, path, &[], None).await?.result)
    }

    /// One of them, and which state of it this is.
    pub(super) async fn get_state<T: DeserializeOwned>(&self, path: &str) -> Result<(T, State), Problem> {
        let found = self.own(Method::GET, path, &[], None).await?;
        Ok((read(found.result)?, State(found.tag.unwrap_or_default())))
    }

    /// Sends a change to an object that must be in a state still.
    pub(super) async fn send_from(
        &self,
        state: &State,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Value, Problem> {
        let uri = self.own_path(path);
        let sent = self.call_from(Some(state), method, &uri, &[], Some(body)).await;
        let sent = sent.map_err(|problem| match problem.status {
            StatusCode::PRECONDITION_FAILED => {
                let message =
                    "Not saved, as somebody changed it after you opened the page. This is what holds now.";
                Problem { message: message.to_owned(), ..problem }
            }
            _ => problem,
        });
        Ok(sent?.result)
    }

    /// A page of a list of them.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        pairs: Pairs<'_>,
    ) -> Result<Listed<T>, Problem> {
        listed(self.own(Method::GET, path, pairs, None).await?)
    }

    /// A list that is the same at the API we follow.
    pub(super) async fn list_of_cloudflare<T: DeserializeOwned>(
        &self,
        path: &str,
        pairs: Pairs<'_>,
    ) -> Result<Listed<T>, Problem> {
        listed(self.call(Method::GET, path, pairs, None).await?)
    }

    /// The answer to a question of Muster's own.
    pub(super) async fn ask<T: DeserializeOwned>(&self, path: &str, pairs: Pairs<'_>) -> Result<T, Problem> {
        read(self.own(Method::GET, path, pairs, None).await?.result)
    }

    /// An object of the API we follow.
    pub(super) async fn get_of_cloudflare<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        read(self.call(Method::GET, path, &[], None).await?.result)
    }

    /// Sends a change to one of Muster's own routes.
    pub(super) async fn send(&self, method: Method, path: &str, body: Value) -> Result<Value, Problem> {
        Ok(self.own(method, path, &[], Some(body)).await?.result)
    }

    /// Sends a change to a route of the API we follow.
    pub(super) async fn send_to_cloudflare(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Value, Problem> {
        Ok(self.call(method, path, &[], Some(body)).await?.result)
    }

    async fn own(
        &self,
        method: Method,
        path: &str,
        pairs: Pairs<'_>,
        body: Option<Value>,
    ) -> Result<Envelope, Problem> {
        self.call(method, &self.own_path(path), pairs, body).await
    }

    fn own_path(&self, path: &str) -> String {
        format!("/accounts/{}/muster{path}", self.account())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        pairs: Pairs<'_>,
        body: Option<Value>,
    ) -> Result<Envelope, Problem> {
        self.call_from(None, method, path, pairs, body).await
    }

    async fn call_from(
        &self,
        state: Option<&State>,
        method: Method,
        path: &str,
        pairs: Pairs<'_>,
        body: Option<Value>,
    ) -> Result<Envelope, Problem> {
        let uri = format!("/client/v4{path}?{}", query(pairs));
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(State(tag)) = state {
            request = request.header(header::IF_MATCH, tag);
        }
        let mut request = request.body(body).map_err(Problem::internal)?;
        request.extensions_mut().insert(self.caller.clone());
        let response = self.dashboard.inside.clone().oneshot(request).await;
        let response = response.unwrap_or_else(|never| match never {});
        let status = response.status();
        let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        // Our own answer: as large as the API makes it, which bounds its pages.
        let octets = response.into_body().collect().await.map_err(Problem::internal)?.to_bytes();
        let envelope: Envelope = serde_json::from_slice(&octets).map_err(Problem::internal)?;
        let envelope = Envelope { tag, ..envelope };
        if status.is_success() {
            if let Some(said) = envelope.messages.iter().find(|said| said.code == CODE_NOT_IN_FORCE) {
                // Of several changes of one form, the first tells it.
                let _ = self.awaited.set(said.message.clone());
            }
            return Ok(envelope);
        }
        let message =
            envelope.errors.into_iter().next().map_or_else(|| status.to_string(), |said| said.message);
        Err(Problem { status, message })
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(Problem::internal)
}

fn listed<T: DeserializeOwned>(envelope: Envelope) -> Result<Listed<T>, Problem> {
    let info = envelope.result_info.ok_or_else(|| Problem::internal("a list without its length"))?;
    Ok(Listed { items: read(envelope.result)?, info })
}
