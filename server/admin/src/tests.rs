//! Every route over a ledger made for the test, in process: success, no token, the wrong role, bad
//! bodies, unknown ids, and the edges of paging.

mod access;
mod batch;
mod browser;
mod carry;
mod cloudflare;
mod connections;
mod dashboard;
mod events;
mod foreign;
mod hosts;
mod idempotency;
mod in_force;
mod live;
mod openapi;
mod origin_pulls;
mod pages;
mod rig;
mod rules_page;
mod security;
mod webhooks;

use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use self::rig::{CSR, CSR_WITHOUT_NAME, LEAF, MAKER, Rig, body};

/// The ends of routes that are questions, though they are sent by POST.
const QUESTIONS: &[&str] = &["/access_test", "/hosts/none.example.com/test"];

/// Every route of the JSON API, with a body that fits.
const ROUTES: &[(&str, &str)] = &[
    ("GET", "/user/tokens/verify"),
    ("GET", "/accounts"),
    ("GET", "/accounts/{account}"),
    ("GET", "/accounts/{account}/tokens/verify"),
    ("GET", "/zones"),
    ("POST", "/zones"),
    ("GET", "/zones/{zone}"),
    ("PATCH", "/zones/{zone}"),
    ("DELETE", "/zones/{zone}"),
    ("GET", "/user"),
    ("GET", "/memberships"),
    ("GET", "/zones/{zone}/client_certificates"),
    ("POST", "/zones/{zone}/client_certificates"),
    ("GET", "/zones/{zone}/client_certificates/{uuid}"),
    ("PATCH", "/zones/{zone}/client_certificates/{uuid}"),
    ("DELETE", "/zones/{zone}/client_certificates/{uuid}"),
    ("GET", "/zones/{zone}/certificate_authorities/hostname_associations"),
    ("PUT", "/zones/{zone}/certificate_authorities/hostname_associations"),
    ("GET", "/accounts/{account}/mtls_certificates"),
    ("POST", "/accounts/{account}/mtls_certificates"),
    ("GET", "/accounts/{account}/mtls_certificates/{uuid}"),
    ("DELETE", "/accounts/{account}/mtls_certificates/{uuid}"),
    ("GET", "/accounts/{account}/mtls_certificates/{uuid}/associations"),
    ("GET", "/accounts/{account}/access/certificates"),
    ("POST", "/accounts/{account}/access/certificates"),
    ("GET", "/accounts/{account}/access/certificates/settings"),
    ("PUT", "/accounts/{account}/access/certificates/settings"),
    ("GET", "/accounts/{account}/access/certificates/{uuid}"),
    ("PUT", "/accounts/{account}/access/certificates/{uuid}"),
    ("DELETE", "/accounts/{account}/access/certificates/{uuid}"),
    ("GET", "/zones/{zone}/access/certificates"),
    ("GET", "/zones/{zone}/rulesets"),
    ("POST", "/zones/{zone}/rulesets"),
    ("DELETE", "/zones/{zone}/rulesets/{uuid}"),
    ("GET", "/zones/{zone}/rulesets/phases/http_request_firewall_custom/entrypoint"),
    ("PUT", "/zones/{zone}/rulesets/phases/http_request_firewall_custom/entrypoint"),
    ("GET", "/zones/{zone}/rulesets/{uuid}"),
    ("PUT", "/zones/{zone}/rulesets/{uuid}"),
    ("POST", "/zones/{zone}/rulesets/{uuid}/rules"),
    ("PATCH", "/zones/{zone}/rulesets/{uuid}/rules/{hex}"),
    ("DELETE", "/zones/{zone}/rulesets/{uuid}/rules/{hex}"),
    ("GET", "/zones/{zone}/origin_tls_client_auth"),
    ("POST", "/zones/{zone}/origin_tls_client_auth"),
    ("GET", "/zones/{zone}/origin_tls_client_auth/settings"),
    ("PUT", "/zones/{zone}/origin_tls_client_auth/settings"),
    ("GET", "/zones/{zone}/origin_tls_client_auth/{uuid}"),
    ("DELETE", "/zones/{zone}/origin_tls_client_auth/{uuid}"),
    ("GET", "/zones/{zone}/origin_tls_client_auth/hostnames"),
    ("PUT", "/zones/{zone}/origin_tls_client_auth/hostnames"),
    ("GET", "/zones/{zone}/origin_tls_client_auth/hostnames/a.example.com"),
    ("GET", "/zones/{zone}/origin_tls_client_auth/hostnames/certificates"),
    ("POST", "/zones/{zone}/origin_tls_client_auth/hostnames/certificates"),
    ("GET", "/zones/{zone}/origin_tls_client_auth/hostnames/certificates/{uuid}"),
    ("DELETE", "/zones/{zone}/origin_tls_client_auth/hostnames/certificates/{uuid}"),
    ("GET", "/zones/{zone}/managed_headers"),
    ("PATCH", "/zones/{zone}/managed_headers"),
    ("DELETE", "/zones/{zone}/managed_headers"),
    ("GET", "/accounts/{account}/access/apps/{uuid}/policies"),
    ("POST", "/accounts/{account}/access/apps/{uuid}/policies"),
    ("GET", "/accounts/{account}/access/apps/{uuid}/policies/{uuid}"),
    ("PUT", "/accounts/{account}/access/apps/{uuid}/policies/{uuid}"),
    ("DELETE", "/accounts/{account}/access/apps/{uuid}/policies/{uuid}"),
    ("GET", "/zones/{zone}/access/apps/{uuid}/policies"),
    ("PUT", "/accounts/{account}/access/apps/{uuid}"),
    ("DELETE", "/accounts/{account}/access/apps/{uuid}"),
    ("POST", "/accounts/{account}/access/policies"),
    ("PUT", "/accounts/{account}/access/policies/{uuid}"),
    ("DELETE", "/accounts/{account}/access/policies/{uuid}"),
    ("POST", "/accounts/{account}/access/groups"),
    ("PUT", "/accounts/{account}/access/groups/{uuid}"),
    ("GET", "/accounts/{account}/access/apps"),
    ("POST", "/accounts/{account}/access/apps"),
    ("GET", "/accounts/{account}/access/apps/{uuid}"),
    ("GET", "/accounts/{account}/access/policies/{uuid}"),
    ("DELETE", "/accounts/{account}/access/groups/{uuid}"),
    ("GET", "/zones/{zone}/access/certificates/{uuid}"),
    ("GET", "{own}/access_test"),
    ("POST", "{own}/access_test"),
    ("GET", "{own}/admin_tokens"),
    ("POST", "{own}/admin_tokens"),
    ("DELETE", "{own}/admin_tokens/{uuid}"),
    ("GET", "{own}/approvals"),
    ("POST", "{own}/approvals/{hex}/approve"),
    ("POST", "{own}/approvals/{hex}/deny"),
    ("GET", "{own}/audit"),
    ("GET", "{own}/audit/verify"),
    ("GET", "{own}/backup"),
    ("GET", "{own}/cas"),
    ("POST", "{own}/cas"),
    ("POST", "{own}/cas/import"),
    ("POST", "{own}/cas/rotate"),
    ("GET", "{own}/cas/{uuid}"),
    ("POST", "{own}/cas/{uuid}/retire"),
    ("GET", "{own}/cas/{uuid}/crl"),
    ("PUT", "{own}/cas/{uuid}/crl"),
    ("POST", "{own}/cas/{uuid}/crl/fetch"),
    ("GET", "{own}/cas/{uuid}/crl/settings"),
    ("PUT", "{own}/cas/{uuid}/crl/settings"),
    ("GET", "{own}/cas/{uuid}/revoked"),
    ("POST", "{own}/cas/{uuid}/revoked"),
    ("DELETE", "{own}/cas/{uuid}/revoked/{hex}"),
    ("GET", "{own}/certificates"),
    ("POST", "{own}/certificates/revoke"),
    ("POST", "{own}/certificates/sign"),
    ("GET", "{own}/certificates/{uuid}"),
    ("POST", "{own}/certificates/{uuid}/reactivate"),
    ("POST", "{own}/certificates/{uuid}/revoke"),
    ("GET", "{own}/connections"),
    ("POST", "{own}/connections/close"),
    ("GET", "{own}/devices"),
    ("PATCH", "{own}/devices"),
    ("POST", "{own}/devices/import"),
    ("GET", "{own}/devices/nobody"),
    ("PATCH", "{own}/devices/nobody"),
    ("GET", "{own}/hosts"),
    ("GET", "{own}/hosts/none.example.com"),
    ("POST", "{own}/hosts/none.example.com/test"),
    ("PUT", "{own}/hosts/new.example.com"),
    ("DELETE", "{own}/hosts/none.example.com"),
    ("GET", "{own}/lapsing"),
    ("GET", "{own}/metrics/summary"),
    ("GET", "{own}/profiles"),
    ("GET", "{own}/profiles/none"),
    ("PUT", "{own}/profiles/new"),
    ("GET", "{own}/roots"),
    ("GET", "{own}/status"),
    ("GET", "{own}/tokens"),
    ("POST", "{own}/tokens"),
    ("GET", "{own}/tokens/{uuid}"),
    ("DELETE", "{own}/tokens/{uuid}"),
    ("GET", "{own}/webhooks"),
    ("POST", "{own}/webhooks"),
    ("GET", "{own}/webhooks/{uuid}"),
    ("DELETE", "{own}/webhooks/{uuid}"),
    ("GET", "{own}/webhooks/{uuid}/dead_letters"),
    ("DELETE", "{own}/webhooks/{uuid}/dead_letters/1"),
    ("POST", "{own}/webhooks/{uuid}/dead_letters/1/redeliver"),
    ("POST", "{own}/webhooks/{uuid}/test"),
];

