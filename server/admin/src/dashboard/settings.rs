//! Settings: zones, profiles, admin tokens.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::Method;
use maud::{Markup, html};
use muster_policy::time::UnixTime;
use muster_store::record::Area;
use serde::Deserialize;
use serde_json::json;

use super::form::Sent;
use super::inside::{Problem, segment};
use super::layout::{button, code, fact, page, secret, state, time};
use super::visit::Visit;

#[derive(Deserialize)]
struct Zone {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    label: String,
    default: bool,
    effective: Option<Effective>,
}

#[derive(Deserialize)]
struct Effective {
    keys: Vec<String>,
    lifetime_s: u64,
    renew_from_percent: u8,
    approval: String,
    credentials: String,
}

#[derive(Deserialize)]
struct AdminToken {
    id: String,
    name: String,
    role: String,
    status: String,
    created_at: UnixTime,
    expires_at: Option<UnixTime>,
}

/// `GET /settings`
pub(super) async fn show(visit: Visit) -> Result<Markup, Problem> {
    let zones = visit.list_of_cloudflare::<Zone>("/zones", &[("per_page", "1000")]).await?;
    let profiles = visit.list::<Profile>("/profiles", &[("per_page", "1000")]).await?;
    let tokens = visit.list::<AdminToken>("/admin_tokens", &[("per_page", "1000")]).await?;
    let content = html! {
        h2 { "Zones" }
        ul { @for zone in &zones.items { li id={"zone-" (zone.id)} { (zone.name) " " small { (code(&zone.id)) } } } }
        @if visit.may_change(Area::Zone) {
            form.filters method="post" action="/settings/zones" {
                (secret(&visit))
                label { "Domain " input name="name" required placeholder="example.com"; }
                button type="submit" { "Add a zone" }
            }
        }
        h2 { "Profiles" }
        @for profile in &profiles.items { (profile_card(profile)) }
        h2 { "Admin tokens" }
        (token_rows(&visit, &tokens.items))
        @if visit.may_administer() { (token_form(&visit)) }
    };
    Ok(page(&visit, "Settings", content))
}

fn profile_card(profile: &Profile) -> Markup {
    html! {
        section.card id={"profile-" (profile.label)} {
            h3 { (profile.label) @if profile.default { " " small { "the default" } } }
            @match &profile.effective {
                Some(effective) => dl.facts {
                    (fact("Keys", effective.keys.join(", ")))
                    (fact("Lifetime", span(effective.lifetime_s)))
                    (fact("Renewal from", html! { (effective.renew_from_percent) " % of it" }))
                    (fact("Approval", &effective.approval))
                    (fact("Credentials", &effective.credentials))
                },
                None => p.flash.failed { "This profile is invalid." },
            }
        }
    }
}

/// A lifetime in days and hours.
fn span(seconds: u64) -> String {
    match (seconds / 86_400, seconds % 86_400 / 3_600) {
        (days, 0) if days > 0 => format!("{days} d"),
        (0, hours) => format!("{hours} h"),
        (days, hours) => format!("{days} d {hours} h"),
    }
}

fn token_rows(visit: &Visit, tokens: &[AdminToken]) -> Markup {
    let now = visit.now();
    html! {
        div.scroll tabindex="0" { table {
            thead { tr { th { "Name" } th { "Role" } th { "Status" } th { "Made" } th { "Ends" } th { span.unseen { "Actions" } } } }
            tbody {
                @for token in tokens {
                    tr id={"token-" (token.id)} {
                        td { (token.name) }
                        td { (token.role) }
                        td { (state(&token.status)) }
                        td { (time(token.created_at, now)) }
                        td { @match token.expires_at { Some(at) => (time(at, now)), None => "never" } }
                        td { @if visit.may_administer() && token.status == "active" {
                            (button(visit, &format!("/settings/admin_tokens/{}/revoke", token.id), "Revoke",
                                Some("Revoke this admin token? Its sessions end at once.")))
                        } }
                    }
                }
            }
        } }
    }
}

fn token_form(visit: &Visit) -> Markup {
    html! {
        form.filters method="post" action="/settings/admin_tokens" {
            (secret(visit))
            label { "Name " input name="name" required; }
            label { "Role " select name="role" {
                option value="reader" { "reader" } option value="admin" { "admin" }
            } }
            label { "Valid for " select name="ttl_s" {
                option value="86400" { "1 day" } option value="2592000" { "30 days" }
                option value="31536000" { "1 year" } option value="" { "until revoked" }
            } }
            button type="submit" { "Create an admin token" }
        }
    }
}

/// `POST /settings/zones`
pub(super) async fn add_zone(Sent(visit, form): Sent) -> Response {
    let body = json!({ "account": { "id": visit.account() }, "name": form.get("name") });
    let sent = visit.send_to_cloudflare(Method::POST, "/zones", body).await;
    visit.finish(sent, "The zone is added.", "/settings")
}

#[derive(Deserialize)]
struct Made {
    name: String,
    token: String,
}

/// `POST /settings/admin_tokens`: answers with the secret, which no other page shows.
pub(super) async fn create_token(Sent(visit, form): Sent) -> Response {
    let ttl = form.get("ttl_s").and_then(|text| text.parse::<u64>().ok());
    let body = json!({ "name": form.get("name"), "role": form.get("role"), "ttl_s": ttl });
    let sent = visit.send(Method::POST, "/admin_tokens", body).await;
    match sent.and_then(|value| serde_json::from_value::<Made>(value).map_err(Problem::internal)) {
        Ok(made) => {
            let content = html! {
                p.flash.done role="status" { "The token is shown only this once." }
                pre tabindex="0" { (made.token) }
                p { a href="/settings" { "Settings" } }
            };
            page(&visit, &made.name, content).into_response()
        }
        Err(problem) => visit.finish::<()>(Err(problem), "", "/settings"),
    }
}

/// `POST /settings/admin_tokens/{id}/revoke`
pub(super) async fn revoke_token(Path(id): Path<String>, Sent(visit, _): Sent) -> Response {
    let sent = visit.send(Method::DELETE, &format!("/admin_tokens/{}", segment(&id)), json!({})).await;
    visit.finish(sent, "The token is revoked.", "/settings")
}
