//! What the standard says of packets, statement by statement, where no other test does. Numbers in brackets are those of
//! the normative statements of MQTT 5, appendix B.

use super::rig::{
    self, Client, Connect, GOODBYE, OPEN, PING, PUBACK, PUBCOMP, PUBREC, PUBREL, ack, broker, connect,
    connected, counted, dial, packet, publish, subscribe_with, text,
};

/// What a client that breaks the protocol hears: the code in version 5, nothing but the close in version 3.
async fn is_ended(broker: &muster_broker::Broker, version: u8, octets: &[u8], code: u8) {
    let mut client = connected(broker, connect(version, "a")).await;
    client.send(octets).await;
    let heard = client.receive_or_end().await;
    let expected = (version == 5).then(|| (0xe0, vec![code, 0]));
    assert_eq!(heard, expected, "version {version}: {octets:02x?}");
    assert_eq!(client.receive_or_end().await, None, "version {version}: {octets:02x?}");
}

/// [MQTT-2.1.3-1], [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1].
#[tokio::test]
async fn reserved_flags_of_a_header_end_a_connection() {
    let broker = broker(OPEN);
    for first in [0x41_u8, 0x52, 0x60, 0x63, 0x6a, 0x78, 0x80, 0x83, 0xa0, 0xa6, 0xc1, 0xe1, 0xe8, 0xf1] {
        for version in [4, 5] {
            let properties: &[u8] = if version == 5 { &[0] } else { &[] };
            let body = match first >> 4 {
                8 => [&[0, 1][..], properties, &text("a"), &[0]].concat(),
                10 => [&[0, 1][..], properties, &text("a")].concat(),
                12..=15 => Vec::new(),
                _ => vec![0, 1],
            };
            is_ended(&broker, version, &packet(first, &body), 0x81).await;
        }
    }
    let mut client = dial(&broker, None);
    let mut connect = connect(5, "a").octets();
    connect[0] |= 1;
    client.send(&connect).await;
    client.is_closed().await;
}

/// [MQTT-1.5.4-1], [MQTT-1.5.4-2]: in every string of every packet.
#[tokio::test]
async fn strings_are_utf_8_without_nul_wherever_they_stand() {
    let broker = broker(OPEN);
    // A surrogate, "/" in two octets, beyond the last character, cut short, a lone continuation, and NUL.
    for wrong in [&b"\xed\xa0\x80"[..], b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80", b"a\0"] {
        let wrong = [&[0, u8::try_from(wrong.len()).expect("short")], wrong].concat();
        for version in [4, 5] {
            let properties: &[u8] = if version == 5 { &[0] } else { &[] };
            for octets in [
                packet(0x30, &[&wrong[..], properties].concat()),
                packet(0x82, &[&[0, 1][..], properties, &wrong, &[0]].concat()),
                packet(0xa2, &[&[0, 1][..], properties, &wrong].concat()),
            ] {
                is_ended(&broker, version, &octets, 0x81).await;
            }
            // Client id, topic of the will and user name.
            for (flags, before) in [(2, &[][..]), (6, &text("a")), (0x82, &text("a"))] {
                let will: &[u8] = if flags == 6 && version == 5 { &[0] } else { &[] };
                let head = [&text("MQTT")[..], &[version, flags, 0, 0], properties].concat();
                let mut client = dial(&broker, None);
                client.send(&packet(0x10, &[&head[..], before, will, &wrong, &[0, 0]].concat())).await;
                let expected = (version == 5).then(|| (0x20, vec![0, 0x81, 0]));
                assert_eq!(client.receive_or_end().await, expected, "{version} {flags:02x} {wrong:02x?}");
            }
        }
        for property in [3, 8, 0x26] {
            let value = [&[property][..], &wrong, if property == 0x26 { &[0, 0] } else { &[] }].concat();
            is_ended(&broker, 5, &publish(5, 0, "a", 0, &value, b""), 0x81).await;
        }
        let reason = counted(&[&[0x1f][..], &wrong].concat());
        is_ended(&broker, 5, &packet(PUBACK, &[&[0, 1, 0][..], &reason].concat()), 0x81).await;
        is_ended(&broker, 5, &packet(0xe0, &[&[0][..], &reason].concat()), 0x81).await;
    }
}

