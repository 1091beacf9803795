//! The engine `rumqttd`: the eleven inputs that kill or confuse it, through our gate, and what it does for a client.
//!
//! The inputs are those of `kills.rs`, seen to work against rumqttd 0.20 itself.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod rig;

use muster_broker::{Broker, Ended};
use rig::{
    Client, GOODBYE, OPEN, PING, PUBACK, ack, connect, connected, dial, dial_account, holder, publish,
    subscribe_with, text, unsubscribe,
};

fn broker(more: &str) -> Broker {
    rig::broker(&format!("engine = 'rumqttd'\n{OPEN}{more}"))
}

/// A client gets in, hears itself and leaves.
async fn is_alive(broker: &Broker) {
    let mut client = connected(broker, connect(5, "alive")).await;
    assert_eq!(client.subscribe(5, "alive", 1).await, 1);
    client.send(&publish(5, 0, "alive", 0, &[], b"x")).await;
    assert_eq!(client.receive().await.0, 0x30);
    client.send(&GOODBYE).await;
    assert_eq!(client.ended().await, Ended::Disconnected);
}

/// Waits until what a client sent went through the router.
async fn publish_and_wait(client: &mut Client, flags: u8, topic: &str, payload: &[u8]) {
    client.send(&publish(4, flags | 2, topic, 9, &[], payload)).await;
    assert_eq!(client.receive().await, (PUBACK, vec![0, 9]));
}

#[tokio::test]
async fn kill_1_a_silent_client_holds_up_nobody() {
    let broker = broker("");
    let silent: Vec<Client> = (0..50).map(|_| dial(&broker, None)).collect();
    is_alive(&broker).await;
    drop(silent);
}

