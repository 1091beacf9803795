//! The engine `upstream` before brokers that do not behave. Those that do are in the interop tests.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a step that fails is a failed test")]

mod rig;

use std::sync::Arc;

use muster_broker::{Cut, Ended};
use muster_policy::mqtt::{Asked, Judge};
use muster_policy::reason::Reason;
use rig::{PUBREL, ack, broker, connect, holder, packet, publish, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, timeout};

/// A broker before another one, which is the test.
async fn before(more: &str) -> (muster_broker::Broker, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let config = format!("engine = 'upstream'\nupstream = {{ tcp = '{address}' }}\n{more}");
    (broker(&config), listener)
}

/// Rules of a zone against one topic.
#[derive(Debug)]
struct NoSecret;

impl Judge for NoSecret {
    fn judge(&self, asked: &Asked<'_>) -> Result<(), Reason> {
        if asked.message().topic == "devices/meter/secret" { Err(Reason::RuleBlocked) } else { Ok(()) }
    }
}

/// A device, and its connection to the other broker, which has read its CONNECT.
async fn device(broker: &muster_broker::Broker, listener: &TcpListener) -> (rig::Client, TcpStream) {
    device_with(broker, listener, &connect(5, "meter").octets()).await
}

async fn device_with(
    broker: &muster_broker::Broker,
    listener: &TcpListener,
    connect: &[u8],
) -> (rig::Client, TcpStream) {
    let (stream, theirs) = tokio::io::duplex(16 * 1024);
    let (cutter, cut) = Cut::new();
    let mut peer = rig::peer(Some(holder("meter", &[])), 1, cut);
    peer.judge = Arc::new(NoSecret);
    let broker = broker.clone();
    let served = tokio::spawn(async move { broker.serve(theirs, peer).await });
    let mut client = rig::Client { stream, served, cutter: Some(cutter) };
    client.send(connect).await;
    let (mut other, _) = listener.accept().await.expect("a connection");
    let mut first = [0; 2];
    other.read_exact(&mut first).await.expect("a CONNECT");
    other.read_exact(&mut vec![0; usize::from(first[1])]).await.expect("all of it");
    (client, other)
}

#[tokio::test]
async fn a_broker_that_does_not_answer_connect_is_given_up() {
    let (broker, listener) = before("quotas = { connect_timeout_s = 1 }").await;
    let (mut client, mut other) = device(&broker, &listener).await;
    assert_eq!(client.receive().await, (0x20, vec![0, 0x88, 0]));
    client.is_closed().await;
    assert_eq!(client.ended().await, Ended::Upstream);
    assert_eq!(other.read(&mut [0]).await.expect("an end"), 0);
}

#[tokio::test]
async fn a_device_that_is_cut_hears_so_whatever_the_other_broker_does() {
    let (broker, listener) = before("").await;
    let (mut client, mut other) = device(&broker, &listener).await;
    other.write_all(&[0x20, 3, 0, 0, 0]).await.expect("sent");
    assert_eq!(client.receive().await.0, 0x20);
    client.cutter.take().expect("there").cut(muster_broker::CutReason::Denied);
    // The other broker neither reads nor closes.
    timeout(Duration::from_millis(500), client.is_disconnected(0x98)).await.expect("at once");
    let mut goodbye = [0; 3];
    other.read_exact(&mut goodbye).await.expect("a DISCONNECT");
    assert_eq!(goodbye[0], 0xe0);
}

#[tokio::test]
async fn what_the_device_may_not_read_does_not_reach_it() {
    let (broker, listener) = before("").await;
    let (mut client, mut other) = device(&broker, &listener).await;
    other.write_all(&[0x20, 3, 0, 0, 0]).await.expect("sent");
    assert_eq!(client.receive().await.0, 0x20);
    // By its topics, and by the rules of the zone.
    for topic in ["devices/other/x", "devices/meter/secret", "devices/meter/x"] {
        other.write_all(&publish(5, 2, topic, 7, &[], b"x")).await.expect("sent");
    }
    assert!(client.receive().await.1.starts_with(b"\0\x0fdevices/meter/x"));
    // The others were answered in the device's place.
    for _ in 0..2 {
        let mut answer = [0; 5];
        other.read_exact(&mut answer).await.expect("a PUBACK");
        assert_eq!(answer, [0x40, 3, 0, 7, 0x87]);
    }
}

#[tokio::test]
async fn the_lower_limits_are_announced() {
    let (broker, listener) = before("quotas = { max_qos = 1, retained = 0 }").await;
    for (theirs, qos) in [(&[][..], 1), (&[0x24, 0], 0), (&[0x24, 1, 0x25, 0], 1), (&[0x25, 1], 1)] {
        let (mut client, mut other) = device(&broker, &listener).await;
        let length = u8::try_from(theirs.len()).expect("short");
        other.write_all(&packet(0x20, &[&[0, 0, length], theirs].concat())).await.expect("sent");
        let expected = [0, 0, 12, 0x27, 0, 4, 0, 0, 0x22, 0, 0, 0x24, qos, 0x25, 0];
        assert_eq!(client.receive().await, (0x20, expected.to_vec()));
    }
}

#[tokio::test]
async fn a_client_of_version_3_1_is_one_of_3_1_1_to_the_other_broker() {
    let (broker, listener) = before("").await;
    let octets = packet(0x10, &[text("MQIsdp"), vec![3, 0, 0, 0], text("meter")].concat());
    let (mut client, mut other) = device_with(&broker, &listener, &octets).await;
    other.write_all(&[0x20, 2, 1, 0]).await.expect("sent");
    assert_eq!(client.receive().await, (0x20, vec![0, 0]));
    // The mark of a request that is sent again.
    client.send(&ack(PUBREL | 8, 9)).await;
    let mut request = [0; 4];
    other.read_exact(&mut request).await.expect("a PUBREL");
    assert_eq!(request, [PUBREL, 2, 0, 9]);
}
