//! The engine `upstream`: another broker, reached by TCP or a unix socket, behind the same gate.
//!
//! CONNECT is written anew: the bound client id, and the device id as user name with a password of
//! ours. After it each packet of the client passes the gate and goes on as it came; what the gate
//! refuses is answered here. What the broker sends is held against the rules too, so that a mistake in
//! its configuration delivers nothing that the client may not read. The socket must be one that the
//! edge alone reaches: whoever reaches it is believed.

mod relay;
mod rewrite;

use std::path::PathBuf;
use std::sync::Arc;

use ppp::v2::{Builder, Command, Protocol, Type, Version as ProxyVersion};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{Duration, timeout};
use tracing::warn;

pub(crate) use self::relay::Relay;
use crate::config::{BrokerConfig, ConfigError, Settings, UpstreamConfig};
use crate::engine::{Client, Engine, PeerNames};
use crate::metrics::Metrics;
use crate::serve::Ended;
use crate::stream::{Packets, Stream};
use crate::wire::Code;
use crate::wire::connect::write_refused;

/// The engine.
#[derive(Debug)]
pub(crate) struct Upstream {
    target: Target,
    password: Option<String>,
    proxy_protocol: bool,
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    draining: watch::Sender<bool>,
}

/// Where the other broker is.
#[derive(Debug)]
pub(crate) enum Target {
    Tcp(String),
    Unix(PathBuf),
}

impl Target {
    pub(crate) fn of(config: &UpstreamConfig) -> Result<Self, ConfigError> {
        match (&config.tcp, &config.unix) {
            (Some(address), None) => Ok(Self::Tcp(address.clone())),
            (None, Some(path)) => Ok(Self::Unix(path.clone())),
            _ => Err(ConfigError::UpstreamMissing),
        }
    }
}

/// How long the other broker has to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest packet taken from the other broker: what the protocol can say.
const UPSTREAM_PACKET_BYTES: u32 = 268_435_455;

impl Upstream {
    pub(crate) fn new(
        config: &BrokerConfig,
        settings: Arc<Settings>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConfigError> {
        let upstream = config.upstream.clone().ok_or(ConfigError::UpstreamMissing)?;
        Ok(Self {
            target: Target::of(&upstream)?,
            password: upstream.password,
            proxy_protocol: upstream.proxy_protocol,
            settings,
            metrics,
            draining: watch::Sender::new(false),
        })
    }

    async fn serve_over<S: Stream, U: Stream>(&self, client: Client<S>, stream: U) -> Ended {
        let mut upstream = Packets::new(stream, UPSTREAM_PACKET_BYTES);
        if self.proxy_protocol {
            match proxy_header(&client.peer) {
                Ok(header) => upstream.output().extend_from_slice(&header),
                Err(error) => {
                    warn!(%error, "a PROXY header can't be made");
                    return refuse(client, Code::SERVER_UNAVAILABLE).await;
                }
            }
        }
        let mut client = client;
        // Aliases of the broker are resolved here too, in a table of bounded size.
        client.connect.topic_alias_maximum =
            client.connect.topic_alias_maximum.min(self.settings.quotas.topic_aliases);
        let password = self.password.as_deref().map(str::as_bytes);
        let username = client.peer.device.as_deref();
        client.connect.write(upstream.output(), username, password.filter(|_| username.is_some()));
        Relay::new(client, upstream, &self.settings, &self.metrics).run(self.draining.subscribe()).await
    }
}

impl Engine for Upstream {
    async fn serve<S: Stream>(&self, client: Client<S>) -> Ended {
        match &self.target {
            Target::Tcp(address) => match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Small packets wait for nothing; that it fails changes only how long they take.
                    let _ = stream.set_nodelay(true);
                    self.serve_over(client, stream).await
                }
                _ => refuse(client, Code::SERVER_UNAVAILABLE).await,
            },
            Target::Unix(path) => match timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
                Ok(Ok(stream)) => self.serve_over(client, stream).await,
                _ => refuse(client, Code::SERVER_UNAVAILABLE).await,
            },
        }
    }

    fn drain(&self) {
        self.draining.send_replace(true);
    }

    async fn close(&self) {}
}

/// Refuses a client that was let in by the gate.
pub(crate) async fn refuse<S: Stream>(mut client: Client<S>, code: Code) -> Ended {
    write_refused(client.packets.output(), client.connect.version, code);
    client.packets.finish().await;
    Ended::Refused(code)
}

/// A PROXY v2 header with the host and the certificate's name (PROXY protocol §2.2).
fn proxy_header(peer: &PeerNames) -> std::io::Result<Vec<u8>> {
    // The address it came to is not the client's to know; the broker logs the source.
    let unspecified = match peer.source {
        core::net::SocketAddr::V4(_) => (core::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        core::net::SocketAddr::V6(_) => (core::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let addresses: (core::net::SocketAddr, core::net::SocketAddr) = (peer.source, unspecified);
    let builder = Builder::with_addresses(ProxyVersion::Two | Command::Proxy, Protocol::Stream, addresses)
        .write_tlv(Type::Authority, peer.host.as_bytes())?;
    // PP2_CLIENT_SSL, and with a certificate PP2_CLIENT_CERT_CONN and PP2_CLIENT_CERT_SESS; it was
    // verified, which is a zero.
    let mut tls = vec![if peer.device.is_some() { 7 } else { 1 }];
    tls.extend(0_u32.to_be_bytes());
    let mut part = |kind: u8, text: &str| {
        tls.push(kind);
        tls.extend(u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
        tls.extend_from_slice(text.as_bytes());
    };
    part(Type::SSLVersion.into(), "TLS");
    if let Some(device) = &peer.device {
        part(Type::SSLCommonName.into(), device);
    }
    builder.write_tlv(Type::SSL, &tls)?.build()
}
