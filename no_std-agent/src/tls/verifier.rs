//! Who the server is: the strict half that embedded-tls lacks.
//!
//! embedded-tls ends a handshake well when the server leaves out CertificateVerify, or Certificate too, and its own
//! verifier takes any certificate for a CA. Here a certificate goes through [`ServerCheck`], and the proof of its
//! key must be seen exactly once (RFC 8446 §4.4.3): [`StrictVerifier::proven`] is asked before a connection exists.

use embedded_tls::{
    CertificateEntryRef, CertificateRef, CertificateVerifyRef, Sha256, SignatureScheme, TlsError, TlsVerifier,
};
use muster_proto::enrollment::Enrollment;
use muster_proto::time::Validity;
use muster_proto::x509::{
    Anchors, Bundle, Certificate, Moment, PathError, ServerName, ServerRefused, VerifyError, check_server,
};
use sha2::Digest;

use super::cipher::GuardedSuite;
use crate::software::{P256Verifier, p256_point};

/// Decides on a server's certificate. Whether the server has its key is not its business.
pub trait ServerCheck {
    /// Checks the leaf with the further certificates that the server sent, and says when all of it is valid, if it
    /// looked.
    ///
    /// # Errors
    /// [`ServerRefused`].
    fn check<'c>(&'c self, leaf: &'c [u8], others: Sent<'c>) -> Result<Option<Validity>, ServerRefused>;

    /// What checks the proof of its key.
    fn verifier(&self) -> &P256Verifier;
}

/// The certificates that a server sent behind its leaf.
#[derive(Clone, Debug)]
pub struct Sent<'c>(core::slice::Iter<'c, CertificateEntryRef<'c>>);

impl<'c> Iterator for Sent<'c> {
    type Item = &'c [u8];

    fn next(&mut self) -> Option<&'c [u8]> {
        self.0.find_map(certificate)
    }
}

/// The EST server, by the machine's own check.
impl ServerCheck for Enrollment<'_, P256Verifier> {
    fn check<'c>(&'c self, leaf: &'c [u8], others: Sent<'c>) -> Result<Option<Validity>, ServerRefused> {
        self.check_server(leaf, others).map(Some)
    }

    fn verifier(&self) -> &P256Verifier {
        self.verifier()
    }
}

/// A server of which nothing is asked: `ServerTrust::Bootstrap`. Nothing secret may be sent to it, and nothing that
/// it says be believed but what a pinned fingerprint confirms. It must still have a P-256 certificate and prove its key.
#[derive(Clone, Copy)]
pub struct AnyServer<'v>(pub &'v P256Verifier);

impl ServerCheck for AnyServer<'_> {
    fn check<'c>(&'c self, _: &'c [u8], _: Sent<'c>) -> Result<Option<Validity>, ServerRefused> {
        Ok(None)
    }

    fn verifier(&self) -> &P256Verifier {
        self.0
    }
}

/// A server of the application: an edge or a broker.
#[derive(Clone, Copy)]
pub struct NamedServer<'s> {
    /// What its certificate must be for.
    pub name: ServerName<'s>,
    /// Whom to trust.
    pub anchors: Anchors<'s>,
    /// Intermediates to try beside those that it sends.
    pub intermediates: Bundle<'s>,
    /// What is known of the time.
    pub moment: Moment,
    /// What checks signatures.
    pub verifier: &'s P256Verifier,
}

impl ServerCheck for NamedServer<'_> {
    fn check<'c>(&'c self, leaf: &'c [u8], others: Sent<'c>) -> Result<Option<Validity>, ServerRefused> {
        let candidates = others.chain(self.intermediates.iter());
        check_server(&self.name, leaf, candidates, &self.anchors, self.moment, self.verifier).map(Some)
    }

    fn verifier(&self) -> &P256Verifier {
        self.verifier
    }
}

/// Why a server is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// Its certificate did not pass.
    Certificate(ServerRefused),
    /// It has an RSA key or another curve than P-256.
    Key(VerifyError),
    /// It sent no certificate, or no proof of its key.
    Missing,
    /// It sent one of them twice, out of order, or in a form that is not used here.
    OutOfOrder,
    /// The proof is not by the certificate's key over this handshake.
    Signature,
}

pub(super) struct StrictVerifier<'c> {
    check: &'c dyn ServerCheck,
    stage: Stage,
}

enum Stage {
    Begun,
    /// The certificate passed; its key and the handshake that the proof must be over.
    Shown {
        key: [u8; 65],
        transcript: [u8; 32],
        valid: Option<Validity>,
    },
    Proven {
        valid: Option<Validity>,
    },
    Refused(Unproven),
}