#[tokio::test]
async fn the_summary_of_metrics_says_what_metrics_says() {
    let rig = Rig::new().await;
    rig.get("/devices").await;
    let summary = rig.get("/metrics/summary").await;
    let requests = &summary["metrics"]["muster_admin_requests_total"];
    assert_eq!((&requests["total"], &requests["by"][0]["labels"]["method"]), (&json!(1.0), &json!("GET")));
    assert!(summary["started_at"].is_string());
}

fn fill(rig: &Rig, path: &str) -> String {
    path.replace("{own}", &rig.own(""))
        .replace("{account}", &rig.account)
        .replace("{zone}", &"0".repeat(32))
        .replace("{uuid}", "01890000-0000-7000-8000-000000000000")
        .replace("{hex}", &"0".repeat(64))
}

#[tokio::test(start_paused = true)]
async fn no_route_answers_without_a_good_token() {
    let rig = Rig::new().await;
    for (method, path) in ROUTES {
        let path = fill(&rig, path);
        for token in [None, Some("msa_wrong"), Some("")] {
            let answer = rig.send_as(token, method, &path, "").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(answer.code(), 10_000);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_tokens_wait_and_a_flood_of_them_is_cut_off_but_a_right_one_is_served() {
    let rig = Rig::new().await;
    let began_at = tokio::time::Instant::now();
    let flood = (0..100).map(|_| rig.send_as(Some("msa_wrong"), "GET", "/accounts", ""));
    let (answers, right) = tokio::join!(join_all(flood), async {
        let right = rig.send("GET", "/accounts", "").await;
        (right.status, began_at.elapsed())
    });
    let cut_off = answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(cut_off.clone().count(), 36);
    assert!(cut_off.clone().all(|answer| answer.header("retry-after") == "1"));
    assert!(began_at.elapsed() >= Duration::from_millis(250));
    assert_eq!((right.0, right.1 < Duration::from_millis(250)), (StatusCode::OK, true));
}

/// Waits for all at once.
async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.map(|future| (Some(Box::pin(future)), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut waiting {
            if let Some(running) = future
                && let Poll::Ready(ready) = running.as_mut().poll(context)
            {
                *output = Some(ready);
                *future = None;
            }
        }
        if waiting.iter().all(|(future, _)| future.is_none()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test]
async fn a_reader_reads_and_changes_nothing() {
    let rig = Rig::new().await;
    let made = rig.post("/admin_tokens", json!({ "name": "auditor", "role": "reader" })).await;
    let token = made["token"].as_str().expect("shown once").to_owned();
    for (method, path) in ROUTES {
        let answer = rig.send_as(Some(&token), method, &fill(&rig, path), "").await;
        let asks = QUESTIONS.iter().any(|end| path.ends_with(end));
        let may = (*method == "GET" && !path.ends_with("/backup")) || asks;
        assert_eq!(answer.status == StatusCode::FORBIDDEN, !may, "{method} {path}: {}", answer.status);
        if !may {
            assert_eq!(answer.code(), 9_109);
            let message = answer.message();
            assert!(message.contains("admin") || message.contains("Write"), "{message}");
        }
    }
}

#[tokio::test]
async fn every_answer_is_an_envelope() {
    let rig = Rig::new().await;
    for (method, path) in ROUTES.iter().filter(|(_, path)| !path.ends_with("/backup")) {
        for text in ["", "{", "[]", "{\"x\":1}"] {
            let answer = rig.send(method, &fill(&rig, path), text).await;
            assert!(answer.status.as_u16() < 500, "{method} {path} {text}: {}", answer.status);
            let fields = answer.body.as_object().expect("an object");
            for name in ["success", "errors", "messages", "result"] {
                assert!(fields.contains_key(name), "{method} {path}: {name}");
            }
            assert_eq!(answer.body["success"], answer.status.is_success());
            assert_eq!(answer.header("content-type"), "application/json");
            assert!(answer.header("x-request-id").len() == 16);
        }
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_told_in_the_envelope() {
    let rig = Rig::new().await;
    let answer = rig.send("GET", "/nothing", "").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, 7_000));
    let answer = rig.send("DELETE", &rig.own("/devices"), "").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::METHOD_NOT_ALLOWED, 7_001));
}

#[tokio::test]
async fn malformed_json_is_6007_and_a_large_body_413() {
    let rig = Rig::new().await;
    let answer = rig.send("POST", "/zones", "{\"name\":").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, 6_007));
    let answer = rig.send("POST", "/zones", &"x".repeat(crate::request::BODY_MAX_BYTES + 1)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, 1_413));
}

