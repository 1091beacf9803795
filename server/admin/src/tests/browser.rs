//! A browser without scripts, and an account that it finds something in.

use axum::Router;
use axum::body::Body;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::rig::{CSR, ELSEWHERE, LIST, Rig, body};

/// What came back.
pub(super) struct Seen {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Seen {
    pub(super) fn to(&self) -> &str {
        self.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A browser that keeps one cookie.
pub(super) struct Browser {
    pub(super) router: Router,
    pub(super) cookie: Option<String>,
    pub(super) csrf: String,
}

impl Browser {
    pub(super) fn new(rig: &Rig) -> Self {
        Self { router: rig.router(), cookie: None, csrf: String::new() }
    }

    /// A browser of someone who logged in with a new token of the role.
    pub(super) async fn of(rig: &Rig, role: &str) -> (Self, String, String) {
        Self::with(rig, json!({ "name": "someone", "role": role })).await
    }

    pub(super) async fn with(rig: &Rig, token: Value) -> (Self, String, String) {
        let made = rig.post("/admin_tokens", token).await;
        let (token, id) = (text(&made["token"]), text(&made["id"]));
        let mut browser = Self::new(rig);
        let seen = browser.log_in(&token).await;
        assert_eq!((seen.status, seen.to()), (StatusCode::SEE_OTHER, "/"));
        let page = browser.get("/devices").await.text;
        browser.csrf = page.split_once("name=\"csrf\" value=\"").expect("a form").1[..43].to_owned();
        (browser, token, id)
    }

    /// Sends a request; hands out the answer as it comes.
    pub(super) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        text: &str,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, format!("muster_session={cookie}"));
        }
        let request = request.body(Body::from(text.to_owned())).expect("a request");
        self.router.clone().oneshot(request).await.expect("an answer")
    }

    pub(super) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        text: &str,
    ) -> Seen {
        let response = self.open(method, path, headers, text).await;
        if let Some(set) = response.headers().get(SET_COOKIE) {
            let set = set.to_str().expect("text");
            assert!(set.contains("; HttpOnly") && set.contains("; SameSite=Strict"), "{set}");
            self.cookie =
                set.strip_prefix("muster_session=").and_then(|set| set.split(';').next()).map(str::to_owned);
        }
        Seen { status: response.status(), headers: response.headers().clone(), text: body(response).await }
    }

    pub(super) async fn get(&mut self, path: &str) -> Seen {
        self.send("GET", path, &[], "").await
    }

    pub(super) async fn log_in(&mut self, token: &str) -> Seen {
        self.send("POST", "/login", &[], &format!("token={token}")).await
    }

    /// Sends a form of the session's own, and follows to the page after it.
    pub(super) async fn post(&mut self, path: &str, fields: &str) -> Seen {
        let sent = format!("csrf={}&{fields}", self.csrf);
        let seen = self.send("POST", path, &[], &sent).await;
        if seen.status == StatusCode::SEE_OTHER {
            let to = seen.to().to_owned();
            return self.get(&to).await;
        }
        seen
    }

    /// Opens the page at `path` and sends its form.
    pub(super) async fn save(&mut self, path: &str, fields: &str) -> Seen {
        let page = self.get(path).await.text;
        self.post(path, &format!("{}&{fields}", state(&page))).await
    }
}

/// The field of a page's form that says which state the page shows.
pub(super) fn state(page: &str) -> String {
    let tag = page.split_once("name=\"state\" value=\"&quot;").expect("a form").1;
    format!("state=%22{}%22", tag.split_once("&quot;").expect("its end").0)
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// An account with a zone, a hostname, a webhook, and a device that has a certificate.
pub(super) struct World {
    pub(super) rig: Rig,
    pub(super) zone: String,
    pub(super) ca: String,
    pub(super) elsewhere: String,
    pub(super) certificate: String,
    pub(super) webhook: String,
}

impl World {
    pub(super) async fn new() -> Self {
        let rig = Rig::new().await;
        let zone = json!({ "name": "example.com", "account": { "id": rig.account } }).to_string();
        let zone = rig.send("POST", "/zones", &zone).await;
        assert_eq!(zone.status, StatusCode::OK);
        let zone = text(&zone.body["result"]["id"]);
        let host = rig.send("PUT", &rig.own("/hosts/api.example.com"), "{}").await;
        assert_eq!(host.status, StatusCode::OK);
        let signed = rig.post("/certificates/sign", json!({ "csr": CSR })).await;
        let (ca, certificate) = {
            let of = &rig.get("/certificates").await[0];
            (text(&of["ca"]), text(&of["id"]))
        };
        assert!(signed.is_object());
        rig.send("GET", &rig.own(&format!("/cas/{ca}/crl")), "").await;
        let webhook = json!({ "name": "ours", "url": "https://hooks.example.com/x" });
        let webhook = text(&rig.post("/webhooks", webhook).await["id"]);
        let elsewhere = text(&rig.post("/cas/import", json!({ "pem": ELSEWHERE })).await["id"]);
        let list = json!({ "crl": LIST }).to_string();
        let taken = rig.send("PUT", &rig.own(&format!("/cas/{elsewhere}/crl")), &list).await;
        assert_eq!(taken.status, StatusCode::OK, "{}", taken.message());
        rig.post(&format!("/cas/{elsewhere}/revoked"), json!({ "serial_number": "1003" })).await;
        Self { rig, zone, ca, elsewhere, certificate, webhook }
    }

    pub(super) fn fill(&self, path: &str) -> String {
        path.replace("{zone}", &self.zone)
            .replace("{ca}", &self.ca)
            .replace("{elsewhere}", &self.elsewhere)
            .replace("{certificate}", &self.certificate)
            .replace("{webhook}", &self.webhook)
    }
}
