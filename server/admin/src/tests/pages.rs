//! Single pages of the dashboard, as a browser without scripts uses them: forms, redirects.

use http::StatusCode;
use serde_json::{Value, json};

use super::browser::{Browser, World, state, text};
use super::rig::CSR;

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
    browser.save("/hosts/api.example.com", fields).await;
    assert!(browser.get(test).await.text.contains("mqtt: "));
    for (wish, kept, is_taken) in [
        ("0", 0, true),
        ("7", 7, true),
        ("86401", 7, false),
        ("-1", 7, false),
        ("soon", 7, false),
        ("", 7, true),
    ] {
        let seen = browser.save("/hosts/api.example.com", &format!("{fields}&origin_timeout_s={wish}")).await;
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
async fn a_page_that_was_opened_before_a_change_does_not_undo_it() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    let path = "/hosts/api.example.com";
    let opened = state(&browser.get(path).await.text);
    world.rig.send("PUT", &world.rig.own(path), r#"{"mode":"require","protocols":["mqtt"]}"#).await;
    let changed = world.rig.get(path).await;
    for state in [opened.as_str(), "state=", "", "state=a%00b%0A%22"] {
        let seen = browser.post(path, &format!("{state}&mode=off&protocols=https")).await;
        assert!(seen.text.contains("Not saved, as somebody changed it"), "{}", seen.text);
        assert_eq!(world.rig.get(path).await, changed);
    }
    let seen = browser.save(path, "mode=require&protocols=https").await;
    assert!(seen.text.contains("Saved; the change"), "{}", seen.text);
}

#[tokio::test]
async fn a_certificate_of_a_ca_that_the_hostname_does_not_take_is_told() {
    let world = World::new().await;
    let (mut browser, ..) = Browser::of(&world.rig, "admin").await;
    browser.post("/cas/rotate", "role=devices").await;
    let cas = world.rig.get("/cas?role=devices&state=active").await;
    let fields = format!("mode=require&protocols=https&cas={}", text(&cas[0]["id"]));
    browser.save("/hosts/api.example.com", &fields).await;
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
