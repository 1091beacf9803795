//! What official clients of the v4 API go by: zones, client certificates, associations, uploaded
//! certificates, Access certificates, and who may do which of it.

use http::StatusCode;
use serde_json::{Value, json};

use super::rig::{Answer, CSR, CSR_WITHOUT_NAME, LEAF, MAKER, Rig};

async fn zone(rig: &Rig, name: &str) -> String {
    let answer = rig.send("POST", "/zones", &json!({ "name": name }).to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.message());
    answer.body["result"]["id"].as_str().expect("an id").to_owned()
}

async fn issue(rig: &Rig, zone: &str) -> Value {
    let body = json!({ "csr": CSR, "validity_days": 365 }).to_string();
    let answer = rig.send("POST", &format!("/zones/{zone}/client_certificates"), &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.message());
    answer.body["result"].clone()
}

async fn associate(rig: &Rig, zone: &str, hosts: Value, ca: Option<&str>) -> Answer {
    let path = format!("/zones/{zone}/certificate_authorities/hostname_associations");
    let mut body = json!({ "hostnames": hosts });
    if let Some(ca) = ca {
        body["mtls_certificate_id"] = json!(ca);
    }
    rig.send("PUT", &path, &body.to_string()).await
}

async fn associated(rig: &Rig, zone: &str, ca: Option<&str>) -> Value {
    let query = ca.map(|ca| format!("?mtls_certificate_id={ca}")).unwrap_or_default();
    let path = format!("/zones/{zone}/certificate_authorities/hostname_associations{query}");
    rig.send("GET", &path, "").await.body["result"]["hostnames"].clone()
}

async fn upload(rig: &Rig, body: Value) -> Answer {
    rig.send("POST", &format!("/accounts/{}/mtls_certificates", rig.account), &body.to_string()).await
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[tokio::test]
async fn a_zone_is_made_edited_found_and_removed() {
    let rig = Rig::new().await;
    let id = zone(&rig, "example.com").await;
    zone(&rig, "example.org").await;
    let found = |query: &'static str| {
        let rig = &rig;
        async move {
            let answer = rig.send("GET", &format!("/zones?{query}"), "").await;
            assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.message());
            answer.body["result"].as_array().expect("a list").len()
        }
    };
    assert_eq!(found("name=example.com").await, 1);
    assert_eq!(found("name=contains:example").await, 2);
    assert_eq!(found("name=ends_with:.org&status=pending&match=any").await, 1);
    assert_eq!(found("type=partial,secondary").await, 0);
    assert_eq!(found("type=partial&type=full").await, 2);
    assert_eq!(found("account.id=00000000000000000000000000000000").await, 0);
    let sorted = rig.send("GET", "/zones?order=name&direction=desc", "").await;
    assert_eq!(sorted.body["result"][0]["name"], "example.org");
    assert_eq!(rig.send("GET", "/zones?order=age", "").await.status, StatusCode::BAD_REQUEST);

    let edited = rig.send("PATCH", &format!("/zones/{id}"), "{\"paused\":true,\"type\":\"partial\"}").await;
    assert_eq!(
        (&edited.body["result"]["paused"], &edited.body["result"]["type"]),
        (&json!(true), &json!("partial"))
    );
    let same = associate(&rig, &id, json!(["a.example.com"]), None).await;
    assert_eq!(same.status, StatusCode::OK);
    let refused = rig.send("DELETE", &format!("/zones/{id}"), "").await;
    assert_eq!(
        (refused.status, refused.header("x-should-retry")),
        (StatusCode::CONFLICT, "false".to_owned())
    );
    assert!(refused.message().contains("a.example.com"), "{}", refused.message());
    associate(&rig, &id, json!([]), None).await;
    let removed = rig.send("DELETE", &format!("/zones/{id}"), "").await;
    assert_eq!(removed.body["result"], json!({ "id": id }));
    let gone = rig.send("GET", &format!("/zones/{id}"), "").await;
    assert_eq!((gone.status, gone.code()), (StatusCode::NOT_FOUND, 7_003));
}

