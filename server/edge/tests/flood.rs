//! Peers that keep silent, dawdle or come in crowds, and one honest client among them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a step that fails is a failed test, in a helper as in the test itself"
)]

mod rig;

use std::time::{Duration, Instant};

use rig::Rig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The first octets of a hello that never goes on.
const BEGINNING: [u8; 9] = [22, 3, 1, 2, 0, 1, 0, 1, 252];

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_dawdling_peers_hold_up_nobody() {
    let rig = Rig::with(
        |_| {},
        |config| {
            config.limits.handshakes = 4;
            config.limits.hello_timeout = Duration::from_secs(10);
        },
    )
    .await;
    let pair = rig.ca.device("meter-1", 7);
    assert_eq!(rig.get("api.example.com", Some(&pair)).await.expect("served").status, 200);
    let mut crowd = Vec::new();
    for index in 0..400 {
        let mut stream = TcpStream::connect(rig.https).await.expect("connected");
        if index % 2 == 0 {
            stream.write_all(&BEGINNING).await.expect("written");
        }
        crowd.push(stream);
    }
    assert_eq!(rig.get("api.example.com", Some(&pair)).await.expect("served").status, 200);
    assert!(
        !rig.metrics().contains("reason=\"hello_timeout\""),
        "it had to wait for the others to be sent away"
    );
    for stream in &mut crowd {
        let ended = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut [0])).await;
        assert!(ended.is_ok(), "it is sent away in the end");
    }
    assert!(rig.metrics().contains("edge_connections_refused_total{reason=\"hello_timeout\"} 400"));
}