#[tokio::test]
async fn bodies_are_json_whatever_their_content_type_says() {
    let rig = Rig::new().await;
    let answer =
        rig.send_typed("text/plain;charset=UTF-8", "POST", "/zones", "{\"name\":\"a.example\"}").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body["result"]["name"], "a.example");
}

#[tokio::test]
async fn what_is_not_there_is_404() {
    let rig = Rig::new().await;
    for (method, path) in ROUTES {
        let named = ["{uuid}", "{hex}", "{zone}", "nobody", "none"].iter().any(|name| path.contains(name));
        if named {
            let text = match *method {
                "PATCH" => "{\"note\":\"x\"}",
                _ if path.ends_with("/test") => "{\"certificate\":\"x\"}",
                _ if path.ends_with("/rules") => "{\"expression\":\"ssl\",\"action\":\"log\"}",
                "PUT" if path.ends_with("/crl") => "{\"crl\":\"x\"}",
                "PUT" if path.contains("/rulesets/") => "{\"rules\":[]}",
                "POST" | "PUT" if path.contains("/policies") => {
                    "{\"name\":\"x\",\"decision\":\"allow\",\"include\":[{\"everyone\":{}}]}"
                }
                "PUT" if path.contains("/groups/") => "{\"name\":\"x\",\"include\":[]}",
                "PUT" if path.contains("/apps/") => "{\"domain\":\"a.example\",\"type\":\"self_hosted\"}",
                _ => "",
            };
            let answer = rig.send(method, &fill(&rig, path), text).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
            let malformed = fill(&rig, &path.replace("{uuid}", "%2e%2e").replace("{hex}", "x"));
            assert_eq!(rig.send(method, &malformed, text).await.status, StatusCode::NOT_FOUND, "{malformed}");
        }
    }
    for account in [&"0".repeat(32), "x"] {
        let answer = rig.send("GET", &format!("/accounts/{account}/muster/devices"), "").await;
        assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, 7_003));
    }
}

