//! What a client may not do with h2: make streams faster than they are looked at, or have us reset them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use muster_edge::Event;
use muster_policy::host::{HostMode, Protocol};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::rig::{self, Rig, host};
use crate::script::{Script, Then};

/// What ends a wait that should have ended long before, also on a machine with other work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Streams that are opened and reset end the connection, not the edge (CVE-2023-44487).
#[tokio::test]
async fn a_storm_of_resets_ends_the_connection() {
    let rig = Rig::start().await;
    let config = rig.client(None, &[b"h2"]);
    let stream = rig.tls(rig.https, "off.example.com", config).await.expect("connected");
    let (sender, connection) = h2::client::handshake(stream).await.expect("h2");
    let ended = tokio::spawn(connection);
    let mut sender = sender;
    for _ in 0..20_000 {
        let Ok(ready) = sender.clone().ready().await else { break };
        sender = ready;
        let request = Request::get("https://off.example.com/").body(()).expect("a request");
        let Ok((response, mut stream)) = sender.send_request(request, false) else { break };
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        tokio::task::yield_now().await;
        if ended.is_finished() {
            break;
        }
    }
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("ended").expect("no panic");
    let error = ended.expect_err("sent away");
    // The word on it can get lost, as a client that does not listen is still writing.
    assert!(error.is_io() || error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM), "{error:?}");
    assert_eq!(rig.get("off.example.com", None).await.expect("served").status, 200);
}

/// RFC 9113 §4.1.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
/// END_STREAM and END_HEADERS.
const WHOLE_REQUEST: u8 = 5;

/// A request, and the frame by which it makes the server reset its stream (CVE-2025-8671): the client
/// itself resets nothing, so nothing that counts the client's resets sees it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_makes_us_reset_its_streams_is_sent_away() {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = socket.local_addr().expect("an address");
    let reached = Arc::new(AtomicUsize::new(0));
    let counted = reached.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = socket.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            held.push(stream);
        }
    });
    let rig = Rig::start().await;
    let entry = host(&rig.server_ca, "slow.example.com", HostMode::Off, Protocol::Https, origin);
    rig.tell(vec![Event::Host(Box::new(entry))]);
    // RFC 7541 §6: GET, https, `/`, and an authority in full.
    let head = [&[0x82, 0x87, 0x84, 0x41, 16][..], b"slow.example.com"].concat();
    type Trick<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let tricks: [(&str, Trick<'_>); 6] = [
        ("a window that grows by nothing", &|id| frame(WINDOW_UPDATE, 0, id, &[0; 4])),
        ("a window beyond all bounds", &|id| frame(WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff])),
        ("data after the end", &|id| frame(DATA, 0, id, b"x")),
        ("a head after the end", &|id| frame(HEADERS, WHOLE_REQUEST, id, &head)),
        ("a priority that is too short", &|id| frame(PRIORITY, 0, id, &[0; 4])),
        ("a stream that waits for itself", &|id| {
            frame(PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[1]].concat())
        }),
    ];
    for (name, trick) in tricks {
        let before = reached.load(Ordering::Relaxed);
        let config = rig.client(None, &[b"h2"]);
        let stream = rig.tls(rig.https, "slow.example.com", config).await.expect("connected");
        let (mut read, mut write) = tokio::io::split(stream);
        let mut ended = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat();
        write.write_all(&preface).await.expect("written");
        for id in (1..10_000).step_by(2) {
            let request = [frame(HEADERS, WHOLE_REQUEST, id, &head), trick(id)].concat();
            if write.write_all(&request).await.is_err() || ended.is_finished() {
                break;
            }
            // Each gets as far as it can.
            tokio::task::yield_now().await;
        }
        let ended = tokio::time::timeout(PATIENCE, &mut ended).await;
        assert!(ended.is_ok(), "{name}: the connection goes on");
        let reached = reached.load(Ordering::Relaxed) - before;
        // 128 resets that we made, and as many streams as may be open.
        assert!(reached <= 128 + 100, "{name}: {reached} requests reached the origin");
    }
    assert_eq!(rig.get("off.example.com", None).await.expect("served").status, 200);
}

#[tokio::test]
async fn streams_and_heads_have_bounds() {
    let rig = Rig::start().await;
    let config = rig.client(None, &[b"h2"]);
    let stream = rig.tls(rig.https, "off.example.com", config).await.expect("connected");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("h2");
    tokio::spawn(connection);
    for (length, served) in [(30 * 1024, true), (33 * 1024, false)] {
        let request = Request::get("https://off.example.com/").header("x-long", "a".repeat(length));
        sender = sender.ready().await.expect("open");
        let (answer, _) = sender.send_request(request.body(()).expect("a request"), true).expect("sent");
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("in time");
        assert_eq!(answer.is_ok_and(|answer| answer.status() == 200), served, "{length} octets");
    }
    assert_eq!(sender.current_max_send_streams(), 100);
}

