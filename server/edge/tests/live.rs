//! Connections that lose their right while they are open, and what is handed to a broker.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a step that fails is a failed test, in a helper as in the test itself"
)]

mod rig;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use muster_edge::{AccountEntry, DeviceEntry, EdgeConfig, Event, Gap, ListEntry, PrintKey, Update};
use muster_policy::gate::{
    Action, App, Condition, Decision, GateWritten, Policy, RuleWritten, Visitors, ZoneRules,
};
use muster_policy::host::HostMode;
use muster_policy::identity::Fingerprint;
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use rig::{ACCOUNT, NOW, Rig, at, device_params, line};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

/// What ends a wait that should have ended long before.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_revocation_ends_the_connections_of_that_certificate_and_of_no_other() {
    let rig = Rig::start().await;
    let (bad, good) = (rig.ca.device("meter-1", 66), rig.ca.device("meter-1", 67));
    let mut cut_h1 = rig.h1("api.example.com", Some(&bad)).await.expect("connected");
    let mut cut_h2 = rig.h2("api.example.com", Some(&bad)).await.expect("connected");
    let mut kept = rig.h2("api.example.com", Some(&good)).await.expect("connected");
    assert_eq!(cut_h1.get("api.example.com", &[]).await.expect("served").status, 200);
    assert_eq!(cut_h2.get("api.example.com").await.expect("served").status, 200);
    assert_eq!(kept.get("api.example.com").await.expect("served").status, 200);
    assert_eq!(rig.edge.counters().certificates_connected, 2);
    assert_eq!(rig.tell(vec![Event::Revoked(rig.ca.key(66))]), 2);
    for ended in [cut_h1.ended, cut_h2.ended] {
        let ended = tokio::time::timeout(PATIENCE, ended).await.expect("in time").expect("no panic");
        assert!(ended.is_ok(), "closed in good order: {ended:?}");
    }
    assert_eq!(kept.get("api.example.com").await.expect("served").status, 200);
    assert!(rig.metrics().contains("edge_connections_cut_total{reason=\"certificate_revoked\"} 2"));
    let refused = rig.get("api.example.com", Some(&bad)).await.map(|answer| answer.status);
    assert!(refused.expect_err("revoked").contains("CertificateRevoked"));
}

/// Of a certificate that was issued elsewhere, its fingerprint may be all that is known.
#[tokio::test]
async fn a_fingerprint_is_revoked_and_good_again_as_a_serial_is() {
    let rig = Rig::start().await;
    let (bad, good) = (rig.ca.device("meter-1", 66), rig.ca.device("meter-1", 67));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bad.chain[0]);
    let fingerprint = Fingerprint::from_bytes(digest.as_ref().try_into().expect("32 octets"));
    let print = PrintKey { ca: rig.ca.id, fingerprint };
    let mut cut = rig.h1("api.example.com", Some(&bad)).await.expect("connected");
    let mut kept = rig.h2("api.example.com", Some(&good)).await.expect("connected");
    assert_eq!(cut.get("api.example.com", &[]).await.expect("served").status, 200);
    assert_eq!(rig.tell(vec![Event::PrintRevoked(print)]), 1);
    tokio::time::timeout(PATIENCE, cut.ended)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("in good order");
    assert_eq!(kept.get("api.example.com").await.expect("served").status, 200);
    let refused = rig.get("api.example.com", Some(&bad)).await.map(|answer| answer.status);
    assert!(refused.expect_err("revoked").contains("CertificateRevoked"));
    rig.tell(vec![Event::PrintReactivated(print)]);
    assert_eq!(rig.get("api.example.com", Some(&bad)).await.expect("served").status, 200);
}

