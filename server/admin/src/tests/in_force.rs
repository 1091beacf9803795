//! What an answer says while an edge does not go by a change.

use serde_json::{Value, json};
use tokio::sync::watch;

use super::browser::Browser;
use super::rig::Rig;

/// The codes of an answer's messages.
fn told(messages: &Value) -> Vec<u64> {
    let messages = messages.as_array().expect("a list");
    messages.iter().map(|message| message["code"].as_u64().expect("a code")).collect()
}

#[tokio::test(start_paused = true)]
async fn who_changes_something_is_told_while_an_edge_does_not_go_by_it() {
    let edge = watch::Sender::new(u64::MAX);
    let rig = Rig::with_edges(Some(edge.subscribe())).await;
    let import = |id: &str| json!([{ "id": id }]).to_string();
    let path = rig.own("/devices/import");
    let in_force = rig.send("POST", &path, &import("meter-1")).await;
    assert_eq!((told(&in_force.body["messages"]), &in_force.body["result"]["created"]), (vec![], &json!(1)));

    edge.send_replace(0);
    let late = rig.send("POST", &path, &import("meter-2")).await;
    assert_eq!((late.status.as_u16(), &late.body["success"]), (200, &json!(true)));
    assert_eq!((told(&late.body["messages"]), &late.body["result"]["created"]), (vec![1_202], &json!(1)));
    let refused = rig.send("POST", &path, "[{}]").await;
    assert_eq!((refused.status.as_u16(), told(&refused.body["messages"])), (400, vec![]));
    let read = rig.send("GET", &rig.own("/devices"), "").await;
    assert_eq!(told(&read.body["messages"]), Vec::<u64>::new(), "nothing was changed");
}

#[tokio::test(start_paused = true)]
async fn a_page_says_so_too() {
    let edge = watch::Sender::new(u64::MAX);
    let rig = Rig::with_edges(Some(edge.subscribe())).await;
    rig.post("/devices/import", json!([{ "id": "meter-1" }])).await;
    let (mut browser, ..) = Browser::of(&rig, "admin").await;
    let told = "an edge does not go by it yet";
    let seen = browser.post("/devices/meter-1/status?to=suspended", "").await;
    assert!(seen.text.contains("flash done") && !seen.text.contains(told), "{}", seen.text);
    edge.send_replace(0);
    let seen = browser.post("/devices/meter-1/status?to=active", "").await;
    assert!(seen.text.contains(told), "{}", seen.text);
}
