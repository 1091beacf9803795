//! Webhooks: who is told of what happens, how far they are, and what could not be delivered.

use axum::extract::{Path, Query};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use maud::{Markup, html};
use muster_policy::time::UnixTime;
use serde::Deserialize;
use serde_json::{Value, json};

use super::form::Sent;
use super::inside::{Problem, segment};
use super::layout::{At, button, fact, number, page, pager, secret, time};
use super::visit::Visit;
use crate::events::NAMES;

#[derive(Deserialize)]
struct Webhook {
    id: String,
    name: String,
    url: String,
    events: Vec<String>,
    created_at: UnixTime,
    progress: Option<Progress>,
}

impl Webhook {
    fn link(&self) -> String {
        format!("/webhooks/{}", segment(&self.id))
    }

    fn events(&self) -> String {
        if self.events.is_empty() { "all".to_owned() } else { self.events.join(", ") }
    }
}

#[derive(Deserialize)]
struct Progress {
    delivered: u64,
    given_up: u64,
    delivered_at: Option<UnixTime>,
}

#[derive(Deserialize)]
struct DeadLetter {
    number: u64,
    first: u64,
    attempts: u32,
    why: String,
    at: UnixTime,
}

/// `GET /webhooks`
pub(super) async fn list(visit: Visit, Query(at): Query<At>) -> Result<Markup, Problem> {
    let found = visit.list::<Webhook>("/webhooks", &[("page", &at.page), ("per_page", "50")]).await?;
    let now = visit.now();
    let content = html! {
        @if found.items.is_empty() {
            p { "There are no webhooks. A webhook sends events, signed, to an address of yours." }
        } @else {
            div.scroll tabindex="0" { table {
                thead { tr { th { "Name" } th { "Address" } th { "Events" } th { "Made" } } }
                tbody {
                    @for webhook in &found.items {
                        tr {
                            td { a href=(webhook.link()) { (webhook.name) } }
                            td { (webhook.url) }
                            td { (webhook.events()) }
                            td { (time(webhook.created_at, now)) }
                        }
                    }
                }
            } }
            (pager("/webhooks", &[], found.info))
        }
        @if visit.may_administer() { (new_form(&visit)) }
    };
    Ok(page(&visit, "Webhooks", content))
}

fn new_form(visit: &Visit) -> Markup {
    html! {
        section.card {
            h2 { "Add a webhook" }
            form method="post" action="/webhooks" {
                (secret(visit))
                div.fields {
                    label { "Name " input name="name" required autocomplete="off"; }
                    label { "Address " input name="url" type="url" required placeholder="https://example.com/hook"; }
                }
                details {
                    summary { "Only some events" }
                    div.fields {
                        @for name in NAMES {
                            label { input type="checkbox" name="events" value=(name); " " (name) }
                        }
                    }
                }
                button.primary type="submit" { "Create a webhook" }
            }
        }
    }
}

#[derive(Deserialize)]
struct Made {
    id: String,
    name: String,
    secret: String,
}

/// `POST /webhooks`: answers with the secret, which no other page shows.
pub(super) async fn create(Sent(visit, form): Sent) -> Response {
    let events: Vec<&str> = form.all("events").collect();
    let body = json!({ "name": form.get("name"), "url": form.get("url"), "events": events });
    let sent = visit.send(Method::POST, "/webhooks", body).await;
    match sent.and_then(|value| serde_json::from_value::<Made>(value).map_err(Problem::internal)) {
        Ok(made) => {
            let content = html! {
                p.flash.done role="status" {
                    "Deliveries are signed with this secret. It is shown only this once."
                }
                pre tabindex="0" { (made.secret) }
                p { a href={"/webhooks/" (segment(&made.id))} { "The webhook" } }
            };
            page(&visit, &made.name, content).into_response()
        }
        Err(problem) => visit.finish::<()>(Err(problem), "", "/webhooks"),
    }
}

