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
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme};
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

/// The alert follows from the kind of error, and so do the words about it.
fn spelled(error: PathError) -> CertificateError {
    match error {
        PathError::Expired => CertificateError::Expired,
        PathError::NotYetValid => CertificateError::NotValidYet,
        PathError::ExtendedKeyUsage | PathError::KeyUsage => CertificateError::InvalidPurpose,
        PathError::Leaf(_) => CertificateError::BadEncoding,
        PathError::Signature(_) => CertificateError::BadSignature,
        PathError::UnknownIssuer => CertificateError::UnknownIssuer,
        PathError::Budget | PathError::LeafIsAuthority | PathError::NotAuthority | PathError::PathLength => {
            CertificateError::Other(OtherError(Arc::new(BadPath(error))))
        }
    }
}

/// A chain that breaks a rule for which TLS has no word.
#[derive(Debug, thiserror::Error)]
#[error("its chain does not hold ({0:?})")]
struct BadPath(PathError);

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

#[cfg(test)]
mod tests {
    use muster_proto::time::UnixTime as Seconds;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };

    use super::*;

    fn authority(name: &str) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        (params.self_signed(&key).expect("a CA").der().clone(), Issuer::new(params, key))
    }

    fn leaf(
        name: &str,
        issuer: &Issuer<'_, KeyPair>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![purpose];
        params.signed_by(&KeyPair::generate().expect("a key"), issuer).expect("a leaf").der().clone()
    }

    fn expected(roots: TrustRoots, pinned: Option<Vec<u8>>) -> Expected {
        Expected {
            server: ServerUrl::parse("https://ca.example.test:8443", None).expect("a URL"),
            roots,
            pinned,
            moment: Moment::Known(Seconds::from_secs(1_800_000_000)),
        }
    }

    #[test]
    fn only_the_server_that_was_asked_for_passes() {
        let (root, issuer) = authority("root");
        let (_, stranger) = authority("root");
        let expected = expected(TrustRoots::Certificates(vec![root]), None);
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        let check = |leaf: CertificateDer<'_>| expected.check(&leaf, &[]);
        assert_eq!(check(leaf("ca.example.test", &issuer, server.clone())), Ok(()));
        let name = check(leaf("other.example.test", &issuer, server.clone()));
        assert_eq!(name, Err(CertificateError::NotValidForName));
        let signature = check(leaf("ca.example.test", &stranger, server));
        assert_eq!(signature, Err(CertificateError::BadSignature));
        // A device must not be able to pose as a server.
        let purpose = check(leaf("ca.example.test", &issuer, ExtendedKeyUsagePurpose::ClientAuth));
        assert_eq!(purpose, Err(CertificateError::InvalidPurpose));
    }

    #[test]
    fn a_pinned_root_need_not_be_sent_and_another_does_not_help() {
        let (root, issuer) = authority("root");
        let (other, _) = authority("root");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &root);
        let roots = TrustRoots::Fingerprint(digest.as_ref().try_into().expect("32 octets"));
        let leaf = leaf("ca.example.test", &issuer, ExtendedKeyUsagePurpose::ServerAuth);
        let pinned = expected(roots.clone(), Some(root.to_vec()));
        assert_eq!(pinned.check(&leaf, &[]), Ok(()));
        let unpinned = expected(roots, None);
        assert!(unpinned.check(&leaf, &[]).is_err());
        assert!(unpinned.check(&leaf, &[other]).is_err());
        assert_eq!(unpinned.check(&leaf, &[root]), Ok(()));
    }
}