/// Sends a whole hello from an address of this machine, and then nothing more.
async fn stalled(rig: &Rig, from: [u8; 4]) -> TcpStream {
    let config = std::sync::Arc::new(rig.client(None, &[]));
    let name = "api.example.com".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(config, name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("written");
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("all of 127/8 is this machine");
    let mut stream = socket.connect(rig.https).await.expect("connected");
    stream.write_all(&hello).await.expect("written");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stalls_gives_its_slot_back() {
    let rig = Rig::with(
        |_| {},
        |config| {
            config.limits.handshakes = 8;
            config.limits.handshake_times.handshake = Duration::from_secs(1);
        },
    )
    .await;
    let mut crowd = Vec::new();
    for _ in 0..2 {
        let mut stream = stalled(&rig, [127, 0, 0, 1]).await;
        stream.read_u8().await.expect("a server hello: the slot is taken");
        crowd.push(stream);
    }
    let pair = rig.ca.device("meter-1", 7);
    assert_eq!(rig.get("api.example.com", Some(&pair)).await.expect("served").status, 200);
    rig.until(|counters| counters.connections_refused == 2).await;
    assert!(rig.metrics().contains("reason=\"handshake_timeout\"} 2"));
}

/// Twice as many as there are slots, all from one address: it has a quarter of them.
#[tokio::test(flavor = "multi_thread")]
async fn one_source_leaves_handshakes_to_the_others() {
    let long = Duration::from_secs(60);
    let rig = Rig::with(
        |_| {},
        |config| {
            config.limits.handshakes = 8;
            (config.limits.handshake_times.handshake, config.limits.handshake_times.crowded) = (long, long);
        },
    )
    .await;
    // Two first, one after the other: which of many at once get the slots is chance.
    let mut crowd = Vec::new();
    for _ in 0..2 {
        let mut stream = stalled(&rig, [127, 0, 0, 2]).await;
        stream.read_u8().await.expect("a server hello: the slot is taken");
        crowd.push(stream);
    }
    for _ in 0..14 {
        crowd.push(stalled(&rig, [127, 0, 0, 2]).await);
    }
    let pair = rig.ca.device("meter-1", 7);
    assert_eq!(rig.get("api.example.com", Some(&pair)).await.expect("served").status, 200);
    // Those that got none were told so in time, and the two go on.
    rig.until(|counters| counters.connections_refused == 14).await;
    assert!(rig.metrics().contains("reason=\"handshake_limit\"} 14"));
}

/// Four sources fill all slots and stall for as long as they like: one that has none gets one of theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_lone_client_waits_for_no_crowd_that_stalls() {
    let long = Duration::from_secs(600);
    let rig = Rig::with(
        |_| {},
        |config| {
            config.limits.handshakes = 8;
            (config.limits.handshake_times.handshake, config.limits.handshake_times.crowded) = (long, long);
            config.limits.handshake_times.slot = long;
        },
    )
    .await;
    let mut crowd = Vec::new();
    for index in 0..8 {
        let mut stream = stalled(&rig, [127, 0, 0, 2 + index / 2]).await;
        stream.read_u8().await.expect("a server hello: the slot is taken");
        crowd.push(stream);
    }
    // More of the same wait for their own.
    for index in 0..8 {
        crowd.push(stalled(&rig, [127, 0, 0, 2 + index / 2]).await);
    }
    let pair = rig.ca.device("meter-1", 7);
    for _ in 0..2 {
        assert_eq!(rig.get("api.example.com", Some(&pair)).await.expect("served").status, 200);
    }
    rig.until(|counters| counters.connections_refused == 2).await;
    assert!(rig.metrics().contains("reason=\"handshake_timeout\"} 2"));
}

/// As many sources as there are slots: none has more than another, and those that stall go first.
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_has_less_time_when_others_wait_for_its_slot() {
    let rig = Rig::with(
        |_| {},
        |config| {
            config.limits.handshakes = 8;
            config.limits.handshake_times.handshake = Duration::from_secs(60);
            config.limits.handshake_times.crowded = Duration::from_secs(1);
        },
    )
    .await;
    let mut crowd = Vec::new();
    for index in 0..8 {
        let mut stream = stalled(&rig, [127, 0, 0, 2 + index]).await;
        stream.read_u8().await.expect("a server hello: the slot is taken");
        crowd.push(stream);
    }
    let pair = rig.ca.device("meter-1", 7);
    assert_eq!(rig.get("api.example.com", Some(&pair)).await.expect("served").status, 200);
}

#[tokio::test]
async fn one_address_has_only_its_share() {
    let rig = Rig::with(|_| {}, |config| config.limits.connections_per_source = 3).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(rig.h1("off.example.com", None).await.expect("connected"));
    }
    assert!(rig.h1("off.example.com", None).await.is_err());
    held.pop();
    drop(held.pop());
    rig.until(|counters| counters.connections_https == 1).await;
    let again = async {
        while rig.h1("off.example.com", None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), again).await.expect("the share comes back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_of_its_answer_is_sent_away() {
    let rig = Rig::with(|_| {}, |config| config.limits.write_timeout = Duration::from_secs(1)).await;
    let pair = rig.ca.device("meter-1", 7);
    let https = muster_policy::host::Protocol::Https;
    let mode = muster_policy::host::HostMode::Off;
    let entry = rig::host(&rig.server_ca, "endless.example.com", mode, https, rig::endless().await);
    rig.tell(vec![muster_edge::Event::Host(Box::new(entry))]);
    let config = rig.client(None, &[b"http/1.1"]);
    let mut http = rig.tls(rig.https, "endless.example.com", config).await.expect("connected");
    http.write_all(b"GET / HTTP/1.1\r\nHost: endless.example.com\r\n\r\n").await.expect("written");
    let config = rig.client(Some(&pair), &[]);
    let mut mqtt = rig.tls(rig.mqtt, "mqtt.example.com", config).await.expect("connected");
    assert!(rig::line(&mut mqtt).await.starts_with("welcome"));
    // Served and idle, it stays.
    let mut idle = rig.h1("off.example.com", None).await.expect("connected");
    assert_eq!(idle.get("off.example.com", &[]).await.expect("served").status, 200);
    // What comes back is not read, until nothing more goes out.
    let echoed = tokio::spawn(async move {
        while mqtt.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
        mqtt
    });
    let begin = Instant::now();
    rig.until(|counters| (counters.connections_https, counters.connections_mqtt) == (1, 0)).await;
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert_eq!(idle.get("off.example.com", &[]).await.expect("served").status, 200);
    drop((http, echoed));
}

/// A WebSocket outlives the HTTP connection that it began as, and is still a connection.
#[tokio::test]
async fn a_websocket_keeps_its_share_until_it_ends() {
    let rig = Rig::with(|_| {}, |config| config.limits.connections_per_source = 1).await;
    let pair = rig.ca.device("meter-1", 7);
    for (name, protocol) in [("api.example.com", "chat"), ("mqtt.example.com", "mqtt")] {
        let config = rig.client(Some(&pair), &[b"http/1.1"]);
        let mut stream = rig.tls(rig.https, name, config).await.expect("connected");
        let wish = format!(
            "GET /ws HTTP/1.1\r\nHost: {name}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        stream.write_all(wish.as_bytes()).await.expect("written");
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.expect("a head");
        assert_eq!(&head, b"HTTP/1.1 101");
        if protocol == "mqtt" {
            // The place of the HTTP connection is given up, and that of the stream is taken.
            rig.until(|counters| (counters.connections_https, counters.connections_mqtt) == (0, 1)).await;
        }
        for _ in 0..20 {
            assert!(rig.h1("off.example.com", None).await.is_err(), "{name}: the share is used up");
        }
        drop(stream);
        let again = async {
            while rig.h1("off.example.com", None).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), again).await.expect("the share comes back");
        rig.until(|counters| counters.connections_https == 0).await;
    }
}

#[tokio::test]
async fn arrivals_above_the_rate_are_turned_away_before_any_work() {
    let rig = Rig::with(
        |_| {},
        |config| {
            config.limits.new_per_source_per_s = 1;
            config.limits.new_per_source_burst = 5;
        },
    )
    .await;
    let (mut served, begin) = (0, Instant::now());
    for _ in 0..20 {
        served += u64::from(rig.get("off.example.com", None).await.is_ok());
    }
    // The burst, and one more for each second that passed.
    assert!((5..=6 + begin.elapsed().as_secs()).contains(&served), "{served}");
    assert!(rig.metrics().contains("reason=\"source_rate\""));
}

#[tokio::test]
async fn a_name_unknown_or_missing_meets_an_alert_and_no_certificate() {
    let rig = Rig::start().await;
    for name in
        ["unknown.example.com", "example.com", "a.b.wild.example.com", "wild.example.com", "127.0.0.1"]
    {
        let config = rig.client(None, &[]);
        let refused = rig.tls(rig.https, name, config).await.expect_err(name).to_string();
        assert!(refused.contains("UnrecognisedName"), "{name}: {refused}");
    }
    for name in ["OFF.Example.com", "off.example.com."] {
        assert!(rig.tls(rig.https, name, rig.client(None, &[])).await.is_ok(), "{name}");
    }
    let metrics = rig.metrics();
    assert!(metrics.contains("reason=\"name_unknown\"} 4") && metrics.contains("reason=\"name_missing\"} 1"));
}