#[tokio::test]
async fn a_client_certificate_is_issued_as_the_contract_says() {
    let rig = Rig::new().await;
    let id = zone(&rig, "example.com").await;
    let made = issue(&rig, &id).await;
    let fields = [
        "id",
        "certificate",
        "certificate_authority",
        "common_name",
        "country",
        "state",
        "location",
        "organization",
        "organizational_unit",
        "csr",
        "issued_on",
        "expires_on",
        "validity_days",
        "serial_number",
        "signature",
        "ski",
        "fingerprint_sha256",
        "status",
    ];
    for field in fields {
        assert!(!made[field].is_null(), "{field}");
    }
    assert_eq!(made["csr"], CSR);
    assert_eq!(made["common_name"], "meter-1");
    assert_eq!(made["status"], "active");
    assert_eq!(made["validity_days"], 365);
    assert_eq!(made["signature"], "ECDSAWithSHA256");
    assert!(text(&made["certificate_authority"]["name"]).contains("Managed CA for account"));
    assert_eq!(text(&made["ski"]).len(), 40);
    assert_eq!(text(&made["serial_number"]).len() % 2, 0);
    assert!(made.get("private_key").is_none() && made.get("skid").is_none());
    // The year 2026 and 2027 have 365 days, so the same day of the next year.
    assert_eq!(text(&made["issued_on"]).replacen("2026", "2027", 1), text(&made["expires_on"]));

    let path = format!("/zones/{id}/client_certificates/{}", text(&made["id"]));
    assert_eq!(rig.send("GET", &path, "").await.body["result"], made, "stable between reads");
    let other = zone(&rig, "example.org").await;
    let elsewhere = path.replace(&id, &other);
    assert_eq!(rig.send("GET", &elsewhere, "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(rig.send("DELETE", &elsewhere, "").await.status, StatusCode::NOT_FOUND);
    assert_ne!(issue(&rig, &id).await["id"], made["id"], "the same request once more is another certificate");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_for_a_client_certificate_is_told() {
    let rig = Rig::new().await;
    let id = zone(&rig, "example.com").await;
    let path = format!("/zones/{id}/client_certificates");
    for (body, pointer) in [
        (json!({}), "/csr"),
        (json!({ "csr": CSR }), "/validity_days"),
        (json!({ "csr": CSR, "validity_days": 0 }), "/validity_days"),
        (json!({ "csr": CSR, "validity_days": 5_476 }), "/validity_days"),
        (json!({ "csr": CSR, "validity_days": "365" }), "/validity_days"),
        (json!({ "csr": "x", "validity_days": 365 }), "/csr"),
        (json!({ "csr": LEAF, "validity_days": 365 }), "/csr"),
        (json!({ "csr": CSR_WITHOUT_NAME, "validity_days": 365 }), "/csr"),
        (json!({ "csr": CSR.replacen('A', "B", 3), "validity_days": 365 }), "/csr"),
    ] {
        let answer = rig.send("POST", &path, &body.to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.body["errors"][0]["source"]["pointer"], pointer, "{body}");
        assert!((1_400..1_500).contains(&answer.code()), "{body}: {}", answer.code());
    }
    for spelled in [CSR.replace('\n', "\r\n"), format!("\n\n{CSR}\n"), CSR.replace("CERT", "NEW CERT")] {
        let body = json!({ "csr": spelled, "validity_days": 1 }).to_string();
        let answer = rig.send("POST", &path, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.message());
        assert_eq!(answer.body["result"]["csr"], spelled);
    }
    let longest = json!({ "csr": CSR, "validity_days": 5_475 }).to_string();
    assert_eq!(rig.send("POST", &path, &longest).await.status, StatusCode::OK);
    rig.advance(2 * 365 * 86_400);
    let beyond = rig.send("POST", &path, &longest).await;
    assert_eq!(beyond.status, StatusCode::BAD_REQUEST, "the issuing CA does not live as long");
    assert_eq!(beyond.body["errors"][0]["source"]["pointer"], "/validity_days");
}

#[tokio::test]
async fn a_client_certificate_is_revoked_and_reactivated() {
    let rig = Rig::new().await;
    let id = zone(&rig, "example.com").await;
    let made = issue(&rig, &id).await;
    issue(&rig, &id).await;
    let path = format!("/zones/{id}/client_certificates/{}", text(&made["id"]));
    let count = |status: &'static str| {
        let path = format!("/zones/{id}/client_certificates?status={status}");
        let rig = &rig;
        async move { rig.send("GET", &path, "").await.body["result_info"]["total_count"].clone() }
    };
    for reactivated_once in [false, true] {
        let revoked = rig.send("DELETE", &path, "").await;
        assert_eq!(revoked.body["result"]["status"], "pending_revocation", "{reactivated_once}");
        assert_eq!(rig.send("GET", &path, "").await.body["result"]["status"], "revoked");
        let again = rig.send("DELETE", &path, "").await;
        assert_eq!((again.status, &again.body["result"]["status"]), (StatusCode::OK, &json!("revoked")));
        assert_eq!((count("active").await, count("revoked").await), (json!(1), json!(1)));
        assert_eq!((count("all").await, count("pending_revocation").await), (json!(2), json!(0)));
        let untouched = rig.send("PATCH", &path, "{}").await;
        assert_eq!(
            (untouched.status, &untouched.body["result"]["status"]),
            (StatusCode::OK, &json!("revoked"))
        );
        let back = rig.send("PATCH", &path, "{\"reactivate\":true}").await;
        assert_eq!(back.body["result"]["status"], "pending_reactivation");
        assert_eq!(rig.send("GET", &path, "").await.body["result"]["status"], "active");
    }
    let wrong = rig.send("GET", &format!("/zones/{id}/client_certificates?status=lost"), "").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn client_certificates_are_paged_by_page_and_by_offset() {
    let rig = Rig::new().await;
    let id = zone(&rig, "example.com").await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        rig.advance(1);
        ids.push(issue(&rig, &id).await["id"].clone());
    }
    ids.reverse();
    let page = |query: &'static str| {
        let path = format!("/zones/{id}/client_certificates?{query}");
        let rig = &rig;
        async move {
            let answer = rig.send("GET", &path, "").await;
            let list = answer.body["result"].as_array().expect("a list").clone();
            list.into_iter().map(|found| found["id"].clone()).collect::<Vec<_>>()
        }
    };
    assert_eq!(page("").await, ids, "newest first");
    assert_eq!(page("page=2&per_page=5").await, ids[5..]);
    assert_eq!(page("page=3.0&per_page=5.0").await, Vec::<Value>::new());
    assert_eq!(page("limit=2&offset=3").await, ids[3..5]);
    assert_eq!(page("limit=2&offset=3&page=1&per_page=9").await, ids[3..5]);
    assert_eq!(page("limit=2&offset=3&page=2").await, ids[5..], "who iterates raises the page");
    assert_eq!(page("limit=2&offset=3&page=3").await, Vec::<Value>::new());
    assert_eq!(page("offset=6").await, ids[6..]);
}

/// As SDKs iterate: page after page, by number, until one is empty.
async fn iterate(rig: &Rig, path: String, mut after_page: impl AsyncFnMut(u32, &[Value])) -> Vec<Value> {
    let mut seen = Vec::new();
    for page in 1..20 {
        let answer = rig.send("GET", &format!("{path}&page={page}"), "").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.message());
        let list = answer.body["result"].as_array().expect("a list");
        let ids: Vec<Value> = list.iter().map(|found| found["id"].clone()).collect();
        if ids.is_empty() {
            return seen;
        }
        after_page(page, &ids).await;
        seen.extend(ids);
    }
    panic!("it never ends: {seen:?}");
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended_whatever_is_made_or_revoked_meanwhile() {
    let rig = Rig::new().await;
    let zone = zone(&rig, "example.com").await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        rig.advance(1);
        ids.push(issue(&rig, &zone).await["id"].clone());
    }
    ids.reverse();
    let path = format!("/zones/{zone}/client_certificates");
    let made = iterate(&rig, format!("{path}?limit=5"), async |page, _| {
        for _ in 0..page {
            rig.advance(1);
            issue(&rig, &zone).await;
        }
    });
    assert_eq!(made.await, ids, "what is newer than the first page is of another reading");
    let revoked = iterate(&rig, format!("{path}?status=active&per_page=5"), async |_, ids| {
        for id in ids {
            let revoked = rig.send("DELETE", &format!("{path}/{}", text(id)), "").await;
            assert_eq!(revoked.status, StatusCode::OK, "{}", revoked.message());
        }
    });
    assert_eq!(revoked.await.len(), 13, "none is left out");
    let left = rig.send("GET", &format!("{path}?status=active"), "").await;
    assert_eq!(left.body["result"], json!([]));
    let policies = format!("/accounts/{}/access/policies", rig.account);
    for number in 0..5 {
        rig.advance(1);
        let policy =
            json!({ "name": number.to_string(), "decision": "deny", "include": [{ "everyone": {} }] });
        assert_eq!(rig.send("POST", &policies, &policy.to_string()).await.status, StatusCode::CREATED);
    }
    let removed = iterate(&rig, format!("{policies}?per_page=2"), async |_, ids| {
        for id in ids {
            rig.send("DELETE", &format!("{policies}/{}", text(id)), "").await;
        }
    });
    assert_eq!(removed.await.len(), 5, "of a short list neither");
    rig.advance(601);
    let late = rig.send("GET", &format!("{path}?status=active&per_page=5&page=2"), "").await;
    assert_eq!(late.body["result"], json!([]), "counted again");
}

