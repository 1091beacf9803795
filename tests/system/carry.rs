//! The agent's carrying half against servers that demand certificates: what local programs see.
//!
//! Strangers (mosquitto, curl, paho) are in `interop/carry.rs`; here are the cases that need a server which
//! the test holds in its hand: refusals, silence, lost sessions, limits.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use muster_agent::carry::mqtt::packet::{Kind, Packet, PacketReader};
use muster_agent::carry::{Mode, RelayWritten, TelemetryWritten};
use muster_agent::identity::{Held, Verdict};
use muster_tests::carrying::{Carrying, relay, within};
use muster_tests::fleet::{Broker, Fleet};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const HOUR: Duration = Duration::from_secs(3600);

/// One HTTP exchange on a connection of its own.
async fn ask(address: SocketAddr, method: &str, path: &str, host: &str, body: Bytes) -> (StatusCode, String) {
    let socket = TcpStream::connect(address).await.expect("the relay listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.expect("HTTP");
    let connection = tokio::spawn(connection);
    let request =
        Request::builder().method(method).uri(path).header("host", host).header("connection", "close");
    let request = request.body(Full::<Bytes>::from(body)).expect("a request");
    let response = within(sender.send_request(request)).await.expect("an answer");
    let status = response.status();
    let body = within(response.into_body().collect()).await.expect("a body").to_bytes();
    connection.abort();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn who(address: SocketAddr) -> (StatusCode, String) {
    ask(address, "GET", "/who", "localhost", Bytes::new()).await
}

/// Read packets from a stream.
struct Packets(PacketReader);

impl Packets {
    fn new() -> Self {
        Self(PacketReader::new())
    }

    async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Option<Packet> {
        loop {
            if let Some(packet) = self.0.next_packet().expect("packets") {
                return Some(packet);
            }
            if within(stream.read_buf(self.0.buffer())).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn expect(&mut self, stream: &mut (impl AsyncRead + Unpin), kind: Kind) -> Packet {
        let packet = self.next(stream).await.expect("a packet");
        assert_eq!(packet.kind(), kind);
        packet
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    within(stream.write_all(bytes)).await.expect("sent");
    within(stream.flush()).await.expect("sent");
}

/// CONNECT of 3.1.1 with client id `c`.
const CONNECT_CLEAN: &[u8] = &[0x10, 0x0d, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'c'];
const CONNECT_KEPT: &[u8] = &[0x10, 0x0d, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 60, 0, 1, b'c'];
const CONNACK: &[u8] = &[0x20, 2, 0, 0];
const CONNACK_PRESENT: &[u8] = &[0x20, 2, 1, 0];

/// A session that the broker keeps, with both its ends.
async fn kept(
    carrying: &Carrying,
    broker: &Broker,
) -> (TcpStream, Packets, impl AsyncRead + AsyncWrite + Unpin + use<>, Packets) {
    let mut client = TcpStream::connect(carrying.addresses[0]).await.expect("listens");
    send(&mut client, CONNECT_KEPT).await;
    let ((mut up, _), mut at_broker, mut at_client) =
        (within(broker.accept()).await, Packets::new(), Packets::new());
    at_broker.expect(&mut up, Kind::Connect).await;
    send(&mut up, CONNACK).await;
    at_client.expect(&mut client, Kind::Connack).await;
    (client, at_client, up, at_broker)
}

fn publish(first: u8, id: u8) -> [u8; 9] {
    [first, 0x07, 0, 1, b't', 0, id, b'h', b'i']
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_follow_the_newest_identity_and_none_is_lost() {
    let fleet = Fleet::new();
    let origin = fleet.origin().await;
    let carrying = Carrying::start(&[relay(Mode::Http, origin.address)], None).await;
    for generation in 1..=20 {
        carrying.hold(fleet.using(generation));
        for _ in 0..3 {
            let (status, body) = who(carrying.addresses[0]).await;
            assert_eq!((status, body), (StatusCode::OK, format!("generation {generation}\n")));
        }
    }
    let status = carrying.health.status();
    assert_eq!((status.relays[0].accepted, status.relays[0].remade), (60, 19));
    assert_eq!(status.relays[0].last_error, None);
    carrying.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_identity_each_protocol_is_answered_in_its_words() {
    let fleet = Fleet::new();
    let origin = fleet.origin().await;
    let relays = [Mode::Http, Mode::Mqtt, Mode::Tcp].map(|mode| relay(mode, origin.address));
    let carrying = Carrying::start(&relays, None).await;
    for held in [Held::default(), Held { in_use: Some(fleet.identity(1, Duration::ZERO)), candidate: None }] {
        carrying.hold(held);
        let (status, body) = who(carrying.addresses[0]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("no certificate yet"), "{body}");
        let mut client = TcpStream::connect(carrying.addresses[1]).await.expect("listens");
        send(&mut client, CONNECT_CLEAN).await;
        let refused = Packets::new().expect(&mut client, Kind::Connack).await;
        assert_eq!(refused.body(), [0, 3], "server unavailable");
        let mut client = TcpStream::connect(carrying.addresses[2]).await.expect("listens");
        assert_eq!(within(client.read(&mut [0])).await.expect("closed in order"), 0);
    }
    assert!(origin.asked.lock().expect("no panic").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_away_is_told_and_left_alone_for_a_while() {
    let fleet = Fleet::new();
    let gone = fleet.broker().await.address;
    let carrying = Carrying::start(&[relay(Mode::Http, gone), relay(Mode::Mqtt, gone)], None).await;
    carrying.hold(fleet.using(1));
    let (status, body) = who(carrying.addresses[0]).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{body}");
    assert!(body.contains("can't be reached"), "{body}");
    let (status, body) = who(carrying.addresses[0]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains("tried again in"), "{body}");
    let mut client = TcpStream::connect(carrying.addresses[1]).await.expect("listens");
    send(&mut client, CONNECT_CLEAN).await;
    assert_eq!(Packets::new().expect(&mut client, Kind::Connack).await.body(), [0, 3]);
    assert!(carrying.health.status().relays[1].last_error.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_switched_protocols_pass_and_foreign_hosts_do_not() {
    let fleet = Fleet::new();
    let origin = fleet.origin().await;
    let carrying = Carrying::start(&[relay(Mode::Http, origin.address)], None).await;
    carrying.hold(fleet.using(1));
    let address = carrying.addresses[0];
    let big = "x".repeat(3_000_000);
    let (status, body) = ask(address, "POST", "/echo?q=1", "127.0.0.1:1", Bytes::from(big.clone())).await;
    assert!(status == StatusCode::OK && body == big);
    let (status, body) = ask(address, "GET", "/", "evil.example", Bytes::new()).await;
    assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "{body}");
    let (status, _) = ask(address, "CONNECT", "other.example:443", "localhost", Bytes::new()).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let mut client = TcpStream::connect(address).await.expect("listens");
    send(&mut client, b"GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(client.read_u8()).await.expect("a head"));
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: echo"), "{head}");
    send(&mut client, b"ping").await;
    let mut echo = [0; 4];
    within(client.read_exact(&mut echo)).await.expect("an echo");
    assert_eq!(&echo, b"ping");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_keep_their_identity_until_it_ends_and_new_ones_use_the_new() {
    let fleet = Fleet::new();
    let broker = fleet.broker().await;
    let carrying = Carrying::start(&[relay(Mode::Tcp, broker.address)], None).await;
    let short = fleet.identity(1, Duration::from_secs(3));
    carrying.hold(Held { in_use: Some(short), candidate: None });
    let mut first = TcpStream::connect(carrying.addresses[0]).await.expect("listens");
    let (mut first_up, generation) = within(broker.accept()).await;
    assert_eq!(generation, 1);
    carrying.hold(fleet.using(2));
    let mut second = TcpStream::connect(carrying.addresses[0]).await.expect("listens");
    let (mut second_up, generation) = within(broker.accept()).await;
    assert_eq!(generation, 2);
    send(&mut first, b"one").await;
    let mut three = [0; 3];
    within(first_up.read_exact(&mut three)).await.expect("bytes");
    assert_eq!(&three, b"one");
    // Half-close: the other direction goes on.
    second.shutdown().await.expect("half-closed");
    assert_eq!(within(second_up.read(&mut three)).await.expect("an end"), 0);
    send(&mut second_up, b"two").await;
    within(second.read_exact(&mut three)).await.expect("bytes");
    assert_eq!(&three, b"two");
    // The first certificate ends, and its connection with it.
    assert_eq!(within(first.read(&mut three)).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_turned_away() {
    let fleet = Fleet::new();
    let broker = fleet.broker().await;
    let one = |mode| RelayWritten { max_connections: Some(1), ..relay(mode, broker.address) };
    let carrying = Carrying::start(&[one(Mode::Tcp), one(Mode::Http)], None).await;
    carrying.hold(fleet.using(1));
    let _first = TcpStream::connect(carrying.addresses[0]).await.expect("listens");
    let (_up, _) = within(broker.accept()).await;
    let mut second = TcpStream::connect(carrying.addresses[0]).await.expect("listens");
    assert_eq!(within(second.read(&mut [0])).await.unwrap_or(0), 0);
    let idle = TcpStream::connect(carrying.addresses[1]).await.expect("listens");
    let mut second = TcpStream::connect(carrying.addresses[1]).await.expect("listens");
    let mut answer = String::new();
    let _ = within(second.read_to_string(&mut answer)).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(carrying.health.status().relays[0].turned_away, 1);
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_is_refused_leaves_the_old_in_use_and_a_good_one_is_accepted() {
    let fleet = Fleet::new();
    let origin = fleet.origin().await;
    for mode in [Mode::Http, Mode::Tcp] {
        let mut carrying = Carrying::start(&[relay(mode, origin.address)], None).await;
        origin.guard.refuse(7);
        let old = fleet.identity(1, HOUR);
        let bad = fleet.identity(7, HOUR);
        carrying.hold(Held { in_use: Some(old.clone()), candidate: Some(bad.clone()) });
        match carrying.verdict().await {
            Verdict::Refused { identity, why } => {
                assert!(identity.is_same(&bad) && why.contains("revoked"), "{why}")
            }
            other => panic!("{other:?}"),
        }
        if mode == Mode::Http {
            assert_eq!(who(carrying.addresses[0]).await.1, "generation 1\n");
        }
        // The device core counts from the one in use: the next one has the number of the one that was refused.
        origin.guard.take(7);
        let good = fleet.identity(7, HOUR);
        carrying.hold(Held { in_use: Some(old), candidate: Some(good.clone()) });
        let verdict = carrying.verdict().await;
        assert!(matches!(&verdict, Verdict::Accepted { identity } if identity.is_same(&good)), "{verdict:?}");
    }
    let mut nowhere = Carrying::start(&[], None).await;
    nowhere.hold(Held { in_use: None, candidate: Some(fleet.identity(9, HOUR)) });
    assert!(matches!(nowhere.verdict().await, Verdict::Accepted { identity } if identity.generation == 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_in_use_is_told_in_words() {
    let fleet = Fleet::new();
    let origin = fleet.origin().await;
    origin.guard.refuse(1);
    let carrying =
        Carrying::start(&[relay(Mode::Http, origin.address), relay(Mode::Mqtt, origin.address)], None).await;
    carrying.hold(fleet.using(1));
    let (status, _) = who(carrying.addresses[0]).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let mut client = TcpStream::connect(carrying.addresses[1]).await.expect("listens");
    send(&mut client, CONNECT_CLEAN).await;
    assert_eq!(Packets::new().expect(&mut client, Kind::Connack).await.body(), [0, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_whose_connect_the_broker_refuses_is_refused_in_those_words() {
    let fleet = Fleet::new();
    let broker = fleet.broker().await;
    let telemetry = TelemetryWritten {
        broker: format!("mqtts://localhost:{}", broker.address.port()),
        server_name: None,
        ca: None,
        alpn: Vec::new(),
        prefix: None,
        client_suffix: String::new(),
        interval_s: None,
        commands: false,
    };
    let mut carrying = Carrying::start(&[], Some(&telemetry)).await;
    for _ in 0..5 {
        carrying.hold(Held { in_use: None, candidate: Some(fleet.identity(1, HOUR)) });
        let (mut up, _) = within(broker.accept()).await;
        Packets::new().expect(&mut up, Kind::Connect).await;
        send(&mut up, &[0x20, 2, 0, 5]).await;
        drop(up);
        match carrying.verdict().await {
            Verdict::Refused { why, .. } => assert!(why.contains("NotAuthorized"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_the_broker_keeps_moves_with_what_was_not_acknowledged() {
    let fleet = Fleet::new();
    let broker = fleet.broker().await;
    let carrying = Carrying::start(&[relay(Mode::Mqtt, broker.address)], None).await;
    carrying.hold(fleet.using(1));
    let (mut client, mut at_client, mut up, mut at_broker) = kept(&carrying, &broker).await;
    send(&mut client, &publish(0x32, 1)).await;
    at_broker.expect(&mut up, Kind::Publish).await;
    // No PUBACK: the exchange is under way when the identity changes.
    carrying.hold(fleet.using(2));
    let (mut next, generation) = within(broker.accept()).await;
    assert_eq!(generation, 2);
    at_broker.expect(&mut up, Kind::Disconnect).await;
    // What the broker had still sent reaches the client.
    send(&mut up, &publish(0x30, 9)).await;
    drop(up);
    let mut at_broker = Packets::new();
    let connect = at_broker.expect(&mut next, Kind::Connect).await;
    assert_eq!(connect.body(), &CONNECT_KEPT[2..], "the client's own words");
    send(&mut next, CONNACK_PRESENT).await;
    let again = at_broker.expect(&mut next, Kind::Publish).await;
    assert!(again.is_again());
    assert_eq!(again.id(), Ok(1));
    send(&mut next, &[0x40, 2, 0, 1]).await;
    at_client.expect(&mut client, Kind::Publish).await;
    assert_eq!(at_client.expect(&mut client, Kind::Puback).await.id(), Ok(1));
    assert_eq!(carrying.health.status().relays[0].remade, 1);
}

/// What comes in one piece with the broker's CONNACK is not left lying until something else comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_right_behind_the_takeover_reaches_the_client_at_once() {
    let fleet = Fleet::new();
    let broker = fleet.broker().await;
    let carrying = Carrying::start(&[relay(Mode::Mqtt, broker.address)], None).await;
    carrying.hold(fleet.using(1));
    let (mut client, mut at_client, mut up, mut at_broker) = kept(&carrying, &broker).await;
    carrying.hold(fleet.using(2));
    let (mut next, _) = within(broker.accept()).await;
    at_broker.expect(&mut up, Kind::Disconnect).await;
    drop(up);
    Packets::new().expect(&mut next, Kind::Connect).await;
    send(&mut next, &[CONNACK_PRESENT, &publish(0x32, 9)].concat()).await;
    assert_eq!(at_client.expect(&mut client, Kind::Publish).await.id(), Ok(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_broker_lost_in_an_exactly_once_exchange_ends_in_order() {
    let fleet = Fleet::new();
    let broker = fleet.broker().await;
    let carrying = Carrying::start(&[relay(Mode::Mqtt, broker.address)], None).await;
    carrying.hold(fleet.using(1));
    let mut client = TcpStream::connect(carrying.addresses[0]).await.expect("listens");
    // The same in MQTT 5.0, where the end has words.
    send(&mut client, &[0x10, 0x0e, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 1, b'c']).await;
    let ((mut up, _), mut at_broker, mut at_client) =
        (within(broker.accept()).await, Packets::new(), Packets::new());
    at_broker.expect(&mut up, Kind::Connect).await;
    send(&mut up, &[0x20, 3, 0, 0, 0]).await;
    at_client.expect(&mut client, Kind::Connack).await;
    send(&mut client, &[0x34, 0x08, 0, 1, b't', 0, 1, 0, b'h', b'i']).await;
    at_broker.expect(&mut up, Kind::Publish).await;
    send(&mut up, &[0x50, 2, 0, 1]).await;
    at_client.expect(&mut client, Kind::Pubrec).await;
    carrying.hold(fleet.using(2));
    let (mut next, _) = within(broker.accept()).await;
    at_broker.expect(&mut up, Kind::Disconnect).await;
    drop(up);
    Packets::new().expect(&mut next, Kind::Connect).await;
    send(&mut next, &[0x20, 3, 0, 0, 0]).await;
    assert_eq!(at_client.expect(&mut client, Kind::Disconnect).await.body(), [0x8b, 0]);
    assert!(at_client.next(&mut client).await.is_none());
    let error = carrying.health.status().relays[0].last_error.clone().expect("an error");
    assert!(error.contains("QoS 2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_the_broker_back() {
    let fleet = Fleet::new();
    let broker = fleet.broker().await;
    let carrying = Carrying::start(&[relay(Mode::Mqtt, broker.address)], None).await;
    carrying.hold(fleet.using(1));
    let mut client = TcpStream::connect(carrying.addresses[0]).await.expect("listens");
    send(&mut client, CONNECT_CLEAN).await;
    let (mut up, _) = within(broker.accept()).await;
    Packets::new().expect(&mut up, Kind::Connect).await;
    send(&mut up, CONNACK).await;
    // One message of 64 KiB after another until nothing moves: sockets and queues are full, not memory.
    let mut message = vec![0x30, 0x80, 0x80, 0x04, 0, 1, b't'];
    message.resize(4 + 65_536, 0);
    let mut sent = 0_usize;
    while tokio::time::timeout(Duration::from_secs(1), up.write_all(&message)).await.is_ok() {
        sent += message.len();
        assert!(sent < 64 * 1024 * 1024, "{sent} bytes went nowhere");
    }
    // And it is still alive: once the client reads, all of it arrives.
    let flushing = tokio::spawn(async move {
        up.flush().await.expect("the relay reads on");
        up
    });
    let mut at_client = Packets::new();
    at_client.expect(&mut client, Kind::Connack).await;
    for _ in 0..sent / message.len() {
        at_client.expect(&mut client, Kind::Publish).await;
    }
    drop(flushing.await.expect("flushed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_lost_takes_the_client_along_after_a_random_pause() {
    let fleet = Fleet::new();
    let broker = fleet.broker().await;
    let carrying = Carrying::start(&[relay(Mode::Mqtt, broker.address)], None).await;
    carrying.hold(fleet.using(1));
    let mut client = TcpStream::connect(carrying.addresses[0]).await.expect("listens");
    send(&mut client, CONNECT_CLEAN).await;
    let (mut up, _) = within(broker.accept()).await;
    Packets::new().expect(&mut up, Kind::Connect).await;
    send(&mut up, CONNACK).await;
    let mut at_client = Packets::new();
    at_client.expect(&mut client, Kind::Connack).await;
    let began = Instant::now();
    drop(up);
    assert!(at_client.next(&mut client).await.is_none());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_address_that_is_taken_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("bound");
    let written = RelayWritten { listen: address, ..relay(Mode::Tcp, address) };
    let config = muster_agent::carry::Config::check(&[written], None).expect("a configuration");
    let fault = muster_agent::carry::Carry::bind(config).await.expect_err("taken");
    assert!(fault.to_string().contains(&format!("can't listen on {address}")), "{fault}");
}
