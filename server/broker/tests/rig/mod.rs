//! Clients that speak raw packets to a broker in this process, over pipes.
//!
//! Packets are octets here, written by hand from the standard, so that the broker's own codec proves
//! nothing about itself.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of the rig")]

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_broker::{Broker, BrokerConfig, Code, Cut, Cutter, Ended, Peer};
use muster_policy::access::Holder;
use muster_policy::identity::{AccountId, CaId, Fingerprint, Serial};
use muster_policy::mqtt::Unjudged;
use muster_policy::time::UnixTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

/// A packet as it is on the wire: first octet and body.
pub type Packet = (u8, Vec<u8>);

/// A broker with a configuration in TOML.
pub fn broker(config: &str) -> Broker {
    Broker::start(&config_of(config), UnixTime::from_secs(1_800_000_000)).expect("starts")
}

pub fn config_of(config: &str) -> BrokerConfig {
    toml::from_str(config).expect("a configuration")
}

/// Everyone may do everything, without a certificate.
pub const OPEN: &str = "[anonymous]\npublish = ['#', '$x/#']\nsubscribe = ['#', '$x/#']\n";

pub fn holder(device: &str, groups: &[&str]) -> Arc<Holder> {
    Arc::new(Holder {
        account: AccountId::from_bytes([1; 16]),
        ca: CaId::from_bytes([2; 16]),
        anchor: CaId::from_bytes([2; 16]),
        serial: Serial::from_bytes(&[1, 2, 3]).expect("a serial"),
        fingerprint: Fingerprint::from_bytes([3; 32]),
        above: Vec::new(),
        device: device.parse().expect("a device id"),
        groups: groups.iter().map(|group| (*group).to_owned()).collect::<BTreeSet<_>>(),
        not_after: UnixTime::from_secs(1_900_000_000),
    })
}

pub fn peer(holder: Option<Arc<Holder>>, account: u8, cut: Cut) -> Peer {
    Peer {
        account: AccountId::from_bytes([account; 16]),
        holder,
        host: "mqtt.example.com".parse().expect("a hostname"),
        source: "192.0.2.7:4000".parse().expect("an address"),
        cut,
        judge: Arc::new(Unjudged),
    }
}

/// A client's end of a connection.
pub struct Client {
    pub stream: DuplexStream,
    pub served: JoinHandle<Ended>,
    pub cutter: Option<Cutter>,
}

/// A client that has sent nothing yet.
pub fn dial(broker: &Broker, holder: Option<Arc<Holder>>) -> Client {
    dial_account(broker, holder, 1)
}

pub fn dial_account(broker: &Broker, holder: Option<Arc<Holder>>, account: u8) -> Client {
    let (stream, theirs) = tokio::io::duplex(16 * 1024);
    let (cutter, cut) = Cut::new();
    let broker = broker.clone();
    let served = tokio::spawn(async move { broker.serve(theirs, peer(holder, account, cut)).await });
    Client { stream, served, cutter: Some(cutter) }
}

/// A client that the edge does not let in.
pub fn dial_to_be_refused(broker: &Broker, code: Code) -> Client {
    let (stream, theirs) = tokio::io::duplex(16 * 1024);
    let broker = broker.clone();
    let served = tokio::spawn(async move { broker.refuse(theirs, code).await });
    Client { stream, served, cutter: None }
}

/// An anonymous client that is connected.
pub async fn connected(broker: &Broker, connect: Connect) -> Client {
    let mut client = dial(broker, None);
    client.send(&connect.octets()).await;
    let (first, body) = client.receive().await;
    assert_eq!((first, body[1]), (0x20, 0), "{body:02x?}");
    client
}