#[tokio::test]
async fn objects_of_another_account_look_missing() {
    let rig = Rig::new().await;
    let other = rig.other_account().await;
    let zone = rig.send("GET", &format!("/zones/{}", other.zone), "").await;
    assert_eq!((zone.status, zone.code()), (StatusCode::NOT_FOUND, 7_003));
    let ca = rig.send("GET", &rig.own(&format!("/cas/{}", other.ca)), "").await;
    assert_eq!((ca.status, ca.code()), (StatusCode::NOT_FOUND, 1_404));
    assert_eq!(rig.plain(&format!("/crl/{}.crl", other.ca)).await.0, StatusCode::NOT_FOUND);
    let token = rig.send("DELETE", &rig.own(&format!("/tokens/{}", other.token)), "").await;
    assert_eq!(token.status, StatusCode::NOT_FOUND);
    assert_eq!(rig.get("/tokens").await, json!([]));
    let zones = rig.send("GET", &format!("/zones?account.id={}", other.account), "").await;
    assert_eq!(zones.body["result"], json!([]));
}

#[tokio::test]
async fn pages_have_edges() {
    let rig = Rig::new().await;
    let rows: Vec<Value> = (0..25).map(|number| json!({ "id": format!("d{number:02}") })).collect();
    rig.post("/devices/import", Value::Array(rows)).await;
    let page = |query: &str| rig.own(&format!("/devices?{query}"));
    let first = rig.send("GET", &page(""), "").await;
    let info = &first.body["result_info"];
    let expected = (json!(1), json!(20), json!(20), json!(25), json!(2));
    let found = ["page", "per_page", "count", "total_count", "total_pages"].map(|name| info[name].clone());
    assert_eq!(found, [expected.0, expected.1, expected.2, expected.3, expected.4]);
    let next = info["cursor"].as_str().expect("there is more");
    let rest = rig.send("GET", &page(&format!("cursor={next}")), "").await;
    assert_eq!(rest.body["result"].as_array().expect("a list").len(), 5);
    assert_eq!(rest.body["result_info"]["cursor"], Value::Null);
    let float = rig.send("GET", &page("page=2.0&per_page=10"), "").await;
    assert_eq!(float.body["result"][0]["id"], "d10");
    let past = rig.send("GET", &page("page=4000000000"), "").await;
    assert_eq!((past.status, &past.body["result"]), (StatusCode::OK, &json!([])));
    for wrong in ["page=0", "page=-1", "per_page=0", "per_page=1001", "per_page=x", "cursor=zz"] {
        let answer = rig.send("GET", &page(wrong), "").await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, 1_400), "{wrong}");
        assert!(answer.body["errors"][0]["source"]["pointer"].is_string());
    }
}

