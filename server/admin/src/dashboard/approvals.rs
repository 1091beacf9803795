//! Requests that wait for a person.

use axum::extract::{Path, Query};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use maud::{Markup, html};
use muster_policy::time::UnixTime;
use muster_store::record::Area;
use serde::Deserialize;
use serde_json::json;

use super::form::Sent;
use super::inside::{Problem, segment};
use super::layout::{At, button, code, fact, page, pager, time};
use super::visit::Visit;

#[derive(Debug, Deserialize)]
struct Waiting {
    id: String,
    device: String,
    profile: String,
    key_sha256: String,
    since: UnixTime,
    source: Option<String>,
}

/// `GET /approvals`
pub(super) async fn list(visit: Visit, Query(at): Query<At>) -> Result<Markup, Problem> {
    let found = visit.list::<Waiting>("/approvals", &[("page", &at.page), ("per_page", "50")]).await?;
    let now = visit.now();
    let content = html! {
        @if found.items.is_empty() { p { "No requests are waiting." } }
        @for waiting in &found.items {
            section.card {
                h2 { a href={"/devices/" (segment(&waiting.device))} { (waiting.device) } }
                dl.facts {
                    (fact("Waiting since", time(waiting.since, now)))
                    (fact("Profile", &waiting.profile))
                    (fact("From", waiting.source.as_deref().unwrap_or("unknown")))
                    (fact("SHA-256 of the key", code(&waiting.key_sha256)))
                }
                @if visit.may_change(Area::Fleet) {
                    div.actions {
                        (button(&visit, &format!("/approvals/{}/approve", waiting.id), "Approve", None))
                        (button(&visit, &format!("/approvals/{}/deny", waiting.id), "Deny",
                            Some("Deny this request?")))
                    }
                }
            }
        }
        (pager("/approvals", &[], found.info))
    };
    Ok(page(&visit, "Approvals", content))
}

/// `POST /approvals/{id}/{approve|deny}`
pub(super) async fn decide(Path((id, decision)): Path<(String, String)>, Sent(visit, _): Sent) -> Response {
    let done = match decision.as_str() {
        "approve" => "Approved: the device gets its certificate when it asks again.",
        "deny" => "Denied.",
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let path = format!("/approvals/{}/{decision}", segment(&id));
    let sent = visit.send(Method::POST, &path, json!({})).await;
    visit.finish(sent, done, "/approvals")
}
