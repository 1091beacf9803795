//! The audit: who did what, and whether its chain of hashes holds.

use axum::extract::Query;
use maud::{Markup, html};
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::inside::{Problem, segment};
use super::layout::{At, code, number, page, pager, time};
use super::visit::Visit;

/// How much of a serial is shown in a list.
const SERIAL_SHOWN_DIGITS: usize = 8;

#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    number: u64,
    pub(super) at: UnixTime,
    actor: Value,
    action: String,
    subjects: Map<String, Value>,
    pub(super) reason: Option<String>,
    details: Option<String>,
}

impl Entry {
    /// Who did it, with links to who that is.
    fn actor(&self) -> Markup {
        match &self.actor {
            Value::String(word) => html! { (word) },
            Value::Object(fields) => html! {
                @for (kind, who) in fields {
                    @match who {
                        Value::Array(parts) => { (kind) @for (name, who) in ["device", "token"].iter().zip(parts) {
                            " " (linked(name, &plain(who)))
                        } },
                        who => { (subject(actor_name(kind), kind, who)) },
                    }
                }
            },
            other => html! { (other.to_string()) },
        }
    }
}

/// What kind of thing stands for an actor.
fn actor_name(kind: &str) -> &str {
    match kind {
        "holder" | "manufacturer" => "device",
        other => other,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().map(|part| short(&plain(part)).to_owned()).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// An id by its end, which is its random part; names stay whole.
fn short(text: &str) -> &str {
    let is_id = text.len() == 36 && text.bytes().all(|octet| octet.is_ascii_hexdigit() || octet == b'-');
    if is_id { text.get(28..).unwrap_or(text) } else { text }
}

/// A reason's code with its sentence.
pub(super) fn sentence(code_of_it: &str) -> Markup {
    let reason = Reason::ALL.iter().find(|reason| reason.code() == code_of_it);
    html! {
        (code(code_of_it))
        @if let Some(reason) = reason { ": " (reason.sentence()) }
    }
}

fn subject(name: &str, shown: &str, value: &Value) -> Markup {
    html! { (shown) " " (linked(name, &plain(value))) }
}

/// The id of something, which leads to its page.
fn linked(name: &str, id: &str) -> Markup {
    let place = segment(id);
    let page = match name {
        "admin-token" => Some(format!("/settings#token-{place}")),
        "ca" => Some(format!("/cas/{place}")),
        "certificate" => Some(format!("/certificates/{place}")),
        "device" => Some(format!("/devices/{place}")),
        "host" => Some(format!("/hosts/{place}")),
        "profile" => Some(format!("/settings#profile-{place}")),
        "serial" => Some(format!("/certificates?q={place}")),
        "token" => Some(format!("/tokens?id={place}")),
        "zone" => Some(format!("/settings#zone-{place}")),
        _ => None,
    };
    let shown = if name == "serial" { tail(id) } else { short(id) };
    html! {
        @match page {
            Some(page) => a href=(page) title=(id) { (shown) },
            None => span title=(id) { (shown) },
        }
    }
}

/// The last digits of a serial, which is random all over.
fn tail(serial: &str) -> &str {
    let from = serial.len().saturating_sub(SERIAL_SHOWN_DIGITS);
    serial.get(from..).unwrap_or(serial)
}

/// A table of entries.
pub(super) fn entries(entries: &[Entry], now: UnixTime) -> Markup {
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { "No." } th { "When" } th { "Who" } th { "What" } th { "About" } } }
            tbody {
                @for entry in entries {
                    tr {
                        td.number { (number(entry.number)) }
                        td { (time(entry.at, now)) }
                        td { (entry.actor()) }
                        td {
                            (entry.action)
                            @if let Some(reason) = &entry.reason { br; (sentence(reason)) }
                            @if let Some(details) = &entry.details { br; small { (details) } }
                        }
                        td {
                            ul {
                                @for (name, value) in entry.subjects.iter().filter(|(name, _)| *name != "account") {
                                    li { (subject(name, name, value)) }
                                }
                            }
                        }
                    }
                }
                @if entries.is_empty() { tr { td colspan="5" { "Nothing." } } }
            }
        } }
    }
}

/// `GET /audit?q=&page=`; the search is for an action.
pub(super) async fn list(visit: Visit, Query(at): Query<At>) -> Result<Markup, Problem> {
    let wanted = [("action", at.q.as_str()), ("page", &at.page), ("per_page", "50")];
    let found = visit.list::<Entry>("/audit", &wanted).await?;
    let content = html! {
        form.filters method="get" action="/audit" role="search" {
            label { "Action, such as " code { "refused" } " or " code { "certificate-issued" } " "
                input type="search" name="q" value=(at.q) autocomplete="off"; }
            button type="submit" { "Find" }
        }
        p #check { button hx-get="/audit/check" hx-target="#check" { "Verify the chain" } " "
            noscript { a href="/audit/check" { "Verify the chain" } } }
        (entries(&found.items, visit.now()))
        (pager("/audit", &[("q", at.q.as_str())], found.info))
    };
    Ok(page(&visit, "Audit", content))
}

#[derive(Deserialize)]
struct Verified {
    sound: bool,
    count: Option<u64>,
    head: Option<String>,
    broken_at: Option<u64>,
    what: Option<String>,
}

/// `GET /audit/check`
pub(super) async fn check(visit: Visit) -> Result<Markup, Problem> {
    let verified: Verified = visit.get("/audit/verify").await?;
    Ok(if verified.sound {
        html! {
            span.flash.done role="status" {
                "The chain is intact: " (number(verified.count.unwrap_or_default())) " entries, head "
                (code(verified.head.unwrap_or_default()))
            }
        }
    } else {
        html! {
            span.flash.failed role="alert" {
                "The chain is broken at entry " (number(verified.broken_at.unwrap_or_default())) ": "
                (verified.what.unwrap_or_default())
            }
        }
    })
}
