//! What a client may not do with HTTP: another's hostname, forged headers, two readings of a request.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a step that fails is a failed test, in a helper as in the test itself"
)]

mod rig;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::StreamBody;
use hyper::body::Frame;
use muster_edge::{Event, OriginTls, SecretKey, TlsIdentity};
use muster_policy::host::{HostMode, Protocol};
use rig::{ACCOUNT, Rig, TestCa, host, identity};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Every spelling of a header that origins believe the edge about.
const FORGED: [&str; 15] = [
    "Client-Cert",
    "CLIENT-CERT-CHAIN",
    "client_cert",
    "Client_Cert-Chain",
    "Cf-Client-Cert-Sha256",
    "cf_client_cert_der_base64",
    "CF-CERT-VERIFIED",
    "cf_cert_subject_dn",
    "Cf-Access-Jwt-Assertion",
    "X-SSL-Client-Cert",
    "SSL_CLIENT_VERIFY",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-For",
    "Forwarded",
    "X_Real_IP",
];

#[tokio::test]
async fn forged_headers_reach_no_origin_with_or_without_a_certificate() {
    let rig = Rig::start().await;
    let pair = rig.ca.device("meter-1", 7);
    let hosts = [("api.example.com", Some(&pair)), ("open.example.com", None), ("off.example.com", None)];
    for (name, pair) in hosts {
        let mut h1 = rig.h1(name, pair).await.expect("connected");
        let forged: Vec<_> = FORGED.iter().map(|header| (*header, "forged")).collect();
        let answer = h1.get(name, &forged).await.expect("served");
        assert_eq!(answer.status, 200);
        assert!(!answer.body.contains("forged"), "{name}: {}", answer.body);
        // Asking for the removal of ours does not remove them.
        let answer = h1.get(name, &[("connection", "client-cert, cf-cert-verified")]).await.expect("served");
        assert_eq!(answer.seen("cf-cert-verified").is_some_and(|seen| seen == "true"), pair.is_some());
        assert_eq!(answer.seen("client-cert").is_some(), pair.is_some());
    }
}

#[tokio::test]
async fn forged_trailers_are_taken_out_and_honest_ones_pass() {
    let rig = Rig::start().await;
    let config = rig.client(Some(&rig.ca.device("meter-1", 7)), &[b"h2"]);
    let stream = rig.tls(rig.https, "api.example.com", config).await.expect("connected");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .expect("h2");
    tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    trailers.insert("client-cert", "forged".parse().expect("a value"));
    trailers.insert("cf_cert_verified", "forged".parse().expect("a value"));
    trailers.insert("x-checksum", "honest".parse().expect("a value"));
    let frames =
        [Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from("body"))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(IterStream(frames.into_iter()));
    let request = Request::post("https://api.example.com/echo")
        .header("te", "trailers")
        .header("trailer", "x-checksum")
        .body(body);
    let response = sender.send_request(request.expect("a request")).await.expect("answered");
    let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("body-bytes: 4"), "{text}");
    assert!(!text.contains("forged"), "{text}");
}

/// A stream over what is there already.
struct IterStream<I>(I);

impl<I: Iterator + Unpin> futures_core::Stream for IterStream<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

#[tokio::test]
async fn a_request_for_another_hostname_is_misdirected_on_every_stream() {
    let rig = Rig::start().await;
    let pair = rig.ca.device("meter-1", 7);
    // Without a certificate, from the open hostname towards the one that demands it, and back.
    let mut h2 = rig.h2("off.example.com", None).await.expect("connected");
    for (authority, status) in [
        ("off.example.com", 200),
        ("api.example.com", 421),
        ("API.example.com.", 421),
        ("unknown.example.com", 421),
        ("OFF.example.com", 200),
        ("off.example.com:9443", 200),
    ] {
        let answer = h2.get(authority).await.expect("answered");
        assert_eq!(answer.status, status, "{authority}");
    }
    let mut h1 = rig.h1("api.example.com", Some(&pair)).await.expect("connected");
    let answer = h1.get("off.example.com", &[]).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.reason()), (421, "host_misdirected"));
    // One rule, two names: a wildcard's certificate may be used for both.
    let mut wild = rig.h2("a.wild.example.com", Some(&pair)).await.expect("connected");
    assert_eq!(wild.get("b.wild.example.com").await.expect("served").status, 200);
    assert_eq!(wild.get("c.b.wild.example.com").await.expect("answered").status, 421);
}

