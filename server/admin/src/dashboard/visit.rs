//! One request of a person who is logged in.

use std::sync::{Arc, OnceLock};

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{ACCEPT, COOKIE, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use muster_policy::identity::AccountId;
use muster_policy::time::UnixTime;
use muster_store::record::Area;

use super::inside::Problem;
use super::session::{Flash, Session, Use};
use super::{Dashboard, live};
use crate::auth::Caller;

/// The cookie's name.
const COOKIE_NAME: &str = "muster_session";
/// Longer than any cookie of ours.
const COOKIE_MAX_BYTES: usize = 128;
/// Sent by htmx with its requests for parts of a page.
const HX_REQUEST: HeaderName = HeaderName::from_static("hx-request");
/// Sent by `live.js` with requests that a page makes by itself.
const MUSTER_LIVE: HeaderName = HeaderName::from_static("muster-live");
/// Tells htmx to go to another page.
const HX_REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// A person at a page.
#[derive(Clone)]
pub(crate) struct Visit {
    pub(super) dashboard: Arc<Dashboard>,
    pub(super) caller: Caller,
    pub(super) session: Session,
    /// Where the person is, to mark it among the links.
    pub(super) path: String,
    /// What the API said of a change that is not in force yet.
    pub(super) awaited: Arc<OnceLock<String>>,
    /// Whether a part of a page asks, and not the browser for a page.
    is_part: bool,
}

impl Visit {
    pub(super) fn account(&self) -> AccountId {
        self.dashboard.api.registrar().account()
    }

    pub(super) fn now(&self) -> UnixTime {
        self.dashboard.api.now()
    }

    /// Where devices enroll.
    pub(super) fn est_url(&self) -> &str {
        self.dashboard.api.hooks().est_url.as_deref().unwrap_or("https://HOST:8443")
    }

    /// Whether the forms of an area are worth showing; the API decides what is allowed.
    pub(super) fn may_change(&self, area: Area) -> bool {
        self.caller.may_change(area)
    }

    /// Whether forms are worth showing that only an administrator without limits may send.
    pub(super) fn may_administer(&self) -> bool {
        self.caller.require_admin().is_ok()
    }

    /// Whether the session and the token behind it are good still; no use of the session.
    pub(super) fn is_still_open(&self) -> bool {
        let Dashboard { api, sessions, .. } = &*self.dashboard;
        sessions.is_open(self.session.key, api.now()) && self.caller.is_still_good(api)
    }

    /// Goes to a page that says what came of a form.
    pub(super) fn finish<T>(&self, outcome: Result<T, Problem>, done: &str, to: &str) -> Response {
        let flash = match outcome {
            Ok(_) => Flash::Done(match self.awaited.get() {
                Some(awaited) => format!("{done} ({awaited})"),
                None => done.to_owned(),
            }),
            Err(problem) => Flash::Failed(problem.message),
        };
        self.dashboard.sessions.set_flash(self.session.key, Some(flash));
        go_to(to, self.is_part)
    }
}

impl FromRequestParts<Arc<Dashboard>> for Visit {
    type Rejection = Redirect;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Dashboard>) -> Result<Self, Redirect> {
        // `admit` runs before every page; without it nobody is let in.
        parts.extensions.get().cloned().ok_or_else(|| Redirect::to("/login"))
    }
}

/// Lets a request through that comes from an open session, and forms only from our own pages.
pub(super) async fn admit(
    State(dashboard): State<Arc<Dashboard>>,
    mut request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let wants_stream = headers.get(ACCEPT).is_some_and(|kinds| kinds == "text/event-stream");
    let is_by_page = wants_stream || headers.contains_key(MUSTER_LIVE);
    let is_part = is_by_page || headers.contains_key(HX_REQUEST);
    let by = if is_by_page { Use::ByPage } else { Use::ByPerson };
    let Some((session, caller)) = cookie(headers).and_then(|cookie| dashboard.known(cookie, by)) else {
        return if wants_stream { live::last_word("over") } else { go_to("/login", is_part) };
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && !is_same_origin(headers) {
        return (StatusCode::FORBIDDEN, "this form was sent from another site\n").into_response();
    }
    if reads && !is_part && session.flash.is_some() {
        dashboard.sessions.set_flash(session.key, None);
    }
    tracing::Span::current().record("actor", tracing::field::debug(&caller.actor));
    let path = request.uri().path().to_owned();
    request.extensions_mut().insert(Visit {
        dashboard,
        caller,
        session,
        path,
        awaited: Arc::default(),
        is_part,
    });
    next.run(request).await
}

impl Dashboard {
    /// The session of a cookie, when the token behind it is still good.
    fn known(&self, cookie: &str, by: Use) -> Option<(Session, Caller)> {
        let now = self.api.now();
        let session = self.sessions.find(cookie, now, by)?;
        let caller = Caller::of_hash(&self.api, session.token).ok().flatten();
        if caller.is_none() {
            self.sessions.close(session.key);
        }
        Some((session, caller?))
    }
}

/// Leads to another page.
fn go_to(page: &str, is_part: bool) -> Response {
    if is_part && let Ok(page) = HeaderValue::from_str(page) {
        // A redirect would put that page inside this one, under this one's address.
        return ([(HX_REDIRECT, page)], "").into_response();
    }
    Redirect::to(page).into_response()
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == COOKIE_NAME)?;
    (value.len() <= COOKIE_MAX_BYTES).then_some(value)
}

/// Whether a form comes from a page of this host. Browsers send `Origin` with every POST; what sends
/// neither it nor `Sec-Fetch-Site` is no browser, and still needs the form's own secret.
pub(super) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return false;
    }
    let Some(origin) = text("origin") else { return true };
    let host = text("host").unwrap_or_default();
    origin.split_once("://").is_some_and(|(_, from)| !host.is_empty() && from.eq_ignore_ascii_case(host))
}

/// The header that hands the cookie out, or takes it back when there is no value.
pub(super) fn set_cookie(value: Option<&str>) -> (HeaderName, String) {
    let (value, age) = value.map_or(("", "; Max-Age=0"), |value| (value, ""));
    (SET_COOKIE, format!("{COOKIE_NAME}={value}; Path=/; HttpOnly; SameSite=Strict{age}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn forms_of_other_sites_are_told_apart() {
        let ours = ("host", "127.0.0.1:8080");
        assert!(is_same_origin(&headers(&[ours, ("origin", "http://127.0.0.1:8080")])));
        assert!(is_same_origin(&headers(&[ours])), "no browser");
        for wrong in [
            headers(&[ours, ("origin", "http://evil.example")]),
            headers(&[ours, ("origin", "null")]),
            headers(&[ours, ("origin", "http://127.0.0.1:8081")]),
            headers(&[ours, ("sec-fetch-site", "cross-site")]),
            headers(&[ours, ("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:8080")]),
            headers(&[("origin", "http://")]),
        ] {
            assert!(!is_same_origin(&wrong), "{wrong:?}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        assert_eq!(cookie(&headers(&[("cookie", "a=b; muster_session=xyz; c=d")])), Some("xyz"));
        assert_eq!(cookie(&headers(&[("cookie", "xmuster_session=xyz")])), None);
        assert_eq!(cookie(&headers(&[])), None);
    }
}
