//! Webhooks against a receiver on the loopback: what it is sent, tried again, given up and sent later.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use muster_policy::identity::WebhookId;
use muster_store::act::{AddWebhook, By};
use muster_store::record::Webhook;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::rig::Rig;
use crate::deliver_webhooks;

/// Generous: a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request as it came.
#[derive(Debug)]
struct Received {
    headers: HeaderMap,
    body: String,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().expect("text")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    fn names(&self) -> Vec<String> {
        let events = self.json()["events"].as_array().expect("a list").clone();
        events.iter().map(|event| event["event"].as_str().expect("a name").to_owned()).collect()
    }
}

/// Answers as it is told, then 204.
struct Receiver {
    url: String,
    answers: Arc<Mutex<VecDeque<u16>>>,
    requests: mpsc::Receiver<Received>,
}

type Shared = (Arc<Mutex<VecDeque<u16>>>, mpsc::Sender<Received>);

async fn take(State((answers, sender)): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let status = answers.lock().expect("no panic").pop_front().unwrap_or(204);
    sender.send(Received { headers, body }).await.expect("the test listens");
    let status = StatusCode::from_u16(status).expect("a status");
    // Where a client that follows redirects would be found out.
    (status, [("location", "/elsewhere")]).into_response()
}

impl Receiver {
    async fn start() -> Self {
        let (sender, requests) = mpsc::channel(1_000);
        let answers = Arc::default();
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", socket.local_addr().expect("an address"));
        let router = Router::new()
            .route("/hook", post(take))
            .route("/elsewhere", post(take).get(take))
            .with_state((Arc::clone(&answers), sender));
        tokio::spawn(async move { axum::serve(socket, router).await });
        Self { url, answers, requests }
    }

    fn answer(&self, statuses: &[u16]) {
        self.answers.lock().expect("no panic").extend(statuses);
    }

    async fn next(&mut self) -> Received {
        tokio::time::timeout(PATIENCE, self.requests.recv()).await.expect("in time").expect("open")
    }
}

async fn make(rig: &Rig, url: &str, events: &[&str]) -> Value {
    rig.post("/webhooks", json!({ "name": "ops", "url": url, "events": events })).await
}

fn id(webhook: &Value) -> &str {
    webhook["id"].as_str().expect("an id")
}

async fn import(rig: &Rig, device: &str) {
    rig.post("/devices/import", json!([{ "id": device }])).await;
}

/// Delivers until dropped.
struct Running(CancellationToken);

