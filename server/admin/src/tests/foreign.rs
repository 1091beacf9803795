//! CAs whose key is elsewhere: their own lists, taken and fetched, and certificates revoked by name.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::rig::{ELSEWHERE, EMPTY_LIST, LIST, Rig};
use crate::fetch_lists;

/// Generous: a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// One that the second list revokes.
const METER: &str = include_str!("data/elsewhere/meter-1.pem");
const METER_SERIAL: &str = "1002";

/// The account with the CA; its id.
async fn rig() -> (Rig, String) {
    let rig = Rig::new().await;
    let ca = rig.post("/cas/import", json!({ "pem": ELSEWHERE })).await;
    assert_eq!(ca["role"], "verify-only");
    let id = ca["id"].as_str().expect("an id").to_owned();
    (rig, id)
}

async fn put(rig: &Rig, path: &str, body: Value) -> super::rig::Answer {
    rig.send("PUT", &rig.own(path), &body.to_string()).await
}

async fn take(rig: &Rig, ca: &str, crl: &str) -> Value {
    let answer = put(rig, &format!("/cas/{ca}/crl"), json!({ "crl": crl })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.message());
    answer.body["result"].clone()
}

async fn known(rig: &Rig, ca: &str) -> Value {
    rig.get(&format!("/cas/{ca}")).await["revocation"].clone()
}

#[tokio::test]
async fn a_list_is_taken_in_either_form_and_what_it_revokes_is_listed() {
    let (rig, ca) = rig().await;
    assert_eq!(known(&rig, &ca).await["list"], Value::Null);
    let missing = rig.send("GET", &rig.own(&format!("/cas/{ca}/crl")), "").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let empty = STANDARD.encode(pem::parse(EMPTY_LIST).expect("PEM").contents());
    assert_eq!(take(&rig, &ca, &empty).await["newly_revoked"], 0);
    let taken = take(&rig, &ca, LIST).await;
    assert_eq!(
        (&taken["newly_revoked"], &taken["revocation"]["list"]["number_hex"]),
        (&json!(1), &json!("02"))
    );
    let again = take(&rig, &ca, LIST).await;
    assert_eq!((&again["newly_revoked"], &again["reinstated"]), (&json!(0), &json!(0)));
    let listed = rig.get(&format!("/cas/{ca}/revoked")).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&listed[0]["serial_number"], &listed[0]["reason"], &listed[0]["by_list"], &listed[0]["by_operator"]),
        (&json!(METER_SERIAL), &json!("keyCompromise"), &json!(true), &json!(false))
    );
    assert_eq!(rig.get(&format!("/cas/{ca}/revoked?name=10:02")).await[0], listed[0]);
    assert_eq!(rig.get(&format!("/cas/{ca}/revoked?name=77")).await, json!([]));
    let crl = rig.get(&format!("/cas/{ca}/crl")).await;
    assert_eq!(
        (&crl["number"], pem::parse(crl["pem"].as_str().expect("PEM")).expect("PEM").into_contents()),
        (&json!(2), pem::parse(LIST).expect("PEM").into_contents())
    );
    let audit = rig.get("/audit").await;
    let said = audit.as_array().expect("a list").iter().find(|entry| entry["action"] == "foreign-list-taken");
    assert!(
        said.is_some_and(|said| said["details"]
            .as_str()
            .is_some_and(|text| text.contains("1 newly revoked")))
    );
    let metrics = rig.plain("/metrics").await.1;
    assert!(metrics.contains(&format!("muster_foreign_crl_age_seconds{{ca=\"{ca}\"}}")), "{metrics}");
}

