//! What clients see while the disk takes nothing, and afterwards.

use std::collections::BTreeSet;

use muster_policy::identity::AccountId;
use muster_policy::time::UnixTime;
use tokio::time::Duration;

use crate::Broker;
use crate::rig::{
    Client, GOODBYE, OPEN, PING, PUBACK, PUBCOMP, PUBREC, PUBREL, ack, config_of, connect, connected, dial,
    publish, subscribe, unsubscribe,
};
use crate::store::Store;
use crate::store::faulty::{Disk, Health};

/// How many sessions are away, each of which is to have what fills the room before the disk.
const AWAY: usize = 20;
const PONG: (u8, Vec<u8>) = (0xd0, Vec::new());

/// A broker whose disk takes what it is given until it is told otherwise.
struct Rig {
    broker: Broker,
    disk: Disk,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts it with more in the configuration.
    async fn start_with(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("broker.redb");
        let disk = Disk::default();
        let config = config_of(&format!("file = '{}'\n{OPEN}{more}", path.display()));
        let now = UnixTime::from_secs(1_800_000_000);
        let broker =
            Broker::start_with(&config, now, |path, metrics| Store::open_with(disk.opener(path), metrics));
        let rig = Self { broker: broker.expect("starts"), disk, _folder: folder };
        for number in 0..AWAY {
            rig.leave_subscribed(&format!("away-{number}"), "bulk", 1).await;
        }
        rig
    }

    /// A session that stays, with a subscription, without its client.
    async fn leave_subscribed(&self, id: &str, filter: &str, qos: u8) {
        let mut client = connected(&self.broker, connect(4, id).unclean()).await;
        assert_eq!(client.subscribe(4, filter, qos).await, qos);
        client.send(&GOODBYE).await;
        client.ended().await;
    }

    /// The disk takes nothing any more, and too much waits for it. Returns who published that, and still does.
    async fn stall(&self) -> Client {
        self.disk.now(Health::Stalls);
        let mut writer = connected(&self.broker, connect(4, "writer")).await;
        let is_congested = || self.broker.hub().store.congestion().is_some();
        for id in 1..=10 {
            // One that follows would not be read.
            if is_congested() {
                return writer;
            }
            writer.send(&publish(4, 2, "bulk", id, &[], &[b'x'; 200_000])).await;
            self.until(|_| is_congested() || self.waiting() == BTreeSet::from([usize::from(id)])).await;
        }
        panic!("there is room for all");
    }

    async fn published(&self, count: u64) {
        self.until(|broker| broker.metrics().published >= count).await;
    }