/// Raw octets over TLS; what came back.
async fn raw(rig: &Rig, name: &str, request: &str) -> String {
    let config = rig.client(Some(&rig.ca.device("meter-1", 7)), &[]);
    let mut stream = rig.tls(rig.https, name, config).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_request_that_can_be_read_two_ways_is_read_in_none() {
    let rig = Rig::start().await;
    let refused = [
        "GET / HTTP/1.1\r\nHost: api.example.com\r\nHost: api.example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.example.com\r\nHost: off.example.com\r\n\r\n",
        "GET http://off.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@api.example.com\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: +1\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : api.example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.example.com\r\n X-Folded: 1\r\n\r\n",
        "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n",
    ];
    for request in refused {
        let request = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        let answer = raw(&rig, "api.example.com", &request).await;
        assert!(
            answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"),
            "{request}{answer}"
        );
    }
    let absolute =
        "GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n";
    assert!(raw(&rig, "api.example.com", absolute).await.starts_with("HTTP/1.1 200"));
}

/// With both lengths given, chunks count, and the origin never sees the other.
#[tokio::test]
async fn a_smuggled_request_stays_a_body() {
    let rig = Rig::start().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: off.example.com\r\n\r\n";
    for (first, second) in [
        ("Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n"),
        ("Transfer-Encoding: chunked\r\n", "Content-Length: 4\r\n"),
    ] {
        let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
        let request = format!(
            "POST / HTTP/1.1\r\nHost: api.example.com\r\n{first}{second}Connection: close\r\n\r\n{chunk}"
        );
        let answer = raw(&rig, "api.example.com", &request).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1 + answer.matches("smuggled").count(), "{answer}");
        assert!(answer.contains(&format!("body-bytes: {}", smuggled.len())), "{answer}");
        assert!(!answer.contains("content-length: 4\n"), "{answer}");
    }
}

#[tokio::test]
async fn only_websockets_are_upgraded_and_a_revocation_ends_them() {
    let rig = Rig::start().await;
    let h2c = "GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let answer = raw(&rig, "api.example.com", h2c).await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("h2c"), "{answer}");
    let config = rig.client(Some(&rig.ca.device("meter-1", 66)), &[b"http/1.1"]);
    let mut stream = rig.tls(rig.https, "api.example.com", config).await.expect("connected");
    let wish = "GET /ws HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(wish.as_bytes()).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream.write_all(b"ping").await.expect("written");
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.expect("an echo");
    assert_eq!(&echo, b"ping");
    assert_eq!(rig.edge.counters().connections_https, 1, "the tunnel counts");
    assert_eq!(rig.tell(vec![Event::Revoked(rig.ca.key(66))]), 1);
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut echo)).await.expect("in time");
    assert_eq!(ended.unwrap_or(0), 0);
}

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

#[tokio::test]
async fn an_origin_that_does_not_answer_is_given_up() {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let rig = Rig::with(|_| {}, |config| config.limits.answer_timeout = Duration::from_millis(200)).await;
    let entry = host(&rig.server_ca, "slow.example.com", HostMode::Off, Protocol::Https, address);
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
    let timeout = Duration::from_millis(400);
    let rig = Rig::with(|_| {}, |config| config.limits.answer_timeout = timeout).await;
    // More than all buffers on the way hold, and a trickle.
    for (name, taken, octets, pause, answer) in [
        ("stuck.example.com", 0, 64 * 1024 * 1024, Duration::ZERO, "HTTP/1.1 504"),
        ("slow.example.com", 1000, 1000, timeout / 200, "HTTP/1.1 200"),
    ] {
        let origin = reader(taken).await;
        let entry = host(&rig.server_ca, name, HostMode::Off, Protocol::Https, origin);
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

/// An HTTPS origin that wants a client certificate and names who showed it.
async fn tls_origin(server_ca: &TestCa, clients: &TestCa) -> std::net::SocketAddr {
    let pair = server_ca.sign(&{
        let mut params = rcgen::CertificateParams::new(["origin.internal".to_owned()]).expect("a name");
        // The edge judges origins by the machine's own clock.
        params.not_before = rig::at(1_000_000_000);
        params.not_after = rig::at(4_000_000_000);
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

#[tokio::test]
async fn a_head_without_end_is_cut_short() {
    let rig = Rig::start().await;
    let config = rig.client(None, &[]);
    let mut stream = rig.tls(rig.https, "off.example.com", config).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: off.example.com\r\n").await.expect("written");
    let line = format!("X-Long: {}\r\n", "a".repeat(1000));
    for _ in 0..100 {
        if stream.write_all(line.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ =
        tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("ended");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
}

/// Plain HTTP, and a PROXY header from somebody who is no proxy of ours.
#[tokio::test]
async fn what_is_no_tls_gets_no_answer_from_a_tls_port() {
    let rig = Rig::start().await;
    for strange in [
        &b"GET / HTTP/1.1\r\nHost: off.example.com\r\n\r\n"[..],
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x03\xe8\x01\xbb",
        b"\x10\x10\0\x04MQTT\x04\x02\0\0\0\x04abcd",
    ] {
        let mut stream = TcpStream::connect(rig.https).await.expect("connected");
        stream.write_all(strange).await.expect("written");
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok() && (answer.is_empty() || answer[0] == 21), "{answer:?}");
    }
    assert_eq!(rig.get("off.example.com", None).await.expect("served").status, 200);
}
