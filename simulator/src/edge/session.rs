//! A device at the door of an endpoint: connected, and answered once.
//!
//! These are the steps of every load and of the demonstration: address, server name, identity and CA in, and how it
//! went out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{http, mqtt};
use crate::reason::Reason;
use crate::tls::{Door, Groups, Stream, TlsClient};

/// What is spoken inside TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// GET of this path.
    Https {
        path: String,
    },
    Mqtt,
}

/// An endpoint and how devices speak to it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) door: Door,
    pub(crate) tls: TlsClient,
    /// For `Host`.
    pub(crate) host: String,
    pub(crate) protocol: Protocol,
    /// Longest wait for an answer.
    pub(crate) answer_timeout: Duration,
}

/// How devices connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) groups: Groups,
    /// Whether MQTT is named by ALPN, as the HTTPS port of our edge takes it.
    pub(crate) alpn_mqtt: bool,
    /// Longest wait for a connection, and for an answer.
    pub(crate) timeout: Duration,
}

/// Who comes.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) number: u32,
    pub(crate) device: String,
    /// Made by [`Endpoint::wire`]; the sessions of one device are resumed only with the very same one.
    config: Arc<ClientConfig>,
}

/// A connection that was answered.
#[derive(Debug)]
pub(crate) struct Open {
    stream: Stream,
    pub(crate) resumed: bool,
}

impl Endpoint {
    /// The endpoint of a host, for devices that trust these roots.
    ///
    /// # Errors
    /// When the host has no address, or there is no root.
    pub(crate) async fn find(
        (host, port): (&str, u16),
        address: Option<SocketAddr>,
        roots: RootCertStore,
        protocol: Protocol,
        manner: Manner,
    ) -> anyhow::Result<Self> {
        let door = Door::find(host, port, address, manner.timeout).await?;
        let alpn: &[&str] = match protocol {
            Protocol::Https { .. } => &["http/1.1"],
            Protocol::Mqtt if manner.alpn_mqtt => &["mqtt"],
            Protocol::Mqtt => &[],
        };
        let tls = TlsClient::new(roots, manner.groups, alpn)?;
        Ok(Self { door, tls, host: host.to_owned(), protocol, answer_timeout: manner.timeout })
    }

    /// A device that comes with this certificate, or none; with `sessions` it comes back by them.
    pub(crate) fn wire(
        &self,
        number: u32,
        device: String,
        identity: Option<Arc<CertifiedKey>>,
        sessions: Option<Resumption>,
    ) -> Wire {
        Wire { number, device, config: self.tls.present(identity, sessions) }
    }

    /// Connects, and waits for the first answer.
    pub(crate) async fn open(&self, wire: Wire) -> Result<Open, Reason> {
        let mut stream = Box::pin(self.door.connect(wire.number, wire.config)).await?;
        match &self.protocol {
            Protocol::Https { path } => {
                let status = self.in_time(http::get(&mut stream, &self.host, path)).await?;
                if status >= 400 {
                    return Err(Reason::Status(status));
                }
            }
            Protocol::Mqtt => self.in_time(mqtt::connect(&mut stream, &wire.device)).await?,
        }
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok(Open { stream, resumed })
    }

    /// A request and its answer, or a ping and its answer.
    pub(crate) async fn ask(&self, open: &mut Open) -> Result<(), Reason> {
        match &self.protocol {
            Protocol::Https { path } => {
                match self.in_time(http::get(&mut open.stream, &self.host, path)).await? {
                    status @ 400.. => Err(Reason::Status(status)),
                    _ => Ok(()),
                }
            }
            Protocol::Mqtt => self.in_time(mqtt::ping(&mut open.stream)).await,
        }
    }

    /// Takes messages of a topic from now on.
    pub(crate) async fn subscribe(&self, open: &mut Open, topic: &str) -> Result<(), Reason> {
        self.in_time(mqtt::subscribe(&mut open.stream, topic)).await
    }

    /// Publishes, and does not wait.
    pub(crate) async fn publish(&self, open: &mut Open, topic: &str, payload: &[u8]) -> Result<(), Reason> {
        self.in_time(mqtt::publish(&mut open.stream, topic, payload)).await
    }

    /// The next message of a subscribed topic.
    pub(crate) async fn receive(&self, open: &mut Open) -> Result<(String, Vec<u8>), Reason> {
        self.in_time(mqtt::receive(&mut open.stream)).await
    }

    /// Publishes a message to a topic that is subscribed, until it is back.
    pub(crate) async fn round_trip(
        &self,
        open: &mut Open,
        topic: &str,
        payload: &[u8],
    ) -> Result<(), Reason> {
        self.publish(open, topic, payload).await?;
        loop {
            // Others may publish to the same topic, and an earlier message may come late.
            let (_, received) = self.receive(open).await?;
            if received == payload {
                return Ok(());
            }
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Reason>>) -> Result<T, Reason> {
        tokio::time::timeout(self.answer_timeout, work).await.unwrap_or(Err(Reason::TimedOut))
    }
}

impl Open {
    /// Holds the connection until the server ends it; the reason.
    pub(crate) async fn ended(&mut self) -> Reason {
        let mut buffer = [0; 64];
        loop {
            match self.stream.read(&mut buffer).await {
                Ok(0) => return Reason::Closed,
                Ok(_) => {}
                Err(error) => return Reason::of_io(&error),
            }
        }
    }

    /// Ends it in order.
    pub(crate) async fn close(mut self) {
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.stream.shutdown()).await;
    }
}

/// A peer is owed no more than a moment.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(200);
