//! What survives a restart: retained messages, sessions, their queues and what was in flight.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod rig;

use muster_broker::Broker;
use muster_policy::time::UnixTime;
use rig::{
    GOODBYE, OPEN, PUBACK, PUBCOMP, PUBREC, PUBREL, ack, config_of, connect, connected, publish, unsubscribe,
};
use tokio::time::Duration;

struct Kept {
    folder: tempfile::TempDir,
}

impl Kept {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn start_at(&self, seconds: i64) -> Broker {
        self.start_with(seconds, "")
    }

    /// What a kill at this moment leaves: the file as it is, and nothing that was still to be written.
    fn killed(&self) -> Self {
        let other = Self::new();
        std::fs::copy(self.folder.path().join("broker.redb"), other.folder.path().join("broker.redb"))
            .expect("copied");
        other
    }

    /// Starts it with more in the rule for everyone.
    fn start_with(&self, seconds: i64, rule: &str) -> Broker {
        let path = self.folder.path().join("broker.redb");
        let config = config_of(&format!("file = '{}'\n{OPEN}{rule}", path.display()));
        Broker::start(&config, UnixTime::from_secs(1_800_000_000 + seconds)).expect("starts")
    }
}

/// A stop without a goodbye to anyone: connections are dropped where they are.
async fn crash(broker: Broker, clients: Vec<rig::Client>) {
    for client in &clients {
        client.served.abort();
    }
    broker.close().await;
}

async fn gone(mut client: rig::Client) {
    client.send(&GOODBYE).await;
    client.ended().await;
}

