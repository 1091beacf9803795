//! What is read from certificates: facts of a leaf that was presented, and of a CA's own certificate.
//!
//! Reading proves nothing about who signed; that is for `chain` and `byo`. [`CaCertificate`] can
//! only be had for a certificate that may sign others, so nothing else can become an issuer.

use aws_lc_rs::digest;
use der::asn1::{BitStringRef, ObjectIdentifier};
use der::{Decode, Encode};
use muster_policy::enrol::{San, SubjectAttribute};
use muster_policy::identity::{Fingerprint, KeyFingerprint, Serial};
use muster_policy::name::Hostname;
use muster_policy::time::UnixTime;
use x509_cert::ext::pkix::constraints::name::NameConstraints;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::time::Time;
use x509_cert::{Certificate, TbsCertificate};

use crate::names;
use crate::signature::{self, SignatureFault};
use crate::subject_key::SubjectKey;
use crate::tlv;

/// Largest certificate that is read; the biggest seen in the field are below 8 KiB.
pub const CERTIFICATE_MAX_BYTES: usize = 16 * 1024;

/// The serialNumber of a subject (X.520 §6.2.9), which names a product instance in an IDevID
/// (IEEE 802.1AR §8.6).
pub const OID_SUBJECT_SERIAL_NUMBER: &str = "2.5.4.5";

/// Why a certificate can't be used for what it was given for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not exactly one DER certificate, or a field in it can't be read; the text says which.
    #[error("not a well-formed DER certificate: {0}")]
    Malformed(String),
    /// It is not a CA: no basicConstraints with cA (RFC 5280 §4.2.1.9), or not of version 3.
    #[error("it is not a CA certificate (basicConstraints)")]
    NotACa,
    /// Its keyUsage does not allow it to sign certificates (RFC 5280 §4.2.1.3).
    #[error("its keyUsage does not allow signing certificates")]
    NotForSigning,
    /// Its key is too weak or of an unknown kind.
    #[error("its key is too weak or of an unknown kind")]
    WeakKey,
    /// It is larger than [`CERTIFICATE_MAX_BYTES`].
    #[error("it is larger than 16 KiB")]
    TooLarge,
}

/// Facts of a leaf certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafFacts {
    /// Its serial.
    pub serial: Serial,
    /// The DER of its issuer's name.
    pub issuer_der: Vec<u8>,
    /// SHA-256 of the whole certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key_fingerprint: KeyFingerprint,
    /// Start of its validity.
    pub not_before: UnixTime,
    /// End of its validity.
    pub not_after: UnixTime,
    /// Its subject, in order.
    pub subject: Vec<SubjectAttribute>,
    /// Its alternative names, in order.
    pub sans: Vec<San>,
}

impl LeafFacts {
    /// Reads a DER certificate.
    ///
    /// # Errors
    /// When it is too large or malformed, or a name in it can't be read.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = decode(der)?;
        let tbs = certificate.tbs_certificate();
        let spki = tbs.subject_public_key_info().to_der().map_err(malformed)?;
        let sans = match tbs.get_extension::<SubjectAltName>().map_err(malformed)? {
            Some((_, names)) => names::sans(&names.0).map_err(malformed)?,
            None => Vec::new(),
        };
        Ok(Self {
            serial: serial(&certificate)?,
            issuer_der: tbs.issuer().to_der().map_err(malformed)?,
            fingerprint: fingerprint(der),
            key_fingerprint: KeyFingerprint::from_bytes(sha256(&spki)),
            not_before: unix_time(&tbs.validity().not_before),
            not_after: unix_time(&tbs.validity().not_after),
            subject: names::subject_attributes(tbs.subject()).map_err(malformed)?,
            sans,
        })
    }

    /// The serialNumber attribute of the subject, when there is exactly one.
    pub fn subject_serial_number(&self) -> Option<&str> {
        let mut found = self.subject.iter().filter(|attribute| attribute.oid == OID_SUBJECT_SERIAL_NUMBER);
        match (found.next(), found.next()) {
            (Some(only), None) => Some(&only.text),
            _ => None,
        }
    }
}

