//! The dashboard as a browser without scripts uses it: cookies, forms, redirects.

use axum::Router;
use axum::body::Body;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::rig::{CSR, ELSEWHERE, HOSTILE, LIST, MAKER, Rig, body};

/// Every page that can be read; `{…}` is filled in by the test.
const PAGES: &[&str] = &[
    "/",
    "/access",
    "/access/test?host=api.example.com&protocol=https&path=/x",
    "/approvals",
    "/audit",
    "/audit/check",
    "/cas",
    "/cas/{ca}",
    "/cas/{ca}/chain.pem",
    "/cas/{ca}/crl.pem",
    "/cas/{elsewhere}",
    "/cas/{elsewhere}/crl.pem",
    "/cas/{elsewhere}/revoked",
    "/cas/{elsewhere}/revoked?q=1002",
    "/certificates",
    "/certificates/{certificate}",
    "/certificates/{certificate}/pem",
    "/devices",
    "/devices/meter-1",
    "/hosts",
    "/hosts/api.example.com",
    "/hosts/api.example.com/test?q=meter-1",
    "/settings",
    "/tokens",
    "/webhooks",
    "/webhooks/{webhook}",
];

/// Every form, by its address.
const FORMS: &[&str] = &[
    "/access/apps",
    "/access/apps/00000000-0000-7000-8000-000000000000/remove",
    "/access/groups",
    "/access/policies",
    "/access/zones/{zone}/rules",
    "/access/zones/{zone}/00000000-0000-7000-8000-000000000000/rules/x/off",
    "/approvals/0000000000000000000000000000000000000000000000000000000000000000/approve",
    "/cas",
    "/cas/rotate",
    "/cas/{elsewhere}/crl",
    "/cas/{elsewhere}/crl/fetch",
    "/cas/{elsewhere}/crl/settings",
    "/cas/{elsewhere}/revoked",
    "/cas/{elsewhere}/revoked/1003/reinstate",
    "/certificates/{certificate}/revoke",
    "/certificates/{certificate}/reactivate",
    "/devices",
    "/devices/meter-1",
    "/devices/meter-1/connections/server.5/close",
    "/devices/meter-1/status?to=suspended",
    "/hosts",
    "/hosts/api.example.com",
    "/hosts/api.example.com/remove",
    "/logout",
    "/settings/admin_tokens",
    "/settings/admin_tokens/00000000-0000-7000-8000-000000000000/revoke",
    "/settings/zones",
    "/tokens",
    "/tokens/00000000-0000-7000-8000-000000000000/revoke",
    "/webhooks",
    "/webhooks/{webhook}/dead_letters/1/redeliver",
    "/webhooks/{webhook}/remove",
    "/webhooks/{webhook}/test",
];

pub(super) struct Seen {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    pub(super) text: String,
}