/// [MQTT-1.5.4-3]: U+FEFF is a character like others.
#[tokio::test]
async fn a_byte_order_mark_is_part_of_the_name() {
    let broker = broker(OPEN);
    let mut client = connected(&broker, connect(5, "\u{feff}a")).await;
    client.subscribe(5, "\u{feff}t", 0).await;
    for topic in ["t", "\u{feff}t"] {
        client.send(&publish(5, 0, topic, 0, &[], b"x")).await;
    }
    assert_eq!(client.receive().await.1, [text("\u{feff}t"), vec![0, b'x']].concat());
}

/// §2.2.2.2, §3.1.2.11, §3.1.3.2, §3.3.2.3, §3.8.2.1, §3.14.2.2.
#[tokio::test]
async fn a_property_stands_once_and_where_it_belongs() {
    let broker = broker(OPEN);
    let string = |property: u8| [&[property][..], &text("a")].concat();
    let of_connect = [
        vec![0x11, 0, 0, 0, 1],
        vec![0x21, 0, 1],
        vec![0x27, 0, 0, 1, 0],
        vec![0x22, 0, 1],
        vec![0x19, 1],
        vec![0x17, 1],
    ];
    let of_will = [vec![0x18, 0, 0, 0, 1], vec![1, 1], vec![2, 0, 0, 0, 1], string(3), string(8), string(9)];
    let of_publish = [vec![1, 1], vec![2, 0, 0, 0, 1], string(3), string(8), string(9), vec![0x23, 0, 1]];
    for one in &of_connect {
        assert_eq!(code(&broker, &connect(5, "a").property(one)).await, 0, "{one:02x?}");
        assert_eq!(code(&broker, &connect(5, "a").property(one).property(one)).await, 0x82, "{one:02x?}");
        is_ended(&broker, 5, &publish(5, 0, "t", 0, one, b""), 0x81).await;
    }
    for one in &of_will {
        let willing = |properties: &[u8]| connect(5, "a").will("w", b"", 0, properties);
        assert_eq!(code(&broker, &willing(one)).await, 0, "{one:02x?}");
        assert_eq!(code(&broker, &willing(&[&one[..], one].concat())).await, 0x82, "{one:02x?}");
        assert_eq!(code(&broker, &connect(5, "a").property(one)).await, 0x81, "{one:02x?}");
    }
    for one in &of_publish {
        is_ended(&broker, 5, &publish(5, 0, "t", 0, &[&one[..], one].concat(), b""), 0x82).await;
        is_ended(&broker, 5, &subscribe_with(5, 1, one, &[("t", 0)]), 0x81).await;
        is_ended(&broker, 5, &packet(0xe0, &[&[0][..], &counted(one)].concat()), 0x81).await;
    }
    let twice = [0x0b, 1, 0x0b, 2];
    is_ended(&broker, 5, &subscribe_with(5, 1, &twice, &[("t", 0)]), 0x81).await;
    let expiries = [0x11, 0, 0, 0, 0, 0x11, 0, 0, 0, 0];
    is_ended(&broker, 5, &packet(0xe0, &[&[0][..], &counted(&expiries)].concat()), 0x82).await;
    let reasons = counted(&[string(0x1f), string(0x1f)].concat());
    is_ended(&broker, 5, &packet(PUBREL, &[&[0, 1, 0][..], &reasons].concat()), 0x82).await;
    // §3.1.2.11.3, §3.1.2.11.4, §3.1.2.11.6, §3.1.2.11.7: values that are none.
    for one in [&[0x21, 0, 0][..], &[0x27, 0, 0, 0, 0], &[0x19, 2], &[0x17, 2], &string(0x16)] {
        assert_eq!(code(&broker, &connect(5, "a").property(one)).await, 0x82, "{one:02x?}");
    }
}

/// The code of a CONNACK.
async fn code(broker: &muster_broker::Broker, connect: &Connect) -> u8 {
    let mut client = dial(broker, None);
    client.send(&connect.octets()).await;
    let (first, body) = client.receive().await;
    assert_eq!(first, 0x20);
    body[1]
}

/// [MQTT-2.2.1-3] and following: an acknowledgement is of something; zero is no id.
#[tokio::test]
async fn packet_id_zero_is_none() {
    let broker = broker(OPEN);
    for version in [4, 5] {
        for first in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
            is_ended(&broker, version, &ack(first, 0), 0x82).await;
        }
        for flags in [2, 4] {
            is_ended(&broker, version, &publish(version, flags, "t", 0, &[], b""), 0x82).await;
        }
    }
}