#[tokio::test]
async fn the_text_of_a_request_is_the_request_and_no_longer_than_one() {
    let rig = Rig::new().await;
    let path = format!("/zones/{}/client_certificates", zone(&rig, "example.com").await);
    let send = async |csr: String| {
        rig.send("POST", &path, &json!({ "csr": csr, "validity_days": 1 }).to_string()).await
    };
    for wrong in [format!("{CSR}x"), format!("{CSR}{}", "\n".repeat(16 << 10)), "A".repeat(20_000)] {
        let refused = send(wrong).await;
        assert_eq!((refused.status, refused.pointer()), (StatusCode::BAD_REQUEST, "/csr"));
    }
    let blanks = send(format!("{CSR}\r\n \n")).await;
    assert_eq!(blanks.status, StatusCode::OK, "{}", blanks.message());
}

#[tokio::test]
async fn a_body_that_is_an_array_is_no_object() {
    let rig = Rig::new().await;
    let zone = zone(&rig, "example.com").await;
    let id = issue(&rig, &zone).await["id"].clone();
    let path = format!("/zones/{zone}/client_certificates/{}", text(&id));
    for body in ["[true]", "[]"] {
        assert_eq!(rig.send("PATCH", &path, body).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
}

#[tokio::test]
async fn hostnames_are_associated_as_a_whole_list_in_their_order() {
    let rig = Rig::new().await;
    let id = zone(&rig, "example.com").await;
    let set = associate(&rig, &id, json!(["B.example.com", "a.example.com.", "b.example.com"]), None).await;
    let expected = json!(["b.example.com", "a.example.com"]);
    assert_eq!(set.body["result"]["hostnames"], expected, "{}", set.message());
    assert_eq!(associated(&rig, &id, None).await, expected);
    let host = rig.get("/hosts/b.example.com").await;
    assert_eq!((&host["mode"], &host["cas"]), (&json!("require"), &json!([])));

    let names = json!(["B\u{fc}cher.example.com", "xn--bcher-kva.example.com", "*.b\u{fc}ro.example.com"]);
    let folded = associate(&rig, &id, names, None).await;
    let punycode = json!(["xn--bcher-kva.example.com", "*.xn--bro-hoa.example.com"]);
    assert_eq!(folded.body["result"]["hostnames"], punycode, "{}", folded.message());
    associate(&rig, &id, expected.clone(), None).await;

    for wrong in [
        "",
        "https://a.example.com",
        "a.example.com:443",
        "a b.example.com",
        "a.example.org",
        "*",
        "a\u{0}b",
        "\u{ad}.example.com",
        "\u{fc}:80.example.com",
        "a\u{ff0f}b.example.com",
    ] {
        let refused = associate(&rig, &id, json!(["c.example.com", wrong]), None).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong:?}");
        assert_eq!(refused.body["errors"][0]["source"]["pointer"], "/hostnames/1", "{wrong:?}");
    }
    let nothing =
        rig.send("PUT", &format!("/zones/{id}/certificate_authorities/hostname_associations"), "").await;
    assert_eq!(nothing.status, StatusCode::BAD_REQUEST);
    assert_eq!(associated(&rig, &id, None).await, expected, "a refused list changes nothing");

    assert_eq!(associate(&rig, &id, json!([]), None).await.body["result"]["hostnames"], json!([]));
    assert_eq!(rig.get("/hosts").await, json!([]), "what an association made goes with it");
}

#[tokio::test]
async fn sets_of_different_cas_are_independent_and_the_last_one_leaves_nobody_in() {
    let rig = Rig::new().await;
    let id = zone(&rig, "example.com").await;
    rig.send("PUT", &rig.own("/hosts/a.example.com"), "{\"origins\":[\"http://127.0.0.1:1\"]}").await;
    let ca = upload(&rig, json!({ "ca": true, "certificates": MAKER })).await.body["result"]["id"].clone();
    let ca = Some(text(&ca));
    associate(&rig, &id, json!(["a.example.com", "b.example.com"]), ca).await;
    assert_eq!(associated(&rig, &id, ca).await, json!(["a.example.com", "b.example.com"]));
    assert_eq!(associated(&rig, &id, None).await, json!(["a.example.com"]), "what it accepted it still does");
    associate(&rig, &id, json!([]), None).await;
    assert_eq!(associated(&rig, &id, None).await, json!([]));
    assert_eq!(associated(&rig, &id, ca).await, json!(["a.example.com", "b.example.com"]));
    associate(&rig, &id, json!([]), ca).await;
    let host = rig.get("/hosts/a.example.com").await;
    assert_eq!((&host["mode"], &host["default_cas"]), (&json!("require"), &json!("never")));
    associate(&rig, &id, json!(["a.example.com"]), None).await;
    assert_eq!(rig.get("/hosts/a.example.com").await["default_cas"], "if-none-named");
}

#[tokio::test]
async fn a_list_that_was_changed_meanwhile_is_not_overwritten() {
    let rig = Rig::new().await;
    let id = zone(&rig, "example.com").await;
    let path = format!("/zones/{id}/certificate_authorities/hostname_associations");
    let tag = rig.send("GET", &path, "").await.header("etag");
    let body = json!({ "hostnames": ["a.example.com"] }).to_string();
    let set = rig.send_with(&[("if-match", &tag)], "PUT", &path, &body).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.message());
    assert_ne!(set.header("etag"), tag);
    let late = rig.send_with(&[("if-match", &tag)], "PUT", &path, "{\"hostnames\":[]}").await;
    assert_eq!((late.status, late.code()), (StatusCode::PRECONDITION_FAILED, 1_412));
    assert_eq!(associated(&rig, &id, None).await, json!(["a.example.com"]));
    let any = rig.send_with(&[("if-match", "*")], "PUT", &path, "{\"hostnames\":[]}").await;
    assert_eq!(any.status, StatusCode::OK);
}