/// `GET /webhooks/{id}`
pub(super) async fn show(
    visit: Visit,
    Path(id): Path<String>,
    Query(at): Query<At>,
) -> Result<Markup, Problem> {
    let webhook: Webhook = visit.get(&format!("/webhooks/{}", segment(&id))).await?;
    let path = format!("{}/dead_letters", webhook.link());
    let letters = visit.list::<DeadLetter>(&path, &[("page", &at.page), ("per_page", "20")]).await?;
    let now = visit.now();
    let content = html! {
        dl.facts {
            (fact("Address", &webhook.url))
            (fact("Events", webhook.events()))
            (fact("Made", time(webhook.created_at, now)))
            @if let Some(progress) = &webhook.progress {
                (fact("Delivered", number(progress.delivered)))
                (fact("Given up", number(progress.given_up)))
                (fact("Last delivery", match progress.delivered_at {
                    Some(at) => time(at, now),
                    None => html! { "none yet" },
                }))
            }
        }
        @if visit.may_administer() {
            div.actions {
                (button(&visit, &format!("{}/test", webhook.link()), "Send a test", None))
                (button(&visit, &format!("{}/remove", webhook.link()), "Remove",
                    Some("Remove this webhook and its dead letters?")))
            }
        }
        h2 { "Dead letters" }
        @if letters.items.is_empty() {
            p { "None: everything was delivered, or is still being retried." }
        } @else {
            (letter_rows(&visit, &webhook, &letters.items))
            (pager(&webhook.link(), &[], letters.info))
        }
    };
    Ok(page(&visit, &webhook.name, content))
}

fn letter_rows(visit: &Visit, webhook: &Webhook, letters: &[DeadLetter]) -> Markup {
    let now = visit.now();
    html! {
        div.scroll tabindex="0" { table {
            thead { tr {
                th { "Changes" } th { "Given up" } th { "Attempts" } th { "Why" } th { span.unseen { "Actions" } }
            } }
            tbody {
                @for letter in letters {
                    @let act = |act: &str| format!("{}/dead_letters/{}/{act}", webhook.link(), letter.number);
                    tr {
                        td { (letter.first) @if letter.first != letter.number { "–" (letter.number) } }
                        td { (time(letter.at, now)) }
                        td.number { (letter.attempts) }
                        td { (letter.why) }
                        td { @if visit.may_administer() { div.actions {
                            (button(visit, &act("redeliver"), "Try again", None))
                            (button(visit, &act("drop"), "Discard", Some("Discard this dead letter? It will never be sent.")))
                        } } }
                    }
                }
            }
        } }
    }
}

#[derive(Deserialize)]
struct Delivery {
    delivered: bool,
    why: Option<String>,
    took_ms: u64,
}

/// What came of a delivery that was tried once.
fn told(visit: &Visit, sent: Result<Value, Problem>, to: &str) -> Response {
    let delivery =
        sent.and_then(|value| serde_json::from_value::<Delivery>(value).map_err(Problem::internal));
    let outcome = delivery.and_then(|delivery| match delivery {
        Delivery { delivered: true, took_ms, .. } => Ok(took_ms),
        Delivery { why, .. } => Err(Problem {
            status: StatusCode::BAD_GATEWAY,
            message: format!("Not delivered: {}", why.unwrap_or_default()),
        }),
    });
    let done = outcome.as_ref().map(|took_ms| format!("Delivered in {took_ms} ms.")).unwrap_or_default();
    visit.finish(outcome, &done, to)
}

/// `POST /webhooks/{id}/test`
pub(super) async fn test(Path(id): Path<String>, Sent(visit, _): Sent) -> Response {
    let path = format!("/webhooks/{}", segment(&id));
    let sent = visit.send(Method::POST, &format!("{path}/test"), json!({})).await;
    told(&visit, sent, &path)
}

/// `POST /webhooks/{id}/remove`
pub(super) async fn remove(Path(id): Path<String>, Sent(visit, _): Sent) -> Response {
    let sent = visit.send(Method::DELETE, &format!("/webhooks/{}", segment(&id)), json!({})).await;
    visit.finish(sent, "The webhook is removed.", "/webhooks")
}

/// `POST /webhooks/{id}/dead_letters/{number}/{redeliver|drop}`
pub(super) async fn change_letter(
    Path((id, number, act)): Path<(String, String, String)>,
    Sent(visit, _): Sent,
) -> Response {
    let page = format!("/webhooks/{}", segment(&id));
    let letter = format!("{page}/dead_letters/{}", segment(&number));
    match act.as_str() {
        "redeliver" => {
            let sent = visit.send(Method::POST, &format!("{letter}/redeliver"), json!({})).await;
            told(&visit, sent, &page)
        }
        "drop" => {
            let sent = visit.send(Method::DELETE, &letter, json!({})).await;
            visit.finish(sent, "The dead letter was discarded.", &page)
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