/// MQTT 3.1.1 [MQTT-3.1.2-22], [MQTT-3.8.3-3], [MQTT-3-8.3-4], [MQTT-3.10.3-2], [MQTT-3.3.1-2], [MQTT-3.3.1-4],
/// [MQTT-3.3.2-2], [MQTT-4.7.1-2], [MQTT-4.7.1-3].
#[tokio::test]
async fn version_3_closes_for_what_breaks_it() {
    let broker = broker(OPEN);
    for octets in [
        packet(0x82, &[0, 1]),
        packet(0x82, &[&[0, 1][..], &text("a"), &[3]].concat()),
        packet(0x82, &[&[0, 1][..], &text("a"), &[4]].concat()),
        packet(0xa2, &[0, 1]),
        packet(0x38, &text("a")),
        packet(0x36, &[&text("a")[..], &[0, 1]].concat()),
        publish(4, 0, "a/+", 0, &[], b""),
        publish(4, 0, "", 0, &[], b""),
        rig::subscribe(4, 1, "a#", 0),
        rig::subscribe(4, 1, "a/#/b", 0),
        rig::subscribe(4, 1, "a+/b", 0),
        rig::subscribe(4, 1, "", 0),
        packet(0xc0, &[0]),
        packet(0xe0, &[0]),
        packet(0xf0, &[]),
    ] {
        is_ended(&broker, 4, &octets, 0).await;
    }
    let head = [&text("MQTT")[..], &[4, 0x42, 0, 0], &text("a"), &text("secret")].concat();
    let mut client = dial(&broker, None);
    client.send(&packet(0x10, &head)).await;
    client.is_closed().await;
}

/// [MQTT-3.1.2-21], [MQTT-3.1.2-22]: whose keep alive was set by the server is held to that one. Version 3 can't be told,
/// and keeps its own.
#[tokio::test(start_paused = true)]
async fn the_servers_keep_alive_is_the_one_that_counts() {
    let broker = broker(&format!("{OPEN}[quotas]\nkeep_alive_s = 10"));
    for (version, lasts_for) in [(4, 18), (5, 15)] {
        let mut long = connect(version, "a");
        long.keep_alive = 12;
        let mut client = connected(&broker, long).await;
        let began = tokio::time::Instant::now();
        while let Some(goodbye) = client.receive_or_end().await {
            assert_eq!(goodbye, (0xe0, vec![0x8d, 0]));
        }
        assert_eq!(began.elapsed().as_secs(), lasts_for, "{version}");
    }
}

/// [MQTT-3.1.4-3], [MQTT-3.2.2-2], [MQTT-3.2.2-3]: a session is present where it is, and nothing of it after a clean start.
#[tokio::test]
async fn a_clean_start_of_either_version_leaves_nothing_of_the_other() {
    let broker = broker(OPEN);
    for (first, second) in [(4, 5), (5, 4)] {
        let kept = |version| {
            let connect = connect(version, "a").unclean();
            if version == 5 { connect.expiry(1000) } else { connect }
        };
        let mut client = connected(&broker, kept(first)).await;
        client.subscribe(first, "t", 1).await;
        leave(client).await;
        assert!(present(&broker, &kept(second)).await, "{second} comes into the session of {first}");
        let clean = Connect { clean: true, ..kept(second) };
        assert!(!present(&broker, &clean).await);
        let mut client = dial(&broker, None);
        client.send(&kept(first).octets()).await;
        assert_eq!(client.receive().await.1[..2], [u8::from(second == 5), 0]);
        client.send(&publish(first, 0, "t", 0, &[], b"x")).await;
        client.send(&PING).await;
        assert_eq!(client.receive().await.0, 0xd0, "no subscription is left");
        leave(client).await;
        present(&broker, &connect(4, "a")).await;
    }
}

async fn leave(mut client: Client) {
    client.send(&GOODBYE).await;
    client.ended().await;
}

/// Whether the session was there; the client leaves at once.
async fn present(broker: &muster_broker::Broker, connect: &Connect) -> bool {
    let mut client = dial(broker, None);
    client.send(&connect.octets()).await;
    let (_, body) = client.receive().await;
    assert_eq!(body[1], 0);
    leave(client).await;
    body[0] == 1
}