/// It answers pings all the while, and opens no window.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_of_a_stream_is_sent_away() {
    let rig = Rig::with(|_| {}, |config| config.limits.write_timeout = Duration::from_secs(1)).await;
    let origin = rig::endless().await;
    let entry = host(&rig.server_ca, "endless.example.com", HostMode::Off, Protocol::Https, origin);
    rig.tell(vec![Event::Host(Box::new(entry))]);
    let connect = async || {
        let config = rig.client(None, &[b"h2"]);
        let stream = rig.tls(rig.https, "endless.example.com", config).await.expect("connected");
        let (sender, connection) = h2::client::handshake(stream).await.expect("h2");
        (sender.ready().await.expect("open"), tokio::spawn(connection))
    };
    let ask = || Request::get("https://endless.example.com/").body(()).expect("a request");
    let ((mut reads, mut kept), (mut stalls, ended)) = (connect().await, connect().await);
    let (answer, _) = stalls.send_request(ask(), true).expect("sent");
    let _held = answer.await.expect("answered");
    let (answer, _) = reads.send_request(ask(), true).expect("sent");
    let mut body = answer.await.expect("answered").into_body();
    let reading = async {
        while let Some(Ok(piece)) = body.data().await {
            body.flow_control().release_capacity(piece.len()).expect("taken");
        }
    };
    tokio::select! {
        ended = tokio::time::timeout(PATIENCE, ended) => assert!(ended.is_ok(), "it goes on"),
        () = reading => panic!("who reads is served"),
        _ = &mut kept => panic!("who reads is served"),
    }
}

/// An h2 client with this window of its own, at a new hostname with an answer of so many octets.
async fn visitor(
    rig: &Rig,
    window: u32,
    octets: usize,
) -> (h2::RecvStream, JoinHandle<Result<(), h2::Error>>) {
    let says = format!("HTTP/1.1 200 OK\r\nContent-Length: {octets}\r\n\r\n{}", "x".repeat(octets));
    let origin = Script::start(says, Then::Stay).await;
    let entry = host(&rig.server_ca, "held.example.com", HostMode::Off, Protocol::Https, origin.address);
    rig.tell(vec![Event::Host(Box::new(entry))]);
    let config = rig.client(None, &[b"h2"]);
    let stream = rig.tls(rig.https, "held.example.com", config).await.expect("connected");
    let builder = h2::client::Builder::new().initial_window_size(window).handshake::<_, Bytes>(stream);
    let (sender, connection) = builder.await.expect("h2");
    let ended = tokio::spawn(connection);
    let request = Request::get("https://held.example.com/").body(()).expect("a request");
    let mut sender = sender.ready().await.expect("open");
    let (answer, _) = sender.send_request(request, true).expect("sent");
    (answer.await.expect("answered").into_body(), ended)
}

/// RFC 9113 §6.9: no window, or so small a one that all of the answer waits for the rest of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_holds_the_end_of_an_answer_is_sent_away() {
    let rig = Rig::with(|_| {}, |config| config.limits.write_timeout = Duration::from_secs(1)).await;
    for (window, octets) in [(0, 1), (0, 7_000), (1, 7_000), (1, 20_000), (6_999, 7_000)] {
        let (_held, ended) = visitor(&rig, window, octets).await;
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        assert!(ended.is_ok(), "with a window of {window} it goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_an_answer_slowly_gets_it_all() {
    let rig = Rig::with(|_| {}, |config| config.limits.write_timeout = Duration::from_secs(2)).await;
    let (mut body, _connection) = visitor(&rig, 1_000, 10_000).await;
    let mut taken = 0;
    while let Some(piece) = body.data().await {
        let octets = piece.expect("who reads is served").len();
        tokio::time::sleep(Duration::from_millis(500)).await;
        body.flow_control().release_capacity(octets).expect("taken");
        taken += octets;
    }
    assert_eq!(taken, 10_000);
}

/// RFC 7541 §6.2.2: a field as it is, whatever it is.
pub(crate) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = |text: &[u8]| u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("short");
    [&[0, length(name)][..], name, &[length(value)], value].concat()
}

