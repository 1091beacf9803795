//! What is remembered, what is said again, and what is given up.

use super::super::packet::PacketReader;
use super::*;

const CONNECT_CLEAN: &[u8] = &[0x10, 0x0d, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'c'];
const CONNECT_KEPT: &[u8] = &[0x10, 0x0d, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 60, 0, 1, b'c'];
const SUBSCRIBE: &[u8] = &[0x82, 0x06, 0, 7, 0, 1, b'f', 1];
const SUBACK: &[u8] = &[0x90, 0x03, 0, 7, 1];

fn packet(bytes: &[u8]) -> Packet {
    let mut reader = PacketReader::new();
    reader.buffer().extend_from_slice(bytes);
    reader.next_packet().unwrap().unwrap()
}

fn session(connect: &[u8]) -> Session {
    Session::new(Opening::read(&packet(connect)).unwrap())
}

fn publish(qos: u8, id: u16) -> Packet {
    let [high, low] = id.to_be_bytes();
    packet(&[0x30 | (qos << 1), 0x07, 0, 1, b't', high, low, b'h', b'i'])
}

fn ack(kind: u8, id: u16) -> Packet {
    let [high, low] = id.to_be_bytes();
    packet(&[kind, 0x02, high, low])
}

fn welcome(session_present: bool) -> Welcome {
    Welcome { session_present, code: 0, assigned: None, for_client: bytes::Bytes::new() }
}

fn kinds(mut bytes: BytesMut) -> Vec<(Kind, Option<u16>)> {
    let mut reader = PacketReader::new();
    std::mem::swap(reader.buffer(), &mut bytes);
    std::iter::from_fn(|| reader.next_packet().unwrap())
        .map(|packet| (packet.kind(), (packet.kind() != Kind::Connect).then(|| packet.id().unwrap())))
        .collect()
}

#[test]
fn an_unacknowledged_message_is_sent_again_in_order_and_marked() {
    let mut session = session(CONNECT_KEPT);
    for id in [3, 1, 2] {
        assert_eq!(session.handle_client(&publish(1, id)), Ok(Pass::On));
    }
    session.handle_upstream(&ack(0x40, 1)).unwrap();
    assert!(!session.is_quiet());
    let mut out = BytesMut::new();
    session.write_rest(&welcome(true), &mut out).unwrap();
    assert_eq!(out.first(), Some(&0x3a), "QoS 1 with DUP");
    assert_eq!(kinds(out), [(Kind::Publish, Some(3)), (Kind::Publish, Some(2))]);
}

#[test]
fn an_exactly_once_exchange_goes_on_where_it_stood_when_the_session_is_kept() {
    let mut session = session(CONNECT_KEPT);
    session.handle_client(&publish(2, 5)).unwrap();
    session.handle_upstream(&ack(0x50, 5)).unwrap();
    session.handle_client(&ack(0x62, 5)).unwrap();
    let mut out = BytesMut::new();
    session.write_rest(&welcome(true), &mut out).unwrap();
    assert_eq!(kinds(out), [(Kind::Pubrel, Some(5))]);
    assert_eq!(session.write_rest(&welcome(false), &mut BytesMut::new()), Err(Uncarriable::ExactlyOnce));
    session.handle_upstream(&ack(0x70, 5)).unwrap();
    assert!(session.is_quiet());
}

#[test]
fn a_clean_session_is_subscribed_again_with_its_takeover_and_the_answer_is_swallowed() {
    let mut session = session(CONNECT_CLEAN);
    session.handle_client(&packet(SUBSCRIBE)).unwrap();
    assert_eq!(session.handle_upstream(&packet(SUBACK)), Ok(Pass::On));
    assert!(session.is_quiet());
    let mut out = BytesMut::new();
    session.write_takeover(&mut out);
    assert_eq!(kinds(out), [(Kind::Connect, None), (Kind::Subscribe, Some(u16::MAX))]);
    assert!(!session.is_resubscribed());
    assert_eq!(session.handle_upstream(&packet(&[0x90, 0x03, 0xff, 0xff, 1])), Ok(Pass::Swallow));
    assert!(session.is_resubscribed() && session.uncarriable().is_none());
}

#[test]
fn a_kept_session_is_subscribed_again_only_when_the_broker_lost_it() {
    let mut session = session(CONNECT_KEPT);
    session.handle_client(&packet(SUBSCRIBE)).unwrap();
    session.handle_upstream(&packet(SUBACK)).unwrap();
    let mut out = BytesMut::new();
    session.write_takeover(&mut out);
    assert_eq!(kinds(out), [(Kind::Connect, None)]);
    let mut out = BytesMut::new();
    session.write_rest(&welcome(true), &mut out).unwrap();
    assert!(out.is_empty());
    session.write_rest(&welcome(false), &mut out).unwrap();
    assert_eq!(kinds(out), [(Kind::Subscribe, Some(u16::MAX))]);
}

