//! Live connections of a device: shown on its page, and ended there.

use axum::extract::Path;
use axum::response::Response;
use http::{Method, StatusCode};
use maud::{Markup, html};
use muster_policy::time::UnixTime;
use muster_store::record::Area;
use serde::Deserialize;
use serde_json::json;

use super::certificates::Certificate;
use super::form::Sent;
use super::inside::{Listed, Problem, segment};
use super::layout::{button, code, number, time};
use super::visit::Visit;

/// Most connections that a page shows; a device has one or a few.
const SHOWN: &str = "20";

#[derive(Debug, Deserialize)]
struct Connection {
    edge: String,
    number: u64,
    host: String,
    protocol: String,
    ca: Option<String>,
    serial_number: Option<String>,
    peer: String,
    since: UnixTime,
}

/// Who of a device is connected now. `certificates` are those that its page shows.
pub(super) async fn of_device(
    visit: &Visit,
    device: &str,
    certificates: &[Certificate],
) -> Result<Markup, Problem> {
    let wanted = [("device", device), ("per_page", SHOWN)];
    match visit.list::<Connection>("/connections", &wanted).await {
        Ok(found) => Ok(table(visit, device, certificates, &found)),
        Err(problem) if problem.status == StatusCode::CONFLICT => {
            Ok(html! { p { "No edge runs in this process." } })
        }
        Err(problem) => Err(problem),
    }
}

fn table(visit: &Visit, device: &str, certificates: &[Certificate], found: &Listed<Connection>) -> Markup {
    let (now, may_close) = (visit.now(), visit.may_change(Area::Connections));
    let close = format!("/devices/{}/connections", segment(device));
    let shown = u64::try_from(found.items.len()).unwrap_or(u64::MAX);
    html! {
        @if found.items.is_empty() {
            p { "None now." }
        } @else {
            div.scroll tabindex="0" { table {
                thead { tr {
                    th { "Hostname" } th { "Protocol" } th { "Since" } th { "From" } th { "Certificate" }
                    th { "Edge" }
                    @if may_close { th { "Close" } }
                } }
                tbody {
                    @for one in &found.items {
                        tr {
                            td { a href={"/hosts/" (segment(&one.host))} { (one.host) } }
                            td { (one.protocol) }
                            td { (time(one.since, now)) }
                            td { (code(&one.peer)) }
                            td { (certificate(one, certificates)) }
                            td { (one.edge) }
                            @if may_close {
                                td { (button(visit, &format!("{close}/{}.{}/close", one.edge, one.number), "Close",
                                    Some("Close this connection? The device may reconnect at once."))) }
                            }
                        }
                    }
                }
            } }
            @if shown < found.info.total_count {
                p { "The newest " (number(shown)) " of " (number(found.info.total_count)) "." }
            }
            @if may_close && found.info.total_count > 1 {
                (button(visit, &format!("{close}/all/close"), "Close all",
                    Some("Close all connections of this device? It may reconnect at once.")))
            }
        }
    }
}

fn certificate(connection: &Connection, known: &[Certificate]) -> Markup {
    let Some(serial) = &connection.serial_number else { return html! { "none" } };
    let found = known.iter().find(|one| one.is_of(connection.ca.as_deref(), serial));
    html! {
        @match found {
            Some(found) => a href=(found.link()) { (code(serial)) },
            None => (code(serial)),
        }
    }
}

/// `POST /devices/{id}/connections/{edge.number|all}/close`
pub(super) async fn close(Path((id, which)): Path<(String, String)>, Sent(visit, _): Sent) -> Response {
    let mut wanted = json!({ "device": id });
    let page = format!("/devices/{}", segment(&id));
    if which != "all" {
        let one = which.split_once('.').and_then(|(edge, number)| Some((edge, number.parse::<u64>().ok()?)));
        let Some((edge, number)) = one else {
            let message = "there is no such connection".to_owned();
            return visit.finish::<()>(Err(Problem { status: StatusCode::NOT_FOUND, message }), "", &page);
        };
        wanted = json!({ "device": id, "edge": edge, "number": number });
    }
    let sent = visit.send(Method::POST, "/connections/close", wanted).await;
    let closed = sent.as_ref().ok().and_then(|sent| sent.get("closed")?.as_u64()).unwrap_or_default();
    visit.finish(sent, &format!("Closed connections: {}.", number(closed)), &page)
}
