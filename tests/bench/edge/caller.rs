//! A device as a client: full TLS 1.3 handshakes over X25519, requests written by hand.
//!
//! Little work, so that one machine holds clients and servers; and an answer is always awaited, as in
//! TLS 1.3 a client is done before the server has looked at its certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fleet::Device;

/// An answer is one read of at most this.
const ANSWER_MAX_BYTES: usize = 8192;
/// Seconds between packets of a client that says nothing (MQTT 3.1.2.10).
const KEEP_ALIVE_S: u16 = 3600;
/// MQTT 5 §2.1.2.
const CONNACK: u8 = 0x20;

/// A device with its certificate.
#[derive(Clone)]
pub(crate) struct Caller {
    connector: TlsConnector,
    /// Its device id.
    pub(crate) name: Arc<str>,
}

/// An open connection.
pub(crate) type Line = TlsStream<TcpStream>;

impl Caller {
    /// The device, which sends its leaf alone.
    pub(crate) fn of(device: &Device, roots: &Arc<RootCertStore>) -> anyhow::Result<Self> {
        let leaf = device.chain.first().context("a leaf")?;
        Self::new(&device.name, leaf.clone(), device.key.serialize_der(), roots)
    }

    /// A device from its parts, DER.
    pub(crate) fn new(
        name: &str,
        leaf: Vec<u8>,
        key: Vec<u8>,
        roots: &Arc<RootCertStore>,
    ) -> anyhow::Result<Self> {
        let key = PrivateKeyDer::try_from(key).map_err(anyhow::Error::msg)?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(roots))
            .with_client_auth_cert(vec![CertificateDer::from(leaf)], key)?;
        config.resumption = Resumption::disabled();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name: name.into() })
    }

    /// Makes a full handshake.
    pub(crate) async fn connect(&self, server: SocketAddr, host: &str) -> anyhow::Result<Line> {
        let socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        Ok(self.connector.connect(ServerName::try_from(host.to_owned())?, socket).await?)
    }

    /// Connects, sends one request, awaits its answer, and goes.
    pub(crate) async fn visit(&self, server: SocketAddr, host: &str, status: u16) -> anyhow::Result<()> {
        let mut line = self.connect(server, host).await?;
        get(&mut line, host, status).await?;
        Ok(line.shutdown().await?)
    }

    /// Connects and opens an MQTT session, awaiting CONNACK. `suffix` makes more than one client id.
    pub(crate) async fn greet(&self, server: SocketAddr, host: &str, suffix: &str) -> anyhow::Result<Line> {
        let mut line = self.connect(server, host).await?;
        line.write_all(&connect_packet(&format!("{}{suffix}", self.name))?).await?;
        let mut answer = [0; 64];
        let count = line.read(&mut answer).await?;
        let accepted = count >= 4 && answer.first() == Some(&CONNACK) && answer.get(3) == Some(&0);
        anyhow::ensure!(accepted, "refused: {:x?}", answer.get(..count));
        Ok(line)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: vec![kx_group::X25519], ..default_provider() })
}

/// Sends a request on an open connection and reads its whole answer.
pub(crate) async fn get(line: &mut Line, host: &str, status: u16) -> anyhow::Result<()> {
    line.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::with_capacity(ANSWER_MAX_BYTES);
    let length = loop {
        anyhow::ensure!(line.read_buf(&mut answer).await? > 0, "closed before the answer");
        if let Some(length) = whole(&answer)? {
            break length;
        }
    };
    while answer.len() < length {
        anyhow::ensure!(line.read_buf(&mut answer).await? > 0, "closed within the answer");
    }
    let head = String::from_utf8_lossy(answer.get(..12).unwrap_or_default());
    anyhow::ensure!(head == format!("HTTP/1.1 {status}"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// How long an answer is, once its head is there.
fn whole(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("an answer without a length")?.trim().parse()?;
    Ok(Some(end + 4 + length))
}

/// MQTT 3.1.1 §3.1, with a clean session.
fn connect_packet(id: &str) -> anyhow::Result<Vec<u8>> {
    let mut body = b"\x00\x04MQTT\x04\x02".to_vec();
    body.extend(KEEP_ALIVE_S.to_be_bytes());
    body.extend(u16::try_from(id.len())?.to_be_bytes());
    body.extend(id.bytes());
    let length = u8::try_from(body.len())?;
    anyhow::ensure!(length < 128, "the length is one octet");
    let mut packet = vec![0x10, length];
    packet.extend(body);
    Ok(packet)
}
