//! What one device may hold, under however many client ids, and that others have their room beside it.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod rig;

use muster_broker::Broker;
use muster_policy::time::UnixTime;
use rig::{Client, GOODBYE, PING, PUBACK, broker, config_of, connect, dial, holder, publish, unsubscribe};

/// Every device may do everything, under any client id.
const OPEN: &str = "[[rules]]\nclient_id = 'any'\npublish = ['#']\nsubscribe = ['#']\n";

async fn device(broker: &Broker, device: &str, connect: rig::Connect) -> Client {
    let mut client = dial(broker, Some(holder(device, &[])));
    client.send(&connect.octets()).await;
    let (first, body) = client.receive().await;
    assert_eq!((first, body[1]), (0x20, 0));
    client
}

async fn leave(mut client: Client) {
    client.send(&GOODBYE).await;
    client.ended().await;
}

/// Publishes with QoS 1, and returns the code of the answer.
async fn published(client: &mut Client, flags: u8, topic: &str, payload: &[u8]) -> u8 {
    client.send(&publish(5, 2 | flags, topic, 1, &[], payload)).await;
    let (first, body) = client.receive().await;
    assert_eq!((first, &body[..2]), (PUBACK, &[0, 1][..]));
    body.get(2).copied().unwrap_or_default()
}

/// Fills what a device has left in this session. Returns how many subscriptions that took.
async fn filled(client: &mut Client) -> usize {
    for number in 0.. {
        match client.subscribe(5, &format!("{}{number:03}", "/".repeat(200)), 0).await {
            0 => {}
            code => {
                assert_eq!(code, 0x97);
                return number;
            }
        }
    }
    unreachable!("it ends with a refusal")
}

#[tokio::test]
async fn the_filters_of_all_sessions_of_a_device_are_bounded() {
    // Four filters of 201 levels.
    let quota = 4 * (201 * 512 + 2 * 203);
    let broker = broker(&format!("{OPEN}[quotas]\nfilter_bytes_per_device = {quota}"));
    let mut one = device(&broker, "meter", connect(5, "one")).await;
    assert_eq!(one.subscribe(5, "a", 0).await, 0);
    let mut two = device(&broker, "meter", connect(5, "two").expiry(100)).await;
    assert_eq!(filled(&mut two).await, 3);
    assert_eq!(one.subscribe(5, &"/".repeat(200), 0).await, 0x97);
    // What is there may change, and what goes leaves its room: a subscription, or a session with all of its.
    assert_eq!(one.subscribe(5, "a", 1).await, 1);
    one.send(&unsubscribe(5, 3, &["a"])).await;
    one.receive().await;
    assert_eq!(filled(&mut one).await, 1);
    leave(one).await;
    let mut three = device(&broker, "meter", connect(5, "three")).await;
    assert_eq!(filled(&mut three).await, 1);
    // A clean start has the room of the session before, though that takes a moment to end.
    let mut again = device(&broker, "meter", connect(5, "two")).await;
    assert_eq!(filled(&mut again).await, 3);
    assert_eq!(filled(&mut device(&broker, "other", connect(5, "other")).await).await, 4);
}

#[tokio::test]
async fn what_waits_for_all_sessions_of_a_device_is_bounded() {
    for (when_full, code) in [("drop-oldest", 0), ("refuse", 0x97)] {
        let broker =
            broker(&format!("{OPEN}[quotas]\nqueued_bytes_per_device = 100000\nwhen_full = '{when_full}'"));
        for number in 0..10 {
            for name in ["meter", "other"] {
                let connect = connect(5, &format!("{name}-{number}")).expiry(100);
                let mut client = device(&broker, name, connect).await;
                client.subscribe(5, name, 1).await;
                leave(client).await;
            }
        }
        let mut writer = device(&broker, "writer", connect(5, "writer")).await;
        assert_eq!(published(&mut writer, 0, "meter", &[b'x'; 9_000]).await, 0);
        assert_eq!(published(&mut writer, 0, "meter", &[b'y'; 90_000]).await, code);
        assert!(broker.metrics().dropped_full > 0);
        assert_eq!(published(&mut writer, 0, "other", &[b'z'; 9_000]).await, 0);
        let mut waiting = Vec::new();
        for number in 0..10 {
            for name in ["meter", "other"] {
                let connect = connect(5, &format!("{name}-{number}")).unclean().expiry(100);
                let mut client = device(&broker, name, connect).await;
                client.send(&PING).await;
                loop {
                    match client.receive().await {
                        (0xd0, _) => break,
                        (_, body) => waiting.push(*body.last().expect("a payload")),
                    }
                }
            }
        }
        let count = |payload: u8| waiting.iter().filter(|last| **last == payload).count();
        assert!(9_128 * count(b'x') + 90_128 * count(b'y') <= 100_000, "{when_full}: {waiting:02x?}");
        assert!(count(b'x') + count(b'y') > 0 && count(b'z') == 10, "{when_full}: {waiting:02x?}");
    }
}

