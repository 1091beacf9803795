//! What RFC 9113 says of frames, case by case, in the order of its sections; the list is that of h2spec's generic
//! and http2 groups, which no package archive has.
//!
//! Where a case has two codes and the RFC one, the second is the crate's: it calls most faults of size, of compression
//! and of settings PROTOCOL_ERROR. What becomes of the connection is the same.

use muster_edge::Event;
use muster_policy::host::{HostMode, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::h2::{PATIENCE, field, frame};
use crate::rig::{Rig, host};
use crate::script::{Script, Then};

const NAME: &str = "raw.example.com";

// RFC 9113 §6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

// RFC 9113 §7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// What has to come of some frames.
enum Due {
    /// GOAWAY with one of these codes, then the end of the connection.
    Away(&'static [u32]),
    /// RST_STREAM of this stream with one of these codes, or the same as [`Due::Away`].
    Reset(u32, &'static [u32]),
    /// The answer to the request on this stream.
    Served(u32),
    /// This frame.
    Said(Vec<u8>),
}

fn head() -> Vec<u8> {
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", NAME.as_bytes())];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

fn whole(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head())
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// A request whose body is still to come.
fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head())
}

fn cases() -> Vec<(&'static str, Vec<Vec<u8>>, Due)> {
    use Due::{Away, Reset, Said, Served};
    let too_long = vec![0; 16_385];
    vec![
        ("4.1: a frame of an unknown kind", vec![frame(0x16, 0, 0, &[0; 8]), whole(1)], Served(1)),
        (
            "4.1: flags that mean nothing",
            vec![frame(PING, 0x16, 0, b"12345678")],
            Said(frame(PING, ACK, 0, b"12345678")),
        ),
        (
            "4.1: the reserved bit",
            vec![frame(PING, 0, 1 << 31, b"12345678")],
            Said(frame(PING, ACK, 0, b"12345678")),
        ),
        (
            "4.2: data longer than a frame may be",
            vec![open(1), frame(DATA, 1, 1, &too_long)],
            Away(&[FRAME_SIZE_ERROR]),
        ),
        (
            "4.2: a head longer than a frame may be",
            vec![frame(HEADERS, 5, 1, &too_long)],
            Away(&[FRAME_SIZE_ERROR]),
        ),
        (
            "4.3: a head that can't be decoded",
            vec![frame(HEADERS, 5, 1, &[0x80])],
            Away(&[COMPRESSION_ERROR, PROTOCOL_ERROR]),
        ),
        (
            "4.3: another frame within a head",
            vec![frame(HEADERS, 1, 1, &head()), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255])],
            Away(&[PROTOCOL_ERROR]),
        ),
        (
            "4.3: another head within a head",
            vec![frame(HEADERS, 1, 1, &head()), whole(3)],
            Away(&[PROTOCOL_ERROR]),
        ),
        ("5.1: data on an idle stream", vec![frame(DATA, 1, 1, b"x")], Away(&[PROTOCOL_ERROR])),
        (
            "5.1: a reset of an idle stream",
            vec![frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])],
            Away(&[PROTOCOL_ERROR]),
        ),
        (
            "5.1: a window of an idle stream",
            vec![frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100])],
            Away(&[PROTOCOL_ERROR]),
        ),
        (
            "5.1: data behind the end",
            vec![whole(1), frame(DATA, 1, 1, b"x")],
            Reset(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        ("5.1: a head behind the end", vec![whole(1), whole(1)], Reset(1, &[STREAM_CLOSED, PROTOCOL_ERROR])),
        (
            "5.1: data behind a reset",
            vec![open(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), frame(DATA, 1, 1, b"x"), whole(3)],
            // §5.1 lets a receiver pass over what was on its way.
            Served(3),
        ),
        ("5.1.1: a stream of an even number", vec![whole(2)], Away(&[PROTOCOL_ERROR])),
        (
            "5.1.1: a stream of a lower number",
            vec![whole(5), whole(3)],
            Away(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        ("6.1: data of no stream", vec![frame(DATA, 1, 0, b"x")], Away(&[PROTOCOL_ERROR])),
        (
            "6.1: more padding than data",
            vec![open(1), frame(DATA, PADDED, 1, &[6, 1])],
            Away(&[PROTOCOL_ERROR]),
        ),
        ("6.2: a head of no stream", vec![frame(HEADERS, 5, 0, &head())], Away(&[PROTOCOL_ERROR])),
        (
            "6.2: more padding than head",
            vec![frame(HEADERS, 5 | PADDED, 1, &[9, 0x82])],
            Away(&[PROTOCOL_ERROR]),
        ),
        (
            "6.3: a priority of no stream",
            vec![frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 255])],
            Away(&[PROTOCOL_ERROR]),
        ),
        (
            "6.3: a priority that is too short",
            vec![frame(PRIORITY, 0, 1, &[0; 4])],
            Reset(1, &[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        ("6.4: a reset of no stream", vec![frame(RST_STREAM, 0, 0, &[0, 0, 0, 8])], Away(&[PROTOCOL_ERROR])),
        (
            "6.4: a reset that is too short",
            vec![open(1), frame(RST_STREAM, 0, 1, &[0; 3])],
            Away(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        (
            "6.5: an answer to settings that says something",
            vec![frame(SETTINGS, ACK, 0, &[0; 6])],
            Away(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        ("6.5: settings of a stream", vec![frame(SETTINGS, 0, 1, &[])], Away(&[PROTOCOL_ERROR])),
        (
            "6.5: settings that are cut off",
            vec![frame(SETTINGS, 0, 0, &[0, 3, 0])],
            Away(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        ("6.5.2: push is neither on nor off", vec![setting(2, 2)], Away(&[PROTOCOL_ERROR])),
        (
            "6.5.2: a window that is too large",
            vec![setting(4, 1 << 31)],
            Away(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]),
        ),
        ("6.5.2: frames that are too small", vec![setting(5, 16_383)], Away(&[PROTOCOL_ERROR])),
        ("6.5.2: frames that are too large", vec![setting(5, 1 << 24)], Away(&[PROTOCOL_ERROR])),
        ("6.5.2: an unknown setting", vec![setting(0xff, 1), whole(1)], Served(1)),
        ("6.5.3: settings are answered", vec![setting(3, 100)], Said(frame(SETTINGS, ACK, 0, &[]))),
        (
            "6.6: a client that pushes",
            vec![open(1), frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])],
            Away(&[PROTOCOL_ERROR]),
        ),
        (
            "6.7: a ping is answered",
            vec![frame(PING, 0, 0, b"h2spec!!")],
            Said(frame(PING, ACK, 0, b"h2spec!!")),
        ),
        ("6.7: a ping of a stream", vec![frame(PING, 0, 1, &[0; 8])], Away(&[PROTOCOL_ERROR])),
        (
            "6.7: a ping that is too short",
            vec![frame(PING, 0, 0, &[0; 6])],
            Away(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        ("6.8: a goodbye of a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])], Away(&[PROTOCOL_ERROR])),
        (
            "6.9: the window grows by nothing",
            vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])],
            Away(&[PROTOCOL_ERROR]),
        ),
        (
            "6.9: a stream's window grows by nothing",
            vec![open(1), frame(WINDOW_UPDATE, 0, 1, &[0; 4])],
            Reset(1, &[PROTOCOL_ERROR]),
        ),
        (
            "6.9: a window that is too short",
            vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])],
            Away(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ),
        (
            "6.9.1: the window grows beyond all bounds",
            vec![
                frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]),
                frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]),
            ],
            Away(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "6.9.1: a stream's window grows beyond all bounds",
            vec![open(1), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255])],
            Reset(1, &[FLOW_CONTROL_ERROR]),
        ),
        (
            "6.10: a head in two frames",
            vec![frame(HEADERS, 1, 1, &head()[..9]), frame(CONTINUATION, 4, 1, &head()[9..])],
            Served(1),
        ),
        (
            "6.10: more of a head that is whole",
            vec![whole(1), frame(CONTINUATION, 4, 1, &head())],
            Away(&[PROTOCOL_ERROR]),
        ),
        (
            "6.10: more of a head that is not there",
            vec![frame(CONTINUATION, 4, 1, &head())],
            Away(&[PROTOCOL_ERROR]),
        ),
        (
            "6.10: more of another stream's head",
            vec![frame(HEADERS, 1, 1, &head()[..9]), frame(CONTINUATION, 4, 3, &head()[9..])],
            Away(&[PROTOCOL_ERROR]),
        ),
    ]
}

