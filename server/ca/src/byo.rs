//! Bring-your-own CA: a PEM bundle, in any order, with or without the private key.
//!
//! What comes out is a chain in order - the issuing CA first, each next one the signer of the one
//! before - whose signatures, dates and key were checked here. A bundle that leaves a doubt about
//! which certificate issues, or holds one that does not belong, is refused with the reason.

use muster_policy::time::UnixTime;

use crate::certificate::{CaCertificate, CertificateError};
use crate::file_key::{FileKey, FileKeyError, Passphrase};
use crate::lint::{ANY_PURPOSE, CLIENT_AUTH};
use crate::pem_text;
use crate::signature::SignatureFault;
use crate::signer::Signer;

#[cfg(test)]
mod tests;

/// Most certificates of a bundle; real hierarchies have at most four.
pub const BUNDLE_MAX_CERTIFICATES: usize = 8;
/// Largest bundle text: that many certificates of 16 KiB, as base64, and a key.
pub const BUNDLE_MAX_BYTES: usize = 256 * 1024;

/// A checked bundle.
#[derive(Debug)]
pub struct Imported {
    /// The chain: the issuing CA first, then the signer of each, up to the root if it was there.
    pub certificates: Vec<CaCertificate>,
    /// The issuing CA's key, if it was there; without it the CA only verifies.
    pub key: Option<FileKey>,
}

impl Imported {
    /// Whether the issuing CA may do all that a CA of devices has to: issue client certificates and sign CRLs.
    ///
    /// # Errors
    /// [`ImportError::NotForDevices`], with what its certificate lacks.
    pub fn check_for_devices(&self) -> Result<(), ImportError> {
        let Some(issuing) = self.certificates.first() else { return Err(ImportError::NoCertificate) };
        let lacks = |what| Err(ImportError::NotForDevices { subject: issuing.subject().to_owned(), what });
        if !issuing.signs_crls() {
            return lacks(
                "its keyUsage has no cRLSign (RFC 5280 §4.2.1.3), so nothing could be revoked by a CRL",
            );
        }
        match issuing.purposes() {
            Some(purposes) if purposes.contains(&CLIENT_AUTH) => Ok(()),
            // RFC 5280 limits nothing by that, but who checks devices by OpenSSL, or by webpki below a root, does.
            Some(purposes) if purposes.contains(&ANY_PURPOSE) => lacks(
                "its extKeyUsage is anyExtendedKeyUsage without clientAuth, and many TLS servers, such as those by \
                 OpenSSL, refuse the clients of such a CA",
            ),
            Some(_) => lacks("its extKeyUsage has no clientAuth (RFC 5280 §4.2.1.12)"),
            None => Ok(()),
        }
    }
}

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// More than one certificate could be the issuing one.
    #[error("more than one certificate could be the issuing CA: {first} and {second}")]
    Ambiguous {
        /// Subject of one.
        first: String,
        /// Subject of another.
        second: String,
    },
    /// A certificate can't be a CA's: a leaf, malformed, a weak key.
    #[error("certificate {place} of the bundle: {error}")]
    Certificate {
        /// Its place in the bundle, from 1.
        place: usize,
        /// What is wrong with it.
        error: CertificateError,
    },
    /// A certificate has ended.
    #[error("{subject} has expired at {not_after}")]
    Expired {
        /// Its subject.
        subject: String,
        /// Its end.
        not_after: UnixTime,
    },
    /// The private key can't be read.
    #[error(transparent)]
    Key(#[from] FileKeyError),
    /// The private key belongs to none of the certificates.
    #[error("the private key belongs to none of the certificates")]
    KeyMismatch,
    /// There is no certificate in the text.
    #[error("there is no certificate in the PEM text")]
    NoCertificate,
    /// The issuing CA may not do what a CA of devices has to.
    #[error("{subject} can't issue to devices: {what}")]
    NotForDevices {
        /// Its subject.
        subject: String,
        /// What it lacks.
        what: &'static str,
    },
    /// A certificate has not begun.
    #[error("{subject} is not valid before {not_before}")]
    NotYetValid {
        /// Its subject.
        subject: String,
        /// Its start.
        not_before: UnixTime,
    },
    /// A certificate is not part of the chain of the issuing one, or its signature is wrong.
    #[error("{subject} does not belong to the chain of the issuing CA")]
    PathBroken {
        /// Its subject.
        subject: String,
    },
    /// The text is no PEM text.
    #[error("malformed PEM text: {0}")]
    Pem(String),
    /// The bundle is larger than [`BUNDLE_MAX_BYTES`] or [`BUNDLE_MAX_CERTIFICATES`].
    #[error("the bundle is larger than 256 KiB or has more than 8 certificates")]
    TooLarge,
    /// A certificate is signed with a weak or unknown algorithm.
    #[error("{subject} is signed with a weak or unknown algorithm")]
    WeakSignature {
        /// Its subject.
        subject: String,
    },
}

