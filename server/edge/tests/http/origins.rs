//! What an origin may do to us and to the clients of others: be away, be slow, break off, lie.

use std::time::Duration;

use muster_edge::{Event, OriginTls, SecretKey, TlsIdentity};
use muster_policy::host::{HostMode, Protocol};
use muster_policy::network::Network;
use muster_policy::reason::Reason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::rig::{ACCOUNT, Rig, TestCa, at, host, identity};
use crate::script::{Script, Then};

#[tokio::test]
async fn an_origin_that_is_away_is_named_and_its_peers_take_over() {
    let closed = {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        socket.local_addr().expect("an address")
    };
    let rig = Rig::start().await;
    let mut entry = host(&rig.server_ca, "away.example.com", HostMode::Off, Protocol::Https, closed);
    rig.tell(vec![Event::Host(Box::new(entry.clone()))]);
    let answer = rig.get("away.example.com", None).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.reason()), (502, "origin_unreachable"));
    entry.rule.origins.push(format!("http://{}", rig.origin));
    rig.tell(vec![Event::Host(Box::new(entry.clone()))]);
    for _ in 0..4 {
        assert_eq!(rig.get("away.example.com", None).await.expect("served").status, 200);
    }
    entry.rule.origins.clear();
    rig.tell(vec![Event::Host(Box::new(entry))]);
    let answer = rig.get("away.example.com", None).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.reason()), (502, "origin_missing"));
}

/// TLS is a part of connecting. Time is turned forward once it has begun.
#[tokio::test]
async fn an_origin_that_goes_no_further_than_tcp_is_given_up_and_its_peers_take_over() {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let rig = Rig::start().await;
    let mut entry = host(&rig.server_ca, "tls.example.com", HostMode::Off, Protocol::Https, address);
    entry.rule.origins = vec![format!("https://{address}")];
    for (peer, status, reason) in [(None, 502, "origin_unreachable"), (Some(rig.origin), 200, "")] {
        entry.rule.origins.extend(peer.map(|peer| format!("http://{peer}")));
        rig.tell(vec![Event::Host(Box::new(entry.clone()))]);
        let passes_time = async {
            let (mut stream, _) = socket.accept().await.expect("somebody came");
            stream.read_u8().await.expect("a greeting");
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(6)).await;
            tokio::time::resume();
            stream
        };
        let (answer, _stream) = tokio::join!(rig.get("tls.example.com", None), passes_time);
        let answer = answer.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.reason()), (status, reason));
    }
}

#[tokio::test]
async fn no_origin_is_reached_in_a_network_that_is_denied() {
    let networks = ["127.0.0.0/8", "::1"].map(|text| text.parse::<Network>().expect("a network"));
    let rig = Rig::with(|_| {}, |config| config.denied_networks = networks.into_iter().collect()).await;
    let port = rig.origin.port();
    let mut entry = host(&rig.server_ca, "denied.example.com", HostMode::Off, Protocol::Https, rig.origin);
    for origin in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"] {
        entry.rule.origins = vec![format!("http://{origin}:{port}")];
        rig.tell(vec![Event::Host(Box::new(entry.clone()))]);
        let answer = rig.get("denied.example.com", None).await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.reason()), (502, "origin_unreachable"), "{origin}");
    }
}

#[tokio::test]
async fn an_origin_that_does_not_answer_is_given_up() {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let rig = Rig::start().await;
    let mut entry = host(&rig.server_ca, "slow.example.com", HostMode::Off, Protocol::Https, address);
    entry.rule.origin_timeout_s = 1;
    rig.tell(vec![Event::Host(Box::new(entry))]);
    let answer = rig.get("slow.example.com", None).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.reason()), (504, "origin_timeout"));
}

/// An origin that answers when it has read so much of the body; given nothing to read, it reads nothing.
async fn reader(octets: usize) -> std::net::SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = socket.accept().await?;
        if octets > 0 {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            stream.read_exact(&mut vec![0; octets]).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?;
        }
        std::future::pending::<std::io::Result<()>>().await
    });
    address
}

