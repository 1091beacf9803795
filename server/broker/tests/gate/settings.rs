//! What settings forbid and announce, and what clients of MQTT 3.1 and odd ones get.

use muster_broker::{Code, Ended};

use super::rig::{
    self, Client, Connect, OPEN, PING, PUBACK, PUBCOMP, PUBREC, PUBREL, ack, broker, connect, connected,
    dial, holder, packet, publish, subscribe, text,
};

/// The whole CONNACK to a client without a certificate.
async fn connack(broker: &muster_broker::Broker, connect: &Connect) -> (Client, Vec<u8>) {
    let mut client = dial(broker, None);
    client.send(&connect.octets()).await;
    let (first, body) = client.receive().await;
    assert_eq!(first, 0x20);
    (client, body)
}

#[tokio::test]
async fn limits_are_announced_in_the_usual_order_and_those_that_are_none_are_not() {
    let broker = broker(&format!("{OPEN}[quotas]\ninflight = 20\npacket_bytes = 268435455"));
    let (_, body) = connack(&broker, &connect(5, "a")).await;
    assert_eq!(body, [0, 0, 6, 0x22, 0, 10, 0x21, 0, 20]);
    let broker = rig::broker(&format!(
        "{OPEN}[quotas]\npacket_bytes = 40\nmax_qos = 1\nretained = 0\nkeep_alive_s = 7\nsession_expiry_s = 9"
    ));
    let (_, body) = connack(&broker, &connect(5, "a").expiry(10)).await;
    let expected: [&[u8]; 9] = [
        &[0, 0, 23],
        &[0x22, 0, 10],
        &[0x11, 0, 0, 0, 9],
        &[0x13, 0, 7],
        &[0x25, 0],
        &[0x27, 0, 0, 0, 40],
        &[0x21, 0, 32],
        &[0x24, 1],
        &[],
    ];
    assert_eq!(body, expected.concat());
}

#[tokio::test]
async fn a_quality_above_the_highest_ends_a_publisher_and_lowers_a_subscriber() {
    let broker = broker(&format!("{OPEN}[quotas]\nmax_qos = 1"));
    let mut client = connected(&broker, connect(5, "a")).await;
    assert_eq!(client.subscribe(5, "t", 2).await, 1);
    client.send(&publish(5, 4, "t", 1, &[], b"x")).await;
    client.is_disconnected(0x9b).await;
    let mut client = connected(&broker, connect(4, "a")).await;
    client.send(&publish(4, 4, "t", 1, &[], b"x")).await;
    client.is_closed().await;
    for (version, code) in [(5, 0x9b), (4, 5)] {
        let willing = |bits| connect(version, "a").will("t", b"x", bits, &[]);
        assert_eq!(connack(&broker, &willing(0x10)).await.1[1], code, "{version}");
        assert_eq!(connack(&broker, &willing(0x08)).await.1[1], 0, "{version}");
    }
}

#[tokio::test]
async fn where_there_are_no_retained_messages_who_sends_one_goes() {
    let broker = broker(&format!("{OPEN}[quotas]\nretained = 0"));
    let mut client = connected(&broker, connect(5, "a")).await;
    client.send(&publish(5, 1, "t", 0, &[], b"x")).await;
    client.is_disconnected(0x9a).await;
    let mut client = connected(&broker, connect(4, "a")).await;
    client.send(&publish(4, 1, "t", 0, &[], b"x")).await;
    client.is_closed().await;
    for (version, code) in [(5, 0x9a), (4, 5)] {
        let willing = connect(version, "a").will("t", b"x", 0x20, &[]);
        assert_eq!(connack(&broker, &willing).await.1[1], code, "{version}");
    }
}

#[tokio::test]
async fn a_payload_above_the_limit_is_dropped_and_a_will_refused() {
    let broker = broker(&format!("{OPEN}[quotas]\npayload_bytes = 1"));
    let mut reader = connected(&broker, connect(5, "reader")).await;
    reader.subscribe(5, "t", 2).await;
    for (version, code) in [(4, &[0, 1][..]), (5, &[0, 1, 0x95])] {
        let mut client = connected(&broker, connect(version, "a")).await;
        client.send(&publish(version, 0, "t", 0, &[], b"xx")).await;
        for (flags, kind) in [(2, PUBACK), (4, PUBREC)] {
            client.send(&publish(version, flags, "t", 1, &[], b"xx")).await;
            assert_eq!(client.receive().await, (kind, code.to_vec()));
        }
        client.send(&publish(version, 0, "t", 0, &[], b"y")).await;
        assert_eq!(reader.receive().await.1.last(), Some(&b'y'));
    }
    for (version, code) in [(4, 5), (5, 0x95)] {
        let willing = connect(version, "w").will("t", b"xx", 0, &[]);
        assert_eq!(connack(&broker, &willing).await.1[1], code, "{version}");
    }
    assert_eq!(broker.metrics().publish_refused, 6);
}

/// CONNECT of MQTT 3.1.
fn connect_3_1(id: &str, flags: u8) -> Vec<u8> {
    packet(0x10, &[text("MQIsdp"), vec![3, flags, 0, 0], text(id)].concat())
}

