//! Certificates: listed, shown with what they say, revoked, made good again.

use axum::extract::{Path, Query};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{Method, StatusCode};
use maud::{Markup, html};
use muster_policy::time::UnixTime;
use muster_store::record::Area;
use serde::Deserialize;
use serde_json::json;

use super::form::Sent;
use super::inside::{Problem, segment};
use super::layout::{At, button, choice, code, fact, page, pager, secret, state, time};
use super::visit::Visit;
use crate::x509::Decoded;

const STATES: &[&str] = &["", "active", "revoked", "expired"];
/// Words of RFC 5280 §5.3.1 that a person chooses among.
pub(super) const REASONS: &[&str] = &[
    "unspecified",
    "keyCompromise",
    "cessationOfOperation",
    "superseded",
    "affiliationChanged",
    "privilegeWithdrawn",
    "certificateHold",
];

#[derive(Debug, Deserialize)]
pub(super) struct Certificate {
    pub(super) id: String,
    pub(super) status: String,
    device: String,
    profile: String,
    ca: String,
    serial_number: String,
    fingerprint_sha256: String,
    key_sha256: String,
    names: Vec<San>,
    not_before: UnixTime,
    pub(super) not_after: UnixTime,
    renew_at: UnixTime,
    urgent_at: UnixTime,
    issued_at: UnixTime,
    how: String,
    replaces: Option<String>,
    revoked_at: Option<UnixTime>,
    revocation_reason: Option<String>,
    pem: Option<String>,
}

/// A subject alternative name.
#[derive(Debug, Deserialize)]
struct San {
    kind: String,
    value: String,
}

impl Certificate {
    pub(super) fn link(&self) -> String {
        format!("/certificates/{}", segment(&self.id))
    }

    /// Whether it is the one of a serial of a CA.
    pub(super) fn is_of(&self, ca: Option<&str>, serial: &str) -> bool {
        ca == Some(self.ca.as_str()) && self.serial_number == serial
    }
}

/// A table of certificates.
pub(super) fn rows(certificates: &[Certificate], now: UnixTime) -> Markup {
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { "Serial" } th { "Device" } th { "Status" } th { "Issued" } th { "Ends" } } }
            tbody {
                @for certificate in certificates {
                    tr {
                        td { a href=(certificate.link()) { (code(&certificate.serial_number)) } }
                        td { a href={"/devices/" (segment(&certificate.device))} { (certificate.device) } }
                        td { (state(&certificate.status)) }
                        td { (time(certificate.issued_at, now)) }
                        td { (time(certificate.not_after, now)) }
                    }
                }
                @if certificates.is_empty() { tr { td colspan="5" { "No certificates found." } } }
            }
        } }
    }
}

/// `GET /certificates?q=&status=&page=`; the search is for a serial, or else for a device.
pub(super) async fn list(visit: Visit, Query(at): Query<At>) -> Result<Markup, Problem> {
    let serial = at.q.replace(':', "");
    let is_serial = serial.len() >= 16 && serial.bytes().all(|digit| digit.is_ascii_hexdigit());
    let search = if is_serial { ("serial", serial.as_str()) } else { ("device", at.q.as_str()) };
    let wanted = [search, ("status", &at.status), ("page", &at.page), ("per_page", "50")];
    let found = visit.list::<Certificate>("/certificates", &wanted).await?;
    let pairs = [("q", at.q.as_str()), ("status", at.status.as_str())];
    let content = html! {
        form.filters method="get" action="/certificates" role="search" {
            label { "Serial or device " input type="search" name="q" value=(at.q) autocomplete="off"; }
            (choice("status", "Status", STATES, &at.status))
            button type="submit" { "Find" }
        }
        (rows(&found.items, visit.now()))
        (pager("/certificates", &pairs, found.info))
    };
    Ok(page(&visit, "Certificates", content))
}