#[tokio::test]
async fn an_upload_that_the_origin_does_not_take_is_given_up_and_a_slow_one_is_not() {
    let rig = Rig::start().await;
    // More than all buffers on the way hold, and a trickle.
    for (name, taken, octets, pause, answer) in [
        ("stuck.example.com", 0, 64 * 1024 * 1024, Duration::ZERO, "HTTP/1.1 504"),
        ("slow.example.com", 1000, 1000, Duration::from_micros(2_500), "HTTP/1.1 200"),
    ] {
        let origin = reader(taken).await;
        let mut entry = host(&rig.server_ca, name, HostMode::Off, Protocol::Https, origin);
        entry.rule.origin_timeout_s = 1;
        rig.tell(vec![Event::Host(Box::new(entry))]);
        let config = rig.client(None, &[b"http/1.1"]);
        let stream = rig.tls(rig.https, name, config).await.expect("connected");
        let (mut read, mut write) = tokio::io::split(stream);
        tokio::spawn(async move {
            let head = format!("POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: {octets}\r\n\r\n");
            write.write_all(head.as_bytes()).await?;
            let piece = vec![b'x'; octets / 1000];
            for _ in 0..1000 {
                write.write_all(&piece).await?;
                tokio::time::sleep(pause).await;
            }
            Ok::<_, std::io::Error>(write)
        });
        let mut status = [0; 12];
        let answered = tokio::time::timeout(Duration::from_secs(20), read.read_exact(&mut status)).await;
        answered.expect("in time").expect("an answer");
        assert_eq!(String::from_utf8_lossy(&status), answer, "{name}");
    }
}

/// An origin that says half of its answer, and the rest of it after a pause.
async fn hesitant(pause: Duration) -> std::net::SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                while stream.read_u8().await? != b'\n' {}
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await?;
                tokio::time::sleep(pause).await;
                stream.write_all(b"more").await?;
                std::future::pending::<std::io::Result<()>>().await
            });
        }
    });
    address
}

#[tokio::test]
async fn an_origin_that_is_silent_within_its_answer_is_given_up_unless_its_hostname_waits() {
    let rig = Rig::start().await;
    let day = Duration::from_secs(86_400);
    for (name, pause, timeout_s, whole) in [
        ("stuck.example.com", day, 1, false),
        ("patient.example.com", Duration::from_secs(2), 0, true),
        ("usual.example.com", Duration::from_secs(2), 60, true),
    ] {
        let origin = hesitant(pause).await;
        let mut entry = host(&rig.server_ca, name, HostMode::Off, Protocol::Https, origin);
        entry.rule.origin_timeout_s = timeout_s;
        rig.tell(vec![Event::Host(Box::new(entry))]);
        let config = rig.client(None, &[b"http/1.1"]);
        let mut stream = rig.tls(rig.https, name, config).await.expect("connected");
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer));
        let _ = read.await.expect("it ends");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("200 OK") && text.ends_with(if whole { "halfmore" } else { "half" }), "{text}");
    }
    assert_eq!(rig.edge.counters().refused_by_reason, [(Reason::OriginTimeout, 1)]);
}

/// The other streams of the connection are other origins'.
#[tokio::test]
async fn a_silent_origin_costs_an_h2_client_one_stream() {
    let rig = Rig::start().await;
    let origin = hesitant(Duration::from_secs(86_400)).await;
    let mut entry = host(&rig.server_ca, "stuck.example.com", HostMode::Off, Protocol::Https, origin);
    entry.rule.origin_timeout_s = 1;
    rig.tell(vec![Event::Host(Box::new(entry))]);
    let config = rig.client(None, &[b"h2"]);
    let stream = rig.tls(rig.https, "stuck.example.com", config).await.expect("connected");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("h2");
    tokio::spawn(connection);
    for _ in 0..2 {
        sender = sender.ready().await.expect("open");
        let request = http::Request::get("https://stuck.example.com/").body(()).expect("a request");
        let (answer, _) = sender.send_request(request, true).expect("sent");
        let mut body = answer.await.expect("begun").into_body();
        assert_eq!(body.data().await.expect("a piece").expect("read"), "half");
        let ended = tokio::time::timeout(Duration::from_secs(60), body.data()).await.expect("it ends");
        assert!(ended.is_some_and(|ended| ended.is_err_and(|error| error.is_reset())));
    }
}

#[tokio::test]
async fn a_client_that_pauses_within_its_request_is_told_so() {
    let rig = Rig::with(|_| {}, |config| config.limits.body_pause = Duration::from_millis(300)).await;
    let origin = Script::by(|_, _| (Vec::new(), Then::Stay)).await;
    let entry = host(&rig.server_ca, "pause.example.com", HostMode::Off, Protocol::Https, origin.address);
    rig.tell(vec![Event::Host(Box::new(entry))]);
    let config = rig.client(None, &[b"http/1.1"]);
    let mut stream = rig.tls(rig.https, "pause.example.com", config).await.expect("connected");
    let request = "POST / HTTP/1.1\r\nHost: pause.example.com\r\nContent-Length: 8\r\n\r\nhalf";
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer));
    let _ = read.await.expect("it ends");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("body_timeout"), "{text}");
    origin.until(|heard| heard.iter().all(|text| text.ends_with("half"))).await;
}

