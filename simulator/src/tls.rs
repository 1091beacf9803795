//! TLS for many devices at little cost: one configuration that is shared, and one certificate for each connection.
//!
//! The server's chain is verified once and then known by its bytes for a minute; that its owner has the key is
//! checked in every handshake. Sessions are resumed only where a device brings a memory of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::path::Path;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::link::{Linked, Links};
use crate::reason::Reason;

/// A TLS connection of a device.
pub(crate) type Stream = TlsStream<Linked<TcpStream>>;

/// How devices do TLS.
#[derive(Clone, Debug)]
pub(crate) struct TlsClient {
    base: ClientConfig,
}

/// The key agreement that devices offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Groups {
    /// X25519, then P-256.
    #[default]
    X25519,
    /// Only P-256, as small devices do.
    P256,
    /// X25519MLKEM768 first, as browsers do.
    Hybrid,
}

impl TlsClient {
    /// Devices that trust these roots.
    ///
    /// # Errors
    /// When there is no root among them.
    pub(crate) fn new(roots: RootCertStore, groups: Groups, alpn: &[&str]) -> anyhow::Result<Self> {
        let mut provider = default_provider();
        provider.kx_groups = match groups {
            Groups::X25519 => vec![kx_group::X25519, kx_group::SECP256R1],
            Groups::P256 => vec![kx_group::SECP256R1],
            Groups::Hybrid => vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        };
        let provider = Arc::new(provider);
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        let verifier = OnceVerifier { inner, provider: Arc::clone(&provider), known: Mutex::default() };
        let mut base = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        base.resumption = Resumption::disabled();
        base.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self { base })
    }

    /// The cryptography that devices use.
    pub(crate) fn provider(&self) -> CryptoProvider {
        CryptoProvider::clone(self.base.crypto_provider())
    }

    /// The protocols that devices offer.
    pub(crate) fn alpn(&self) -> Vec<Vec<u8>> {
        self.base.alpn_protocols.clone()
    }

    /// The configuration of one connection.
    pub(crate) fn present(
        &self,
        identity: Option<Arc<CertifiedKey>>,
        resumption: Option<Resumption>,
    ) -> Arc<ClientConfig> {
        let mut config = self.base.clone();
        if let Some(identity) = identity {
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity));
        }
        if let Some(resumption) = resumption {
            config.resumption = resumption;
        }
        Arc::new(config)
    }
}

/// The roots of a PEM file.
///
/// # Errors
/// In words.
pub(crate) fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for der in certificates(path)? {
        roots.add(der).with_context(|| format!("{} holds a certificate that is no CA's", path.display()))?;
    }
    Ok(roots)
}

/// The certificates of a PEM file; at least one.
///
/// # Errors
/// In words.
pub(crate) fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read =
        || -> Result<Vec<_>, rustls_pki_types::pem::Error> { CertificateDer::pem_file_iter(path)?.collect() };
    let certificates = read().map_err(|error| anyhow::anyhow!("can't read {}: {error}", path.display()))?;
    anyhow::ensure!(!certificates.is_empty(), "{} holds no certificate in PEM", path.display());
    Ok(certificates)
}

/// Where to connect, and as what.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) name: ServerName<'static>,
    /// Whether each device comes from an address of its own in 127.0.0.0/8.
    pub(crate) own_sources: bool,
    /// Longest wait for TCP and TLS together.
    pub(crate) timeout: Duration,
    /// How slow the way there is for each device; `None`: as slow as the machine's.
    pub(crate) links: Option<Arc<Links>>,
}

impl Door {
    /// Finds the address of a host; a loopback one gets a source address for each device.
    ///
    /// # Errors
    /// When the name has no address.
    pub(crate) async fn find(
        host: &str,
        port: u16,
        at: Option<SocketAddr>,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| anyhow::anyhow!("`{host}` is no host name"))?;
        let address = match at {
            Some(address) => address,
            None => tokio::net::lookup_host((host, port))
                .await
                .with_context(|| format!("can't find {host}; give --address IP:PORT if it is in no DNS"))?
                .next()
                .with_context(|| format!("{host} has no address"))?,
        };
        let own_sources = address.ip().is_loopback() && address.is_ipv4();
        Ok(Self { address, name, own_sources, timeout, links: None })
    }

    /// Connects a device; the handshake is over when this returns, but in TLS 1.3 the server may still refuse.
    pub(crate) async fn connect(&self, device: u32, config: Arc<ClientConfig>) -> Result<Stream, Reason> {
        let connecting = async {
            let socket = self.tcp(device).await?;
            TlsConnector::from(config).connect(self.name.clone(), socket).await
        };
        match tokio::time::timeout(self.timeout, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Reason::of_io(&error)),
            Err(_) => Err(Reason::TimedOut),
        }
    }

    /// Connects a device's TCP.
    pub(crate) async fn tcp(&self, device: u32) -> io::Result<Linked<TcpStream>> {
        let mut link = self.links.as_ref().and_then(|links| links.of_connection(device));
        if let Some(link) = &mut link {
            link.connect().await?;
        }
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if self.own_sources {
            // Ports are per pair of addresses: without this some 28,000 connections are the end. And the port is
            // chosen when it connects, so that the same one serves towards other servers.
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(SocketAddr::new(source(device), 0))?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Linked::new(stream, link))
    }
}

/// A device's address on this machine: 127.1.0.0 and up.
fn source(device: u32) -> IpAddr {
    let [_, high, middle, low] = (device % SOURCES).to_be_bytes();
    IpAddr::from([127, 1 + high, middle, low.max(1)])
}

/// Verifies a server's chain once and then knows it for a while.
#[derive(Debug)]
struct OnceVerifier {
    inner: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    leaf: Vec<u8>,
    others: Vec<Vec<u8>>,
    name: ServerName<'static>,
    until: Instant,
}

impl ServerCertVerifier for OnceVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref()
            && known.until > Instant::now()
            && known.leaf == end_entity.as_ref()
            && known.others.iter().map(Vec::as_slice).eq(intermediates.iter().map(AsRef::as_ref))
            && &known.name == server_name
        {
            return Ok(ServerCertVerified::assertion());
        }
        let verified =
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        *known = Some(Known {
            leaf: end_entity.to_vec(),
            others: intermediates.iter().map(|der| der.to_vec()).collect(),
            name: server_name.to_owned(),
            until: Instant::now() + KNOWN_FOR,
        });
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A chain that ends in the middle of a run is noticed within this.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// Addresses that devices come from, in turn.
const SOURCES: u32 = 1 << 20;
