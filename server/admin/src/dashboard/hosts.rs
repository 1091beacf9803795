//! Hostnames and their associations: what the edge demands at each door, and who would get in.

use axum::extract::{Path, Query};
use axum::response::Response;
use http::Method;
use maud::{Markup, html};
use muster_policy::time::UnixTime;
use muster_store::record::Area;
use serde::Deserialize;
use serde_json::{Value, json};

use super::audit::sentence;
use super::form::{Form, Sent};
use super::inside::{Problem, State, segment};
use super::layout::{At, button, choice, fact, page, pager, secret, time};
use super::visit::Visit;

const MODES: &[&str] = &["require", "request", "off"];
const PROTOCOLS: &[&str] = &["https", "mqtt"];
const VERSIONS: &[&str] = &["1.3", "1.2"];
const WHEN_STALE: &[&str] = &["closed", "open"];
const DEFAULT_CAS: &[&str] = &["if-none-named", "always", "never"];
/// CAs that a hostname can be associated with; an account has few.
const CAS_SHOWN: &str = "1000";

#[derive(Debug, Deserialize)]
pub(super) struct Host {
    pub(super) host: String,
    pub(super) mode: String,
    protocols: Vec<String>,
    cas: Vec<String>,
    default_cas: String,
    min_tls: String,
    origins: Vec<String>,
    origin_timeout_s: u32,
    when_stale: String,
    changed_at: UnixTime,
}

impl Host {
    fn link(&self) -> String {
        format!("/hosts/{}", segment(&self.host))
    }

    fn accepts_no_ca(&self) -> bool {
        self.default_cas == "never" && self.cas.is_empty()
    }

    /// Whose certificates it accepts, for people.
    fn accepted(&self) -> String {
        let accepts_own = match self.default_cas.as_str() {
            "always" => true,
            "never" => false,
            _ => self.cas.is_empty(),
        };
        let own = accepts_own.then_some("the account's own").into_iter();
        let accepted: Vec<&str> = own.chain(self.cas.iter().map(String::as_str)).collect();
        if accepted.is_empty() { "none".to_owned() } else { accepted.join(", ") }
    }
}

#[derive(Debug, Deserialize)]
struct Ca {
    id: String,
    title: String,
    role: String,
    state: String,
}

/// A mode, with a warning when it keeps nobody out.
fn mode(word: &str) -> Markup {
    let kind = if word == "require" { "good" } else { "odd" };
    html! { span class={"state " (kind)} { (word) } }
}

/// `GET /hosts`
pub(super) async fn list(visit: Visit, Query(at): Query<At>) -> Result<Markup, Problem> {
    let found = visit.list::<Host>("/hosts", &[("page", &at.page), ("per_page", "50")]).await?;
    let now = visit.now();
    let content = html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { "Hostname" } th { "Client certificate" } th { "Protocols" } th { "Origins" } th { "Changed" } } }
            tbody {
                @for host in &found.items {
                    tr {
                        td { a href=(host.link()) { (host.host) } }
                        td { (mode(&host.mode)) }
                        td { (host.protocols.join(", ")) }
                        td { (host.origins.join(", ")) }
                        td { (time(host.changed_at, now)) }
                    }
                }
                @if found.items.is_empty() {
                    tr { td colspan="5" { "There are no hostnames yet." } }
                }
            }
        } }
        (pager("/hosts", &[], found.info))
        @if visit.may_change(Area::Certificates) {
            form.filters method="post" action="/hosts" {
                (secret(&visit))
                label { "Hostname " input name="host" required placeholder="api.example.com"; }
                button type="submit" { "Require certificates" }
            }
        }
    };
    Ok(page(&visit, "Hostnames", content))
}

/// `POST /hosts`
pub(super) async fn add(Sent(visit, form): Sent) -> Response {
    let host = form.get("host").unwrap_or_default().to_owned();
    let path = format!("/hosts/{}", segment(&host));
    let sent = visit.send(Method::PUT, &path, json!({})).await;
    let to = if sent.is_ok() { path } else { "/hosts".to_owned() };
    visit.finish(sent, "The hostname now requires a certificate.", &to)
}

/// `GET /hosts/{id}`
pub(super) async fn show(visit: Visit, Path(id): Path<String>) -> Result<Markup, Problem> {
    let (host, state) = visit.get_state::<Host>(&format!("/hosts/{}", segment(&id))).await?;
    let cas = visit.list::<Ca>("/cas", &[("per_page", CAS_SHOWN)]).await?;
    let content = html! {
        @if host.mode != "require" {
            p.flash.note {
                "This hostname admits everyone: "
                @if host.mode == "off" { "no client certificate is requested." }
                @else { "a client certificate is requested, but clients without one are admitted too." }
            }
        } @else if host.accepts_no_ca() {
            p.flash.note { "This hostname admits nobody: it accepts the certificates of no CA." }
        }
        @if visit.may_change(Area::Certificates) { (edit_form(&visit, &host, &state, &cas.items)) } @else { (facts(&host)) }
        h2 { "Would it get in?" }
        form.filters method="get" action={(host.link()) "/test"} hx-get={(host.link()) "/test"}
            hx-target="#verdict" hx-select="#verdict" hx-swap="outerHTML" {
            label { "Device, serial or certificate id " input name="q" required; }
            button type="submit" { "Test" }
        }
        div #verdict {}
        @if visit.may_change(Area::Certificates) {
            h2 { "Remove" }
            (button(&visit, &format!("{}/remove", host.link()), "Remove this hostname",
                Some("Remove this hostname? The edge will stop serving it.")))
        }
    };
    Ok(page(&visit, &host.host, content))
}