#[tokio::test]
async fn a_ca_whose_list_ends_lets_nobody_in_until_the_next() {
    let rig = Rig::start().await;
    let pair = rig.ca.device("meter-1", 7);
    let list =
        |at: Option<i64>| Event::List(ListEntry { ca: rig.ca.id, closes_at: at.map(UnixTime::from_secs) });
    assert_eq!(rig.tell(vec![list(Some(NOW + 5))]), 0);
    let mut open = rig.h1("api.example.com", Some(&pair)).await.expect("connected");
    assert_eq!(open.get("api.example.com", &[]).await.expect("served").status, 200);
    rig.clock.store(NOW + 5, Ordering::Relaxed);
    tokio::time::timeout(PATIENCE, open.ended)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("in good order");
    let refused = rig.get("api.example.com", Some(&pair)).await.map(|answer| answer.status);
    assert!(refused.expect_err("closed").contains("CertificateUnknown"));
    let metrics = rig.metrics();
    assert!(metrics.contains("edge_connections_cut_total{reason=\"crl_stale\"} 1"), "{metrics}");
    assert_eq!(
        rig.get("off.example.com", None).await.expect("served").status,
        200,
        "who needs no certificate"
    );
    rig.tell(vec![list(Some(NOW + 10))]);
    assert_eq!(rig.get("api.example.com", Some(&pair)).await.expect("served").status, 200);
    rig.clock.store(NOW + 10, Ordering::Relaxed);
    rig.get("api.example.com", Some(&pair)).await.map(|answer| answer.status).expect_err("closed");
    rig.tell(vec![list(None)]);
    assert_eq!(rig.get("api.example.com", Some(&pair)).await.expect("served").status, 200);
}

#[tokio::test]
async fn an_mqtt_connection_is_told_why_it_ends() {
    let rig = Rig::start().await;
    let connect = async |name: &str, serial, address, alpn: &[&[u8]]| {
        let config = rig.client(Some(&rig.ca.device(name, serial)), alpn);
        let mut stream = rig.tls(address, "mqtt.example.com", config).await.expect("connected");
        (line(&mut stream).await, stream)
    };
    let (hello, mut revoked) = connect("meter-1", 66, rig.mqtt, &[]).await;
    assert_eq!(hello, "welcome meter-1 Tls");
    let (hello, mut suspended) = connect("meter-2", 67, rig.https, &[b"mqtt"]).await;
    assert_eq!(hello, "welcome meter-2 Tls");
    suspended.write_all(b"ping\n").await.expect("written");
    assert_eq!(line(&mut suspended).await, "ping");
    assert_eq!(rig.edge.counters().connections_mqtt, 2);
    rig.tell(vec![Event::Revoked(rig.ca.key(66))]);
    assert_eq!(line(&mut revoked).await, "cut certificate_revoked");
    rig.suspend("meter-2");
    assert_eq!(line(&mut suspended).await, "cut device_suspended");
    let (hello, _) = connect("meter-2", 68, rig.mqtt, &[b"mqtt"]).await;
    assert_eq!(hello, "refused device_suspended");
    rig.until(|counters| counters.connections_mqtt == 0).await;
}

/// The broker's rules go by groups, so a connection must not outlive them.
#[tokio::test]
async fn a_device_that_changes_its_groups_connects_anew() {
    let rig = Rig::start().await;
    let config = rig.client(Some(&rig.ca.device("meter-1", 7)), &[]);
    let mut mqtt = rig.tls(rig.mqtt, "mqtt.example.com", config).await.expect("connected");
    assert!(line(&mut mqtt).await.starts_with("welcome"));
    let entry = |group: &str| {
        Event::Device(DeviceEntry {
            account: ACCOUNT,
            device: "meter-1".parse().expect("an id"),
            status: Default::default(),
            groups: [group.to_owned()].into(),
        })
    };
    assert_eq!(rig.tell(vec![entry("north")]), 1);
    assert_eq!(line(&mut mqtt).await, "cut groups_changed");
    let config = rig.client(Some(&rig.ca.device("meter-1", 8)), &[]);
    let mut mqtt = rig.tls(rig.mqtt, "mqtt.example.com", config).await.expect("connected");
    assert!(line(&mut mqtt).await.starts_with("welcome"));
    assert_eq!(rig.tell(vec![entry("north")]), 0, "the same groups again");
}

type WebSocket = tokio_tungstenite::WebSocketStream<Stream>;

type Stream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

/// A connection that became a WebSocket, with the head of the answer in lower case.
async fn upgraded(rig: &Rig, serial: u8, name: &str, path: &str) -> (Stream, String) {
    let config = rig.client(Some(&rig.ca.device("meter-1", serial)), &[b"http/1.1"]);
    let mut stream = rig.tls(rig.https, name, config).await.expect("connected");
    let wish = format!(
        "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\r\n"
    );
    stream.write_all(wish.as_bytes()).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    (stream, head)
}

