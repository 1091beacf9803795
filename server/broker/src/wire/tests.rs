//! The codec against a foreign one: mqtt-protocol-core writes, we read, and the other way round.

use mqtt_protocol_core::mqtt::packet::{MessageExpiryInterval, SubscriptionIdentifier, UserProperty};
use mqtt_protocol_core::mqtt::packet::{Property, Qos as TheirQos, SubEntry, SubOpts, v3_1_1, v5_0};

use super::acks::Ack;
use super::connect::{Connect, Granted};
use super::publish::{Outgoing, Publish};
use super::subscribe::{Options, Subscribe, write_suback};
use super::{Code, Frame, Packet, Qos, Version, kind};
use crate::stream::cut_frames;

fn frame(octets: &[u8]) -> Frame {
    let mut frames = cut_frames(octets, usize::MAX);
    assert_eq!(frames.len(), 1, "{octets:02x?}");
    frames.remove(0)
}

#[test]
fn their_connect_reads_as_it_was_meant() {
    let theirs = v5_0::Connect::builder()
        .client_id("meter")
        .expect("an id")
        .clean_start(true)
        .keep_alive(30)
        .user_name("user")
        .expect("a name")
        .password(b"secret")
        .expect("a password")
        .will_message("gone", b"bye", TheirQos::AtLeastOnce, true)
        .expect("a will")
        .build()
        .expect("a packet");
    let connect = Connect::parse(&frame(&theirs.to_continuous_buffer())).expect("read");
    let will = connect.will.as_ref().expect("a will");
    assert_eq!((connect.client_id.as_str(), connect.keep_alive_s, connect.clean_start), ("meter", 30, true));
    assert_eq!((will.topic.as_str(), will.qos, will.retain), ("gone", Qos::One, true));
    assert_eq!((connect.username.as_deref(), connect.has_password), (Some("user"), true));
    // And ours reads as the same for them.
    let mut octets = Vec::new();
    connect.write(&mut octets, Some("meter"), Some(b"token"));
    let (again, used) = v5_0::Connect::parse(&frame(&octets).body).expect("read");
    assert_eq!((again.client_id(), again.user_name(), again.keep_alive()), ("meter", Some("meter"), 30));
    assert_eq!((again.will_topic(), used), (Some("gone"), frame(&octets).body.len()));
}

#[test]
fn their_publish_reads_as_it_was_meant_and_ours_for_them() {
    let theirs = v5_0::Publish::builder()
        .topic_name("a/b")
        .expect("a topic")
        .qos(TheirQos::ExactlyOnce)
        .packet_id(7_u16)
        .props(vec![
            Property::MessageExpiryInterval(MessageExpiryInterval::new(9).expect("valid")),
            Property::UserProperty(UserProperty::new("k", "v").expect("valid")),
        ])
        .payload("hello")
        .build()
        .expect("a packet");
    let publish = Publish::parse(&frame(&theirs.to_continuous_buffer()), Version::V5).expect("read");
    assert_eq!((publish.topic.as_str(), publish.packet_id, publish.expiry_s), ("a/b", 7, Some(9)));
    let mut octets = Vec::new();
    let outgoing = Outgoing {
        dup: true,
        qos: Qos::One,
        retain: true,
        topic: "a/b",
        packet_id: 300,
        alias: Some(4),
        expiry_s: Some(8),
        subscription_ids: &[1, 268_435_455],
        forward: &publish.forward,
        payload: &publish.payload,
    };
    outgoing.write(&mut octets, Version::V5);
    let ours = frame(&octets);
    let (read, _) = v5_0::Publish::parse(ours.flags(), ours.body.as_ref().into()).expect("read");
    assert_eq!(
        (read.topic_name(), read.packet_id(), read.dup(), read.retain()),
        ("a/b", Some(300), true, true)
    );
    assert_eq!(read.payload().as_slice(), b"hello");
    assert_eq!(read.props().len(), 5);
    assert!(octets.len() <= outgoing.size_bound());
    let mut octets = Vec::new();
    outgoing.write(&mut octets, Version::V311);
    let ours = frame(&octets);
    let (read, _) = v3_1_1::Publish::parse(ours.flags(), ours.body.as_ref().into()).expect("read");
    assert_eq!((read.topic_name(), read.payload().as_slice()), ("a/b", &b"hello"[..]));
}

