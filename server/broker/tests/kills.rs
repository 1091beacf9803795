//! Eleven inputs that killed or confused a stock broker of the trade, sent to ours.
//!
//! Each was seen to work against rumqttd 0.20. The numbers are those of that list.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod rig;

use muster_broker::{Broker, Ended};
use rig::{
    Client, GOODBYE, OPEN, PING, PUBACK, broker, connect, connected, dial, publish, subscribe_with,
    unsubscribe,
};

/// A client gets in, hears itself and leaves.
async fn is_alive(broker: &Broker) {
    let mut client = connected(broker, connect(5, "alive")).await;
    client.subscribe(5, "alive", 1).await;
    client.send(&publish(5, 0, "alive", 0, &[], b"x")).await;
    assert_eq!(client.receive().await.0, 0x30);
    client.send(&GOODBYE).await;
    assert_eq!(client.ended().await, Ended::Disconnected);
}

#[tokio::test]
async fn kill_1_a_silent_client_holds_up_nobody() {
    let broker = broker(OPEN);
    let silent: Vec<Client> = (0..50).map(|_| dial(&broker, None)).collect();
    is_alive(&broker).await;
    drop(silent);
}

#[tokio::test]
async fn kill_2_odd_client_ids_are_only_names() {
    let broker = broker(OPEN);
    for id in ["a+b", "$", "#", "/", "+/#", "$share/g/a", "\u{fffd}"] {
        for _ in 0..2 {
            let client = connected(&broker, connect(4, id).will("gone", b"x", 0, &[])).await;
            drop(client.stream);
        }
    }
    is_alive(&broker).await;
}

#[tokio::test]
async fn kill_3_a_refused_client_that_tries_again_harms_nobody() {
    let broker = broker(&format!("{OPEN}[quotas]\nsessions = 2"));
    let _held = connected(&broker, connect(4, "held")).await;
    let other = connected(&broker, connect(4, "other")).await;
    for _ in 0..5 {
        let mut refused = dial(&broker, None);
        refused.send(&connect(4, "refused").octets()).await;
        assert_eq!(refused.receive().await, (0x20, vec![0, 3]));
        refused.is_closed().await;
    }
    other.ended().await;
    is_alive(&broker).await;
}

#[tokio::test]
async fn kill_4_a_shared_session_may_leave_with_a_message_in_flight() {
    let broker = broker(OPEN);
    let mut member = connected(&broker, connect(4, "member").unclean()).await;
    member.subscribe(4, "$share/g/t", 1).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    writer.send(&publish(4, 2, "t", 1, &[], b"x")).await;
    writer.receive().await;
    assert_eq!(member.receive().await.0, 0x32);
    member.ended().await;
    writer.send(&publish(4, 2, "t", 1, &[], b"y")).await;
    writer.receive().await;
    is_alive(&broker).await;
    let mut member = dial(&broker, None);
    member.send(&connect(4, "member").unclean().octets()).await;
    assert_eq!(member.receive().await, (0x20, vec![1, 0]));
    assert_eq!(member.receive().await.0, 0x3a);
    assert_eq!(member.receive().await.0, 0x32);
}

#[tokio::test]
async fn kill_5_an_empty_message_that_is_not_retained_takes_nothing_away() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(4, "one")).await;
    client.send(&publish(4, 1, "t", 0, &[], b"kept")).await;
    client.send(&publish(4, 0, "t", 0, &[], b"")).await;
    client.subscribe(4, "t", 0).await;
    assert!(client.receive().await.1.ends_with(b"kept"));
}

#[tokio::test]
async fn kill_6_one_share_name_over_two_filters_is_two_groups() {
    let broker = broker(OPEN);
    let mut one = connected(&broker, connect(4, "one")).await;
    let mut two = connected(&broker, connect(4, "two")).await;
    one.subscribe(4, "$share/g/one", 0).await;
    two.subscribe(4, "$share/g/two", 0).await;
    for topic in ["one", "two"] {
        for _ in 0..4 {
            two.send(&publish(4, 0, topic, 0, &[], b"x")).await;
        }
    }
    for client in [&mut one, &mut two] {
        for _ in 0..4 {
            client.receive().await;
        }
        client.receive_nothing().await;
    }
}

#[tokio::test]
async fn kill_7_quality_is_not_raised_by_a_subscription() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(4, "one")).await;
    client.subscribe(4, "t", 1).await;
    client.send(&publish(4, 0, "t", 0, &[], b"x")).await;
    assert_eq!(client.receive().await.0, 0x30);
}

#[tokio::test]
async fn kill_8_unsubscribing_what_is_not_there_is_answered() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(4, "one")).await;
    client.send(&unsubscribe(4, 8, &["nothing"])).await;
    assert_eq!(client.receive().await, (0xb0, vec![0, 8]));
}

#[tokio::test]
async fn kill_9_keep_alive_zero_is_a_keep_alive() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(4, "one")).await;
    client.send(&PING).await;
    assert_eq!(client.receive().await.0, 0xd0);
}

#[tokio::test]
async fn kill_10_filters_and_names_that_are_none_are_refused() {
    let broker = broker(OPEN);
    for (packet, code) in
        [(rig::subscribe(5, 1, "a/#/b", 1), 0x81), (publish(5, 2, "a/+", 1, &[], b"x"), 0x82)]
    {
        let mut client = connected(&broker, connect(5, "one")).await;
        client.send(&packet).await;
        client.is_disconnected(code).await;
    }
    is_alive(&broker).await;
}

#[tokio::test]
async fn kill_11_filters_are_bounded_and_given_back() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(5, "one")).await;
    let names: Vec<_> = (0..2000).map(|number| format!("a/{number}/+")).collect();
    let filters: Vec<_> = names.iter().map(|name| (name.as_str(), 0)).collect();
    client.send(&subscribe_with(5, 1, &[], &filters)).await;
    let (_, body) = client.receive().await;
    let granted = body[3..].iter().filter(|code| **code == 0).count();
    let refused = body[3..].iter().filter(|code| **code == 0x97).count();
    assert_eq!((granted, refused), (1000, 1000));
    assert_eq!(broker.metrics().subscriptions, 1000);
    client.send(&GOODBYE).await;
    client.ended().await;
    let metrics = broker.metrics();
    assert_eq!((metrics.subscriptions, metrics.sessions), (0, 0));
    let mut writer = connected(&broker, connect(5, "writer")).await;
    writer.send(&publish(5, 2, "a/7/x", 1, &[], b"x")).await;
    assert_eq!(writer.receive().await, (PUBACK, vec![0, 1, 0x10]));
}
