//! Reading requests: JSON bodies, query parameters, the account and object ids in paths.
//!
//! Bodies are read as JSON whatever their Content-Type says, because official clients send
//! `text/plain` (contract §0.1). An empty body is an empty object. Each is bounded in bytes and time.

mod by_name;

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use muster_policy::identity::{AccountId, ZoneId};
use muster_store::reader::Cursor;
use muster_store::record::{self, AssociationScope, ForeignName};
use serde::de::DeserializeOwned;

pub(crate) use self::by_name::ByName;
use crate::Api;
use crate::error::{ApiError, CODE_JSON, CODE_TOO_LARGE};
use crate::paging::ends::Behind;

/// Largest body: an import of 10,000 devices with a kilobyte and a half each.
pub(crate) const BODY_MAX_BYTES: usize = 16 << 20;
/// A body that is slower than this is not coming; the API is on loopback.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A body, read as JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Arc<Api>) -> Result<Self, ApiError> {
        parse(&collect(request.into_body()).await?).map(Self)
    }
}

/// Reads a body within its bounds.
pub(crate) async fn collect(body: Body) -> Result<Bytes, ApiError> {
    let body = Limited::new(body, BODY_MAX_BYTES).collect();
    let body = tokio::time::timeout(BODY_TIMEOUT, body).await.map_err(|_| {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, CODE_JSON, "the body did not arrive in time")
    })?;
    Ok(body.map_err(|error| unreadable(&*error))?.to_bytes())
}

fn unreadable(error: &(dyn core::error::Error + Send + Sync + 'static)) -> ApiError {
    if error.is::<LengthLimitError>() {
        let message = format!("the body is larger than {BODY_MAX_BYTES} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, CODE_TOO_LARGE, message)
    } else {
        ApiError::new(StatusCode::BAD_REQUEST, CODE_JSON, "the body ended early")
    }
}

/// Reads JSON; an error of form is told apart from a value of the wrong kind, which has its place.
fn parse<T: DeserializeOwned>(octets: &[u8]) -> Result<T, ApiError> {
    let octets = if octets.trim_ascii().is_empty() { b"{}" } else { octets };
    let tree: serde_json::Value = serde_json::from_slice(octets).map_err(|error| malformed(&error))?;
    serde_path_to_error::deserialize(ByName(tree)).map_err(|error| {
        let (mut pointer, message) = (pointer(error.path()), error.into_inner().to_string());
        if let Some(field) = missing(&message) {
            pointer = format!("{pointer}/{field}");
        }
        ApiError::argument(pointer, message)
    })
}

/// The field that serde misses: the place it tells is that of the object, and the name is in its text alone.
fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

fn malformed(error: &serde_json::Error) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, CODE_JSON, format!("the body is not JSON: {error}"))
}

/// An RFC 6901 pointer to where reading stopped.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut text = String::new();
    for segment in path.iter() {
        let part = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { .. } | Segment::Unknown => continue,
        };
        text.push('/');
        text.push_str(&part);
    }
    text
}

/// The query parameters; of repeated ones the last counts where one is wanted, unknown ones are ignored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    after: Option<Behind>,
}

impl Query {
    #[cfg(test)]
    pub(crate) fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { pairs, after: None }
    }

    /// A parameter as sent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter that is a list: repeated, or joined by commas.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let values =
            self.pairs.iter().filter(|(known, _)| known == name || known.strip_suffix("[]") == Some(name));
        values.flat_map(|(_, value)| value.split(',')).filter(|value| !value.is_empty()).collect()
    }

    /// Where the page before the wanted one ended, if that is remembered.
    pub(crate) fn after(&self) -> Option<&Cursor> {
        self.after.as_ref().map(|Behind(cursor)| cursor)
    }

    /// A parameter of a checked type.
    pub(crate) fn parse<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError>
    where
        T::Err: core::fmt::Display,
    {
        let parsed = self.get(name).map(str::parse).transpose();
        parsed.map_err(|error| ApiError::argument(format!("/{name}"), format!("{name}: {error}")))
    }

    /// A parameter that is one of the words of an enum.
    pub(crate) fn word<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let value = serde_json::Value::String(text.to_owned());
        let parsed = serde_json::from_value(value);
        parsed.map(Some).map_err(|error| ApiError::argument(format!("/{name}"), format!("{name}: {error}")))
    }
}

impl FromRequestParts<Arc<Api>> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|error| ApiError::argument("", format!("the query string: {error}")))?;
        Ok(Self { pairs: pairs.0, after: parts.extensions.get().cloned() })
    }
}

/// The account of a path: this server's own; any other looks missing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account(pub(crate) AccountId);

impl FromRequestParts<Arc<Api>> for Account {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let Path(segments) = segments(parts, api).await?;
        let account = api.registrar().account();
        let named = segments.get("account_id").and_then(|text| text.parse::<AccountId>().ok());
        if named == Some(account) { Ok(Self(account)) } else { Err(ApiError::no_route_to("account")) }
    }
}

/// The zone of a path; one of another account looks missing.
pub(crate) struct Zone(pub(crate) record::Zone);

impl FromRequestParts<Arc<Api>> for Zone {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let Path(segments) = segments(parts, api).await?;
        let account = api.registrar().account();
        let missing = || ApiError::no_route_to("zone");
        let id: ZoneId = segments.get("zone_id").and_then(|text| text.parse().ok()).ok_or_else(missing)?;
        let zone = api.read(move |reader| reader.zone(id)).await?;
        zone.filter(|zone| zone.account == account).map(Self).ok_or_else(missing)
    }
}

/// The account or the zone of a path that can have either.
pub(crate) struct Scope(pub(crate) AssociationScope);