/// MQTT in a WebSocket, as a browser's client opens it.
async fn websocket(rig: &Rig, serial: u8) -> WebSocket {
    let (stream, head) = upgraded(rig, serial, "mqtt.example.com", "/mqtt").await;
    assert!(head.contains("sec-websocket-protocol: mqtt\r\n"), "{head}");
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    tokio_tungstenite::WebSocketStream::from_raw_socket(stream, role, None).await
}

/// The text of the next message.
async fn said(socket: &mut WebSocket) -> String {
    match socket.next().await {
        Some(Ok(Message::Binary(octets))) => String::from_utf8_lossy(&octets).into_owned(),
        other => panic!("{other:?}"),
    }
}

/// With the identity and the cuts of the MQTT port.
#[tokio::test]
async fn mqtt_in_a_websocket_has_the_same_door() {
    let rig = Rig::start().await;
    let mut socket = websocket(&rig, 66).await;
    assert_eq!(said(&mut socket).await, "welcome meter-1 WebSocket\n");
    for half in ["pi", "ng\n"] {
        socket.send(Message::Binary(half.into())).await.expect("sent");
        assert_eq!(said(&mut socket).await, half);
    }
    rig.until(|counters| (counters.connections_https, counters.connections_mqtt) == (0, 1)).await;
    rig.tell(vec![Event::Revoked(rig.ca.key(66))]);
    assert_eq!(said(&mut socket).await, "cut certificate_revoked\n");
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_))) | None));
}

/// What a request began ends with the right to begin it: a WebSocket, an MQTT in one, an answer that runs.
#[tokio::test]
async fn rules_and_access_that_deny_end_what_is_under_way() {
    let rig = Rig::start().await;
    let https = muster_policy::host::Protocol::Https;
    let endless =
        rig::host(&rig.server_ca, "endless.example.com", HostMode::Off, https, rig::endless().await);
    rig.tell(vec![Event::Host(Box::new(endless))]);
    let (mut tunnel, _) = upgraded(&rig, 7, "api.example.com", "/%77s").await;
    let (mut kept, _) = upgraded(&rig, 8, "api.example.com", "/other").await;
    let mut mqtt = websocket(&rig, 9).await;
    assert!(said(&mut mqtt).await.starts_with("welcome"));
    let mut h1 = rig.h1("endless.example.com", None).await.expect("connected");
    let request = http::Request::get("/").header("host", "endless.example.com");
    let request = request.body(http_body_util::Full::default()).expect("a request");
    let mut answer = h1.sender.send_request(request).await.expect("an answer").into_body();
    rig.until(|counters| (counters.connections_https, counters.connections_mqtt) == (3, 1)).await;

    let app = |host: &str, decision| App {
        host: host.parse().expect("a host"),
        path: "/".to_owned(),
        policies: vec![Policy {
            decision,
            visitors: Visitors { include: vec![Condition::Everyone], ..Visitors::default() },
        }],
    };
    let block = RuleWritten {
        expression: r#"http.request.uri.path eq "/ws" or http.host eq "endless.example.com""#.to_owned(),
        action: Action::Block,
    };
    let zone = rig.snapshot.hosts[0].rule.zone;
    let mut gate = GateWritten {
        apps: vec![app("api.example.com", Decision::Allow), app("mqtt.example.com", Decision::Allow)],
        ..GateWritten::default()
    };
    let gated = |gate: &GateWritten| {
        vec![Event::Account(AccountEntry { gate: gate.clone(), ..rig::account(ACCOUNT) })]
    };
    assert_eq!(rig.tell(gated(&gate)), 0, "another gate, which lets them in");
    gate.apps[1] = app("mqtt.example.com", Decision::Deny);
    gate.zones = vec![ZoneRules { zone, rules: vec![block] }];
    assert_eq!(rig.tell(gated(&gate)), 3);
    assert_eq!(said(&mut mqtt).await, "cut access_denied\n");
    assert_eq!(tunnel.read(&mut [0]).await.unwrap_or(0), 0);
    let ended = async { while let Some(Ok(_)) = answer.frame().await {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("an answer that ends");
    kept.write_all(b"ping").await.expect("written");
    let mut echo = [0; 4];
    kept.read_exact(&mut echo).await.expect("an echo");
    assert!(rig.metrics().contains("edge_connections_cut_total{reason=\"rule_blocked\"} 2"));
}

/// MQTT 5 §6: a text message closes the connection; and one that is larger than is kept here.
#[tokio::test]
async fn a_websocket_message_that_is_text_or_too_large_ends_the_connection() {
    let rig = Rig::start().await;
    let (most, more) = (vec![0; 256 * 1024], vec![0; 256 * 1024 + 1]);
    for wrong in [Message::Text("ping".into()), Message::Binary(more.into())] {
        let mut socket = websocket(&rig, 7).await;
        assert!(said(&mut socket).await.starts_with("welcome"));
        socket.send(Message::Binary(most.clone().into())).await.expect("sent");
        let mut echoed = 0;
        while echoed < most.len() {
            echoed += said(&mut socket).await.len();
        }
        let _ = socket.send(wrong).await;
        rig.until(|counters| counters.connections_mqtt == 0).await;
    }
}

#[tokio::test]
async fn a_port_serves_only_hostnames_that_speak_its_protocol() {
    let rig = Rig::start().await;
    let pair = rig.ca.device("meter-1", 7);
    let cross = [("api.example.com", rig.mqtt, &b"mqtt"[..]), ("api.example.com", rig.https, b"mqtt")];
    for (name, address, alpn) in cross {
        let config = rig.client(Some(&pair), &[alpn]);
        assert!(rig.tls(address, name, config).await.is_err(), "{name}");
    }
    // HTTP to a hostname of MQTT, where WebSockets keep HTTP/1.1 open.
    let answer = rig.get("mqtt.example.com", Some(&pair)).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.reason()), (501, "protocol_not_offered"));
}