/// An HTTPS origin that wants a client certificate and names who showed it.
async fn tls_origin(server_ca: &TestCa, clients: &TestCa) -> std::net::SocketAddr {
    let pair = server_ca.sign(&{
        let mut params = rcgen::CertificateParams::new(["origin.internal".to_owned()]).expect("a name");
        // The edge judges origins by the machine's own clock.
        params.not_before = at(1_000_000_000);
        params.not_after = at(4_000_000_000);
        params
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(clients.der.clone().into()).expect("a CA");
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .expect("a verifier");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            pair.chain.clone(),
            rustls::pki_types::PrivatePkcs8KeyDer::from(pair.key.clone()).into(),
        )
        .expect("a pair");
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut octets = [0; 4096];
                let _ = stream.read(&mut octets).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret").await;
            });
        }
    });
    address
}

#[tokio::test]
async fn an_origin_is_checked_against_its_pins_and_shown_the_accounts_certificate() {
    let mut long_lived = rcgen::CertificateParams::default();
    long_lived.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (origin_ca, other_ca) =
        (TestCa::with(20, ACCOUNT, long_lived.clone()), TestCa::with(21, ACCOUNT, long_lived.clone()));
    let outbound_ca = TestCa::with(22, ACCOUNT, long_lived);
    let origin = tls_origin(&origin_ca, &outbound_ca).await;
    let mut params = rcgen::CertificateParams::default();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let outbound = identity(&outbound_ca.sign(&params));
    let rig = Rig::with(|snapshot| snapshot.accounts[0].outbound = Some(outbound), |_| {}).await;
    let mut entry = host(&rig.server_ca, "tls.example.com", HostMode::Off, Protocol::Https, origin);
    entry.rule.origins = vec![format!("https://{origin}")];
    let pin = |ca: &TestCa, identify| OriginTls {
        anchors: vec![serde_bytes::ByteBuf::from(ca.der.clone())],
        server_name: Some("origin.internal".parse().expect("a name")),
        identify,
        identity: None,
    };
    // One of the hostname's own goes before the account's.
    let with_own =
        |ca: &TestCa| OriginTls { identity: Some(identity(&ca.sign(&params))), ..pin(&origin_ca, true) };
    let unusable = TlsIdentity {
        chain: vec![serde_bytes::ByteBuf::from(other_ca.der.clone())],
        key: SecretKey::new(b"no key".to_vec()),
    };
    for (tls, status, reason) in [
        (pin(&origin_ca, true), 200, ""),
        (pin(&origin_ca, false), 502, "origin_failed"),
        (pin(&other_ca, true), 502, "origin_untrusted"),
        (OriginTls { server_name: None, ..pin(&origin_ca, true) }, 502, "origin_untrusted"),
        (OriginTls::default(), 502, "origin_untrusted"),
        (with_own(&other_ca), 502, "origin_failed"),
        (OriginTls { identify: false, ..with_own(&outbound_ca) }, 200, ""),
        (OriginTls { identity: Some(unusable), ..pin(&origin_ca, true) }, 502, "origin_failed"),
    ] {
        entry.origin_tls = tls;
        rig.tell(vec![Event::Host(Box::new(entry.clone()))]);
        let answer = rig.get("tls.example.com", None).await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.reason()), (status, reason));
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A hostname with this origin, that anybody may visit.
fn put(rig: &Rig, name: &str, origins: &[&Script]) {
    let mut entry = host(&rig.server_ca, name, HostMode::Off, Protocol::Https, origins[0].address);
    entry.rule.origins = origins.iter().map(|origin| format!("http://{}", origin.address)).collect();
    rig.tell(vec![Event::Host(Box::new(entry))]);
}

/// RFC 9110 §6.2: the version is of the one hop, and a client of ours may keep its connection.
#[tokio::test]
async fn an_old_origin_does_not_make_its_clients_old() {
    let rig = Rig::start().await;
    let origin = Script::start(OK.replace("HTTP/1.1", "HTTP/1.0"), Then::Close).await;
    put(&rig, "old.example.com", &[&origin]);
    let mut client = rig.h1("old.example.com", None).await.expect("connected");
    for _ in 0..2 {
        assert_eq!(client.get("old.example.com", &[]).await.expect("served").body, "ok");
    }
    let request = "GET / HTTP/1.0\r\nHost: old.example.com\r\n\r\n";
    let answer = crate::requests::raw(&rig, "old.example.com", request).await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("ok"), "{answer}");
}

