//! The first page: how the fleet is, what happens at the doors now, and what needs a person.

use axum::response::Response;
use maud::{Markup, html};
use muster_policy::time::UnixTime;
use serde::Deserialize;

use super::audit::{Entry, entries, sentence};
use super::hosts::Host;
use super::inside::{Problem, segment};
use super::layout::{number, page, time};
use super::live::{Part, Watched, follow, place, sign};
use super::visit::Visit;

/// Newest entries of the audit that the page shows.
const NEWEST_SHOWN: &str = "10";

#[derive(Deserialize)]
struct Status {
    version: String,
    started_at: UnixTime,
    can_issue: bool,
    counts: Counts,
    edge: Option<Edge>,
}

#[derive(Deserialize)]
struct Counts {
    certificates: u64,
    certificates_revoked: u64,
    devices_active: u64,
    devices_suspended: u64,
    devices_retired: u64,
    approvals_waiting: u64,
}

#[derive(Deserialize)]
struct Edge {
    connections_https: u64,
    connections_mqtt: u64,
    certificates_connected: u64,
    handshakes: u64,
    handshakes_refused: u64,
    requests: u64,
    cut: u64,
    refused_by_reason: Vec<(String, u64)>,
}

#[derive(Deserialize)]
struct Lapsing {
    count: u64,
    more: bool,
    devices: Vec<LapsingDevice>,
}

#[derive(Deserialize)]
struct LapsingDevice {
    device: String,
    not_after: UnixTime,
}

/// `GET /`
pub(super) async fn show(visit: Visit) -> Result<Markup, Problem> {
    let lapsing: Lapsing = visit.get("/lapsing").await?;
    let hosts = visit.list::<Host>("/hosts", &[("per_page", "1000")]).await?;
    let open: Vec<&Host> = hosts.items.iter().filter(|host| host.mode != "require").collect();
    let now = visit.now();
    let [figures, events] = both(&visit).await?;
    let content = html! {
        (sign("/live"))
        (place(&figures))
        h2 { "Devices that don't renew" }
        @if lapsing.devices.is_empty() {
            p { "None: every active device whose certificate has expired or is about to has a newer one." }
        } @else {
            p.flash.note {
                (number(lapsing.count)) @if lapsing.more { " or more" }
                " active devices hold a certificate that expired within the last week, or expires within the next one, and have no newer one."
            }
            ul {
                @for lost in &lapsing.devices {
                    li { a href={"/devices/" (segment(&lost.device))} { (lost.device) } ": " (time(lost.not_after, now)) }
                }
            }
        }
        @if !open.is_empty() {
            h2 { "Hostnames that require no certificate" }
            p.flash.note { (number(u64::try_from(open.len()).unwrap_or(u64::MAX))) " of " (number(hosts.info.total_count))
                " hostnames admit clients without a certificate." }
            ul {
                @for host in open {
                    li { a href={"/hosts/" (segment(&host.host))} { (host.host) } ": mode " (host.mode) }
                }
            }
        }
        h2 { "Newest events" }
        (place(&events))
    };
    Ok(page(&visit, "Overview", content))
}

/// `GET /live`
pub(super) async fn live(visit: Visit) -> Result<Response, Problem> {
    follow(visit, Watched::Overview).await
}

/// The parts that follow what happens.
pub(super) async fn parts(visit: &Visit) -> Result<Vec<Part>, Problem> {
    both(visit).await.map(Vec::from)
}

async fn both(visit: &Visit) -> Result<[Part; 2], Problem> {
    let newest = visit.list::<Entry>("/audit", &[("per_page", NEWEST_SHOWN)]).await?;
    Ok([("figures", figures(visit).await?), ("events", entries(&newest.items, visit.now()))])
}

async fn figures(visit: &Visit) -> Result<Markup, Problem> {
    let status: Status = visit.get("/status").await?;
    let (counts, now) = (&status.counts, visit.now());
    Ok(html! {
        @if !status.can_issue {
            p.flash.failed role="alert" { "No CA can issue to devices: enrollment and renewal are stopped." }
        }
        div.tiles {
            (tile("Active devices", counts.devices_active, "/devices?status=active"))
            (tile("Suspended", counts.devices_suspended, "/devices?status=suspended"))
            (tile("Retired", counts.devices_retired, "/devices?status=retired"))
            (tile("Certificates", counts.certificates, "/certificates"))
            (tile("Revoked", counts.certificates_revoked, "/certificates?status=revoked"))
            (tile("Waiting for approval", counts.approvals_waiting, "/approvals"))
        }
        @match &status.edge {
            Some(edge) => (doors(edge)),
            None => p { "No edge runs in this process." },
        }
        p { small { "Muster " (status.version) ", up since " (time(status.started_at, now)) } }
    })
}

fn tile(name: &str, value: u64, link: &str) -> Markup {
    html! { a.tile href=(link) { b { (number(value)) } span { (name) } } }
}

fn doors(edge: &Edge) -> Markup {
    let most = edge.refused_by_reason.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    html! {
        h2 { "At the edge" }
        dl.facts.numbers {
            div { dt { "HTTPS connections" } dd { (number(edge.connections_https)) } }
            div { dt { "MQTT connections" } dd { (number(edge.connections_mqtt)) } }
            div { dt { "Certificates connected" } dd { (number(edge.certificates_connected)) } }
            div { dt { "Handshakes" } dd { (number(edge.handshakes)) } }
            div { dt { "Handshakes refused" } dd { (number(edge.handshakes_refused)) } }
            div { dt { "Requests" } dd { (number(edge.requests)) } }
            div { dt { "Connections closed" } dd { (number(edge.cut)) } }
        }
        @if !edge.refused_by_reason.is_empty() {
            h3 { "Refused since the start, by reason" }
            div.scroll tabindex="0" { table {
                @for (reason, count) in &edge.refused_by_reason {
                    tr {
                        td.number { (number(*count)) }
                        td { meter min="0" max=(most) value=(count) aria-label=(reason) {} }
                        td { (sentence(reason)) }
                    }
                }
            } }
        }
    }
}
