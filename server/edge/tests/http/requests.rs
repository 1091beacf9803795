//! What a client may not do with HTTP: another's hostname, forged headers, two readings of a request.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Request};
use http_body_util::StreamBody;
use hyper::body::Frame;
use muster_edge::Event;
use muster_policy::host::{HostMode, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::rig::{Rig, host};
use crate::script::{Script, Then};

/// Every spelling of a header that origins believe the edge about.
const FORGED: [&str; 19] = [
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
    "Client.Cert",
    "Cf.Cert.Verified",
    "cf~client~cert~sha256",
    "X-Forwarded!For",
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
    trailers.insert("cf.cert.verified", "forged".parse().expect("a value"));
    trailers.insert("x-checksum", "honest".parse().expect("a value"));
    let frames =
        [Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from("body"))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(IterStream(frames.into_iter()));
    let request = Request::post("https://api.example.com/echo")
        .header("te", "trailers")
        .header("trailer", "x-checksum, client-cert, cf_cert_verified, cf.cert.verified")
        .body(body);
    let response = sender.send_request(request.expect("a request")).await.expect("answered");
    let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("body-bytes: 4") && text.contains("honest"), "{text}");
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
pub(crate) async fn raw(rig: &Rig, name: &str, request: &str) -> String {
    said_within(Duration::from_secs(60), rig, name, request).await
}

/// The same for what may get no answer.
async fn said_within(patience: Duration, rig: &Rig, name: &str, request: &str) -> String {
    let config = rig.client(Some(&rig.ca.device("meter-1", 7)), &[]);
    let mut stream = rig.tls(rig.https, name, config).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
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

/// RFC 9112 §9.3.2: requests that come at once are answered in turn, each by its own host.
#[tokio::test]
async fn each_of_several_requests_at_once_is_for_its_own_host() {
    let rig = Rig::start().await;
    let requests = ["api.example.com", "off.example.com", "API.EXAMPLE.COM.", "unknown.example.com"]
        .map(|host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .concat();
    let last = "GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n";
    let answer = raw(&rig, "api.example.com", &(requests + last)).await;
    let statuses: Vec<_> = answer.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "421", "200", "421", "200"], "{answer}");
}

/// Time is turned forward once everything is on its way.
#[tokio::test]
async fn a_client_that_does_not_go_on_is_given_up() {
    let rig = Rig::start().await;
    let origin = Script::by(|_, _| (Vec::new(), Then::Stay)).await;
    let entry = host(&rig.server_ca, "raw.example.com", HostMode::Off, Protocol::Https, origin.address);
    rig.tell(vec![Event::Host(Box::new(entry))]);
    for (begun, reaches_origin) in [
        ("", false),
        ("GET / HTTP/1.1\r\nHost: raw.example.com\r\n", false),
        ("POST / HTTP/1.1\r\nHost: raw.example.com\r\nContent-Length: 9\r\n\r\nhalf", true),
    ] {
        let config = rig.client(None, &[b"http/1.1"]);
        let mut stream = rig.tls(rig.https, "raw.example.com", config).await.expect("connected");
        stream.write_all(begun.as_bytes()).await.expect("written");
        rig.until(|counters| counters.connections_https == 1).await;
        if reaches_origin {
            origin.until(|heard| heard.concat().contains("half")).await;
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(61)).await;
        tokio::time::resume();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{begun:?} is waited for");
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains(" 200 "), "{begun:?}: {answer}");
        rig.until(|counters| counters.connections_https == 0).await;
    }
    assert!(!origin.heard().concat().ends_with("0\r\n\r\n"));
}