/// `GET /certificates/{id}`
pub(super) async fn show(visit: Visit, Path(id): Path<String>) -> Result<Markup, Problem> {
    let certificate: Certificate = visit.get(&format!("/certificates/{}", segment(&id))).await?;
    let now = visit.now();
    let content = html! {
        @if visit.may_change(Area::Certificates) { (actions(&visit, &certificate)) }
        dl.facts {
            (fact("Status", state(&certificate.status)))
            @if let Some(at) = certificate.revoked_at {
                (fact("Revoked", html! { (time(at, now)) ", "
                    (certificate.revocation_reason.as_deref().unwrap_or("no reason given")) }))
            }
            (fact("Device", html! { a href={"/devices/" (segment(&certificate.device))} { (certificate.device) } }))
            (fact("Names", html! { ul { @for name in &certificate.names { li { (name.kind) " " (code(&name.value)) } } } }))
            (fact("Serial", code(&certificate.serial_number)))
            (decoded(certificate.pem.as_deref()))
            (fact("Issued by", html! { a href={"/cas/" (certificate.ca)} { (code(&certificate.ca)) } }))
            (fact("Issued", html! { (time(certificate.issued_at, now)) ", by " (certificate.how) }))
            (fact("Profile", &certificate.profile))
            (fact("Valid from", time(certificate.not_before, now)))
            (fact("Valid until", time(certificate.not_after, now)))
            (fact("Renewal from", time(certificate.renew_at, now)))
            (fact("Renewal urgent from", time(certificate.urgent_at, now)))
            (fact("SHA-256 of the certificate", code(&certificate.fingerprint_sha256)))
            (fact("SHA-256 of the key", code(&certificate.key_sha256)))
            @if let Some(before) = &certificate.replaces {
                (fact("Replaces", html! { a href={"/certificates/" (before)} { (code(before)) } }))
            }
        }
        @if let Some(pem) = &certificate.pem {
            h2 { "PEM" }
            pre tabindex="0" { (pem) }
            p { a href={(certificate.link()) "/pem"} { "Download" } }
        }
    };
    Ok(page(&visit, "Certificate", content))
}

/// Facts that are in the certificate itself alone.
pub(super) fn decoded(pem: Option<&str>) -> Markup {
    let Some(decoded) = pem.and_then(Decoded::of_pem) else { return html! {} };
    let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    html! {
        (fact("Subject", code(or_none(decoded.subject))))
        (fact("Issuer", code(or_none(decoded.issuer))))
        (fact("Key", decoded.key))
        (fact("Signed with", decoded.signature))
        (fact("Key usage", or_none(decoded.usages)))
        (fact("Purposes", or_none(decoded.purposes)))
    }
}

fn actions(visit: &Visit, certificate: &Certificate) -> Markup {
    let link = certificate.link();
    html! {
        div.actions {
            @match certificate.status.as_str() {
                "active" => form.inline method="post" action={(link) "/revoke"} {
                    (secret(visit))
                    (choice("reason", "Reason", REASONS, "unspecified"))
                    button.danger type="submit" hx-post={(link) "/revoke"} hx-include="closest form"
                        hx-target="body" hx-confirm="Revoke this certificate? Its connections are closed at once." {
                        "Revoke"
                    }
                },
                "revoked" => (button(visit, &format!("{link}/reactivate"), "Reinstate",
                    Some("Reinstate this certificate?"))),
                _ => {},
            }
        }
    }
}

/// `POST /certificates/{id}/{revoke|reactivate}`
pub(super) async fn act(Path((id, act)): Path<(String, String)>, Sent(visit, form): Sent) -> Response {
    let page = format!("/certificates/{}", segment(&id));
    let (body, done) = match act.as_str() {
        "revoke" => {
            let reason = form.get("reason").unwrap_or("unspecified");
            (
                json!({ "reason": reason }),
                "Revoked: the edge has closed its connections and no longer accepts it.",
            )
        }
        "reactivate" => (json!({}), "The certificate was reinstated."),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let sent = visit.send(Method::POST, &format!("{page}/{act}"), body).await;
    visit.finish(sent, done, &page)
}

/// `GET /certificates/{id}/pem`
pub(super) async fn download(visit: Visit, Path(id): Path<String>) -> Result<Response, Problem> {
    let certificate: Certificate = visit.get(&format!("/certificates/{}", segment(&id))).await?;
    Ok(attachment("certificate.pem", certificate.pem.unwrap_or_default()))
}

/// A file to keep.
pub(super) fn attachment(name: &str, text: String) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(CONTENT_TYPE, "application/x-pem-file".to_owned()), (CONTENT_DISPOSITION, disposition)], text)
        .into_response()
}
