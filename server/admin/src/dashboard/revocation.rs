//! What is revoked of certificates that a CA issued elsewhere: shown, revoked by name, and the CA's own
//! list with where it comes from.

use axum::extract::{Path, Query};
use axum::response::Response;
use http::Method;
use maud::{Markup, html};
use muster_policy::time::UnixTime;
use muster_store::record::Area;
use serde::Deserialize;
use serde_json::{Value, json};

use super::certificates::REASONS;
use super::form::{Form, Sent};
use super::inside::{Problem, segment};
use super::layout::{At, button, choice, code, fact, number, page, pager, secret, state, time};
use super::visit::Visit;

/// What is known of a CA, as the API tells it.
#[derive(Debug, Deserialize)]
pub(super) struct Revocation {
    revoked: u64,
    revoked_by_operator: u64,
    list: Option<List>,
    closed: bool,
    url: Option<String>,
    every_s: u64,
    when_stale: String,
    distribution_point: Option<String>,
    last_fetch: Option<Fetch>,
    next_fetch_at: Option<UnixTime>,
}

#[derive(Debug, Deserialize)]
struct List {
    number_hex: String,
    this_update: UnixTime,
    next_update: UnixTime,
    stale: bool,
    entries: u64,
    source: String,
    taken_at: UnixTime,
}

#[derive(Debug, Deserialize)]
struct Fetch {
    at: UnixTime,
    outcome: String,
    message: Option<String>,
    failures: u64,
}

impl Revocation {
    /// Whether there is a list to download.
    pub(super) const fn has_list(&self) -> bool {
        self.list.is_some()
    }
}

/// The part of a CA's page; of a CA whose key is here, nothing of lists.
pub(super) fn section(visit: &Visit, link: &str, has_key: bool, known: &Revocation) -> Markup {
    let now = visit.now();
    let may_change = visit.may_change(Area::Certificates);
    html! {
        h2 { "Revoked, issued elsewhere" }
        dl.facts {
            (fact("Revoked", html! {
                a href={(link) "/revoked"} { (number(known.revoked)) } ", " (number(known.revoked_by_operator)) " of them by name"
            }))
            @if !has_key { (list_facts(known, now)) }
        }
        @if may_change {
            @if !has_key { (list_forms(visit, link, known)) }
            (revoke_form(visit, link))
        }
    }
}

fn list_facts(known: &Revocation, now: UnixTime) -> Markup {
    html! {
        @match &known.list {
            None => (fact("The CA's own CRL", "none was uploaded or fetched yet; nothing is refused for lack of one")),
            Some(list) => {
                (fact("The CA's own CRL", html! {
                    (state(if list.stale { "expired" } else { "active" })) " number " (code(&list.number_hex)) ", "
                    (number(list.entries)) " entries"
                }))
                @if known.closed {
                    (fact("Closed", html! { strong { "This CA's certificates are refused until there is a newer CRL." } }))
                }
                (fact("Made", time(list.this_update, now)))
                (fact("Valid until", time(list.next_update, now)))
                (fact("Taken", html! { (time(list.taken_at, now)) ", " (list.source) }))
            }
        }
        (fact("Comes from", html! {
            @match &known.url {
                Some(url) => { (code(url)) ", every " (number(known.every_s)) " s" },
                None => "an operator's upload",
            }
        }))
        (fact("Once expired", if known.when_stale == "open" { "open: the last CRL stays in force" } else { "closed: this CA's certificates are refused" }))
        @if let Some(at) = known.next_fetch_at { (fact("Next fetch", time(at, now))) }
        @if let Some(fetch) = &known.last_fetch {
            (fact("Last fetch", html! {
                (time(fetch.at, now)) ", " (fetch.outcome)
                @if let Some(message) = &fetch.message { ": " (message) " (" (number(fetch.failures)) " in a row)" }
            }))
        }
    }
}

fn list_forms(visit: &Visit, link: &str, known: &Revocation) -> Markup {
    html! {
        @if known.url.is_some() { (button(visit, &format!("{link}/crl/fetch"), "Fetch the CRL now", None)) }
        details {
            summary { "Upload a CRL of this CA" }
            form method="post" action={(link) "/crl"} {
                (secret(visit))
                label for="crl" { "The CA's own CRL, PEM; upload a large one with " code { "muster ca take-crl" } }
                textarea #crl name="crl" rows="8" required {}
                button type="submit" { "Upload" }
            }
        }
        details {
            summary { "Where the CRL comes from" }
            form method="post" action={(link) "/crl/settings"} {
                (secret(visit))
                label { "URL; empty when it is uploaded "
                    input name="url" type="url" value=(known.url.as_deref().unwrap_or_default()); }
                label { "Fetch interval in seconds "
                    input name="every_s" type="number" min="60" max="604800" value=(known.every_s); }
                (choice("when_stale", "Once the CRL has expired the CA is", &["closed", "open"], &known.when_stale))
                label { "Distribution point named in its complete CRL; empty for none "
                    input name="distribution_point" value=(known.distribution_point.as_deref().unwrap_or_default()); }
                button type="submit" { "Set" }
            }
        }
    }
}