impl Seen {
    fn to(&self) -> &str {
        self.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A browser that keeps one cookie.
pub(super) struct Browser {
    router: Router,
    pub(super) cookie: Option<String>,
    csrf: String,
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

    async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], text: &str) -> Seen {
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

    async fn log_in(&mut self, token: &str) -> Seen {
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
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// An account with a zone, a hostname, a webhook, and a device that has a certificate.
struct World {
    rig: Rig,
    zone: String,
    ca: String,
    elsewhere: String,
    certificate: String,
    webhook: String,
}

impl World {
    async fn new() -> Self {
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

    fn fill(&self, path: &str) -> String {
        path.replace("{zone}", &self.zone)
            .replace("{ca}", &self.ca)
            .replace("{elsewhere}", &self.elsewhere)
            .replace("{certificate}", &self.certificate)
            .replace("{webhook}", &self.webhook)
    }
}

#[tokio::test]
async fn nobody_sees_a_page_without_a_session() {
    let world = World::new().await;
    let mut browser = Browser::new(&world.rig);
    for path in PAGES {
        let seen = browser.get(&world.fill(path)).await;
        assert_eq!((seen.status, seen.to()), (StatusCode::SEE_OTHER, "/login"), "{path}");
        let part = browser.send("GET", &world.fill(path), &[("hx-request", "true")], "").await;
        assert_eq!((part.status, part.text.as_str()), (StatusCode::OK, ""), "{path}");
        assert_eq!(part.headers["hx-redirect"], "/login");
    }
    for path in FORMS {
        let seen = browser.send("POST", &world.fill(path), &[], "csrf=x").await;
        assert_eq!((seen.status, seen.to()), (StatusCode::SEE_OTHER, "/login"), "{path}");
    }
    assert_eq!(world.rig.get("/devices/meter-1").await["status"], "active");
}

#[tokio::test]
async fn every_page_is_shown_and_keeps_to_itself() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    for path in PAGES {
        let seen = browser.get(&world.fill(path)).await;
        assert_eq!(seen.status, StatusCode::OK, "{path}: {}", seen.text);
        let policy = seen.headers["content-security-policy"].to_str().expect("text");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(seen.headers["cache-control"], "no-store", "{path}");
        assert_eq!(seen.headers["x-frame-options"], "DENY");
        for forbidden in ["<script>", " style=", " onclick=", "http-equiv", "//cdn"] {
            assert!(!seen.text.contains(forbidden), "{path} has {forbidden}");
        }
    }
    for asset in ["style.css", "htmx.js", "live.js", "icon.svg"] {
        assert_eq!(browser.get(&format!("/assets/{asset}")).await.status, StatusCode::OK);
    }
    assert_eq!(browser.get("/assets/..%2fCargo.toml").await.status, StatusCode::NOT_FOUND);
    let missing = browser.get("/devices/nobody").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(missing.text.contains("there is no such device"), "{}", missing.text);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_opens_nothing_and_a_planted_session_is_worth_nothing() {
    let world = World::new().await;
    let mut browser = Browser::new(&world.rig);
    let began_at = tokio::time::Instant::now();
    let seen = browser.log_in("msa_wrong").await;
    assert_eq!(seen.status, StatusCode::UNAUTHORIZED);
    assert!(began_at.elapsed() >= core::time::Duration::from_millis(250), "wrong tokens are slowed down");
    assert_eq!(browser.cookie, None);
    browser.cookie = Some("planted".to_owned());
    assert_eq!(browser.get("/").await.to(), "/login");
    let made = world.rig.post("/admin_tokens", json!({ "name": "someone", "role": "admin" })).await;
    browser.log_in(&text(&made["token"])).await;
    assert_ne!(browser.cookie.as_deref(), Some("planted"));
    let mut other =
        Browser { router: browser.router.clone(), cookie: Some("planted".to_owned()), csrf: String::new() };
    assert_eq!(other.get("/").await.to(), "/login");
    let cross =
        browser.send("POST", "/login", &[("origin", "http://evil.example"), ("host", "x")], "token=x").await;
    assert_eq!(cross.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_form_of_another_site_or_session_changes_nothing() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    let csrf = browser.csrf.clone();
    for path in FORMS {
        let path = world.fill(path);
        for wrong in ["", "csrf=", "csrf=wrong", &format!("csrf={csrf}x")] {
            let seen = browser.send("POST", &path, &[], wrong).await;
            assert_eq!(seen.status, StatusCode::FORBIDDEN, "{path} {wrong}");
        }
        let right = format!("csrf={csrf}");
        for header in
            [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
        {
            let seen = browser.send("POST", &path, &[("host", "127.0.0.1"), header], &right).await;
            assert_eq!(seen.status, StatusCode::FORBIDDEN, "{path} {header:?}");
        }
    }
    assert_eq!(world.rig.get("/devices/meter-1").await["status"], "active");
    assert_eq!(world.rig.get(&world.fill("/certificates/{certificate}")).await["status"], "active");
    assert_eq!(browser.get("/").await.status, StatusCode::OK, "still logged in");
}

/// Where the forms of a page lead, but for the log-out that each has.
fn forms(page: &str) -> Vec<String> {
    let forms = page.split("method=\"post\" action=\"").skip(1).filter_map(|rest| rest.split('"').next());
    forms.filter(|action| *action != "/logout").map(str::to_owned).collect()
}

/// An address without its ids, which differ from one rig to the next.
fn shape(path: &str) -> String {
    let is_id =
        |part: &str| part.len() >= 32 && part.bytes().all(|octet| octet.is_ascii_hexdigit() || octet == b'-');
    let shape =
        |part: &str| if is_id(part) || part.starts_with('{') { "ID".to_owned() } else { part.to_owned() };
    let path = path.split('?').next().unwrap_or_default();
    path.split('/').map(shape).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_form_of_every_page_needs_its_secret() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    browser.post("/tokens", "device=meter-1&uses=1&ttl_s=3600").await;
    browser.post(&format!("/access/zones/{}/rules", world.zone), "expression=not+ssl&action=log").await;
    browser.post("/access/policies", "name=crew&decision=allow&kind=everyone").await;
    browser.post("/access/groups", "name=all&kind=everyone").await;
    browser.post("/access/apps", "domain=api.example.com/admin&name=admin").await;
    world.rig.waiting_request("meter-7").await;
    let known: Vec<String> = FORMS.iter().map(|path| shape(path)).collect();
    let before = world.rig.get("/audit?per_page=1").await[0]["number"].clone();
    let mut count = 0;
    for page in PAGES {
        let seen = browser.get(&world.fill(page)).await.text;
        for action in forms(&seen) {
            let sent = browser.send("POST", &action, &[], "csrf=x").await;
            assert_eq!(sent.status, StatusCode::FORBIDDEN, "{page}: {action}");
            count += 1;
        }
        assert_eq!(seen.matches("method=\"post\"").count(), seen.matches("name=\"csrf\"").count(), "{page}");
    }
    assert!(count > 25, "{count} forms");
    assert_eq!(world.rig.get("/audit?per_page=1").await[0]["number"], before, "nothing was done");
    let seen = browser.get("/devices/meter-1").await.text;
    assert!(forms(&seen).iter().all(|action| known.contains(&shape(action))), "{:?}", forms(&seen));
}

#[tokio::test]
async fn nothing_that_somebody_wrote_is_more_than_text_on_any_page() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    let rig = &world.rig;
    let markup = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let account = format!("/accounts/{}", rig.account);
    let everyone = json!([{ "everyone": {} }]);
    for (method, path, body) in [
        ("PATCH", rig.own("/devices/meter-1"), json!({ "note": markup, "labels": { "x": markup } })),
        (
            "POST",
            format!("{account}/mtls_certificates"),
            json!({ "ca": true, "certificates": HOSTILE, "name": markup }),
        ),
        ("POST", format!("{account}/access/groups"), json!({ "name": markup, "include": everyone })),
        (
            "POST",
            format!("{account}/access/policies"),
            json!({ "name": markup, "decision": "allow", "include": everyone }),
        ),
        (
            "POST",
            format!("{account}/access/apps"),
            json!({ "name": markup, "domain": "api.example.com", "type": "self_hosted" }),
        ),
        (
            "POST",
            rig.own("/webhooks"),
            json!({ "name": markup, "url": "https://hooks.example.com/%3Cscript%3E" }),
        ),
        ("POST", rig.own("/admin_tokens"), json!({ "name": markup, "role": "reader" })),
    ] {
        let made = rig.send(method, &path, &body.to_string()).await;
        assert!(made.status.is_success(), "{path}: {}", made.message());
    }
    let cas = rig.get("/cas").await;
    let hostile = cas.as_array().expect("a list").iter().find(|ca| text(&ca["title"]).contains("script"));
    let hostile = format!("/cas/{}", text(&hostile.expect("uploaded")["id"]));
    let pasted: String = form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    let tried = format!("/access/test?host=api.example.com&pem={pasted}");
    let mut quoting = Vec::new();
    let pages = PAGES.iter().map(|path| world.fill(path)).chain([hostile.clone(), tried]);
    for path in pages {
        let seen = browser.get(&path).await;
        assert_eq!(seen.status, StatusCode::OK, "{path}");
        if path.ends_with(".pem") || path.ends_with("/pem") {
            assert_eq!(seen.headers["content-type"], "application/x-pem-file", "{path}");
            continue;
        }
        for forbidden in ["<script>", "<img", "<svg onload", "onerror=alert(1)>"] {
            assert!(!seen.text.contains(forbidden), "{path} has {forbidden}: {}", seen.text);
        }
        if seen.text.contains("&lt;script") {
            quoting.push(path);
        }
    }
    for page in ["/access", "/cas", "/devices/meter-1", "/settings", "/webhooks"] {
        assert!(quoting.iter().any(|path| path == page), "{page} shows nothing of it: {quoting:?}");
    }
    let subject = browser.get(&hostile).await.text;
    assert!(subject.contains("&lt;svg onload=x\\&gt;"), "the subject is shown: {subject}");
}

#[tokio::test]
async fn a_change_made_by_a_script_leads_to_its_page_and_ids_of_the_audit_lead_to_theirs() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    let fields = format!("csrf={}", browser.csrf);
    let path = "/devices/meter-1/status?to=suspended";
    let seen = browser.send("POST", path, &[("hx-request", "true")], &fields).await;
    assert_eq!(
        (seen.status, &seen.headers["hx-redirect"]),
        (StatusCode::OK, &"/devices/meter-1".parse().expect("a value"))
    );
    assert!(browser.get("/devices/meter-1").await.text.contains("The device is suspended now."));
    browser.post("/tokens", "device=meter-1&uses=1&ttl_s=3600").await;
    let token = text(&world.rig.get("/tokens").await[0]["id"]);
    let serial = text(&world.rig.get("/certificates").await[0]["serial_number"]);
    let audit = browser.get("/audit").await.text;
    for link in [
        format!("/tokens?id={token}"),
        format!("/certificates?q={serial}"),
        world.fill("/certificates/{certificate}"),
        world.fill("/cas/{ca}"),
        world.fill("/settings#zone-{zone}"),
        "/settings#profile-default".to_owned(),
        "/hosts/api.example.com".to_owned(),
    ] {
        assert!(audit.contains(&format!("href=\"{link}\"")), "{link}: {audit}");
        let page = link.split('#').next().unwrap_or_default().to_owned();
        let seen = browser.get(&page).await;
        assert_eq!(seen.status, StatusCode::OK, "{link}");
        if let Some((_, place)) = link.split_once('#') {
            assert!(seen.text.contains(&format!("id=\"{place}\"")), "{link}");
        }
    }
    let seen = browser.get(&format!("/tokens?id={token}")).await.text;
    assert!(seen.contains(&token) && seen.contains("1 in all"), "{seen}");
    assert!(audit.contains("href=\"/settings#token-"), "who did it: {audit}");
}

#[tokio::test]
async fn connections_are_shown_and_closed_on_the_page_of_their_device() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    let seen = browser.get("/devices/meter-1").await.text;
    assert!(
        seen.contains("192.0.2.1:4711") && seen.contains("/devices/meter-1/connections/server.5/close"),
        "{seen}"
    );
    let closed = browser.post("/devices/meter-1/connections/server.5/close", "").await.text;
    assert!(closed.contains("Closed connections: 1.") && closed.contains("connections-closed"), "{closed}");
    for wrong in ["server.4", "other.5", "5", "x"] {
        let seen = browser.post(&format!("/devices/meter-1/connections/{wrong}/close"), "").await.text;
        assert!(seen.contains("there is no such connection"), "{wrong}: {seen}");
    }
    let token =
        json!({ "name": "watch", "permissions": ["fleet:read", "account:read", "connections:write"] });
    let (mut watch, ..) = Browser::with(&world.rig, token).await;
    let seen = watch.get("/devices/meter-1").await.text;
    assert!(seen.contains("connections/server.5/close") && !seen.contains("Suspend"), "{seen}");
    let (mut reader, ..) = Browser::of(&world.rig, "reader").await;
    let seen = reader.get("/devices/meter-1").await.text;
    assert!(seen.contains("192.0.2.1:4711") && !seen.contains("/close"), "{seen}");
}

#[tokio::test]
async fn a_ca_elsewhere_has_its_list_and_what_is_revoked_on_its_page() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    let page = world.fill("/cas/{elsewhere}");
    let seen = browser.get(&page).await.text;
    assert!(seen.contains("<code>02</code>") && seen.contains("uploaded"), "{seen}");
    let seen = browser.get(&format!("{page}/revoked")).await.text;
    assert!(seen.contains("<code>1002</code>") && seen.contains("keyCompromise"), "{seen}");
    let print = "AB".repeat(32);
    browser.post(&format!("{page}/revoked"), &format!("name={print}&reason=superseded")).await;
    let seen = browser.get(&format!("{page}/revoked?q={print}")).await.text;
    assert!(seen.contains(&print.to_lowercase()) && seen.contains("superseded"), "{seen}");
    browser.post(&format!("{page}/revoked/1003/reinstate"), "").await;
    assert!(!browser.get(&format!("{page}/revoked")).await.text.contains("1003"));
    let told = browser.post(&format!("{page}/crl/settings"), "every_s=x&when_stale=open").await.text;
    assert!(told.contains("invalid type"), "{told}");
    let told = browser.post(&format!("{page}/crl/settings"), "every_s=600&when_stale=open").await.text;
    assert!(told.contains("the last CRL stays in force"), "{told}");
    let told = browser.post(&format!("{page}/crl"), "crl=no+list").await.text;
    assert!(told.contains("neither PEM nor DER"), "{told}");
    let told = browser.post(&format!("{page}/crl/fetch"), "").await.text;
    assert!(told.contains("set the URL that it is fetched from first"), "{told}");
}

#[tokio::test]
async fn a_page_beyond_the_last_leads_back_to_it() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "reader").await;
    let ids: Vec<Value> = (0..60).map(|number| json!({ "id": format!("valve-{number}") })).collect();
    world.rig.post("/devices/import", Value::Array(ids)).await;
    let seen = browser.get("/devices?page=50").await.text;
    assert!(seen.contains("page=2\" rel=\"prev\""), "{seen}");
}