#[tokio::test]
async fn an_uploaded_ca_is_echoed_found_and_kept_while_it_is_used() {
    let rig = Rig::new().await;
    let id = zone(&rig, "example.com").await;
    let made = upload(&rig, json!({ "ca": true, "certificates": MAKER, "name": "maker" })).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.message());
    let made = &made.body["result"];
    assert_eq!(
        (&made["certificates"], &made["ca"], &made["type"]),
        (&json!(MAKER), &json!(true), &json!("custom"))
    );
    assert!(text(&made["serial_number"]).bytes().all(|digit| digit.is_ascii_digit()));
    for field in ["id", "expires_on", "issuer", "name", "signature", "uploaded_on", "updated_at"] {
        assert!(made[field].is_string(), "{field}");
    }
    let twice = upload(&rig, json!({ "ca": true, "certificates": MAKER })).await;
    assert_eq!(
        (twice.status, twice.code(), twice.header("x-should-retry")),
        (StatusCode::CONFLICT, 1_471, "false".to_owned())
    );
    assert!(twice.message().contains("already exists"));

    let base = format!("/accounts/{}/mtls_certificates", rig.account);
    for (query, number) in [
        ("", 1),
        ("?", 1),
        ("?ca=true&name=maker", 1),
        ("?ca=false", 0),
        ("?name=mak", 0),
        ("?type=custom", 1),
        ("?type=access_managed,gateway_managed", 0),
    ] {
        let found = rig.send("GET", &format!("{base}{query}"), "").await;
        assert_eq!(found.body["result"].as_array().expect("a list").len(), number, "{query}");
    }
    let ca = text(&made["id"]);
    associate(&rig, &id, json!(["a.example.com"]), Some(ca)).await;
    let uses = rig.send("GET", &format!("{base}/{ca}/associations"), "").await;
    assert_eq!(uses.body["result"], json!([{ "service": "a.example.com", "status": "active" }]));
    let used = rig.send("DELETE", &format!("{base}/{ca}"), "").await;
    assert_eq!((used.status, used.header("x-should-retry")), (StatusCode::CONFLICT, "false".to_owned()));
    assert!(used.message().starts_with("Certificate cannot be deleted while in use."), "{}", used.message());
    assert!(used.message().contains("a.example.com"));
    associate(&rig, &id, json!([]), Some(ca)).await;
    let gone = rig.send("DELETE", &format!("{base}/{ca}"), "").await;
    assert_eq!((gone.status, &gone.body["result"]["id"]), (StatusCode::OK, &json!(ca)));
    for method in ["DELETE", "GET"] {
        let again = rig.send(method, &format!("{base}/{ca}"), "").await;
        assert_eq!((again.status, again.code()), (StatusCode::NOT_FOUND, 1_472));
    }
    let unknown = associate(&rig, &id, json!([]), Some(ca)).await;
    assert_eq!((unknown.status, unknown.code()), (StatusCode::NOT_FOUND, 1_472));
    assert_eq!(upload(&rig, json!({ "ca": true, "certificates": MAKER })).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_can_t_be_uploaded_is_told_with_what_was_found() {
    let rig = Rig::new().await;
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (body, code, says) in [
        (json!({ "certificates": MAKER }), 1_400, "ca"),
        (json!({ "ca": true }), 1_400, "certificates"),
        (json!({ "ca": true, "certificates": "x" }), 1_400, "parse"),
        (json!({ "ca": true, "certificates": key }), 1_400, "PRIVATE KEY"),
        (json!({ "ca": true, "certificates": LEAF }), 1_411, "CA:TRUE"),
        (json!({ "ca": true, "certificates": format!("{MAKER}{LEAF}") }), 1_411, "certificate 2"),
        (json!({ "ca": false, "certificates": MAKER }), 1_400, "CA"),
        (json!({ "ca": false, "certificates": LEAF, "private_key": "x" }), 1_400, "private_key"),
        (json!({ "ca": true, "certificates": MAKER, "name": "a\u{7}" }), 1_400, "name"),
    ] {
        let answer = upload(&rig, body.clone()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, code),
            "{body} {}",
            answer.message()
        );
        assert!(answer.message().contains(says), "{}", answer.message());
        assert!(answer.body["errors"][0]["source"]["pointer"].is_string());
    }
    let mixed = upload(&rig, json!({ "ca": true, "certificates": format!("{key}{MAKER}") })).await;
    assert_eq!(mixed.status, StatusCode::OK, "{}", mixed.message());
    assert!(text(&mixed.body["messages"][0]["message"]).contains("PRIVATE KEY"));
    assert!(!mixed.body.to_string().contains("BEGIN PRIVATE"), "a key is neither kept nor shown");
}

