//! TLS of the EST listener.
//!
//! A client certificate is asked for and optional on every path (RFC 7030 §3.3.2). The handshake
//! checks one thing about it: that the peer holds its key. Whether the certificate is trusted, in
//! time or revoked is judged afterwards, per request, so that a refusal can say which, cacerts stays
//! reachable, and a profile can let a just-expired certificate renew. No session is ever resumed:
//! rustls does not ask for the client certificate again on resumption.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};

/// RFC 9266 §2: the label of the tls-exporter channel binding.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// RFC 9266 §2: its length.
pub(crate) const EXPORTER_BYTES: usize = 32;
/// A leaf and three CAs: more than any device PKI has, and a bound on the work of judging a chain.
const PRESENTED_MAX_CERTIFICATES: usize = 4;
/// RFC 7301 §6: the protocols that are spoken here, the preferred one first. A client that asks for HTTP/1.0 may say so
/// here, and has no other way then.
const ALPN: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// The TLS configuration of the EST listener for one server certificate.
///
/// The hybrid with ML-KEM comes first for who offers it: answers may hold private keys (RFC 7030 §4.4).
///
/// # Errors
/// When the crypto provider offers neither TLS 1.2 nor 1.3.
pub fn server_config(certified_key: Arc<CertifiedKey>) -> Result<ServerConfig, Error> {
    let provider = Arc::new(muster_arrival::crypto::provider());
    let verifier = KeyHolder { algorithms: provider.signature_verification_algorithms };
    let resolver = rustls::sign::SingleCertAndKey::from(certified_key);
    // 1.2 beside 1.3: strongSwan and libest speak nothing newer.
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(resolver));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.ignore_client_order = true;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    Ok(config)
}

/// What the handshake established about the peer.
#[derive(Clone, Debug)]
pub(crate) struct TlsPeer {
    /// The certificates it sent, its own first; empty when it sent none. It holds the first one's key.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// The tls-exporter value (RFC 9266); only on TLS 1.3, where it is unique without conditions.
    pub(crate) exporter: Option<[u8; EXPORTER_BYTES]>,
}

impl TlsPeer {
    /// Takes down what a finished handshake established.
    pub(crate) fn of(connection: &rustls::ServerConnection) -> Self {
        let certificates = connection
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .take(PRESENTED_MAX_CERTIFICATES)
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        let exporter = (connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3))
            .then(|| connection.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None).ok())
            .flatten();
        Self { certificates, exporter }
    }
}

/// A verifier that makes sure of one thing: the peer holds the key of the certificate it shows.
#[derive(Debug)]
struct KeyHolder {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for KeyHolder {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    // No hints: a client then offers whatever certificate it has, ours or its manufacturer's.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() >= PRESENTED_MAX_CERTIFICATES {
            return Err(Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Where the listener takes its current TLS configuration from; swapped without a restart.
#[derive(Clone)]
pub struct TlsSource(Arc<arc_swap::ArcSwap<ServerConfig>>);

impl TlsSource {
    /// Starts with this configuration.
    pub fn new(config: ServerConfig) -> Self {
        Self(Arc::new(arc_swap::ArcSwap::from_pointee(config)))
    }

    /// Uses this configuration for every handshake that starts from now on.
    pub fn replace(&self, config: ServerConfig) {
        self.0.store(Arc::new(config));
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSource")
    }
}
