//! A client that takes its clean session over: what is published around that moment.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use muster_broker::{Broker, Code, Ended};
use rig::{Client, OPEN, PING, PUBACK, ack, broker, connect, connected, dial, publish, subscribe};
use tokio::time::Duration;

/// Takes the session of `id` over, with a subscription that does not wait for CONNACK.
async fn takes_over(broker: &Broker, version: u8, id: &str, filter: &str, qos: u8) -> Client {
    let mut client = dial(broker, None);
    client.send(&[connect(version, id).octets(), subscribe(version, 9, filter, qos)].concat()).await;
    let (first, body) = client.receive().await;
    assert_eq!((first, &body[..2]), (0x20, &[0, 0][..]));
    let (first, body) = client.receive().await;
    assert_eq!((first, body.last()), (0x90, Some(&qos)));
    client
}

/// The numbers of the messages that come, until the connection ends or `last` came.
async fn numbers(client: &mut Client, version: u8, last: Option<u32>) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some((first, body)) = client.receive_or_end().await {
        if first >> 4 != 3 {
            assert_eq!((first, body[0]), (0xe0, 0x8e), "only a goodbye is no message");
            continue;
        }
        let payload = u32::from_be_bytes(*body.last_chunk().expect("four octets"));
        if first & 6 != 0 {
            // Behind a topic of one level and one letter.
            client.try_send(&ack(PUBACK, u16::from_be_bytes([body[3], body[4]]))).await;
        }
        assert!(version == 5 || body.len() < 10);
        numbers.push(payload);
        if last == Some(payload) {
            break;
        }
    }
    numbers
}

/// Publishes numbers from one on, each when the last was taken. Returns the last.
async fn write_until(broker: Broker, qos: u8, stops: Arc<AtomicBool>) -> u32 {
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for number in 1_u32.. {
        writer.send(&publish(4, qos << 1, "a", 1, &[], &number.to_be_bytes())).await;
        if qos > 0 {
            writer.receive().await;
        } else {
            writer.send(&PING).await;
            writer.receive().await;
        }
        if stops.load(Ordering::Acquire) {
            return number;
        }
    }
    unreachable!("it is told to stop")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nothing_is_lost_or_comes_twice_when_the_subscription_comes_with_the_connect() {
    for (version, qos) in [(4, 0), (4, 1), (5, 1)] {
        let broker = broker(&format!("{OPEN}[quotas]\nqueued = 100000\nqueued_qos0 = 100000"));
        let mut client = takes_over(&broker, version, "one", "a", qos).await;
        let stops = Arc::new(AtomicBool::new(false));
        let writing = tokio::spawn(write_until(broker.clone(), qos, Arc::clone(&stops)));
        let mut got = Vec::new();
        for _ in 0..30 {
            let next = takes_over(&broker, version, "one", "a", qos).await;
            got.extend(numbers(&mut client, version, None).await);
            assert_eq!(client.ended().await, Ended::Ours(Code::SESSION_TAKEN_OVER));
            client = next;
        }
        stops.store(true, Ordering::Release);
        let last = writing.await.expect("no panic");
        if got.last() != Some(&last) {
            got.extend(numbers(&mut client, version, Some(last)).await);
        }
        assert_eq!(got, (1..=last).collect::<Vec<_>>(), "{version} {qos}");
        drop(client);
        while broker.metrics().sessions > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(broker.metrics().subscriptions, 0);
    }
}

#[tokio::test]
async fn what_is_not_subscribed_to_again_does_not_come() {
    let broker = broker(OPEN);
    let mut old = connected(&broker, connect(4, "one")).await;
    for filter in ["a", "b"] {
        old.subscribe(4, filter, 0).await;
    }
    let mut writer = connected(&broker, connect(4, "writer")).await;
    let mut new = dial(&broker, None);
    // The session is taken over, and for a moment the broker waits for what came with CONNECT.
    new.send(&connect(4, "one").octets()).await;
    old.is_closed().await;
    for topic in ["a", "b"] {
        writer.send(&publish(4, 0, topic, 0, &[], b"x")).await;
    }
    writer.send(&PING).await;
    writer.receive().await;
    new.send(&subscribe(4, 9, "b", 0)).await;
    assert_eq!(new.receive().await.0, 0x20);
    assert_eq!(new.receive().await.0, 0x90);
    assert!(new.receive().await.1.starts_with(b"\0\x01b"));
    new.receive_nothing().await;
    assert_eq!(broker.metrics().subscriptions, 1);
}

#[tokio::test]
async fn a_client_that_waits_for_its_connack_starts_clean() {
    let broker = broker(OPEN);
    let mut old = connected(&broker, connect(5, "one")).await;
    old.subscribe(5, "a", 1).await;
    let mut new = connected(&broker, connect(5, "one")).await;
    let mut writer = connected(&broker, connect(5, "writer")).await;
    writer.send(&publish(5, 2, "a", 1, &[], b"x")).await;
    assert_eq!(writer.receive().await, (PUBACK, vec![0, 1, 0x10]));
    new.subscribe(5, "a", 1).await;
    new.receive_nothing().await;
    old.is_disconnected(0x8e).await;
}

#[tokio::test]
async fn a_successor_that_dies_at_once_leaves_nothing_behind() {
    let broker = broker(OPEN);
    let mut old = connected(&broker, connect(4, "one")).await;
    old.subscribe(4, "a", 0).await;
    let mut new = dial(&broker, None);
    new.send(&connect(4, "one").octets()).await;
    old.is_closed().await;
    new.served.abort();
    assert!(new.served.await.expect_err("aborted").is_cancelled());
    let mut writer = connected(&broker, connect(5, "writer")).await;
    while broker.metrics().sessions > 1 {
        tokio::task::yield_now().await;
    }
    writer.send(&publish(5, 2, "a", 1, &[], b"x")).await;
    assert_eq!(writer.receive().await, (PUBACK, vec![0, 1, 0x10]));
    assert_eq!(broker.metrics().subscriptions, 0);
}

#[tokio::test(start_paused = true)]
async fn a_deaf_connection_is_taken_over_at_once() {
    let broker = broker(OPEN);
    let mut deaf = connected(&broker, connect(4, "one").unclean()).await;
    deaf.subscribe(4, "a", 0).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for _ in 0..100 {
        writer.send(&publish(4, 0, "a", 0, &[], &[b'x'; 1000])).await;
    }
    writer.send(&PING).await;
    writer.receive().await;
    let began = tokio::time::Instant::now();
    let _new = connected(&broker, connect(4, "one").unclean()).await;
    assert_eq!(deaf.served.await.expect("no panic"), Ended::Ours(Code::SESSION_TAKEN_OVER));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