#[tokio::test]
async fn an_access_certificate_is_a_view_on_an_uploaded_ca() {
    let rig = Rig::new().await;
    let id = zone(&rig, "example.com").await;
    let base = format!("/accounts/{}/access/certificates", rig.account);
    let body = json!({ "certificate": MAKER, "name": "maker", "associated_hostnames": ["a.example.com"] });
    let made = rig.send("POST", &base, &body.to_string()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.message());
    let ca = text(&made.body["result"]["id"]).to_owned();
    assert_eq!(made.body["result"]["associated_hostnames"], json!(["a.example.com"]));
    assert_eq!(associated(&rig, &id, Some(&ca)).await, json!(["a.example.com"]), "one store of trust");
    let one = format!("{base}/{ca}");
    assert_eq!(rig.send("GET", &one, "").await.body["result"], made.body["result"]);
    let in_zone = rig.send("GET", &format!("/zones/{id}/access/certificates"), "").await;
    assert_eq!(in_zone.body["result"][0]["id"], json!(ca));
    let used = rig.send("DELETE", &one, "").await;
    assert_eq!(used.status, StatusCode::CONFLICT);
    rig.advance(1);
    let renamed = rig.send("PUT", &one, "{\"associated_hostnames\":[],\"name\":\"other\"}").await;
    assert_eq!(
        (&renamed.body["result"]["name"], &renamed.body["result"]["associated_hostnames"]),
        (&json!("other"), &json!([]))
    );
    assert_ne!(renamed.body["result"]["updated_at"], renamed.body["result"]["created_at"]);
    assert_eq!(rig.send("DELETE", &one, "").await.body["result"], json!({ "id": ca }));
    let gone = rig.send("GET", &one, "").await;
    assert_eq!((gone.status, gone.code()), (StatusCode::NOT_FOUND, 12_135));
    let body = json!({ "certificate": MAKER, "name": "maker", "associated_hostnames": ["a.example.org"] });
    let outside = rig.send("POST", &base, &body.to_string()).await;
    assert_eq!(outside.status, StatusCode::BAD_REQUEST);
    assert_eq!(rig.send("GET", &base, "").await.body["result"], json!([]), "all of it or nothing");
}