/// What servers behind could take for the end of one request and the beginning of another.
#[tokio::test]
async fn a_request_that_is_not_framed_as_the_rfc_says_reaches_no_origin() {
    let rig = Rig::start().await;
    let origin = Script::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Then::Stay).await;
    let entry = host(&rig.server_ca, "raw.example.com", HostMode::Off, Protocol::Https, origin.address);
    rig.tell(vec![Event::Host(Box::new(entry))]);
    // Some of these connections stay open.
    let while_open = Duration::from_secs(5);
    let heads = [
        "GET / HTTP/1.1\r\nHost: raw.example.com\r\nX-Nul: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: raw.example.com\r\nX-Cr: a\rb: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: raw.example.com\r\nX Space: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: raw.example.com\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: raw.example.com\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: raw.example.com\r\nX-Tab\t: a\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: raw.example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: raw.example.com, off.example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: raw.example.com off.example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: raw.example.com:80:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: raw.example.com/x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: raw.example.com#x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: raw%2Eexample.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \r\n\r\n",
        "GET / HTTP/2.0\r\nHost: raw.example.com\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: raw.example.com\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: raw.example.com\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: raw.example.com\r\n\r\n",
        "GET\r\nHost: raw.example.com\r\n\r\n",
        "GET /\r\nHost: raw.example.com\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: raw.example.com\r\n\r\n",
        "GET https://raw.example.com@off.example.com/ HTTP/1.1\r\nHost: raw.example.com\r\n\r\n",
        "CONNECT raw.example.com:443 HTTP/1.1\r\nHost: raw.example.com:443\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: raw.example.com\r\nContent-Length: 1, 1\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: raw.example.com\r\nContent-Length: 0x1\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: raw.example.com\r\nContent-Length: -1\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: raw.example.com\r\nContent-Length: 18446744073709551617\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: raw.example.com\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: raw.example.com\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: raw.example.com\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: raw.example.com\r\nTransfer-Encoding: \r\nContent-Length: 1\r\n\r\na",
    ];
    let answers =
        join_all(heads.iter().map(|head| said_within(while_open, &rig, "raw.example.com", head))).await;
    for (head, answer) in heads.iter().zip(answers) {
        let status = answer.get(9..12).unwrap_or_default();
        assert!(matches!(status, "400" | "421" | ""), "{head:?}: {answer}");
    }
    assert_eq!(origin.heard(), [""; 0]);
    // Chunks that others count differently: the request may begin, but never ends.
    let bodies = [
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\naX0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "10000000000000001\r\na\r\n0\r\n\r\n",
        "1;a\nb\r\na\r\n0\r\n\r\n",
        "1 ; \"\n\"\r\na\r\n0\r\n\r\n",
    ];
    let begun = "POST / HTTP/1.1\r\nHost: raw.example.com\r\nTransfer-Encoding: chunked\r\n\r\n";
    let requests: Vec<_> = bodies.iter().map(|chunks| format!("{begun}{chunks}")).collect();
    join_all(requests.iter().map(|request| said_within(while_open, &rig, "raw.example.com", request))).await;
    let heard = origin.heard();
    assert!(heard.iter().all(|heard| !heard.ends_with("0\r\n\r\n")), "{heard:?}");
    // A body that breaks off is no whole one either.
    for half in [
        "POST / HTTP/1.1\r\nHost: raw.example.com\r\nContent-Length: 9\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: raw.example.com\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let config = rig.client(None, &[b"http/1.1"]);
        let mut stream = rig.tls(rig.https, "raw.example.com", config).await.expect("connected");
        stream.write_all(half.as_bytes()).await.expect("written");
        let before = origin.heard().len();
        origin.until(|heard| heard.len() > before || heard.iter().any(|heard| heard.contains("half"))).await;
        drop(stream);
        let heard = origin.heard();
        assert!(heard.iter().all(|heard| !heard.ends_with("0\r\n\r\n")), "{half:?}: {heard:?}");
    }
}

/// Servers that make variables of headers read `_` as `-`, some of them `.` too.
#[tokio::test]
async fn a_length_spelled_with_another_separator_is_none() {
    let rig = Rig::start().await;
    let mut h1 = rig.h1("off.example.com", None).await.expect("connected");
    let spelled =
        ["content_length", "transfer_encoding", "proxy_connection", "content.length", "transfer~encoding"];
    let sent: Vec<_> = spelled.iter().map(|name| (*name, "5")).chain([("x_mine", "5")]).collect();
    let answer = h1.get("off.example.com", &sent).await.expect("served");
    for (name, passes) in [
        ("content_length", false),
        ("transfer_encoding", false),
        ("proxy_connection", false),
        ("content.length", false),
        ("transfer~encoding", false),
        ("x_mine", true),
    ] {
        assert_eq!(answer.seen(name).is_some(), passes, "{name}: {}", answer.body);
    }
}

