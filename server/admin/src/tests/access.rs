//! Access applications with their policies and groups, and the rules of zones: written, checked, and
//! turned into what the edge enforces.

use http::StatusCode;
use muster_policy::gate::Decision;
use muster_store::record::DocumentKind;
use serde_json::{Value, json};

use super::rig::{Answer, Rig};

async fn make(rig: &Rig, kind: &str, body: &Value) -> Answer {
    rig.send("POST", &format!("/accounts/{}/access/{kind}", rig.account), &body.to_string()).await
}

async fn made(rig: &Rig, kind: &str, body: Value) -> String {
    let answer = make(rig, kind, &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{body}: {}", answer.message());
    answer.body["result"]["id"].as_str().expect("an id").to_owned()
}

async fn with_zone() -> (Rig, String) {
    let rig = Rig::new().await;
    let zone = rig.send("POST", "/zones", "{\"name\":\"example.com\"}").await;
    let id = zone.body["result"]["id"].as_str().expect("an id").to_owned();
    (rig, id)
}

#[tokio::test]
async fn a_policy_whose_group_is_gone_lets_nobody_in() {
    let (rig, _) = with_zone().await;
    let spared = json!({ "name": "spared", "include": [{ "common_name": { "common_name": "thief" } }] });
    let spared = made(&rig, "groups", spared).await;
    let policy = json!({ "name": "in", "decision": "allow", "include": [{ "everyone": {} }],
        "exclude": [{ "group": { "id": spared } }] });
    let policy = made(&rig, "policies", policy).await;
    made(&rig, "apps", json!({ "domain": "a.example.com", "type": "self_hosted", "policies": [policy] }))
        .await;
    rig.remove_group(&spared).await;
    let gate = serde_json::to_value(rig.gate()).expect("JSON");
    let policy = &gate["apps"][0]["policies"][0];
    assert_eq!((&policy["decision"], &policy["visitors"]["include"]), (&json!("deny"), &json!(["Everyone"])));
    assert_eq!(policy["visitors"]["exclude"], json!([]));
}

/// One that matches no request would protect nothing.
#[tokio::test]
async fn a_stored_application_whose_path_no_request_has_denies_all_of_its_hostname() {
    let (rig, _) = with_zone().await;
    let policy = json!({ "name": "in", "decision": "bypass", "include": [{ "everyone": {} }] });
    let policy = made(&rig, "policies", policy).await;
    for domain in ["a.example.com/public", "b.example.com"] {
        let app = json!({ "domain": domain, "type": "self_hosted", "policies": [policy] });
        made(&rig, "apps", app).await;
    }
    let text = json!({ "domain": "a.example.com/a;b", "type": "self_hosted", "policies": [policy] });
    rig.put_document(DocumentKind::AccessApp, 1, &text.to_string()).await;
    let apps: Vec<_> = rig.gate().apps;
    let of = |host: &str| apps.iter().filter(|app| app.host.to_string() == host).collect::<Vec<_>>();
    assert_eq!(of("b.example.com")[0].policies[0].decision, Decision::Bypass);
    let shut = of("a.example.com");
    assert_eq!((shut.len(), &*shut[0].path, shut[0].policies[0].decision), (1, "/", Decision::Deny));
}

#[tokio::test]
async fn an_account_has_so_many_conditions_and_no_more() {
    let (rig, _) = with_zone().await;
    let names = |count: usize| vec![json!({ "common_name": { "common_name": "x" } }); count];
    let group = json!({ "name": "all", "include": names(100), "require": names(100), "exclude": names(99) });
    let group = made(&rig, "groups", group).await;
    let policy = |count: usize| {
        let include = vec![json!({ "group": { "id": group } }); count];
        json!({ "name": "in", "decision": "allow", "include": include })
    };
    let id = made(&rig, "policies", policy(40)).await;
    let app =
        |policies: Value| json!({ "domain": "a.example.com", "type": "self_hosted", "policies": policies });
    let twice = make(&rig, "apps", &app(json!([id, { "id": id, "precedence": 1 }]))).await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST, "a policy that is there twice");
    // 12,000 conditions.
    made(&rig, "apps", app(json!([id]))).await;
    let second = make(&rig, "apps", &app(json!([id]))).await;
    assert_eq!(second.status, StatusCode::BAD_REQUEST, "{}", second.message());
    let path = format!("/accounts/{}/access/policies/{id}", rig.account);
    for (count, status) in [(67, StatusCode::BAD_REQUEST), (66, StatusCode::OK)] {
        let answer = rig.send("PUT", &path, &policy(count).to_string()).await;
        assert_eq!(answer.status, status, "{count}: {}", answer.message());
    }
    assert_eq!(rig.gate().apps.len(), 1);
}

