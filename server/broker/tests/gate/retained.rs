//! Retained messages and wills of senders who may not speak any more, and what settings make of others.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use muster_broker::Broker;
use muster_policy::identity::AccountId;
use muster_policy::mqtt::{Sender, Senders};
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use tokio::time::Duration;

use super::rig::{
    Client, GOODBYE, OPEN, PING, PUBACK, broker, config_of, connect, connected, dial, holder, publish,
    subscribe_with,
};

/// Devices speak to all of the fleet by the rules of a group.
const FLEET: &str = "
[[rules]]
groups = ['speakers']
publish = ['fleet/#']
[[rules]]
subscribe = ['fleet/#']
[anonymous]
publish = ['open/#']
subscribe = ['#']
";

/// Says of every sender the same.
#[derive(Debug)]
struct Known(Mutex<Result<BTreeSet<String>, Reason>>);

impl Known {
    fn of(groups: &[&str]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Ok(set(groups)))))
    }

    fn now(&self, what: Result<BTreeSet<String>, Reason>) {
        *self.0.lock().expect("no panic") = what;
    }
}

impl Senders for Known {
    fn groups(&self, account: AccountId, sender: &Sender) -> Result<Arc<BTreeSet<String>>, Reason> {
        assert_eq!((account.as_bytes(), sender.device.as_str()), (&[1; 16], "speaker"));
        self.0.lock().expect("no panic").clone().map(Arc::new)
    }
}

fn set(groups: &[&str]) -> BTreeSet<String> {
    groups.iter().map(|group| (*group).to_owned()).collect()
}

async fn device(broker: &Broker, name: &str, connect: &super::rig::Connect) -> Client {
    let mut client = dial(broker, Some(holder(name, &["speakers"])));
    client.send(&connect.octets()).await;
    let (first, body) = client.receive().await;
    assert_eq!((first, body[1]), (0x20, 0));
    client
}

/// Retains a message as the device, which then goes.
async fn retain(broker: &Broker, topic: &str) {
    let mut speaker = device(broker, "speaker", &connect(5, "speaker")).await;
    speaker.send(&publish(5, 3, topic, 1, &[], b"do it")).await;
    assert_eq!(speaker.receive().await.0, PUBACK);
    speaker.send(&GOODBYE).await;
    speaker.ended().await;
}

/// How many retained messages a new subscription gets.
async fn given(broker: &Broker, filter: &str) -> usize {
    let mut reader = connected(broker, connect(5, "reader")).await;
    reader.send(&publish(5, 3, "open/end", 1, &[], b"end")).await;
    assert_eq!(reader.receive().await.0, PUBACK);
    // Subscriptions are served in their order: when the last has its message, the first has had all.
    reader.send(&subscribe_with(5, 2, &[], &[(filter, 0), ("open/end", 0)])).await;
    assert_eq!(reader.receive().await, (0x90, vec![0, 2, 0, 0, 0]));
    let (mut count, mut ends) = (0, if filter == "#" { 2 } else { 1 });
    while ends > 0 {
        if reader.receive().await.1.ends_with(b"end") { ends -= 1 } else { count += 1 }
    }
    count
}

#[tokio::test]
async fn a_retained_message_is_given_out_while_its_sender_may_speak() {
    let broker = broker(FLEET);
    let known = Known::of(&["speakers"]);
    broker.heed(Arc::clone(&known) as Arc<dyn Senders>);
    retain(&broker, "fleet/order").await;
    for (now, expected) in [
        (Ok(set(&["speakers"])), 1),
        (Ok(set(&["others"])), 0),
        (Err(Reason::DeviceSuspended), 0),
        (Ok(set(&["speakers", "others"])), 1),
        (Err(Reason::DeviceRetired), 0),
        (Err(Reason::CaNotAccepted), 0),
        (Err(Reason::CertificateRevoked), 0),
    ] {
        known.now(now.clone());
        assert_eq!(given(&broker, "fleet/#").await, expected, "{now:?}");
    }
    assert_eq!(broker.metrics().retained_withheld, 5);
    // Another takes its place.
    known.now(Ok(set(&["speakers"])));
    retain(&broker, "fleet/order").await;
    assert_eq!(given(&broker, "fleet/#").await, 1);
}

#[tokio::test]
async fn a_retained_will_is_its_senders_and_who_may_not_speak_keeps_nothing_else_back() {
    let broker = broker(FLEET);
    let known = Known::of(&["speakers"]);
    broker.heed(Arc::clone(&known) as Arc<dyn Senders>);
    let willing = connect(5, "speaker").will("fleet/will", b"gone", 0x20, &[]);
    let speaker = device(&broker, "speaker", &willing).await;
    speaker.ended().await;
    for number in 0..70 {
        retain(&broker, &format!("fleet/{number}")).await;
    }
    let mut other = connected(&broker, connect(5, "other")).await;
    other.send(&publish(5, 3, "open/z", 1, &[], b"hello")).await;
    other.receive().await;
    assert_eq!(given(&broker, "#").await, 72);
    known.now(Err(Reason::DeviceSuspended));
    assert_eq!(given(&broker, "#").await, 1);
}

