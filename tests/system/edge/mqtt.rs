//! MQTT through the whole server: connections that end by a word of the operator, and what outlives them.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_policy::reason::Reason;
use muster_tests::{Est, Maker, Server};

use super::{Holder, enrolled, set};

#[test]
fn a_revocation_ends_live_mqtt_connections_and_disturbs_nobody_else() {
    let server = Server::start();
    set(&server, "mqtt.example.test", &["--protocol", "mqtt"]);
    let (stays, goes) = (enrolled(&server, "meter-1"), enrolled(&server, "meter-2"));
    let connect = |holder: &Holder, id: &str| mqtt(&server, holder, id);
    let (mut staying, mut going) = (connect(&stays, "meter-1"), connect(&goes, "meter-2"));
    let connections = |query: &str| connections(&server, query);
    let both = connections("host=mqtt.example.test");
    let devices: Vec<_> = both.iter().map(|one| one["device"].as_str().expect("an id")).collect();
    assert_eq!(devices, ["meter-2", "meter-1"], "newest first");
    assert_eq!((&both[0]["protocol"], both[0]["peer"].is_string()), (&"mqtt".into(), true));
    let certificate = server.muster_json(&["cert", "list", "--device", "meter-1"])[0]["id"].clone();
    let query = format!("certificate={}", certificate.as_str().expect("an id"));
    assert_eq!(connections(&query), both[1..]);
    assert_eq!(connections("device=meter-2"), both[..1]);
    server.muster(&["cert", "revoke", "--device", "meter-2"]);
    is_sent_away(&mut going);
    is_served(&mut staying);
    drop(going);
    let deadline = Instant::now() + Duration::from_secs(60);
    while connections("") != both[1..] {
        assert!(Instant::now() < deadline, "the one that was cut is still listed");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Connects by MQTT 5 over the edge.
fn mqtt(server: &Server, holder: &Holder, id: &str) -> impl Read + Write + use<> {
    mqtt_at(server.mqtt_address(), server, holder, id)
}

/// The same over the edge there.
pub(super) fn mqtt_at(
    address: SocketAddr,
    server: &Server,
    holder: &Holder,
    id: &str,
) -> impl Read + Write + use<> {
    let door = Est::new(address, &server.ca_file()).named("mqtt.example.test");
    let mut stream = holder.at(door).connect().expect("a handshake");
    stream.write_all(&mqtt_connect(id)).expect("sent");
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).expect("CONNACK");
    assert_eq!(answer[0], 0x20);
    let mut rest = vec![0; usize::from(answer[1])];
    stream.read_exact(&mut rest).expect("CONNACK");
    assert_eq!(rest[1], 0, "accepted");
    stream
}

/// Who is connected, as the API tells it.
pub(super) fn connections(server: &Server, query: &str) -> Vec<serde_json::Value> {
    let (status, answer) = server.api("GET", &format!("/connections?{query}"), &[], "");
    assert_eq!(status, 200, "{answer}");
    answer["result"].as_array().expect("a list").clone()
}

/// The connection ends with DISCONNECT 0x98, administrative action (MQTT 5 §3.14.2.1).
pub(super) fn is_sent_away(stream: &mut impl Read) {
    let mut last = Vec::new();
    let _ = stream.read_to_end(&mut last);
    assert_eq!(last.first_chunk::<3>().map(|head| (head[0], head[2])), Some((0xe0, 0x98)), "{last:02x?}");
}

/// The connection is answered a PINGREQ.
pub(super) fn is_served(stream: &mut (impl Read + Write)) {
    stream.write_all(&[0xc0, 0]).expect("sent");
    let mut pong = [0; 2];
    stream.read_exact(&mut pong).expect("PINGRESP");
    assert_eq!(pong, [0xd0, 0]);
}

#[test]
fn an_operator_ends_live_connections_and_who_has_its_right_comes_again() {
    let server = Server::start();
    set(&server, "mqtt.example.test", &["--protocol", "mqtt"]);
    let (stays, goes) = (enrolled(&server, "meter-1"), enrolled(&server, "meter-2"));
    let mut staying = mqtt(&server, &stays, "meter-1");
    let certificate = server.muster_json(&["cert", "list", "--device", "meter-2"])[0]["id"].clone();
    let close = |which: &[&str]| {
        let args: Vec<&str> = [&["connection", "close"], which].concat();
        server.muster_json(&args)["closed"].clone()
    };
    let number = || {
        let of_device = connections(&server, "device=meter-2");
        assert_eq!(of_device.len(), 1, "{of_device:?}");
        of_device[0]["number"].to_string()
    };
    let by_certificate = ["--cert", certificate.as_str().expect("an id")];
    for way in ["device", "certificate", "number"] {
        let mut going = mqtt(&server, &goes, "meter-2");
        let closed = match way {
            "device" => close(&["--device", "meter-2", "--host", "mqtt.example.test"]),
            "certificate" => close(&by_certificate),
            _ => close(&[&number()]),
        };
        assert_eq!(closed, 1, "by {way}");
        is_sent_away(&mut going);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !connections(&server, "device=meter-2").is_empty() {
            assert!(Instant::now() < deadline, "by {way}: still listed");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    is_served(&mut staying);
    assert_eq!(close(&["--device", "meter-2"]), 0, "it is away");
    let (status, entries) = server.api("GET", "/audit?action=connections-closed", &[], "");
    assert_eq!(status, 200, "{entries}");
    let entries = entries["result"].as_array().expect("a list");
    let devices: Vec<_> = entries.iter().map(|entry| &entry["subjects"]["device"]).collect();
    assert_eq!(devices, ["meter-2"; 3]);
    let cut = format!("reason=\"{}\"", Reason::ConnectionClosed.code());
    let metrics = server.metrics();
    assert!(metrics.lines().any(|line| line.contains(&cut) && line.ends_with(" 3")), "{metrics}");
}

#[test]
fn an_mqtt_client_whose_device_is_suspended_is_told_that_it_has_no_right() {
    let server = Server::start();
    set(&server, "mqtt.example.test", &["--protocol", "mqtt"]);
    let device = enrolled(&server, "meter-1");
    server.muster(&["device", "suspend", "meter-1"]);
    let door = Est::new(server.mqtt_address(), &server.ca_file()).named("mqtt.example.test");
    let mut stream = device.at(door).connect().expect("its certificate is good");
    stream.write_all(&mqtt_connect("meter-1")).expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer, [0x20, 3, 0, 0x87, 0], "CONNACK, not authorized");
}

/// Everyone reads what `speakers` say.
const FLEET: &str = r#"
[[broker.rules]]
subscribe = ["fleet/#"]

[[broker.rules]]
groups = ["speakers"]
publish = ["fleet/#"]
"#;

#[test]
fn what_a_device_retained_is_given_out_only_while_it_may_speak() {
    let mut server = Server::with_config(FLEET);
    set(&server, "mqtt.example.test", &["--protocol", "mqtt"]);
    let put_in = |groups: &str| {
        let body = serde_json::json!({ "groups": [groups] }).to_string();
        let (status, answer) = server.api("PATCH", "/devices/speaker", &[], &body);
        assert_eq!(status, 200, "{answer}");
    };
    let (speaker, meter) = (enrolled(&server, "speaker"), enrolled(&server, "meter-1"));
    put_in("speakers");
    retain(&server, &speaker);
    come_to(&server, &meter, 1);
    server.muster(&["device", "suspend", "speaker"]);
    come_to(&server, &meter, 0);
    server.muster(&["device", "resume", "speaker"]);
    come_to(&server, &meter, 1);
    put_in("others");
    come_to(&server, &meter, 0);
    put_in("speakers");
    come_to(&server, &meter, 1);
    server.muster(&["cert", "revoke", "--device", "speaker"]);
    come_to(&server, &meter, 0);
    let withheld =
        |line: &str| line.starts_with("muster_mqtt_retained_withheld_total") && !line.ends_with(" 0");
    assert!(server.metrics().lines().any(withheld), "{}", server.metrics());
    retain(&server, &enrolled(&server, "speaker"));
    come_to(&server, &meter, 1);
    server.muster(&["device", "retire", "speaker"]);
    come_to(&server, &meter, 0);
    server.terminate();
    server.serve_again();
    come_to(&server, &meter, 0);
}

/// Retains an order to the fleet.
fn retain(server: &Server, speaker: &Holder) {
    let mut stream = mqtt(server, speaker, "speaker");
    stream.write_all(b"\x33\x12\x00\x0bfleet/order\x00\x01\x00go").expect("sent");
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("PUBACK");
    let mut acknowledged = vec![0; usize::from(head[1])];
    stream.read_exact(&mut acknowledged).expect("PUBACK");
    assert_eq!((head[0], &acknowledged[..2]), (0x40, &[0, 1][..]));
}

/// A CA below the account's own one is revoked by its name, or by the CRL of the one above it.
#[test]
fn what_a_device_retained_goes_with_the_revoked_ca_above_it() {
    let mut server = Server::with_config(&FLEET.replace("groups = [\"speakers\"]\n", ""));
    let (root, ca) = Maker::accepted_by(&server);
    set(&server, "mqtt.example.test", &["--protocol", "mqtt", "--ca", &ca]);
    let (named, listed) = (root.below("North CA"), root.below("South CA"));
    let serial_above = |holder: &Holder| {
        let (_, read) = x509_parser::parse_x509_certificate(&holder.chain[1]).expect("a certificate");
        read.raw_serial().to_vec()
    };
    let meter = Holder::from(root.device("meter-1"));
    let north = Holder::from(named.device("speaker"));
    retain(&server, &north);
    come_to(&server, &meter, 1);
    let serial: String = serial_above(&north).iter().map(|octet| format!("{octet:02x}")).collect();
    server.muster(&["cert", "revoke", "--ca", &ca, "--serial", &serial]);
    come_to(&server, &meter, 0);
    // The other is revoked when the message and its sender come from the broker's file.
    let south = Holder::from(listed.device("speaker"));
    retain(&server, &south);
    server.terminate();
    server.serve_again();
    come_to(&server, &meter, 1);
    let file = server.scratch().join("maker.crl");
    std::fs::write(&file, root.crl(1, 3600, &[&serial_above(&south)])).expect("written");
    server.muster(&["ca", "take-crl", &ca, &file.display().to_string()]);
    come_to(&server, &meter, 0);
    retain(&server, &Holder::from(root.device("speaker")));
    come_to(&server, &meter, 1);
}

/// Waits until a new subscription to all of the fleet gets so many retained messages.
#[track_caller]
fn come_to(server: &Server, holder: &Holder, expected: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut stream = mqtt(server, holder, "meter-1");
        // SUBSCRIBE, and a ping whose answer comes behind what is retained.
        stream.write_all(b"\x82\x0d\x00\x02\x00\x00\x07fleet/#\x00\xc0\x00").expect("sent");
        let mut firsts = Vec::new();
        while firsts.last() != Some(&0xd0) {
            let mut head = [0; 2];
            stream.read_exact(&mut head).expect("a packet");
            stream.read_exact(&mut vec![0; usize::from(head[1])]).expect("a packet");
            firsts.push(head[0]);
        }
        let count = firsts.iter().filter(|first| **first & 0xf0 == 0x30).count();
        if count == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{count} came, not {expected}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// CONNECT of MQTT 5 without keep alive.
fn mqtt_connect(id: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x05\x02\x00\x00\x00".to_vec();
    body.extend_from_slice(&u16::try_from(id.len()).expect("short").to_be_bytes());
    body.extend_from_slice(id.as_bytes());
    let mut packet = vec![0x10, u8::try_from(body.len()).expect("short")];
    packet.extend(body);
    packet
}
