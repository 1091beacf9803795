//! TLS towards the EST server: who it must be, and what is presented to it.
//!
//! The server is checked inside the handshake, before a client certificate leaves the device, by the same
//! path rules as everywhere in the device core. In a bootstrap nobody is trusted, nothing is presented, and
//! the core takes only a certificate with the pinned fingerprint from what comes. In both cases the server
//! must prove that it has the key of the certificate it shows. Sessions are never resumed.

use std::sync::Arc;

use muster_proto::est::Server;
use muster_proto::x509::{Anchors, Certificate, Moment, PathError, Purpose, check_path};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::verify::AwsLc;
use crate::identity::Identity;
use crate::settings::{ServerUrl, TrustRoots};

/// What a server must show to be the one that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) server: ServerUrl,
    pub(super) roots: TrustRoots,
    /// The certificate behind a pinned fingerprint: a server need not send its root.
    pub(super) pinned: Option<Vec<u8>>,
    pub(super) moment: Moment,
}

/// A TLS client for one connection. `expected: None` is the bootstrap.
///
/// # Errors
/// When the identity's key is of a kind that TLS does not know.
pub(super) fn client(
    expected: Option<Expected>,
    presented: Option<&Identity>,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier { expected, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match presented {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?,
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct Verifier {
    expected: Option<Expected>,
    provider: Arc<CryptoProvider>,
}

impl Expected {
    fn check(&self, leaf: &[u8], others: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
        let leaf = Certificate::parse(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let server = Server::new(&self.server.host, self.server.port, None);
        let named = server.is_ok_and(|server| server.name().matches(leaf.extensions.subject_alt_names()));
        if !named {
            return Err(CertificateError::NotValidForName);
        }
        let certificates = self.roots.certificates();
        let anchors = Anchors { certificates: &certificates, fingerprint: self.roots.fingerprint() };
        let candidates = others.iter().map(AsRef::as_ref).chain(self.pinned.as_deref());
        check_path(&leaf, candidates, &anchors, Purpose::ServerAuth, self.moment, &AwsLc)
            .map(drop)
            .map_err(spelled)
    }
}

/// The alert follows from the kind of error.
const fn spelled(error: PathError) -> CertificateError {
    match error {
        PathError::Expired => CertificateError::Expired,
        PathError::NotYetValid => CertificateError::NotValidYet,
        PathError::ExtendedKeyUsage | PathError::KeyUsage => CertificateError::InvalidPurpose,
        PathError::Leaf(_) => CertificateError::BadEncoding,
        PathError::Signature(_) => CertificateError::BadSignature,
        PathError::Budget
        | PathError::LeafIsAuthority
        | PathError::NotAuthority
        | PathError::PathLength
        | PathError::UnknownIssuer => CertificateError::UnknownIssuer,
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.expected {
            None => Ok(ServerCertVerified::assertion()),
            Some(expected) => expected
                .check(end_entity, intermediates)
                .map(|()| ServerCertVerified::assertion())
                .map_err(Error::InvalidCertificate),
        }
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