/// A certificate that may sign certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificate {
    der: Vec<u8>,
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
    subject_text: String,
    issuer_text: String,
    serial: Serial,
    fingerprint: Fingerprint,
    subject_key: SubjectKey,
    key_id: Vec<u8>,
    not_before: UnixTime,
    not_after: UnixTime,
    path_length: Option<u8>,
    purposes: Option<Vec<ObjectIdentifier>>,
    signs_crls: bool,
    permitted_dns: Vec<Hostname>,
}

impl CaCertificate {
    /// Reads a DER certificate that must be a CA's.
    ///
    /// # Errors
    /// When it is malformed, no CA, not meant for signing certificates, or has a weak key.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = decode(der)?;
        let tbs = certificate.tbs_certificate();
        let constraints = tbs.get_extension::<BasicConstraints>().map_err(malformed)?;
        let Some((_, BasicConstraints { ca: true, path_len_constraint })) = constraints else {
            return Err(CertificateError::NotACa);
        };
        // RFC 5280 §4.2.1.3: without the extension, any use is allowed.
        let usage = tbs.get_extension::<KeyUsage>().map_err(malformed)?.map(|(_, usage)| usage);
        let allows = |bit| usage.as_ref().is_none_or(|usage| usage.0.contains(bit));
        if !allows(KeyUsages::KeyCertSign) {
            return Err(CertificateError::NotForSigning);
        }
        let spki = tbs.subject_public_key_info().to_der().map_err(malformed)?;
        let subject_key = SubjectKey::parse(&spki).map_err(malformed)?;
        if !subject_key.is_strong() {
            return Err(CertificateError::WeakKey);
        }
        // RFC 5280 §4.2.1.2: what it issues must carry the identifier that it carries itself.
        let key_id = tbs.get_extension::<SubjectKeyIdentifier>().map_err(malformed)?.map_or_else(
            || subject_key.key_id().to_vec(),
            |(_, identifier)| identifier.0.into_bytes().to_vec(),
        );
        Ok(Self {
            der: der.to_vec(),
            subject_der: tbs.subject().to_der().map_err(malformed)?,
            issuer_der: tbs.issuer().to_der().map_err(malformed)?,
            subject_text: tbs.subject().to_string(),
            issuer_text: tbs.issuer().to_string(),
            serial: serial(&certificate)?,
            fingerprint: fingerprint(der),
            subject_key,
            key_id,
            not_before: unix_time(&tbs.validity().not_before),
            not_after: unix_time(&tbs.validity().not_after),
            path_length: path_len_constraint,
            purposes: tbs.get_extension::<ExtendedKeyUsage>().map_err(malformed)?.map(|(_, usage)| usage.0),
            signs_crls: allows(KeyUsages::CRLSign),
            permitted_dns: permitted_dns(tbs)?,
        })
    }

    /// The DER certificate, exactly as given.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The DER of its subject.
    pub fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    /// The DER of its issuer's name.
    pub fn issuer_der(&self) -> &[u8] {
        &self.issuer_der
    }

    /// Its subject as text (RFC 4514), for people.
    pub fn subject(&self) -> &str {
        &self.subject_text
    }

    /// Its issuer's name as text (RFC 4514), for people.
    pub fn issuer(&self) -> &str {
        &self.issuer_text
    }

    /// Its serial.
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// SHA-256 of the whole certificate.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Its key.
    pub const fn subject_key(&self) -> &SubjectKey {
        &self.subject_key
    }

    /// Its subject key identifier, or the one derived from its key when it carries none.
    pub fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    /// Start of its validity.
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// End of its validity.
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// How many more CAs may stand between it and a leaf (RFC 5280 §4.2.1.9).
    pub const fn path_length(&self) -> Option<u8> {
        self.path_length
    }

    /// The purposes it is limited to by extKeyUsage, if it is.
    pub fn purposes(&self) -> Option<&[ObjectIdentifier]> {
        self.purposes.as_deref()
    }

    /// The DNS domains it is limited to (RFC 5280 §4.2.1.10); empty for no limit.
    pub fn permitted_dns(&self) -> &[Hostname] {
        &self.permitted_dns
    }

    /// Whether its keyUsage allows it to sign CRLs.
    pub const fn signs_crls(&self) -> bool {
        self.signs_crls
    }

    /// Whether it names itself as its issuer.
    pub fn is_self_issued(&self) -> bool {
        self.subject_der == self.issuer_der
    }

    /// Whether it was signed by this key.
    ///
    /// # Errors
    /// When the algorithm is weak, or the signature is not by that key.
    pub fn verify_signed_by(&self, issuer: &SubjectKey) -> Result<(), SignatureFault> {
        let members = tlv::split(&self.der).map_err(|_| SignatureFault::Wrong)?;
        let [tbs, algorithm, signature] = members.as_slice() else { return Err(SignatureFault::Wrong) };
        let algorithm = tlv::sequence_contents(algorithm).map_err(|_| SignatureFault::Wrong)?;
        let signature = BitStringRef::from_der(signature).map_err(|_| SignatureFault::Wrong)?;
        let octets = signature.as_bytes().ok_or(SignatureFault::Wrong)?;
        signature::verify(issuer, algorithm, tbs, octets)
    }
}

