//! Imports, changes of status and revocations of many at once.

use http::StatusCode;
use serde_json::{Value, json};

use super::rig::{CSR, Rig};

/// A certificate of meter-1.
async fn sign(rig: &Rig, profile: &str) -> String {
    rig.send("PUT", &rig.own(&format!("/profiles/{profile}")), "{}").await;
    let signed = rig.post("/certificates/sign", json!({ "csr": CSR, "profile": profile })).await;
    let serial = signed["serial_number"].as_str().expect("a serial").to_owned();
    let found = rig.get(&format!("/certificates?serial={serial}")).await;
    found[0]["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn an_import_tells_of_every_row() {
    let rig = Rig::new().await;
    rig.post("/devices/import", json!([{ "id": "a" }])).await;
    let done = rig.post("/devices/import", json!([{ "id": "b" }, { "id": "a" }, { "id": "c" }])).await;
    assert_eq!((&done["created"], &done["kept"]), (&json!(2), &json!(1)));
    let rows = json!([
        { "id": "b", "outcome": "created" }, { "id": "a", "outcome": "kept" }, { "id": "c", "outcome": "created" },
    ]);
    assert_eq!(done["rows"], rows);

    let wrong = json!([{ "id": "d" }, { "id": "" }, { "id": "e", "note": "a\nb" }, { "id": "d" }]);
    let refused = rig.send("POST", &rig.own("/devices/import"), &wrong.to_string()).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let errors = refused.body["errors"].as_array().expect("a list");
    let pointers: Vec<&Value> = errors.iter().map(|error| &error["source"]["pointer"]).collect();
    assert_eq!(pointers, ["/1/id", "/2/note", "/3/id"]);
    assert_eq!(rig.get("/devices").await.as_array().expect("a list").len(), 3);

    let many: Vec<Value> = (0..200).map(|_| json!({ "id": "" })).collect();
    let refused = rig.send("POST", &rig.own("/devices/import"), &json!(many).to_string()).await;
    assert_eq!(refused.body["errors"].as_array().expect("a list").len(), 100);
}

#[tokio::test]
async fn the_status_of_many_devices_is_set_and_told_for_each() {
    let rig = Rig::new().await;
    rig.post("/devices/import", json!([{ "id": "a" }, { "id": "b" }, { "id": "c" }])).await;
    rig.edit("c", json!({ "status": "retired" })).await;
    let set = json!({ "devices": ["a", "nobody", "c", "b"], "status": "suspended" }).to_string();
    let done = rig.send("PATCH", &rig.own("/devices"), &set).await;
    assert_eq!(done.status, StatusCode::OK);
    let result = &done.body["result"];
    assert_eq!([&result["set"], &result["had"], &result["failed"]], [&json!(2), &json!(0), &json!(2)]);
    let outcomes: Vec<&Value> =
        result["rows"].as_array().expect("a list").iter().map(|row| &row["outcome"]).collect();
    assert_eq!(outcomes, ["set", "unknown", "retired", "set"]);
    assert_eq!(rig.get("/devices/b").await["status"], "suspended");
    assert_eq!(rig.get("/audit?action=device-status-set").await.as_array().expect("a list").len(), 3);
    for (wrong, pointer) in [
        (json!({ "devices": [], "status": "active" }), "/devices"),
        (json!({ "devices": vec!["a"; 1_001], "status": "active" }), "/devices"),
        (json!({ "devices": ["a b"], "status": "active" }), "/devices/0"),
        (json!({ "devices": ["a"], "status": "lost" }), "/status"),
    ] {
        let refused = rig.send("PATCH", &rig.own("/devices"), &wrong.to_string()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert_eq!(refused.body["errors"][0]["source"]["pointer"], pointer);
    }
}

#[tokio::test]
async fn many_certificates_are_revoked_with_one_list() {
    let rig = Rig::new().await;
    let (first, second) = (sign(&rig, "one").await, sign(&rig, "two").await);
    let third = sign(&rig, "three").await;
    let ca = rig.get("/cas?role=devices").await[0]["id"].as_str().expect("an id").to_owned();
    let list = || async { rig.get(&format!("/cas/{ca}/crl")).await["number"].as_u64().expect("a number") };
    let before = list().await;
    let unknown = "01890000-0000-7000-8000-000000000000";
    let body = json!({ "certificates": [first, unknown, second], "reason": "superseded" });
    let done = rig.post("/certificates/revoke", body.clone()).await;
    assert_eq!([&done["revoked"], &done["unknown"]], [&json!(2), &json!(1)]);
    assert_eq!(done["rows"][1], json!({ "outcome": "unknown", "id": unknown }));
    assert_eq!(done["rows"][2]["certificate"]["revocation_reason"], "superseded");
    assert_eq!(list().await, before + 1);
    assert_eq!(rig.post("/certificates/revoke", body).await["was_revoked"], 2);

    let devices = json!({ "devices": ["nobody", "meter-1"] });
    let done = rig.post("/certificates/revoke", devices).await;
    assert_eq!([&done["revoked"], &done["unknown"]], [&json!(1), &json!(1)]);
    assert_eq!(rig.get(&format!("/certificates/{third}")).await["status"], "revoked");
    for (wrong, pointer) in [
        (json!({}), "/certificates"),
        (json!({ "certificates": [first], "devices": ["a"] }), "/devices"),
        (json!({ "certificates": vec![unknown; 1_001] }), "/certificates"),
        (json!({ "devices": vec!["a"; 1_001] }), "/devices"),
        (json!({ "certificates": ["x"] }), "/certificates/0"),
    ] {
        let refused = rig.send("POST", &rig.own("/certificates/revoke"), &wrong.to_string()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert_eq!(refused.body["errors"][0]["source"]["pointer"], pointer);
    }
}