impl FromRequestParts<Arc<Api>> for Scope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let Path(segments) = segments(parts, api).await?;
        if segments.contains_key("account_id") {
            let Account(account) = Account::from_request_parts(parts, api).await?;
            return Ok(Self(AssociationScope::Account(account)));
        }
        let Zone(zone) = Zone::from_request_parts(parts, api).await?;
        Ok(Self(AssociationScope::Zone { account: zone.account, zone: zone.id }))
    }
}

/// What must be there for a change to be made: `If-Match` (RFC 9110 §13.1.1).
pub(crate) enum IfMatch {
    /// Whatever there is or is not: the header was not sent.
    Absent,
    /// `*`: anything.
    Any,
    /// A state with one of these tags.
    Tags(Vec<String>),
}

impl FromRequestParts<Arc<Api>> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, ApiError> {
        let mut sent = parts.headers.get_all(http::header::IF_MATCH).iter().peekable();
        if sent.peek().is_none() {
            return Ok(Self::Absent);
        }
        let mut tags = Vec::new();
        for value in sent {
            let text = value.to_str().map_err(|_| ApiError::argument("/If-Match", "If-Match: not ASCII"))?;
            tags.extend(text.split(',').map(|tag| tag.trim().to_owned()));
        }
        Ok(if tags.iter().any(|tag| tag == "*") { Self::Any } else { Self::Tags(tags) })
    }
}

impl IfMatch {
    /// Refuses when the caller wrote for another state than that of this tag; none is that of nothing, which no
    /// tag is of.
    pub(crate) fn check(&self, tag: Option<&HeaderValue>) -> Result<(), ApiError> {
        let holds = match (self, tag) {
            (Self::Absent, _) | (Self::Any, Some(_)) => true,
            (Self::Any | Self::Tags(_), None) => false,
            (Self::Tags(tags), Some(tag)) => tags.iter().any(|wanted| wanted.as_bytes() == tag.as_bytes()),
        };
        if holds { Ok(()) } else { Err(ApiError::precondition()) }
    }
}

/// The tag of a state, from what makes it.
pub(crate) fn tag(state: &str) -> HeaderValue {
    let hash = muster_enroll::hash_secret(state).to_string();
    let short = hash.get(..32).unwrap_or(&hash);
    HeaderValue::from_str(&format!("\"{short}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The object of a path, under the name `{id}`; one that can't be read as an id is not there.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: FromStr + Send> FromRequestParts<Arc<Api>> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let Path(segments) = segments(parts, api).await?;
        let id = segments.get("id").and_then(|text| text.parse().ok());
        id.map(Self).ok_or_else(|| ApiError::not_found("object: its id is malformed"))
    }
}

/// The number of a path, under the name `{number}`.
pub(crate) struct Number(pub(crate) u64);

impl FromRequestParts<Arc<Api>> for Number {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let Path(segments) = segments(parts, api).await?;
        let number = segments.get("number").and_then(|text| text.parse().ok());
        number.map(Self).ok_or_else(|| ApiError::not_found("object: its number is malformed"))
    }
}

/// The certificate of a path, under the name `{name}`: a serial or a fingerprint.
pub(crate) struct ForeignNamed(pub(crate) ForeignName);

impl FromRequestParts<Arc<Api>> for ForeignNamed {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let Path(segments) = segments(parts, api).await?;
        let name = segments.get("name").and_then(|text| text.parse().ok());
        name.map(Self)
            .ok_or_else(|| ApiError::not_found("certificate: give its serial or its SHA-256, in hex"))
    }
}

async fn segments(parts: &mut Parts, api: &Arc<Api>) -> Result<Path<HashMap<String, String>>, ApiError> {
    Path::from_request_parts(parts, api).await.map_err(|_| ApiError::no_route_to("object"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Row {
        #[expect(dead_code, reason = "only its place matters")]
        id: u8,
    }

    #[test]
    fn says_which_value_is_wrong() {
        let error = parse::<Vec<Row>>(br#"[{"id":1},{"id":"x"}]"#).expect_err("a string");
        assert_eq!((error.code, error.pointer.as_deref()), (crate::error::CODE_ARGUMENT, Some("/1/id")));
    }

    #[test]
    fn a_field_that_is_missing_is_told_by_its_place() {
        let error = parse::<Vec<Row>>(br#"[{"id":1},{}]"#).expect_err("no id");
        assert_eq!(error.pointer.as_deref(), Some("/1/id"));
    }

    #[test]
    fn an_object_is_read_by_its_names_and_never_from_an_array() {
        for (text, pointer) in [("[[1]]", "/0"), ("[[]]", "/0"), ("[{\"id\":[1]}]", "/0/id")] {
            let error = parse::<Vec<Row>>(text.as_bytes()).expect_err(text);
            assert_eq!((error.code, error.pointer.as_deref()), (crate::error::CODE_ARGUMENT, Some(pointer)));
        }
        assert!(parse::<Option<Row>>(b"[1]").is_err());
        assert_eq!(parse::<Vec<u8>>(b"[1,2]").expect("a list"), [1, 2]);
    }

    #[test]
    fn form_is_told_apart_from_content() {
        for text in ["{", "[1,]", "{} x", "\u{1}"] {
            assert_eq!(parse::<serde_json::Value>(text.as_bytes()).expect_err(text).code, CODE_JSON);
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = "[".repeat(100_000);
        assert_eq!(parse::<serde_json::Value>(text.as_bytes()).expect_err("deep").code, CODE_JSON);
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        assert_eq!(parse::<serde_json::Value>(b" \n").expect("empty"), serde_json::json!({}));
    }
}