/// Who speaks HTTP/1.0 on a connection is spoken to in it from then on, and knows no body of unknown length.
#[tokio::test]
async fn an_old_origin_that_keeps_its_connections_misses_no_body() {
    let rig = Rig::start().await;
    let kept = OK.replace("HTTP/1.1 200 OK", "HTTP/1.0 200 OK\r\nConnection: keep-alive");
    let origin = Script::start(kept, Then::Stay).await;
    put(&rig, "kept.example.com", &[&origin]);
    for number in 0..4 {
        let answer = rig.get("kept.example.com", None).await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "ok"));
        let request = format!(
            "POST / HTTP/1.1\r\nHost: kept.example.com\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
             6\r\nbody-{number}\r\n0\r\n\r\n"
        );
        let answer = crate::requests::raw(&rig, "kept.example.com", &request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        origin.until(|heard| heard.iter().any(|text| text.contains(&format!("body-{number}")))).await;
    }
}

/// Octets behind an answer are no answer to whoever asks next.
#[tokio::test]
async fn what_follows_an_answer_reaches_nobody() {
    let rig = Rig::start().await;
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON";
    for (case, first) in [
        ("a second answer", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("behind chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("no content", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("nothing new", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n"),
    ] {
        let origin = Script::start(format!("{first}{poison}"), Then::Stay).await;
        put(&rig, "lies.example.com", &[&origin]);
        for _ in 0..4 {
            let answer = rig.get("lies.example.com", None).await.expect("answered");
            assert!(!answer.body.contains("POISON"), "{case}: {answer:?}");
        }
    }
    // The body of an answer that has none.
    let origin = Script::start("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON", Then::Stay).await;
    put(&rig, "lies.example.com", &[&origin]);
    for method in ["HEAD", "HEAD"] {
        let request = format!("{method} / HTTP/1.1\r\nHost: lies.example.com\r\nConnection: close\r\n\r\n");
        let answer = crate::requests::raw(&rig, "lies.example.com", &request).await;
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("POISON"), "{answer}");
    }
}

/// RFC 9112 §6.3 and §11.1: an answer that can be read two ways is given to nobody.
#[tokio::test]
async fn an_answer_that_can_be_read_two_ways_is_none() {
    let rig = Rig::start().await;
    for lie in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokx",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nokx",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX-Split: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX Space: a\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX-Folded: a\r\n Set-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "ok, whatever you want\r\n\r\n",
        "\x16\x03\x01\x00\x05hello\r\n\r\n",
    ] {
        let origin = Script::start(lie, Then::Close).await;
        put(&rig, "lies.example.com", &[&origin]);
        let answer = rig.get("lies.example.com", None).await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.reason()), (502, "origin_failed"), "{lie:?}");
    }
    // Longer than is read.
    let endless = format!("HTTP/1.1 200 OK\r\n{}", format!("X-Long: {}\r\n", "a".repeat(1000)).repeat(200));
    let origin = Script::start(endless, Then::Stay).await;
    put(&rig, "lies.example.com", &[&origin]);
    let answer = rig.get("lies.example.com", None).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.reason()), (502, "origin_failed"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let rig = Rig::start().await;
    for half in [
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ] {
        let origin = Script::start(half, Then::Close).await;
        put(&rig, "breaks.example.com", &[&origin]);
        let broken = rig.get("breaks.example.com", None).await.map(|answer| answer.body);
        assert!(broken.is_err(), "{half:?}: {broken:?}");
        let mut h2 = rig.h2("breaks.example.com", None).await.expect("connected");
        let broken = h2.get("breaks.example.com").await.map(|answer| answer.body);
        assert!(broken.is_err(), "{half:?}: {broken:?}");
    }
    let origin = Script::start("HTTP/1.1 200 OK\r\nConte", Then::Close).await;
    put(&rig, "breaks.example.com", &[&origin]);
    let answer = rig.get("breaks.example.com", None).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.reason()), (502, "origin_failed"));
}

/// RFC 9110 §15.2: informational answers come before the one that counts. §7.6.1: what speaks of the connection
/// to the origin is not for the client.
#[tokio::test]
async fn an_origin_may_think_aloud_and_its_connection_stays_its_own() {
    let rig = Rig::start().await;
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Secret\r\nX-Secret: s\r\nKeep-Alive: timeout=5\r\n\
        Proxy-Authenticate: Basic\r\nX-Kept: k\r\nContent-Length: 2\r\n\r\nok";
    let origin = Script::start(format!("{early}{last}"), Then::Stay).await;
    put(&rig, "aloud.example.com", &[&origin]);
    for _ in 0..2 {
        let answer = rig.get("aloud.example.com", None).await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "ok"));
        assert!(answer.headers.contains_key("x-kept"));
        for gone in ["x-secret", "keep-alive", "proxy-authenticate"] {
            assert!(!answer.headers.contains_key(gone), "{gone}");
        }
    }
    assert_eq!(origin.heard().len(), 1, "one connection");
}