#[tokio::test]
async fn a_list_that_is_no_good_is_refused_and_the_last_one_stays() {
    let (rig, ca) = rig().await;
    take(&rig, &ca, LIST).await;
    let large = STANDARD.encode(vec![0x30; (4 << 20) + 1]);
    let other = format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", STANDARD.encode([0x30, 0]));
    for (crl, word) in [
        (EMPTY_LIST, "greater than 0x02"),
        (include_str!("data/elsewhere/delta.pem"), "delta"),
        (include_str!("data/elsewhere/indirect.pem"), "indirect"),
        (include_str!("data/elsewhere/ended.pem"), "was good until"),
        (include_str!("data/elsewhere/unnumbered.pem"), "no CRL number"),
        (ELSEWHERE, "no `X509 CRL`"),
        (large.as_str(), "larger than 4 MiB"),
        (other.as_str(), "well-formed"),
        ("???", "neither PEM nor DER"),
        ("", "neither PEM nor DER"),
        ("nonsense", "neither PEM nor DER"),
    ] {
        let answer = put(&rig, &format!("/cas/{ca}/crl"), json!({ "crl": crl })).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, 1_400), "{word}");
        assert!(answer.message().contains(word), "{word}: {}", answer.message());
        assert_eq!(answer.body["errors"][0]["source"]["pointer"], "/crl", "{word}");
    }
    let all = rig.get("/cas").await;
    let ours = all.as_array().expect("a list").iter().find(|ca| ca["role"] == "devices").expect("one");
    let ours = ours["id"].as_str().expect("an id");
    let answer = put(&rig, &format!("/cas/{ours}/crl"), json!({ "crl": LIST })).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.message());
    let stays = known(&rig, &ca).await;
    assert_eq!((&stays["list"]["number_hex"], &stays["revoked"]), (&json!("02"), &json!(1)));
}

#[tokio::test]
async fn a_ca_closes_with_its_list_unless_it_is_set_open() {
    let (rig, ca) = rig().await;
    take(&rig, &ca, LIST).await;
    assert_eq!(known(&rig, &ca).await["closed"], false);
    rig.advance(30 * 86_400);
    let late = known(&rig, &ca).await;
    assert_eq!((&late["closed"], &late["list"]["stale"]), (&json!(true), &json!(true)));
    let set = put(&rig, &format!("/cas/{ca}/crl/settings"), json!({ "when_stale": "open" })).await;
    assert_eq!((set.status, &set.body["result"]["closed"]), (StatusCode::OK, &json!(false)));
}