#[tokio::test]
async fn a_certificate_that_ends_ends_its_connections() {
    let rig = Rig::start().await;
    let mut params = device_params("meter-1", 7);
    params.not_after = at(NOW + 5);
    let pair = rig.ca.sign(&params);
    let mut h1 = rig.h1("api.example.com", Some(&pair)).await.expect("connected");
    assert_eq!(h1.get("api.example.com", &[]).await.expect("served").status, 200);
    rig.clock.store(NOW + 6, Ordering::Relaxed);
    let ended = tokio::time::timeout(PATIENCE, h1.ended).await.expect("in time").expect("no panic");
    assert!(ended.is_ok());
    rig.until(|counters| counters.cut == 1).await;
}

/// Each hostname as it says; who shows no certificate needs no news of any.
#[tokio::test]
async fn news_that_is_too_old_ends_the_connections_of_hostnames_that_are_closed_then() {
    let rig = Rig::with(|_| {}, |config| config.staleness_allowed_for = Duration::from_secs(60)).await;
    let https = muster_policy::host::Protocol::Https;
    let mut brave = rig::host(&rig.server_ca, "brave.example.com", HostMode::Require, https, rig.origin);
    brave.rule.when_stale = muster_policy::host::WhenStale::Open;
    rig.tell(vec![Event::Host(Box::new(brave))]);
    let pair = rig.ca.device("meter-1", 7);
    let hosts =
        [("api.example.com", Some(&pair)), ("brave.example.com", Some(&pair)), ("off.example.com", None)];
    let mut live = Vec::new();
    for (name, pair) in hosts {
        live.push(rig.h2(name, pair).await.expect("connected"));
    }
    let mqtt = rig.client(Some(&pair), &[]);
    let mut stream = rig.tls(rig.mqtt, "mqtt.example.com", mqtt.clone()).await.expect("connected");
    assert!(line(&mut stream).await.starts_with("welcome"));
    rig.until(|counters| (counters.connections_https, counters.connections_mqtt) == (3, 1)).await;
    rig.clock.store(NOW + 61, Ordering::Relaxed);
    assert_eq!(line(&mut stream).await, "cut revocations_stale");
    let mut live = live.into_iter();
    assert!(tokio::time::timeout(PATIENCE, live.next().expect("api").ended).await.is_ok());
    for (mut kept, name) in live.zip(["brave.example.com", "off.example.com"]) {
        assert_eq!(kept.get(name).await.expect("served").status, 200, "{name}");
    }
    assert!(rig.metrics().contains("edge_connections_cut_total{reason=\"revocations_stale\"} 2"));
    let mut refused = rig.tls(rig.mqtt, "mqtt.example.com", mqtt.clone()).await.expect("connected");
    assert_eq!(line(&mut refused).await, "refused revocations_stale");
    let answer = rig.get("api.example.com", Some(&pair)).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.reason()), (503, "revocations_stale"));
    // Somebody vouches again.
    rig.tell(Vec::new());
    let mut back = rig.tls(rig.mqtt, "mqtt.example.com", mqtt).await.expect("connected");
    assert!(line(&mut back).await.starts_with("welcome"));
    assert_eq!(rig.get("api.example.com", Some(&pair)).await.expect("served").status, 200);
}

