//! The gate: who gets in under which name, and what each may publish and read.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod retained;
#[path = "../rig/mod.rs"]
mod rig;
mod settings;
mod standard;

use std::sync::Arc;

use muster_broker::{Broker, Code, Cut, CutReason, Ended};
use muster_policy::mqtt::{Asked, Judge, Version};
use muster_policy::reason::Reason;
use rig::{
    GOODBYE, PUBACK, PUBREC, broker, connect, counted, dial, dial_account, holder, packet, publish, text,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Rules of a zone against everything that names a secret.
#[derive(Debug)]
struct NoSecrets;

impl Judge for NoSecrets {
    fn judge(&self, asked: &Asked<'_>) -> Result<(), Reason> {
        let is_secret = |text: &str| text.contains("secret");
        let is_blocked = match asked {
            Asked::Connect(connect) => {
                let will = connect.will.as_ref().map(|will| (&*will.topic, will.qos, will.retain));
                is_secret(&connect.client_id)
                    || is_secret(&connect.username)
                    || will == Some(("devices/meter/secret", 2, true))
                    || (connect.version == Version::V311 && connect.client_id.ends_with("/old"))
            }
            other => is_secret(other.message().topic),
        };
        if is_blocked { Err(Reason::RuleBlocked) } else { Ok(()) }
    }
}

fn dial_judged(broker: &Broker) -> rig::Client {
    let (stream, theirs) = tokio::io::duplex(16 * 1024);
    let mut peer = rig::peer(Some(holder("meter", &[])), 1, Cut::never());
    peer.judge = Arc::new(NoSecrets);
    let broker = broker.clone();
    let served = tokio::spawn(async move { broker.serve(theirs, peer).await });
    rig::Client { stream, served, cutter: None }
}

/// The answer to a CONNECT: the code, in the terms of its version.
async fn answer(client: &mut rig::Client, connect: &rig::Connect) -> u8 {
    client.send(&connect.octets()).await;
    let (first, body) = client.receive().await;
    assert_eq!(first, 0x20);
    body[1]
}

#[tokio::test]
async fn a_client_id_is_the_device_id_or_begins_with_it_and_a_slash() {
    let broker = broker("");
    for (id, v3, v5) in [
        ("meter", 0, 0),
        ("meter/7", 0, 0),
        ("meter2", 2, 0x85),
        ("METER", 2, 0x85),
        ("other", 2, 0x85),
        ("/meter", 2, 0x85),
        ("", 0, 0),
    ] {
        for (version, expected) in [(4, v3), (5, v5)] {
            let mut client = dial(&broker, Some(holder("meter", &[])));
            assert_eq!(answer(&mut client, &connect(version, id)).await, expected, "{id:?} {version}");
        }
    }
}

#[tokio::test]
async fn an_empty_client_id_is_assigned_within_the_devices_own() {
    let broker = broker("");
    let mut client = dial(&broker, Some(holder("meter", &[])));
    client.send(&connect(5, "").octets()).await;
    let (_, body) = client.receive().await;
    let assigned = [&[0x12][..], &text("meter/auto-")[2..]].concat();
    let place = body.windows(8).position(|window| window == &assigned[1..9]).expect("an assigned id");
    assert_eq!(body[place - 3], 0x12);
    // Version 3.1.1 can't be told, and so can't keep a session under it (§3.1.3.1).
    let mut client = dial(&broker, Some(holder("meter", &[])));
    assert_eq!(answer(&mut client, &connect(4, "").unclean()).await, 2);
    client.is_closed().await;
}

#[tokio::test]
async fn nobody_without_a_certificate_gets_in_by_default() {
    let broker = broker("");
    for (version, code) in [(4, 5), (5, 0x87)] {
        let mut client = dial(&broker, None);
        assert_eq!(answer(&mut client, &connect(version, "x")).await, code);
        client.is_closed().await;
        assert_eq!(client.ended().await, Ended::Refused(Code::NOT_AUTHORIZED));
    }
}

#[tokio::test]
async fn a_client_that_the_edge_does_not_let_in_is_told_so() {
    let broker = broker(rig::OPEN);
    for (code, answers) in [(Code::NOT_AUTHORIZED, [5, 0x87]), (Code::SERVER_UNAVAILABLE, [3, 0x88])] {
        for (version, expected) in [4, 5].into_iter().zip(answers) {
            let mut client = rig::dial_to_be_refused(&broker, code);
            assert_eq!(answer(&mut client, &connect(version, "x")).await, expected);
            client.is_closed().await;
            assert_eq!(client.ended().await, Ended::Refused(code));
        }
    }
    // What is no CONNECT gets no answer.
    let mut client = rig::dial_to_be_refused(&broker, Code::NOT_AUTHORIZED);
    client.send(&[0xc0, 0]).await;
    client.is_closed().await;
    assert_eq!(broker.metrics().connections, 0);
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let broker = broker("");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connects");
    let (theirs, _) = listener.accept().await.expect("accepts");
    let crossing = publish(5, 0, "devices/meter/x", 0, &[], &[b'x'; 20_000]);
    let octets = [connect(5, "other").octets(), crossing].concat();
    client.write_all(&octets).await.expect("sent");
    let peer = rig::peer(Some(holder("meter", &[])), 1, Cut::never());
    let served = tokio::spawn(async move { broker.serve(theirs, peer).await });
    let mut answer = [0; 5];
    client.read_exact(&mut answer).await.expect("a CONNACK");
    assert_eq!(answer, [0x20, 3, 0, 0x85, 0]);
    // The end, and no reset: a client that still writes would take that for a broken connection.
    assert_eq!(client.read(&mut answer).await.expect("an end"), 0);
    client.write_all(&GOODBYE).await.expect("not reset");
    drop(client);
    assert_eq!(served.await.expect("no panic"), Ended::Refused(Code::CLIENT_ID_NOT_VALID));
}

#[tokio::test]
async fn a_user_name_means_nothing_unless_it_must_be_the_device() {
    for (rule, code) in [("ignore", [0, 0]), ("device", [4, 0x86])] {
        let broker = broker(&format!("username = '{rule}'"));
        for (version, code) in [4, 5].into_iter().zip(code) {
            let mut named = connect(version, "meter");
            named.username = Some("somebody".to_owned());
            let mut client = dial(&broker, Some(holder("meter", &[])));
            assert_eq!(answer(&mut client, &named).await, code);
            named.username = Some("meter".to_owned());
            let mut client = dial(&broker, Some(holder("meter", &[])));
            assert_eq!(answer(&mut client, &named).await, 0);
        }
    }
}

#[tokio::test]
async fn a_will_is_held_against_the_rules_when_it_is_made() {
    let broker = broker("");
    for (topic, v3, v5) in [("devices/meter/gone", 0, 0), ("fleet/gone", 5, 0x87)] {
        for (version, code) in [(4, v3), (5, v5)] {
            let mut client = dial(&broker, Some(holder("meter", &[])));
            let willing = connect(version, "meter").will(topic, b"x", 0, &[]);
            assert_eq!(answer(&mut client, &willing).await, code, "{topic} {version}");
        }
    }
    // A will with a wildcard is no topic name.
    let mut client = dial(&broker, Some(holder("meter", &[])));
    let willing = connect(5, "meter").will("devices/meter/+", b"x", 0, &[]);
    assert_eq!(answer(&mut client, &willing).await, 0x81);
    // Nor is its response topic.
    let mut client = dial(&broker, Some(holder("meter", &[])));
    let properties = [&[8][..], &text("devices/+/answer")].concat();
    let willing = connect(5, "meter").will("devices/meter/gone", b"x", 0, &properties);
    assert_eq!(answer(&mut client, &willing).await, 0x82);
}

#[tokio::test]
async fn an_authentication_method_is_not_offered() {
    let broker = broker("");
    let mut client = dial(&broker, Some(holder("meter", &[])));
    let method = [&[0x15][..], &text("SCRAM")].concat();
    assert_eq!(answer(&mut client, &connect(5, "meter").property(&method)).await, 0x8c);
}

#[tokio::test]
async fn other_versions_are_told_so() {
    let broker = broker("");
    for (name, level, body) in [
        ("MQTT", 3, &[0, 1][..]),
        ("MQIsdp", 4, &[0, 1]),
        ("MQTT", 6, &[0, 0x84, 0]),
        // A bridge of mosquitto, which goes on without the high bit.
        ("MQTT", 0x84, &[0, 1]),
    ] {
        let mut client = dial(&broker, Some(holder("meter", &[])));
        let octets = [text(name), vec![level, 2, 0, 0], text("meter")].concat();
        client.send(&packet(0x10, &octets)).await;
        assert_eq!(client.receive().await, (0x20, body.to_vec()), "{name} {level}");
        client.is_closed().await;
    }
    let mut client = dial(&broker, Some(holder("meter", &[])));
    client.send(&packet(0x10, &[text("hj"), vec![4, 2, 0, 0], text("meter")].concat())).await;
    client.is_closed().await;
}

/// A device that is connected.
async fn device(broker: &Broker, version: u8) -> rig::Client {
    let mut client = dial(broker, Some(holder("meter", &[])));
    assert_eq!(answer(&mut client, &connect(version, "meter")).await, 0);
    client
}

#[tokio::test]
async fn a_refused_publication_gets_its_code_and_version_3_a_close() {
    let broker = broker("");
    let mut client = device(&broker, 5).await;
    client.send(&publish(5, 2, "fleet/x", 1, &[], b"")).await;
    assert_eq!(client.receive().await, (PUBACK, vec![0, 1, 0x87]));
    client.send(&publish(5, 4, "devices/other/x", 2, &[], b"")).await;
    assert_eq!(client.receive().await, (PUBREC, vec![0, 2, 0x87]));
    client.send(&publish(5, 0, "devices/other/x", 0, &[], b"")).await;
    client.send(&publish(5, 2, "devices/meter/x", 3, &[], b"")).await;
    assert_eq!(client.receive().await, (PUBACK, vec![0, 3, 0x10]));
    let mut client = device(&broker, 4).await;
    client.send(&publish(4, 2, "fleet/x", 1, &[], b"")).await;
    client.is_closed().await;
    assert_eq!(client.ended().await, Ended::Ours(Code::NOT_AUTHORIZED));
    assert_eq!(broker.metrics().publish_refused, 4);
}

#[tokio::test]
async fn an_alias_is_resolved_before_the_rules_are_asked() {
    let broker = broker("");
    let mut client = device(&broker, 5).await;
    client.send(&publish(5, 2, "devices/meter/x", 1, &[0x23, 0, 1], b"")).await;
    assert_eq!(client.receive().await, (PUBACK, vec![0, 1, 0x10]));
    // The alias now stands for a topic of another device: what uses it is refused.
    client.send(&publish(5, 2, "devices/other/x", 2, &[0x23, 0, 1], b"")).await;
    assert_eq!(client.receive().await, (PUBACK, vec![0, 2, 0x87]));
    client.send(&publish(5, 2, "", 3, &[0x23, 0, 1], b"")).await;
    assert_eq!(client.receive().await, (PUBACK, vec![0, 3, 0x87]));
    for (properties, code) in [([0x23, 0, 0], 0x94), ([0x23, 0, 11], 0x94), ([0x23, 0, 9], 0x82)] {
        let mut client = device(&broker, 5).await;
        client.send(&publish(5, 0, "", 0, &properties, b"")).await;
        client.is_disconnected(code).await;
    }
}

#[tokio::test]
async fn filters_must_lie_within_the_rules() {
    let broker = broker("");
    for (filter, v5) in [
        ("devices/meter/#", 1),
        ("devices/meter/+/x", 1),
        ("fleet/#", 1),
        ("$share/g/fleet/+", 1),
        ("devices/+/x", 0x87),
        ("#", 0x87),
        ("+/#", 0x87),
        ("devices/#", 0x87),
        ("$share/g/#", 0x87),
        ("$SYS/#", 0x87),
        ("devices/meter2/x", 0x87),
    ] {
        assert_eq!(device(&broker, 5).await.subscribe(5, filter, 1).await, v5, "{filter}");
        let v3 = if v5 == 1 { 1 } else { 0x80 };
        assert_eq!(device(&broker, 4).await.subscribe(4, filter, 1).await, v3, "{filter}");
    }
}

#[tokio::test]
async fn a_malformed_filter_ends_the_connection() {
    let broker = broker("");
    let too_deep = "fleet".to_owned() + &"/x".repeat(201);
    for filter in [
        "fleet/#/x",
        "fleet/a+",
        "$share//fleet/x",
        "$share/+/fleet/x",
        "$share/g",
        "",
        "fleet/\u{1b}[2J",
        &too_deep,
    ] {
        for (octets, version) in [4, 5].into_iter().flat_map(|version| {
            let subscribe = rig::subscribe(version, 1, filter, 0);
            [(subscribe, version), (rig::unsubscribe(version, 1, &["fleet/a", filter]), version)]
        }) {
            let mut client = device(&broker, version).await;
            client.send(&octets).await;
            match version {
                5 => client.is_disconnected(0x81).await,
                _ => client.is_closed().await,
            }
        }
    }
    assert_eq!(broker.metrics().subscriptions, 0);
}

#[tokio::test]
async fn a_refused_publication_to_a_topic_of_the_server_is_dropped() {
    let broker = broker("");
    for (flags, answer) in [(0, None), (2, Some(PUBACK)), (4, Some(PUBREC))] {
        let mut client = device(&broker, 4).await;
        client.send(&publish(4, flags, "$SYS/broker/load", 7, &[], b"x")).await;
        if let Some(answer) = answer {
            assert_eq!(client.receive().await, (answer, vec![0, 7]));
        }
        client.send(&rig::PING).await;
        assert_eq!(client.receive().await.0, 0xd0);
    }
    let metrics = broker.metrics();
    assert_eq!((metrics.publish_refused, metrics.published), (3, 0));
}

#[tokio::test]
async fn unsubscribing_has_a_code_for_each_filter() {
    let broker = broker("");
    let mut client = device(&broker, 5).await;
    client.subscribe(5, "fleet/a", 1).await;
    client.send(&rig::unsubscribe(5, 3, &["fleet/a", "fleet/b", "other/#"])).await;
    assert_eq!(client.receive().await, (0xb0, vec![0, 3, 0, 0, 0x11, 0x87]));
    let mut client = device(&broker, 4).await;
    client.send(&rig::unsubscribe(4, 3, &["fleet/a", "other/#"])).await;
    assert_eq!(client.receive().await, (0xb0, vec![0, 3]));
}

#[tokio::test]
async fn a_group_may_have_wider_rules_and_other_client_ids() {
    let broker = broker(
        "[[rules]]\npublish = ['devices/%i/#']\nsubscribe = ['devices/%i/#']\n\
         [[rules]]\ngroups = ['operators']\nclient_id = 'any'\npublish = ['fleet/#']\n\
         subscribe = ['#']\ndeny = ['devices/+/secret']\n",
    );
    let mut operator = dial(&broker, Some(holder("desk", &["operators", "night"])));
    assert_eq!(answer(&mut operator, &connect(5, "dashboard")).await, 0);
    assert_eq!(operator.subscribe(5, "#", 1).await, 1);
    // Within the rule, and an exception: no reason is given.
    assert_eq!(operator.subscribe(5, "devices/+/secret", 1).await, 0x80);
    let mut device = dial(&broker, Some(holder("meter", &["night"])));
    assert_eq!(answer(&mut device, &connect(5, "dashboard")).await, 0x85);
    let mut device = dial(&broker, Some(holder("meter", &["night"])));
    assert_eq!(answer(&mut device, &connect(5, "meter")).await, 0);
    // The exception is not delivered through the wider subscription either.
    device.send(&publish(5, 0, "devices/meter/secret", 0, &[], b"1")).await;
    device.send(&publish(5, 0, "devices/meter/plain", 0, &[], b"2")).await;
    let (_, body) = operator.receive().await;
    assert!(body.ends_with(b"plain\x002"), "{body:02x?}");
}

#[tokio::test]
async fn accounts_never_meet() {
    let broker = broker(rig::OPEN);
    let mut other = dial_account(&broker, None, 2);
    assert_eq!(answer(&mut other, &connect(5, "same")).await, 0);
    other.subscribe(5, "#", 0).await;
    let mut mine = dial_account(&broker, None, 1);
    assert_eq!(answer(&mut mine, &connect(5, "same")).await, 0);
    mine.send(&publish(5, 1, "a", 0, &[], b"x")).await;
    mine.send(&rig::PING).await;
    assert_eq!(mine.receive().await.0, 0xd0);
    // Neither a takeover nor a message.
    other.receive_nothing().await;
    assert_eq!(other.subscribe(5, "a", 0).await, 0);
    other.receive_nothing().await;
}

#[tokio::test]
async fn a_cut_says_why_closes_and_fires_no_will_unless_it_is_asked_to() {
    for (setting, fires) in [("drop", false), ("publish", true)] {
        let broker = broker(&format!("on_cut = {{ will = '{setting}' }}"));
        let mut watcher = dial(&broker, Some(holder("meter", &[])));
        assert_eq!(answer(&mut watcher, &connect(5, "meter/watch")).await, 0);
        watcher.subscribe(5, "devices/meter/#", 0).await;
        for version in [4, 5] {
            let mut client = dial(&broker, Some(holder("meter", &[])));
            let willing = connect(version, "meter").will("devices/meter/gone", b"x", 0, &[]);
            assert_eq!(answer(&mut client, &willing).await, 0);
            client.cutter.take().expect("there").cut(CutReason::Denied);
            match version {
                5 => client.is_disconnected(0x98).await,
                _ => client.is_closed().await,
            }
            assert_eq!(client.ended().await, Ended::Cut(CutReason::Denied));
            if fires {
                assert!(watcher.receive().await.1.ends_with(b"gone\0x"));
            } else {
                watcher.receive_nothing().await;
            }
        }
    }
}

#[tokio::test]
async fn a_cut_before_connect_closes_at_once() {
    let broker = broker("");
    let mut client = dial(&broker, Some(holder("meter", &[])));
    client.cutter.take().expect("there").cut(CutReason::CertificateEnded);
    client.is_closed().await;
    assert_eq!(client.ended().await, Ended::Cut(CutReason::CertificateEnded));
}

#[tokio::test(start_paused = true)]
async fn who_sends_no_whole_connect_in_time_is_closed() {
    let broker = broker("");
    for octets in [&[][..], &[0x10], &[0x10, 20, 0, 4]] {
        let mut client = dial(&broker, Some(holder("meter", &[])));
        client.send(octets).await;
        client.is_closed().await;
        assert_eq!(client.ended().await, Ended::Silent);
    }
}

#[tokio::test]
async fn a_packet_above_the_limit_is_refused_by_its_header() {
    let broker = broker("[quotas]\npacket_bytes = 1024");
    let mut client = device(&broker, 5).await;
    // The length says 200 MB; nothing of it is sent or awaited.
    client.send(&[0x30, 0x80, 0x80, 0x80, 0x60]).await;
    client.is_disconnected(0x95).await;
    let mut client = device(&broker, 5).await;
    client.send(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]).await;
    client.is_disconnected(0x81).await;
}

