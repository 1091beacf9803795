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
        .at("/user", [get("Get the holder of the token", accounts::user).answers::<accounts::UserView>()])
        .at("/user/tokens/verify", [verify("Verify the token", accounts::verify_token)])
        .at(
            "/memberships",
            [get("List the accounts of the token", accounts::memberships)
                .query(&["status", "account.name", "name"])
                .lists::<accounts::MembershipView<'static>>()],
        )
        .at(
            "/accounts",
            [get("List accounts", accounts::list).query(&["name"]).lists::<accounts::AccountView<'static>>()],
        )
        .at(
            "/accounts/{account_id}",
            [get("Get an account", accounts::get).answers::<accounts::AccountView<'static>>()],
        )
        .at(
            "/accounts/{account_id}/tokens/verify",
            [verify("Verify the token", accounts::verify_account_token)],
        )
        .at(
            "/accounts/{account_id}/mtls_certificates",
            [
                get("List uploaded CA and leaf certificates", mtls_certificates::list)
                    .query(&["ca", "name", "type"])
                    .lists::<mtls_certificates::CertificateView>(),
                post("Upload a CA or leaf certificate", mtls_certificates::upload)
                    .takes::<mtls_certificates::Wanted>()
                    .answers::<mtls_certificates::CertificateView>(),
            ],
        )
        .at(
            "/accounts/{account_id}/mtls_certificates/{id}",
            [
                get("Get an uploaded certificate", mtls_certificates::get)
                    .answers::<mtls_certificates::CertificateView>(),
                delete("Delete an uploaded certificate", mtls_certificates::remove)
                    .answers::<mtls_certificates::CertificateView>(),
            ],
        )
        .at(
            "/accounts/{account_id}/mtls_certificates/{id}/associations",
            [get("List what uses an uploaded certificate", mtls_certificates::associations)
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
                get("List zones", zones::list)
                    .query(&["name", "account.id", "account.name", "status", "match", "order", "direction"])
                    .lists::<zones::ZoneView>(),
                post("Add a zone", zones::create).takes::<zones::NewZone>().answers::<zones::ZoneView>(),
            ],
        )
        .at(
            "/zones/{zone_id}",
            [
                get("Get a zone", zones::get).answers::<zones::ZoneView>(),
                patch("Edit a zone", zones::edit).takes::<zones::Edit>().answers::<zones::ZoneView>(),
                delete("Delete a zone", zones::remove).answers::<zones::Removed>(),
            ],
        )
        .at(
            "/zones/{zone_id}/client_certificates",
            [
                get("List client certificates", client_certificates::list)
                    .query(&["status", "limit", "offset"])
                    .lists::<client_certificates::ClientCertificateView>(),
                post("Sign a certificate request", client_certificates::create)
                    .takes::<client_certificates::Wanted>()
                    .answers::<client_certificates::ClientCertificateView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/client_certificates/{id}",
            [
                get("Get a client certificate", client_certificates::get)
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
                get("List the hostnames associated with a CA", associations::get)
                    .query(&["mtls_certificate_id"])
                    .answers::<associations::AssociationView>(),
                put("Replace the hostnames associated with a CA", associations::set)
                    .takes::<associations::Wanted>()
                    .answers::<associations::AssociationView>(),
            ],
        )
        .nest("/zones/{zone_id}/origin_tls_client_auth", origin_pulls())
        .at(
            "/zones/{zone_id}/rulesets",
            [
                get("List rulesets", rulesets::list).lists::<rulesets::RulesetView>(),
                post("Create the ruleset", rulesets::create)
                    .takes::<rulesets::NewRuleset>()
                    .answers::<rulesets::RulesetView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/rulesets/phases/http_request_firewall_custom/entrypoint",
            [
                get("Get the rules that apply to requests", rulesets::get).answers::<rulesets::RulesetView>(),
                put("Replace the rules that apply to requests", rulesets::set)
                    .takes::<rulesets::Wanted>()
                    .answers::<rulesets::RulesetView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/rulesets/{id}",
            [
                get("Get a ruleset", rulesets::get_named).answers::<rulesets::RulesetView>(),
                put("Replace the rules of a ruleset", rulesets::set_named)
                    .takes::<rulesets::Wanted>()
                    .answers::<rulesets::RulesetView>(),
                delete("Delete a ruleset", rulesets::remove).answers::<rulesets::RulesetView>(),
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
                delete("Delete a rule", rulesets::rules::remove).answers::<rulesets::RulesetView>(),
            ],
        )
        .at(
            "/zones/{zone_id}/managed_headers",
            [
                get("Get the managed headers sent to origins", managed_headers::get)
                    .answers::<managed_headers::View>(),
                patch("Turn managed headers on or off", managed_headers::edit)
                    .takes::<managed_headers::Wanted>()
                    .answers::<managed_headers::View>(),
                delete("Reset managed headers to their defaults", managed_headers::remove)
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
                get("Get whether the zone's origins are sent a client certificate", origin_pulls::settings)
                    .answers::<origin_pulls::SettingsView>(),
                put(
                    "Set whether the zone's origins are sent a client certificate",
                    origin_pulls::set_settings,
                )
                .takes::<origin_pulls::SettingsWanted>()
                .answers::<origin_pulls::SettingsView>(),
            ],
        )
        .at(
            "/hostnames",
            [
                get("List hostnames with their own client certificate for origins", hostnames::list)
                    .lists::<hostnames::HostnameView>(),
                put("Set the client certificates of hostnames for their origins", hostnames::set)
                    .takes::<hostnames::Wanted>()
                    .answers_list::<hostnames::HostnameView>(),
            ],
        )
        .at(
            "/hostnames/{id}",
            [get("Get the client certificate of a hostname for its origins", hostnames::get)
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
                get("List client certificates for origins", origin_pulls::list::<L>)
                    .lists::<origin_pulls::CertificateView>(),
                post("Upload a client certificate for origins", origin_pulls::upload::<L>)
                    .takes::<origin_pulls::Wanted>()
                    .answers::<origin_pulls::CertificateView>(),
            ],
        )
        .at(
            &format!("{prefix}/{{id}}"),
            [
                get("Get a client certificate for origins", origin_pulls::get::<L>)
                    .answers::<origin_pulls::CertificateView>(),
                delete("Delete a client certificate for origins", origin_pulls::remove::<L>)
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
                get("List the policies of an Access application", policies::list)
                    .lists::<access::views::LinkView>(),
                post("Add a policy to an Access application", policies::add)
                    .takes::<policies::Own>()
                    .answers::<access::views::LinkView>()
                    .created(),
            ],
        )
        .at(
            "/apps/{id}/policies/{policy_id}",
            [
                get("Get a policy of an Access application", policies::get)
                    .answers::<access::views::LinkView>(),
                put("Replace a policy of an Access application", policies::update)
                    .takes::<policies::Own>()
                    .answers::<access::views::LinkView>(),
                delete("Delete a policy of an Access application", policies::remove)
                    .answers::<access::Removed>(),
            ],
        )
        .nest("/groups", documents::<access::Group>())
        .nest("/policies", documents::<access::Policy>())
        .at(
            "/certificates",
            [
                get("List Access certificates", certificates::list)
                    .lists::<certificates::AccessCertificateView>(),
                post("Upload an Access certificate", certificates::create)
                    .takes::<certificates::Wanted>()
                    .answers::<certificates::AccessCertificateView>()
                    .created(),
            ],
        )
        .at(
            "/certificates/settings",
            [
                get("Get what hostnames forward of client certificates", certificates::settings)
                    .lists::<certificates::Setting>(),
                put("Set what hostnames forward of client certificates", certificates::set_settings)
                    .takes::<certificates::Settings>()
                    .answers_list::<certificates::Setting>(),
            ],
        )
        .at(
            "/certificates/{id}",
            [
                get("Get an Access certificate", certificates::get)
                    .answers::<certificates::AccessCertificateView>(),
                put("Edit an Access certificate", certificates::update)
                    .takes::<certificates::Update>()
                    .answers::<certificates::AccessCertificateView>(),
                delete("Delete an Access certificate", certificates::remove)
                    .answers::<certificates::Removed>(),
            ],
        )
}

/// The routes of one kind of Access document.
fn documents<T: access::Written>() -> Routes {
    let (one, many) = T::NOUNS;
    Routes::default()
        .at(
            "/",
            [
                get(format!("List {many}"), access::list::<T>)
                    .query(access::Sought::QUESTIONS)
                    .lists::<T::View>(),
                post(format!("Create {one}"), access::create::<T>)
                    .takes::<T>()
                    .answers::<T::View>()
                    .created(),
            ],
        )
        .at(
            "/{id}",
            [
                get(format!("Get {one}"), access::get::<T>).answers::<T::View>(),
                put(format!("Replace {one}"), access::update::<T>).takes::<T>().answers::<T::View>(),
                delete(format!("Delete {one}"), access::remove::<T>).answers::<access::Removed>(),
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
            [get("List requests waiting for approval", approvals::list).lists::<approvals::WaitingView>()],
        )
        .at(
            "/approvals/{id}/approve",
            [post("Approve an enrollment request", approvals::approve).answers::<approvals::WaitingView>()],
        )
        .at(
            "/approvals/{id}/deny",
            [post("Deny an enrollment request", approvals::deny).answers::<approvals::WaitingView>()],
        )
        .at(
            "/connections",
            [get("List live connections at the edges", connections::list)
                .query(&["certificate", "device", "edge", "host"])
                .lists::<connections::ConnectionView>()],
        )
        .at(
            "/connections/close",
            [post("Close live connections at the edges", connections::close)
                .takes::<connections::Close>()
                .answers::<connections::ClosedView>()],
        )
        .at(
            "/devices",
            [
                get("List devices", devices::list)
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
                get("Get a device", devices::get).answers::<devices::DeviceView>(),
                patch("Edit a device", devices::edit)
                    .takes::<devices::Edit>()
                    .answers::<devices::DeviceView>(),
            ],
        )
        .at(
            "/lapsing",
            [get("List devices that don't renew", lapsing::list).answers::<lapsing::LapsingView>()],
        )
        .at("/profiles", [get("List profiles", profiles::list).lists::<profiles::ProfileView>()])
        .at(
            "/profiles/{id}",
            [
                get("Get a profile", profiles::get).answers::<profiles::ProfileView>(),
                put("Create or replace a profile", profiles::set)
                    .takes::<ProfileWritten>()
                    .answers::<profiles::ProfileView>(),
            ],
        )
        .at(
            "/tokens",
            [
                get("List enrollment tokens", tokens::list)
                    .query(&["status", "device"])
                    .lists::<tokens::TokenView>(),
                post("Create an enrollment token", tokens::create)
                    .takes::<tokens::NewToken>()
                    .answers::<tokens::TokenView>(),
            ],
        )
        .at(
            "/tokens/{id}",
            [
                get("Get an enrollment token", tokens::get).answers::<tokens::TokenView>(),
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
                get("List CAs", cas::list).query(&["role", "state"]).lists::<cas::CaView>(),
                post("Create a root CA with its issuing CAs", cas::create)
                    .takes::<cas::NewRoot>()
                    .answers::<cas::CaView>(),
            ],
        )
        .at("/cas/import", [post("Import a CA", cas::import).takes::<cas::Import>().answers::<cas::CaView>()])
        .at(
            "/cas/rotate",
            [post("Replace an issuing CA", cas::rotate).takes::<cas::Rotate>().answers::<cas::CaView>()],
        )
        .at("/cas/{id}", [get("Get a CA", cas::get).answers::<cas::CaView>()])
        .at(
            "/cas/{id}/crl",
            [
                get("Get the newest CRL of a CA", cas::crl).answers::<cas::CrlView>(),
                put("Upload the CRL of an externally held CA", foreign::upload)
                    .takes::<foreign::NewList>()
                    .answers::<foreign::ListTakenView>(),
            ],
        )
        .at(
            "/cas/{id}/crl/fetch",
            [post("Fetch the CRL of an externally held CA now", foreign::fetch)
                .answers::<foreign::ListTakenView>()],
        )
        .at(
            "/cas/{id}/crl/settings",
            [
                get("Get where the CRL of an externally held CA comes from", foreign::settings)
                    .answers::<foreign::ForeignView>(),
                put("Set where the CRL of an externally held CA comes from", foreign::set_settings)
                    .takes::<foreign::NewListSettings>()
                    .answers::<foreign::ForeignView>(),
            ],
        )
        .at(
            "/cas/{id}/revoked",
            [
                get("List the revoked certificates of an externally held CA", foreign::list)
                    .query(&["name"])
                    .lists::<foreign::ForeignRevokedView>(),
                post("Revoke a certificate of an externally held CA", foreign::revoke)
                    .takes::<foreign::NewForeignRevoked>()
                    .answers::<foreign::ForeignRevokedView>(),
            ],
        )
        .at(
            "/cas/{id}/revoked/{name}",
            [delete("Reinstate a certificate of an externally held CA", foreign::reinstate)
                .answers::<foreign::ForeignRevokedView>()],
        )
        .at(
            "/certificates",
            [get("List issued certificates", certificates::list)
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
            [post("Sign a certificate request", signing::sign)
                .takes::<signing::Sign>()
                .answers::<signing::SignedView>()],
        )
        .at(
            "/certificates/{id}",
            [get("Get an issued certificate", certificates::get).answers::<certificates::CertificateView>()],
        )
        .at(
            "/certificates/{id}/reactivate",
            [post("Reinstate a revoked certificate", certificates::reactivate)
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
                get("Test whether a visit would be admitted, and why", access_test::get)
                    .query(access_test::QUESTIONS)
                    .answers::<access_test::View>(),
                post("Test whether a visit would be admitted, and why", access_test::test)
                    .takes::<access_test::Question>()
                    .answers::<access_test::View>(),
            ],
        )
        .at("/hosts", [get("List hostnames", hosts::list).lists::<hosts::HostView>()])
        .at(
            "/hosts/{id}",
            [
                get("Get a hostname", hosts::get).answers::<hosts::HostView>(),
                put("Create or replace a hostname", hosts::set)
                    .takes::<hosts::HostWish>()
                    .answers::<hosts::HostView>(),
                delete("Delete a hostname", hosts::remove).answers::<hosts::HostView>(),
            ],
        )
        .at(
            "/hosts/{id}/test",
            [post("Test whether a hostname would admit a certificate, and why", host_test::test)
                .takes::<host_test::Question>()
                .answers::<host_test::VerdictView>()],
        )
        .at(
            "/roots",
            [get("Get the root certificates that clients must trust", cas::roots)
                .answers::<cas::RootsView>()],
        )
}

/// The account itself: its tokens, its log, and who is told of it.
fn account() -> Routes {
    Routes::default()
        .at(
            "/admin_tokens",
            [
                get("List tokens of this API", admin_tokens::list).lists::<admin_tokens::AdminTokenView>(),
                post("Create a token of this API", admin_tokens::create)
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
            [get("List audit entries, newest first", audit::list)
                .query(&["action", "device"])
                .lists::<audit::EntryView>()],
        )
        .at(
            "/audit/verify",
            [get("Verify the hash chain of the audit", audit::verify).answers::<audit::VerifiedView>()],
        )
        .at("/backup", [get("Download a backup", backup::download).streams("application/x-tar")])
        .at(
            "/events",
            [get("Stream changes as they happen", events::stream)
                .query(&["since"])
                .streams("text/event-stream")],
        )
        .at(
            "/metrics/summary",
            [get("Get every metric of the process", metrics::summary).answers::<metrics::SummaryView>()],
        )
        .at("/status", [get("Get the status of the server", status::status).answers::<status::StatusView>()])
        .at(
            "/webhooks",
            [
                get("List webhooks", webhooks::list).lists::<webhooks::WebhookView>(),
                post("Create a webhook", webhooks::create)
                    .takes::<webhooks::NewWebhook>()
                    .answers::<webhooks::WebhookView>(),
            ],
        )
        .at(
            "/webhooks/{id}",
            [
                get("Get a webhook", webhooks::get).answers::<webhooks::WebhookView>(),
                delete("Delete a webhook", webhooks::remove).answers::<webhooks::WebhookView>(),
            ],
        )
        .at(
            "/webhooks/{id}/dead_letters",
            [get("List dead letters", webhooks::letters).lists::<webhooks::DeadLetterView>()],
        )
        .at(
            "/webhooks/{id}/dead_letters/{number}",
            [delete("Discard a dead letter", webhooks::drop_letter).answers::<webhooks::Dropped>()],
        )
        .at(
            "/webhooks/{id}/dead_letters/{number}/redeliver",
            [post("Retry a dead letter", webhooks::redeliver).answers::<webhooks::DeliveryView>()],
        )
        .at(
            "/webhooks/{id}/test",
            [post("Send a test delivery without events", webhooks::test).answers::<webhooks::DeliveryView>()],
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

/// Answers a change only when the edge goes by it: whoever reads back a change finds it in force.
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