#[tokio::test]
async fn a_reader_sees_all_and_changes_nothing() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "reader").await;
    for path in PAGES {
        let seen = browser.get(&world.fill(path)).await;
        assert_eq!(seen.status, StatusCode::OK, "{path}");
        let forms = seen.text.matches("method=\"post\"").count();
        assert!(forms <= 1, "{path}: only the log-out is a form for a reader");
    }
    for path in FORMS.iter().filter(|path| **path != "/logout") {
        let seen = browser.post(&world.fill(path), "ids=x&host=new.example.com&name=x").await;
        assert!(seen.text.contains("lacks the permission"), "{path}: {}", seen.text);
    }
    assert_eq!(world.rig.get("/devices").await.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn who_runs_the_fleet_alone_has_the_forms_of_the_fleet_alone() {
    let world = World::new().await;
    let permissions = json!(["fleet:write", "certificates:read", "account:read", "zone:read"]);
    let token = json!({ "name": "operator", "permissions": permissions });
    let (mut browser, ..) = Browser::with(&world.rig, token).await;
    let forms = |seen: Seen| seen.text.matches("method=\"post\"").count();
    assert!(forms(browser.get("/devices/meter-1").await) > 1);
    assert_eq!(forms(browser.get("/hosts/api.example.com").await), 1, "the log-out");
    assert_eq!(forms(browser.get("/settings").await), 1);
    browser.post("/devices/meter-1/status?to=suspended", "").await;
    assert_eq!(world.rig.get("/devices/meter-1").await["status"], "suspended");
    let seen = browser.post("/hosts/api.example.com/remove", "").await;
    assert!(seen.text.contains("lacks the permission"), "{}", seen.text);
}

#[tokio::test]
async fn a_revoked_token_ends_its_sessions_and_so_does_logging_out() {
    let world = World::new().await;
    let (mut browser, _, id) = Browser::of(&world.rig, "admin").await;
    let gone = world.rig.send("DELETE", &world.rig.own(&format!("/admin_tokens/{id}")), "").await;
    assert_eq!(gone.status, StatusCode::OK);
    assert_eq!(browser.get("/").await.to(), "/login");
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    let kept = browser.cookie.clone();
    browser.post("/logout", "").await;
    browser.cookie = kept;
    assert_eq!(browser.get("/").await.to(), "/login", "the old cookie is worth nothing");
}

#[tokio::test]
async fn what_people_and_devices_write_is_only_text() {
    let world = World::new().await;
    let script = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let edit = json!({ "note": script, "labels": { "x": script }, "groups": [] });
    assert_eq!(world.rig.edit("meter-1", edit).await.status, StatusCode::OK);
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    for path in [
        "/devices/meter-1",
        "/devices?q=%3Cscript%3Ealert(1)%3C/script%3E",
        "/certificates?q=%22%3E%3Cimg",
        "/tokens?device=%22%3E%3Cimg",
    ] {
        let seen = browser.get(path).await;
        assert!(!seen.text.contains("<script>") && !seen.text.contains("<img"), "{path}: {}", seen.text);
    }
    assert!(browser.get("/devices/meter-1").await.text.contains("&lt;script&gt;"));
    // What a CA is called, and says that it is called.
    let ca = json!({ "ca": true, "certificates": MAKER, "name": script }).to_string();
    let path = format!("/accounts/{}/mtls_certificates", world.rig.account);
    let uploaded = world.rig.send("POST", &path, &ca).await;
    assert_eq!(uploaded.status, StatusCode::OK, "{}", uploaded.message());
    let id = text(&uploaded.body["result"]["id"]);
    for path in
        ["/cas".to_owned(), format!("/cas/{id}"), "/hosts/api.example.com".to_owned(), "/audit".to_owned()]
    {
        let seen = browser.get(&path).await.text;
        assert!(!seen.contains("<script>") && !seen.contains("<img"), "{path}: {seen}");
    }
    // Rules, policies and groups, and what is tried.
    let quoted = form_urlencoded::byte_serialize(script.as_bytes()).collect::<String>();
    let rule = format!("expression=http.host+eq+r%23%22{quoted}%22%23&action=log&description={quoted}");
    browser.post(&format!("/access/zones/{}/rules", world.zone), &rule).await;
    browser
        .post("/access/policies", &format!("name={quoted}&decision=allow&kind=common_name&values={quoted}"))
        .await;
    browser.post("/access/groups", &format!("name={quoted}&kind=everyone")).await;
    let fields = ["host", "certificate", "pem", "source", "path", "client_id", "topic"];
    let query = fields.map(|field| format!("{field}={quoted}")).join("&");
    for path in ["/access".to_owned(), format!("/access/test?{query}")] {
        let seen = browser.get(&path).await.text;
        assert!(seen.contains("&lt;script&gt;"), "{path}: {seen}");
        assert!(!seen.contains("<script>") && !seen.contains("<img"), "{path}: {seen}");
    }
    let seen = browser.post("/hosts", "host=%3Cscript%3E").await;
    assert!(!seen.text.contains("<script>") && seen.text.contains("class=\"flash failed\""), "{}", seen.text);
}

#[tokio::test]
async fn access_rules_are_made_tried_and_taken_away_on_their_page() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    let rules = format!("/access/zones/{}/rules", world.zone);
    // The first rule of a zone makes its list; the second joins it.
    let seen = browser
        .post(&rules, "expression=http.request.uri.path+eq+%22/x%22&action=block&description=no+x")
        .await;
    assert!(seen.text.contains("The rule is in force.") && seen.text.contains("no x"), "{}", seen.text);
    browser.post(&rules, "expression=not+ssl&action=log").await;
    let seen = browser.post(&rules, "expression=ssl+and&action=block").await;
    assert!(seen.text.contains("flash failed") && seen.text.contains("position 7"), "{}", seen.text);
    let blocked = browser.get("/access/test?host=api.example.com&path=/x").await.text;
    assert!(blocked.contains("refused") && blocked.contains("Rule 1 of the zone blocks it"), "{blocked}");
    let noted = browser.get("/access/test?host=api.example.com&path=/y").await.text;
    assert!(noted.contains("gets in") && noted.contains("Logged by rule 2"), "{noted}");

    let page = browser.get("/access").await.text;
    let at = page.find(&format!("/access/zones/{}/", world.zone)).expect("a form of a rule");
    let list = page.match_indices("/off\"").next().expect("a rule that is on").0;
    let path = page[..list].rsplit('"').next().expect("its address").to_owned();
    assert!(at > 0 && path.starts_with("/access/zones/"), "{path}");
    browser.post(&format!("{path}/off"), "").await;
    assert!(browser.get("/access/test?host=api.example.com&path=/x").await.text.contains("gets in"));
    browser.post(&format!("{path}/edit"), "expression=http.request.uri.path+eq+%22/z%22&action=block").await;
    browser.post(&format!("{path}/on"), "").await;
    assert!(browser.get("/access/test?host=api.example.com&path=/z").await.text.contains("refused"));
    browser.post(&format!("{path}/remove"), "").await;
    assert!(browser.get("/access/test?host=api.example.com&path=/z").await.text.contains("gets in"));

    browser.post("/access/groups", "name=ops&kind=common_name&values=boss+chief").await;
    let groups = world.rig.send("GET", &format!("/accounts/{}/access/groups", world.rig.account), "").await;
    let group = text(&groups.body["result"][0]["id"]);
    browser.post("/access/policies", &format!("name=crew&decision=allow&kind=group&group={group}")).await;
    let policies =
        world.rig.send("GET", &format!("/accounts/{}/access/policies", world.rig.account), "").await;
    let policy = text(&policies.body["result"][0]["id"]);
    let seen = browser
        .post("/access/apps", &format!("domain=api.example.com/admin&name=admin&policies={policy}"))
        .await;
    assert!(
        seen.text.contains("The application is in force.") && seen.text.contains("crew"),
        "{}",
        seen.text
    );
    let denied = browser.get("/access/test?host=api.example.com&path=/admin/x").await.text;
    assert!(denied.contains("No policy of the application at api.example.com/admin"), "{denied}");
    browser.post("/access/policies", "name=lan&decision=bypass&kind=ip&values=192.0.2.0/24").await;
    let lan = world.rig.send("GET", &format!("/accounts/{}/access/policies", world.rig.account), "").await;
    let lan =
        lan.body["result"].as_array().expect("a list").iter().find(|policy| policy["name"] == "lan").cloned();
    let app = world.rig.send("GET", &format!("/accounts/{}/access/apps", world.rig.account), "").await;
    let (app, lan) = (text(&app.body["result"][0]["id"]), lan.expect("made"));
    let wanted =
        json!({ "domain": "api.example.com/admin", "type": "self_hosted", "policies": [policy, lan["id"]] });
    world
        .rig
        .send("PUT", &format!("/accounts/{}/access/apps/{app}", world.rig.account), &wanted.to_string())
        .await;
    let local = browser.get("/access/test?host=api.example.com&path=/admin&source=192.0.2.9").await.text;
    // Of two policies the second is meant, and it is looked at first.
    assert!(local.contains("lets it in by its policy &quot;lan&quot;"), "{local}");
    for path in [format!("/access/policies/{policy}/remove"), format!("/access/groups/{group}/remove")] {
        assert!(browser.post(&path, "").await.text.contains("is used by"), "{path}");
    }
    browser.post(&format!("/access/apps/{app}/remove"), "").await;
    browser.post(&format!("/access/policies/{policy}/remove"), "").await;
    let seen = browser.post(&format!("/access/groups/{group}/remove"), "").await;
    assert!(seen.text.contains("There are no groups."), "{}", seen.text);
    let wrong = browser.get("/access/test?host=api.example.com&source=nowhere").await.text;
    assert!(wrong.contains("flash failed") && wrong.contains("source"), "{wrong}");
}

