//! Certificates that origins are shown: uploaded for a zone or for hostnames, chosen, taken away.

use http::StatusCode;
use serde_json::{Value, json};

use super::rig::{Answer, LEAF, MAKER, Rig};

const ORIGIN: &str = include_str!("data/origin.pem");
const ORIGIN_KEY: &str = include_str!("data/origin.key.pem");
const OTHER: &str = include_str!("data/other-origin.pem");
const OTHER_KEY: &str = include_str!("data/other-origin.key.pem");

/// A zone, and the path of what its origins are shown.
async fn pulls(rig: &Rig, name: &str) -> String {
    let made = rig.send("POST", "/zones", &json!({ "name": name }).to_string()).await;
    format!("/zones/{}/origin_tls_client_auth", made.body["result"]["id"].as_str().expect("an id"))
}

async fn upload(rig: &Rig, path: &str, certificate: &str, key: &str) -> Answer {
    let body = json!({ "certificate": certificate, "private_key": key }).to_string();
    let answer = rig.send("POST", path, &body).await;
    assert!(!answer.body.to_string().contains("PRIVATE"), "{}", answer.body);
    answer
}

async fn set(rig: &Rig, base: &str, config: Value) -> Answer {
    rig.send("PUT", &format!("{base}/hostnames"), &json!({ "config": config }).to_string()).await
}

