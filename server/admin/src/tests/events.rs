//! The stream of events: what happens is told in order, from where the reader says, within bounds.

use std::time::Duration;

use axum::body::Body;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use muster_store::act::By;
use serde_json::{Value, json};

use super::rig::{Rig, SECRET};

/// Generous: a loaded machine's disk.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Stream {
    body: Body,
    text: String,
}

impl Stream {
    async fn open(rig: &Rig, token: &str, query: &str, last: Option<&str>) -> Self {
        Self::of(open(rig, token, query, last).await)
    }

    pub(super) fn of(response: Response<Body>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next block of lines; none at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("in time")?;
            let data = frame.expect("no error").into_data().expect("data");
            self.text.push_str(std::str::from_utf8(&data).expect("text"));
        }
    }

    /// Name, number and data of the next event.
    async fn event(&mut self) -> (String, u64, Value) {
        let block = self.next().await.expect("an event");
        let field = |name: &str| {
            let found = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.unwrap_or_else(|| panic!("no {name} in {block}")).to_owned()
        };
        let data = serde_json::from_str(&field("data")).expect("JSON");
        (field("event"), field("id").parse().expect("a number"), data)
    }
}

async fn open(rig: &Rig, token: &str, query: &str, last: Option<&str>) -> Response<Body> {
    let bearer = format!("Bearer {token}");
    let path = format!("/client/v4{}", rig.own(&format!("/events{query}")));
    let mut headers = vec![("authorization", bearer.as_str())];
    headers.extend(last.map(|last| ("last-event-id", last)));
    rig.conditional(&path, &headers).await
}

async fn import(rig: &Rig, id: &str) {
    rig.post("/devices/import", json!([{ "id": id }])).await;
}

#[tokio::test]
async fn what_happens_is_told_and_a_reader_that_comes_back_goes_on_where_it_was() {
    let rig = Rig::new().await;
    let mut stream = Stream::open(&rig, SECRET, "", None).await;
    import(&rig, "a").await;
    rig.edit("a", json!({ "status": "suspended" })).await;
    let (name, first, data) = stream.event().await;
    assert_eq!(
        (name.as_str(), &data["subject"], &data["number"]),
        ("devices-imported", &json!({ "count": 1 }), &json!(first))
    );
    let (name, second, data) = stream.event().await;
    assert_eq!((name.as_str(), second), ("device-set", first + 1));
    assert_eq!(data["subject"], json!({ "device": "a", "status": "suspended" }));
    drop(stream);
    import(&rig, "b").await;
    let mut again = Stream::open(&rig, SECRET, "?since=0", Some(&first.to_string())).await;
    assert_eq!(again.event().await.1, second);
    assert_eq!(again.event().await.1, second + 1);
    let mut from_start = Stream::open(&rig, SECRET, "?since=0", None).await;
    assert_eq!(from_start.event().await.1, 1);
}

#[tokio::test]
async fn events_of_another_account_are_not_told() {
    let rig = Rig::new().await;
    let mut stream = Stream::open(&rig, SECRET, "", None).await;
    rig.other_account().await;
    import(&rig, "a").await;
    assert_eq!(stream.event().await.0, "devices-imported");
}

#[tokio::test]
async fn who_is_ahead_of_the_log_is_told_that_it_is_another_one() {
    let rig = Rig::new().await;
    let mut stream = Stream::open(&rig, SECRET, "", Some("1000000")).await;
    let (name, number, _) = stream.event().await;
    assert_eq!(name, "reset");
    import(&rig, "a").await;
    assert_eq!(stream.event().await.1, number + 1);
}

#[tokio::test]
async fn who_is_far_behind_is_told_so() {
    let rig = Rig::new().await;
    let many: Vec<Value> = (0..1_000).map(|number| json!({ "id": format!("d{number}") })).collect();
    rig.post("/devices/import", Value::Array(many)).await;
    // Each status that is set is a change of its own.
    let devices: Vec<_> = (0..1_000).map(|number| format!("d{number}").parse().expect("an id")).collect();
    for round in 0..3 {
        let status = match round % 2 {
            0 => muster_policy::enrol::DeviceStatus::Suspended,
            _ => muster_policy::enrol::DeviceStatus::Active,
        };
        let account = rig.account.parse().expect("an id");
        let set = muster_store::act::SetDevicesStatus {
            account,
            devices: devices.clone(),
            status,
            by: By::system(rig.now()),
        };
        rig.ledger().transact(set).await.expect("set");
    }
    let mut stream = Stream::open(&rig, SECRET, "?since=1", None).await;
    let (name, number, data) = stream.event().await;
    assert_eq!((name.as_str(), &data["from"], &data["to"]), ("lagged", &json!(2), &json!(number)));
    import(&rig, "a").await;
    assert_eq!(stream.event().await.1, number + 1);
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_with_the_server() {
    let rig = Rig::new().await;
    let made = rig.post("/admin_tokens", json!({ "name": "follower", "role": "reader" })).await;
    let token = made["token"].as_str().expect("shown once").to_owned();
    let mut stream = Stream::open(&rig, &token, "", None).await;
    let mut local = Stream::open(&rig, SECRET, "", None).await;
    let id = made["id"].as_str().expect("an id");
    rig.send("DELETE", &rig.own(&format!("/admin_tokens/{id}")), "").await;
    assert_eq!(stream.next().await, None);
    assert_eq!(local.event().await.0, "admin-token-set");
    rig.api().stop();
    assert_eq!(local.next().await, None);
}

#[tokio::test]
async fn an_idle_stream_says_that_it_is_there() {
    let rig = Rig::new().await;
    let mut stream = Stream::open(&rig, SECRET, "", None).await;
    tokio::time::pause();
    assert_eq!(stream.next().await.as_deref(), Some(": heartbeat"));
    tokio::time::resume();
}

#[tokio::test]
async fn streams_are_bounded_for_each_token_and_in_all() {
    let rig = Rig::new().await;
    let mut open_streams = Vec::new();
    for number in 0..8 {
        let made = rig.post("/admin_tokens", json!({ "name": format!("t{number}"), "role": "admin" })).await;
        let token = made["token"].as_str().expect("shown once").to_owned();
        for _ in 0..8 {
            open_streams.push(Stream::open(&rig, &token, "", None).await);
        }
        let refused = open(&rig, &token, "", None).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "1");
    }
    assert_eq!(open(&rig, SECRET, "", None).await.status(), StatusCode::TOO_MANY_REQUESTS);
    open_streams.pop();
    Stream::open(&rig, SECRET, "", None).await;
}

#[tokio::test]
async fn a_stream_needs_a_token_with_its_permission_and_a_number() {
    let rig = Rig::new().await;
    let wanted = json!({ "name": "fleet", "permissions": ["fleet:read"] });
    let made = rig.post("/admin_tokens", wanted).await;
    let token = made["token"].as_str().expect("shown once").to_owned();
    let refused = rig.send_as(Some(&token), "GET", &rig.own("/events"), "").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, 9_109));
    assert!(refused.message().contains("account:read"), "{}", refused.message());
    assert_eq!(rig.send_as(None, "GET", &rig.own("/events"), "").await.status, StatusCode::UNAUTHORIZED);
    for (query, last) in [("?since=x", None), ("?since=-1", None), ("", Some("x")), ("", Some("-1"))] {
        let refused = open(&rig, SECRET, query, last).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{query} {last:?}");
    }
}