#[tokio::test]
async fn who_has_not_been_let_in_is_held_to_the_size_of_a_connect() {
    let broker = broker("[quotas]\npacket_bytes = 268435455");
    for first in [0x10, 0x30] {
        // The length says 200 MB; nothing of it is sent or awaited.
        let mut client = dial(&broker, Some(holder("meter", &[])));
        client.send(&[first, 0x80, 0x80, 0x80, 0x60]).await;
        client.is_closed().await;
        assert_eq!(client.ended().await, Ended::Refused(Code::PACKET_TOO_LARGE));
        let mut client = rig::dial_to_be_refused(&broker, Code::NOT_AUTHORIZED);
        client.send(&[first, 0x80, 0x80, 0x80, 0x60]).await;
        client.is_closed().await;
    }
    let mut client = device(&broker, 5).await;
    let large = vec![b'x'; 1_000_000];
    client.send(&publish(5, 2, "devices/meter/x", 1, &[], &large)).await;
    assert_eq!(client.receive().await.0, PUBACK);
}

#[tokio::test]
async fn broken_packets_get_their_code_and_a_close() {
    let broker = broker("");
    let too_deep = "devices/meter".to_owned() + &"/x".repeat(200);
    for (octets, code) in [
        (packet(0x36, &[text("devices/meter"), vec![0, 1, 0]].concat()), 0x81),
        (packet(0x38, &[text("devices/meter"), vec![0]].concat()), 0x81),
        (packet(0x32, &[text("devices/meter"), vec![0, 0, 0]].concat()), 0x82),
        (publish(5, 0, "devices/meter/+", 0, &[], b""), 0x82),
        (publish(5, 0, &too_deep, 0, &[], b""), 0x82),
        (publish(5, 0, "devices/meter/\n", 0, &[], b""), 0x82),
        (publish(5, 0, "a\0b", 0, &[], b""), 0x81),
        (publish(5, 0, "", 0, &[], b""), 0x82),
        (publish(5, 0, "devices/meter", 0, &[1, 0, 1, 0], b""), 0x82),
        (publish(5, 0, "devices/meter", 0, &[0x0b, 1], b""), 0x82),
        (publish(5, 0, "devices/meter", 0, &[0x11, 0, 0, 0, 1], b""), 0x81),
        (publish(5, 0, "devices/meter", 0, &[0x7f], b""), 0x81),
        (publish(5, 0, "devices/meter", 0, &[8, 0, 1, b'#'], b""), 0x82),
        (vec![0xc0, 0x80, 0], 0x81),
        (packet(0x30, &[0, 200, b'a']), 0x81),
        (packet(0x30, &[0, 1, 0xff, 0]), 0x81),
        (packet(0x82, &[0, 1, 0]), 0x81),
        (rig::subscribe(5, 0, "fleet/a", 0), 0x81),
        (rig::unsubscribe(5, 0, &["fleet/a"]), 0x81),
        (packet(0x80, &[0, 1, 0]), 0x81),
        (rig::subscribe(5, 1, "fleet/a", 0x03), 0x81),
        (rig::subscribe(5, 1, "fleet/a", 0x30), 0x81),
        (rig::subscribe(5, 1, "fleet/a", 0x40), 0x81),
        (rig::subscribe(5, 1, "$share/g/fleet/a", 0x04), 0x82),
        (rig::subscribe_with(5, 1, &[0x0b, 0], &[("fleet/a", 0)]), 0x81),
        (packet(0xa2, &[0, 1, 0]), 0x81),
        (packet(0xc0, &[0]), 0x81),
        (packet(0xf0, &[]), 0x82),
        (packet(0x00, &[]), 0x81),
        (packet(0x20, &[0, 0, 0]), 0x82),
        (packet(0x40, &[0, 1, 0x42]), 0x81),
        (packet(0xe0, &[&[0][..], &counted(&[0x11, 0, 0, 0, 5])].concat()), 0x82),
        // Session taken over is for servers to say.
        (packet(0xe0, &[0x8e, 0]), 0x81),
    ] {
        let mut client = device(&broker, 5).await;
        client.send(&octets).await;
        let (first, body) = client.receive().await;
        assert_eq!((first, body), (0xe0, vec![code, 0]), "{octets:02x?}");
        client.is_closed().await;
    }
    // Version 3.1.1 does not say that a length is as short as can be.
    let mut client = device(&broker, 4).await;
    client.send(&[0xc0, 0x80, 0]).await;
    assert_eq!(client.receive().await.0, 0xd0);
}

