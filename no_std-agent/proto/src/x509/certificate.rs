//! One certificate, checked as far as it can be without its issuer (RFC 5280 §4.1).
//!
//! Parsing refuses what no certificate of ours or of a sane public CA has: versions other than 3, two
//! different signature algorithms, negative or oversized serials, unknown critical or doubled extensions.

use super::{Extensions, PublicKey, SignatureAlgorithm, Verify, VerifyError};
use crate::der::{DerError, Element, Oid, Reader, Tag};
use crate::time::Validity;

/// Largest certificate that is looked at. A P-256 leaf has about 500 bytes, an RSA-4096 server certificate with
/// a hundred names about 4,000.
pub const MAX_CERTIFICATE_BYTES: usize = 4096;

/// Longest serial number in octets (RFC 5280 §4.1.2.2).
const MAX_SERIAL_BYTES: usize = 20;

/// Why bytes are not a certificate that is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateError {
    /// The signature algorithms inside and outside of the signed part differ (RFC 5280 §4.1.1.2).
    AlgorithmMismatch,
    /// An extension appears twice (RFC 5280 §4.2).
    DuplicateExtension,
    /// An extension's content breaks its own syntax.
    Extension,
    /// The structure is not DER, or not a certificate's.
    Malformed,
    /// The serial number is not positive or has more than 20 octets.
    Serial,
    /// More than [`MAX_CERTIFICATE_BYTES`], or too many extensions.
    TooLarge,
    /// A critical extension that is not understood here (RFC 5280 §4.2).
    UnknownCriticalExtension,
    /// A signature algorithm that is not accepted.
    UnsupportedAlgorithm,
    /// Not a version 3 certificate.
    Version,
}

impl From<DerError> for CertificateError {
    fn from(_: DerError) -> Self {
        Self::Malformed
    }
}

/// A parsed certificate; all slices point into the bytes it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// The whole encoding.
    pub der: &'a [u8],
    /// Content octets of the serial number.
    pub serial: &'a [u8],
    /// The issuer's Name, encoded.
    pub issuer: &'a [u8],
    /// The subject's Name, encoded. Names are compared by these bytes alone.
    pub subject: &'a [u8],
    /// When it is valid.
    pub validity: Validity,
    /// The subject's key.
    pub key: PublicKey<'a>,
    /// The extensions that matter here.
    pub extensions: Extensions<'a>,
    signed: &'a [u8],
    algorithm: SignatureAlgorithm,
    signature: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads exactly one certificate.
    ///
    /// # Errors
    /// [`CertificateError`]; bytes after the certificate are an error too.
    pub fn parse(der: &'a [u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::TooLarge);
        }
        let mut certificate = Reader::only(der, Tag::SEQUENCE)?;
        let signed = certificate.whole(Tag::SEQUENCE)?;
        let algorithm_identifier = certificate.whole(Tag::SEQUENCE)?;
        let signature = certificate.octet_aligned_bit_string()?;
        certificate.end()?;

        let mut tbs = Reader::only(signed, Tag::SEQUENCE)?;
        read_version(&mut tbs)?;
        let serial = read_serial(&mut tbs)?;
        if tbs.whole(Tag::SEQUENCE)? != algorithm_identifier {
            return Err(CertificateError::AlgorithmMismatch);
        }
        let algorithm = SignatureAlgorithm::from_identifier(algorithm_identifier)
            .ok_or(CertificateError::UnsupportedAlgorithm)?;
        let issuer = read_name(&mut tbs)?;
        let validity = read_validity(&mut tbs)?;
        let subject = read_name(&mut tbs)?;
        let key = PublicKey::read(&mut tbs)?;
        // issuerUniqueID and subjectUniqueID: allowed by the syntax, meaningless today.
        tbs.pass_over(Tag::context(1))?;
        tbs.pass_over(Tag::context(2))?;
        let extensions = Extensions::read(&mut tbs)?;
        tbs.end()?;
        Ok(Self { der, serial, issuer, subject, validity, key, extensions, signed, algorithm, signature })
    }

    /// Reads a certificate where it does not matter why it is none.
    // Once in an image: the value is large, and this is a copy of it.
    #[inline(never)]
    pub(crate) fn readable(der: &'a [u8]) -> Option<Self> {
        Self::parse(der).ok()
    }

    /// Checks that `issuer_key` signed this certificate.
    ///
    /// # Errors
    /// [`VerifyError`] of the verifier.
    pub fn check_signature(
        &self,
        issuer_key: &PublicKey<'_>,
        verifier: &dyn Verify,
    ) -> Result<(), VerifyError> {
        verifier.verify(issuer_key, self.algorithm, self.signed, self.signature)
    }

    /// Whether issuer and subject are the same name (RFC 5280 §6.1).
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// The subject's only commonName, when it is UTF-8 or printable text; `None` for none or several.
    #[must_use]
    pub fn common_name(&self) -> Option<&'a str> {
        common_name(self.subject)
    }

    /// The issuer's only commonName, under the same terms; for people, never to tell issuers apart.
    #[must_use]
    pub fn issuer_common_name(&self) -> Option<&'a str> {
        common_name(self.issuer)
    }
}