#[tokio::test]
async fn forwarding_is_set_for_the_hostnames_that_are_named() {
    let rig = Rig::new().await;
    let id = zone(&rig, "example.com").await;
    associate(&rig, &id, json!(["a.example.com", "b.example.com"]), None).await;
    let path = format!("/zones/{id}/access/certificates/settings");
    let setting = |host: &str, forwards: bool| json!({ "hostname": host, "china_network": false, "client_certificate_forwarding": forwards });
    let body = json!({ "settings": [setting("b.example.com", false)] }).to_string();
    let set = rig.send("PUT", &path, &body).await;
    assert_eq!(set.body["result"], json!([setting("b.example.com", false)]), "{}", set.message());
    let now = rig.send("GET", &path, "").await;
    assert_eq!(now.body["result"], json!([setting("a.example.com", true), setting("b.example.com", false)]));
    let body =
        json!({ "settings": [setting("a.example.com", false), setting("c.example.com", true)] }).to_string();
    let refused = rig.send("PUT", &path, &body).await;
    assert_eq!(refused.body["errors"][0]["source"]["pointer"], "/settings/1/hostname");
    assert_eq!(rig.send("GET", &path, "").await.body["result"], now.body["result"], "all of them or none");
}

#[tokio::test]
async fn a_token_does_what_its_permissions_say_and_no_more() {
    let rig = Rig::new().await;
    let id = zone(&rig, "example.com").await;
    let made = rig
        .post("/admin_tokens", json!({ "name": "ci", "permissions": ["zone:read", "certificates:write"] }))
        .await;
    assert_eq!(made["permissions"], json!(["certificates:write", "zone:read"]));
    let token = text(&made["token"]).to_owned();
    let send = |method: &'static str, path: String, body: &'static str| {
        let (rig, token) = (&rig, &token);
        async move { rig.send_as(Some(token), method, &path, body).await }
    };
    assert_eq!(send("GET", format!("/zones/{id}"), "").await.status, StatusCode::OK);
    assert_eq!(send("GET", format!("/zones/{id}/client_certificates"), "").await.status, StatusCode::OK);
    assert_eq!(send("GET", "/user/tokens/verify".to_owned(), "").await.status, StatusCode::OK);
    for (method, path, name) in [
        ("PATCH", format!("/zones/{id}"), "Zone Write"),
        ("GET", rig.own("/devices"), "Fleet Read"),
        ("GET", format!("/zones/{id}/access/certificates"), "Access: Mutual TLS Certificates Read"),
        ("GET", "/accounts".to_owned(), "Account Settings Read"),
    ] {
        let refused = send(method, path.clone(), "{}").await;
        assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, 9_109), "{path}");
        assert!(refused.message().contains(name), "{path}: {}", refused.message());
    }
    let wrong =
        rig.send("POST", &rig.own("/admin_tokens"), "{\"name\":\"x\",\"permissions\":[\"all\"]}").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let bare = rig.send("POST", &rig.own("/admin_tokens"), "{\"name\":\"x\"}").await;
    assert_eq!((bare.status, bare.pointer()), (StatusCode::BAD_REQUEST, "/role"), "it would be unlimited");
    let all = json!({ "name": "all", "permissions": ["account:write"] });
    let token = text(&rig.post("/admin_tokens", all).await["token"]).to_owned();
    let grown = rig.send_as(Some(&token), "POST", &rig.own("/admin_tokens"), "{\"name\":\"root\"}").await;
    assert_eq!((grown.status, grown.code()), (StatusCode::FORBIDDEN, 9_109), "no token makes a stronger one");
    let backup = rig.send_as(Some(&token), "GET", &rig.own("/backup"), "").await;
    assert_eq!(backup.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn clients_find_the_account_of_their_token() {
    let rig = Rig::new().await;
    let memberships = rig.send("GET", "/memberships?page=1", "").await;
    let info = &memberships.body["result_info"];
    assert_eq!((&info["page"], &info["per_page"], &info["total_count"]), (&json!(1), &json!(20), &json!(1)));
    assert_eq!(memberships.body["result"][0]["account"]["id"], json!(rig.account));
    assert_eq!(memberships.body["result"][0]["status"], "accepted");
    let user = rig.send("GET", "/user", "").await;
    assert!(text(&user.body["result"]["email"]).contains('@'));
    assert_eq!(text(&user.body["result"]["id"]).len(), 32);
    let made = rig.post("/admin_tokens", json!({ "name": "ci", "role": "admin" })).await;
    let verified = rig.send_as(Some(text(&made["token"])), "GET", "/user/tokens/verify", "").await;
    assert_eq!(verified.body["result"]["id"], json!(text(&made["id"]).replace('-', "")));
}