/// Says this to a connection of its own, as one write behind the preface; what the server said until it closed,
/// or until it was silent.
async fn said(rig: &Rig, name: &str, frames: &[u8]) -> Vec<u8> {
    use tokio::io::AsyncReadExt as _;
    let config = rig.client(None, &[b"h2"]);
    let mut stream = rig.tls(rig.https, name, config).await.expect("connected");
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[]), frames].concat();
    stream.write_all(&preface).await.expect("written");
    let (mut all, mut octets) = (Vec::new(), [0; 4096]);
    while let Ok(Ok(count @ 1..)) =
        tokio::time::timeout(Duration::from_secs(2), stream.read(&mut octets)).await
    {
        all.extend_from_slice(&octets[..count]);
    }
    all
}

/// Requests that HTTP/1.1 would have for two, or for another one, when they are put into its words.
#[tokio::test]
async fn what_h1_would_read_two_ways_comes_to_no_origin() {
    let rig = Rig::start().await;
    let origin = Script::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Then::Stay).await;
    let entry = host(&rig.server_ca, "raw.example.com", HostMode::Off, Protocol::Https, origin.address);
    rig.tell(vec![Event::Host(Box::new(entry))]);
    let usual = |method: &[u8]| {
        [
            field(b":method", method),
            field(b":scheme", b"https"),
            field(b":path", b"/"),
            field(b":authority", b"raw.example.com"),
        ]
        .concat()
    };
    let get = usual(b"GET");
    let without = |gone: &[u8]| {
        let all: [(&[u8], &[u8]); 4] = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":path", b"/"),
            (b":authority", b"raw.example.com"),
        ];
        all.iter()
            .filter(|(name, _)| *name != gone)
            .flat_map(|(name, value)| field(name, value))
            .collect::<Vec<_>>()
    };
    let with = |name: &[u8], value: &[u8]| [get.clone(), field(name, value)].concat();
    let instead = |name: &[u8], value: &[u8]| [without(name), field(name, value)].concat();
    let whole = |head: Vec<u8>| frame(HEADERS, WHOLE_REQUEST, 1, &head);
    let posted = |length: &[u8], body: &[u8]| {
        let head = [usual(b"POST"), field(b"content-length", length)].concat();
        [frame(HEADERS, 4, 1, &head), frame(DATA, 1, 1, body)].concat()
    };
    let cases: [(&str, Vec<u8>); 39] = [
        ("a line end in a value", whole(with(b"x", b"a\r\nx-smuggled: b"))),
        ("a line feed in a value", whole(with(b"x", b"a\nb: c"))),
        ("a zero in a value", whole(with(b"x", b"a\0b"))),
        ("a line end in a name", whole(with(b"x: a\r\ny", b"b"))),
        ("a colon in a name", whole(with(b"host: off.example.com", b"b"))),
        ("capitals in a name", whole(with(b"X-Capital", b"b"))),
        ("a space in a name", whole(with(b"x y", b"b"))),
        ("no name", whole(with(b"", b"b"))),
        ("transfer-encoding", whole(with(b"transfer-encoding", b"chunked"))),
        ("connection", whole(with(b"connection", b"close"))),
        ("upgrade", whole(with(b"upgrade", b"websocket"))),
        ("keep-alive", whole(with(b"keep-alive", b"x"))),
        ("proxy-connection", whole(with(b"proxy-connection", b"x"))),
        ("te that is not trailers", whole(with(b"te", b"gzip"))),
        ("two methods", whole(with(b":method", b"POST"))),
        ("two paths", whole(with(b":path", b"/other"))),
        ("two authorities", whole(with(b":authority", b"off.example.com"))),
        ("a pseudo header of answers", whole(with(b":status", b"200"))),
        ("an unknown pseudo header", whole(with(b":cookie", b"a"))),
        ("a pseudo header behind others", whole([field(b"x", b"y"), get.clone()].concat())),
        ("no method", whole(without(b":method"))),
        ("no path", whole(without(b":path"))),
        ("no scheme", whole(without(b":scheme"))),
        ("no host at all", whole(without(b":authority"))),
        ("an empty path", whole(instead(b":path", b""))),
        ("a path with a space", whole(instead(b":path", b"/ HTTP/1.1"))),
        ("a path with a line end", whole(instead(b":path", b"/\r\nx: y"))),
        ("a method with a space", whole(instead(b":method", b"GET / HTTP/1.1"))),
        ("a method with a line end", whole(instead(b":method", b"GET\r\n"))),
        ("a user in the authority", whole(instead(b":authority", b"x@raw.example.com"))),
        ("a path in the authority", whole(instead(b":authority", b"raw.example.com/x"))),
        ("another host", whole(with(b"host", b"off.example.com"))),
        (
            "two hosts",
            whole([with(b"host", b"raw.example.com"), field(b"host", b"raw.example.com")].concat()),
        ),
        (
            "connect",
            whole([field(b":method", b"CONNECT"), field(b":authority", b"raw.example.com")].concat()),
        ),
        (
            "connect for a websocket",
            whole([instead(b":method", b"CONNECT"), field(b":protocol", b"websocket")].concat()),
        ),
        (
            "two lengths",
            [
                frame(
                    HEADERS,
                    4,
                    1,
                    &[usual(b"POST"), field(b"content-length", b"1"), field(b"content-length", b"2")]
                        .concat(),
                ),
                frame(DATA, 1, 1, b"a"),
            ]
            .concat(),
        ),
        ("a length that is none", posted(b"+1", b"a")),
        ("more than the length", posted(b"0", b"GET /smuggled HTTP/1.1\r\n\r\n")),
        ("less than the length", posted(b"50", b"a")),
    ];
    join_all(cases.iter().map(|(_, frames)| said(&rig, "raw.example.com", frames))).await;
    for heard in origin.heard() {
        // A body may have begun when it turns out to be another one than was said: it never ends then.
        let is_short = heard.contains("content-length: 50") && heard.ends_with("\r\n\r\na");
        assert!(heard.is_empty() || is_short, "{heard}");
    }
    let answer = said(&rig, "raw.example.com", &whole(get.clone())).await;
    assert!(answer.windows(2).any(|window| window == b"ok"), "the frames are good ones");
    assert_eq!(origin.heard().concat().matches("GET / HTTP/1.1").count(), 1);
}

