//! What holds for every route: each needs its own permission and no other will do, and another account's
//! objects look like missing ones. And what an answer or a page must never hold.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::json;

use super::rig::{LEAF, Rig};
use super::{QUESTIONS, ROUTES, fill};

/// The areas that a token can be limited to.
const AREAS: [&str; 8] =
    ["access", "access-certificates", "account", "certificates", "connections", "fleet", "rules", "zone"];

/// The area of a route; none for those that every good token may use, or only an unlimited one.
fn area(path: &str) -> Option<&'static str> {
    let own = path.strip_prefix("{own}/");
    let first = own.map(|own| own.split('/').next().unwrap_or_default());
    match first {
        Some("admin_tokens" | "backup") => return None,
        Some(_) if path == "{own}/connections/close" => return Some("connections"),
        Some("approvals" | "connections" | "devices" | "profiles" | "tokens") => return Some("fleet"),
        Some("cas" | "certificates" | "hosts" | "lapsing" | "roots") => return Some("certificates"),
        Some("access_test") => return Some("access"),
        Some(_) => return Some("account"),
        None => {}
    }
    Some(match path {
        "/user" | "/memberships" | "/user/tokens/verify" | "/accounts/{account}/tokens/verify" => {
            return None;
        }
        path if path.contains("/access/certificates") => "access-certificates",
        path if path.contains("/access/") => "access",
        path if path.contains("/rulesets") || path.contains("/managed_headers") => "rules",
        path if path.contains("certificate") || path.contains("/origin_tls_client_auth") => "certificates",
        path if path.starts_with("/zones") => "zone",
        _ => "account",
    })
}

#[tokio::test]
async fn every_route_needs_its_own_permission_and_no_other_will_do() {
    let rig = Rig::new().await;
    let mut tokens = Vec::new();
    for area in AREAS {
        for level in ["read", "write"] {
            let wanted = json!({ "name": area, "permissions": [format!("{area}:{level}")] });
            let made = rig.post("/admin_tokens", wanted).await;
            tokens.push((area, level, made["token"].as_str().expect("shown once").to_owned()));
        }
    }
    let mut seen = BTreeSet::new();
    for (method, path) in ROUTES {
        let Some(needed) = area(path) else { continue };
        let reads = *method == "GET" || QUESTIONS.iter().any(|end| path.ends_with(end));
        for (area, level, token) in &tokens {
            let answer = rig.send_as(Some(token), method, &fill(&rig, path), "").await;
            let may = *area == needed && (reads || *level == "write");
            let is_refused = (answer.status, answer.code()) == (StatusCode::FORBIDDEN, 9_109);
            // Some changes are an unlimited administrator's alone, whatever the list says.
            let is_administrators = answer.message().contains("without a list");
            assert_eq!(
                is_refused && !is_administrators,
                !may,
                "{method} {path} by {area}:{level}: {}",
                answer.message()
            );
            if is_refused && !is_administrators {
                let named = format!("({needed}:{})", if reads { "read" } else { "write" });
                assert!(answer.message().contains(&named), "{method} {path}: {}", answer.message());
            }
        }
        seen.insert(needed);
    }
    assert_eq!(seen, AREAS.into(), "every area has routes");
}

#[tokio::test]
async fn every_route_of_another_account_or_zone_looks_missing() {
    let rig = Rig::new().await;
    let other = rig.other_account().await;
    let theirs = format!("/accounts/{}/muster", other.account);
    let (account, zone) = (other.account.to_string(), other.zone.to_string());
    let mut count = 0;
    for (method, path) in ROUTES {
        if !["{own}", "{account}", "{zone}"].iter().any(|part| path.contains(part)) {
            continue;
        }
        let of_other = path.replace("{own}", &theirs).replace("{account}", &account).replace("{zone}", &zone);
        let missing = path.replace("{own}", &format!("/accounts/{}/muster", "f".repeat(32)));
        let missing = missing.replace("{account}", &"f".repeat(32)).replace("{zone}", &"f".repeat(32));
        let text = r#"{"name":"x","decision":"allow","include":[],"rules":[],"hostnames":[],"domain":"a.example","type":"self_hosted"}"#;
        for text in ["", text] {
            let answers = [&of_other, &missing].map(|path| fill(&rig, path));
            let theirs = rig.send(method, &answers[0], text).await;
            let nobodys = rig.send(method, &answers[1], text).await;
            assert!(theirs.status.is_client_error(), "{method} {path}: {}", theirs.status);
            let told =
                |answer: &super::rig::Answer| (answer.status, answer.code(), answer.message().to_owned());
            assert_eq!(told(&theirs), told(&nobodys), "{method} {path}");
        }
        let empty = rig.send(method, &fill(&rig, &of_other), "").await;
        assert_eq!(empty.status, StatusCode::NOT_FOUND, "{method} {path}");
        count += 1;
    }
    assert!(count > 80, "{count} routes");
}

#[tokio::test]
async fn what_becomes_a_header_or_a_name_has_no_line_ends() {
    let rig = Rig::new().await;
    rig.send("POST", "/zones", "{\"name\":\"example.com\"}").await;
    let account = format!("/accounts/{}", rig.account);
    for evil in ["x\r\nSet-Cookie: a=b", "x\nLocation: http://evil.example", "x\0y", "x\u{85}y"] {
        let group = json!({ "name": evil, "include": [{ "everyone": {} }] });
        let rule = json!({ "name": "x", "decision": "allow", "include": [{ "everyone": {} }] });
        let mut policy = rule.clone();
        policy["name"] = json!(evil);
        for (method, path, body) in [
            ("POST", format!("{account}/access/groups"), group),
            ("POST", format!("{account}/access/policies"), policy),
            (
                "POST",
                format!("{account}/access/apps"),
                json!({ "name": evil, "domain": "a.example.com", "type": "self_hosted" }),
            ),
            (
                "POST",
                format!("{account}/access/apps"),
                json!({ "domain": format!("a.example.com/{evil}"), "type": "self_hosted" }),
            ),
            ("POST", format!("{account}/access/certificates"), json!({ "name": evil, "certificate": LEAF })),
            (
                "POST",
                format!("{account}/mtls_certificates"),
                json!({ "name": evil, "ca": false, "certificates": LEAF }),
            ),
            ("POST", rig.own("/devices/import"), json!([{ "id": evil }])),
            ("POST", rig.own("/tokens"), json!({ "device": evil })),
            ("POST", "/zones".to_owned(), json!({ "name": format!("{evil}.example.com") })),
            ("POST", rig.own("/access_test"), json!({ "host": evil })),
            ("POST", rig.own("/access_test"), json!({ "host": "a.example.com", "user_agent": evil })),
            ("POST", rig.own("/access_test"), json!({ "host": "a.example.com", "path": format!("/{evil}") })),
        ] {
            let answer = rig.send(method, &path, &body.to_string()).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}: {}", answer.message());
            for name in ["set-cookie", "location"] {
                assert_eq!(answer.header(name), "", "{path}");
            }
        }
        let host = percent(evil);
        let answer = rig.send("PUT", &rig.own(&format!("/hosts/{host}.example.com")), "{}").await;
        assert!(answer.status.is_client_error(), "{}", answer.status);
    }
}

fn percent(text: &str) -> String {
    text.bytes().map(|octet| format!("%{octet:02x}")).collect()
}
