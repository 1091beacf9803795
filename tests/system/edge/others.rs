//! Who is connected to edges in processes of their own, as the server tells it.

use std::time::{Duration, Instant};

use muster_tests::Server;
use serde_json::Value;

use super::mqtt::{connections, is_sent_away, is_served, mqtt_at};
use super::{OtherEdge, enrolled, set};

/// Edge and device of each connection, newest first.
fn seen(found: &[Value]) -> Vec<(&str, &str)> {
    found
        .iter()
        .map(|one| (one["edge"].as_str().expect("a name"), one["device"].as_str().expect("an id")))
        .collect()
}

/// Waits until the server sees so many connections.
#[track_caller]
fn come_to(server: &Server, expected: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = connections(server, "");
        if found.len() == expected {
            return found;
        }
        assert!(Instant::now() < deadline, "not {expected}: {found:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn who_is_connected_to_any_edge_is_seen_and_sent_away_until_that_edge_is_gone() {
    let server = Server::with_config("[listen]\nedges = \"edges.sock\"\n");
    set(&server, "mqtt.example.test", &["--protocol", "mqtt"]);
    let [first, second, third] = ["meter-1", "meter-2", "meter-3"].map(|id| enrolled(&server, id));
    let mut north = OtherEdge::of(&server, "name = \"north\"\n");
    let mut own = mqtt_at(server.mqtt_address(), &server, &first, "meter-1");
    let mut stays = mqtt_at(north.mqtt, &server, &second, "meter-2");
    let mut goes = mqtt_at(north.mqtt, &server, &third, "meter-3");
    let found = come_to(&server, 3);
    let mut all = seen(&found);
    all.sort_unstable();
    assert_eq!(all, [("north", "meter-2"), ("north", "meter-3"), ("server", "meter-1")]);
    assert_eq!(seen(&connections(&server, "edge=server")), [("server", "meter-1")]);
    assert_eq!(seen(&connections(&server, "device=meter-2")), [("north", "meter-2")]);
    assert_eq!(connections(&server, "edge=south"), Vec::<Value>::new());

    // Page after page, by number and by cursor, each is there once, in one order.
    let whole = connections(&server, "");
    let mut cursor = String::new();
    for (page, one) in whole.iter().enumerate() {
        let by_number = connections(&server, &format!("per_page=1&page={}", page + 1));
        assert_eq!((by_number.len(), &by_number[0]), (1, one));
        let query = format!("/connections?per_page=1&cursor={cursor}");
        let (status, answer) = server.api("GET", &query, &[], "");
        assert_eq!((status, &answer["result"][0]), (200, one), "{answer}");
        cursor = answer["result_info"]["cursor"].as_str().unwrap_or_default().to_owned();
    }
    assert!(cursor.is_empty(), "the end");

    // Each edge has its own numbers.
    let number = connections(&server, "device=meter-3")[0]["number"].to_string();
    let refused = server.try_muster(&["connection", "close", &number]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("edge"), "{refused:?}");
    let closed = server.muster_json(&["connection", "close", &number, "--edge", "north"]);
    assert_eq!(closed["closed"], 1);
    is_sent_away(&mut goes);
    is_served(&mut stays);
    assert_eq!(come_to(&server, 2).len(), 2);

    // Of two edges of one name, the second is not seen, and says why.
    let double = OtherEdge::of(&server, "name = \"north\"\n");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !double.log().contains("another edge is called north") {
        assert!(Instant::now() < deadline, "{}", double.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(double);

    // One that answers nobody is left out, and seen again when it answers.
    north.signal("-STOP");
    assert_eq!(seen(&come_to(&server, 1)), [("server", "meter-1")]);
    north.signal("-CONT");
    come_to(&server, 2);
    north.kill();
    assert_eq!(seen(&come_to(&server, 1)), [("server", "meter-1")]);
    is_served(&mut own);
    server.muster_json(&["connection", "close", "--edge", "server"]);
    is_sent_away(&mut own);
}

/// Whoever revokes a device wants to know where it may still be served.
#[test]
fn a_command_says_that_an_edge_does_not_go_by_its_change_yet() {
    let server = Server::with_config("[listen]\nedges = \"edges.sock\"\n");
    let north = OtherEdge::of(&server, "name = \"north\"\n");
    // It follows once this is there without a word.
    enrolled(&server, "meter-1");
    let revoke = ["cert", "revoke", "--device", "meter-1", "--json"];
    north.signal("-STOP");
    let late = server.try_muster(&revoke);
    north.signal("-CONT");
    let said = String::from_utf8_lossy(&late.stderr);
    assert!(late.status.success() && said.contains("an edge does not go by it yet"), "{late:?}");
    let result: Value = serde_json::from_slice(&late.stdout).expect("the result alone");
    assert_eq!(result[0]["status"], "revoked", "{result}");
    let again = server.try_muster(&["device", "suspend", "meter-1"]);
    assert!(again.status.success() && again.stderr.is_empty(), "{again:?}");
}
