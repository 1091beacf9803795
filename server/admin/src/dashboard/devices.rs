//! Devices: found, shown with their history, edited, imported.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, Query};
use axum::response::Response;
use http::Method;
use maud::{Markup, html};
use muster_policy::time::UnixTime;
use muster_store::record::Area;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::audit::{Entry, entries};
use super::certificates::{Certificate, rows};
use super::connections;
use super::form::Sent;
use super::inside::{Problem, segment};
use super::layout::{At, button, choice, fact, page, pager, secret, state, time};
use super::live::{Part, Watched, follow, place, sign};
use super::visit::Visit;

/// How much of a device's history its page shows.
const TIMELINE: &str = "50";
const STATES: &[&str] = &["", "active", "suspended", "retired"];

#[derive(Debug, Deserialize)]
pub(super) struct Device {
    id: String,
    status: String,
    labels: BTreeMap<String, String>,
    groups: BTreeSet<String>,
    manufacturer_serial: Option<String>,
    note: Option<String>,
    created_at: UnixTime,
    status_changed_at: UnixTime,
    #[serde(default)]
    certificates: Vec<Certificate>,
}

impl Device {
    fn link(&self) -> String {
        format!("/devices/{}", segment(&self.id))
    }

    fn groups(&self) -> String {
        self.groups.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// `GET /devices?q=&status=&page=`
pub(super) async fn list(visit: Visit, Query(at): Query<At>) -> Result<Markup, Problem> {
    let wanted = [("prefix", at.q.as_str()), ("status", &at.status), ("page", &at.page), ("per_page", "50")];
    let found = visit.list::<Device>("/devices", &wanted).await?;
    let now = visit.now();
    let pairs = [("q", at.q.as_str()), ("status", at.status.as_str())];
    let content = html! {
        form.filters method="get" action="/devices" role="search" hx-get="/devices" hx-target="#found"
            hx-select="#found" hx-swap="outerHTML" hx-trigger="input changed delay:300ms from:#q, change, submit" {
            label { "Id starts with " input #q type="search" name="q" value=(at.q) autocomplete="off"; }
            (choice("status", "Status", STATES, &at.status))
            button type="submit" { "Find" }
        }
        div #found {
            div.scroll tabindex="0" { table {
                thead { tr { th { "Device" } th { "Status" } th { "Groups" } th { "Known since" } } }
                tbody {
                    @for device in &found.items {
                        tr {
                            // By its id htmx leaves the keyboard at the link when the answer to a choice comes late.
                            td { a id={"device-" (device.id)} href=(device.link()) { (device.id) } }
                            td { (state(&device.status)) }
                            td { (device.groups()) }
                            td { (time(device.created_at, now)) }
                        }
                    }
                    @if found.items.is_empty() { tr { td colspan="4" { "No devices found." } } }
                }
            } }
            (pager("/devices", &pairs, found.info))
        }
        @if visit.may_change(Area::Fleet) { (import_form(&visit)) }
    };
    Ok(page(&visit, "Devices", content))
}

fn import_form(visit: &Visit) -> Markup {
    html! {
        details {
            summary { "Add devices" }
            form method="post" action="/devices" {
                (secret(visit))
                label for="ids" { "Device ids, one per line" }
                textarea #ids name="ids" rows="6" required {}
                label { "Groups, separated by commas " input name="groups"; }
                button type="submit" { "Import" }
            }
        }
    }
}

/// `POST /devices`: makes devices known.
pub(super) async fn import(Sent(visit, form): Sent) -> Response {
    let groups = form.words("groups");
    let devices: Vec<Value> =
        form.words("ids").into_iter().map(|id| json!({ "id": id, "groups": groups })).collect();
    let count = devices.len();
    let sent = visit.send(Method::POST, "/devices/import", Value::Array(devices)).await;
    visit.finish(sent, &format!("Added {count} devices."), "/devices")
}

/// `GET /devices/{id}`
pub(super) async fn show(visit: Visit, Path(id): Path<String>) -> Result<Markup, Problem> {
    let device: Device = visit.get(&format!("/devices/{}", segment(&id))).await?;
    let [state, connections, certificates, timeline] = all(&visit, &device).await?;
    let content = html! {
        (sign(&format!("{}/live", device.link())))
        (place(&state))
        @if visit.may_change(Area::Fleet) {
            (actions(&visit, &device))
            (edit_form(&visit, &device))
        }
        h2 { "Connected now" }
        (place(&connections))
        h2 { "Certificates" }
        (place(&certificates))
        h2 { "History" }
        (place(&timeline))
    };
    Ok(page(&visit, &device.id, content))
}

/// `GET /devices/{id}/live`
pub(super) async fn live(visit: Visit, Path(id): Path<String>) -> Result<Response, Problem> {
    follow(visit, Watched::Device(id)).await
}

/// The parts that follow what happens to a device.
pub(super) async fn parts(visit: &Visit, id: &str) -> Result<Vec<Part>, Problem> {
    let device: Device = visit.get(&format!("/devices/{}", segment(id))).await?;
    all(visit, &device).await.map(Vec::from)
}

async fn all(visit: &Visit, device: &Device) -> Result<[Part; 4], Problem> {
    let wanted = [("device", device.id.as_str()), ("per_page", TIMELINE)];
    let history = visit.list::<Entry>("/audit", &wanted).await?;
    let now = visit.now();
    Ok([
        ("state", facts(device, &history.items, now)),
        ("connections", connections::of_device(visit, &device.id, &device.certificates).await?),
        ("certificates", rows(&device.certificates, now)),
        ("timeline", entries(&history.items, now)),
    ])
}

fn facts(device: &Device, history: &[Entry], now: UnixTime) -> Markup {
    let refusal = history.iter().find_map(|entry| Some((entry.at, entry.reason.as_ref()?)));
    html! {
        @if let Some((at, reason)) = refusal {
            p.flash.note { "Last refusal " (time(at, now)) ": " (super::audit::sentence(reason)) }
        }
        dl.facts {
            (fact("Status", html! { (state(&device.status)) " since " (time(device.status_changed_at, now)) }))
            (fact("Known since", time(device.created_at, now)))
            (fact("Groups", if device.groups.is_empty() { "none".to_owned() } else { device.groups() }))
            @for (name, value) in &device.labels { (fact(name, value)) }
            @if let Some(serial) = &device.manufacturer_serial { (fact("Manufacturer's serial", serial)) }
            @if let Some(note) = &device.note { (fact("Note", note)) }
        }
    }
}

fn actions(visit: &Visit, device: &Device) -> Markup {
    let status = format!("{}/status", device.link());
    let change = |to: &str, text: &str, ask: Option<&str>| {
        html! { span { (button(visit, &format!("{status}?to={to}"), text, ask)) } }
    };
    html! {
        div.actions {
            @match device.status.as_str() {
                "active" => (change("suspended", "Suspend",
                    Some("Suspend this device? Its connections are closed; it can be resumed."))),
                "suspended" => (change("active", "Resume", None)),
                _ => {},
            }
            @if device.status != "retired" {
                (change("retired", "Retire", Some("Retire this device for good? It can never enroll again.")))
                a.button href={"/tokens?device=" (segment(&device.id)) "#new"} { "New enrollment token" }
            }
        }
    }
}

fn edit_form(visit: &Visit, device: &Device) -> Markup {
    let labels: Vec<String> = device.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    html! {
        details {
            summary { "Edit groups, labels and note" }
            form method="post" action=(device.link()) {
                (secret(visit))
                label { "Groups, separated by commas " input name="groups" value=(device.groups()); }
                label for="labels" { "Labels, one NAME=VALUE per line" }
                textarea #labels name="labels" rows="4" { (labels.join("\n")) }
                label { "Note " input name="note" value=(device.note.as_deref().unwrap_or_default()); }
                button type="submit" { "Save" }
            }
        }
    }
}

/// `POST /devices/{id}`
pub(super) async fn edit(Path(id): Path<String>, Sent(visit, form): Sent) -> Response {
    let lines = form.get("labels").unwrap_or_default().lines();
    let labels: Map<String, Value> = lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.split_once('=').unwrap_or((line, "")))
        .map(|(name, value)| (name.trim().to_owned(), Value::from(value.trim())))
        .collect();
    let body = json!({ "groups": form.words("groups"), "labels": labels, "note": form.get("note") });
    let path = format!("/devices/{}", segment(&id));
    let sent = visit.send(Method::PATCH, &path, body).await;
    visit.finish(sent, "Saved.", &path)
}

#[derive(Deserialize)]
pub(super) struct To {
    to: String,
}

/// `POST /devices/{id}/status?to=`
pub(super) async fn set_status(
    Path(id): Path<String>,
    Query(To { to }): Query<To>,
    Sent(visit, _): Sent,
) -> Response {
    let path = format!("/devices/{}", segment(&id));
    let sent = visit.send(Method::PATCH, &path, json!({ "status": to })).await;
    visit.finish(sent, &format!("The device is {to} now."), &path)
}