    async fn until(&self, so: impl Fn(&Broker) -> bool) {
        let wait = async {
            while !so(&self.broker) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time");
    }

    /// The payload that a topic has retained.
    async fn retained(&self, topic: &str) -> Vec<u8> {
        let mut reader = connected(&self.broker, connect(4, "retained-reader")).await;
        reader.subscribe(4, topic, 0).await;
        let (_, body) = reader.receive().await;
        body[2 + topic.len()..].to_vec()
    }

    /// How many messages wait in each of the sessions that are away.
    fn waiting(&self) -> BTreeSet<usize> {
        let space = self.broker.hub().space(AccountId::from_bytes([1; 16]));
        let sessions = space.sessions();
        let away = sessions.iter().filter(|(key, _)| key.client_id.starts_with("away"));
        away.map(|(_, session)| session.waiting()).collect()
    }
}

/// A step that fails is not to wait for the disk.
impl Drop for Rig {
    fn drop(&mut self) {
        self.disk.now(Health::Works);
    }
}

/// The same client again, on another connection. Whether its session was there is not looked at.
async fn again(broker: &Broker, id: &str) -> Client {
    let mut client = dial(broker, None);
    client.send(&connect(4, id).unclean().octets()).await;
    let (first, body) = client.receive().await;
    assert_eq!((first, body[1]), (0x20, 0));
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_disk_reaches_everyone_though_its_connection_is_gone() {
    let rig = Rig::start().await;
    rig.leave_subscribed("reader", "a", 2).await;
    let mut sender = again(&rig.broker, "sender").await;
    let writer = rig.stall().await;
    let before = rig.broker.metrics().published;
    sender.send(&publish(4, 4, "a", 9, &[], b"once")).await;
    rig.published(before + 1).await;
    for client in [&writer, &sender] {
        client.served.abort();
    }
    rig.until(|broker| broker.metrics().connections == 0).await;
    let mut sender = again(&rig.broker, "sender").await;
    sender.send(&publish(4, 0x0c, "a", 9, &[], b"once")).await;
    sender.receive_nothing().await;
    rig.disk.now(Health::Works);
    assert_eq!(sender.receive().await, (PUBREC, vec![0, 9]));
    sender.send(&ack(PUBREL, 9)).await;
    assert_eq!(sender.receive().await, (PUBCOMP, vec![0, 9]));
    rig.until(|broker| broker.hub().leaving.is_empty()).await;
    assert_eq!(rig.waiting().len(), 1, "{:?}", rig.waiting());
    let mut reader = again(&rig.broker, "reader").await;
    assert!(reader.receive().await.1.ends_with(b"once"));
    reader.receive_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_silent_while_the_disk_takes_nothing() {
    let rig = Rig::start().await;
    let alive = |id: &str| {
        let mut connect = connect(4, id);
        connect.keep_alive = 1;
        connect
    };
    let mut listener = connected(&rig.broker, alive("listener")).await;
    listener.subscribe(4, "a", 1).await;
    let mut speaker = connected(&rig.broker, alive("speaker")).await;
    let _writer = rig.stall().await;
    speaker.send(&publish(4, 0, "b", 0, &[], b"x")).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        listener.send(&PING).await;
        assert_eq!(listener.receive().await, PONG);
    }
    speaker.send(&PING).await;
    rig.disk.now(Health::Works);
    assert_eq!(speaker.receive().await, PONG);
}

/// Little waits for the disk, and with it more answers than a client may have open.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_silent_who_is_not_read_for_the_answers_that_wait() {
    let rig = Rig::start_with("[quotas]\ninflight = 2\n").await;
    let mut connect = connect(4, "speaker").will("w", b"gone", 0, &[]);
    connect.keep_alive = 1;
    let mut speaker = connected(&rig.broker, connect).await;
    rig.disk.now(Health::Stalls);
    for id in 1..=3 {
        speaker.send(&publish(4, 3, "a", id, &[], b"x")).await;
    }
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        speaker.send(&PING).await;
    }
    rig.disk.now(Health::Works);
    for id in 1..=3 {
        assert_eq!(speaker.receive().await, (PUBACK, vec![0, id]));
    }
    assert_eq!(speaker.receive().await, PONG);
    assert_eq!(rig.broker.metrics().wills, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_retained_last_is_what_was_published_last() {
    const CLIENTS: usize = 10;
    let rig = Rig::start().await;
    let mut first = Vec::new();
    for number in 0..CLIENTS {
        first.push(again(&rig.broker, &format!("client-{number}")).await);
    }
    let mut willing = Vec::new();
    for number in 0..CLIENTS {
        let will = connect(4, &format!("willing-{number}")).will(&format!("w/{number}"), b"old", 0x20, &[]);
        willing.push(connected(&rig.broker, will).await);
    }
    let _writer = rig.stall().await;
    let before = rig.broker.metrics().published;
    for (number, client) in first.iter_mut().enumerate() {
        client.send(&publish(4, 3, &format!("v/{number}"), 1, &[], b"old")).await;
    }
    rig.published(before + 10).await;
    for client in willing {
        drop(client.stream);
    }
    rig.until(|broker| broker.metrics().wills == 10).await;
    let mut second = Vec::new();
    for number in 0..CLIENTS {
        let mut client = again(&rig.broker, &format!("client-{number}")).await;
        client.send(&publish(4, 0x0b, &format!("v/{number}"), 1, &[], b"old")).await;
        client.send(&publish(4, 3, &format!("v/{number}"), 2, &[], b"new")).await;
        let mut back = connected(&rig.broker, connect(4, &format!("willing-{number}"))).await;
        back.send(&publish(4, 3, &format!("w/{number}"), 2, &[], b"new")).await;
        second.push((client, back));
    }
    rig.disk.now(Health::Works);
    for (client, back) in &mut second {
        assert_eq!(client.receive().await, (PUBACK, vec![0, 1]));
        assert_eq!(client.receive().await, (PUBACK, vec![0, 2]));
        assert_eq!(back.receive().await, (PUBACK, vec![0, 2]));
    }
    for number in 0..CLIENTS {
        assert_eq!(rig.retained(&format!("v/{number}")).await, b"new", "{number}");
        assert_eq!(rig.retained(&format!("w/{number}")).await, b"new", "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_behind_an_unsuback() {
    let rig = Rig::start().await;
    let mut reader = connected(&rig.broker, connect(4, "reader")).await;
    reader.subscribe(4, "a", 0).await;
    let mut sender = connected(&rig.broker, connect(4, "sender")).await;
    let _writer = rig.stall().await;
    let before = rig.broker.metrics().published;
    sender.send(&publish(4, 2, "a", 1, &[], b"late")).await;
    rig.published(before + 1).await;
    reader.send(&unsubscribe(4, 3, &["a"])).await;
    assert_eq!(reader.receive().await, (0xb0, vec![0, 3]));
    rig.disk.now(Health::Works);
    assert_eq!(sender.receive().await, (PUBACK, vec![0, 1]));
    reader.receive_nothing().await;
}

/// One that waits for its session's turn is late, too.
#[tokio::test(flavor = "multi_thread")]
async fn no_will_comes_behind_an_unsuback() {
    let rig = Rig::start().await;
    let mut reader = connected(&rig.broker, connect(4, "reader")).await;
    reader.subscribe(4, "a", 0).await;
    reader.subscribe(4, "w", 0).await;
    let mut sender = connected(&rig.broker, connect(4, "sender").unclean().will("w", b"gone", 0, &[])).await;
    let _writer = rig.stall().await;
    let before = rig.broker.metrics().published;
    sender.send(&publish(4, 2, "a", 1, &[], b"late")).await;
    rig.published(before + 1).await;
    let mut back = dial(&rig.broker, None);
    back.send(&connect(4, "sender").unclean().octets()).await;
    rig.until(|broker| broker.metrics().wills == 1).await;
    reader.send(&unsubscribe(4, 3, &["w"])).await;
    assert_eq!(reader.receive().await, (0xb0, vec![0, 3]));
    rig.disk.now(Health::Works);
    // Its CONNACK follows the will.
    assert_eq!(back.receive().await.0, 0x20);
    assert!(reader.receive().await.1.ends_with(b"late"));
    reader.receive_nothing().await;
}

/// Who left it has another subscription still, and who is in it by now was not there before.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_late_for_a_share_is_for_those_who_are_in_it_by_then() {
    let rig = Rig::start().await;
    let mut left = connected(&rig.broker, connect(4, "left")).await;
    left.subscribe(4, "a", 0).await;
    left.subscribe(4, "$share/g/a", 0).await;
    let mut sender = connected(&rig.broker, connect(4, "sender")).await;
    let _writer = rig.stall().await;
    let before = rig.broker.metrics().published;
    sender.send(&publish(4, 2, "a", 1, &[], b"late")).await;
    rig.published(before + 1).await;
    left.send(&unsubscribe(4, 3, &["$share/g/a"])).await;
    assert_eq!(left.receive().await, (0xb0, vec![0, 3]));
    let mut joined = connected(&rig.broker, connect(4, "joined")).await;
    joined.subscribe(4, "$share/g/a", 0).await;
    rig.disk.now(Health::Works);
    assert_eq!(sender.receive().await, (PUBACK, vec![0, 1]));
    for client in [&mut left, &mut joined] {
        assert!(client.receive().await.1.ends_with(b"late"));
        client.receive_nothing().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_late_for_a_session_is_its_successors_only_while_that_subscribes() {
    /// Without what is retained, which would wait for the disk.
    const OPTIONS: u8 = 0x20;
    let rig = Rig::start().await;
    let clients = [("follows", "a"), ("leaves", "a"), ("shares", "$share/g/a")];
    let mut before = Vec::new();
    for (id, filter) in clients {
        let mut client = connected(&rig.broker, connect(5, id)).await;
        client.subscribe(5, filter, OPTIONS).await;
        before.push(client);
    }
    let mut sender = connected(&rig.broker, connect(4, "sender")).await;
    let _writer = rig.stall().await;
    let published = rig.broker.metrics().published;
    sender.send(&publish(4, 2, "a", 1, &[], b"late")).await;
    rig.published(published + 1).await;
    let mut after = Vec::new();
    for (id, filter) in clients {
        let mut client = dial(&rig.broker, None);
        let mut octets = connect(5, id).octets();
        octets.extend(subscribe(5, 10, filter, OPTIONS));
        client.send(&octets).await;
        assert_eq!((client.receive().await.0, client.receive().await.0), (0x20, 0x90));
        after.push(client);
    }
    let [follows, leaves, shares] = &mut after[..] else { panic!("three") };
    leaves.send(&unsubscribe(5, 3, &["a"])).await;
    assert_eq!(leaves.receive().await.0, 0xb0);
    rig.disk.now(Health::Works);
    assert_eq!(sender.receive().await, (PUBACK, vec![0, 1]));
    for client in [follows, shares] {
        assert!(client.receive().await.1.ends_with(b"late"));
        client.receive_nothing().await;
    }
    leaves.receive_nothing().await;
}