#[tokio::test]
async fn a_device_is_led_through_its_life() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    let seen = browser.post("/devices", "ids=a%0D%0Ab&groups=field,north").await;
    assert!(seen.text.contains("Added 2 devices."), "{}", seen.text);
    browser.post("/devices/a", "groups=south&labels=site%3D7%0Aempty&note=hello").await;
    let device = world.rig.get("/devices/a").await;
    assert_eq!((&device["groups"], &device["note"]), (&json!(["south"]), &json!("hello")));
    assert_eq!(device["labels"], json!({ "site": "7", "empty": "" }));
    for to in ["suspended", "active", "retired"] {
        browser.post(&format!("/devices/a/status?to={to}"), "").await;
        assert_eq!(world.rig.get("/devices/a").await["status"], to);
    }
    let seen = browser.post("/devices/a/status?to=active", "").await;
    assert!(seen.text.contains("retired for good"), "{}", seen.text);
}

#[tokio::test]
async fn a_token_is_shown_once_with_a_code_to_scan() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    let seen = browser.post("/tokens", "device=meter-9&uses=1&ttl_s=3600").await;
    let at = seen.text.find("mst_").expect("the secret");
    let secret = seen.text[at..at + 47].to_owned();
    assert!(seen.text.contains("<svg"), "a QR code");
    assert!(seen.text.contains("enroll --server https://est.example.com:8443 "), "{}", seen.text);
    for path in ["/tokens", "/devices?q=meter", "/audit"] {
        assert!(!browser.get(path).await.text.contains(&secret), "{path}");
    }
    let claim = browser.post("/tokens", "device=&uses=5&ttl_s=3600").await;
    assert!(claim.text.contains("mst_"), "{}", claim.text);
    let listed = world.rig.get("/tokens").await;
    let claim = |wanted: bool| {
        let tokens = listed.as_array().expect("a list");
        tokens.iter().find(|token| token["claim"] == wanted).expect("one of both kinds")
    };
    assert_eq!(claim(true)["uses_allowed"], 5);
    let id = text(&claim(false)["id"]);
    browser.post(&format!("/tokens/{id}/revoke"), "").await;
    assert_eq!(world.rig.get(&format!("/tokens/{id}")).await["status"], "revoked");
}

