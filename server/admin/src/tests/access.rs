//! Access applications with their policies and groups, and the rules of zones: written, checked, and
//! turned into what the edge enforces.

use http::StatusCode;
use muster_policy::gate::Decision;
use muster_store::record::DocumentKind;
use serde_json::{Value, json};

use super::join_all;
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
async fn a_policy_tells_how_many_applications_name_it() {
    let (rig, _) = with_zone().await;
    let policy = json!({ "name": "in", "decision": "allow", "include": [{ "certificate": {} }] });
    let id = made(&rig, "policies", policy).await;
    let read = async |path: String| {
        let path = format!("/accounts/{}/access/policies{path}", rig.account);
        rig.send("GET", &path, "").await.body["result"].take()
    };
    assert_eq!(read(format!("/{id}")).await["app_count"], 0);
    for host in ["a", "b"] {
        let domain = format!("{host}.example.com");
        let destinations = json!([{ "type": "public", "uri": domain }]);
        let app = json!({ "domain": domain, "type": "self_hosted", "policies": [id],
            "destinations": destinations, "self_hosted_domains": [domain] });
        let answer = make(&rig, "apps", &app).await;
        assert_eq!(answer.body["result"]["destinations"], destinations, "{}", answer.message());
    }
    assert_eq!(read(format!("/{id}")).await["app_count"], 2);
    assert_eq!(read(String::new()).await[0]["app_count"], 2);
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
        (
            "policies",
            json!({ "name": "x", "decision": "allow", "include": [{ "everyone": {} }], "mfa_config": {} }),
        ),
        ("groups", json!({ "name": "", "include": [] })),
        (
            "apps",
            json!({ "domain": "a.example.com", "type": "self_hosted", "destinations":
                [{ "type": "public", "uri": "a.example.com" }, { "type": "public", "uri": "b.example.com" }] }),
        ),
        (
            "apps",
            json!({ "domain": "a.example.com", "type": "self_hosted", "destinations":
                [{ "type": "private", "uri": "a.example.com" }] }),
        ),
        (
            "apps",
            json!({ "domain": "a.example.com", "type": "self_hosted",
                "self_hosted_domains": ["b.example.com"] }),
        ),
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
    for (body, pointer) in [(json!({}), "/name"), (json!({ "name": "p", "decision": "deny" }), "/include")] {
        assert_eq!(make(&rig, "policies", &body).await.pointer(), pointer);
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

#[tokio::test]
async fn an_application_has_policies_of_its_own_beside_reusable_ones() {
    let (rig, _) = with_zone().await;
    let policy = |name: &str, decision: &str, common_name: &str| {
        json!({ "name": name, "decision": decision,
            "include": [{ "common_name": { "common_name": common_name } }] })
    };
    let reusable = made(&rig, "policies", policy("shared", "allow", "boss")).await;
    let mut inline = policy("inline", "deny", "thief");
    inline["precedence"] = json!(1);
    let app = json!({ "domain": "a.example.com", "type": "self_hosted",
        "policies": [{ "id": reusable, "precedence": 2 }, inline] });
    let app_id = made(&rig, "apps", app).await;
    let base = format!("/accounts/{}/access/apps/{app_id}", rig.account);
    let names = async || {
        let listed = rig.send("GET", &format!("{base}/policies"), "").await;
        let found = listed.body["result"].as_array().expect("a list").clone();
        let text = |policy: &Value, name: &str| policy[name].as_str().unwrap_or_default().to_owned();
        found.iter().map(|policy| (text(policy, "name"), text(policy, "id"))).collect::<Vec<_>>()
    };
    let first = names().await;
    assert_eq!(first.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["inline", "shared"]);
    let shown = rig.send("GET", &base, "").await.body["result"]["policies"].clone();
    assert_eq!((&shown[0]["reusable"], &shown[1]["reusable"]), (&json!(false), &json!(true)));
    assert_eq!(shown[1]["include"][0]["common_name"]["common_name"], "boss");

    let own = rig.send("POST", &format!("{base}/policies"), &policy("own", "allow", "x").to_string()).await;
    assert_eq!(own.status, StatusCode::CREATED, "{}", own.message());
    let own_id = own.body["result"]["id"].as_str().expect("an id").to_owned();
    let path = format!("{base}/policies/{own_id}");
    let changed = rig.send("PUT", &path, &policy("own", "non_identity", "y").to_string()).await;
    assert_eq!(changed.body["result"]["decision"], "non_identity");
    assert_eq!(rig.send("GET", &path, "").await.body["result"], changed.body["result"]);
    let gate = serde_json::to_value(rig.gate()).expect("JSON");
    let decisions = gate["apps"][0]["policies"].as_array().expect("a list").iter();
    let decisions: Vec<_> = decisions.map(|policy| policy["decision"].clone()).collect();
    assert_eq!(decisions, ["deny", "allow", "non_identity"]);

    // What a client reads it may send back: the same policies, under the same ids.
    let mut whole = rig.send("GET", &base, "").await.body["result"].clone();
    whole["name"] = json!("renamed");
    let before = names().await;
    let put = rig.send("PUT", &base, &whole.to_string()).await;
    assert_eq!(put.status, StatusCode::OK, "{}", put.message());
    assert_eq!(names().await, before);
    assert_eq!(serde_json::to_value(rig.gate()).expect("JSON"), gate);

    let refused = rig.send("PUT", &format!("{base}/policies/{reusable}"), &inline.to_string()).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let wrong = rig.send("POST", &format!("{base}/policies"), &policy("", "allow", "x").to_string()).await;
    assert_eq!(
        (wrong.status, wrong.body["errors"][0]["source"]["pointer"].clone()),
        (StatusCode::BAD_REQUEST, json!("/name"))
    );
    for id in [own_id.as_str(), &reusable] {
        let removed = rig.send("DELETE", &format!("{base}/policies/{id}"), "").await;
        assert_eq!(removed.body["result"], json!({ "id": id }));
        assert_eq!(
            rig.send("DELETE", &format!("{base}/policies/{id}"), "").await.status,
            StatusCode::NOT_FOUND
        );
    }
    assert_eq!(names().await.len(), 1);
    // The reusable one is where it was.
    let kept = rig.send("GET", &format!("/accounts/{}/access/policies/{reusable}", rig.account), "").await;
    assert_eq!(kept.status, StatusCode::OK);
}

#[tokio::test]
async fn a_policy_of_an_application_is_refused_where_it_stands() {
    let (rig, _) = with_zone().await;
    let app =
        |policy: Value| json!({ "domain": "a.example.com", "type": "self_hosted", "policies": [policy] });
    let unknown = "01890000-0000-7000-8000-000000000000";
    for (policy, pointer) in [
        (json!({ "name": "x", "decision": "allow", "include": [] }), "/policies/0/include"),
        (json!({ "name": "x", "decision": "allow" }), "/policies/0/include"),
        (json!({ "name": "x", "decision": "maybe", "include": [{ "everyone": {} }] }), "/policies/0"),
        (
            json!({ "id": unknown, "name": "x", "decision": "allow", "include": [{ "everyone": {} }] }),
            "/policies/0",
        ),
        (
            json!({ "name": "x", "decision": "allow", "include": [{ "group": { "id": unknown } }] }),
            "/policies/0/include/0/group/id",
        ),
        (json!({ "precedence": 1 }), "/policies/0/id"),
        (json!(7), "/policies/0"),
    ] {
        let answer = make(&rig, "apps", &app(policy.clone())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{policy}");
        assert_eq!(answer.body["errors"][0]["source"]["pointer"], pointer, "{policy}: {}", answer.message());
    }
    assert_eq!(rig.gate(), Default::default());
}

#[tokio::test]
async fn single_rules_of_a_zone_are_added_changed_moved_and_taken_out() {
    let (rig, zone) = with_zone().await;
    let entrypoint = format!("/zones/{zone}/rulesets/phases/http_request_firewall_custom/entrypoint");
    let rule = |expression: &str| json!({ "expression": expression, "action": "block" });
    let put = rig.send("PUT", &entrypoint, &json!({ "rules": [rule("ssl")] }).to_string()).await;
    let id = put.body["result"]["id"].as_str().expect("an id").to_owned();
    let base = format!("/zones/{zone}/rulesets/{id}");
    assert_eq!(rig.send("GET", &base, "").await.body["result"], put.body["result"]);
    let listed = |answer: &Answer| {
        let rules = answer.body["result"]["rules"].as_array().expect("a list").clone();
        rules.iter().map(|rule| rule["expression"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let send = async |method: &str, path: String, body: Value| {
        let answer = rig.send(method, &path, &body.to_string()).await;
        assert_eq!(answer.status, StatusCode::OK, "{method} {path} {body}: {}", answer.message());
        answer
    };
    let with = |mut rule: Value, position: Value| {
        rule["position"] = position;
        rule
    };
    let added = send("POST", format!("{base}/rules"), rule("not ssl")).await;
    assert_eq!(listed(&added), ["ssl", "not ssl"]);
    let ids: Vec<_> = added.body["result"]["rules"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|rule| rule["id"].clone())
        .collect();
    let first = ids[0].as_str().expect("an id").to_owned();
    let in_between = with(rule("ssl or ssl"), json!({ "after": first }));
    assert_eq!(
        listed(&send("POST", format!("{base}/rules"), in_between).await),
        ["ssl", "ssl or ssl", "not ssl"]
    );
    let ahead = with(rule("ssl and ssl"), json!({ "index": 1 }));
    assert_eq!(listed(&send("POST", format!("{base}/rules"), ahead).await)[0], "ssl and ssl");

    let path = format!("{base}/rules/{first}");
    let moved = send("PATCH", path.clone(), json!({ "enabled": false, "position": { "before": "" } })).await;
    assert_eq!(listed(&moved), ["ssl and ssl", "ssl or ssl", "not ssl", "ssl"]);
    let last = &moved.body["result"]["rules"][3];
    assert_eq!(
        (&last["enabled"], &last["id"], &last["action"]),
        (&json!(false), &json!(first), &json!("block"))
    );
    assert_eq!(rig.gate().zones[0].rules.len(), 3);
    let changed = send("PATCH", path.clone(), json!({ "action": "log", "expression": "ssl xor ssl" })).await;
    assert_eq!(changed.body["result"]["rules"][3]["action"], "log");
    let gone = send("DELETE", path.clone(), json!({})).await;
    assert_eq!(listed(&gone), ["ssl and ssl", "ssl or ssl", "not ssl"]);

    let second = ids[1].as_str().expect("an id");
    for (method, path, body, status, pointer) in [
        ("DELETE", path.clone(), json!({}), 404, None),
        ("PATCH", path, json!({ "enabled": true }), 404, None),
        ("POST", format!("{base}/rules"), rule("ssl and"), 400, Some("/expression")),
        (
            "POST",
            format!("{base}/rules"),
            with(rule("ssl"), json!({ "index": 9 })),
            400,
            Some("/position/index"),
        ),
        ("POST", format!("{base}/rules"), with(rule("ssl"), json!({ "after": "x" })), 400, Some("/position")),
        (
            "PATCH",
            format!("{base}/rules/{second}"),
            json!({ "expression": "cf.unknown" }),
            400,
            Some("/expression"),
        ),
        ("POST", format!("/zones/{zone}/rulesets/{}/rules", rig.account), rule("ssl"), 404, None),
    ] {
        let answer = rig.send(method, &path, &body.to_string()).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path} {body}: {}", answer.message());
        if let Some(pointer) = pointer {
            assert_eq!(answer.body["errors"][0]["source"]["pointer"], pointer, "{}", answer.message());
        }
    }
    let full = json!({ "rules": vec![rule("ssl"); 64] }).to_string();
    assert_eq!(rig.send("PUT", &base, &full).await.status, StatusCode::OK);
    let beyond = rig.send("POST", &format!("{base}/rules"), &rule("ssl").to_string()).await;
    assert_eq!(beyond.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_rule_says_no_more_than_it_means_here() {
    let (rig, zone) = with_zone().await;
    let entrypoint = format!("/zones/{zone}/rulesets/phases/http_request_firewall_custom/entrypoint");
    let put =
        async |rule: &Value| rig.send("PUT", &entrypoint, &json!({ "rules": [rule] }).to_string()).await;
    let with = |action: &str, name: &str, value: Value| {
        let mut rule = json!({ "expression": "ssl", "action": action });
        rule[name] = value;
        rule
    };
    let base = put(&with("block", "ref", json!("mine"))).await;
    assert_eq!(base.body["result"]["rules"][0]["ref"], "mine");
    let rules =
        format!("/zones/{zone}/rulesets/{}/rules", base.body["result"]["id"].as_str().expect("an id"));
    for (action, name, value) in [
        ("skip", "action_parameters", json!({ "phases": ["http_ratelimit"] })),
        ("skip", "action_parameters", json!({ "ruleset": "current", "products": ["waf"] })),
        ("skip", "action_parameters", json!("current")),
        ("block", "action_parameters", json!({ "response": { "status_code": 418 } })),
        ("block", "action_parameters", json!({ "ruleset": "current" })),
        ("block", "ratelimit", json!({ "period": 10 })),
        ("block", "exposed_credential_check", json!({})),
    ] {
        let rule = with(action, name, value);
        let replaced = put(&rule).await;
        assert_eq!(
            (replaced.status, replaced.pointer()),
            (StatusCode::BAD_REQUEST, &*format!("/rules/0/{name}"))
        );
        let added = rig.send("POST", &rules, &rule.to_string()).await;
        assert_eq!(
            (added.status, added.pointer()),
            (StatusCode::BAD_REQUEST, &*format!("/{name}")),
            "{rule}"
        );
        let first = base.body["result"]["rules"][0]["id"].as_str().expect("an id");
        let changed = rig.send("PATCH", &format!("{rules}/{first}"), &rule.to_string()).await;
        assert_eq!(
            (changed.status, changed.pointer()),
            (StatusCode::BAD_REQUEST, &*format!("/{name}")),
            "{rule}"
        );
    }
    for rule in [
        with("skip", "action_parameters", json!({ "ruleset": "current" })),
        with("skip", "action_parameters", json!({})),
        with("block", "action_parameters", json!({})),
        with("log", "ratelimit", Value::Null),
    ] {
        let held = put(&rule).await;
        assert_eq!(held.status, StatusCode::OK, "{rule}: {}", held.message());
        let held = &held.body["result"]["rules"][0];
        assert_eq!(held.get("action_parameters"), rule.get("action_parameters"));
        assert_eq!(held["ref"], held["id"], "unless another is given");
    }
    let skips = put(&with("skip", "action_parameters", json!({ "ruleset": "current" }))).await;
    let one = format!("{rules}/{}", skips.body["result"]["rules"][0]["id"].as_str().expect("an id"));
    let blocks = rig.send("PATCH", &one, "{\"action\":\"block\"}").await;
    assert_eq!(blocks.status, StatusCode::OK, "they go with their action: {}", blocks.message());
    assert_eq!(rig.send("PUT", &entrypoint, "{}").await.pointer(), "/rules");
    assert_eq!(rig.send("POST", &rules, "{\"action\":\"log\"}").await.pointer(), "/expression");
}

#[tokio::test]
async fn a_ruleset_keeps_its_name_and_description() {
    let (rig, zone) = with_zone().await;
    let entrypoint = format!("/zones/{zone}/rulesets/phases/http_request_firewall_custom/entrypoint");
    let told = async |body: Value| {
        let answer = rig.send("PUT", &entrypoint, &body.to_string()).await;
        (answer.body["result"]["name"].clone(), answer.body["result"]["description"].clone())
    };
    assert_eq!(told(json!({ "rules": [] })).await, (json!("default"), json!("")));
    let named = json!({ "name": "mine", "description": "why", "rules": [] });
    assert_eq!(told(named).await, (json!("mine"), json!("why")));
    assert_eq!(told(json!({ "rules": [] })).await, (json!("mine"), json!("why")));
    let listed = rig.send("GET", &format!("/zones/{zone}/rulesets"), "").await;
    assert_eq!(listed.body["result"][0]["name"], "mine");
    let wrong = json!({ "name": "a\nb", "rules": [] }).to_string();
    assert_eq!(rig.send("PUT", &entrypoint, &wrong).await.pointer(), "/name");
}

#[tokio::test]
async fn of_changes_at_once_none_is_refused_or_lost() {
    let (rig, zone) = with_zone().await;
    let entrypoint = format!("/zones/{zone}/rulesets/phases/http_request_firewall_custom/entrypoint");
    let put = rig.send("PUT", &entrypoint, "{\"rules\":[]}").await;
    let ruleset = format!("/zones/{zone}/rulesets/{}", put.body["result"]["id"].as_str().expect("an id"));
    let app = made(&rig, "apps", json!({ "type": "self_hosted", "domain": "a.example.com" })).await;
    let policies = format!("/accounts/{}/access/apps/{app}/policies", rig.account);
    let everyone = json!([{ "everyone": {} }]);
    let policy = json!({ "name": "p", "decision": "deny", "include": everyone });
    let id = made(&rig, "policies", policy.clone()).await;
    let rule = json!({ "expression": "ssl", "action": "log" }).to_string();
    let headers =
        json!({ "managed_request_headers": [{ "id": "add_client_certificate_headers", "enabled": true }] });
    let each = [
        ("POST", format!("{ruleset}/rules"), rule),
        ("POST", policies.clone(), policy.to_string()),
        ("PUT", format!("/accounts/{}/access/policies/{id}", rig.account), policy.to_string()),
        ("PATCH", format!("/zones/{zone}/managed_headers"), headers.to_string()),
    ];
    let sent = each.iter().cycle().take(80).map(|(method, path, body)| rig.send(method, path, body));
    for answer in join_all(sent).await {
        assert!(answer.status.is_success(), "{} {}", answer.status, answer.message());
    }
    let rules = rig.send("GET", &ruleset, "").await.body["result"]["rules"].clone();
    assert_eq!(rules.as_array().expect("a list").len(), 20);
    let policies = rig.send("GET", &format!("{policies}?per_page=100"), "").await.body["result"].clone();
    assert_eq!(policies.as_array().expect("a list").len(), 20);
    let replace = |_| rig.send("PUT", &entrypoint, "{\"rules\":[]}");
    let replaced = join_all((0..20).map(replace)).await;
    assert!(replaced.iter().all(|answer| answer.status == StatusCode::OK));
}

#[tokio::test]
async fn a_single_rule_is_changed_only_of_the_list_that_was_read() {
    let (rig, zone) = with_zone().await;
    let entrypoint = format!("/zones/{zone}/rulesets/phases/http_request_firewall_custom/entrypoint");
    for tag in ["*", "\"\""] {
        let never = rig.send_with(&[("if-match", tag)], "PUT", &entrypoint, "{\"rules\":[]}").await;
        assert_eq!(never.status, StatusCode::PRECONDITION_FAILED, "there is no list yet: {tag}");
    }
    let rule = "{\"expression\":\"ssl\",\"action\":\"log\"}";
    let put = rig.send("PUT", &entrypoint, &format!("{{\"rules\":[{rule}]}}")).await;
    let text = |value: &Value| value.as_str().expect("an id").to_owned();
    let rules = format!("/zones/{zone}/rulesets/{}/rules", text(&put.body["result"]["id"]));
    let one = format!("{rules}/{}", text(&put.body["result"]["rules"][0]["id"]));
    let tag = put.header("etag");
    let changed = rig.send_with(&[("if-match", &tag)], "PATCH", &one, "{\"enabled\":false}").await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.message());
    for (method, path, body) in [("POST", &rules, rule), ("PATCH", &one, "{}"), ("DELETE", &one, "")] {
        let late = rig.send_with(&[("if-match", &tag)], method, path, body).await;
        assert_eq!(late.status, StatusCode::PRECONDITION_FAILED, "{method}");
    }
}

#[tokio::test]
async fn a_ruleset_is_made_once_and_removed_with_its_rules() {
    let (rig, zone) = with_zone().await;
    let base = format!("/zones/{zone}/rulesets");
    let wanted = |phase: &str, kind: &str, expression: &str| {
        let rules = json!([{ "expression": expression, "action": "block" }]);
        json!({ "name": "x", "phase": phase, "kind": kind, "rules": rules }).to_string()
    };
    let phase = "http_request_firewall_custom";
    for (body, pointer) in [
        ("{}".to_owned(), "/phase"),
        (wanted("http_ratelimit", "zone", "ssl"), "/phase"),
        (wanted(phase, "root", "ssl"), "/kind"),
        (wanted(phase, "zone", "ssl and"), "/rules/0/expression"),
    ] {
        let refused = rig.send("POST", &base, &body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(refused.body["errors"][0]["source"]["pointer"], pointer, "{body}");
    }
    let made = rig.send("POST", &base, &wanted(phase, "zone", "ssl")).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.message());
    assert_eq!(rig.gate().zones.len(), 1);
    let again = rig.send("POST", &base, &wanted(phase, "zone", "ssl")).await;
    assert_eq!((again.status, again.header("x-should-retry")), (StatusCode::CONFLICT, "false".to_owned()));
    let one = format!("{base}/{}", made.body["result"]["id"].as_str().expect("an id"));
    let late = rig.send_with(&[("if-match", "\"other\"")], "DELETE", &one, "").await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    let gone = rig.send("DELETE", &one, "").await;
    assert_eq!((gone.status, &gone.body["result"]["id"]), (StatusCode::OK, &made.body["result"]["id"]));
    assert!(rig.gate().zones.is_empty(), "{:?}", rig.gate());
    assert_eq!(rig.send("DELETE", &one, "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_list_that_was_made_anew_is_not_the_one_that_was_read() {
    let (rig, zone) = with_zone().await;
    let base = format!("/zones/{zone}/rulesets");
    let path = format!("{base}/phases/http_request_firewall_custom/entrypoint");
    let list = |expression: &str| {
        json!({ "rules": [{ "id": "1", "expression": expression, "action": "block" }] }).to_string()
    };
    let first = rig.send("PUT", &path, &list("ssl")).await;
    let one = format!("{base}/{}", first.body["result"]["id"].as_str().expect("an id"));
    assert_eq!(rig.send("DELETE", &one, "").await.status, StatusCode::OK);
    let anew = rig.send("PUT", &path, &list("not ssl")).await;
    assert_ne!(anew.header("etag"), first.header("etag"));
    let tag = first.header("etag");
    for (method, path) in [("PUT", &path), ("PUT", &one), ("DELETE", &one)] {
        let late = rig.send_with(&[("if-match", &tag)], method, path, &list("ssl or ssl")).await;
        assert_eq!(late.status, StatusCode::PRECONDITION_FAILED, "{method} {path}");
    }
    assert_eq!(rig.send("GET", &path, "").await.body["result"], anew.body["result"]);
}

#[tokio::test]
async fn lists_hold_what_was_looked_for() {
    let (rig, _) = with_zone().await;
    let app = |name: &str, domain: &str| json!({ "name": name, "domain": domain, "type": "self_hosted" });
    made(&rig, "apps", app("Admin", "a.example.com/admin")).await;
    made(&rig, "apps", app("shop", "b.example.com")).await;
    for (query, number) in [
        ("", 2),
        ("?name=adm", 1),
        ("?name=", 2),
        ("?name=adm&exact=true", 0),
        ("?name=admin&exact=true", 1),
        ("?domain=example.com", 2),
        ("?domain=b.example.com&exact=true", 1),
        ("?search=b.exa", 1),
        ("?search=shop&name=admin", 0),
    ] {
        let found = rig.send("GET", &format!("/accounts/{}/access/apps{query}", rig.account), "").await;
        assert_eq!(found.body["result_info"]["total_count"], number, "{query}");
    }
}