#[tokio::test]
async fn what_a_device_retains_is_bounded_and_takes_no_room_of_others() {
    let broker = broker(&format!("{OPEN}[quotas]\nretained_per_device = 2\nretained_bytes_per_device = 100"));
    let mut one = device(&broker, "one", connect(5, "one")).await;
    let mut two = device(&broker, "two", connect(5, "two")).await;
    for (topic, payload, code) in [
        ("a", &[b'x'; 10][..], 0x10),
        ("b", &[b'x'; 10], 0x10),
        ("c", &[b'x'; 10], 0x97),
        // In place of its own, and then no more octets.
        ("a", &[b'x'; 80], 0x10),
        ("b", &[b'x'; 80], 0x97),
    ] {
        assert_eq!(published(&mut one, 1, topic, payload).await, code, "{topic} {}", payload.len());
    }
    assert_eq!(published(&mut two, 1, "c", b"x").await, 0x10);
    // What another device puts in its place is the other's; what is taken away is nobody's.
    assert_eq!(published(&mut two, 1, "a", b"x").await, 0x10);
    assert_eq!(published(&mut one, 1, "b", &[b'x'; 80]).await, 0x10);
    assert_eq!(published(&mut two, 1, "d", b"x").await, 0x97);
    assert_eq!(published(&mut one, 1, "c", b"").await, 0x10);
    assert_eq!(published(&mut two, 1, "d", b"x").await, 0x10);
    assert_eq!((broker.metrics().retained, broker.metrics().retained_refused), (3, 3));
}

/// All that is retained, topic and payload in one.
async fn retained(broker: &Broker) -> Vec<String> {
    let mut reader = device(broker, "reader", connect(4, "reader")).await;
    reader.subscribe(4, "#", 0).await;
    reader.send(&PING).await;
    let mut all = Vec::new();
    loop {
        match reader.receive().await {
            (0xd0, _) => return all,
            (_, body) => all.push(String::from_utf8_lossy(&body[2..]).into_owned()),
        }
    }
}

#[tokio::test]
async fn what_was_retained_before_a_device_was_held_to_less_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |messages: u8, bytes: u8| {
        let path = folder.path().join("broker.redb");
        let text = format!(
            "file = '{}'\n{OPEN}[quotas]\nretained_per_device = {messages}\nretained_bytes_per_device = {bytes}",
            path.display()
        );
        Broker::start(&config_of(&text), UnixTime::from_secs(1_800_000_000)).expect("starts")
    };
    let broker = start(2, 100);
    let mut client = device(&broker, "one", connect(5, "one")).await;
    for topic in ["a", "b"] {
        assert_eq!(published(&mut client, 1, topic, b"x").await, 0x10);
    }
    leave(client).await;
    broker.close().await;
    drop(broker);
    let broker = start(1, 100);
    assert_eq!(broker.metrics().retained, 2);
    let mut client = device(&broker, "one", connect(5, "one")).await;
    assert_eq!(published(&mut client, 1, "c", b"x").await, 0x97);
    // And may be brought up to date, with no more octets than it has.
    assert_eq!(published(&mut client, 1, "a", b"y").await, 0x10);
    assert_eq!(retained(&broker).await, ["ay", "bx"]);
    leave(client).await;
    broker.close().await;
    drop(broker);
    let broker = start(1, 2);
    let mut client = device(&broker, "one", connect(5, "one")).await;
    assert_eq!(published(&mut client, 1, "a", b"z").await, 0x10);
    // What is refused is newer than what is there, which is gone.
    assert_eq!(published(&mut client, 1, "b", b"larger").await, 0x97);
    assert_eq!(retained(&broker).await, ["az"]);
    leave(client).await;
    broker.close().await;
    drop(broker);
    let broker = start(1, 2);
    assert_eq!(retained(&broker).await, ["az"]);
}
