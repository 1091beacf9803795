//! Who is connected to the edge: listed, paged, and ended by who may.

use http::StatusCode;
use muster_policy::host::Protocol;
use muster_policy::identity::{CaId, Serial};
use muster_policy::time::UnixTime;
use serde_json::{Value, json};

use super::rig::Rig;
use crate::{Connection, ConnectionFilter, Connections};

/// Five connections to one edge, of which one has a certificate, and an older one to another edge.
pub(super) fn connected(filter: &ConnectionFilter) -> Connections {
    let holder = (CaId::from_bytes([2; 16]), Serial::from_bytes(&[7]).expect("a serial"));
    let one = |number: u64| Connection {
        edge: "server".parse().expect("a name"),
        number,
        host: "api.example.com".parse().expect("a host"),
        protocol: Protocol::Mqtt,
        certificate: (number == 5).then_some(holder),
        device: (number == 5).then(|| "meter-1".parse().expect("an id")),
        peer: ([192, 0, 2, 1], 4_711).into(),
        since: UnixTime::from_secs(1_795_600_000),
    };
    let older = UnixTime::from_secs(1_795_500_000);
    let other = Connection { edge: "north".parse().expect("a name"), since: older, ..one(2) };
    let found: Vec<Connection> = (1..=5).rev().map(one).chain([other]).collect();
    let none = filter.host.as_ref().is_some_and(|host| host.to_string() != "api.example.com");
    let mut found = if none { Vec::new() } else { found };
    found.retain(|one| {
        filter.number.is_none_or(|number| one.number == number)
            && filter.edge.as_ref().is_none_or(|edge| one.edge == *edge)
            && filter.before.as_ref().is_none_or(|before| one.place() < *before)
            && filter.device.as_ref().is_none_or(|(_, device)| one.device.as_ref() == Some(device))
            && filter.certificate.is_none_or(|key| one.certificate == Some(key))
    });
    let total = found.len();
    let found = found.into_iter().skip(filter.skip).take(filter.limit).collect();
    Connections { found, total, edges: if filter.edge.is_none() { 2 } else { 1 } }
}

#[tokio::test]
async fn live_connections_are_listed_newest_first_and_paged() {
    let rig = Rig::new().await;
    let page = |query: &str| rig.own(&format!("/connections?{query}"));
    let first = rig.send("GET", &page("per_page=2"), "").await;
    assert_eq!(first.body["result"][0]["device"], "meter-1");
    assert_eq!(first.body["result"][0]["serial_number"], "07");
    assert_eq!(first.body["result"][1]["device"], Value::Null);
    assert_eq!(first.body["result"][1]["peer"], "192.0.2.1:4711");
    let info = &first.body["result_info"];
    assert_eq!((&info["total_count"], &info["total_pages"]), (&json!(6), &json!(3)));
    let cursor = info["cursor"].as_str().expect("there is more");
    let rest = rig.send("GET", &page(&format!("per_page=9&cursor={cursor}")), "").await;
    assert_eq!(
        (&rest.body["result"][0]["number"], &rest.body["result_info"]["cursor"]),
        (&json!(3), &Value::Null)
    );
    assert_eq!(
        (&rest.body["result"][3]["edge"], &rest.body["result"][3]["number"]),
        (&json!("north"), &json!(2))
    );
    let north = rig.send("GET", &page("edge=north"), "").await.body["result"].clone();
    assert_eq!((north.as_array().expect("a list").len(), &north[0]["edge"]), (1, &json!("north")));
    assert_eq!(rig.send("GET", &page("page=3&per_page=2"), "").await.body["result"][0]["number"], 1);
    assert_eq!(rig.send("GET", &page("page=4&per_page=2"), "").await.body["result"], json!([]));
    assert_eq!(rig.send("GET", &page("host=b.example.com"), "").await.body["result"], json!([]));
    for (query, status) in [
        ("device=nobody", StatusCode::NOT_FOUND),
        ("certificate=01890000-0000-7000-8000-000000000000", StatusCode::NOT_FOUND),
        ("certificate=x", StatusCode::BAD_REQUEST),
        ("host=a%20b", StatusCode::BAD_REQUEST),
        ("cursor=zz", StatusCode::BAD_REQUEST),
        ("cursor=00112233445566778899", StatusCode::BAD_REQUEST),
        // No name, and one that is none.
        ("cursor=00000000000000010000000000000001", StatusCode::BAD_REQUEST),
        ("cursor=0000000000000001000000000000000141", StatusCode::BAD_REQUEST),
        ("edge=A", StatusCode::BAD_REQUEST),
        ("edge=south", StatusCode::OK),
        ("page=501&per_page=20", StatusCode::BAD_REQUEST),
        ("page=500&per_page=20", StatusCode::OK),
    ] {
        assert_eq!(rig.send("GET", &page(query), "").await.status, status, "{query}");
    }
}

#[tokio::test]
async fn live_connections_are_ended_by_who_may_and_it_is_in_the_audit() {
    let rig = Rig::new().await;
    rig.post("/devices/import", json!([{ "id": "meter-1" }, { "id": "meter-2" }])).await;
    let path = rig.own("/connections/close");
    for (body, closed) in [
        (json!({ "device": "meter-1" }), 1),
        (json!({ "device": "meter-2" }), 0),
        (json!({ "number": 5, "edge": "server" }), 1),
        (json!({ "host": "api.example.com" }), 6),
        (json!({ "edge": "north" }), 1),
        (json!({ "host": "api.example.com", "device": "meter-1" }), 1),
    ] {
        let answer = rig.send("POST", &path, &body.to_string()).await;
        assert_eq!(answer.body["result"]["closed"], closed, "{body}: {}", answer.message());
    }
    let entries = rig.get("/audit?action=connections-closed").await;
    let told = |entry: &Value| (entry["subjects"]["device"].clone(), entry["details"].clone());
    let entries: Vec<_> = entries.as_array().expect("a list").iter().map(told).collect();
    let (device, one) = (json!("meter-1"), json!("count 1"));
    let (all, north) = ((Value::Null, json!("count 6")), (Value::Null, json!("count 1")));
    let of_device = (device, one);
    assert_eq!(
        entries,
        [of_device.clone(), north, all, of_device.clone(), of_device],
        "nothing was done to meter-2"
    );
    assert_eq!(rig.get("/audit?device=meter-1").await[0]["action"], "connections-closed");
    for (body, status) in [
        (json!({}), StatusCode::BAD_REQUEST),
        (json!({ "device": null }), StatusCode::BAD_REQUEST),
        (json!({ "all": true }), StatusCode::BAD_REQUEST),
        (json!({ "number": -1 }), StatusCode::BAD_REQUEST),
        (json!({ "number": 5 }), StatusCode::BAD_REQUEST),
        (json!({ "edge": "A" }), StatusCode::BAD_REQUEST),
        (json!({ "number": 99, "edge": "server" }), StatusCode::NOT_FOUND),
        (json!({ "number": 5, "edge": "north" }), StatusCode::NOT_FOUND),
        (json!({ "device": "nobody" }), StatusCode::NOT_FOUND),
        (json!({ "certificate": "01890000-0000-7000-8000-000000000000" }), StatusCode::NOT_FOUND),
    ] {
        assert_eq!(rig.send("POST", &path, &body.to_string()).await.status, status, "{body}");
    }
}