fn read_version(tbs: &mut Reader<'_>) -> Result<(), CertificateError> {
    // DEFAULT v1: an absent version means 1.
    if tbs.peek() != Some(Tag::context_constructed(0)) {
        return Err(CertificateError::Version);
    }
    let mut version = tbs.enter(Tag::context_constructed(0))?;
    let number = version.small_integer()?;
    version.end()?;
    if number == 2 { Ok(()) } else { Err(CertificateError::Version) }
}

fn read_serial<'a>(tbs: &mut Reader<'a>) -> Result<&'a [u8], CertificateError> {
    let serial = tbs.integer()?;
    let positive = serial.first().is_some_and(|first| first & 0x80 == 0) && serial.iter().any(|b| *b != 0);
    let digits = serial.strip_prefix(&[0]).unwrap_or(serial);
    if positive && digits.len() <= MAX_SERIAL_BYTES { Ok(serial) } else { Err(CertificateError::Serial) }
}

fn read_validity(tbs: &mut Reader<'_>) -> Result<Validity, CertificateError> {
    let mut inside = tbs.sequence()?;
    let validity = Validity { not_before: inside.time()?, not_after: inside.time()? };
    inside.end()?;
    Ok(validity)
}

/// Takes a Name (RFC 5280 §4.1.2.4), checked down to its attributes, and returns its encoding.
pub(crate) fn read_name<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DerError> {
    let name = reader.whole(Tag::SEQUENCE)?;
    for_each_attribute(name, &mut |_, _| {})?;
    Ok(name)
}

/// The only commonName in a Name that was read; `None` for none, several, or one that is no text.
pub(crate) fn common_name(name: &[u8]) -> Option<&str> {
    let mut found = None;
    let mut count = 0;
    for_each_attribute(name, &mut |id, value| {
        if id == Oid::COMMON_NAME {
            count += 1;
            let is_text = matches!(value.tag, Tag::UTF8_STRING | Tag::PRINTABLE_STRING);
            found = core::str::from_utf8(value.value).ok().filter(|_| is_text);
        }
    })
    .ok()?;
    found.filter(|_| count == 1)
}

fn for_each_attribute<'a>(
    name: &'a [u8],
    visit: &mut dyn FnMut(Oid<'a>, Element<'a>),
) -> Result<(), DerError> {
    let mut names = Reader::only(name, Tag::SEQUENCE)?;
    while !names.is_empty() {
        let mut attributes = names.enter(Tag::SET)?;
        loop {
            let mut attribute = attributes.sequence()?;
            let id = attribute.oid()?;
            visit(id, attribute.any()?);
            attribute.end()?;
            if attributes.is_empty() {
                break;
            }
        }
    }
    Ok(())
}
