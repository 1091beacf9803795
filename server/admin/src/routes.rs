//! The routes, and what surrounds each: request id, log line, count, panic guard.

mod cloudflare;
mod own;

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use crate::error::{ApiError, CODE_METHOD, CODE_NOT_IN_FORCE, CODE_ROUTE};
use crate::paging::ends;
use crate::service::Force;
use crate::{Api, auth, carry, dashboard, envelope, health, idempotency};

/// What an answer says of a change that [`CODE_NOT_IN_FORCE`] is about.
const NOT_IN_FORCE: &str = "stored; an edge does not go by it yet, and may serve as before until it does";
/// Carries the id under which log and audit know a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Everything: for the loopback listener, and for commands that run without a server.
pub fn router(api: Arc<Api>) -> Router {
    let public = Router::new()
        .route("/healthz", routing::get(health::healthz))
        .route("/readyz", routing::get(health::readyz))
        .route("/metrics", routing::get(health::metrics))
        .route("/crl/{file}", routing::get(health::crl));
    let (described, document) = described();
    let document = document.to_string();
    let public = public.route("/client/v4/openapi.json", routing::get(async move || openapi(document)));
    let json = Router::new()
        .nest("/client/v4", described)
        .route_layer(from_fn_with_state(Arc::clone(&api), ends::follow))
        .route_layer(from_fn_with_state(Arc::clone(&api), idempotency::once))
        // Around that, as what is not in force yet is not to be said again of an answer that was kept.
        .route_layer(from_fn_with_state(Arc::clone(&api), in_force))
        .route_layer(from_fn_with_state(Arc::clone(&api), carry::through))
        .route_layer(from_fn_with_state(Arc::clone(&api), auth::authenticate));
    let inside = surround(json.clone(), Arc::clone(&api));
    let pages = dashboard::routes(&api, inside);
    surround(public.merge(json).merge(pages), api)
}

/// The CRLs alone: for a listener that everybody can reach.
pub fn crl_router(api: Arc<Api>) -> Router {
    surround(Router::new().route("/crl/{file}", routing::get(health::crl)), api)
}

/// Health and metrics alone: for a process without a ledger.
pub fn figures_router(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/healthz", routing::get(health::healthz))
        .route("/metrics", routing::get(async move || health::figures(&registry)))
}

/// The JSON API, and its description.
pub(crate) fn described() -> (Router<Arc<Api>>, Value) {
    cloudflare::routes().nest("/accounts/{account_id}/muster", own::routes()).finish()
}

fn surround(routes: Router<Arc<Api>>, api: Arc<Api>) -> Router {
    routes
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(&api), observe))
        .with_state(api)
}

/// Answers a change only when the edges go by it: whoever reads back a change finds it in force. When that takes too
/// long, the answer says so.
async fn in_force(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let response = next.run(request).await;
    if reads || !response.status().is_success() {
        return response;
    }
    match api.wait_until_in_force().await {
        Force::Complete => response,
        Force::Awaited => envelope::add_message(response, CODE_NOT_IN_FORCE, NOT_IN_FORCE).await,
    }
}

/// Gives the request its id, writes its log line, counts it.
async fn observe(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let began_at = Instant::now();
    let id = RequestId::new();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    request.extensions_mut().insert(id.clone());
    let actor = tracing::field::Empty;
    let span = tracing::info_span!("admin", request_id = %id.0, %method, route, actor);
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    api.requests().answered(&method, status);
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let took_ms = u64::try_from(began_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| match method {
        // Probes and scrapes would drown the rest.
        Method::GET | Method::HEAD if status.is_success() => {
            tracing::debug!(status = status.as_u16(), took_ms, "answered");
        }
        _ => tracing::info!(status = status.as_u16(), took_ms, "answered"),
    });
    response
}

/// The id of a request.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    fn new() -> Self {
        let octets: [u8; 8] = muster_enroll::random().unwrap_or_default();
        Self(format!("{:016x}", u64::from_be_bytes(octets)))
    }
}

/// The description of the API.
fn openapi(document: String) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], document).into_response()
}

async fn no_route() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, CODE_ROUTE, "No route for that URI")
}

async fn no_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, CODE_METHOD, "No such method for that URI")
}

#[expect(clippy::needless_pass_by_value, reason = "it is the shape that the layer wants")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    ApiError::internal(format_args!("a panic: {text}")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;

    async fn broken() -> &'static str {
        panic!("a bug")
    }

    #[tokio::test]
    async fn a_panic_is_answered_in_the_envelope_without_its_text() {
        let routes = Router::new().route("/", routing::get(broken)).layer(CatchPanicLayer::custom(panicked));
        let request = Request::builder().uri("/").body(Body::empty()).expect("a request");
        let response = routes.oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let octets = axum::body::to_bytes(response.into_body(), 1 << 16).await.expect("a body");
        let text = String::from_utf8_lossy(&octets);
        assert!(text.contains("\"code\":1500") && !text.contains("a bug"), "{text}");
    }
}
