//! A change is carried through when its client hangs up in the middle of it.

use core::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use http::{Request, StatusCode};
use serde_json::json;
use tower::ServiceExt as _;

use super::join_all;
use super::rig::{CSR, MAKER, Rig, SECRET};
use crate::carry::CHANGES_MAX;

/// Sends a request, and hangs up when the first of its changes is stored.
async fn send_and_hang_up(rig: &Rig, method: &str, path: &str, body: &str) {
    let mut changes = rig.ledger().newest_change();
    changes.borrow_and_update();
    tokio::select! {
        biased;
        changed = changes.changed() => changed.expect("open"),
        answer = rig.send(method, path, body) => panic!("it was answered first: {answer:?}"),
    }
    rig.api().drain().await;
}

#[tokio::test]
async fn a_revocation_gets_into_the_crl() {
    let rig = Rig::new().await;
    rig.post("/certificates/sign", json!({ "csr": CSR })).await;
    let certificate = rig.get("/certificates").await[0].clone();
    let text = |name: &str| certificate[name].as_str().expect("text").to_owned();
    let crl = format!("/cas/{}/crl", text("ca"));
    let before = rig.get(&crl).await["number"].as_u64();
    let revoke = rig.own(&format!("/certificates/{}/revoke", text("id")));
    send_and_hang_up(&rig, "POST", &revoke, "{}").await;
    let after = rig.get(&crl).await["number"].as_u64();
    assert!(after > before, "{after:?} {before:?}");
}

#[tokio::test]
async fn a_ca_gets_its_hostnames() {
    let rig = Rig::new().await;
    rig.send("POST", "/zones", "{\"name\":\"example.com\"}").await;
    let path = format!("/accounts/{}/access/certificates", rig.account);
    let hosts = json!(["a.example.com"]);
    let wanted = json!({ "certificate": MAKER, "name": "maker", "associated_hostnames": hosts });
    send_and_hang_up(&rig, "POST", &path, &wanted.to_string()).await;
    let listed = rig.send("GET", &path, "").await;
    assert_eq!(listed.body["result"][0]["associated_hostnames"], hosts, "{listed:?}");
}

#[tokio::test]
async fn only_so_many_are_carried_out_at_once() {
    let rig = Rig::new().await;
    let path = rig.own("/access_test");
    let answers = join_all((0..=CHANGES_MAX).map(|_| rig.send("POST", &path, "{}"))).await;
    let refused = answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS).count();
    assert_eq!(refused, 1);
    let later = rig.send("POST", &path, "{}").await;
    assert_eq!(later.status, StatusCode::BAD_REQUEST, "{}", later.message());
}

/// A task would have the client's memory for as long as the body may take.
#[tokio::test]
async fn a_client_that_hangs_up_in_its_body_holds_nothing() {
    let rig = Rig::new().await;
    let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let request = Request::post("/client/v4/zones").header("authorization", format!("Bearer {SECRET}"));
    let gone = rig.router().oneshot(request.body(body).expect("a request"));
    assert!(tokio::time::timeout(Duration::ZERO, gone).await.is_err(), "it waits for the body");
    let drained = tokio::time::timeout(Duration::from_secs(5), rig.api().drain()).await;
    assert!(drained.is_ok(), "it is over");
}
