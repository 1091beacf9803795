//! In and out: an admin token opens a session.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};
use muster_enroll::hash_secret;

use super::Dashboard;
use super::form::{Form, Sent};
use super::inside::Problem;
use super::layout;
use super::visit::{is_same_origin, set_cookie};
use crate::auth::{self, Caller};

/// `GET /login`
pub(super) async fn page() -> Markup {
    form(None)
}

fn form(wrong: Option<&str>) -> Markup {
    layout::bare(
        "Log in",
        html! {
            main.narrow {
                h1 { "Muster" }
                p { "Log in with an admin token. " code { "muster init" } " printed one; "
                    code { "muster admin-token new" } " creates more." }
                @if let Some(wrong) = wrong { p.flash.failed role="alert" { (wrong) } }
                form method="post" action="/login" {
                    // Password keepers file the token under a name.
                    input name="username" type="text" value="muster" autocomplete="username" hidden;
                    label for="token" { "Admin token" }
                    input #token name="token" type="password" autocomplete="current-password" required autofocus;
                    button.primary type="submit" { "Log in" }
                }
            }
        },
    )
}

/// `POST /login`
pub(super) async fn enter(State(dashboard): State<Arc<Dashboard>>, request: Request) -> Response {
    if !is_same_origin(request.headers()) {
        return (StatusCode::FORBIDDEN, "this form was sent from another site\n").into_response();
    }
    let form_sent = match Form::read(request).await {
        Ok(form_sent) => form_sent,
        Err(response) => return response,
    };
    let hash = hash_secret(form_sent.get("token").unwrap_or_default());
    match Caller::of_hash(&dashboard.api, hash) {
        Ok(Some(caller)) => {
            tracing::info!(actor = ?caller.actor, "logged in at the dashboard");
            // A session is new at every login: one that somebody planted is worth nothing.
            match dashboard.sessions.open(hash, dashboard.api.now()) {
                Ok(cookie) => ([set_cookie(Some(&cookie))], Redirect::to("/")).into_response(),
                Err(error) => crate::error::ApiError::internal(error).into_response(),
            }
        }
        Ok(None) => match auth::slow_down(&dashboard.api).await {
            Ok(()) => (StatusCode::UNAUTHORIZED, form(Some("This token is unknown, revoked or expired."))),
            Err(error) => (StatusCode::TOO_MANY_REQUESTS, form(Some(&error.message))),
        }
        .into_response(),
        Err(error) => Problem { status: error.status, message: error.message }.into_response(),
    }
}

/// `POST /logout`
pub(super) async fn leave(Sent(visit, _): Sent) -> Response {
    visit.dashboard.sessions.close(visit.session.key);
    ([set_cookie(None)], Redirect::to("/login")).into_response()
}