#[tokio::test]
async fn a_hostname_is_edited_and_tested_before_the_edge_is_asked() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    let test = "/hosts/api.example.com/test?q=meter-1";
    assert!(browser.get(test).await.text.contains("gets in"));
    let revoke = world.fill("/certificates/{certificate}/revoke");
    let seen = browser.post(&revoke, "reason=keyCompromise").await;
    assert!(seen.text.contains("Revoked: the edge"), "{}", seen.text);
    assert!(browser.get(test).await.text.contains("certificate_revoked"));
    browser.post(&world.fill("/certificates/{certificate}/reactivate"), "").await;
    browser.post("/devices/meter-1/status?to=suspended", "").await;
    assert!(browser.get(test).await.text.contains("device_suspended"));
    browser.post("/devices/meter-1/status?to=active", "").await;
    let fields = "mode=require&protocols=mqtt&origins=&min_tls=1.3&when_stale=closed";
    browser.post("/hosts/api.example.com", fields).await;
    assert!(browser.get(test).await.text.contains("mqtt: "));
    for (wish, kept, is_taken) in [
        ("0", 0, true),
        ("7", 7, true),
        ("86401", 7, false),
        ("-1", 7, false),
        ("soon", 7, false),
        ("", 7, true),
    ] {
        let seen = browser.post("/hosts/api.example.com", &format!("{fields}&origin_timeout_s={wish}")).await;
        let is_set = world.rig.get("/hosts/api.example.com").await["origin_timeout_s"].clone();
        assert_eq!(is_set, kept, "{wish}: {}", seen.text);
        assert_eq!(seen.text.contains("Saved; the change"), is_taken, "{wish}: {}", seen.text);
        assert_eq!(seen.text.contains("flash failed"), !is_taken, "{wish}: {}", seen.text);
    }
    world.rig.advance(91 * 86_400);
    // The session ended with the days.
    assert_eq!(browser.get(test).await.to(), "/login");
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    assert!(browser.get(test).await.text.contains("certificate_expired"));
    assert!(
        browser
            .get("/hosts/api.example.com/test?q=nobody")
            .await
            .text
            .contains("there is no such certificate")
    );
    browser.post("/hosts/api.example.com/remove", "").await;
    assert_eq!(world.rig.get("/hosts").await, json!([]));
}