/// Whether a watcher gets the will of a device that this has become of before its delay is over.
async fn is_fired(settings: &str, now: Result<BTreeSet<String>, Reason>) -> bool {
    let broker = broker(&format!("{settings}\n{FLEET}"));
    let known = Known::of(&["speakers"]);
    broker.heed(Arc::clone(&known) as Arc<dyn Senders>);
    let mut watcher = connected(&broker, connect(5, "watcher")).await;
    watcher.subscribe(5, "fleet/will", 0).await;
    let willing = connect(5, "speaker").expiry(100).will("fleet/will", b"gone", 0, &[0x18, 0, 0, 0, 5]);
    device(&broker, "speaker", &willing).await.ended().await;
    known.now(now);
    tokio::time::sleep(Duration::from_secs(10)).await;
    watcher.send(&PING).await;
    let is_fired = watcher.receive().await.0 == 0x30;
    assert_eq!(broker.metrics().wills, u64::from(is_fired));
    is_fired
}

#[tokio::test(start_paused = true)]
async fn a_will_that_waited_is_its_senders_too() {
    for anyone in ["", "retained_of = 'anyone'"] {
        assert!(is_fired(anyone, Ok(set(&["speakers"]))).await);
        for now in [Ok(set(&["others"])), Err(Reason::CertificateRevoked), Err(Reason::DeviceSuspended)] {
            assert!(!is_fired(anyone, now.clone()).await, "{anyone} {now:?}");
        }
    }
    assert!(is_fired("on_cut.will = 'publish'", Err(Reason::CertificateRevoked)).await);
}

#[tokio::test]
async fn the_rules_of_today_count_after_a_restart_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |rules: &str| {
        let text = format!("file = '{}'\n{rules}", folder.path().join("broker.redb").display());
        Broker::start(&config_of(&text), UnixTime::from_secs(1_800_000_000)).expect("starts")
    };
    let broker = start(FLEET);
    broker.heed(Known::of(&["speakers"]));
    retain(&broker, "fleet/order").await;
    let mut other = connected(&broker, connect(5, "other")).await;
    other.send(&publish(5, 3, "open/z", 1, &[], b"hello")).await;
    other.receive().await;
    assert_eq!((given(&broker, "fleet/#").await, given(&broker, "open/z").await), (1, 1));
    broker.drain();
    broker.close().await;
    drop((broker, other));
    let less = FLEET.replace("'fleet/#']\n[[", "'fleet/less/#']\n[[").replace("'open/#'", "'open/end'");
    let all = format!("retained_of = 'anyone'\n{less}");
    for (rules, expected) in [(FLEET, (1, 1)), (&less, (0, 0)), (&all, (1, 1))] {
        let broker = start(rules);
        broker.heed(Known::of(&["speakers"]));
        assert_eq!((given(&broker, "fleet/#").await, given(&broker, "open/z").await), expected, "{rules}");
        broker.close().await;
    }
}

#[tokio::test]
async fn where_it_is_set_a_message_has_the_quality_of_the_subscription() {
    let broker = broker(&format!("delivered_qos = 'subscribed'\n{OPEN}"));
    let mut away = connected(&broker, connect(4, "away").unclean()).await;
    away.subscribe(4, "live", 1).await;
    away.send(&GOODBYE).await;
    away.ended().await;
    let mut client = connected(&broker, connect(4, "a")).await;
    client.send(&publish(4, 1, "kept", 0, &[], b"x")).await;
    client.send(&publish(4, 0, "live", 0, &[], b"y")).await;
    assert_eq!(client.subscribe(4, "kept", 2).await, 2);
    assert_eq!(client.receive().await.0, 0x30 | 4 | 1);
    let mut away = dial(&broker, None);
    away.send(&connect(4, "away").unclean().octets()).await;
    assert_eq!(away.receive().await, (0x20, vec![1, 0]));
    assert_eq!(away.receive().await.0, 0x30 | 2);
}

#[tokio::test]
async fn where_it_is_set_a_client_without_an_id_is_refused() {
    let broker = broker(&format!("empty_client_id = 'refuse'\n{OPEN}"));
    for (version, code) in [(5, 0x85), (4, 2)] {
        let mut client = dial(&broker, None);
        client.send(&connect(version, "").octets()).await;
        assert_eq!(client.receive().await.1[1], code, "{version}");
        client.is_closed().await;
    }
    connected(&broker, connect(4, "a")).await;
}
