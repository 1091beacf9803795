//! The routes, and what surrounds each: request id, log line, count, panic guard.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use crate::api::{
    access, access_certificates, access_test, accounts, admin_tokens, approvals, associations, audit, backup,
    cas, certificates, client_certificates, devices, host_test, hosts, lapsing, managed_headers,
    mtls_certificates, profiles, rulesets, signing, status, tokens, zones,
};
use crate::error::{ApiError, CODE_METHOD, CODE_ROUTE};
use crate::{Api, auth, dashboard, health};

/// Carries the id under which log and audit know a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Everything: for the loopback listener, and for commands that run without a server.
pub fn router(api: Arc<Api>) -> Router {
    let public = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/crl/{file}", get(health::crl));
    let json = Router::new()
        .nest("/client/v4", cloudflare().nest("/accounts/{account_id}/muster", own()))
        .route_layer(from_fn_with_state(Arc::clone(&api), in_force))
        .route_layer(from_fn_with_state(Arc::clone(&api), auth::authenticate));
    let inside = surround(json.clone(), Arc::clone(&api));
    let pages = dashboard::routes(&api, inside);
    surround(public.merge(json).merge(pages), api)
}

/// The CRLs alone: for a listener that everybody can reach.
pub fn crl_router(api: Arc<Api>) -> Router {
    surround(Router::new().route("/crl/{file}", get(health::crl)), api)
}

/// What the Cloudflare v4 API has too.
fn cloudflare() -> Router<Arc<Api>> {
    Router::new()
        .route("/user/tokens/verify", get(accounts::verify_token))
        .route("/accounts", get(accounts::list))
        .route("/accounts/{account_id}", get(accounts::get))
        .route("/accounts/{account_id}/tokens/verify", get(accounts::verify_account_token))
        .route("/zones", get(zones::list).post(zones::create))
        .route("/zones/{zone_id}", get(zones::get).patch(zones::edit).delete(zones::remove))
        .route("/user", get(accounts::user))
        .route("/memberships", get(accounts::memberships))
        .route(
            "/zones/{zone_id}/client_certificates",
            get(client_certificates::list).post(client_certificates::create),
        )
        .route(
            "/zones/{zone_id}/client_certificates/{id}",
            get(client_certificates::get)
                .patch(client_certificates::edit)
                .delete(client_certificates::revoke),
        )
        .route(
            "/zones/{zone_id}/certificate_authorities/hostname_associations",
            get(associations::get).put(associations::set),
        )
        .route(
            "/accounts/{account_id}/mtls_certificates",
            get(mtls_certificates::list).post(mtls_certificates::upload),
        )
        .route(
            "/accounts/{account_id}/mtls_certificates/{id}",
            get(mtls_certificates::get).delete(mtls_certificates::remove),
        )
        .route(
            "/accounts/{account_id}/mtls_certificates/{id}/associations",
            get(mtls_certificates::associations),
        )
        .route("/zones/{zone_id}/rulesets", get(rulesets::list))
        .route(
            "/zones/{zone_id}/rulesets/phases/http_request_firewall_custom/entrypoint",
            get(rulesets::get).put(rulesets::set),
        )
        .route("/zones/{zone_id}/rulesets/{id}", get(rulesets::get_named).put(rulesets::set_named))
        .route("/zones/{zone_id}/rulesets/{id}/rules", post(rulesets::rules::add))
        .route(
            "/zones/{zone_id}/rulesets/{id}/rules/{rule_id}",
            patch(rulesets::rules::change).delete(rulesets::rules::remove),
        )
        .route(
            "/zones/{zone_id}/managed_headers",
            get(managed_headers::get).patch(managed_headers::edit).delete(managed_headers::remove),
        )
        .nest("/accounts/{account_id}/access", access())
        .nest("/zones/{zone_id}/access", access())
}

/// Zero Trust Access, of an account or of a zone.
fn access() -> Router<Arc<Api>> {
    Router::new()
        .nest("/apps", documents::<access::App>())
        .route("/apps/{id}/policies", get(access::app_policies::list).post(access::app_policies::add))
        .route(
            "/apps/{id}/policies/{policy_id}",
            get(access::app_policies::get)
                .put(access::app_policies::update)
                .delete(access::app_policies::remove),
        )
        .nest("/groups", documents::<access::Group>())
        .nest("/policies", documents::<access::Policy>())
        .route("/certificates", get(access_certificates::list).post(access_certificates::create))
        .route(
            "/certificates/settings",
            get(access_certificates::settings).put(access_certificates::set_settings),
        )
        .route(
            "/certificates/{id}",
            get(access_certificates::get)
                .put(access_certificates::update)
                .delete(access_certificates::remove),
        )
}

/// The routes of one kind of Access document.
fn documents<T: access::Written>() -> Router<Arc<Api>> {
    Router::new()
        .route("/", get(access::list::<T>).post(access::create::<T>))
        .route("/{id}", get(access::get::<T>).put(access::update::<T>).delete(access::remove::<T>))
}

/// What only Muster has.
fn own() -> Router<Arc<Api>> {
    Router::new()
        .route("/access_test", get(access_test::get).post(access_test::test))
        .route("/admin_tokens", get(admin_tokens::list).post(admin_tokens::create))
        .route("/admin_tokens/{id}", delete(admin_tokens::revoke))
        .route("/approvals", get(approvals::list))
        .route("/approvals/{id}/approve", post(approvals::approve))
        .route("/approvals/{id}/deny", post(approvals::deny))
        .route("/audit", get(audit::list))
        .route("/audit/verify", get(audit::verify))
        .route("/backup", get(backup::download))
        .route("/cas", get(cas::list).post(cas::create))
        .route("/cas/import", post(cas::import))
        .route("/cas/rotate", post(cas::rotate))
        .route("/cas/{id}", get(cas::get))
        .route("/cas/{id}/crl", get(cas::crl))
        .route("/certificates", get(certificates::list))
        .route("/certificates/sign", post(signing::sign))
        .route("/certificates/{id}", get(certificates::get))
        .route("/certificates/{id}/reactivate", post(certificates::reactivate))
        .route("/certificates/{id}/revoke", post(certificates::revoke))
        .route("/devices", get(devices::list))
        .route("/devices/import", post(devices::import))
        .route("/devices/{id}", get(devices::get).patch(devices::edit))
        .route("/hosts", get(hosts::list))
        .route("/hosts/{id}", get(hosts::get).put(hosts::set).delete(hosts::remove))
        .route("/hosts/{id}/test", post(host_test::test))
        .route("/lapsing", get(lapsing::list))
        .route("/profiles", get(profiles::list))
        .route("/profiles/{id}", get(profiles::get).put(profiles::set))
        .route("/roots", get(cas::roots))
        .route("/status", get(status::status))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}", get(tokens::get).delete(tokens::revoke))
}

fn surround(routes: Router<Arc<Api>>, api: Arc<Api>) -> Router {
    routes
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(&api), observe))
        .with_state(api)
}

/// Answers a change only when the edge goes by it: who reads what he wrote finds it in force.
async fn in_force(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let response = next.run(request).await;
    if !reads && response.status().is_success() {
        api.wait_until_in_force().await;
    }
    response
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
        let routes = Router::new().route("/", get(broken)).layer(CatchPanicLayer::custom(panicked));
        let request = Request::builder().uri("/").body(Body::empty()).expect("a request");
        let response = routes.oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let octets = axum::body::to_bytes(response.into_body(), 1 << 16).await.expect("a body");
        let text = String::from_utf8_lossy(&octets);
        assert!(text.contains("\"code\":1500") && !text.contains("a bug"), "{text}");
    }
}
