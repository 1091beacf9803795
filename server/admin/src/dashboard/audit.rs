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
    fn actor(&self) -> String {
        match &self.actor {
            Value::String(word) => word.clone(),
            Value::Object(fields) => fields
                .iter()
                .map(|(kind, who)| format!("{kind} {}", short(&plain(who))))
                .next()
                .unwrap_or_default(),
            other => other.to_string(),
        }
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

fn subject(name: &str, value: &Value) -> Markup {
    let text = plain(value);
    let page = match name {
        "ca" => Some("cas"),
        "certificate" => Some("certificates"),
        "device" => Some("devices"),
        "host" => Some("hosts"),
        _ => None,
    };
    html! {
        (name) " "
        @match page {
            Some(page) => a href={"/" (page) "/" (segment(&text))} title=(text) { (short(&text)) },
            None => span title=(text) { (short(&text)) },
        }
    }
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
                                    li { (subject(name, value)) }
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
        p #check { button hx-get="/audit/check" hx-target="#check" { "Check the chain" } " "
            noscript { a href="/audit/check" { "Check the chain" } } }
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
                "The chain holds: " (number(verified.count.unwrap_or_default())) " entries, head "
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
