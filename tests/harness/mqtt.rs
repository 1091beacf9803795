//! A broker on a loopback port without TLS, for strangers' MQTT clients.
//!
//! The edge speaks TLS and tells the broker who a client is; here the device is given for all clients
//! of a port, so that a stranger needs no certificate to be held against the rules of one.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use muster_broker::{Broker, BrokerConfig, Cut, Peer, Stream, websocket};
use muster_policy::access::Holder;
use muster_policy::identity::{AccountId, CaId, Fingerprint, Serial};
use muster_policy::time::UnixTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// A broker and its ports. It ends with its value.
pub struct MqttBroker {
    runtime: Runtime,
    broker: Broker,
}

impl MqttBroker {
    /// Starts a broker with a configuration in TOML.
    pub fn start(config: BrokerConfig) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        // Any time will do: a broker without a file counts from where it started.
        let now = UnixTime::from_secs(1_800_000_000);
        let broker = runtime.block_on(async { Broker::start(&config, now) }).expect("starts");
        Self { runtime, broker }
    }

    /// Opens a port. All clients on it hold the device's certificate, or none.
    pub fn listen(&self, device: Option<&str>) -> SocketAddr {
        self.accept(device, |stream| async { stream })
    }

    /// Opens a port whose clients speak WebSocket, upgrade and all.
    pub fn listen_websocket(&self) -> SocketAddr {
        self.accept(None, |stream| async { websocket::adapt(upgraded(stream).await).await })
    }

    fn accept<S, F>(&self, device: Option<&str>, carry: fn(TcpStream) -> F) -> SocketAddr
    where
        S: Stream,
        F: Future<Output = S> + Send + 'static,
    {
        let holder = device.map(holder);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = self.runtime.block_on(listener).expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let broker = self.broker.clone();
        self.runtime.spawn(async move {
            loop {
                let (stream, source) = listener.accept().await.expect("a connection");
                let (broker, holder) = (broker.clone(), holder.clone());
                tokio::spawn(async move {
                    let peer = Peer {
                        account: AccountId::from_bytes([1; 16]),
                        holder,
                        host: "mqtt.example.com".parse().expect("a hostname"),
                        source,
                        cut: Cut::never(),
                    };
                    broker.serve(carry(stream).await, peer).await
                });
            }
        });
        address
    }

    /// The counters of the broker.
    pub fn metrics(&self) -> muster_broker::Snapshot {
        self.broker.metrics()
    }
}

fn holder(device: &str) -> Arc<Holder> {
    Arc::new(Holder {
        account: AccountId::from_bytes([1; 16]),
        ca: CaId::from_bytes([2; 16]),
        serial: Serial::from_bytes(&[1]).expect("a serial"),
        fingerprint: Fingerprint::from_bytes([3; 32]),
        device: device.parse().expect("a device id"),
        groups: BTreeSet::new(),
        not_after: UnixTime::from_secs(4_000_000_000),
    })
}

/// Answers an HTTP upgrade as the edge does, and no better than a test needs.
async fn upgraded(mut stream: TcpStream) -> TcpStream {
    use aws_lc_rs::digest;
    use base64::Engine;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request"));
    }
    let head = String::from_utf8(head).expect("ASCII");
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
    };
    assert_eq!(header("sec-websocket-protocol").as_deref(), Some("mqtt"), "{head}");
    let key = header("sec-websocket-key").expect("a key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.expect("written");
    stream
}
