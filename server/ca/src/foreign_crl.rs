//! Revocation lists that others made (RFC 5280 §5): of CAs whose key is elsewhere.
//!
//! A list is read once, when it comes, and checked whole: its signature by the CA, its issuer, its
//! times, its size, and that it is a full list for all of the CA's device certificates. What is left
//! of it is a sorted set of serials; no list is ever near a handshake. What is not understood and
//! critical refuses the whole list (RFC 5280 §5.2), so nobody is let in by a list half read.

use core::time::Duration;

use der::asn1::{BitStringRef, ObjectIdentifier, UintRef};
use der::{Decode, Encode, Tag};
use muster_policy::identity::Serial;
use muster_policy::revocation::RevocationReason;
use muster_policy::time::UnixTime;
use x509_cert::crl::{CertificateList, RevokedCert};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};

use crate::certificate::{CaCertificate, unix_time};
use crate::crl::Revoked;
use crate::pem_text;
use crate::signature::{self, SignatureFault};
use crate::tlv;

#[cfg(test)]
mod tests;

/// Largest list, DER: [`ENTRIES_MAX`] entries of a usual size.
pub const CRL_MAX_BYTES: usize = 4 << 20;
/// Most entries of a list; it bounds how long the ledger is busy with one.
pub const ENTRIES_MAX: usize = 100_000;
/// How far the maker's clock may be ahead of ours.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(300);

/// RFC 5280 §5.2.3.
const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
/// RFC 5280 §5.3.1.
const REASON_CODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
/// RFC 5280 §5.2.4.
const DELTA_INDICATOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.27");
/// RFC 5280 §5.2.5.
const DISTRIBUTION_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");
/// RFC 5280 §5.3.3.
const CERTIFICATE_ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.29");
/// RFC 5280 §5.2.1: only helps to find the key, which is known here.
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
/// RFC 5280 §5.3.2: when it may have begun; what counts is that it is revoked.
const INVALIDITY_DATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.24");
/// RFC 5280 §5.3.1.
const REMOVE_FROM_CRL: u8 = 8;

/// A list that the CA made, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignCrl {
    /// The list itself, DER.
    pub der: Vec<u8>,
    /// Its number, big-endian without leading zeros; empty for 0. It never goes back.
    pub number: Vec<u8>,
    /// When it was made.
    pub this_update: UnixTime,
    /// When there will be another at the latest.
    pub next_update: UnixTime,
    /// What is revoked, by serial, each once.
    pub revoked: Vec<Revoked>,
}

/// Why a list is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignCrlError {
    /// It tells only what changed since another list.
    #[error("it is a delta CRL; give the complete list")]
    Delta,
    /// It is older than its nextUpdate.
    #[error("it was good until {next_update} only; get a newer one from the CA")]
    Ended {
        /// Its nextUpdate.
        next_update: UnixTime,
    },
    /// It was made in the future.
    #[error("it is from the future: thisUpdate is {this_update}; set the clocks right")]
    Future {
        /// Its thisUpdate.
        this_update: UnixTime,
    },
    /// It lists certificates of other CAs.
    #[error("it is an indirect CRL, which lists certificates of other CAs")]
    Indirect,
    /// It can't be read.
    #[error("not a well-formed X.509 CRL of version 2: {0}")]
    Malformed(String),
    /// The CA may not sign lists.
    #[error("the CA's keyUsage does not allow signing CRLs")]
    NotForCrls,
    /// It has no nextUpdate, so nobody could tell when it is too old.
    #[error("it has no nextUpdate (RFC 5280 §5.1.2.5)")]
    NoNextUpdate,
    /// It has no number, so an older one could take its place.
    #[error("it has no CRL number (RFC 5280 §5.2.3); with openssl, set `crlnumber` for the CA")]
    NoNumber,
    /// It names a distribution point that nobody has said the complete list is at.
    #[error(
        "it is the list of one distribution point ({found}), which may be a part of the CA's; if it is complete, \
         say so with `muster ca crl-source CA --distribution-point URI`"
    )]
    Point {
        /// The point.
        found: String,
    },
    /// It covers a part of the certificates or of the reasons.
    #[error("it covers only {0}; give the complete list")]
    Partial(&'static str),
    /// It is larger than [`CRL_MAX_BYTES`].
    #[error("it is larger than 4 MiB")]
    TooLarge,
    /// It has more than [`ENTRIES_MAX`] entries.
    #[error("it has more than 100000 entries")]
    TooMany,
    /// Something in it is critical and not known.
    #[error("it has a critical extension that is not known: {0}")]
    UnknownCritical(String),
    /// A signature algorithm that is weak or not known.
    #[error("it is signed with a weak or unknown algorithm")]
    WeakSignature,
    /// Another CA's name is on it.
    #[error("its issuer is {found}, which is not this CA")]
    WrongIssuer {
        /// Whose name is on it.
        found: String,
    },
    /// The CA's key did not sign it.
    #[error("it is not signed by the key of this CA")]
    WrongSignature,
}