/// RFC 9110 §9.3.1: content of a GET has no meaning of its own, but an origin may know one.
#[tokio::test]
async fn a_body_of_unknown_length_reaches_the_origin_whatever_the_method() {
    let rig = Rig::start().await;
    for method in ["GET", "DELETE", "OPTIONS", "POST"] {
        let head = format!("{method} /x HTTP/1.1\r\nHost: off.example.com\r\nConnection: close");
        let request = format!("{head}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let answer = raw(&rig, "off.example.com", &request).await;
        assert!(answer.contains("body-bytes: 5"), "{method}: {answer}");
    }
    let config = rig.client(None, &[b"h2"]);
    let stream = rig.tls(rig.https, "off.example.com", config).await.expect("connected");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("h2");
    tokio::spawn(connection);
    let request = Request::get("https://off.example.com/x").body(()).expect("a request");
    let (answer, mut body) = sender.send_request(request, false).expect("sent");
    body.send_data(Bytes::from("hello"), true).expect("sent");
    let mut answer = answer.await.expect("answered").into_body();
    let text = answer.data().await.expect("a body").expect("read");
    assert!(String::from_utf8_lossy(&text).contains("body-bytes: 5"), "{text:?}");
}

#[tokio::test]
async fn every_method_is_the_origins_to_answer_but_those_that_speak_of_the_way() {
    let rig = Rig::start().await;
    for (line, status, seen) in [
        ("OPTIONS * HTTP/1.1", "200", "OPTIONS *"),
        ("OPTIONS /x HTTP/1.1", "200", "OPTIONS /x"),
        ("PROPFIND /x HTTP/1.1", "200", "PROPFIND /x"),
        ("PATCH /x?a=b HTTP/1.1", "200", "PATCH /x?a=b"),
        ("GET //other.example.com/x HTTP/1.1", "200", "GET //other.example.com/x"),
        ("GET /a/../b/%2e%2e/%00 HTTP/1.1", "200", "GET /a/../b/%2e%2e/%00"),
        ("GET http://off.example.com/x HTTP/1.1", "200", "GET /x"),
        ("GET http://off.example.com HTTP/1.1", "200", "GET /"),
        ("GET ftp://off.example.com/x HTTP/1.1", "200", "GET /x"),
        ("TRACE /x HTTP/1.1", "405", "allow: GET, HEAD"),
        ("TRACE /x HTTP/1.1", "405", "method_refused"),
        ("GET /x HTTP/1.1", "200", "via: 1.1 muster"),
        ("CONNECT off.example.com:443 HTTP/1.1", "400", "request_malformed"),
    ] {
        let host = if line.starts_with("CONNECT") { "off.example.com:443" } else { "off.example.com" };
        let request = format!("{line}\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = raw(&rig, "off.example.com", &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(seen),
            "{line}: {answer}"
        );
    }
}

/// Whatever of a request a client never ends, it is sent away: for its length, or as nothing of a body comes.
#[tokio::test(flavor = "multi_thread")]
async fn no_part_of_a_request_but_its_body_is_read_for_ever() {
    let rig = Rig::with(|_| {}, |config| config.limits.body_pause = Duration::from_secs(1)).await;
    let chunked = "POST / HTTP/1.1\r\nHost: off.example.com\r\nTransfer-Encoding: chunked\r\n\r\n";
    let floods = [
        ("a target", "GET /".to_owned(), "a"),
        ("a field", "GET / HTTP/1.1\r\nHost: off.example.com\r\nx: ".to_owned(), "a"),
        ("fields", "GET / HTTP/1.1\r\nHost: off.example.com\r\n".to_owned(), "x: a\r\n"),
        ("the size of a chunk", chunked.to_owned(), "0"),
        ("extensions of a chunk", format!("{chunked}1"), ";a=b"),
        (
            "extensions of chunks",
            chunked.to_owned(),
            "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=b\r\nx\r\n",
        ),
        ("a trailer", format!("{chunked}0\r\nx: "), "a"),
        ("trailers", format!("{chunked}0\r\n"), "x: a\r\n"),
    ];
    join_all(floods.map(async |(name, first, again)| {
        let config = rig.client(None, &[b"http/1.1"]);
        let stream = rig.tls(rig.https, "off.example.com", config).await.expect("connected");
        let (mut read, mut write) = tokio::io::split(stream);
        write.write_all(first.as_bytes()).await.expect("written");
        let many = again.repeat(16 * 1024 / again.len());
        let flooding = async { while write.write_all(many.as_bytes()).await.is_ok() {} };
        let answered = async {
            let mut answer = Vec::new();
            let _ = read.read_to_end(&mut answer).await;
        };
        // It closes, or breaks off.
        let ended = async { tokio::join!(flooding, answered) };
        assert!(
            tokio::time::timeout(Duration::from_secs(60), ended).await.is_ok(),
            "{name} is read for ever"
        );
    }))
    .await;
    assert_eq!(rig.get("off.example.com", None).await.expect("served").status, 200);
}