#[tokio::test]
async fn connects_that_break_the_rules_are_refused() {
    let broker = broker("");
    let body =
        |flags: u8, rest: &[u8]| [&text("MQTT")[..], &[5, flags, 0, 0, 0], &text("meter"), rest].concat();
    for (octets, code) in [
        (body(0x03, &[]), 0x81),
        (body(0x22, &[]), 0x81),
        (body(0x1e, &[&[0][..], &text("devices/meter"), &text("")].concat()), 0x81),
        (body(0x02, b"more"), 0x81),
        ([&text("MQTT")[..], &[5, 2, 0, 0, 0], &text("me\nter")].concat(), 0x85),
        (body(0x82, &[0, 9]), 0x81),
    ] {
        let mut client = dial(&broker, Some(holder("meter", &[])));
        client.send(&packet(0x10, &octets)).await;
        assert_eq!(client.receive().await, (0x20, vec![0, code, 0]), "{octets:02x?}");
        client.is_closed().await;
    }
    // Version 5 allows a password without a user name (§3.1.2.9).
    let mut client = dial(&broker, Some(holder("meter", &[])));
    client.send(&packet(0x10, &body(0x42, &text("secret")))).await;
    assert_eq!(client.receive().await.1[1], 0);
    client.send(&GOODBYE).await;
    assert_eq!(client.ended().await, Ended::Disconnected);
    let mut client = dial(&broker, Some(holder("meter", &[])));
    client.send(&publish(4, 0, "devices/meter", 0, &[], b"")).await;
    client.is_closed().await;
}