/// Reads a list, PEM (`X509 CRL`) or DER, and checks all of it against its CA.
///
/// A list that names a distribution point (RFC 5280 §5.2.5) may be a part, whose place the next part would take, or
/// all there is: its form does not say. It is taken when `point`, a URI, is that point, which is somebody's word that
/// the CA's complete list is there.
///
/// # Errors
/// The first thing that speaks against it.
pub fn read(
    octets: &[u8],
    ca: &CaCertificate,
    point: Option<&str>,
    now: UnixTime,
) -> Result<ForeignCrl, ForeignCrlError> {
    let der = to_der(octets)?;
    if der.len() > CRL_MAX_BYTES {
        return Err(ForeignCrlError::TooLarge);
    }
    let list = CertificateList::from_der(&der).map_err(malformed)?;
    let tbs = &list.tbs_cert_list;
    let number = number(tbs.crl_extensions.as_deref().unwrap_or_default(), point)?;
    let revoked = entries(tbs.revoked_certificates.as_deref().unwrap_or_default())?;
    if tbs.issuer.to_der().map_err(malformed)? != ca.subject_der() {
        return Err(ForeignCrlError::WrongIssuer { found: printable(&tbs.issuer.to_string()) });
    }
    if !ca.signs_crls() {
        return Err(ForeignCrlError::NotForCrls);
    }
    if tbs.signature != list.signature_algorithm {
        return Err(ForeignCrlError::WrongSignature);
    }
    verify(&der, ca)?;
    let this_update = unix_time(&tbs.this_update);
    let next_update = tbs.next_update.as_ref().map(unix_time).ok_or(ForeignCrlError::NoNextUpdate)?;
    if this_update > now.plus(CLOCK_AHEAD_MAX) {
        return Err(ForeignCrlError::Future { this_update });
    }
    if next_update <= now {
        return Err(ForeignCrlError::Ended { next_update });
    }
    Ok(ForeignCrl { number, this_update, next_update, revoked, der })
}

/// DER as it is; of a PEM text the one list in it.
fn to_der(octets: &[u8]) -> Result<Vec<u8>, ForeignCrlError> {
    // Base64 takes four octets for three, and line ends some more.
    if octets.len() > CRL_MAX_BYTES / 2 * 3 {
        return Err(ForeignCrlError::TooLarge);
    }
    if octets.first() == Some(&tlv::SEQUENCE) && !octets.starts_with(b"0-----") {
        return Ok(octets.to_vec());
    }
    let text = core::str::from_utf8(octets).map_err(malformed)?;
    let blocks = pem_text::blocks(text).map_err(malformed)?;
    let mut lists = blocks.iter().filter(|block| block.label == "X509 CRL");
    match (lists.next(), lists.next()) {
        (Some(list), None) => Ok(list.der.to_vec()),
        (None, _) => Err(ForeignCrlError::Malformed("there is no `X509 CRL` in the PEM text".to_owned())),
        (Some(_), Some(_)) => {
            Err(ForeignCrlError::Malformed("there is more than one CRL in the PEM text".to_owned()))
        }
    }
}

fn verify(der: &[u8], ca: &CaCertificate) -> Result<(), ForeignCrlError> {
    let members = tlv::split(der).map_err(malformed)?;
    let [tbs, algorithm, signature] = members.as_slice() else {
        return Err(ForeignCrlError::WrongSignature);
    };
    let algorithm = tlv::sequence_contents(algorithm).map_err(malformed)?;
    let signature = BitStringRef::from_der(signature).map_err(malformed)?;
    let octets = signature.as_bytes().ok_or(ForeignCrlError::WrongSignature)?;
    signature::verify(ca.subject_key(), algorithm, tbs, octets).map_err(|fault| match fault {
        SignatureFault::Weak => ForeignCrlError::WeakSignature,
        SignatureFault::Wrong => ForeignCrlError::WrongSignature,
    })
}

