//! The dashboard: pages for the people who run a fleet, at `/` of the admin listener.
//!
//! Pages are rendered on the server and work without scripts; htmx only searches and asks before what
//! can't be undone, and `live.js` renews the parts that follow what happens. Every
//! page reads and changes through the admin API, in process and as the person who is logged in: there
//! is one implementation of every rule, permission and audit entry, and no page can show what the API
//! hides. Nothing is loaded from elsewhere, and no script or style stands inside a page.

mod access;
mod approvals;
mod assets;
mod audit;
mod cas;
mod certificates;
mod connections;
mod devices;
mod form;
mod hosts;
mod inside;
mod layout;
mod live;
mod login;
mod overview;
mod revocation;
mod session;
mod settings;
mod tokens;
mod visit;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use self::live::Watchers;
use self::session::Sessions;
use crate::Api;

/// What a page may load and do: its own assets and forms, nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// What every page works with.
pub(crate) struct Dashboard {
    api: Arc<Api>,
    /// The admin API, to be called in process.
    inside: Router,
    sessions: Sessions,
    watchers: Watchers,
}

/// The pages. `inside` is the admin API, which believes the caller that it is handed.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(api: &Arc<Api>, inside: Router) -> Router<S> {
    let (sessions, watchers) = (Sessions::default(), live::watchers());
    let dashboard = Arc::new(Dashboard { api: Arc::clone(api), inside, sessions, watchers });
    let open = Router::new()
        .route("/login", get(login::page).post(login::enter))
        .route("/assets/{file}", get(assets::file));
    let pages = fleet().merge(account());
    let pages = pages.route_layer(from_fn_with_state(Arc::clone(&dashboard), visit::admit));
    pages.merge(open).route_layer(from_fn(guard)).with_state(dashboard)
}

/// Pages about devices and what they hold.
fn fleet() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/", get(overview::show))
        .route("/live", get(overview::live))
        .route("/approvals", get(approvals::list))
        .route("/approvals/{id}/{decision}", post(approvals::decide))
        .route("/certificates", get(certificates::list))
        .route("/certificates/{id}", get(certificates::show))
        .route("/certificates/{id}/pem", get(certificates::download))
        .route("/certificates/{id}/{act}", post(certificates::act))
        .route("/devices", get(devices::list).post(devices::import))
        .route("/devices/{id}", get(devices::show).post(devices::edit))
        .route("/devices/{id}/live", get(devices::live))
        .route("/devices/{id}/connections/{number}/close", post(connections::close))
        .route("/devices/{id}/status", post(devices::set_status))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}/revoke", post(tokens::revoke))
}

/// Pages about the account and its doors.
fn account() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/access", get(access::show))
        .route("/access/apps", post(access::add_app))
        .route("/access/groups", post(access::add_group))
        .route("/access/policies", post(access::add_policy))
        .route("/access/test", get(access::test))
        .route("/access/zones/{zone}/rules", post(access::add_rule))
        .route("/access/zones/{zone}/{ruleset}/rules/{rule}/{act}", post(access::change_rule))
        .route("/access/{kind}/{id}/remove", post(access::remove))
        .route("/audit", get(audit::list))
        .route("/audit/check", get(audit::check))
        .route("/cas", get(cas::list).post(cas::import))
        .route("/cas/rotate", post(cas::rotate))
        .route("/cas/{id}", get(cas::show))
        .route("/cas/{id}/revoked", get(revocation::list).post(revocation::revoke))
        .route("/cas/{id}/revoked/{name}/reinstate", post(revocation::reinstate))
        .route("/cas/{id}/crl", post(revocation::take))
        .route("/cas/{id}/crl/fetch", post(revocation::fetch))
        .route("/cas/{id}/crl/settings", post(revocation::set))
        .route("/cas/{id}/{file}", get(cas::download))
        .route("/hosts", get(hosts::list).post(hosts::add))
        .route("/hosts/{id}", get(hosts::show).post(hosts::set))
        .route("/hosts/{id}/remove", post(hosts::remove))
        .route("/hosts/{id}/test", get(hosts::test))
        .route("/logout", post(login::leave))
        .route("/settings", get(settings::show))
        .route("/settings/admin_tokens", post(settings::create_token))
        .route("/settings/admin_tokens/{id}/revoke", post(settings::revoke_token))
        .route("/settings/zones", post(settings::add_zone))
        .route("/webhooks", get(webhooks::list).post(webhooks::create))
        .route("/webhooks/{id}", get(webhooks::show))
        .route("/webhooks/{id}/remove", post(webhooks::remove))
        .route("/webhooks/{id}/test", post(webhooks::test))
        .route("/webhooks/{id}/dead_letters/{number}/{act}", post(webhooks::change_letter))
}

/// Puts the headers on every answer that keep a page to itself.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    harden(response.headers_mut());
    response
}

fn harden(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // With `no-referrer` browsers send `Origin: null`, and the origin of forms could not be checked.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