#[test]
fn a_refused_or_ended_subscription_is_not_made_again() {
    let mut session = session(CONNECT_CLEAN);
    session.handle_client(&packet(SUBSCRIBE)).unwrap();
    session.handle_upstream(&packet(&[0x90, 0x03, 0, 7, 0x80])).unwrap();
    session.handle_client(&packet(&[0x82, 0x06, 0, 8, 0, 1, b'g', 1])).unwrap();
    session.handle_upstream(&packet(&[0x90, 0x03, 0, 8, 1])).unwrap();
    session.handle_client(&packet(&[0xa2, 0x05, 0, 9, 0, 1, b'g'])).unwrap();
    session.handle_upstream(&packet(&[0xb0, 0x02, 0, 9])).unwrap();
    let mut out = BytesMut::new();
    session.write_takeover(&mut out);
    assert_eq!(kinds(out), [(Kind::Connect, None)]);
}

#[test]
fn a_subscription_that_is_refused_now_ends_the_carrying() {
    let mut session = session(CONNECT_CLEAN);
    session.handle_client(&packet(SUBSCRIBE)).unwrap();
    session.handle_upstream(&packet(SUBACK)).unwrap();
    session.write_takeover(&mut BytesMut::new());
    session.handle_upstream(&packet(&[0x90, 0x03, 0xff, 0xff, 0x80])).unwrap();
    assert_eq!(session.uncarriable(), Some(Uncarriable::Subscription));
}

#[test]
fn a_message_that_the_client_has_is_not_given_to_it_twice() {
    let mut session = session(CONNECT_KEPT);
    assert_eq!(session.handle_upstream(&publish(1, 4)), Ok(Pass::On));
    session.write_rest(&welcome(true), &mut BytesMut::new()).unwrap();
    let again = packet(&[0x3a, 0x07, 0, 1, b't', 0, 4, b'h', b'i']);
    assert_eq!(session.handle_upstream(&again), Ok(Pass::Swallow));
    assert_eq!(session.handle_client(&ack(0x40, 4)), Ok(Pass::On));
    assert_eq!(session.handle_upstream(&publish(1, 4)), Ok(Pass::On), "a new message with the same number");
}

#[test]
fn an_acknowledgement_for_a_lost_session_does_not_reach_the_new_one() {
    let mut session = session(CONNECT_CLEAN);
    session.handle_upstream(&publish(1, 1)).unwrap();
    session.write_rest(&welcome(false), &mut BytesMut::new()).unwrap();
    session.handle_upstream(&publish(1, 1)).unwrap();
    assert_eq!(session.handle_client(&ack(0x40, 1)), Ok(Pass::Swallow));
    assert_eq!(session.handle_client(&ack(0x40, 1)), Ok(Pass::On));
}

#[test]
fn beyond_a_bound_nothing_is_kept_and_traffic_goes_on() {
    let mut session = session(CONNECT_KEPT);
    for id in 1..=u16::try_from(EXCHANGES_MAX).unwrap() + 1 {
        assert_eq!(session.handle_client(&publish(1, id)), Ok(Pass::On));
    }
    assert_eq!(session.uncarriable(), Some(Uncarriable::TooMuch));
    assert!(session.is_quiet() && session.kept_bytes == 0);
    assert_eq!(session.handle_client(&publish(1, 9)), Ok(Pass::On));
    assert!(session.outgoing.is_empty());
}

#[test]
fn bytes_and_filters_are_bounded_too() {
    let big = {
        let mut bytes = vec![0x32, 0x85, 0x80, 0x0c, 0, 1, b't', 0, 1];
        bytes.resize(4 + 0x30005, 0);
        bytes
    };
    let mut session_of_bytes = session(CONNECT_KEPT);
    for id in 1..=6_u8 {
        let mut bytes = big.clone();
        bytes[8] = id;
        session_of_bytes.handle_client(&packet(&bytes)).unwrap();
    }
    assert_eq!(session_of_bytes.uncarriable(), Some(Uncarriable::TooMuch));
    let mut session_of_filters = session(CONNECT_KEPT);
    let filters: Vec<u8> = (0..=SUBSCRIPTIONS_MAX).flat_map(|_| [0, 1, b'f', 0]).collect();
    let length = filters.len() + 2;
    let header =
        [0x82, u8::try_from(length % 128).unwrap() | 0x80, u8::try_from(length / 128).unwrap(), 0, 1];
    session_of_filters.handle_client(&packet(&[&header[..], &filters].concat())).unwrap();
    assert_eq!(session_of_filters.uncarriable(), Some(Uncarriable::TooMuch));
}

#[test]
fn a_ping_whose_answer_was_lost_is_answered() {
    let mut session = session(CONNECT_KEPT);
    session.handle_client(&packet(&[0xc0, 0])).unwrap();
    assert!(!session.is_quiet());
    let mut out = BytesMut::new();
    session.write_lost_pings(&mut out);
    assert_eq!(out.as_ref(), [0xd0, 0]);
    assert!(session.is_quiet());
}

#[test]
fn packets_of_the_other_side_are_faults() {
    let mut session = session(CONNECT_KEPT);
    assert_eq!(session.handle_client(&packet(SUBACK)), Err(PacketFault::Malformed));
    assert_eq!(session.handle_client(&packet(CONNECT_KEPT)), Err(PacketFault::Malformed));
    assert_eq!(session.handle_upstream(&packet(SUBSCRIBE)), Err(PacketFault::Malformed));
}