impl Running {
    fn start(rig: &Rig) -> Self {
        let stop = CancellationToken::new();
        tokio::spawn(deliver_webhooks(rig.api(), stop.clone()));
        Self(stop)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Waits until a webhook's progress is as wanted.
async fn until(rig: &Rig, webhook: &str, what: impl Fn(&Value) -> bool) -> Value {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let shown = rig.get(&format!("/webhooks/{webhook}")).await["progress"].clone();
        if what(&shown) {
            return shown;
        }
        assert!(tokio::time::Instant::now() < end, "{shown}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn events_are_delivered_in_order_signed_and_only_those_that_are_wanted() {
    let rig = Rig::new().await;
    let mut receiver = Receiver::start().await;
    import(&rig, "before").await;
    let _running = Running::start(&rig);
    let webhook = make(&rig, &receiver.url, &["devices-imported", "device-set"]).await;
    rig.post("/admin_tokens", json!({ "name": "not told", "role": "reader" })).await;
    import(&rig, "a").await;
    rig.edit("a", json!({ "status": "suspended" })).await;
    let mut names = Vec::new();
    let mut last = 0;
    while names.len() < 2 {
        let received = receiver.next().await;
        names.extend(received.names());
        let text = format!(
            "{}.{}.{}",
            received.header("webhook-id"),
            received.header("webhook-timestamp"),
            received.body
        );
        let secret =
            webhook["secret"].as_str().expect("shown once").strip_prefix("whsec_").expect("a prefix");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(secret).expect("base64"));
        let signature = received.header("webhook-signature").strip_prefix("v1,").expect("version 1");
        hmac::verify(&key, text.as_bytes(), &STANDARD.decode(signature).expect("base64")).expect("signed");
        assert_eq!(received.json()["webhook"], webhook["id"]);
        let number = received.json()["events"][0]["number"].as_u64().expect("a number");
        assert!(number > last);
        last = number;
    }
    assert_eq!(names, ["devices-imported", "device-set"]);
    let shown = rig.get("/webhooks").await;
    assert!(shown[0].get("secret").is_none());
    assert_eq!(rig.get("/audit?action=webhook-added").await[0]["details"], webhook["id"]);
}

#[tokio::test]
async fn a_delivery_is_tried_again_under_the_same_id_and_goes_on_after_a_restart() {
    let rig = Rig::new().await;
    let mut receiver = Receiver::start().await;
    receiver.answer(&[500, 302]);
    let running = Running::start(&rig);
    let webhook = make(&rig, &receiver.url, &[]).await;
    import(&rig, "a").await;
    let first = receiver.next().await;
    // What follows had no time to come yet, or came in the same delivery.
    let (second, third) = (receiver.next().await, receiver.next().await);
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!((first.header("webhook-id"), &first.body), (third.header("webhook-id"), &third.body));
    until(&rig, id(&webhook), |progress| progress["delivered"].as_u64() >= Some(1)).await;
    drop(running);
    import(&rig, "b").await;
    let _running = Running::start(&rig);
    loop {
        let events = receiver.next().await.json()["events"].as_array().expect("a list").clone();
        let newest = rig.get("/status").await["ledger"]["newest_change"].clone();
        if events.iter().any(|event| event["number"] == newest) {
            break;
        }
    }
}

#[tokio::test]
async fn what_is_given_up_is_a_dead_letter_until_it_is_delivered() {
    let rig = Rig::new().await;
    let mut receiver = Receiver::start().await;
    receiver.answer(&[500, 500, 503, 400]);
    let _running = Running::start(&rig);
    let webhook = make(&rig, &receiver.url, &["devices-imported"]).await;
    import(&rig, "a").await;
    let lost = receiver.next().await;
    until(&rig, id(&webhook), |progress| progress["given_up"] == 1).await;
    let path = format!("/webhooks/{}/dead_letters", id(&webhook));
    let letters = rig.get(&path).await;
    assert_eq!(
        (&letters[0]["attempts"], &letters[0]["why"]),
        (&json!(3), &json!("the address answered 503"))
    );
    let letter = format!("{path}/{}", letters[0]["number"]);
    let again = rig.post(&format!("{letter}/redeliver"), json!({})).await;
    assert_eq!((&again["delivered"], &again["status"]), (&json!(false), &json!(400)));
    let again = rig.post(&format!("{letter}/redeliver"), json!({})).await;
    assert_eq!((&again["delivered"], &again["status"]), (&json!(true), &json!(204)));
    let mut sent = receiver.next().await;
    for _ in 0..3 {
        sent = receiver.next().await;
    }
    assert_eq!((sent.header("webhook-id"), &sent.body), (lost.header("webhook-id"), &lost.body));
    assert_eq!(rig.get(&path).await, json!([]));
    let gone = rig.send("POST", &rig.own(&format!("{letter}/redeliver")), "").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    // Those after it were not held up.
    import(&rig, "b").await;
    assert_eq!(receiver.next().await.names(), ["devices-imported"]);
    until(&rig, id(&webhook), |progress| progress["delivered"] == 1).await;
    assert!(rig.ledger().reader().expect("open").check().is_ok());
}

#[tokio::test]
async fn what_the_operator_denies_is_a_dead_letter_at_once() {
    let rig = Rig::new().await;
    // From before it was denied.
    let webhook = Webhook {
        id: WebhookId::new(1, [1; 10]),
        account: rig.account.parse().expect("an id"),
        name: "old".parse().expect("a title"),
        url: "https://169.254.169.254/latest".to_owned(),
        events: ["devices-imported".to_owned()].into(),
        created_at: rig.now(),
    };
    let id = webhook.id.to_string();
    rig.ledger().transact(AddWebhook { webhook, by: By::system(rig.now()) }).await.expect("added");
    let _running = Running::start(&rig);
    import(&rig, "a").await;
    until(&rig, &id, |progress| progress["given_up"] == 1).await;
    let letters = rig.get(&format!("/webhooks/{id}/dead_letters")).await;
    let why = "169.254.169.254 is in 169.254.0.0/16, which outbound.denied_networks in muster.toml denies";
    assert_eq!((&letters[0]["attempts"], &letters[0]["why"]), (&json!(1), &json!(why)));
    let test = rig.post(&format!("/webhooks/{id}/test"), json!({})).await;
    assert_eq!((&test["delivered"], &test["why"]), (&json!(false), &json!(why)));
}

#[tokio::test]
async fn a_test_says_what_the_receiver_answered_and_a_removed_one_is_told_nothing() {
    let rig = Rig::new().await;
    let mut receiver = Receiver::start().await;
    let _running = Running::start(&rig);
    let webhook = make(&rig, &receiver.url, &["zone-added"]).await;
    let path = format!("/webhooks/{}", id(&webhook));
    receiver.answer(&[302]);
    let refused = rig.post(&format!("{path}/test"), json!({})).await;
    assert_eq!((&refused["delivered"], &refused["status"]), (&json!(false), &json!(302)));
    assert_eq!(rig.post(&format!("{path}/test"), json!({})).await["delivered"], true);
    assert_eq!(receiver.next().await.json()["events"], json!([]));
    receiver.next().await;
    let removed = rig.send("DELETE", &rig.own(&path), "").await;
    assert_eq!(removed.status, StatusCode::OK);
    assert_eq!(rig.send("GET", &rig.own(&path), "").await.status, StatusCode::NOT_FOUND);
    rig.send("POST", "/zones", "{\"name\":\"a.example\"}").await;
    let next = make(&rig, &receiver.url, &["zone-added"]).await;
    rig.send("POST", "/zones", "{\"name\":\"b.example\"}").await;
    assert_eq!(receiver.next().await.json()["webhook"], next["id"]);

    let nowhere = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let webhook = make(&rig, &format!("http://{nowhere}/"), &["zone-added"]).await;
    let test = rig.post(&format!("/webhooks/{}/test", id(&webhook)), json!({})).await;
    assert_eq!((&test["delivered"], &test["status"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn addresses_and_events_are_checked_and_webhooks_are_few() {
    let rig = Rig::new().await;
    for wrong in [
        "",
        "/path",
        "ftp://example.com/",
        "http://example.com/",
        "http://192.0.2.1/",
        "http://127.0.0.1.example.com/",
        "https://user:secret@example.com/",
        "https://example.com/#part",
        "https://169.254.169.254/latest",
        "https://[::ffff:169.254.169.254]/latest",
        &format!("https://example.com/{}", "x".repeat(2_048)),
    ] {
        let body = json!({ "name": "x", "url": wrong }).to_string();
        let refused = rig.send("POST", &rig.own("/webhooks"), &body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert_eq!(refused.body["errors"][0]["source"]["pointer"], "/url", "{wrong}");
    }
    for wrong in ["", "zone", "certificate-revokd"] {
        let body = json!({ "name": "x", "url": "https://example.com/", "events": [wrong] }).to_string();
        let refused = rig.send("POST", &rig.own("/webhooks"), &body).await;
        assert_eq!(
            (refused.status, &refused.body["errors"][0]["source"]["pointer"]),
            (StatusCode::BAD_REQUEST, &json!("/events"))
        );
    }
    for _ in 0..32 {
        make(&rig, "https://[::1]:8443/x?y=z", &[]).await;
    }
    let body = json!({ "name": "x", "url": "https://example.com/" }).to_string();
    assert_eq!(rig.send("POST", &rig.own("/webhooks"), &body).await.status, StatusCode::BAD_REQUEST);
}