fn facts(host: &Host) -> Markup {
    html! {
        dl.facts {
            (fact("Client certificate", mode(&host.mode)))
            (fact("Protocols", host.protocols.join(", ")))
            (fact("CAs", host.accepted()))
            (fact("Minimum TLS", &host.min_tls))
            (fact("Origins", host.origins.join(", ")))
            (fact("Origin timeout", match host.origin_timeout_s {
                0 => "none".to_owned(),
                seconds => format!("{seconds} s"),
            }))
            (fact("When revocation data is too old", &host.when_stale))
        }
    }
}

fn edit_form(visit: &Visit, host: &Host, state: &State, cas: &[Ca]) -> Markup {
    let accepting = cas.iter().filter(|ca| matches!(ca.role.as_str(), "devices" | "verify-only"));
    html! {
        form.card method="post" action=(host.link()) {
            (secret(visit))
            (state.field())
            (choice("mode", "Client certificate", MODES, &host.mode))
            fieldset {
                legend { "Protocols" }
                @for protocol in PROTOCOLS {
                    label { input type="checkbox" name="protocols" value=(protocol)
                        checked[host.protocols.iter().any(|held| held == protocol)]; " " (protocol) }
                }
            }
            fieldset {
                legend { "CAs whose certificates are accepted" }
                @for ca in accepting {
                    label { input type="checkbox" name="cas" value=(ca.id) checked[host.cas.contains(&ca.id)];
                        " " (ca.title) " " small { (ca.role) ", " (ca.state) } }
                }
            }
            (choice("default_cas", "The account's own CAs are also accepted", DEFAULT_CAS, &host.default_cas))
            label for="origins" { "Origins, one http://HOST:PORT or https://HOST:PORT per line" }
            textarea #origins name="origins" rows="3" { (host.origins.join("\n")) }
            label { "Origin timeout in seconds, before its answer begins and within it; 0 disables it "
                input name="origin_timeout_s" type="number" min="0" max="86400" required value=(host.origin_timeout_s); }
            (choice("min_tls", "Minimum TLS", VERSIONS, &host.min_tls))
            (choice("when_stale", "When revocation data is too old", WHEN_STALE, &host.when_stale))
            button.primary type="submit" { "Save" }
        }
    }
}

fn wish(form: &Form) -> Value {
    json!({
        "mode": form.get("mode"),
        "protocols": form.all("protocols").collect::<Vec<_>>(),
        "cas": form.all("cas").collect::<Vec<_>>(),
        // Without it, a list of CAs is one of a hostname that takes the account's own when it is empty.
        "default_cas": form.get("default_cas"),
        "origins": form.words("origins"),
        "origin_timeout_s": form.number("origin_timeout_s"),
        "min_tls": form.get("min_tls"),
        "when_stale": form.get("when_stale"),
    })
}

/// `POST /hosts/{id}`
pub(super) async fn set(Path(id): Path<String>, Sent(visit, form): Sent) -> Response {
    let path = format!("/hosts/{}", segment(&id));
    let sent = visit.send_from(&State::of(&form), Method::PUT, &path, wish(&form)).await;
    visit.finish(sent, "Saved; the change is in force.", &path)
}

/// `POST /hosts/{id}/remove`
pub(super) async fn remove(Path(id): Path<String>, Sent(visit, _): Sent) -> Response {
    let sent = visit.send(Method::DELETE, &format!("/hosts/{}", segment(&id)), json!({})).await;
    visit.finish(sent, "The edge no longer serves it.", "/hosts")
}

#[derive(Debug, Deserialize)]
struct Verdict {
    certificate: String,
    device: String,
    protocols: Vec<OfProtocol>,
}

#[derive(Debug, Deserialize)]
struct OfProtocol {
    protocol: String,
    reason: Option<String>,
}

/// `GET /hosts/{id}/test?q=`
pub(super) async fn test(
    visit: Visit,
    Path(id): Path<String>,
    Query(at): Query<At>,
) -> Result<Markup, Problem> {
    let path = format!("/hosts/{}/test", segment(&id));
    let outcome = visit.send(Method::POST, &path, json!({ "certificate": at.q })).await;
    let verdict = outcome.map(serde_json::from_value::<Verdict>);
    let content = html! {
        div #verdict {
            @match verdict {
                Ok(Ok(verdict)) => {
                    p { "The newest matching certificate is "
                        a href={"/certificates/" (verdict.certificate)} { (verdict.certificate) }
                        " of " a href={"/devices/" (segment(&verdict.device))} { (verdict.device) } "." }
                    ul {
                        @for of in &verdict.protocols {
                            li {
                                (of.protocol) ": "
                                @match &of.reason {
                                    None => span class="state good" { "gets in" },
                                    Some(reason) => { span class="state bad" { "refused" } " " (sentence(reason)) },
                                }
                            }
                        }
                    }
                },
                Ok(Err(error)) => p.flash.failed { (error) },
                Err(problem) => p.flash.failed role="alert" { (problem.message) },
            }
        }
        p { a href={"/hosts/" (segment(&id))} { "Back to the hostname" } }
    };
    Ok(page(&visit, "Would it get in?", content))
}
