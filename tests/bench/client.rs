//! The load: TLS 1.3 connections with a client certificate, and requests over them.
//!
//! Only X25519 is offered, as cfssl's Go knows nothing newer; no resumption, so each connection is a
//! full handshake.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::fleet::Device;

/// What the client certificate of a device needs to connect.
#[derive(Clone)]
pub(crate) struct Identity(TlsConnector);

impl Identity {
    /// The device's identity towards servers below the roots of a PEM file.
    pub(crate) fn new(device: &Device, roots: &RootCertStore) -> anyhow::Result<Self> {
        let mut provider = default_provider();
        provider.kx_groups = vec![kx_group::X25519];
        let chain = device.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let key = PrivateKeyDer::try_from(device.key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain, key)?;
        config.resumption = Resumption::disabled();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

/// The roots of a PEM file.
pub(crate) fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

/// One open connection.
pub(crate) struct Connection(http1::SendRequest<Full<Bytes>>);

impl Connection {
    /// Makes a full handshake.
    pub(crate) async fn open(server: SocketAddr, identity: &Identity) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        let tls = identity.0.connect(ServerName::try_from("localhost")?, socket).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request and reads the whole answer, which must be 200.
    pub(crate) async fn exchange(&mut self, request: &Exchange) -> anyhow::Result<Bytes> {
        let method = if request.body.is_empty() { Method::GET } else { Method::POST };
        let message = Request::builder()
            .method(method)
            .uri(request.path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, request.media_type)
            .body(Full::new(request.body.clone()))?;
        self.0.ready().await?;
        let answer = self.0.send_request(message).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}

/// A request ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// The path.
    pub(crate) path: &'static str,
    /// Type of the body.
    pub(crate) media_type: &'static str,
    /// The body; none for GET.
    pub(crate) body: Bytes,
}

impl Exchange {
    /// The CA certificates, which need neither ledger nor signature.
    pub(crate) fn cacerts() -> Self {
        Self { path: "/.well-known/est/cacerts", media_type: "text/plain", body: Bytes::new() }
    }
}

/// GET over plain HTTP, for metrics.
pub(crate) async fn get_plain(server: SocketAddr, path: &'static str) -> anyhow::Result<String> {
    let (sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(server).await?)).await?;
    tokio::spawn(connection);
    let exchange = Exchange { path, media_type: "text/plain", body: Bytes::new() };
    let body = Connection(sender).exchange(&exchange).await.with_context(|| path)?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
