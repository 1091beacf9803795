//! A repeat with the same `Idempotency-Key` changes nothing, and is answered as the first was.

use std::time::Duration;

use http::StatusCode;
use muster_enroll::hash_secret;
use muster_policy::identity::RequestKey;
use muster_store::act::{BeginKeyed, KEY_KEPT_FOR, KEYS_PER_TOKEN_MAX};
use serde_json::{Value, json};

use super::join_all;
use super::rig::{Answer, Rig, SECRET};

const BODY: &str = "{\"claim\":true}";

async fn make_token(rig: &Rig, key: &str, body: &str) -> Answer {
    rig.send_with(&[("idempotency-key", key)], "POST", &rig.own("/tokens"), body).await
}

async fn tokens(rig: &Rig) -> usize {
    rig.get("/tokens").await.as_array().expect("a list").len()
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_makes_nothing() {
    let rig = Rig::new().await;
    let first = make_token(&rig, "one", BODY).await;
    assert_eq!((first.status, first.header("idempotent-replayed").as_str()), (StatusCode::OK, ""));
    rig.advance(3_600);
    // The draft wants a quoted string; many clients send it bare.
    for key in ["one", "\"one\""] {
        let again = make_token(&rig, key, BODY).await;
        assert_eq!((again.status, &again.body), (StatusCode::OK, &first.body));
        assert_eq!(again.header("idempotent-replayed"), "true");
    }
    assert_eq!(tokens(&rig).await, 1);
    let other = make_token(&rig, "two", BODY).await;
    assert_ne!(other.body["result"]["id"], first.body["result"]["id"]);
    rig.advance(KEY_KEPT_FOR.as_secs());
    assert_ne!(make_token(&rig, "one", BODY).await.body["result"]["id"], first.body["result"]["id"]);
}

#[tokio::test]
async fn a_key_is_for_one_request() {
    let rig = Rig::new().await;
    make_token(&rig, "one", BODY).await;
    let other = make_token(&rig, "one", "{\"claim\":true,\"uses\":2}").await;
    assert_eq!((other.status, other.code()), (StatusCode::UNPROCESSABLE_ENTITY, 1_422));
    assert_eq!(other.body["errors"][0]["source"]["pointer"], "/Idempotency-Key");
    let path = rig.own("/admin_tokens");
    let elsewhere = rig.send_with(&[("idempotency-key", "one")], "POST", &path, BODY).await;
    assert_eq!(elsewhere.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(tokens(&rig).await, 1);
}

#[tokio::test]
async fn keys_of_two_tokens_are_two_keys() {
    let rig = Rig::new().await;
    let first = make_token(&rig, "one", BODY).await;
    let made = rig.post("/admin_tokens", json!({ "name": "ci", "role": "admin" })).await;
    let bearer = format!("Bearer {}", made["token"].as_str().expect("shown once"));
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "one")];
    let other = rig.send_as_with(&headers, "POST", &rig.own("/tokens"), BODY).await;
    assert_eq!(other.status, StatusCode::OK);
    assert_ne!(other.body["result"]["id"], first.body["result"]["id"]);
}

#[tokio::test]
async fn what_was_refused_is_tried_anew() {
    let rig = Rig::new().await;
    let zone = json!({ "name": "a.example" }).to_string();
    let add = || rig.send_with(&[("idempotency-key", "zone")], "POST", "/zones", &zone);
    rig.send("POST", "/zones", &zone).await;
    assert_eq!(add().await.status, StatusCode::CONFLICT);
    let id = rig.send("GET", "/zones", "").await.body["result"][0]["id"].clone();
    rig.send("DELETE", &format!("/zones/{}", id.as_str().expect("an id")), "").await;
    assert_eq!(add().await.status, StatusCode::OK);
    assert_eq!(add().await.header("idempotent-replayed"), "true");
}