/// A machine that was asleep finds everything old, until the next word that nothing has changed.
#[tokio::test]
async fn a_clock_that_jumps_cuts_nobody_who_is_vouched_for_at_once() {
    let rig = Rig::with(|_| {}, |config| config.staleness_allowed_for = Duration::from_secs(60)).await;
    let config = rig.client(Some(&rig.ca.device("meter-1", 7)), &[]);
    let mut stream = rig.tls(rig.mqtt, "mqtt.example.com", config).await.expect("connected");
    assert!(line(&mut stream).await.starts_with("welcome"));
    rig.clock.store(NOW + 600, Ordering::Relaxed);
    // Longer than the watch takes for a look or two.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    rig.tell(Vec::new());
    tokio::time::sleep(Duration::from_secs(4)).await;
    stream.write_all(b"ping\n").await.expect("written");
    assert_eq!(line(&mut stream).await, "ping");
    assert_eq!(rig.edge.counters().cut, 0);
}

type Change<'a> = &'a dyn Fn(&Rig) -> Vec<Event>;

#[tokio::test]
async fn whatever_takes_the_right_away_ends_the_connection() {
    let removed = |rig: &Rig| vec![Event::CaRemoved(rig.ca.id)];
    let unhosted = |rig: &Rig| vec![Event::HostRemoved(rig.snapshot.hosts[1].rule.host.clone())];
    let retired = |_: &Rig| {
        vec![Event::Device(DeviceEntry {
            account: ACCOUNT,
            device: "meter-1".parse().expect("an id"),
            status: muster_policy::enrol::DeviceStatus::Retired,
            groups: Default::default(),
        })]
    };
    let spoken = |rig: &Rig| {
        let mut entry = rig.snapshot.hosts[1].clone();
        entry.rule.protocols = [muster_policy::host::Protocol::Mqtt].into();
        vec![Event::Host(Box::new(entry))]
    };
    let changes: [(Change<'_>, Reason); 4] = [
        (&removed, Reason::CaNotAccepted),
        (&unhosted, Reason::HostUnknown),
        (&retired, Reason::DeviceRetired),
        (&spoken, Reason::ProtocolNotOffered),
    ];
    for (change, reason) in changes {
        let rig = Rig::start().await;
        let pair = rig.ca.device("meter-1", 7);
        let mut h2 = rig.h2("open.example.com", Some(&pair)).await.expect("connected");
        assert_eq!(h2.get("open.example.com").await.expect("served").status, 200);
        assert_eq!(rig.tell(change(&rig)), 1, "{reason}");
        let ended = tokio::time::timeout(PATIENCE, h2.ended).await;
        assert!(ended.is_ok(), "{reason}");
        let counted = format!("edge_connections_cut_total{{reason=\"{reason}\"}} 1");
        assert!(rig.metrics().contains(&counted), "{reason}");
    }
}

/// Another rule now answers for the name: its CAs were never asked.
#[tokio::test]
async fn a_connection_made_under_a_wildcard_ends_when_its_name_gets_a_rule() {
    let rig = Rig::start().await;
    let pair = rig.ca.device("meter-1", 7);
    let kept = rig.h2("b.wild.example.com", Some(&pair)).await.expect("connected");
    let cut = rig.h2("a.wild.example.com", Some(&pair)).await.expect("connected");
    let https = muster_policy::host::Protocol::Https;
    let entry = rig::host(&rig.server_ca, "a.wild.example.com", HostMode::Require, https, rig.origin);
    rig.until(|counters| counters.connections_https == 2).await;
    assert_eq!(rig.tell(vec![Event::Host(Box::new(entry))]), 1);
    assert!(tokio::time::timeout(PATIENCE, cut.ended).await.is_ok());
    assert!(!kept.ended.is_finished());
}

#[tokio::test]
async fn an_anonymous_client_goes_when_a_certificate_becomes_mandatory() {
    let rig = Rig::start().await;
    let mut h1 = rig.h1("open.example.com", None).await.expect("connected");
    assert_eq!(h1.get("open.example.com", &[]).await.expect("served").status, 200);
    let mut entry = rig.snapshot.hosts[1].clone();
    entry.rule.mode = HostMode::Require;
    assert_eq!(rig.tell(vec![Event::Host(Box::new(entry))]), 1);
    assert!(tokio::time::timeout(PATIENCE, h1.ended).await.is_ok());
}

#[tokio::test]
async fn a_new_server_certificate_breaks_no_connection() {
    let rig = Rig::start().await;
    let pair = rig.ca.device("meter-1", 7);
    let mut old = rig.h1("api.example.com", Some(&pair)).await.expect("connected");
    assert_eq!(old.get("api.example.com", &[]).await.expect("served").status, 200);
    let entry = rig::host(
        &rig.server_ca,
        "api.example.com",
        HostMode::Require,
        muster_policy::host::Protocol::Https,
        rig.origin,
    );
    assert_eq!(rig.tell(vec![Event::Host(Box::new(entry.clone()))]), 0);
    assert_eq!(old.get("api.example.com", &[]).await.expect("served").status, 200);
    let config = rig.client(Some(&pair), &[]);
    let new = rig.tls(rig.https, "api.example.com", config).await.expect("connected");
    let shown = new.get_ref().1.peer_certificates().expect("shown")[0].to_vec();
    assert_eq!(shown, entry.certificate.expect("there").chain[0].to_vec());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_under_load_fail_no_handshake() {
    let rig = std::sync::Arc::new(Rig::start().await);
    let pair = rig.ca.device("meter-1", 7);
    let load = tokio::spawn({
        let rig = rig.clone();
        async move {
            for _ in 0..60 {
                assert_eq!(rig.get("api.example.com", Some(&pair)).await.expect("served").status, 200);
            }
        }
    });
    let mut changes = 0;
    while !load.is_finished() {
        let https = muster_policy::host::Protocol::Https;
        let entry = rig::host(&rig.server_ca, "api.example.com", HostMode::Require, https, rig.origin);
        rig.tell(vec![
            Event::Host(Box::new(entry)),
            Event::Ca(rig.ca.entry()),
            Event::Revoked(rig.ca.key(9)),
        ]);
        changes += 1;
        tokio::task::yield_now().await;
    }
    load.await.expect("nothing failed");
    assert!(changes > 1);
}

#[tokio::test]
async fn an_edge_starts_from_its_last_known_good_state() {
    let temp = tempfile::tempdir().expect("a folder");
    let folder = temp.path().join("edge");
    let keep = |config: &mut EdgeConfig| config.last_known_good = Some(folder.clone());
    let (snapshot, pair, clock) = {
        let rig = Rig::with(|_| {}, keep).await;
        rig.tell(vec![Event::Revoked(rig.ca.key(66))]);
        (rig.snapshot.clone(), rig.ca.device("meter-1", 66), rig.clock.clone())
    };
    // sled gives the folder free with the last clone of the edge, which the listeners' tasks hold.
    let deadline = Instant::now() + PATIENCE;
    let edge = loop {
        let clock = clock.clone();
        let config = EdgeConfig {
            last_known_good: Some(folder.clone()),
            clock: muster_edge::Clock::from_fn(move || UnixTime::from_secs(clock.load(Ordering::Relaxed))),
            ..EdgeConfig::default()
        };
        let mut registry = prometheus_client::registry::Registry::default();
        match muster_edge::Edge::start(config, std::sync::Arc::new(muster_edge::NoBroker), &mut registry) {
            Ok(edge) => break edge,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let counters = edge.counters();
    assert_eq!((counters.change, counters.hosts, counters.revoked), (2, snapshot.hosts.len(), 1));
    drop(pair);
}

/// It can be told anew; an edge that does not start can't.
#[tokio::test]
async fn a_last_known_good_state_that_cant_be_read_is_no_reason_not_to_start() {
    let temp = tempfile::tempdir().expect("a folder");
    let folder = temp.path().join("edge");
    let spoiled = sled::open(&folder).expect("a database");
    spoiled.insert("head", &b"spoiled"[..]).expect("written");
    drop(spoiled);
    let rig = Rig::with(|_| {}, |config| config.last_known_good = Some(folder)).await;
    assert_eq!(rig.get("off.example.com", None).await.expect("served").status, 200);
}

/// Whoever drops an edge without draining it leaves nothing behind that goes on for ever.
#[tokio::test]
async fn an_edge_that_is_dropped_is_gone() {
    let mark = std::sync::Arc::new(());
    let clock = {
        let mark = mark.clone();
        muster_edge::Clock::from_fn(move || {
            let _held = &mark;
            UnixTime::from_secs(NOW)
        })
    };
    let config = EdgeConfig { clock, ..EdgeConfig::default() };
    let mut registry = prometheus_client::registry::Registry::default();
    let edge = muster_edge::Edge::start(config, std::sync::Arc::new(muster_edge::NoBroker), &mut registry)
        .expect("an edge");
    drop(edge);
    let gone = async {
        while std::sync::Arc::strong_count(&mark) > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("nothing holds its clock");
}

#[tokio::test]
async fn a_delta_with_a_gap_is_refused_and_changes_nothing() {
    let rig = Rig::start().await;
    let delta = muster_edge::Delta {
        from: 7,
        change: 8,
        made_at: UnixTime::from_secs(NOW),
        events: vec![Event::Revoked(rig.ca.key(1))],
    };
    let refused = rig.edge.apply(Update::Delta(delta));
    assert_eq!(refused, Err(Gap { from: 7, at: 1 }));
    assert_eq!(rig.edge.counters().revoked, 0);
}

#[tokio::test]
async fn draining_lets_a_request_finish_and_tells_mqtt_to_go() {
    let rig = Rig::start().await;
    let pair = rig.ca.device("meter-1", 7);
    let mut h1 = rig.h1("api.example.com", Some(&pair)).await.expect("connected");
    assert_eq!(h1.get("api.example.com", &[]).await.expect("served").status, 200);
    let mut mqtt =
        rig.tls(rig.mqtt, "mqtt.example.com", rig.client(Some(&pair), &[])).await.expect("connected");
    assert!(line(&mut mqtt).await.starts_with("welcome"));
    rig.edge.drain().await;
    assert_eq!(line(&mut mqtt).await, "cut server_stopping");
    assert!(h1.ended.await.expect("no panic").is_ok());
    assert!(rig.get("api.example.com", Some(&pair)).await.is_err());
}

/// The goal is 100 ms at ten thousand connections; a test machine has descriptors for some hundred.
#[tokio::test(flavor = "multi_thread")]
async fn cutting_many_takes_no_longer_than_one_look_at_each() {
    let rig = Rig::start().await;
    let config = std::sync::Arc::new(rig.client(Some(&rig.ca.device("meter-1", 66)), &[]));
    let mut streams = Vec::new();
    for _ in 0..200 {
        let mut stream = rig.tls(rig.mqtt, "mqtt.example.com", (*config).clone()).await.expect("connected");
        assert!(line(&mut stream).await.starts_with("welcome"));
        streams.push(stream);
    }
    let begin = Instant::now();
    assert_eq!(rig.tell(vec![Event::Revoked(rig.ca.key(66))]), 200);
    for stream in &mut streams {
        assert_eq!(line(stream).await, "cut certificate_revoked");
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}