#[tokio::test]
async fn kill_2_odd_client_ids_are_only_names() {
    let broker = broker("");
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
    let broker = broker("[quotas]\nsessions_per_device = 2");
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
async fn kill_4_shared_subscriptions_are_refused() {
    let broker = broker("");
    let mut member = connected(&broker, connect(4, "member").unclean()).await;
    assert_eq!(member.subscribe(4, "$share/g/t", 1).await, 0x80);
    let mut writer = connected(&broker, connect(5, "writer")).await;
    assert_eq!(writer.subscribe(5, "$share/g/t", 1).await, 0x9e);
    writer.send(&publish(5, 2, "t", 1, &[], b"x")).await;
    assert_eq!(writer.receive().await, (PUBACK, vec![0, 1]));
    member.receive_nothing().await;
    member.ended().await;
    is_alive(&broker).await;
}

#[tokio::test]
async fn kill_5_an_empty_message_that_is_not_retained_takes_nothing_away() {
    let broker = broker("");
    let mut client = connected(&broker, connect(4, "one")).await;
    publish_and_wait(&mut client, 1, "t", b"kept").await;
    publish_and_wait(&mut client, 0, "t", b"").await;
    client.subscribe(4, "t", 0).await;
    assert_eq!(client.receive().await, (0x31, [&text("t")[..], b"kept"].concat()));
    // One that is retained does, and reaches those who are there.
    publish_and_wait(&mut client, 1, "t", b"").await;
    assert_eq!(client.receive().await, (0x30, text("t")));
    let mut later = connected(&broker, connect(4, "two")).await;
    later.subscribe(4, "t", 0).await;
    later.receive_nothing().await;
}

#[tokio::test]
async fn kill_6_no_share_name_is_one_group_over_two_filters() {
    let broker = broker("");
    let mut one = connected(&broker, connect(4, "one")).await;
    let mut two = connected(&broker, connect(4, "two")).await;
    assert_eq!(one.subscribe(4, "$share/g/one", 0).await, 0x80);
    assert_eq!(two.subscribe(4, "$share/g/two", 0).await, 0x80);
    // Nor are topics of two accounts ever one.
    let mut foreign = dial_account(&broker, None, 2);
    foreign.send(&connect(4, "one").octets()).await;
    assert_eq!(foreign.receive().await, (0x20, vec![0, 0]));
    foreign.subscribe(4, "#", 0).await;
    one.subscribe(4, "#", 0).await;
    publish_and_wait(&mut two, 0, "t", b"x").await;
    assert_eq!(one.receive().await.0, 0x30);
    foreign.receive_nothing().await;
}

#[tokio::test]
async fn kill_7_quality_is_not_raised_by_a_subscription() {
    let broker = broker("");
    let mut client = connected(&broker, connect(4, "one")).await;
    assert_eq!(client.subscribe(4, "t", 1).await, 1);
    client.send(&publish(4, 0, "t", 0, &[], b"x")).await;
    assert_eq!(client.receive().await.0, 0x30);
}

#[tokio::test]
async fn kill_8_unsubscribing_what_is_not_there_is_answered() {
    let broker = broker("");
    let mut client = connected(&broker, connect(4, "one")).await;
    client.send(&unsubscribe(4, 7, &["nothing"])).await;
    assert_eq!(client.receive().await, (0xb0, vec![0, 7]));
    let mut client = connected(&broker, connect(5, "two")).await;
    client.send(&unsubscribe(5, 7, &["nothing"])).await;
    assert_eq!(client.receive().await, (0xb0, vec![0, 7, 0, 0x11]));
}

#[tokio::test]
async fn kill_9_a_keep_alive_of_zero_is_none() {
    let broker = broker("");
    let mut client = connected(&broker, connect(4, "one")).await;
    client.receive_nothing().await;
    client.send(&PING).await;
    assert_eq!(client.receive().await, (0xd0, vec![]));
}

#[tokio::test]
async fn kill_10_what_is_no_filter_or_no_name_ends_the_connection() {
    let broker = broker("");
    let mut client = connected(&broker, connect(5, "one")).await;
    client.send(&subscribe_with(5, 1, &[], &[("a/#/b", 0)])).await;
    client.is_disconnected(0x81).await;
    let mut client = connected(&broker, connect(5, "one")).await;
    client.send(&publish(5, 0, "a/+", 0, &[], b"x")).await;
    client.is_disconnected(0x82).await;
    is_alive(&broker).await;
}

#[tokio::test]
async fn kill_11_filters_and_topics_have_a_bound() {
    let broker = broker("[quotas]\nfilters = 100000");
    let mut client = connected(&broker, connect(5, "many")).await;
    let filters: Vec<String> = (0..300).map(|number| format!("t/{number}")).collect();
    let asked: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
    client.send(&subscribe_with(5, 1, &[], &asked)).await;
    let (first, body) = client.receive().await;
    assert_eq!(first, 0x90);
    let codes = &body[3..];
    assert_eq!((codes.iter().filter(|code| **code == 0).count(), codes[299]), (100, 0x97));
    // The same for what it publishes to; who names nothing new goes on.
    client.send(&publish(5, 2, "new", 5, &[], b"x")).await;
    assert_eq!(client.receive().await, (PUBACK, vec![0, 5, 0x97]));
    client.send(&publish(5, 2, "t/0", 6, &[], b"x")).await;
    let mut seen = vec![client.receive().await.0, client.receive().await.0];
    seen.sort_unstable();
    assert_eq!(seen, [0x30, PUBACK]);
    // In version 3.1.1 it can't be told, and ends.
    let mut plain = connected(&broker, connect(4, "plain")).await;
    plain.send(&publish(4, 2, "newer", 5, &[], b"x")).await;
    plain.is_closed().await;
    let mut other = dial(&broker, Some(holder("meter", &[])));
    other.send(&connect(5, "meter").octets()).await;
    assert_eq!(other.receive().await.1[1], 0, "another owner has a share of its own");
    assert_eq!(other.subscribe(5, "devices/meter/#", 0).await, 0);
}

#[tokio::test]
async fn messages_of_quality_one_are_acknowledged_both_ways_and_keep_their_properties() {
    let broker = broker("[quotas]\ninflight = 2");
    let mut reader = connected(&broker, connect(5, "reader")).await;
    reader.send(&subscribe_with(5, 3, &[0x0b, 42], &[("a/+", 2)])).await;
    assert_eq!(reader.receive().await, (0x90, vec![0, 3, 0, 1]));
    let mut writer = connected(&broker, connect(5, "writer")).await;
    let content_type = [&[3][..], &text("x")].concat();
    for number in 0..4_u8 {
        writer.send(&publish(5, 2, "a/b", 7, &content_type, &[number])).await;
        assert_eq!(writer.receive().await, (PUBACK, vec![0, 7]));
    }
    // No more than may be in flight, the rest as they are acknowledged.
    for number in 0..2_u8 {
        let (first, body) = reader.receive().await;
        let properties = [&[0x0b, 42][..], &content_type].concat();
        let id = [0, number + 1];
        assert_eq!(first, 0x32);
        assert_eq!(body, [&text("a/b")[..], &id, &[6], &properties, &[number]].concat());
    }
    reader.receive_nothing().await;
    for number in 2..4_u8 {
        reader.send(&ack(PUBACK, u16::from(number) - 1)).await;
        assert_eq!(reader.receive().await.1.last(), Some(&number));
    }
}

#[tokio::test]
async fn what_is_not_offered_is_announced_and_refused() {
    let broker = broker("");
    let mut client = dial(&broker, None);
    client.send(&connect(5, "one").expiry(60).octets()).await;
    let (_, body) = client.receive().await;
    for property in [&[0x24, 1][..], &[0x2a, 0], &[0x11, 0, 0, 0, 0], &[0x22, 0, 0]] {
        assert!(
            body.windows(property.len()).any(|octets| octets == property),
            "{property:02x?} in {body:02x?}"
        );
    }
    client.send(&publish(5, 4, "t", 1, &[], b"x")).await;
    client.is_disconnected(0x9b).await;
    let mut refused = dial(&broker, None);
    refused.send(&connect(5, "one").will("t", b"x", 0x10, &[]).octets()).await;
    assert_eq!(refused.receive().await, (0x20, vec![0, 0x9b, 0]));
    refused.is_closed().await;
}

#[tokio::test]
async fn a_will_is_sent_when_its_client_is_gone_and_not_when_it_left() {
    let broker = broker("");
    let mut reader = connected(&broker, connect(5, "reader")).await;
    reader.subscribe(5, "wills/#", 1).await;
    let mut left = connected(&broker, connect(5, "left").will("wills/left", b"x", 8, &[])).await;
    left.send(&GOODBYE).await;
    left.ended().await;
    let gone = connected(&broker, connect(5, "gone").will("wills/gone", b"x", 8, &[])).await;
    gone.ended().await;
    let (first, body) = reader.receive().await;
    assert_eq!((first, &body[2..12]), (0x32, &b"wills/gone"[..]));
    reader.receive_nothing().await;
}

#[tokio::test]
async fn options_of_subscriptions_are_kept() {
    let broker = broker("");
    let mut client = connected(&broker, connect(5, "one")).await;
    client.send(&publish(5, 1, "kept", 0, &[], b"k")).await;
    // No local, retain as published, never what is retained.
    assert_eq!(client.subscribe(5, "kept", 0x2c).await, 0);
    client.send(&publish(5, 0, "kept", 0, &[], b"own")).await;
    client.receive_nothing().await;
    let mut other = connected(&broker, connect(5, "two")).await;
    other.send(&publish(5, 1, "kept", 0, &[], b"new")).await;
    assert_eq!(client.receive().await, (0x31, [&text("kept")[..], &[0], b"new"].concat()));
    // Asked for again, it is sent again.
    for _ in 0..2 {
        assert_eq!(other.subscribe(5, "kept", 0).await, 0);
        assert_eq!(other.receive().await.0, 0x31);
    }
    other.send(&unsubscribe(5, 4, &["kept"])).await;
    assert_eq!(other.receive().await, (0xb0, vec![0, 4, 0, 0]));
    client.send(&publish(5, 0, "kept", 0, &[], b"x")).await;
    other.receive_nothing().await;
}

#[tokio::test]
async fn a_client_that_comes_again_takes_its_own_place() {
    let broker = broker("");
    let mut first = connected(&broker, connect(5, "same")).await;
    let mut second = connected(&broker, connect(5, "same")).await;
    first.is_disconnected(0x8e).await;
    second.send(&PING).await;
    assert_eq!(second.receive().await, (0xd0, vec![]));
}

#[tokio::test]
async fn a_silent_client_is_let_go_when_its_keep_alive_is_over() {
    let broker = broker("[quotas]\nkeep_alive_s = 1");
    let mut client = dial(&broker, None);
    client.send(&connect(5, "one").octets()).await;
    let (_, body) = client.receive().await;
    assert!(body.windows(3).any(|octets| octets == [0x13, 0, 1]), "{body:02x?}");
    client.is_disconnected(0x8d).await;
}

/// More than the router hands out at one go: it waits until that was taken, and goes on.
#[tokio::test]
async fn a_slow_reader_gets_what_its_log_still_has_and_harms_nobody() {
    let broker = broker("");
    let mut reader = connected(&broker, connect(4, "reader")).await;
    reader.subscribe(4, "t", 0).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for number in 0..1000_u32 {
        writer.send(&publish(4, 0, "t", 0, &[], &number.to_be_bytes())).await;
    }
    for number in 0..1000_u32 {
        assert_eq!(reader.receive().await.1[3..], number.to_be_bytes());
    }
    is_alive(&broker).await;
}

#[tokio::test]
async fn the_end_of_the_server_is_told() {
    let broker = broker("");
    let mut client = connected(&broker, connect(5, "one").will("w", b"x", 0, &[])).await;
    broker.drain();
    client.is_disconnected(0x8b).await;
    client.ended().await;
    broker.close().await;
}
