//! Bringing a CA along: from a PEM bundle to a checked CA, with the reason when it is refused.
//!
//! The bundle holds the CA, the CAs above it in any order, and optionally the private key of one of
//! them, which then is the CA. Without a key the CA is the one that signed none of the others.

use muster_policy::time::UnixTime;

use crate::certificate::{CaCertificate, CertificateError};
use crate::file_key::{FileKey, FileKeyError, Passphrase};
use crate::signer::Signer as _;

/// Largest bundle that is read; ten large certificates and a key.
pub const BUNDLE_MAX_BYTES: usize = 256 * 1024;
/// Most certificates of a bundle; deeper hierarchies are not known.
pub const BUNDLE_MAX_CERTIFICATES: usize = 10;

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A certificate in it can't be used; a leaf is one of the reasons.
    #[error("certificate {number} of the bundle: {error}")]
    Certificate {
        /// Which one, from 1.
        number: usize,
        /// Why.
        error: CertificateError,
    },
    /// A certificate has ended.
    #[error("the certificate of {subject} expired {not_after}")]
    Expired {
        /// Whose.
        subject: String,
        /// When it ended.
        not_after: UnixTime,
    },
    /// The key can't be read.
    #[error(transparent)]
    Key(#[from] FileKeyError),
    /// The key belongs to none of the certificates.
    #[error("the private key belongs to none of the certificates")]
    KeyMismatch,
    /// It is not PEM.
    #[error("not a PEM bundle: {0}")]
    Malformed(String),
    /// It holds no certificate.
    #[error("there is no certificate in the bundle")]
    NoCertificate,
    /// A certificate has not begun.
    #[error("the certificate of {subject} is not valid before {not_before}")]
    NotYetValid {
        /// Whose.
        subject: String,
        /// When it begins.
        not_before: UnixTime,
    },
    /// The certificates are not one path.
    #[error("{0} is not signed by any other certificate of the bundle, and is not the end of the path")]
    PathBroken(String),
    /// It is larger, or holds more certificates, than is read.
    #[error("the bundle is larger than 256 KiB or holds more than 10 certificates")]
    TooLarge,
}

/// A CA that was brought along.
#[derive(Debug)]
pub struct Imported {
    /// Its certificate.
    pub certificate: CaCertificate,
    /// The CAs above it, its issuer first.
    pub above: Vec<CaCertificate>,
    /// Its key, if the bundle holds it.
    pub key: Option<FileKey>,
}

/// Reads a bundle.
///
/// # Errors
/// See [`ImportError`]; the text names what is wrong with which certificate.
pub fn import(text: &str, passphrase: Option<&Passphrase>, now: UnixTime) -> Result<Imported, ImportError> {
    if text.len() > BUNDLE_MAX_BYTES {
        return Err(ImportError::TooLarge);
    }
    let blocks = pem::parse_many(text).map_err(|error| ImportError::Malformed(error.to_string()))?;
    let ders: Vec<&[u8]> =
        blocks.iter().filter(|block| block.tag() == "CERTIFICATE").map(pem::Pem::contents).collect();
    if ders.is_empty() {
        return Err(ImportError::NoCertificate);
    }
    if ders.len() > BUNDLE_MAX_CERTIFICATES {
        return Err(ImportError::TooLarge);
    }
    let mut certificates = Vec::new();
    for (number, der) in (1..).zip(ders) {
        let parsed = CaCertificate::parse(der).map_err(|error| ImportError::Certificate { number, error })?;
        check_dates(&parsed, now)?;
        if !certificates.contains(&parsed) {
            certificates.push(parsed);
        }
    }
    let key = match FileKey::read_pem(text, passphrase) {
        Ok(key) => Some(key),
        Err(FileKeyError::Missing) => None,
        Err(error) => return Err(error.into()),
    };
    let first = find_first(&certificates, key.as_ref())?;
    let (certificate, above) = order(certificates, first)?;
    Ok(Imported { certificate, above, key })
}

fn check_dates(certificate: &CaCertificate, now: UnixTime) -> Result<(), ImportError> {
    let subject = certificate.subject().to_owned();
    if certificate.not_after() < now {
        return Err(ImportError::Expired { subject, not_after: certificate.not_after() });
    }
    if now < certificate.not_before() {
        return Err(ImportError::NotYetValid { subject, not_before: certificate.not_before() });
    }
    Ok(())
}

/// The key's certificate; without a key the one that signed none of the others.
fn find_first(certificates: &[CaCertificate], key: Option<&FileKey>) -> Result<usize, ImportError> {
    if let Some(key) = key {
        let fits = |certificate: &CaCertificate| certificate.subject_key().spki_der() == key.spki_der();
        return certificates.iter().position(fits).ok_or(ImportError::KeyMismatch);
    }
    let signed_none = |candidate: &CaCertificate| {
        certificates.iter().all(|other| other == candidate || !is_signed_by(other, candidate))
    };
    certificates.iter().position(signed_none).ok_or(ImportError::NoCertificate)
}

/// From the first upwards; every certificate must have its place.
fn order(
    mut rest: Vec<CaCertificate>,
    first: usize,
) -> Result<(CaCertificate, Vec<CaCertificate>), ImportError> {
    let certificate = rest.swap_remove(first);
    let mut above: Vec<CaCertificate> = Vec::new();
    loop {
        let last = above.last().unwrap_or(&certificate);
        let Some(next) = rest.iter().position(|candidate| is_signed_by(last, candidate)) else { break };
        above.push(rest.swap_remove(next));
    }
    match rest.first() {
        None => Ok((certificate, above)),
        Some(stray) => Err(ImportError::PathBroken(stray.subject().to_owned())),
    }
}

fn is_signed_by(certificate: &CaCertificate, issuer: &CaCertificate) -> bool {
    certificate.issuer_der() == issuer.subject_der()
        && certificate.verify_signed_by(issuer.subject_key()).is_ok()
}