#[tokio::test]
async fn version_3_1_is_served() {
    let broker = broker(OPEN);
    for flags in [0, 2] {
        let mut client = dial(&broker, None);
        client.send(&connect_3_1("", flags)).await;
        assert_eq!(client.receive().await, (0x20, vec![0, 2]), "it has no empty client id");
        client.is_closed().await;
    }
    for _ in 0..2 {
        let mut client = dial(&broker, None);
        client.send(&connect_3_1("old", 0)).await;
        assert_eq!(client.receive().await, (0x20, vec![0, 0]), "it has no session-present flag");
        // A request that is sent again has a mark.
        let mut again = subscribe(4, 7, "t", 0);
        again[0] |= 8;
        client.send(&again).await;
        assert_eq!(client.receive().await, (0x90, vec![0, 7, 0]));
        client.send(&publish(4, 4, "t", 9, &[], b"x")).await;
        let mut answers = [client.receive().await, client.receive().await];
        answers.sort_by_key(|(first, _)| *first);
        assert_eq!((answers[0].0, &answers[1]), (0x30, &(PUBREC, vec![0, 9])));
        client.send(&ack(PUBREL | 8, 9)).await;
        assert_eq!(client.receive().await, (PUBCOMP, vec![0, 9]));
        client.send(&rig::GOODBYE).await;
        assert_eq!(client.ended().await, Ended::Disconnected);
    }
    // Such a mark is no part of later versions.
    let mut client = connected(&broker, connect(4, "new")).await;
    client.send(&ack(PUBREL | 8, 9)).await;
    client.is_closed().await;
}

#[tokio::test]
async fn a_second_connect_and_answers_to_nothing_of_the_kind_close_without_a_word() {
    let broker = broker(OPEN);
    for version in [4, 5] {
        let mut client = connected(&broker, connect(version, "a")).await;
        client.send(&connect(version, "a").octets()).await;
        client.is_closed().await;
        assert_eq!(client.ended().await, Ended::Ours(Code::PROTOCOL_ERROR));
        for (flags, wrong) in [(2, PUBREC), (2, PUBCOMP), (4, PUBACK), (4, PUBCOMP)] {
            let mut client = connected(&broker, connect(version, "a")).await;
            client.subscribe(version, "t", 2).await;
            let mut writer = connected(&broker, connect(version, "writer")).await;
            writer.send(&publish(version, flags, "t", 1, &[], b"x")).await;
            assert_eq!(client.receive().await.0, 0x30 | flags);
            client.send(&ack(wrong, 1)).await;
            client.is_closed().await;
            assert_eq!(client.ended().await, Ended::Ours(Code::PROTOCOL_ERROR), "{version} {wrong:02x}");
        }
    }
}

#[tokio::test]
async fn a_publication_comes_again_once_on_a_connection_and_no_more() {
    let broker = broker(OPEN);
    for version in [4, 5] {
        let mut client = connected(&broker, connect(version, "a")).await;
        let message = publish(version, 12, "t", 3, &[], b"x");
        for _ in 0..2 {
            // Each time the id is used it may come again.
            for _ in 0..2 {
                client.send(&message).await;
                assert_eq!(client.receive().await, (PUBREC, vec![0, 3]));
            }
            client.send(&ack(PUBREL, 3)).await;
            assert_eq!(client.receive().await, (PUBCOMP, vec![0, 3]));
        }
        for _ in 0..2 {
            client.send(&message).await;
            assert_eq!(client.receive().await, (PUBREC, vec![0, 3]));
        }
        client.send(&message).await;
        match version {
            5 => client.is_disconnected(0x82).await,
            _ => client.is_closed().await,
        }
    }
    assert_eq!(broker.metrics().published, 6);
}

/// The client id in a CONNACK whose first properties are the topic alias maximum and that.
fn assigned(connack: &[u8]) -> String {
    assert_eq!((connack[3], connack[6]), (0x22, 0x12), "{connack:02x?}");
    let length = usize::from(connack[7]) * 256 + usize::from(connack[8]);
    String::from_utf8(connack[9..9 + length].to_vec()).expect("text")
}

#[tokio::test]
async fn assigned_ids_are_unlike_and_stand_alone_where_any_may_be_used() {
    let broker = broker(&format!("[[rules]]\nclient_id = 'any'\n{OPEN}"));
    let mut ids = Vec::new();
    for holder in [None, Some(holder("meter", &[])), None] {
        let mut client = dial(&broker, holder);
        client.send(&connect(5, "").unclean().octets()).await;
        ids.push(assigned(&client.receive().await.1));
    }
    for id in &ids {
        let groups: Vec<_> = id.strip_prefix("auto-").expect(id).split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
    }
    assert!(ids[0] != ids[1] && ids[0] != ids[2], "{ids:?}");
}

#[tokio::test]
async fn names_may_be_as_long_as_a_string_can_be() {
    let broker = broker(OPEN);
    let long = "x".repeat(65_535);
    for version in [4, 5] {
        let mut client = connected(&broker, connect(version, &long)).await;
        assert_eq!(client.subscribe(version, &long, 0).await, 0);
        client.send(&publish(version, 0, &long, 0, &[], b"y")).await;
        let (first, body) = client.receive().await;
        assert_eq!((first, body[..3].to_vec(), body.last()), (0x30, vec![0xff, 0xff, b'x'], Some(&b'y')));
    }
}

#[tokio::test]
async fn what_is_published_to_a_share_is_refused_and_a_payload_format_goes_on_as_it_is() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(5, "a")).await;
    client.send(&publish(5, 2, "$share/group/t", 1, &[], b"x")).await;
    assert_eq!(client.receive().await, (PUBACK, vec![0, 1, 0x87]));
    client.subscribe(5, "t", 0).await;
    client.send(&publish(5, 0, "t", 0, &[1, 0xed], b"x")).await;
    assert_eq!(client.receive().await, (0x30, vec![0, 1, b't', 2, 1, 0xed, b'x']));
    let mut client = connected(&broker, connect(4, "b")).await;
    client.send(&publish(4, 2, "$share/group/t", 1, &[], b"x")).await;
    assert_eq!(client.receive().await, (PUBACK, vec![0, 1]));
    client.send(&PING).await;
    assert_eq!(client.receive().await.0, 0xd0);
}