/// A kept connection may end at any time; RFC 9110 §9.2.2 says which requests can be sent again.
#[tokio::test]
async fn a_kept_connection_that_ends_fails_no_request_that_can_be_repeated() {
    let rig = Rig::start().await;
    // Ends right after an answer.
    let origin = Script::start(OK, Then::Close).await;
    put(&rig, "closes.example.com", &[&origin]);
    let mut h1 = rig.h1("closes.example.com", None).await.expect("connected");
    for visit in 0..20 {
        let answer = h1.get("closes.example.com", &[]).await.expect("answered");
        assert_eq!(answer.status, 200, "visit {visit}");
    }
    // Ends when it hears the second request.
    let origin =
        Script::by(|_, before| if before == 0 { (OK.into(), Then::Stay) } else { (Vec::new(), Then::Close) });
    let origin = origin.await;
    put(&rig, "closes.example.com", &[&origin]);
    let visit = async |method: &str| {
        let request = format!("{method} / HTTP/1.1\r\nHost: closes.example.com\r\nConnection: close\r\n\r\n");
        crate::requests::raw(&rig, "closes.example.com", &request).await[..12].to_owned()
    };
    for method in ["GET", "GET", "GET", "DELETE", "OPTIONS"] {
        assert_eq!(visit(method).await, "HTTP/1.1 200", "{method}");
    }
    // It may have done what was asked.
    assert_eq!(visit("POST").await, "HTTP/1.1 502");
    let posts = origin.heard().iter().map(|heard| heard.matches("POST").count()).sum::<usize>();
    assert_eq!(posts, 1, "{:?}", origin.heard());
}

#[tokio::test]
async fn an_origin_that_takes_requests_and_says_nothing_has_peers_too() {
    let rig = Rig::start().await;
    let (mute, good) = (Script::start("", Then::Close).await, Script::start(OK, Then::Stay).await);
    put(&rig, "peers.example.com", &[&mute, &good]);
    for _ in 0..4 {
        assert_eq!(rig.get("peers.example.com", None).await.expect("answered").status, 200);
    }
    // All of them are asked once, and no more.
    let (first, second) = (Script::start("", Then::Close).await, Script::start("", Then::Close).await);
    put(&rig, "peers.example.com", &[&first, &second]);
    let answer = rig.get("peers.example.com", None).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.reason()), (502, "origin_failed"));
    assert_eq!((first.heard().len(), second.heard().len()), (1, 1));
}

/// A machine that is gone says nothing at all, and a stream may be silent for hours: the system has to ask.
#[tokio::test]
async fn whether_an_origin_is_still_there_is_asked_of_the_system() {
    let rig = Rig::start().await;
    let origin = Script::start("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", Then::Stay).await;
    put(&rig, "silent.example.com", &[&origin]);
    let config = rig.client(None, &[b"http/1.1"]);
    let mut stream = rig.tls(rig.https, "silent.example.com", config).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: silent.example.com\r\n\r\n").await.expect("written");
    let mut begun = [0; 15];
    stream.read_exact(&mut begun).await.expect("an answer");
    // proc_pid_net(5): address, port, remote, state, queues, timer; 2 is the timer of keep alive.
    let to = format!("0100007F:{:04X}", origin.address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
    let timers: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(2) == Some(&to.as_str()) && fields.get(3) == Some(&"01"))
        .filter_map(|fields| fields.get(5).map(|timer| timer[..2].to_owned()))
        .collect();
    assert_eq!(timers, ["02"], "{table}");
}

/// RFC 9110 §15.2: there may be any number of them before an answer, but no time without end.
#[tokio::test]
async fn an_origin_that_only_says_that_it_will_answer_is_given_up() {
    let rig = Rig::start().await;
    let origin = Script::start("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(20), Then::Stay).await;
    let mut entry = host(&rig.server_ca, "hints.example.com", HostMode::Off, Protocol::Https, origin.address);
    entry.rule.origin_timeout_s = 1;
    rig.tell(vec![Event::Host(Box::new(entry))]);
    let answer = rig.get("hints.example.com", None).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.reason()), (504, "origin_timeout"));
}
