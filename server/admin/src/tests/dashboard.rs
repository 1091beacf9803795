//! What holds of every page and form of the dashboard: sessions, secrets, roles, text that stays text.

use http::StatusCode;
use serde_json::json;

use super::browser::{Browser, Seen, World, text};
use super::rig::{HOSTILE, MAKER};

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
