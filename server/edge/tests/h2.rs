//! What a client may not do with h2: make streams faster than they are looked at, or have us reset them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a step that fails is a failed test, in a helper as in the test itself"
)]

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use muster_edge::Event;
use muster_policy::host::{HostMode, Protocol};
use rig::{Rig, host};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

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
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("ended").expect("no panic");
    let error = ended.expect_err("sent away");
    // The word on it can get lost, as a client that does not listen is still writing.
    assert!(error.is_io() || error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM), "{error:?}");
    assert_eq!(rig.get("off.example.com", None).await.expect("served").status, 200);
}

/// RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
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
        let ended = tokio::time::timeout(Duration::from_secs(10), &mut ended).await;
        assert!(ended.is_ok(), "{name}: the connection goes on");
        let reached = reached.load(Ordering::Relaxed) - before;
        // 128 resets that we made, and as many streams as may be open.
        assert!(reached <= 128 + 100, "{name}: {reached} requests reached the origin");
    }
    assert_eq!(rig.get("off.example.com", None).await.expect("served").status, 200);
}