async fn resumed(broker: &Broker, id: &str) -> (rig::Client, bool) {
    let mut client = rig::dial(broker, None);
    client.send(&connect(4, id).unclean().octets()).await;
    let (_, body) = client.receive().await;
    (client, body[0] == 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_nothing_costs_no_write() {
    let kept = Kept::new();
    let broker = kept.start_at(0);
    for _ in 0..20 {
        gone(connected(&broker, connect(4, "reader")).await).await;
        gone(connected(&broker, connect(5, "reader")).await).await;
    }
    let stays = connected(&broker, connect(4, "reader").unclean()).await;
    while broker.metrics().store_commits == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(broker.metrics().store_commits, 1);
    crash(broker, vec![stays]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_and_sessions_come_back() {
    let kept = Kept::new();
    let broker = kept.start_at(0);
    let mut reader = connected(&broker, connect(4, "reader").unclean()).await;
    reader.subscribe(4, "a/#", 2).await;
    reader.subscribe(4, "b/#", 1).await;
    reader.send(&unsubscribe(4, 3, &["b/#"])).await;
    reader.receive().await;
    gone(reader).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for (flags, topic, payload) in [
        (3, "r/1", "kept"),
        (3, "r/2", "lost"),
        (3, "r/2", ""),
        (2, "a/1", "one"),
        (4, "a/2", "two"),
        (2, "b/1", "no"),
    ] {
        writer.send(&publish(4, flags, topic, 9, &[], payload.as_bytes())).await;
        writer.receive().await;
        writer.send(&ack(PUBREL, 9)).await;
        writer.receive().await;
    }
    crash(broker, vec![writer]).await;
    let broker = kept.start_at(60);
    let metrics = broker.metrics();
    assert_eq!((metrics.retained, metrics.sessions, metrics.subscriptions), (1, 1, 1));
    let (mut reader, was_there) = resumed(&broker, "reader").await;
    assert!(was_there);
    assert!(reader.receive().await.1.ends_with(b"one"));
    assert!(reader.receive().await.1.ends_with(b"two"));
    reader.receive_nothing().await;
    let mut late = connected(&broker, connect(4, "late")).await;
    late.subscribe(4, "r/#", 0).await;
    assert!(late.receive().await.1.ends_with(b"r/1kept"));
    late.receive_nothing().await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    writer.send(&publish(4, 0, "a/3", 0, &[], b"live")).await;
    assert!(reader.receive().await.1.ends_with(b"live"));
}

/// A start under a smaller quota takes up all the same, or what becomes of the topics would not reach the file.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_retained_under_a_larger_quota_is_replaced_and_cleared_for_good() {
    let kept = Kept::new();
    let topics = ["r/1", "r/2", "r/3"];
    let broker = kept.start_at(0);
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for topic in topics {
        writer.send(&publish(4, 3, topic, 9, &[], b"old")).await;
        writer.receive().await;
    }
    crash(broker, vec![writer]).await;
    let broker = kept.start_with(0, "[quotas]\nretained = 1\n");
    assert_eq!(broker.metrics().retained, 3);
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for (topic, payload) in [("r/2", "new"), ("r/3", ""), ("r/4", "beyond")] {
        writer.send(&publish(4, 3, topic, 9, &[], payload.as_bytes())).await;
        writer.receive().await;
    }
    assert_eq!(broker.metrics().retained, 2, "the quota holds for what is new");
    crash(broker, vec![writer]).await;
    let broker = kept.start_with(0, "[quotas]\nretained = 0\n");
    let mut reader = connected(&broker, connect(4, "reader")).await;
    reader.subscribe(4, "r/#", 0).await;
    reader.receive_nothing().await;
    crash(broker, vec![reader]).await;
    let broker = kept.start_at(0);
    let mut reader = connected(&broker, connect(4, "reader")).await;
    reader.subscribe(4, "r/#", 0).await;
    assert!(reader.receive().await.1.ends_with(b"r/1old"));
    assert!(reader.receive().await.1.ends_with(b"r/2new"));
    reader.receive_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_flight_keeps_its_packet_id_and_its_stage() {
    let kept = Kept::new();
    let broker = kept.start_at(0);
    let mut reader = connected(&broker, connect(4, "reader").unclean()).await;
    reader.subscribe(4, "a", 2).await;
    let mut writer = connected(&broker, connect(4, "writer").unclean()).await;
    for id in 1..=3 {
        writer.send(&publish(4, 4, "a", id, &[], b"x")).await;
        assert_eq!(writer.receive().await.0, PUBREC);
        reader.receive().await;
    }
    // Of the reader's three one is done, one released, one sent. None of the writer's is released.
    reader.send(&ack(PUBREC, 1)).await;
    reader.receive().await;
    reader.send(&ack(PUBCOMP, 1)).await;
    reader.send(&ack(PUBREC, 2)).await;
    assert_eq!(reader.receive().await, (PUBREL, vec![0, 2]));
    crash(broker, vec![reader, writer]).await;
    let broker = kept.start_at(1);
    let (mut reader, _) = resumed(&broker, "reader").await;
    assert_eq!(reader.receive().await, (PUBREL, vec![0, 2]));
    let (first, body) = reader.receive().await;
    assert_eq!((first, &body[3..]), (0x3c, &[0, 3, b'x'][..]));
    reader.receive_nothing().await;
    let (mut writer, _) = resumed(&broker, "writer").await;
    writer.send(&publish(4, 0x0c, "a", 2, &[], b"x")).await;
    assert_eq!(writer.receive().await, (PUBREC, vec![0, 2]));
    reader.receive_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ended_while_nobody_looked_is_gone() {
    let kept = Kept::new();
    let broker = kept.start_at(0);
    for (id, expiry) in [("short", 30), ("long", 3000)] {
        let mut client = connected(&broker, connect(5, id).expiry(expiry)).await;
        client.subscribe(5, "a", 1).await;
        gone(client).await;
    }
    crash(broker, Vec::new()).await;
    let broker = kept.start_at(100);
    assert_eq!((broker.metrics().sessions, broker.metrics().subscriptions), (1, 1));
    assert!(!resumed(&broker, "short").await.1);
    assert!(resumed(&broker, "long").await.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_narrower_rule_took_out_of_a_queue_is_not_in_the_file_either() {
    let kept = Kept::new();
    let broker = kept.start_at(0);
    let mut reader = connected(&broker, connect(4, "reader").unclean()).await;
    reader.subscribe(4, "#", 1).await;
    gone(reader).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    for topic in ["secret", "plain"] {
        writer.send(&publish(4, 2, topic, 1, &[], b"x")).await;
        writer.receive().await;
    }
    crash(broker, vec![writer]).await;
    let broker = kept.start_with(1, "deny = ['secret']");
    let (mut reader, _) = resumed(&broker, "reader").await;
    assert!(reader.receive().await.1.starts_with(b"\0\x05plain"));
    reader.receive_nothing().await;
    crash(broker, vec![reader]).await;
    let broker = kept.start_at(2);
    let (mut reader, was_there) = resumed(&broker, "reader").await;
    assert!(was_there && reader.receive().await.1.starts_with(b"\0\x05plain"));
    reader.receive_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_start_and_a_session_without_expiry_leave_nothing_in_the_file() {
    let kept = Kept::new();
    let broker = kept.start_at(0);
    for connect in
        [connect(5, "one").expiry(100), connect(5, "one"), connect(4, "two").unclean(), connect(4, "two")]
    {
        let version = connect.version;
        let mut client = connected(&broker, connect).await;
        client.subscribe(version, "a", 1).await;
        client.send(&publish(version, 2, "a", 5, &[], b"x")).await;
        let packets = [client.receive().await.0, client.receive().await.0];
        assert!(packets.contains(&PUBACK));
        gone(client).await;
    }
    crash(broker, Vec::new()).await;
    let broker = kept.start_at(1);
    assert_eq!((broker.metrics().sessions, broker.metrics().subscriptions), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn packet_ids_go_on_and_a_release_that_comes_again_is_no_error() {
    let kept = Kept::new();
    let persistent = || connect(5, "both").unclean().expiry(100);
    let broker = kept.start_at(0);
    let mut client = connected(&broker, persistent()).await;
    client.subscribe(5, "t", 1).await;
    client.send(&publish(5, 4, "t", 9, &[], b"x")).await;
    let mut answers = [client.receive().await, client.receive().await];
    answers.sort_by_key(|(first, _)| *first);
    assert_eq!((answers[0].1[3..5].to_vec(), &answers[1]), (vec![0, 1], &(PUBREC, vec![0, 9])));
    client.send(&ack(PUBACK, 1)).await;
    client.send(&ack(PUBREL, 9)).await;
    assert_eq!(client.receive().await, (PUBCOMP, vec![0, 9]));
    // Nothing of the kind was there in this session's first connection.
    client.send(&ack(PUBREL, 8)).await;
    assert_eq!(client.receive().await, (PUBCOMP, vec![0, 8, 0x92]));
    gone(client).await;
    broker.close().await;
    drop(broker);

    let broker = kept.start_at(10);
    let mut client = connected(&broker, persistent()).await;
    client.send(&ack(PUBREL, 9)).await;
    assert_eq!(client.receive().await, (PUBCOMP, vec![0, 9]));
    client.send(&publish(5, 2, "t", 10, &[], b"x")).await;
    let mut answers = [client.receive().await, client.receive().await];
    answers.sort_by_key(|(first, _)| *first);
    assert_eq!((answers[0].0, answers[0].1[3..5].to_vec(), answers[1].0), (0x32, vec![0, 2], PUBACK));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_in_quality_two_is_known_after_a_kill() {
    let kept = Kept::new();
    let broker = kept.start_at(0);
    let mut writer = connected(&broker, connect(4, "writer").unclean()).await;
    writer.send(&publish(4, 4, "t", 9, &[], b"one")).await;
    assert_eq!(writer.receive().await, (PUBREC, vec![0, 9]));
    let received = kept.killed();
    writer.send(&ack(PUBREL, 9)).await;
    assert_eq!(writer.receive().await, (PUBCOMP, vec![0, 9]));
    let released = kept.killed();
    crash(broker, vec![writer]).await;
    // The same publication is one that is known; with its id let go, it is the next one.
    for (kept, published) in [(received, 0), (released, 1)] {
        let broker = kept.start_at(1);
        let (mut writer, was_there) = resumed(&broker, "writer").await;
        writer.send(&publish(4, 4, "t", 9, &[], b"two")).await;
        assert_eq!((was_there, writer.receive().await), (true, (PUBREC, vec![0, 9])));
        assert_eq!(broker.metrics().published, published);
        crash(broker, vec![writer]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_released_to_a_client_is_not_sent_again_after_a_kill() {
    let kept = Kept::new();
    let broker = kept.start_at(0);
    let mut reader = connected(&broker, connect(4, "reader").unclean()).await;
    reader.subscribe(4, "t", 2).await;
    let mut writer = connected(&broker, connect(4, "writer")).await;
    writer.send(&publish(4, 4, "t", 9, &[], b"x")).await;
    let (first, body) = reader.receive().await;
    assert_eq!((first, &body[..]), (0x34, &b"\0\x01t\0\x01x"[..]));
    reader.send(&ack(PUBREC, 1)).await;
    assert_eq!(reader.receive().await, (PUBREL, vec![0, 1]));
    let released = kept.killed();
    crash(broker, vec![reader, writer]).await;
    let broker = released.start_at(1);
    let (mut reader, was_there) = resumed(&broker, "reader").await;
    assert_eq!((was_there, reader.receive().await), (true, (PUBREL, vec![0, 1])));
}