fn revoke_form(visit: &Visit, link: &str) -> Markup {
    let action = format!("{link}/revoked");
    html! {
        details {
            summary { "Revoke a certificate of this CA" }
            form method="post" action=(action) {
                (secret(visit))
                label { "Serial, or SHA-256 of the certificate, in hex " input name="name" autocomplete="off"; }
                label for="certificate" { "Or the certificate, PEM" }
                textarea #certificate name="certificate" rows="4" {}
                (choice("reason", "Reason", REASONS, "unspecified"))
                button.danger type="submit" hx-post=(action) hx-include="closest form" hx-target="body"
                    hx-confirm="Revoke this certificate? Its connections are closed at once." { "Revoke" }
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct Revoked {
    name: String,
    serial_number: Option<String>,
    revoked_at: Option<UnixTime>,
    reason: Option<String>,
    by_list: bool,
    by_operator: bool,
}

/// `GET /cas/{id}/revoked?q=&page=`
pub(super) async fn list(
    visit: Visit,
    Path(id): Path<String>,
    Query(at): Query<At>,
) -> Result<Markup, Problem> {
    let link = format!("/cas/{}", segment(&id));
    let path = format!("{link}/revoked");
    let mut wanted = vec![("page", at.page.as_str()), ("per_page", "50")];
    if !at.q.is_empty() {
        wanted.push(("name", at.q.as_str()));
    }
    let found = visit.list::<Revoked>(&path, &wanted).await?;
    let content = html! {
        p { a href=(link) { "The CA" } }
        form.filters method="get" action=(path) role="search" {
            label { "Serial or SHA-256 " input type="search" name="q" value=(at.q) autocomplete="off"; }
            button type="submit" { "Find" }
        }
        (rows(&visit, &path, &found.items))
        (pager(&path, &[("q", at.q.as_str())], found.info))
    };
    Ok(page(&visit, "Revoked, issued elsewhere", content))
}

fn rows(visit: &Visit, path: &str, revoked: &[Revoked]) -> Markup {
    let now = visit.now();
    let may_change = visit.may_change(Area::Certificates);
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { "Certificate" } th { "Since" } th { "Reason" } th { "By" } th { "Change" } } }
            tbody {
                @for one in revoked {
                    tr {
                        td { @if one.serial_number.is_none() { "SHA-256 " } (code(&one.name)) }
                        td { @if let Some(at) = one.revoked_at { (time(at, now)) } }
                        td { (one.reason.as_deref().unwrap_or("unspecified")) }
                        td { @if one.by_list { "the CA's CRL " } @if one.by_operator { "name" } }
                        td { @if one.by_operator && may_change {
                            (button(visit, &format!("{path}/{}/reinstate", segment(&one.name)), "Reinstate",
                                Some("Reinstate this certificate?")))
                        } }
                    }
                }
            }
        } }
    }
}

/// `POST /cas/{id}/revoked`
pub(super) async fn revoke(Path(id): Path<String>, Sent(visit, form): Sent) -> Response {
    let link = format!("/cas/{}", segment(&id));
    let sent = visit.send(Method::POST, &format!("{link}/revoked"), named(&form)).await;
    visit.finish(sent, "Revoked: the edge has closed its connections and no longer accepts it.", &link)
}

/// The field for names takes both, and their lengths differ.
fn named(form: &Form) -> Value {
    let name = form.get("name").map(|name| name.replace([':', ' '], ""));
    let is_print = name.as_ref().is_some_and(|name| name.len() == 64);
    json!({
        "serial_number": name.as_ref().filter(|_| !is_print),
        "fingerprint_sha256": name.as_ref().filter(|_| is_print),
        "certificate": form.get("certificate"),
        "reason": form.get("reason").unwrap_or("unspecified"),
    })
}

/// `POST /cas/{id}/revoked/{name}/reinstate`
pub(super) async fn reinstate(Path((id, name)): Path<(String, String)>, Sent(visit, _): Sent) -> Response {
    let path = format!("/cas/{}/revoked", segment(&id));
    let sent = visit.send(Method::DELETE, &format!("{path}/{}", segment(&name)), json!({})).await;
    visit.finish(sent, "The certificate was reinstated, unless the CA's own CRL lists it.", &path)
}

/// `POST /cas/{id}/crl`
pub(super) async fn take(Path(id): Path<String>, Sent(visit, form): Sent) -> Response {
    let link = format!("/cas/{}", segment(&id));
    let body = json!({ "crl": form.get("crl").unwrap_or_default() });
    let sent = visit.send(Method::PUT, &format!("{link}/crl"), body).await;
    visit.finish(sent, "The CRL is in force.", &link)
}

/// `POST /cas/{id}/crl/fetch`
pub(super) async fn fetch(Path(id): Path<String>, Sent(visit, _): Sent) -> Response {
    let link = format!("/cas/{}", segment(&id));
    let sent = visit.send(Method::POST, &format!("{link}/crl/fetch"), json!({})).await;
    visit.finish(sent, "The CRL that the CA publishes is in force.", &link)
}

/// `POST /cas/{id}/crl/settings`
pub(super) async fn set(Path(id): Path<String>, Sent(visit, form): Sent) -> Response {
    let link = format!("/cas/{}", segment(&id));
    let body = json!({
        "url": form.get("url"),
        "every_s": form.number("every_s"),
        "when_stale": form.get("when_stale").unwrap_or("closed"),
        "distribution_point": form.get("distribution_point"),
    });
    let sent = visit.send(Method::PUT, &format!("{link}/crl/settings"), body).await;
    visit.finish(sent, "Set.", &link)
}