impl<'c> StrictVerifier<'c> {
    pub(super) const fn new(check: &'c dyn ServerCheck) -> Self {
        Self { check, stage: Stage::Begun }
    }

    /// When the server's certificates are valid, once it has shown one and proven its key.
    pub(super) const fn proven(&self) -> Result<Option<Validity>, Unproven> {
        match self.stage {
            Stage::Begun | Stage::Shown { .. } => Err(Unproven::Missing),
            Stage::Proven { valid } => Ok(valid),
            Stage::Refused(reason) => Err(reason),
        }
    }

    /// Why the server was refused, if that is what ended the handshake.
    pub(super) const fn refusal(&self) -> Option<Unproven> {
        match self.stage {
            Stage::Refused(reason) => Some(reason),
            _ => None,
        }
    }

    // Each step apart, here and below: what it needs of the stack is given back before the next one, and while signatures
    // are checked little else is there.
    #[inline(never)]
    fn shown(&mut self, transcript: &Sha256, message: &CertificateRef<'_>) -> Result<(), Unproven> {
        let Stage::Begun = self.stage else { return Err(Unproven::OutOfOrder) };
        let mut entries = message.entries.iter();
        let leaf = certificate(entries.next().ok_or(Unproven::Missing)?).ok_or(Unproven::OutOfOrder)?;
        let valid = self.check.check(leaf, Sent(entries)).map_err(Unproven::Certificate)?;
        self.stage = Stage::Shown { key: key(leaf)?, transcript: digest(transcript), valid };
        Ok(())
    }

    #[inline(never)]
    fn proved(&mut self, message: &CertificateVerifyRef<'_>) -> Result<(), Unproven> {
        let Stage::Shown { key, transcript, valid } = &self.stage else { return Err(Unproven::OutOfOrder) };
        let SignatureScheme::EcdsaSecp256r1Sha256 = message.signature_scheme else {
            return Err(Unproven::Signature);
        };
        let content = signed_content(transcript);
        let checked = self.check.verifier().check(key, &content, message.signature);
        checked.map_err(|_| Unproven::Signature)?;
        self.stage = Stage::Proven { valid: *valid };
        Ok(())
    }

    fn refuse(&mut self, reason: Unproven) {
        // The first refusal stands, whatever the server does next.
        if !matches!(self.stage, Stage::Refused(_)) {
            self.stage = Stage::Refused(reason);
        }
    }
}

impl TlsVerifier<GuardedSuite> for StrictVerifier<'_> {
    fn set_hostname_verification(&mut self, _: &str) -> Result<(), TlsError> {
        // The check knows the name, also when it is an address and SNI has none.
        Ok(())
    }

    fn verify_certificate(
        &mut self,
        transcript: &Sha256,
        certificate: CertificateRef<'_>,
    ) -> Result<(), TlsError> {
        self.shown(transcript, &certificate).map_err(|reason| {
            self.refuse(reason);
            TlsError::InvalidCertificate
        })
    }

    fn verify_signature(&mut self, verify: CertificateVerifyRef<'_>) -> Result<(), TlsError> {
        self.proved(&verify).map_err(|reason| {
            self.refuse(reason);
            TlsError::InvalidSignature
        })
    }
}

fn certificate<'c>(entry: &CertificateEntryRef<'c>) -> Option<&'c [u8]> {
    match entry {
        CertificateEntryRef::X509(der) => Some(der),
        CertificateEntryRef::RawPublicKey(_) => None,
    }
}

#[inline(never)]
fn key(leaf: &[u8]) -> Result<[u8; 65], Unproven> {
    let parsed = Certificate::parse(leaf)
        .map_err(|error| Unproven::Certificate(ServerRefused::Path(PathError::Leaf(error))))?;
    let point = p256_point(&parsed.key).map_err(Unproven::Key)?;
    // Uncompressed, as every CA writes it (RFC 5480 §2.2).
    point.try_into().map_err(|_| Unproven::Key(VerifyError::Unsupported))
}

#[inline(never)]
fn digest(transcript: &Sha256) -> [u8; 32] {
    transcript.clone().finalize().into()
}

/// What a server signs (RFC 8446 §4.4.3).
fn signed_content(transcript: &[u8; 32]) -> [u8; 130] {
    const CONTEXT: &[u8; 34] = b"TLS 1.3, server CertificateVerify\0";
    let mut content = [0x20; 130];
    let (_, rest) = content.split_at_mut(64);
    let (context, hash) = rest.split_at_mut(CONTEXT.len());
    context.copy_from_slice(CONTEXT);
    hash.copy_from_slice(transcript);
    content
}