#[test]
fn their_subscribe_reads_as_it_was_meant_and_our_answers_for_them() {
    let options = SubOpts::from_u8(0x2d).expect("valid");
    let theirs = v5_0::Subscribe::builder()
        .packet_id(5)
        .entries(vec![SubEntry::new("$share/g/a/#", options).expect("valid")])
        .props(vec![Property::SubscriptionIdentifier(SubscriptionIdentifier::new(200).expect("valid"))])
        .build()
        .expect("a packet");
    let Ok(Packet::Subscribe(subscribe)) = Packet::parse(&frame(&theirs.to_continuous_buffer()), Version::V5)
    else {
        panic!("not a SUBSCRIBE");
    };
    assert_eq!((subscribe.packet_id, subscribe.subscription_id), (5, Some(200)));
    let expected = Options::from_octet(0x2d).expect("valid");
    assert_eq!(subscribe.filters, [("$share/g/a/#".to_owned(), expected)]);
    let mut octets = Vec::new();
    Subscribe { packet_id: 5, subscription_id: Some(200), filters: subscribe.filters }
        .write(&mut octets, Version::V5);
    assert_eq!(octets, theirs.to_continuous_buffer());
    let mut octets = Vec::new();
    write_suback(&mut octets, Version::V5, 5, &[Code(2), Code::NOT_AUTHORIZED]);
    let (suback, _) = v5_0::Suback::parse(&frame(&octets).body).expect("read");
    assert_eq!(suback.reason_codes().len(), 2);
    for (kind, code) in [(kind::PUBACK, Code::NOT_AUTHORIZED), (kind::PUBACK, Code::SUCCESS)] {
        let mut octets = Vec::new();
        Ack { kind, packet_id: 9, code }.write(&mut octets, Version::V5);
        let (puback, _) = v5_0::Puback::parse(&frame(&octets).body).expect("read");
        assert_eq!(puback.packet_id(), 9);
    }
}

#[test]
fn our_connack_reads_for_them() {
    let granted = Granted {
        session_present: true,
        session_expiry_s: Some(60),
        receive_maximum: 32,
        maximum_packet_size: 262_144,
        topic_alias_maximum: 16,
        assigned_client_id: Some("meter/auto-1".to_owned()),
        server_keep_alive_s: Some(60),
        max_qos: Some(1),
        has_no_retained: true,
        has_no_shared: false,
    };
    let mut octets = Vec::new();
    granted.write(&mut octets, Version::V5);
    let (connack, _) = v5_0::Connack::parse(&frame(&octets).body).expect("read");
    assert!(connack.session_present());
    assert_eq!(connack.props().len(), 8);
    let mut octets = Vec::new();
    granted.write(&mut octets, Version::V311);
    assert_eq!(octets, [0x20, 2, 1, 0]);
}

#[test]
fn lengths_of_every_size_frame_their_packet() {
    for length in [0, 1, 121, 122, 123, 16_376, 16_377, 16_378, 2_097_145, 2_097_146] {
        let payload = vec![b'x'; length];
        let outgoing = Outgoing {
            dup: false,
            qos: Qos::Zero,
            retain: false,
            topic: "a/b",
            packet_id: 0,
            alias: None,
            expiry_s: None,
            subscription_ids: &[],
            forward: &[],
            payload: &payload,
        };
        let mut octets = Vec::new();
        outgoing.write(&mut octets, Version::V311);
        assert_eq!(frame(&octets).body.len(), length + 5);
        assert!(octets.len() <= outgoing.size_bound());
    }
}