#[tokio::test]
async fn a_token_verifies_itself_until_it_is_revoked() {
    let rig = Rig::new().await;
    let made = rig.post("/admin_tokens", json!({ "name": "ci", "role": "admin", "ttl_s": 60 })).await;
    let token = made["token"].as_str().expect("shown once").to_owned();
    for path in ["/user/tokens/verify".to_owned(), format!("/accounts/{}/tokens/verify", rig.account)] {
        let answer = rig.send_as(Some(&token), "GET", &path, "").await;
        assert_eq!(answer.body["result"]["status"], "active");
        assert_eq!(answer.body["messages"][0]["code"], 10_000);
        let id = made["id"].as_str().expect("an id").replace('-', "");
        assert_eq!(answer.body["result"]["id"], id);
    }
    assert!(rig.get("/admin_tokens").await[0].get("token").is_none());
    rig.send("DELETE", &rig.own(&format!("/admin_tokens/{}", made["id"].as_str().expect("an id"))), "").await;
    let answer = rig.send_as(Some(&token), "GET", "/user/tokens/verify", "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_admin_token_ends() {
    let rig = Rig::new().await;
    let made = rig.post("/admin_tokens", json!({ "name": "short", "role": "admin", "ttl_s": 60 })).await;
    let token = made["token"].as_str().expect("shown once").to_owned();
    rig.advance(61);
    assert_eq!(rig.send_as(Some(&token), "GET", "/accounts", "").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(rig.get("/admin_tokens").await[0]["status"], "expired");
}

#[tokio::test]
async fn zones_have_what_sdks_read() {
    let rig = Rig::new().await;
    let wanted = json!({ "name": "B.Example.", "account": { "id": rig.account } }).to_string();
    let made = rig.send("POST", "/zones", &wanted).await;
    assert_eq!(made.body["result"]["name"], "b.example");
    assert_eq!(rig.zones_changed(), 1);
    for name in ["activated_on", "meta", "name_servers", "original_registrar", "owner", "plan", "type"] {
        assert!(made.body["result"].get(name).is_some(), "{name}");
    }
    let again = rig.send("POST", "/zones", "{\"name\":\"b.example\"}").await;
    assert_eq!((again.status, again.header("x-should-retry").as_str()), (StatusCode::CONFLICT, "false"));
    let found = rig.send("GET", "/zones?name=b.example", "").await;
    assert_eq!(found.body["result"].as_array().expect("a list").len(), 1);
    assert_eq!(rig.send("GET", "/zones?name=c.example", "").await.body["result"], json!([]));
    let id = made.body["result"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(rig.send("GET", &format!("/zones/{id}"), "").await.body["result"], made.body["result"]);
    for wrong in [json!({}), json!({ "name": "a b" }), json!({ "name": 1 })] {
        assert_eq!(rig.send("POST", "/zones", &wrong.to_string()).await.status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn an_import_is_whole_or_nothing_and_names_the_row() {
    let rig = Rig::new().await;
    let long = "x".repeat(300);
    for (rows, pointer) in [
        (json!([{ "id": "a" }, { "id": "b c" }]), "/1/id"),
        (json!([{ "id": "a" }, { "id": "b" }, { "id": "a" }]), "/2/id"),
        (json!([{ "id": "a", "note": long }]), "/0/note"),
        (json!([{ "id": "a" }, { "id": "b", "manufacturer_serial": "1" }]), "/1/manufacturer_serial"),
        (json!([{ "id": "a" }, { "colour": 1 }]), "/1/colour"),
        (json!([{ "id": "a", "labels": { "x": 1 } }]), "/0/labels/x"),
    ] {
        let answer = rig.send("POST", &rig.own("/devices/import"), &rows.to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{rows}");
        assert_eq!(answer.body["errors"][0]["source"]["pointer"], pointer);
        assert_eq!(rig.get("/devices").await, json!([]));
    }
    let rows: Vec<Value> = (0..10_001).map(|number| json!({ "id": format!("d{number}") })).collect();
    let answer = rig.send("POST", &rig.own("/devices/import"), &Value::Array(rows).to_string()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let once = json!([{ "id": "a", "groups": ["g"] }]);
    assert_eq!(rig.post("/devices/import", once.clone()).await["created"], 1);
    assert_eq!(rig.post("/devices/import", once.clone()).await["kept"], 1);
    let refused = rig.send("POST", &rig.own("/devices/import?on_existing=refuse"), &once.to_string()).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let wrong = rig.send("POST", &rig.own("/devices/import?on_existing=x"), &once.to_string()).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_serial_is_listed_under_its_manufacturer() {
    let rig = Rig::new().await;
    let maker =
        rig.post("/cas/import", json!({ "pem": MAKER, "use": "manufacturer", "name": "Maker" })).await;
    assert_eq!((&maker["role"], &maker["has_key"]), (&json!("manufacturer"), &json!(false)));
    rig.post("/devices/import", json!([{ "id": "a", "manufacturer_serial": "S/1" }])).await;
    let shown = rig.get("/devices/a").await;
    assert_eq!((&shown["manufacturer"], &shown["manufacturer_serial"]), (&maker["id"], &json!("S/1")));
    let taken = json!([{ "id": "b" }, { "id": "c", "manufacturer_serial": "S/1" }]);
    let answer = rig.send("POST", &rig.own("/devices/import"), &taken.to_string()).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(answer.body["errors"][0]["source"]["pointer"], "/1/manufacturer_serial");
    let cleared = rig.edit("a", json!({ "manufacturer_serial": null })).await;
    assert_eq!(cleared.body["result"]["manufacturer_serial"], Value::Null);
}

#[tokio::test]
async fn a_device_is_edited_and_stays_retired() {
    let rig = Rig::new().await;
    rig.post("/devices/import", json!([{ "id": "a", "note": "old" }])).await;
    let edited = rig.edit("a", json!({ "status": "suspended", "labels": { "x": "1" }, "note": null })).await;
    let result = &edited.body["result"];
    assert_eq!((&result["status"], &result["labels"]["x"]), (&json!("suspended"), &json!("1")));
    assert_eq!((&result["note"], &result["certificates"]), (&Value::Null, &json!([])));
    let listed = rig.get("/devices?status=suspended").await;
    assert_eq!(listed.as_array().expect("a list").len(), 1);
    rig.edit("a", json!({ "status": "retired" })).await;
    let back = rig.edit("a", json!({ "status": "active", "note": "x" })).await;
    assert_eq!(back.status, StatusCode::CONFLICT);
    assert_eq!(rig.get("/devices/a").await["note"], Value::Null);
    for wrong in [json!({ "status": "x" }), json!({ "statuses": 1 })] {
        assert_eq!(rig.edit("a", wrong).await.status, StatusCode::BAD_REQUEST);
    }
    let token = rig.send("POST", &rig.own("/tokens"), &json!({ "device": "a" }).to_string()).await;
    assert_eq!(token.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_token_shows_its_secret_once() {
    let rig = Rig::new().await;
    let made = rig.post("/tokens", json!({ "device": "a", "uses": 2, "ttl_s": 60 })).await;
    assert!(made["token"].as_str().expect("shown").starts_with("mst_"));
    let id = made["id"].as_str().expect("an id").to_owned();
    let shown = rig.get(&format!("/tokens/{id}")).await;
    assert!(shown.get("token").is_none() && shown.get("hash").is_none());
    assert_eq!((&shown["status"], &shown["uses_allowed"]), (&json!("active"), &json!(2)));
    rig.advance(61);
    assert_eq!(rig.get("/tokens?status=expired&device=a").await[0]["id"], made["id"]);
    let revoked = rig.send("DELETE", &rig.own(&format!("/tokens/{id}")), "").await;
    assert_eq!(revoked.body["result"]["status"], "revoked");
    for (wrong, pointer) in [
        (json!({}), "/device"),
        (json!({ "device": "a", "claim": true }), "/device"),
        (json!({ "device": "a b" }), "/device"),
        (json!({ "device": "a", "uses": 0 }), "/uses"),
        (json!({ "device": "a", "ttl_s": 0 }), "/ttl_s"),
        (json!({ "device": "a", "profile": "none" }), "/profile"),
        (json!({ "device": "a", "key_sha256": "00" }), "/key_sha256"),
    ] {
        let answer = rig.send("POST", &rig.own("/tokens"), &wrong.to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert_eq!(answer.body["errors"][0]["source"]["pointer"], pointer);
    }
    assert_eq!(rig.post("/tokens", json!({ "claim": true, "uses": 5 })).await["claim"], true);
}

#[tokio::test]
async fn a_dry_run_explains_and_signs_nothing() {
    let rig = Rig::new().await;
    let would = rig.post("/certificates/sign", json!({ "csr": CSR, "dry_run": true })).await;
    assert_eq!((&would["would_issue"], &would["device"]), (&json!(true), &json!("meter-1")));
    assert!(would["dropped"].as_array().expect("a list").len() == 1, "{would}");
    for (wanted, code, field) in [
        (json!({ "csr": CSR, "profile": "none" }), "profile_unknown", "/profile"),
        (json!({ "csr": CSR, "device": "other" }), "name_mismatch", "/csr/subject/CN"),
        (json!({ "csr": CSR_WITHOUT_NAME }), "subject_empty", "/csr/subject/CN"),
        (json!({ "csr": "AAAA" }), "csr_malformed", "/csr"),
        (json!({ "csr": "" }), "body_malformed", "/body"),
    ] {
        let mut dry = wanted.clone();
        dry["dry_run"] = json!(true);
        let explained = rig.post("/certificates/sign", dry).await;
        assert_eq!((&explained["would_issue"], &explained["code"]), (&json!(false), &json!(code)));
        assert_eq!(explained["field"], field);
        let refused = rig.send("POST", &rig.own("/certificates/sign"), &wanted.to_string()).await;
        assert!(refused.status.is_client_error() && refused.message().contains(code));
        assert_eq!(refused.body["errors"][0]["source"]["pointer"], field);
    }
    assert_eq!(rig.get("/certificates").await, json!([]));
}

#[tokio::test]
async fn a_certificate_is_signed_found_revoked_and_reactivated() {
    let rig = Rig::new().await;
    let signed = rig.post("/certificates/sign", json!({ "csr": CSR })).await;
    assert!(signed["pem"].as_str().expect("PEM").starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_eq!(signed["how"], "operator");
    let serial = signed["serial_number"].as_str().expect("hex");
    let id = signed["id"].as_str().expect("an id");
    let (ca, path) = (signed["ca"].as_str().expect("an id"), format!("/certificates/{id}"));
    for query in [
        "status=active".to_owned(),
        "device=meter-1".to_owned(),
        format!("serial={serial}&ca={ca}"),
        format!("serial={}", serial.to_uppercase()),
    ] {
        let found = rig.get(&format!("/certificates?{query}")).await;
        assert_eq!(found[0]["id"], signed["id"], "{query}");
        assert!(found[0].get("pem").is_none());
    }
    assert_eq!(rig.get(&format!("/certificates?serial={serial}&status=revoked")).await, json!([]));
    assert_eq!(rig.get("/devices/meter-1").await["certificates"][0]["id"], signed["id"]);

    let before = rig.get(&format!("/cas/{ca}/crl")).await["number"].as_u64();
    let revoked = rig.post(&format!("{path}/revoke"), json!({ "reason": "keyCompromise" })).await;
    assert_eq!(
        (&revoked["status"], &revoked["revocation_reason"]),
        (&json!("revoked"), &json!("keyCompromise"))
    );
    let again = rig.post(&format!("{path}/revoke"), json!({})).await;
    assert_eq!(again["revocation_reason"], "keyCompromise");
    assert!(rig.get(&format!("/cas/{ca}/crl")).await["number"].as_u64() > before);
    let wrong = rig.send("POST", &rig.own(&format!("{path}/revoke")), "{\"reason\":\"boredom\"}").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let good = rig.post(&format!("{path}/reactivate"), json!({})).await;
    assert_eq!((&good["status"], &good["revoked_at"]), (&json!("active"), &Value::Null));
}

#[tokio::test]
async fn who_signs_by_hand_has_agreed_already() {
    let rig = Rig::new().await;
    let manual = rig.send("PUT", &rig.own("/profiles/manual"), "{\"approval\":\"manual\"}").await;
    assert_eq!(manual.status, StatusCode::OK);
    rig.post("/certificates/sign", json!({ "csr": CSR, "profile": "manual", "device": "meter-1" })).await;
    assert_eq!(rig.get("/approvals").await, json!([]));
}

#[tokio::test]
async fn cas_are_made_rotated_and_shown_without_keys() {
    let rig = Rig::new().await;
    let cas = rig.get("/cas").await;
    assert_eq!(cas.as_array().expect("a list").len(), 3);
    assert!(!cas.to_string().contains(".key"));
    let devices = rig.get("/cas?role=devices&state=active").await;
    let old = devices[0]["id"].as_str().expect("an id").to_owned();
    let new = rig.post("/cas/rotate", json!({ "role": "devices", "algorithm": "ecdsa-p384" })).await;
    assert_eq!(rig.get(&format!("/cas/{old}")).await["state"], "retiring");
    assert_eq!(
        rig.plain(&format!("/crl/{}.crl", new["id"].as_str().expect("an id"))).await.0,
        StatusCode::OK
    );
    rig.post("/cas", json!({})).await;
    let roots = rig.get("/roots").await;
    assert_eq!(roots["pem"].as_str().expect("PEM").matches("BEGIN CERTIFICATE").count(), 2);
    assert!(rig.zones_changed() == 2);
    let retire = async |root: &Value| {
        let path = rig.own(&format!("/cas/{}/retire", root["id"].as_str().expect("an id")));
        rig.send("POST", &path, "").await.status
    };
    let [new_root, old_root] = ["active", "retiring"].map(|state| format!("/cas?role=root&state={state}"));
    let (new_root, old_root) = (rig.get(&new_root).await, rig.get(&old_root).await);
    assert_eq!(retire(&new_root[0]).await, StatusCode::CONFLICT, "none has replaced it");
    assert_eq!(retire(&rig.get("/cas?role=devices&state=retiring").await[0]).await, StatusCode::CONFLICT);
    assert_eq!(retire(&old_root[0]).await, StatusCode::OK);
    assert_eq!(rig.get("/cas?role=root&state=retired").await[0]["id"], old_root[0]["id"]);
    let roots = rig.get("/roots").await;
    assert_eq!(roots["pem"].as_str().expect("PEM").matches("BEGIN CERTIFICATE").count(), 1);
    for (path, wrong) in [
        ("/cas/rotate", json!({ "role": "root" })),
        ("/cas", json!({ "algorithm": "rsa1024" })),
        ("/cas/import", json!({ "pem": "x" })),
        ("/cas/import", json!({ "pem": MAKER, "use": "x" })),
    ] {
        assert_eq!(
            rig.send("POST", &rig.own(path), &wrong.to_string()).await.status,
            StatusCode::BAD_REQUEST
        );
    }
    let leaf = rig.send("POST", &rig.own("/cas/import"), &json!({ "pem": LEAF }).to_string()).await;
    assert_eq!((leaf.status, leaf.code()), (StatusCode::BAD_REQUEST, 1_411));
    assert_eq!(leaf.body["errors"][0]["source"]["pointer"], "/pem");
}

#[tokio::test]
async fn profiles_show_what_is_in_force() {
    let rig = Rig::new().await;
    let set = rig.send("PUT", &rig.own("/profiles/meters"), "{\"lifetime_s\":3600}").await;
    assert_eq!(set.body["result"]["effective"]["lifetime_s"], 3600);
    let shown = rig.get("/profiles/meters").await;
    assert_eq!(shown["effective"]["approval"], "automatic");
    assert_eq!(shown["written"]["approval"], Value::Null);
    assert_eq!(rig.get("/profiles").await.as_array().expect("a list").len(), 2);
    for (label, text, pointer) in [
        ("meters", "{\"lifetime_s\":1}", "/lifetime_s"),
        ("meters", "{\"colour\":1}", "/colour"),
        ("meters", "{\"keys\":[\"dsa\"]}", "/keys/0"),
        ("simpleenroll", "{}", "/label"),
        ("UPPER", "{}", "/label"),
    ] {
        let answer = rig.send("PUT", &rig.own(&format!("/profiles/{label}")), text).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{label} {text}");
        assert_eq!(answer.body["errors"][0]["source"]["pointer"], pointer);
    }
}

#[tokio::test]
async fn waiting_requests_are_listed_and_decided_once() {
    let rig = Rig::new().await;
    let key = rig.waiting_request("meter-7").await;
    let waiting = rig.get("/approvals").await;
    assert_eq!((&waiting[0]["device"], &waiting[0]["id"]), (&json!("meter-7"), &json!(key)));
    assert!(waiting[0]["csr"].as_str().expect("PEM").contains("BEGIN CERTIFICATE REQUEST"));
    let done = rig.post(&format!("/approvals/{key}/approve"), json!({})).await;
    assert_eq!(done["decision"], "approved");
    let again = rig.send("POST", &rig.own(&format!("/approvals/{key}/deny")), "").await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    assert_eq!(rig.get("/approvals").await, json!([]));
}

#[tokio::test]
async fn the_audit_names_the_actor() {
    let rig = Rig::new().await;
    let made = rig.post("/admin_tokens", json!({ "name": "ops", "role": "admin" })).await;
    let token = made["token"].as_str().expect("shown once").to_owned();
    rig.send_as(Some(&token), "POST", "/zones", "{\"name\":\"z.example\"}").await;
    let added = rig.get("/audit?action=zone-added").await;
    assert_eq!(added[0]["actor"]["admin-token"], made["id"]);
    assert!(!rig.get("/audit").await.to_string().contains(&token));
    let verified = rig.get("/audit/verify").await;
    assert_eq!(verified["sound"], true);
    let wrong = rig.send("GET", &rig.own("/audit?action=x"), "").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn status_counts() {
    let rig = Rig::new().await;
    rig.post("/devices/import", json!([{ "id": "a" }])).await;
    let status = rig.get("/status").await;
    assert_eq!((&status["can_issue"], &status["counts"]["devices_active"]), (&json!(true), &json!(1)));
    assert!(status["ledger"]["commits"].as_u64() > Some(0));
}

#[tokio::test]
async fn a_backup_is_a_stream() {
    let rig = Rig::new().await;
    let response = rig.raw(Some(rig::SECRET), "GET", &rig.own("/backup"), "").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(body(response).await, rig::BACKUP);
}

#[tokio::test]
async fn health_and_metrics_need_no_token() {
    let rig = Rig::new().await;
    assert_eq!(rig.plain("/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
    assert_eq!(rig.plain("/readyz").await, (StatusCode::OK, "ready\n".to_owned()));
    rig.get("/devices").await;
    let (status, text) = rig.plain("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for name in [
        "muster_admin_requests_total{method=\"GET\",status=\"200\"}",
        "muster_ledger_commits_total",
        "muster_tokens 0",
        "# EOF",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_crl_is_cached_by_its_number() {
    let rig = Rig::new().await;
    let ca = rig.get("/cas?role=devices").await[0]["id"].as_str().expect("an id").to_owned();
    rig.get(&format!("/cas/{ca}/crl")).await;
    let path = format!("/crl/{ca}.crl");
    let first = rig.conditional(&path, &[]).await;
    assert_eq!(first.status(), StatusCode::OK);
    let header = |name: &str| first.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(header("content-type"), "application/pkix-crl");
    assert!(header("cache-control").contains("max-age=300"));
    let (etag, modified) = (header("etag"), header("last-modified"));
    for (name, value) in
        [("if-none-match", etag.as_str()), ("if-modified-since", &modified), ("if-none-match", "*")]
    {
        assert_eq!(
            rig.conditional(&path, &[(name, value)]).await.status(),
            StatusCode::NOT_MODIFIED,
            "{name}"
        );
    }
    let ahead = "Fri, 31 Dec 2100 23:59:59 GMT";
    for wrong in [
        &[("if-none-match", "\"999\""), ("if-modified-since", modified.as_str())][..],
        &[("if-modified-since", ahead)],
    ] {
        assert_eq!(rig.conditional(&path, wrong).await.status(), StatusCode::OK, "{wrong:?}");
    }
    for missing in ["/crl/x.crl", "/crl/01890000-0000-7000-8000-000000000000.crl", "/crl/x"] {
        assert_eq!(rig.plain(missing).await.0, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn the_public_listener_has_crls_alone() {
    let rig = Rig::new().await;
    for path in ["/client/v4/accounts", "/metrics", "/healthz"] {
        assert_eq!(rig.public(path).await, StatusCode::NOT_FOUND, "{path}");
    }
}