/// Reads and checks a bundle.
///
/// # Errors
/// The first reason that speaks against it; see [`ImportError`].
pub fn import(text: &str, passphrase: Option<&Passphrase>, now: UnixTime) -> Result<Imported, ImportError> {
    if text.len() > BUNDLE_MAX_BYTES {
        return Err(ImportError::TooLarge);
    }
    let certificates = read_certificates(text)?;
    certificates.iter().try_for_each(|certificate| check_validity(certificate, now))?;
    let key = match FileKey::read_pem(text, passphrase) {
        Ok(key) => Some(key),
        Err(FileKeyError::Missing) => None,
        Err(error) => return Err(error.into()),
    };
    let issuing = match &key {
        Some(key) => of_key(&certificates, key)?,
        None => without_key(&certificates)?,
    };
    Ok(Imported { certificates: in_order(certificates, issuing)?, key })
}

fn read_certificates(text: &str) -> Result<Vec<CaCertificate>, ImportError> {
    let blocks = pem_text::blocks(text).map_err(|error| ImportError::Pem(error.to_string()))?;
    let mut certificates: Vec<CaCertificate> = Vec::new();
    for (place, block) in blocks.iter().filter(|block| block.label == "CERTIFICATE").enumerate() {
        let certificate = CaCertificate::parse(&block.der)
            .map_err(|error| ImportError::Certificate { place: place.saturating_add(1), error })?;
        // The same certificate twice is the work of a careless `cat`, and harmless.
        if certificates.contains(&certificate) {
            continue;
        }
        if certificates.len() == BUNDLE_MAX_CERTIFICATES {
            return Err(ImportError::TooLarge);
        }
        certificates.push(certificate);
    }
    if certificates.is_empty() { Err(ImportError::NoCertificate) } else { Ok(certificates) }
}

fn check_validity(certificate: &CaCertificate, now: UnixTime) -> Result<(), ImportError> {
    let subject = || certificate.subject().to_owned();
    if now < certificate.not_before() {
        return Err(ImportError::NotYetValid { subject: subject(), not_before: certificate.not_before() });
    }
    if now > certificate.not_after() {
        return Err(ImportError::Expired { subject: subject(), not_after: certificate.not_after() });
    }
    Ok(())
}

/// The certificate of this key. Of two, such as a self-signed and a cross-signed one, the one
/// signed by another CA leads further.
fn of_key(certificates: &[CaCertificate], key: &FileKey) -> Result<usize, ImportError> {
    let places = |accept: fn(&CaCertificate) -> bool| {
        certificates.iter().position(|certificate| {
            certificate.subject_key().spki_der() == key.spki_der() && accept(certificate)
        })
    };
    places(|certificate| !certificate.is_self_issued())
        .or_else(|| places(CaCertificate::is_self_issued))
        .ok_or(ImportError::KeyMismatch)
}

/// The one certificate that issued none of the others.
fn without_key(certificates: &[CaCertificate]) -> Result<usize, ImportError> {
    let issued_another = |candidate: &CaCertificate| {
        certificates.iter().any(|other| other != candidate && other.issuer_der() == candidate.subject_der())
    };
    let mut candidates = certificates.iter().enumerate().filter(|(_, candidate)| !issued_another(candidate));
    match (candidates.next(), candidates.next()) {
        (Some((place, _)), None) => Ok(place),
        (Some((_, first)), Some((_, second))) => Err(ImportError::Ambiguous {
            first: first.subject().to_owned(),
            second: second.subject().to_owned(),
        }),
        // Each issued another: they stand in a ring.
        (None, _) => {
            let subject = certificates.first().map(|first| first.subject().to_owned()).unwrap_or_default();
            Err(ImportError::PathBroken { subject })
        }
    }
}

/// Follows the signatures upwards; every certificate must be on the way.
fn in_order(mut left: Vec<CaCertificate>, issuing: usize) -> Result<Vec<CaCertificate>, ImportError> {
    let mut chain: Vec<CaCertificate> = Vec::with_capacity(left.len());
    let mut current = left.remove(issuing);
    loop {
        let next = next_above(&current, &left)?;
        chain.push(current);
        match next {
            Some(place) => current = left.remove(place),
            None => break,
        }
    }
    match left.first() {
        None => Ok(chain),
        Some(stray) => Err(ImportError::PathBroken { subject: stray.subject().to_owned() }),
    }
}

/// Which of the others signed this one. A root's signature over itself says nothing, so its
/// algorithm may be of any age.
fn next_above(current: &CaCertificate, others: &[CaCertificate]) -> Result<Option<usize>, ImportError> {
    if current.is_self_issued() {
        return Ok(None);
    }
    let mut fault = None;
    for (place, other) in others.iter().enumerate() {
        if other.subject_der() != current.issuer_der() {
            continue;
        }
        match current.verify_signed_by(other.subject_key()) {
            Ok(()) => return Ok(Some(place)),
            Err(found) => fault = Some(found),
        }
    }
    let subject = current.subject().to_owned();
    match fault {
        None => Ok(None),
        Some(SignatureFault::Weak) => Err(ImportError::WeakSignature { subject }),
        Some(SignatureFault::Wrong) => Err(ImportError::PathBroken { subject }),
    }
}