#[tokio::test]
async fn what_is_written_is_what_the_edge_enforces() {
    let (rig, _) = with_zone().await;
    let group = made(
        &rig,
        "groups",
        json!({ "name": "ops", "include": [{ "common_name": { "common_name": "boss" } }] }),
    )
    .await;
    let policy = json!({ "name": "in", "decision": "non_identity",
        "include": [{ "certificate": {} }, { "group": { "id": group } }], "exclude": [{ "ip": { "ip": "192.0.2.0/24" } }] });
    let policy_id = made(&rig, "policies", policy.clone()).await;
    let app = json!({ "name": "admin", "domain": "a.example.com/admin/*", "type": "self_hosted",
        "policies": [{ "id": policy_id, "precedence": 1 }] });
    let app_id = made(&rig, "apps", app).await;
    let base = format!("/accounts/{}/access", rig.account);
    let read = rig.send("GET", &format!("{base}/policies/{policy_id}"), "").await;
    assert_eq!(read.body["result"]["include"], policy["include"]);
    assert_eq!(
        (&read.body["result"]["decision"], &read.body["result"]["reusable"]),
        (&json!("non_identity"), &json!(true))
    );

    let gate = serde_json::to_value(rig.gate()).expect("JSON");
    assert_eq!(
        (&gate["apps"][0]["host"], &gate["apps"][0]["path"]),
        (&json!("a.example.com"), &json!("/admin"))
    );
    let visitors = &gate["apps"][0]["policies"][0]["visitors"];
    assert_eq!(visitors["include"][0], "Certificate");
    assert_eq!(visitors["include"][1]["Group"]["include"], json!([{ "CommonName": "boss" }]));
    assert_eq!(visitors["exclude"], json!([{ "Ip": "192.0.2.0/24" }]));

    for used in [format!("{base}/policies/{policy_id}"), format!("{base}/groups/{group}")] {
        let refused = rig.send("DELETE", &used, "").await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{used}");
    }
    let removed = rig.send("DELETE", &format!("{base}/apps/{app_id}"), "").await;
    assert_eq!(removed.body["result"], json!({ "id": app_id }));
    assert_eq!(rig.send("DELETE", &format!("{base}/policies/{policy_id}"), "").await.status, StatusCode::OK);
    assert_eq!(rig.gate(), Default::default());
}

#[tokio::test]
async fn what_can_t_be_enforced_is_refused_where_it_stands() {
    let (rig, _) = with_zone().await;
    let policy = |include: Value| json!({ "name": "x", "decision": "allow", "include": include });
    for (kind, body) in [
        ("policies", policy(json!([]))),
        ("policies", policy(json!([{ "email": { "email": "a@example.com" } }]))),
        ("policies", policy(json!([{ "certificate": {}, "everyone": {} }]))),
        ("policies", policy(json!([{ "ip": { "ip": "192.0.2.0/33" } }]))),
        ("policies", policy(json!([{ "group": { "id": "01890000-0000-7000-8000-000000000000" } }]))),
        ("policies", json!({ "name": "x", "decision": "maybe", "include": [{ "everyone": {} }] })),
        (
            "policies",
            json!({ "name": "x", "decision": "allow", "include": [{ "everyone": {} }], "approval_required": true }),
        ),
        ("groups", json!({ "name": "", "include": [] })),
        ("apps", json!({ "domain": "a.example.org", "type": "self_hosted" })),
        ("apps", json!({ "domain": "a.example.com/%61", "type": "self_hosted" })),
        ("apps", json!({ "domain": "a.example.com/a/../b", "type": "self_hosted" })),
        ("apps", json!({ "domain": "a.example.com/a;b", "type": "self_hosted" })),
        ("apps", json!({ "domain": "a.example.com/a//b", "type": "self_hosted" })),
        ("apps", json!({ "domain": "a.example.com//b", "type": "self_hosted" })),
        ("apps", json!({ "domain": "a.example.com/a\\b", "type": "self_hosted" })),
        ("apps", json!({ "domain": "a.example.com/a*", "type": "self_hosted" })),
        ("apps", json!({ "domain": "a.example.com", "type": "saas" })),
        (
            "apps",
            json!({ "domain": "a.example.com", "type": "self_hosted", "policies": ["01890000-0000-7000-8000-000000000000"] }),
        ),
    ] {
        let answer = make(&rig, kind, &body).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, 1_400), "{body}");
    }
    assert_eq!(rig.gate(), Default::default());
}

#[tokio::test]
async fn rules_of_a_zone_are_replaced_as_a_list_with_the_position_of_a_fault() {
    let (rig, zone) = with_zone().await;
    let path = format!("/zones/{zone}/rulesets/phases/http_request_firewall_custom/entrypoint");
    assert_eq!(rig.send("GET", &path, "").await.status, StatusCode::NOT_FOUND);
    let rule = |expression: &str| json!({ "expression": expression, "action": "block", "description": "d" });
    let body = json!({ "rules": [rule("not cf.tls_client_auth.cert_verified")] }).to_string();
    let set = rig.send("PUT", &path, &body).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.message());
    assert_eq!(
        (&set.body["result"]["version"], &set.body["result"]["rules"][0]["enabled"]),
        (&json!("1"), &json!(true))
    );
    let tag = set.header("etag");
    assert_eq!(rig.send("GET", &path, "").await.body["result"], set.body["result"]);
    assert_eq!(rig.gate().zones[0].rules.len(), 1);

    let wrong = json!({ "rules": [rule("ssl"), rule("ssl and cf.unknown")] }).to_string();
    let refused = rig.send("PUT", &path, &wrong).await;
    assert_eq!(refused.body["errors"][0]["source"]["pointer"], "/rules/1/expression");
    assert!(refused.message().contains("position 8"), "{}", refused.message());
    let off = json!({ "rules": [{ "expression": "ssl", "action": "log", "enabled": false }] }).to_string();
    assert_eq!(rig.send_with(&[("if-match", &tag)], "PUT", &path, &off).await.status, StatusCode::OK);
    assert!(rig.gate().zones[0].rules.is_empty(), "a rule that is off is not enforced");
    let late = rig.send_with(&[("if-match", &tag)], "PUT", &path, &body).await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    let many = json!({ "rules": vec![rule("ssl"); 65] }).to_string();
    assert_eq!(rig.send("PUT", &path, &many).await.status, StatusCode::BAD_REQUEST);
    let listed = rig.send("GET", &format!("/zones/{zone}/rulesets"), "").await;
    assert_eq!(listed.body["result"].as_array().expect("a list").len(), 1);
}