const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const RST_STREAM: u8 = 3;

/// Frames that cost the sender next to nothing (CVE-2019-9512, -9514, -9515, -9518, CVE-2024-27316 and others like
/// them), from a client that takes no answer: it is sent away, or not read any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_frames_is_not_read_for_ever() {
    let rig = Rig::start().await;
    let head = [&[0x82, 0x87, 0x84, 0x41, 15][..], b"off.example.com"].concat();
    let begun = frame(HEADERS, 0, 1, &head);
    let open = frame(HEADERS, 4, 1, &head);
    type Flood<'a> = (&'a str, Vec<u8>, &'a dyn Fn(u32) -> Vec<u8>);
    let floods: [Flood<'_>; 7] = [
        ("settings", Vec::new(), &|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0x10, 0])),
        ("pings", Vec::new(), &|_| frame(PING, 0, 0, &[0; 8])),
        ("a head without end", begun.clone(), &|_| frame(CONTINUATION, 0, 1, &field(b"x", &[b'a'; 100]))),
        ("a head that says nothing for ever", begun, &|_| frame(CONTINUATION, 0, 1, &[])),
        ("data of nothing", open.clone(), &|_| frame(DATA, 0, 1, &[])),
        ("resets of what is not there", Vec::new(), &|_| frame(RST_STREAM, 0, 2, &[0; 4])),
        ("bombs of the header table", Vec::new(), &|number| {
            // One field into the table, then as often as a frame has room for.
            let bomb = [&[0x40, 1, b'x', 126][..], &[b'a'; 126], &[0xbe; 16_000]].concat();
            frame(HEADERS, WHOLE_REQUEST, 1 + 2 * number, &[&head[..], &bomb].concat())
        }),
    ];
    // What sockets and windows on the way hold is less.
    const MOST: usize = 64 * 1024 * 1024;
    join_all(floods.map(async |(name, first, flood)| {
        let config = rig.client(None, &[b"h2"]);
        let stream = rig.tls(rig.https, "off.example.com", config).await.expect("connected");
        let (_read, mut write) = tokio::io::split(stream);
        let preface =
            [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[]), &first].concat();
        write.write_all(&preface).await.expect("written");
        let (mut sent, mut number) = (0, 0);
        loop {
            let many: Vec<u8> = (0..64)
                .flat_map(|_| {
                    number += 1;
                    flood(number - 1)
                })
                .collect();
            sent += many.len();
            // Gone, or not read.
            match tokio::time::timeout(Duration::from_secs(2), write.write_all(&many)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
            assert!(sent < MOST, "{name}: {number} frames were read");
        }
        assert_eq!(rig.get("off.example.com", None).await.expect("served").status, 200, "{name}");
    }))
    .await;
}