/// The number of the list, from its extensions; what else they say must be that it is a full list.
fn number(extensions: &[Extension], point: Option<&str>) -> Result<Vec<u8>, ForeignCrlError> {
    let mut number = None;
    for extension in extensions {
        let value = extension.extn_value.as_bytes();
        match extension.extn_id {
            CRL_NUMBER => {
                let read = UintRef::from_der(value).map_err(malformed)?.as_bytes();
                let start = read.iter().position(|octet| *octet != 0).unwrap_or(read.len());
                let read = read.get(start..).unwrap_or_default().to_vec();
                // RFC 5280 §5.2.3: "CRL issuers MUST NOT use CRLNumber values longer than 20 octets."
                if read.len() > Serial::MAX_BYTES {
                    return Err(ForeignCrlError::Malformed("its number has more than 20 octets".to_owned()));
                }
                number = Some(read);
            }
            DELTA_INDICATOR => return Err(ForeignCrlError::Delta),
            DISTRIBUTION_POINT => check_scope(value, point)?,
            AUTHORITY_KEY_ID => {}
            other if extension.critical => {
                return Err(ForeignCrlError::UnknownCritical(other.to_string()));
            }
            _ => {}
        }
    }
    number.ok_or(ForeignCrlError::NoNumber)
}

/// RFC 5280 §5.2.5.
fn check_scope(value: &[u8], point: Option<&str>) -> Result<(), ForeignCrlError> {
    let scope = IssuingDistributionPoint::from_der(value).map_err(malformed)?;
    if scope.indirect_crl {
        return Err(ForeignCrlError::Indirect);
    }
    if scope.only_contains_ca_certs {
        return Err(ForeignCrlError::Partial("certificates of CAs"));
    }
    if scope.only_contains_attribute_certs {
        return Err(ForeignCrlError::Partial("attribute certificates"));
    }
    if scope.only_some_reasons.is_some() {
        return Err(ForeignCrlError::Partial("some reasons"));
    }
    scope.distribution_point.map_or(Ok(()), |name| check_point(&name, point))
}

fn check_point(name: &DistributionPointName, point: Option<&str>) -> Result<(), ForeignCrlError> {
    let names = match name {
        DistributionPointName::FullName(names) => names.as_slice(),
        DistributionPointName::NameRelativeToCRLIssuer(_) => &[],
    };
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    });
    let first = uris.clone().next();
    if point.is_some_and(|point| uris.any(|uri| uri == point)) {
        return Ok(());
    }
    Err(ForeignCrlError::Point { found: printable(first.unwrap_or("without a URI")) })
}

fn entries(list: &[RevokedCert]) -> Result<Vec<Revoked>, ForeignCrlError> {
    if list.len() > ENTRIES_MAX {
        return Err(ForeignCrlError::TooMany);
    }
    let mut revoked = Vec::with_capacity(list.len());
    for entry in list {
        // No certificate with the serial 0 is ever let in, so none needs to be revoked.
        let Ok(serial) = Serial::from_bytes(entry.serial_number.as_bytes()) else { continue };
        if let Some(reason) = reason(entry.crl_entry_extensions.as_deref().unwrap_or_default())? {
            revoked.push(Revoked { serial, revoked_at: unix_time(&entry.revocation_date), reason });
        }
    }
    revoked.sort_by_key(|one: &Revoked| (one.serial, one.revoked_at));
    revoked.dedup_by_key(|one| one.serial);
    Ok(revoked)
}

/// Why; none for an entry that takes a revocation back.
fn reason(extensions: &[Extension]) -> Result<Option<RevocationReason>, ForeignCrlError> {
    let mut reason = RevocationReason::Unspecified;
    for extension in extensions {
        match extension.extn_id {
            REASON_CODE => match enumerated(extension.extn_value.as_bytes())? {
                REMOVE_FROM_CRL => return Ok(None),
                // A reason that is not known revokes all the same.
                code => reason = RevocationReason::from_code(code).unwrap_or_default(),
            },
            CERTIFICATE_ISSUER => return Err(ForeignCrlError::Indirect),
            INVALIDITY_DATE => {}
            other if extension.critical => {
                return Err(ForeignCrlError::UnknownCritical(other.to_string()));
            }
            _ => {}
        }
    }
    Ok(Some(reason))
}

/// An ENUMERATED of one octet.
fn enumerated(der: &[u8]) -> Result<u8, ForeignCrlError> {
    let any = der::AnyRef::from_der(der).map_err(malformed)?;
    match (der::Tagged::tag(&any), any.value()) {
        (Tag::Enumerated, [code]) => Ok(*code),
        _ => Err(ForeignCrlError::Malformed("a reason can't be read".to_owned())),
    }
}

fn malformed(error: impl core::fmt::Display) -> ForeignCrlError {
    ForeignCrlError::Malformed(printable(&error.to_string()))
}

/// Bounded, for messages.
fn printable(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(TEXT_MAX_CHARS).map(plain).collect()
}

/// Longest quotation of a list in a message.
const TEXT_MAX_CHARS: usize = 160;