/// Kind, flags, stream and payload of each whole frame.
fn read_frames(mut octets: &[u8]) -> Vec<(u8, u8, u32, &[u8])> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, s1, s2, s3, s4, rest @ ..] = octets {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).expect("a length");
        let Some((payload, after)) = rest.split_at_checked(length) else { break };
        frames.push((*kind, *flags, u32::from_be_bytes([*s1, *s2, *s3, *s4]), payload));
        octets = after;
    }
    frames
}

fn code(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|code| u32::from_be_bytes(*code))
}

fn is_away(octets: &[u8], codes: &[u32]) -> bool {
    read_frames(octets).iter().any(|(kind, _, _, payload)| {
        *kind == GOAWAY && payload.get(4..).and_then(code).is_some_and(|code| codes.contains(&code))
    })
}

fn is_done(octets: &[u8], has_ended: bool, due: &Due) -> bool {
    let frames = read_frames(octets);
    match due {
        Due::Away(codes) => has_ended && is_away(octets, codes),
        Due::Reset(stream, codes) => {
            let reset = |(kind, _, of, payload): &(u8, u8, u32, &[u8])| {
                *kind == RST_STREAM && of == stream && code(payload).is_some_and(|code| codes.contains(&code))
            };
            frames.iter().any(reset) || (has_ended && is_away(octets, codes))
        }
        Due::Served(stream) => {
            frames.iter().any(|(kind, _, of, payload)| *kind == DATA && of == stream && *payload == b"ok")
        }
        Due::Said(said) => octets.windows(said.len()).any(|window| window == said),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_taken_as_the_rfc_has_them() {
    let rig = Rig::start().await;
    let origin = Script::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Then::Stay).await;
    let entry = host(&rig.server_ca, NAME, HostMode::Off, Protocol::Https, origin.address);
    rig.tell(vec![Event::Host(Box::new(entry))]);
    let mut wrong = Vec::new();
    for (name, frames, due) in cases() {
        let config = rig.client(None, &[b"h2"]);
        let mut stream = rig.tls(rig.https, NAME, config).await.expect("connected");
        let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat();
        // What comes behind an error may find the connection closed.
        let _ = stream.write_all(&[preface, frames.concat()].concat()).await;
        let mut all = Vec::new();
        let reading = async {
            let mut has_ended = false;
            while !has_ended && !is_done(&all, has_ended, &due) {
                has_ended = !matches!(stream.read_buf(&mut all).await, Ok(1..));
            }
            has_ended
        };
        let has_ended = tokio::time::timeout(PATIENCE, reading).await.unwrap_or_default();
        if !is_done(&all, has_ended, &due) {
            wrong.push(format!("{name}: {:?}", read_frames(&all)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(rig.get("off.example.com", None).await.expect("served").status, 200);
}

/// §3.4: no h2 without its preface.
#[tokio::test]
async fn what_is_no_preface_ends_the_connection() {
    let rig = Rig::start().await;
    let config = rig.client(None, &[b"h2"]);
    let mut stream = rig.tls(rig.https, "off.example.com", config).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: off.example.com\r\n\r\n").await.expect("written");
    let mut all = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    assert!(ended.is_ok(), "it goes on");
    assert!(!String::from_utf8_lossy(&all).contains("HTTP/1.1"), "{all:?}");
}
