//! A broker on a loopback port without TLS, for strangers' MQTT clients.
//!
//! The edge speaks TLS and tells the broker who a client is; here the device is given for all clients
//! of a port, so that a stranger needs no certificate to be held against the rules of one.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use muster_broker::{Broker, BrokerConfig, Cut, Peer};
use muster_policy::access::Holder;
use muster_policy::identity::{AccountId, CaId, Fingerprint, Serial};
use muster_policy::mqtt::Unjudged;
use muster_policy::time::UnixTime;
use tokio::net::TcpListener;
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
                        judge: Arc::new(Unjudged),
                    };
                    broker.serve(stream, peer).await
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
        anchor: CaId::from_bytes([2; 16]),
        serial: Serial::from_bytes(&[1]).expect("a serial"),
        fingerprint: Fingerprint::from_bytes([3; 32]),
        above: Vec::new(),
        device: device.parse().expect("a device id"),
        groups: BTreeSet::new(),
        not_after: UnixTime::from_secs(4_000_000_000),
    })
}
