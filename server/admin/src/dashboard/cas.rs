//! CAs: how they hang together, what they are doing, and their certificates and lists to download.

use axum::extract::Path;
use axum::response::Response;
use http::{Method, StatusCode};
use maud::{Markup, html};
use muster_policy::time::UnixTime;
use muster_store::record::Area;
use serde::Deserialize;
use serde_json::json;

use super::certificates::{attachment, decoded};
use super::form::Sent;
use super::inside::{Problem, segment};
use super::layout::{code, fact, page, secret, state, time};
use super::revocation::{self, Revocation};
use super::visit::Visit;

#[derive(Debug, Deserialize)]
struct Ca {
    id: String,
    title: String,
    kind: String,
    role: String,
    state: String,
    serial_number: String,
    fingerprint_sha256: String,
    not_before: UnixTime,
    not_after: UnixTime,
    issuer: Option<String>,
    has_key: bool,
    created_at: UnixTime,
    pem: Option<String>,
    revocation: Option<Revocation>,
}

impl Ca {
    fn link(&self) -> String {
        format!("/cas/{}", self.id)
    }

    /// Where it is in its life: a rotation leaves the CA before it to verify only.
    fn does(&self) -> &'static str {
        match (self.state.as_str(), self.has_key) {
            ("active", true) if self.role == "root" => "Signs the CAs below it.",
            ("active", true) => "Issues now.",
            ("active", false) => "Verifies only; it issues elsewhere.",
            ("retiring", _) => "Rotated: no longer issues, and verifies until its last certificate expires.",
            _ => "Neither issues nor verifies.",
        }
    }
}

/// `GET /cas`
pub(super) async fn list(visit: Visit) -> Result<Markup, Problem> {
    let found = visit.list::<Ca>("/cas", &[("per_page", "1000")]).await?;
    let now = visit.now();
    let known = |id: &str| found.items.iter().any(|ca| ca.id == id);
    let tops = found.items.iter().filter(|ca| !ca.issuer.as_deref().is_some_and(known));
    let content = html! {
        ul.chain {
            @for top in tops {
                li {
                    (box_of(top, now))
                    ul {
                        @for below in found.items.iter().filter(|ca| ca.issuer.as_deref() == Some(&top.id)) {
                            li { (box_of(below, now)) }
                        }
                    }
                }
            }
        }
        @if visit.may_change(Area::Certificates) { (rotate_form(&visit)) (import_form(&visit)) }
    };
    Ok(page(&visit, "CAs", content))
}

fn box_of(ca: &Ca, now: UnixTime) -> Markup {
    html! {
        div.card {
            a href=(ca.link()) { (ca.title) } " " (state(&ca.state))
            p { (ca.role) ", " (ca.kind) @if !ca.has_key { ", without its key" } }
            p { (ca.does()) }
            p { "until " (time(ca.not_after, now)) }
        }
    }
}

fn rotate_form(visit: &Visit) -> Markup {
    html! {
        details {
            summary { "Rotate an issuing CA" }
            form method="post" action="/cas/rotate" {
                (secret(visit))
                p { "A new CA issues from now on; the old one keeps verifying until its last certificate expires." }
                label { "Which " select name="role" {
                    option value="devices" { "devices" } option value="services" { "services" }
                } }
                button type="submit" { "Rotate" }
            }
        }
    }
}

fn import_form(visit: &Visit) -> Markup {
    html! {
        details {
            summary { "Bring a CA" }
            form method="post" action="/cas" {
                (secret(visit))
                label { "Name " input name="name"; }
                label { "For " select name="use" {
                    option value="devices" { "devices' certificates" }
                    option value="manufacturer" { "manufacturers' certificates (IDevID)" }
                } }
                label for="pem" { "PEM: the CA's certificate, those above it, and its key if it is to issue" }
                textarea #pem name="pem" rows="10" required {}
                input name="username" type="text" value="ca" autocomplete="username" hidden;
                label { "Passphrase of the key, if it is encrypted "
                    input name="passphrase" type="password" autocomplete="off"; }
                button type="submit" { "Import" }
            }
        }
    }
}

/// `POST /cas`
pub(super) async fn import(Sent(visit, form): Sent) -> Response {
    let body = json!({
        "pem": form.get("pem"),
        "name": form.get("name"),
        "use": form.get("use"),
        "passphrase": form.get("passphrase"),
    });
    let sent = visit.send(Method::POST, "/cas/import", body).await;
    visit.finish(sent, "The CA was imported.", "/cas")
}

/// `POST /cas/rotate`
pub(super) async fn rotate(Sent(visit, form): Sent) -> Response {
    let sent = visit.send(Method::POST, "/cas/rotate", json!({ "role": form.get("role") })).await;
    visit.finish(sent, "The new CA issues from now on.", "/cas")
}

/// `GET /cas/{id}`
pub(super) async fn show(visit: Visit, Path(id): Path<String>) -> Result<Markup, Problem> {
    let ca: Ca = visit.get(&format!("/cas/{}", segment(&id))).await?;
    let now = visit.now();
    let content = html! {
        dl.facts {
            (fact("State", html! { (state(&ca.state)) " " (ca.does()) }))
            (fact("Role", html! { (ca.role) ", " (ca.kind) }))
            (fact("Private key", if ca.has_key { "present" } else { "not present: it only verifies" }))
            (decoded(ca.pem.as_deref()))
            @if let Some(issuer) = &ca.issuer { (fact("Issued by", html! { a href={"/cas/" (issuer)} { (issuer) } })) }
            (fact("Serial", code(&ca.serial_number)))
            (fact("Valid from", time(ca.not_before, now)))
            (fact("Valid until", time(ca.not_after, now)))
            (fact("Added", time(ca.created_at, now)))
            (fact("SHA-256 of the certificate", code(&ca.fingerprint_sha256)))
        }
        p {
            a href={(ca.link()) "/chain.pem"} { "Download the chain" }
            @if ca.has_key || ca.revocation.as_ref().is_some_and(Revocation::has_list) { " · " a href={(ca.link()) "/crl.pem"} { "Download the revocation list" } }
        }
        @if let Some(known) = ca.revocation.as_ref().filter(|_| matches!(ca.role.as_str(), "devices" | "manufacturer" | "verify-only")) {
            (revocation::section(&visit, &ca.link(), ca.has_key, known))
        }
        pre tabindex="0" { (ca.pem.as_deref().unwrap_or_default()) }
    };
    Ok(page(&visit, &ca.title, content))
}

#[derive(Deserialize)]
struct Pem {
    pem: String,
}

/// `GET /cas/{id}/{chain.pem|crl.pem}`
pub(super) async fn download(
    visit: Visit,
    Path((id, file)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let path = match file.as_str() {
        "chain.pem" => format!("/cas/{}", segment(&id)),
        "crl.pem" => format!("/cas/{}/crl", segment(&id)),
        _ => {
            return Err(Problem {
                status: StatusCode::NOT_FOUND,
                message: "there is no such file".to_owned(),
            });
        }
    };
    let Pem { pem } = visit.get(&path).await?;
    Ok(attachment(&file, pem))
}