#[tokio::test]
async fn the_edges_rules_judge_connect_and_its_will() {
    let broker = broker("");
    let named = |version, id: &str, username: &str| {
        let mut wanted = connect(version, id);
        wanted.username = Some(username.to_owned());
        wanted
    };
    for (version, refused) in [(4, 5), (5, 0x87)] {
        let open = [named(version, "meter", "meter"), named(version, "meter/2", "meter")];
        let shut = [
            named(version, "meter/secret", "meter"),
            connect(version, "meter").will("devices/meter/secret", b"gone", 0x30, &[]),
        ];
        for (wanted, code) in open.iter().map(|open| (open, 0)).chain(shut.iter().map(|shut| (shut, refused)))
        {
            let mut client = dial_judged(&broker);
            assert_eq!(answer(&mut client, wanted).await, code, "{version} {}", wanted.id);
        }
    }
    for (version, code) in [(4, 5), (5, 0)] {
        let mut client = dial_judged(&broker);
        assert_eq!(answer(&mut client, &connect(version, "meter/old")).await, code, "{version}");
    }
}

#[tokio::test]
async fn the_edges_rules_judge_every_publication_subscription_and_delivery() {
    let broker = broker("");
    let mut reader = dial_judged(&broker);
    assert_eq!(answer(&mut reader, &connect(5, "meter")).await, 0);
    for (filter, code) in
        [("devices/meter/secret", 0x87), ("$share/g/devices/meter/secret/x", 0x87), ("devices/meter/#", 1)]
    {
        assert_eq!(reader.subscribe(5, filter, 1).await, code, "{filter}");
    }
    // Of the same device, and held to its topics alone.
    let mut writer = dial(&broker, Some(holder("meter", &[])));
    assert_eq!(answer(&mut writer, &connect(5, "meter/writer")).await, 0);
    // A filter that only contains the topic does not lead around the rule, whatever the quality.
    for (id, topic) in [(1, "devices/meter/secret"), (2, "devices/meter/open")] {
        for qos in [0, 1] {
            writer.send(&publish(5, qos << 1, topic, id, &[], &[qos])).await;
        }
    }
    for qos in [0, 1] {
        let (first, body) = reader.receive().await;
        assert_eq!((first & 0x06, body.last()), (qos << 1, Some(&qos)));
        assert!(body[2..].starts_with(b"devices/meter/open"), "{body:02x?}");
    }
    assert_eq!(broker.metrics().deliver_refused, 2);

    reader.send(&publish(5, 2, "devices/meter/secret", 9, &[], b"x")).await;
    assert_eq!(reader.receive().await, (PUBACK, vec![0, 9, 0x87]));
    let mut old = dial_judged(&broker);
    assert_eq!(answer(&mut old, &connect(4, "meter/4")).await, 0);
    assert_eq!(old.subscribe(4, "devices/meter/secret", 0).await, 0x80);
    old.send(&publish(4, 2, "devices/meter/secret", 9, &[], b"x")).await;
    old.is_closed().await;
    assert_eq!(old.ended().await, Ended::Ours(Code::NOT_AUTHORIZED));
}