#[tokio::test]
async fn a_certificate_of_a_ca_that_the_hostname_does_not_take_is_told() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    browser.post("/cas/rotate", "role=devices").await;
    let cas = world.rig.get("/cas?role=devices&state=active").await;
    let fields = format!("mode=require&protocols=https&cas={}", text(&cas[0]["id"]));
    browser.post("/hosts/api.example.com", &fields).await;
    let seen = browser.get("/hosts/api.example.com/test?q=meter-1").await;
    assert!(seen.text.contains("ca_not_accepted"), "{}", seen.text);
}

#[tokio::test]
async fn a_device_that_does_not_renew_is_named_on_the_first_page() {
    let world = World::new().await;
    assert_eq!(world.rig.get("/lapsing").await["count"], 0);
    world.rig.advance(88 * 86_400);
    let lapsing = world.rig.get("/lapsing").await;
    assert_eq!((&lapsing["count"], &lapsing["devices"][0]["device"]), (&json!(1), &json!("meter-1")));
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    assert!(browser.get("/").await.text.contains("meter-1"));
    world.rig.post("/certificates/sign", json!({ "csr": CSR })).await;
    assert_eq!(world.rig.get("/lapsing").await["count"], 0, "it has a newer one");
}

#[tokio::test]
async fn an_approval_is_given_on_its_page() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    let key = world.rig.waiting_request("meter-7").await;
    assert!(browser.get("/approvals").await.text.contains("meter-7"));
    let seen = browser.post(&format!("/approvals/{key}/approve"), "").await;
    assert!(
        seen.text.contains("Approved") && seen.text.contains("No requests are waiting."),
        "{}",
        seen.text
    );
}
