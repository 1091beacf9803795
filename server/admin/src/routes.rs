//! The routes, and what surrounds each: request id, log line, count, panic guard.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::handler::Handler;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use muster_policy::profile::ProfileWritten;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use crate::api::{
    access, access_certificates, access_test, accounts, admin_tokens, approvals, associations, audit, backup,
    cas, certificates, client_certificates, connections, devices, events, foreign, host_test, hosts, lapsing,
    managed_headers, metrics, mtls_certificates, origin_pulls, profiles, rulesets, signing, status, tokens,
    webhooks, zones,
};
use crate::error::{ApiError, CODE_METHOD, CODE_ROUTE};
use crate::openapi::{Operation, Routes, delete, get, patch, post, put};
use crate::paging::ends;
use crate::{Api, auth, carry, dashboard, health, idempotency};

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
        .route_layer(from_fn_with_state(Arc::clone(&api), in_force))
        .route_layer(from_fn_with_state(Arc::clone(&api), ends::follow))
        .route_layer(from_fn_with_state(Arc::clone(&api), idempotency::once))
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
    cloudflare().nest("/accounts/{account_id}/muster", own()).finish()
}

/// What the Cloudflare v4 API has too.
fn cloudflare() -> Routes {
    Routes::default()
        .at("/user", [get("The holder of the token", accounts::user).answers::<accounts::UserView>()])
        .at("/user/tokens/verify", [verify("Whether the token is good", accounts::verify_token)])
        .at(
            "/memberships",
            [get("The accounts the token is for", accounts::memberships)
                .query(&["status", "account.name", "name"])
                .lists::<accounts::MembershipView<'static>>()],
        )
        .at(
            "/accounts",
            [get("Accounts", accounts::list).query(&["name"]).lists::<accounts::AccountView<'static>>()],
        )
        .at(
            "/accounts/{account_id}",
            [get("An account", accounts::get).answers::<accounts::AccountView<'static>>()],
        )
        .at(
            "/accounts/{account_id}/tokens/verify",
            [verify("Whether the token is good", accounts::verify_account_token)],
        )
        .at(
            "/accounts/{account_id}/mtls_certificates",
            [
                get("Uploaded CAs and leaves", mtls_certificates::list)
                    .query(&["ca", "name", "type"])
                    .lists::<mtls_certificates::CertificateView>(),
                post("Upload a CA or a leaf", mtls_certificates::upload)
                    .takes::<mtls_certificates::Wanted>()
                    .answers::<mtls_certificates::CertificateView>(),
            ],
        )
        .at(
            "/accounts/{account_id}/mtls_certificates/{id}",
            [
                get("An uploaded certificate", mtls_certificates::get)
                    .answers::<mtls_certificates::CertificateView>(),
                delete("Remove an uploaded certificate", mtls_certificates::remove)
                    .answers::<mtls_certificates::CertificateView>(),
            ],
        )
        .at(
            "/accounts/{account_id}/mtls_certificates/{id}/associations",
            [get("Who uses an uploaded certificate", mtls_certificates::associations)
                .lists::<mtls_certificates::UseView>()],
        )
        .merge(zones())
        .nest("/accounts/{account_id}/access", access())
        .nest("/zones/{zone_id}/access", access())
}

fn verify<H, T>(summary: &'static str, handler: H) -> Operation
where
    H: Handler<T, Arc<Api>>,
    T: 'static,
{
    get(summary, handler).answers::<accounts::TokenView>()
}

/// Zones, and what lies in them.
fn zones() -> Routes {
    Routes::default()
        .at(
            "/zones",
            [
                get("Zones", zones::list)
                    .query(&["name", "account.id", "account.name", "status", "match", "order", "direction"])
                    .lists::<zones::ZoneView>(),
                post("Add a zone", zones::create).takes::<zones::NewZone>().answers::<zones::ZoneView>(),
            ],
        )
        .at(
            "/zones/{zone_id}",
            [
                get("A zone", zones::get).answers::<zones::ZoneView>(),
                patch("Edit a zone", zones::edit).takes::<zones::Edit>().answers::<zones::ZoneView>(),
                delete("Remove a zone", zones::remove).answers::<zones::Removed>(),
            ],
        )
        .at(
            "/zones/{zone_id}/client_certificates",
            [
                get("Client certificates", client_certificates::list)
                    .query(&["status", "limit", "offset"])
                    .lists::<client_certificates::ClientCertificateView>(),
                post("Sign a request", client_certificates::create)
                    .takes::<client_certificates::Wanted>()
                    .answers::<client_certificates::ClientCertificateView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/client_certificates/{id}",
            [
                get("A client certificate", client_certificates::get)
                    .answers::<client_certificates::ClientCertificateView>(),
                patch("Reactivate a client certificate", client_certificates::edit)
                    .takes::<client_certificates::Edit>()
                    .answers::<client_certificates::ClientCertificateView>(),
                delete("Revoke a client certificate", client_certificates::revoke)
                    .answers::<client_certificates::ClientCertificateView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/certificate_authorities/hostname_associations",
            [
                get("The hostnames of a CA", associations::get)
                    .query(&["mtls_certificate_id"])
                    .answers::<associations::AssociationView>(),
                put("Replace the hostnames of a CA", associations::set)
                    .takes::<associations::Wanted>()
                    .answers::<associations::AssociationView>(),
            ],
        )
        .nest("/zones/{zone_id}/origin_tls_client_auth", origin_pulls())
        .at(
            "/zones/{zone_id}/rulesets",
            [
                get("Rulesets", rulesets::list).lists::<rulesets::RulesetView>(),
                post("Make the ruleset", rulesets::create)
                    .takes::<rulesets::NewRuleset>()
                    .answers::<rulesets::RulesetView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/rulesets/phases/http_request_firewall_custom/entrypoint",
            [
                get("The rules that requests are judged by", rulesets::get)
                    .answers::<rulesets::RulesetView>(),
                put("Replace the rules", rulesets::set)
                    .takes::<rulesets::Wanted>()
                    .answers::<rulesets::RulesetView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/rulesets/{id}",
            [
                get("A ruleset", rulesets::get_named).answers::<rulesets::RulesetView>(),
                put("Replace the rules of a ruleset", rulesets::set_named)
                    .takes::<rulesets::Wanted>()
                    .answers::<rulesets::RulesetView>(),
                delete("Remove a ruleset", rulesets::remove).answers::<rulesets::RulesetView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/rulesets/{id}/rules",
            [post("Add a rule", rulesets::rules::add)
                .takes::<rulesets::rules::Added>()
                .answers::<rulesets::RulesetView>()],
        )
        .at(
            "/zones/{zone_id}/rulesets/{id}/rules/{rule_id}",
            [
                patch("Edit a rule", rulesets::rules::change)
                    .takes::<rulesets::rules::Changed>()
                    .answers::<rulesets::RulesetView>(),
                delete("Remove a rule", rulesets::rules::remove).answers::<rulesets::RulesetView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/managed_headers",
            [
                get("What origins are sent of themselves", managed_headers::get)
                    .answers::<managed_headers::View>(),
                patch("Turn managed headers on or off", managed_headers::edit)
                    .takes::<managed_headers::Wanted>()
                    .answers::<managed_headers::View>(),
                delete("Managed headers as they are at first", managed_headers::remove)
                    .answers::<managed_headers::View>(),
            ],
        )
}

/// What the origins of a zone are shown.
fn origin_pulls() -> Routes {
    use origin_pulls::hostnames;
    Routes::default()
        .merge(origin_certificates::<origin_pulls::OfZone>(""))
        .merge(origin_certificates::<origin_pulls::OfHostnames>("/hostnames/certificates"))
        .at(
            "/settings",
            [
                get("Whether the zone's origins are shown a certificate", origin_pulls::settings)
                    .answers::<origin_pulls::SettingsView>(),
                put("Set whether they are", origin_pulls::set_settings)
                    .takes::<origin_pulls::SettingsWanted>()
                    .answers::<origin_pulls::SettingsView>(),
            ],
        )
        .at(
            "/hostnames",
            [
                get("Hostnames with a certificate of their own for their origins", hostnames::list)
                    .lists::<hostnames::HostnameView>(),
                put("Set the certificates of hostnames for their origins", hostnames::set)
                    .takes::<hostnames::Wanted>()
                    .answers_list::<hostnames::HostnameView>(),
            ],
        )
        .at(
            "/hostnames/{id}",
            [get("The certificate of a hostname for its origins", hostnames::get)
                .answers::<hostnames::HostnameView>()],
        )
}

/// Certificates for origins, of one level.
fn origin_certificates<L: origin_pulls::Level>(prefix: &str) -> Routes {
    let all = if prefix.is_empty() { "/" } else { prefix };
    Routes::default()
        .at(
            all,
            [
                get("Certificates for origins", origin_pulls::list::<L>)
                    .lists::<origin_pulls::CertificateView>(),
                post("Upload a certificate for origins", origin_pulls::upload::<L>)
                    .takes::<origin_pulls::Wanted>()
                    .answers::<origin_pulls::CertificateView>(),
            ],
        )
        .at(
            &format!("{prefix}/{{id}}"),
            [
                get("A certificate for origins", origin_pulls::get::<L>)
                    .answers::<origin_pulls::CertificateView>(),
                delete("Remove a certificate for origins", origin_pulls::remove::<L>)
                    .answers::<origin_pulls::CertificateView>(),
            ],
        )
}

/// Zero Trust Access, of an account or of a zone.
fn access() -> Routes {
    use access::app_policies as policies;
    use access_certificates as certificates;
    Routes::default()
        .nest("/apps", documents::<access::App>())
        .at(
            "/apps/{id}/policies",
            [
                get("The policies of an application", policies::list).lists::<access::views::LinkView>(),
                post("Add a policy to an application", policies::add)
                    .takes::<policies::Own>()
                    .answers::<access::views::LinkView>()
                    .created(),
            ],
        )
        .at(
            "/apps/{id}/policies/{policy_id}",
            [
                get("A policy of an application", policies::get).answers::<access::views::LinkView>(),
                put("Replace a policy of an application", policies::update)
                    .takes::<policies::Own>()
                    .answers::<access::views::LinkView>(),
                delete("Remove a policy of an application", policies::remove).answers::<access::Removed>(),
            ],
        )
        .nest("/groups", documents::<access::Group>())
        .nest("/policies", documents::<access::Policy>())
        .at(
            "/certificates",
            [
                get("Access certificates", certificates::list).lists::<certificates::AccessCertificateView>(),
                post("Upload an Access certificate", certificates::create)
                    .takes::<certificates::Wanted>()
                    .answers::<certificates::AccessCertificateView>()
                    .created(),
            ],
        )
        .at(
            "/certificates/settings",
            [
                get("What hostnames forward", certificates::settings).lists::<certificates::Setting>(),
                put("Set what hostnames forward", certificates::set_settings)
                    .takes::<certificates::Settings>()
                    .answers_list::<certificates::Setting>(),
            ],
        )
        .at(
            "/certificates/{id}",
            [
                get("An Access certificate", certificates::get)
                    .answers::<certificates::AccessCertificateView>(),
                put("Edit an Access certificate", certificates::update)
                    .takes::<certificates::Update>()
                    .answers::<certificates::AccessCertificateView>(),
                delete("Remove an Access certificate", certificates::remove)
                    .answers::<certificates::Removed>(),
            ],
        )
}

/// The routes of one kind of Access document.
fn documents<T: access::Written>() -> Routes {
    Routes::default()
        .at(
            "/",
            [
                get("Objects of this kind", access::list::<T>)
                    .query(access::Sought::QUESTIONS)
                    .lists::<T::View>(),
                post("Make one", access::create::<T>).takes::<T>().answers::<T::View>().created(),
            ],
        )
        .at(
            "/{id}",
            [
                get("One of them", access::get::<T>).answers::<T::View>(),
                put("Replace one", access::update::<T>).takes::<T>().answers::<T::View>(),
                delete("Remove one", access::remove::<T>).answers::<access::Removed>(),
            ],
        )
}

/// What only Muster has.
fn own() -> Routes {
    fleet().merge(authorities()).merge(account())
}

/// Devices, and how they get certificates.
fn fleet() -> Routes {
    Routes::default()
        .at(
            "/approvals",
            [get("Requests that wait for a person", approvals::list).lists::<approvals::WaitingView>()],
        )
        .at(
            "/approvals/{id}/approve",
            [post("Approve a request", approvals::approve).answers::<approvals::WaitingView>()],
        )
        .at(
            "/approvals/{id}/deny",
            [post("Deny a request", approvals::deny).answers::<approvals::WaitingView>()],
        )
        .at(
            "/connections",
            [get("Live connections at the edges", connections::list)
                .query(&["certificate", "device", "edge", "host"])
                .lists::<connections::ConnectionView>()],
        )
        .at(
            "/connections/close",
            [post("End live connections at the edges", connections::close)
                .takes::<connections::Close>()
                .answers::<connections::ClosedView>()],
        )
        .at(
            "/devices",
            [
                get("Devices", devices::list)
                    .query(&["status", "prefix", "group"])
                    .lists::<devices::DeviceView>(),
                patch("Set the status of many devices", devices::set_status)
                    .takes::<devices::StatusOfMany>()
                    .answers::<devices::StatusOfManyView>(),
            ],
        )
        .at(
            "/devices/import",
            [post("Import devices, all or none", devices::import)
                .query(&["on_existing"])
                .takes_list::<devices::Row>()
                .answers::<devices::ImportedView>()],
        )
        .at(
            "/devices/{id}",
            [
                get("A device", devices::get).answers::<devices::DeviceView>(),
                patch("Edit a device", devices::edit)
                    .takes::<devices::Edit>()
                    .answers::<devices::DeviceView>(),
            ],
        )
        .at("/lapsing", [get("Devices that don't renew", lapsing::list).answers::<lapsing::LapsingView>()])
        .at("/profiles", [get("Profiles", profiles::list).lists::<profiles::ProfileView>()])
        .at(
            "/profiles/{id}",
            [
                get("A profile", profiles::get).answers::<profiles::ProfileView>(),
                put("Set a profile", profiles::set)
                    .takes::<ProfileWritten>()
                    .answers::<profiles::ProfileView>(),
            ],
        )
        .at(
            "/tokens",
            [
                get("Enrollment tokens", tokens::list)
                    .query(&["status", "device"])
                    .lists::<tokens::TokenView>(),
                post("Make an enrollment token", tokens::create)
                    .takes::<tokens::NewToken>()
                    .answers::<tokens::TokenView>(),
            ],
        )
        .at(
            "/tokens/{id}",
            [
                get("An enrollment token", tokens::get).answers::<tokens::TokenView>(),
                delete("Revoke an enrollment token", tokens::revoke).answers::<tokens::TokenView>(),
            ],
        )
}

/// CAs, certificates, and the hostnames that demand them.
fn authorities() -> Routes {
    Routes::default()
        .at(
            "/cas",
            [
                get("CAs", cas::list).query(&["role", "state"]).lists::<cas::CaView>(),
                post("Make a root with its issuing CAs", cas::create)
                    .takes::<cas::NewRoot>()
                    .answers::<cas::CaView>(),
            ],
        )
        .at("/cas/import", [post("Import a CA", cas::import).takes::<cas::Import>().answers::<cas::CaView>()])
        .at(
            "/cas/rotate",
            [post("Replace an issuing CA", cas::rotate).takes::<cas::Rotate>().answers::<cas::CaView>()],
        )
        .at("/cas/{id}", [get("A CA", cas::get).answers::<cas::CaView>()])
        .at(
            "/cas/{id}/crl",
            [
                get("The newest CRL of a CA", cas::crl).answers::<cas::CrlView>(),
                put("Take the own CRL of a CA whose key is elsewhere", foreign::upload)
                    .takes::<foreign::NewList>()
                    .answers::<foreign::ListTakenView>(),
            ],
        )
        .at(
            "/cas/{id}/crl/fetch",
            [post("Fetch the own CRL of a CA now", foreign::fetch).answers::<foreign::ListTakenView>()],
        )
        .at(
            "/cas/{id}/crl/settings",
            [
                get("How the own CRL of a CA becomes known", foreign::settings)
                    .answers::<foreign::ForeignView>(),
                put("Set how the own CRL of a CA becomes known", foreign::set_settings)
                    .takes::<foreign::NewListSettings>()
                    .answers::<foreign::ForeignView>(),
            ],
        )
        .at(
            "/cas/{id}/revoked",
            [
                get("What is revoked of what a CA issued elsewhere", foreign::list)
                    .query(&["name"])
                    .lists::<foreign::ForeignRevokedView>(),
                post("Revoke a certificate that a CA issued elsewhere", foreign::revoke)
                    .takes::<foreign::NewForeignRevoked>()
                    .answers::<foreign::ForeignRevokedView>(),
            ],
        )
        .at(
            "/cas/{id}/revoked/{name}",
            [delete("Take such a revocation back", foreign::reinstate)
                .answers::<foreign::ForeignRevokedView>()],
        )
        .at(
            "/certificates",
            [get("Issued certificates", certificates::list)
                .query(&["status", "device", "ca", "serial"])
                .lists::<certificates::CertificateView>()],
        )
        .at(
            "/certificates/revoke",
            [post("Revoke many certificates", certificates::batch::revoke)
                .takes::<certificates::batch::RevokeMany>()
                .answers::<certificates::batch::RevokedManyView>()],
        )
        .at(
            "/certificates/sign",
            [post("Sign a request", signing::sign).takes::<signing::Sign>().answers::<signing::SignedView>()],
        )
        .at(
            "/certificates/{id}",
            [get("An issued certificate", certificates::get).answers::<certificates::CertificateView>()],
        )
        .at(
            "/certificates/{id}/reactivate",
            [post("Make a revoked certificate good again", certificates::reactivate)
                .answers::<certificates::CertificateView>()],
        )
        .at(
            "/certificates/{id}/revoke",
            [post("Revoke a certificate", certificates::revoke)
                .takes::<certificates::Revoke>()
                .answers::<certificates::CertificateView>()],
        )
        .at(
            "/access_test",
            [
                get("What would become of a visit, and why", access_test::get)
                    .query(access_test::QUESTIONS)
                    .answers::<access_test::View>(),
                post("What would become of a visit, and why", access_test::test)
                    .takes::<access_test::Question>()
                    .answers::<access_test::View>(),
            ],
        )
        .at("/hosts", [get("Hostnames", hosts::list).lists::<hosts::HostView>()])
        .at(
            "/hosts/{id}",
            [
                get("A hostname", hosts::get).answers::<hosts::HostView>(),
                put("Set a hostname", hosts::set).takes::<hosts::HostWish>().answers::<hosts::HostView>(),
                delete("Remove a hostname", hosts::remove).answers::<hosts::HostView>(),
            ],
        )
        .at(
            "/hosts/{id}/test",
            [post("Whether a certificate would get in, and why", host_test::test)
                .takes::<host_test::Question>()
                .answers::<host_test::VerdictView>()],
        )
        .at("/roots", [get("What clients must trust", cas::roots).answers::<cas::RootsView>()])
}

/// The account itself: its tokens, its log, and who is told of it.
fn account() -> Routes {
    Routes::default()
        .at(
            "/admin_tokens",
            [
                get("Tokens of this API", admin_tokens::list).lists::<admin_tokens::AdminTokenView>(),
                post("Make a token of this API", admin_tokens::create)
                    .takes::<admin_tokens::NewAdminToken>()
                    .answers::<admin_tokens::AdminTokenView>(),
            ],
        )
        .at(
            "/admin_tokens/{id}",
            [delete("Revoke a token of this API", admin_tokens::revoke)
                .answers::<admin_tokens::AdminTokenView>()],
        )
        .at(
            "/audit",
            [get("The audit, newest first", audit::list)
                .query(&["action", "device"])
                .lists::<audit::EntryView>()],
        )
        .at(
            "/audit/verify",
            [get("Whether the chain of the audit holds", audit::verify).answers::<audit::VerifiedView>()],
        )
        .at("/backup", [get("A backup", backup::download).streams("application/x-tar")])
        .at(
            "/events",
            [get("Changes as they happen", events::stream).query(&["since"]).streams("text/event-stream")],
        )
        .at(
            "/metrics/summary",
            [get("Every figure of the process", metrics::summary).answers::<metrics::SummaryView>()],
        )
        .at("/status", [get("How the server is", status::status).answers::<status::StatusView>()])
        .at(
            "/webhooks",
            [
                get("Webhooks", webhooks::list).lists::<webhooks::WebhookView>(),
                post("Make a webhook", webhooks::create)
                    .takes::<webhooks::NewWebhook>()
                    .answers::<webhooks::WebhookView>(),
            ],
        )
        .at(
            "/webhooks/{id}",
            [
                get("A webhook", webhooks::get).answers::<webhooks::WebhookView>(),
                delete("Remove a webhook", webhooks::remove).answers::<webhooks::WebhookView>(),
            ],
        )
        .at(
            "/webhooks/{id}/dead_letters",
            [get("What could not be delivered", webhooks::letters).lists::<webhooks::DeadLetterView>()],
        )
        .at(
            "/webhooks/{id}/dead_letters/{number}",
            [delete("Drop a dead letter", webhooks::drop_letter).answers::<webhooks::Dropped>()],
        )
        .at(
            "/webhooks/{id}/dead_letters/{number}/redeliver",
            [post("Try a dead letter once more", webhooks::redeliver).answers::<webhooks::DeliveryView>()],
        )
        .at(
            "/webhooks/{id}/test",
            [post("Send a delivery without events", webhooks::test).answers::<webhooks::DeliveryView>()],
        )
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