impl Client {
    pub async fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).await.expect("the broker reads");
    }

    /// The next packet.
    pub async fn receive(&mut self) -> Packet {
        let packet = timeout(Duration::from_secs(20), self.read()).await.expect("a packet in time");
        packet.expect("a packet, not the end")
    }

    /// The next packet, or none when the broker has closed.
    pub async fn receive_or_end(&mut self) -> Option<Packet> {
        timeout(Duration::from_secs(20), self.read()).await.expect("a packet or the end in time")
    }

    /// Sends what the broker may not read any more.
    pub async fn try_send(&mut self, octets: &[u8]) {
        // It may have closed.
        let _ = self.stream.write_all(octets).await;
    }

    /// Nothing comes for a while.
    pub async fn receive_nothing(&mut self) {
        let wait = timeout(Duration::from_millis(100), self.read()).await;
        assert!(wait.is_err(), "unexpected: {wait:02x?}");
    }

    /// The broker closes without a word.
    pub async fn is_closed(&mut self) {
        let end = timeout(Duration::from_secs(20), self.read()).await.expect("an end in time");
        assert_eq!(end, None);
    }

    /// The broker says goodbye with this code and closes.
    pub async fn is_disconnected(&mut self, code: u8) {
        assert_eq!(self.receive().await, (0xe0, vec![code, 0]));
        self.is_closed().await;
    }

    /// Subscribes with packet id 10 and gets the code.
    pub async fn subscribe(&mut self, version: u8, filter: &str, options: u8) -> u8 {
        self.send(&subscribe(version, 10, filter, options)).await;
        let (first, body) = self.receive().await;
        assert_eq!((first, &body[..2]), (0x90, &[0, 10][..]));
        *body.last().expect("a code")
    }

    /// How the broker says that it ended.
    pub async fn ended(self) -> Ended {
        drop(self.stream);
        timeout(Duration::from_secs(20), self.served).await.expect("in time").expect("no panic")
    }

    async fn read(&mut self) -> Option<Packet> {
        let first = self.stream.read_u8().await.ok()?;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let octet = self.stream.read_u8().await.expect("a length");
            length |= usize::from(octet & 0x7f) << shift;
            shift += 7;
            if octet & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.expect("a body");
        Some((first, body))
    }
}

/// CONNECT, to be changed field by field.
#[derive(Clone)]
pub struct Connect {
    pub version: u8,
    pub id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub properties: Vec<u8>,
    /// Topic, payload, QoS and retain bits as in the flags, properties.
    pub will: Option<(String, Vec<u8>, u8, Vec<u8>)>,
    pub username: Option<String>,
}

pub fn connect(version: u8, id: &str) -> Connect {
    Connect {
        version,
        id: id.to_owned(),
        clean: true,
        keep_alive: 0,
        properties: Vec::new(),
        will: None,
        username: None,
    }
}

impl Connect {
    pub fn unclean(mut self) -> Self {
        self.clean = false;
        self
    }

    /// Session expiry of version 5.
    pub fn expiry(mut self, seconds: u32) -> Self {
        self.properties.push(0x11);
        self.properties.extend(seconds.to_be_bytes());
        self
    }

    pub fn property(mut self, octets: &[u8]) -> Self {
        self.properties.extend_from_slice(octets);
        self
    }

    pub fn will(mut self, topic: &str, payload: &[u8], bits: u8, properties: &[u8]) -> Self {
        self.will = Some((topic.to_owned(), payload.to_vec(), bits, properties.to_vec()));
        self
    }

    pub fn octets(&self) -> Vec<u8> {
        let mut body = text("MQTT");
        let mut flags = if self.clean { 2 } else { 0 };
        if let Some((_, _, bits, _)) = &self.will {
            flags |= 4 | bits;
        }
        if self.username.is_some() {
            flags |= 0x80;
        }
        body.extend([self.version, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        if self.version == 5 {
            body.extend(counted(&self.properties));
        }
        body.extend(text(&self.id));
        if let Some((topic, payload, _, properties)) = &self.will {
            if self.version == 5 {
                body.extend(counted(properties));
            }
            body.extend(text(topic));
            body.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
            body.extend_from_slice(payload);
        }
        if let Some(username) = &self.username {
            body.extend(text(username));
        }
        packet(0x10, &body)
    }
}

pub fn publish(version: u8, flags: u8, topic: &str, id: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if flags & 6 != 0 {
        body.extend(id.to_be_bytes());
    }
    if version == 5 {
        body.extend(counted(properties));
    }
    body.extend_from_slice(payload);
    packet(0x30 | flags, &body)
}

pub fn subscribe(version: u8, id: u16, filter: &str, options: u8) -> Vec<u8> {
    subscribe_with(version, id, &[], &[(filter, options)])
}

pub fn subscribe_with(version: u8, id: u16, properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == 5 {
        body.extend(counted(properties));
    }
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub fn unsubscribe(version: u8, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == 5 {
        body.push(0);
    }
    for filter in filters {
        body.extend(text(filter));
    }
    packet(0xa2, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![first];
    octets.extend(counted(body));
    octets
}

/// Octets behind their length as a variable byte integer.
pub fn counted(octets: &[u8]) -> Vec<u8> {
    let mut length = octets.len();
    let mut out = Vec::new();
    loop {
        let low = u8::try_from(length % 128).expect("below 128");
        length /= 128;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(octets);
    out
}

pub fn text(text: &str) -> Vec<u8> {
    let mut out = u16::try_from(text.len()).expect("short").to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

pub const PUBACK: u8 = 0x40;
pub const PUBREC: u8 = 0x50;
pub const PUBREL: u8 = 0x62;
pub const PUBCOMP: u8 = 0x70;
pub const PING: [u8; 2] = [0xc0, 0];
pub const GOODBYE: [u8; 2] = [0xe0, 0];