fn permitted_dns(tbs: &TbsCertificate) -> Result<Vec<Hostname>, CertificateError> {
    let constraints = tbs.get_extension::<NameConstraints>().map_err(malformed)?;
    let subtrees =
        constraints.and_then(|(_, constraints)| constraints.permitted_subtrees).unwrap_or_default();
    let mut names = Vec::new();
    for subtree in subtrees {
        if let GeneralName::DnsName(name) = subtree.base {
            names.push(name.as_str().parse().map_err(malformed)?);
        }
    }
    Ok(names)
}

/// SHA-256 of a whole DER certificate.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    Fingerprint::from_bytes(sha256(der))
}

/// The serial and the fingerprint of a DER certificate of any kind.
///
/// # Errors
/// When it is too large or malformed.
pub fn names_of(der: &[u8]) -> Result<(Serial, Fingerprint), CertificateError> {
    Ok((serial(&decode(der)?)?, fingerprint(der)))
}

fn decode(der: &[u8]) -> Result<Certificate, CertificateError> {
    if der.len() > CERTIFICATE_MAX_BYTES {
        return Err(CertificateError::TooLarge);
    }
    Certificate::from_der(der).map_err(malformed)
}

fn malformed(error: impl core::fmt::Display) -> CertificateError {
    CertificateError::Malformed(error.to_string())
}

fn serial(certificate: &Certificate) -> Result<Serial, CertificateError> {
    Serial::from_bytes(certificate.tbs_certificate().serial_number().as_bytes()).map_err(malformed)
}

pub(crate) fn unix_time(time: &Time) -> UnixTime {
    UnixTime::from_secs(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manufacturer's certificate in the manner of IEEE 802.1AR §8: no alternative name, no end.
    #[test]
    fn reads_an_idevid_that_never_ends() {
        let mut params = rcgen::CertificateParams::default();
        params.not_after = UnixTime::MAX.to_offset_date_time();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::from_oid(&[2, 5, 4, 5]), "PID:7 SN:42");
        let certificate = params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("is made");
        let facts = LeafFacts::parse(certificate.der()).expect("reads");
        assert_eq!(facts.subject_serial_number(), Some("PID:7 SN:42"));
        assert_eq!(facts.not_after, UnixTime::MAX);
        assert!(facts.sans.is_empty());
    }

    #[test]
    fn two_serial_numbers_in_a_subject_name_no_device() {
        let attribute = |text: &str| SubjectAttribute {
            oid: OID_SUBJECT_SERIAL_NUMBER.to_owned(),
            text: text.to_owned(),
        };
        let certificate = crate::fixtures::devices().certificate();
        let mut facts = LeafFacts::parse(certificate.der()).expect("reads");
        assert_eq!(facts.subject_serial_number(), None);
        facts.subject = vec![attribute("1"), attribute("2")];
        assert_eq!(facts.subject_serial_number(), None);
    }

    #[test]
    fn an_oversized_certificate_is_not_even_read() {
        let large = vec![0x30; CERTIFICATE_MAX_BYTES + 1];
        assert_eq!(LeafFacts::parse(&large), Err(CertificateError::TooLarge));
        assert_eq!(CaCertificate::parse(&large), Err(CertificateError::TooLarge));
    }
}