#[tokio::test]
async fn certificates_of_a_zone_and_of_hostnames_are_kept_apart() {
    let rig = Rig::new().await;
    let base = pulls(&rig, "example.com").await;
    let before = rig.key_files();
    let levels = [base.clone(), format!("{base}/hostnames/certificates")];
    let mut ids = Vec::new();
    for path in &levels {
        let made = upload(&rig, path, ORIGIN, ORIGIN_KEY).await;
        assert_eq!(made.status, StatusCode::OK, "{}", made.message());
        let made = &made.body["result"];
        assert_eq!((&made["certificate"], &made["status"]), (&json!(ORIGIN), &json!("active")));
        assert_eq!(
            (&made["issuer"], &made["signature"]),
            (&json!("CN=origin,O=Acme"), &json!("ECDSAWithSHA256"))
        );
        for field in ["expires_on", "id", "serial_number", "uploaded_on"] {
            assert!(made[field].is_string(), "{field}");
        }
        let one = format!("{path}/{}", made["id"].as_str().expect("an id"));
        assert_eq!(rig.send("GET", &one, "").await.body["result"], *made);
        assert_eq!(rig.send("GET", path, "").await.body["result"], json!([made]));
        let twice = upload(&rig, path, ORIGIN, ORIGIN_KEY).await;
        assert_eq!((twice.status, twice.code()), (StatusCode::CONFLICT, 1_471));
        assert_eq!(twice.body["errors"][0]["source"]["pointer"], "/certificate");
        assert_eq!(twice.header("x-should-retry"), "false");
        ids.push(made["id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(rig.key_files(), before + 2, "one key file a certificate, none of what was refused");
    // Neither is found where the other is, nor among the account's.
    for path in
        [format!("{}/{}", levels[0], ids[1]), format!("{}/{}", levels[1], ids[0]), format!("{base}/nonsense")]
    {
        for method in ["GET", "DELETE"] {
            let missing = rig.send(method, &path, "").await;
            assert_eq!((missing.status, missing.code()), (StatusCode::NOT_FOUND, 1_404), "{method} {path}");
        }
    }
    let of_account = format!("/accounts/{}/mtls_certificates", rig.account);
    assert_eq!(rig.send("GET", &of_account, "").await.body["result"], json!([]));
    let one = rig.send("DELETE", &format!("{of_account}/{}", ids[0]), "").await;
    assert_eq!((one.status, one.code()), (StatusCode::NOT_FOUND, 1_472));
    let gone = rig.send("DELETE", &format!("{base}/{}", ids[0]), "").await;
    assert_eq!((gone.status, &gone.body["result"]["status"]), (StatusCode::OK, &json!("deleted")));
    assert_eq!(rig.send("GET", &base, "").await.body["result"], json!([]));
    assert_eq!(rig.key_files(), before + 1);
    // What is left goes with the zone, its key too.
    let zone = base.trim_end_matches("/origin_tls_client_auth");
    assert_eq!(rig.send("DELETE", zone, "").await.status, StatusCode::OK);
    assert_eq!(rig.key_files(), before);
}

#[tokio::test]
async fn what_can_t_be_shown_to_origins_is_refused_with_its_place() {
    let rig = Rig::new().await;
    let base = pulls(&rig, "example.com").await;
    for (body, pointer) in [
        (json!({}), "/certificate"),
        (json!({ "certificate": ORIGIN }), "/private_key"),
        (json!({ "certificate": ORIGIN, "private_key": OTHER_KEY }), "/private_key"),
        (json!({ "certificate": ORIGIN, "private_key": "x" }), "/private_key"),
        (json!({ "certificate": "x", "private_key": ORIGIN_KEY }), "/certificate"),
        (json!({ "certificate": ORIGIN_KEY, "private_key": ORIGIN_KEY }), "/certificate"),
        (json!({ "certificate": MAKER, "private_key": ORIGIN_KEY }), "/certificate"),
        (json!({ "certificate": LEAF, "private_key": 7 }), "/private_key"),
        (json!([]), ""),
    ] {
        for path in [base.clone(), format!("{base}/hostnames/certificates")] {
            let refused = rig.send("POST", &path, &body.to_string()).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}");
            let said = refused.body["errors"][0]["source"]["pointer"].as_str().unwrap_or_default();
            assert_eq!(said, pointer, "{body}: {}", refused.message());
            assert!(!refused.message().contains("MIG"), "{}", refused.message());
        }
    }
    for wrong in ["{}", "{\"enabled\":\"yes\"}", "{\"enabled\":null}", ""] {
        let refused = rig.send("PUT", &format!("{base}/settings"), wrong).await;
        assert_eq!(refused.body["errors"][0]["source"]["pointer"], "/enabled", "{wrong}");
    }
}

#[tokio::test]
async fn a_zone_shows_nothing_until_it_is_told_to() {
    let rig = Rig::new().await;
    let base = pulls(&rig, "example.com").await;
    let settings = format!("{base}/settings");
    assert_eq!(rig.send("GET", &settings, "").await.body["result"], json!({ "enabled": false }));
    let set = rig.send("PUT", &settings, "{\"enabled\":true}").await;
    assert_eq!(set.body["result"], json!({ "enabled": true }), "{}", set.message());
    assert_eq!(rig.send("GET", &settings, "").await.body["result"], json!({ "enabled": true }));
    let made = upload(&rig, &base, ORIGIN, ORIGIN_KEY).await;
    assert_eq!(made.body["result"]["enabled"], true);
}

#[tokio::test]
async fn hostnames_name_their_certificate_and_let_it_go_again() {
    let rig = Rig::new().await;
    let base = pulls(&rig, "example.com").await;
    let certificates = format!("{base}/hostnames/certificates");
    let of_zone = upload(&rig, &base, ORIGIN, ORIGIN_KEY).await.body["result"]["id"].clone();
    let mut ids = Vec::new();
    for (certificate, key) in [(ORIGIN, ORIGIN_KEY), (OTHER, OTHER_KEY)] {
        ids.push(upload(&rig, &certificates, certificate, key).await.body["result"]["id"].clone());
    }
    let wanted = json!([
        { "hostname": "A.example.com", "cert_id": ids[0], "enabled": true },
        { "hostname": "b.example.com", "cert_id": ids[1], "enabled": false },
    ]);
    let answered = set(&rig, &base, wanted).await;
    assert_eq!(answered.status, StatusCode::OK, "{}", answered.message());
    let [a, b] = answered.body["result"].as_array().expect("a list").as_slice() else { panic!("two") };
    assert_eq!(
        (&a["hostname"], &a["cert_id"], &a["enabled"]),
        (&json!("a.example.com"), &ids[0], &json!(true))
    );
    assert_eq!((&b["certificate"], &b["enabled"]), (&json!(OTHER), &json!(false)));
    for field in ["cert_uploaded_on", "cert_updated_at", "created_at", "updated_at", "expires_on", "issuer"] {
        assert!(a[field].is_string(), "{field}");
    }
    let get = |name: &str| format!("{base}/hostnames/{name}");
    assert_eq!(rig.send("GET", &get("a.example.com"), "").await.body["result"], *a);
    assert_eq!(rig.send("GET", &format!("{base}/hostnames"), "").await.body["result"], json!([a, b]));

    // All of it or nothing.
    let good = json!({ "hostname": "c.example.com", "cert_id": ids[0], "enabled": true });
    let unknown = "01890000-0000-7000-8000-000000000000";
    for (wrong, status, place) in [
        (json!({ "cert_id": ids[0], "enabled": true }), 400, "/config/1/hostname"),
        (json!({ "hostname": "a b", "cert_id": ids[0], "enabled": true }), 400, "/config/1/hostname"),
        (
            json!({ "hostname": "a.example.org", "cert_id": ids[0], "enabled": true }),
            400,
            "/config/1/hostname",
        ),
        (
            json!({ "hostname": "c.example.com", "cert_id": ids[0], "enabled": true }),
            400,
            "/config/1/hostname",
        ),
        (json!({ "hostname": "d.example.com", "cert_id": ids[0] }), 400, "/config/1/enabled"),
        (json!({ "hostname": "d.example.com", "cert_id": ids[0], "enabled": "x" }), 400, "/config/1/enabled"),
        (json!({ "hostname": "d.example.com", "cert_id": "x", "enabled": true }), 404, "/config/1/cert_id"),
        (json!({ "hostname": "d.example.com", "cert_id": unknown, "enabled": true }), 404, "/config"),
        (json!({ "hostname": "d.example.com", "cert_id": of_zone, "enabled": true }), 404, "/config"),
        (json!({ "hostname": "d.example.com", "enabled": true }), 404, "/config"),
    ] {
        let refused = set(&rig, &base, json!([good, wrong])).await;
        let told = (refused.status.as_u16(), refused.body["errors"][0]["source"]["pointer"].as_str());
        assert_eq!(told, (status, Some(place)), "{wrong}: {}", refused.message());
    }
    assert_eq!(rig.send("GET", &get("c.example.com"), "").await.status, StatusCode::NOT_FOUND);
    let nothing = rig.send("PUT", &format!("{base}/hostnames"), "").await;
    assert_eq!(nothing.body["errors"][0]["source"]["pointer"], "/config");

    let used = rig.send("DELETE", &format!("{certificates}/{}", ids[1].as_str().expect("an id")), "").await;
    assert_eq!((used.status, used.header("x-should-retry")), (StatusCode::CONFLICT, "false".to_owned()));
    assert!(used.message().starts_with("Certificate cannot be deleted while in use."), "{}", used.message());
    assert!(used.message().contains("b.example.com"));
    let taken = set(&rig, &base, json!([{ "hostname": "b.example.com", "enabled": null }])).await;
    assert_eq!(taken.body["result"][0]["enabled"], Value::Null);
    assert_eq!(taken.body["result"][0]["status"], "deleted");
    let gone = rig.send("DELETE", &format!("{certificates}/{}", ids[1].as_str().expect("an id")), "").await;
    assert_eq!(gone.status, StatusCode::OK, "{}", gone.message());
    // Without a certificate it keeps the one it has.
    let off = set(&rig, &base, json!([{ "hostname": "a.example.com", "enabled": false }])).await;
    assert_eq!(
        (&off.body["result"][0]["cert_id"], &off.body["result"][0]["enabled"]),
        (&ids[0], &json!(false))
    );
}

#[tokio::test]
async fn certificates_of_another_zone_can_t_be_named() {
    let rig = Rig::new().await;
    let (base, other) = (pulls(&rig, "example.com").await, pulls(&rig, "example.org").await);
    let made = upload(&rig, &format!("{other}/hostnames/certificates"), ORIGIN, ORIGIN_KEY).await;
    let id = made.body["result"]["id"].as_str().expect("an id");
    let wanted = json!([{ "hostname": "a.example.com", "cert_id": id, "enabled": true }]);
    assert_eq!(set(&rig, &base, wanted).await.status, StatusCode::NOT_FOUND);
    for method in ["GET", "DELETE"] {
        let missing = rig.send(method, &format!("{base}/hostnames/certificates/{id}"), "").await;
        assert_eq!((missing.status, missing.code()), (StatusCode::NOT_FOUND, 1_404));
    }
}

#[tokio::test]
async fn no_origin_is_set_in_a_network_that_is_denied() {
    let rig = Rig::new().await;
    pulls(&rig, "example.com").await;
    let path = rig.own("/hosts/a.example.com");
    for (origin, status) in [
        ("http://169.254.169.254", StatusCode::BAD_REQUEST),
        ("https://[::ffff:169.254.169.254]:8443", StatusCode::BAD_REQUEST),
        ("http://127.0.0.1:1", StatusCode::OK),
    ] {
        let answer = rig.send("PUT", &path, &json!({ "origins": [origin] }).to_string()).await;
        assert_eq!(answer.status, status, "{origin}: {}", answer.body);
        if status != StatusCode::OK {
            let said = answer.body.to_string();
            assert!(said.contains("/origins/0") && said.contains("outbound.denied_networks"), "{said}");
        }
    }
}
