//! Where what only Muster has is, below `/accounts/{account_id}/muster`.

use muster_policy::profile::ProfileWritten;

use crate::api::{
    access_test, admin_tokens, approvals, audit, backup, cas, certificates, connections, devices, events,
    foreign, host_test, hosts, lapsing, metrics, profiles, signing, status, tokens, webhooks,
};
use crate::openapi::{Routes, delete, get, patch, post, put};

/// What only Muster has.
pub(super) fn routes() -> Routes {
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
            "/cas/{id}/retire",
            [post("Retire a root CA that was replaced", cas::retire).answers::<cas::CaView>()],
        )
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
