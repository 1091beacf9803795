//! Enrollment tokens: made, shown once with a QR code, revoked.

use axum::extract::{Path, Query};
use axum::response::{IntoResponse, Response};
use http::Method;
use maud::{Markup, PreEscaped, html};
use muster_policy::time::UnixTime;
use muster_store::record::Area;
use qrcode::QrCode;
use qrcode::render::svg;
use serde::Deserialize;
use serde_json::json;

use super::form::{Form, Sent};
use super::inside::{Info, Listed, Problem, segment};
use super::layout::{button, choice, code, page, pager, secret, state, time};
use super::visit::Visit;

const STATES: &[&str] = &["", "active", "used", "expired", "revoked"];
/// Lives a person chooses among; the API takes any.
const LIVES: &[(&str, u64)] = &[
    ("1 hour", 3_600),
    ("1 day", 86_400),
    ("7 days", 604_800),
    ("30 days", 2_592_000),
    ("1 year", 31_536_000),
];
/// Edge of the QR code on the page, in CSS pixels.
const QR_PIXELS: u32 = 240;

#[derive(Debug, Deserialize)]
struct Token {
    id: String,
    status: String,
    device: Option<String>,
    profile: Option<String>,
    uses_allowed: u32,
    uses_taken: u32,
    expires_at: UnixTime,
    last_used_at: Option<UnixTime>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    page: String,
    status: String,
    device: String,
    /// One token alone.
    id: String,
}

/// `GET /tokens?id=&device=&status=&page=`
pub(super) async fn list(visit: Visit, Query(at): Query<Wanted>) -> Result<Markup, Problem> {
    let wanted =
        [("device", at.device.as_str()), ("status", &at.status), ("page", &at.page), ("per_page", "50")];
    let found = if at.id.is_empty() {
        visit.list::<Token>("/tokens", &wanted).await?
    } else {
        let token = visit.get(&format!("/tokens/{}", segment(&at.id))).await?;
        Listed { items: vec![token], info: Info { page: 1, total_count: 1, total_pages: 1 } }
    };
    let now = visit.now();
    let content = html! {
        @if visit.may_change(Area::Fleet) { (new_form(&visit, &at.device).await?) }
        form.filters method="get" action="/tokens" role="search" {
            label { "Device " input type="search" name="device" value=(at.device) autocomplete="off"; }
            (choice("status", "Status", STATES, &at.status))
            button type="submit" { "Find" }
        }
        div.scroll tabindex="0" { table {
            thead { tr { th { "Token" } th { "For" } th { "Status" } th { "Used" } th { "Ends" } th { span.unseen { "Actions" } } } }
            tbody {
                @for token in &found.items {
                    tr {
                        td { (code(&token.id)) @if let Some(profile) = &token.profile { br; small { "profile " (profile) } } }
                        td {
                            @match &token.device {
                                Some(device) => a href={"/devices/" (segment(device))} { (device) },
                                None => "any device",
                            }
                        }
                        td { (state(&token.status)) }
                        td { (token.uses_taken) " of " (token.uses_allowed)
                            @if let Some(at) = token.last_used_at { br; small { (time(at, now)) } } }
                        td { (time(token.expires_at, now)) }
                        td { @if visit.may_change(Area::Fleet) && token.status == "active" {
                            (button(&visit, &format!("/tokens/{}/revoke", token.id), "Revoke",
                                Some("Revoke this token? Devices that have not used it yet can't enroll with it.")))
                        } }
                    }
                }
                @if found.items.is_empty() { tr { td colspan="6" { "No tokens found." } } }
            }
        } }
        (pager("/tokens", &[("device", at.device.as_str()), ("status", at.status.as_str())], found.info))
    };
    Ok(page(&visit, "Enrollment tokens", content))
}

#[derive(Deserialize)]
struct Profile {
    label: String,
}

async fn new_form(visit: &Visit, device: &str) -> Result<Markup, Problem> {
    let profiles = visit.list::<Profile>("/profiles", &[("per_page", "1000")]).await?;
    let labels = core::iter::once("").chain(profiles.items.iter().map(|profile| profile.label.as_str()));
    let labels: Vec<&str> = labels.collect();
    Ok(html! {
        form.card #new method="post" action="/tokens" {
            (secret(visit))
            h2 { "New token" }
            label { "Device; empty for a claim token that any device may use "
                input name="device" value=(device) autocomplete="off"; }
            label { "Uses " input name="uses" type="number" min="1" max="1000000" value="1"; }
            label { "Valid for "
                select name="ttl_s" {
                    @for (text, seconds) in LIVES { option value=(seconds) selected[*seconds == 86_400] { (text) } }
                }
            }
            (choice("profile", "Profile", &labels, ""))
            button.primary type="submit" { "Create a token" }
        }
    })
}

#[derive(Deserialize)]
struct Made {
    token: String,
    device: Option<String>,
    expires_at: UnixTime,
}

/// `POST /tokens`: answers with the secret, which no other page shows.
pub(super) async fn create(Sent(visit, form): Sent) -> Response {
    let sent = visit.send(Method::POST, "/tokens", wish(&form)).await;
    match sent.and_then(|value| serde_json::from_value::<Made>(value).map_err(Problem::internal)) {
        Ok(made) => made_page(&visit, &made).into_response(),
        Err(problem) => visit.finish::<()>(Err(problem), "", "/tokens"),
    }
}

fn wish(form: &Form) -> serde_json::Value {
    let number = |name| form.get(name).and_then(|text| text.parse::<u64>().ok());
    json!({
        "device": form.get("device"),
        "claim": form.get("device").is_none(),
        "uses": number("uses"),
        "ttl_s": number("ttl_s"),
        "profile": form.get("profile"),
    })
}

fn made_page(visit: &Visit, made: &Made) -> Markup {
    let device = made.device.as_deref().unwrap_or("DEVICE");
    let carried = json!({ "device": made.device, "token": made.token }).to_string();
    let content = html! {
        p.flash.done role="status" { "The token is shown only this once." }
        pre tabindex="0" { (made.token) }
        p { "Valid until " (time(made.expires_at, visit.now())) "." }
        @if let Some(image) = qr(&carried) {
            figure.qr { (PreEscaped(image)) figcaption { "Device and token as JSON, for a scanner." } }
        }
        h2 { "On the device" }
        pre tabindex="0" {
            "muster-agent enroll --server " (visit.est_url()) " --ca ca.pem --device " (device) " --token " (made.token)
        }
        p { a href="/tokens" { "All tokens" } }
    };
    page(visit, "New token", content)
}

/// An SVG image; none when the text is too long for any code, which a token never is.
fn qr(text: &str) -> Option<String> {
    let code = QrCode::new(text.as_bytes()).ok()?;
    let image = code.render::<svg::Color<'_>>().min_dimensions(QR_PIXELS, QR_PIXELS).build();
    // The picture itself, without the XML declaration, which has no place in a page.
    image.find("<svg").and_then(|start| image.get(start..)).map(str::to_owned)
}

/// `POST /tokens/{id}/revoke`
pub(super) async fn revoke(Path(id): Path<String>, Sent(visit, _): Sent) -> Response {
    let sent = visit.send(Method::DELETE, &format!("/tokens/{}", segment(&id)), json!({})).await;
    visit.finish(sent, "The token is revoked.", "/tokens")
}