#[tokio::test]
async fn a_distribution_point_is_a_uri_and_goes_when_it_is_not_said_again() {
    let (rig, ca) = rig().await;
    let path = format!("/cas/{ca}/crl/settings");
    let set = |point: Value| put(&rig, &path, json!({ "distribution_point": point }));
    let uri = "http://crl.example.test/part?1";
    assert_eq!(set(json!(uri)).await.body["result"]["distribution_point"], uri);
    for wrong in
        ["", "crl", "http://crl.example.test/a b", "http://\u{e9}/", &format!("http://{}", "a".repeat(2_048))]
    {
        let refused = set(json!(wrong)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert_eq!(refused.body["errors"][0]["source"]["pointer"], "/distribution_point");
    }
    assert_eq!(known(&rig, &ca).await["distribution_point"], uri);
    assert_eq!(set(Value::Null).await.body["result"]["distribution_point"], Value::Null);
}

#[tokio::test]
async fn certificates_are_revoked_by_each_of_their_names_and_good_again() {
    let (rig, ca) = rig().await;
    let path = format!("/cas/{ca}/revoked");
    let by_file = rig.post(&path, json!({ "certificate": METER, "reason": "superseded" })).await;
    assert_eq!((&by_file["name"], &by_file["by_operator"]), (&json!(METER_SERIAL), &json!(true)));
    let again = rig.post(&path, json!({ "serial_number": METER_SERIAL, "reason": "keyCompromise" })).await;
    assert_eq!(again["reason"], "superseded", "the first stays");
    let print = "ab".repeat(32);
    rig.post(&path, json!({ "fingerprint_sha256": print })).await;
    assert_eq!(known(&rig, &ca).await["revoked_by_operator"], 2);
    take(&rig, &ca, LIST).await;
    let back = rig.send("DELETE", &rig.own(&format!("{path}/{METER_SERIAL}")), "").await;
    assert_eq!(back.body["result"]["revoked"], true, "the CA's own list says so still");
    let back = rig.send("DELETE", &rig.own(&format!("{path}/{METER_SERIAL}")), "").await;
    assert_eq!(back.status, StatusCode::CONFLICT, "{}", back.message());
    let back = rig.send("DELETE", &rig.own(&format!("{path}/{print}")), "").await;
    assert_eq!(back.body["result"]["revoked"], false);
    for (body, pointer) in [
        (json!({}), "/serial_number"),
        (json!({ "serial_number": "01", "fingerprint_sha256": print }), "/serial_number"),
        (json!({ "serial_number": "00" }), "/serial_number"),
        (json!({ "certificate": "x" }), "/certificate"),
        (json!({ "certificate": super::rig::LEAF }), "/certificate"),
    ] {
        let answer = rig.send("POST", &rig.own(&path), &body.to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.body["errors"][0]["source"]["pointer"], pointer, "{body}");
    }
}

#[tokio::test]
async fn a_name_of_a_certificate_that_was_issued_here_is_that_certificate() {
    let rig = Rig::new().await;
    rig.post("/certificates/sign", json!({ "csr": super::rig::CSR })).await;
    let issued = rig.get("/certificates").await[0].clone();
    let (ca, serial) =
        (issued["ca"].as_str().expect("an id"), issued["serial_number"].as_str().expect("hex"));
    let revoked = rig.post(&format!("/cas/{ca}/revoked"), json!({ "serial_number": serial })).await;
    assert_eq!(revoked["certificate"], issued["id"]);
    assert_eq!(rig.get("/certificates").await[0]["status"], "revoked");
    // One that this server lost with a ledger that was restored is in the CRL too.
    let before = rig.get(&format!("/cas/{ca}/crl")).await["pem"].clone();
    rig.post(&format!("/cas/{ca}/revoked"), json!({ "serial_number": "7777" })).await;
    assert_ne!(rig.get(&format!("/cas/{ca}/crl")).await["pem"], before);
    rig.send("DELETE", &rig.own(&format!("/cas/{ca}/revoked/{serial}")), "").await;
    assert_eq!(rig.get("/certificates").await[0]["status"], "active");
}

/// Answers with what it is told; `None` is 500.
struct Publisher {
    url: String,
    list: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Publisher {
    async fn start(list: Option<&str>) -> Self {
        let list = Arc::new(Mutex::new(list.map(|text| text.as_bytes().to_vec())));
        let shown = Arc::clone(&list);
        let answer = move || {
            let found = shown.lock().expect("no panic").clone();
            async move { found.ok_or(StatusCode::INTERNAL_SERVER_ERROR) }
        };
        let moved = || async { (StatusCode::FOUND, [("location", "/crl")]) };
        let router = Router::new().route("/crl", get(answer)).route("/moved", get(moved));
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/crl", socket.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(socket, router).await });
        Self { url, list }
    }

    fn publish(&self, list: Option<Vec<u8>>) {
        *self.list.lock().expect("no panic") = list;
    }
}

#[tokio::test]
async fn a_list_is_fetched_before_its_address_is_set_and_the_last_good_one_stays() {
    let (rig, ca) = rig().await;
    let settings = format!("/cas/{ca}/crl/settings");
    let none = rig.send("POST", &rig.own(&format!("/cas/{ca}/crl/fetch")), "").await;
    assert_eq!(none.status, StatusCode::CONFLICT);
    let publisher = Publisher::start(None).await;
    for (url, word) in [
        (publisher.url.clone(), "500"),
        (publisher.url.replace("/crl", "/moved"), "redirects"),
        ("http://127.0.0.1:1/crl".to_owned(), "can't be reached"),
        ("ftp://ca.example.com/crl".to_owned(), "https or http"),
        ("https://user@ca.example.com/crl".to_owned(), "without user"),
        ("crl".to_owned(), "absolute"),
        ("http://169.254.169.254/crl".to_owned(), "outbound.denied_networks"),
        // What the system's resolver makes 169.254.169.254 of.
        ("http://2852039166/crl".to_owned(), "outbound.denied_networks"),
    ] {
        let answer = put(&rig, &settings, json!({ "url": url })).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{url}");
        assert!(answer.message().contains(word), "{url}: {}", answer.message());
        assert_eq!(known(&rig, &ca).await["url"], Value::Null, "{url}");
    }
    for every_s in [0, 59, 604_801] {
        let answer = put(&rig, &settings, json!({ "every_s": every_s })).await;
        assert_eq!(answer.body["errors"][0]["source"]["pointer"], "/every_s");
    }
    publisher.publish(Some(EMPTY_LIST.as_bytes().to_vec()));
    let set = put(&rig, &settings, json!({ "url": publisher.url, "every_s": 60 })).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.message());
    assert_eq!(
        (&set.body["result"]["list"]["source"], &set.body["result"]["last_fetch"]["outcome"]),
        (&json!("fetched"), &json!("taken"))
    );
    let fetch = || async { rig.send("POST", &rig.own(&format!("/cas/{ca}/crl/fetch")), "").await };
    // PEM or DER, whatever the CA publishes.
    publisher.publish(Some(pem::parse(LIST).expect("PEM").into_contents()));
    assert_eq!(fetch().await.body["result"]["newly_revoked"], 1);
    rig.advance(1);
    assert_eq!(fetch().await.body["result"]["revocation"]["last_fetch"]["outcome"], "unchanged");
    for wrong in [b"<html>".to_vec(), vec![b'0'; 7 << 20], EMPTY_LIST.as_bytes().to_vec()] {
        publisher.publish(Some(wrong));
        assert_eq!(fetch().await.status, StatusCode::BAD_REQUEST);
    }
    let after = known(&rig, &ca).await;
    assert_eq!((&after["last_fetch"]["failures"], &after["revoked"]), (&json!(3), &json!(1)));
    let metrics = rig.plain("/metrics").await.1;
    assert!(metrics.contains("muster_crl_fetches_total{outcome=\"failed\"} 7"), "{metrics}");
}

#[tokio::test]
async fn a_fetch_is_stored_when_it_tells_something_and_else_now_and_then() {
    let (rig, ca) = rig().await;
    let publisher = Publisher::start(Some(EMPTY_LIST)).await;
    let set = |url: &str| json!({ "url": url, "every_s": 60 });
    let path = format!("/cas/{ca}/crl/settings");
    assert_eq!(put(&rig, &path, set(&publisher.url)).await.status, StatusCode::OK);
    let fetch = async |status| {
        rig.advance(60);
        let answer = rig.send("POST", &rig.own(&format!("/cas/{ca}/crl/fetch")), "").await;
        assert_eq!(answer.status, status, "{}", answer.message());
        let shown = known(&rig, &ca).await["last_fetch"].clone();
        let id = ca.parse().expect("an id");
        let stored = rig.ledger().reader().expect("open").foreign_ca(id).expect("reads").last_fetch;
        (shown, serde_json::to_value(stored).expect("JSON"))
    };
    let fetched_at = |fetch: &Value| fetch["at"].clone();
    let first = known(&rig, &ca).await["last_fetch"].clone();
    let (shown, stored) = fetch(StatusCode::OK).await;
    assert_eq!((&shown["outcome"], &stored["outcome"]), (&json!("unchanged"), &json!("taken")));
    assert_eq!(fetched_at(&stored), fetched_at(&first));
    assert_ne!(fetched_at(&shown), fetched_at(&first));
    for failures in [1, 2] {
        publisher.publish(None);
        let (shown, stored) = fetch(StatusCode::BAD_REQUEST).await;
        assert_eq!((&shown, &shown["failures"]), (&stored, &json!(failures)));
        assert!(shown["message"].as_str().is_some_and(|why| why.contains("500")), "{shown}");
    }
    // An address that is only tried says nothing of the one that is set.
    let tried = put(&rig, &path, set(&publisher.url.replace("/crl", "/nowhere"))).await;
    assert_eq!(tried.status, StatusCode::BAD_REQUEST);
    assert_eq!(known(&rig, &ca).await["last_fetch"]["failures"], 2);
    publisher.publish(Some(EMPTY_LIST.as_bytes().to_vec()));
    let (good, stored) = fetch(StatusCode::OK).await;
    assert_eq!((&good, &good["failures"]), (&stored, &json!(0)));
    assert_eq!(fetch(StatusCode::OK).await.1, good);
    rig.advance(1_800);
    let (shown, stored) = fetch(StatusCode::OK).await;
    assert_eq!(shown, stored);
    let shown = known(&rig, &ca).await;
    assert!(shown["next_fetch_at"].as_str() > shown["last_fetch"]["at"].as_str(), "{shown}");
    let uploaded = put(&rig, &path, json!({})).await.body["result"].clone();
    assert_eq!((&uploaded["last_fetch"], &uploaded["next_fetch_at"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn lists_are_fetched_by_themselves_when_they_are_due() {
    let (rig, ca) = rig().await;
    let publisher = Publisher::start(Some(EMPTY_LIST)).await;
    let settings = json!({ "url": publisher.url, "every_s": 60 });
    assert_eq!(put(&rig, &format!("/cas/{ca}/crl/settings"), settings).await.status, StatusCode::OK);
    publisher.publish(Some(LIST.as_bytes().to_vec()));
    rig.advance(61);
    let stop = CancellationToken::new();
    let task = tokio::spawn(fetch_lists(rig.api(), stop.clone()));
    let fetched = async {
        while known(&rig, &ca).await["revoked"] != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, fetched).await.expect("fetched in time");
    stop.cancel();
    tokio::time::timeout(PATIENCE, task).await.expect("it stops").expect("no panic");
}