#[tokio::test]
async fn of_many_at_once_one_is_carried_out() {
    let rig = Rig::new().await;
    let answers = join_all((0..16).map(|_| make_token(&rig, "one", BODY))).await;
    assert_eq!(tokens(&rig).await, 1);
    let mut ids: Vec<&Value> = Vec::new();
    for answer in &answers {
        if answer.status == StatusCode::OK {
            ids.push(&answer.body["result"]["id"]);
        } else {
            assert_eq!((answer.status, answer.code()), (StatusCode::CONFLICT, 1_423));
            assert_eq!(
                (answer.header("retry-after").as_str(), answer.header("x-should-retry")),
                ("1", String::new())
            );
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_cuts_nothing_off() {
    let rig = Rig::new().await;
    {
        let gone = make_token(&rig, "one", BODY);
        tokio::pin!(gone);
        // Looked at once, which begins it, and dropped.
        let begun = tokio::time::timeout(Duration::ZERO, &mut gone).await;
        assert!(begun.is_err(), "it was faster than the ledger's disk");
    }
    let again = loop {
        let again = make_token(&rig, "one", BODY).await;
        match again.code() {
            1_423 => tokio::time::sleep(Duration::from_millis(5)).await,
            _ => break again,
        }
    };
    assert_eq!(again.status, StatusCode::OK, "{}", again.message());
    assert_eq!(tokens(&rig).await, 1);
}

#[tokio::test]
async fn one_that_was_cut_off_is_told_so() {
    let rig = Rig::new().await;
    let path = format!("/client/v4{}", rig.own("/tokens"));
    let begun = BeginKeyed {
        token: hash_secret(SECRET),
        key: hash_secret("one"),
        request: crate::idempotency::hash_request("POST", &path, BODY.as_bytes()),
        now: rig.now(),
    };
    rig.ledger().transact(begun).await.expect("noted");
    let again = make_token(&rig, "one", BODY).await;
    assert_eq!((again.status, again.code()), (StatusCode::CONFLICT, 1_420));
    assert_eq!(again.header("x-should-retry"), "false");
    assert_eq!(tokens(&rig).await, 0);
}

#[tokio::test]
async fn no_secret_of_an_answer_is_in_the_ledger() {
    let rig = Rig::new().await;
    let made = make_token(&rig, "one", BODY).await;
    let secret = made.body["result"]["token"].as_str().expect("shown once");
    let file = rig.file();
    assert!(!file.windows(secret.len()).any(|octets| octets == secret.as_bytes()));
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_and_other_methods_ignore_it() {
    let rig = Rig::new().await;
    for wrong in ["", " ", "a b", "\"\"", &"k".repeat(256)] {
        let answer = make_token(&rig, wrong, BODY).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, 1_400), "{wrong:?}");
    }
    assert_eq!(make_token(&rig, &"k".repeat(255), BODY).await.status, StatusCode::OK);
    let read = rig.send_with(&[("idempotency-key", "")], "GET", &rig.own("/tokens"), "").await;
    assert_eq!(read.status, StatusCode::OK);
}

#[tokio::test]
async fn the_oldest_keys_make_room_for_new_ones() {
    let rig = Rig::new().await;
    let first = make_token(&rig, "first", BODY).await;
    rig.advance(1);
    let fill = (1..KEYS_PER_TOKEN_MAX).map(|number| BeginKeyed {
        token: hash_secret(SECRET),
        key: hash_secret(&number.to_string()),
        request: RequestKey::from_bytes([0; 32]),
        now: rig.now(),
    });
    for chunk in fill.collect::<Vec<_>>().chunks(2_000) {
        for done in join_all(chunk.iter().cloned().map(|begin| rig.ledger().transact(begin))).await {
            done.expect("noted");
        }
    }
    assert_eq!(make_token(&rig, "first", BODY).await.body, first.body);
    make_token(&rig, "one-more", BODY).await;
    assert_ne!(make_token(&rig, "first", BODY).await.body, first.body);
    assert!(rig.ledger().reader().expect("open").check().is_ok());
}
