//! One upstream: where it is, what it is verified against, and how a mutual TLS connection to it is made.
//!
//! One TLS configuration per identity and upstream, kept while the identity lives. No resumption: a resumed
//! session is not asked for the client certificate again, so a new identity would never be seen. TLS 1.3
//! and 1.2. A dial has one deadline for name, TCP and handshake, and passes the [`Breaker`].

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::breaker::Breaker;
use crate::identity::Identity;

/// Time for name resolution, TCP and the TLS handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes under way at once with one upstream: a swap re-makes all connections in the same moment.
const DIALS_MAX: usize = 8;

/// Identities that have a TLS configuration: the one in use, and the candidate.
const CONFIGS_MAX: usize = 2;

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The host to resolve.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// The name in the handshake, and in the certificate.
    pub(super) server_name: ServerName<'static>,
    /// What it is verified against; `None` for the anchors of the identity.
    pub(super) anchors: Option<Vec<CertificateDer<'static>>>,
    /// The protocols offered, most wanted first.
    pub(super) alpn: Vec<Vec<u8>>,
}

/// Why there is no connection to the upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialFault {
    /// The identity's key, chain or anchors can't be used.
    #[error("the identity can't be used for TLS: {0}")]
    Identity(rustls::Error),
    /// It failed a short time ago.
    #[error("the upstream failed; it is tried again in {} ms", .0.as_millis())]
    Paused(Duration),
    /// The upstream says that it does not take the certificate.
    #[error("{0}")]
    Refused(String),
    /// The TLS handshake failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// No answer within [`DIAL_TIMEOUT`].
    #[error("no answer within {} s", DIAL_TIMEOUT.as_secs())]
    TimedOut,
    /// No TCP connection.
    #[error("it can't be reached: {0}")]
    Unreachable(io::Error),
}

/// An upstream that can be dialled.
#[derive(Debug)]
pub(super) struct Upstream {
    target: Target,
    breaker: Breaker,
    dials: Semaphore,
    /// The latest last.
    configs: Mutex<Vec<(Arc<Identity>, Arc<ClientConfig>)>>,
}

impl Upstream {
    pub(super) fn new(target: Target) -> Arc<Self> {
        Arc::new(Self {
            target,
            breaker: Breaker::new(),
            dials: Semaphore::new(DIALS_MAX),
            configs: Mutex::new(Vec::new()),
        })
    }

    /// A connection on which `identity` was presented.
    ///
    /// In TLS 1.3 the upstream judges the certificate after this returns; its refusal is then an error of
    /// the first read, which [`refusal`] tells.
    pub(super) async fn dial(&self, identity: &Arc<Identity>) -> Result<TlsStream<TcpStream>, DialFault> {
        // A closed semaphore would be a bug; there is nothing that closes it.
        let _permit = self.dials.acquire().await;
        self.breaker.permit().map_err(DialFault::Paused)?;
        let config = self.config(identity).map_err(DialFault::Identity)?;
        let outcome = tokio::time::timeout(DIAL_TIMEOUT, self.connect(config)).await;
        let outcome = outcome.unwrap_or(Err(DialFault::TimedOut));
        match &outcome {
            Ok(_) => self.breaker.succeeded(),
            Err(_) => self.breaker.failed(),
        }
        outcome
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    async fn connect(&self, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, DialFault> {
        let address = (self.target.host.as_str(), self.target.port);
        let socket = TcpStream::connect(address).await.map_err(DialFault::Unreachable)?;
        socket.set_nodelay(true).map_err(DialFault::Unreachable)?;
        let handshake = TlsConnector::from(config).connect(self.target.server_name.clone(), socket);
        handshake.await.map_err(|error| match refusal(&error) {
            Some(why) => DialFault::Refused(why),
            None => DialFault::Tls(error),
        })
    }

    fn config(&self, identity: &Arc<Identity>) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = configs.iter().find(|(known, _)| Arc::ptr_eq(known, identity)) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make_config(identity)?);
        if configs.len() >= CONFIGS_MAX {
            configs.remove(0);
        }
        configs.push((Arc::clone(identity), Arc::clone(&config)));
        Ok(config)
    }

    fn make_config(&self, identity: &Identity) -> Result<ClientConfig, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for anchor in self.target.anchors.as_ref().unwrap_or(&identity.anchors) {
            roots.add(anchor.clone())?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?;
        config.resumption = Resumption::disabled();
        config.alpn_protocols.clone_from(&self.target.alpn);
        Ok(config)
    }
}

impl Target {
    /// `host:port`, for words and for the Host header.
    #[must_use]
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The peer's words when it refused our certificate by a TLS alert (RFC 8446 §6.2).
pub(super) fn refusal(error: &io::Error) -> Option<String> {
    let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::AlertReceived(alert) = tls else { return None };
    let why = match alert {
        AlertDescription::BadCertificate => "as bad",
        AlertDescription::UnsupportedCertificate => "as of a kind it does not support",
        AlertDescription::CertificateRevoked => "as revoked",
        AlertDescription::CertificateExpired => "as expired",
        AlertDescription::CertificateUnknown => "for a reason it does not name",
        AlertDescription::UnknownCA => "as of a CA that it does not know",
        AlertDescription::AccessDenied => "as one without access",
        AlertDescription::CertificateRequired => "as missing",
        AlertDescription::DecryptError => "as one whose signature does not verify",
        _ => return None,
    };
    Some(format!("the peer refused this device's certificate {why} (TLS alert {alert:?})"))
}
