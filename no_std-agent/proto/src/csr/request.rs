//! Reads a request back (RFC 2986 §4), to take up after a reboot what was stored before it.

use crate::der::{DerError, Oid, Reader, Tag};
use crate::x509::{PublicKey, SignatureAlgorithm, Verify, VerifyError, read_name};

/// Why bytes are not a request as this crate makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsrError {
    /// The structure is not DER, or not a request's.
    Malformed(DerError),
    /// Not version 0, the only one there is.
    Version,
    /// Not signed with ECDSA and SHA-256.
    Algorithm,
}

impl From<DerError> for CsrError {
    fn from(error: DerError) -> Self {
        Self::Malformed(error)
    }
}

/// A parsed request; all slices point into the bytes it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificationRequest<'a> {
    /// The whole encoding.
    pub der: &'a [u8],
    /// The subject's Name, encoded.
    pub subject: &'a [u8],
    /// The key that a certificate is asked for.
    pub key: PublicKey<'a>,
    /// The text of challengePassword, if there is one.
    pub challenge_password: Option<&'a [u8]>,
    /// The content of the requested Extensions, if any are asked for.
    pub extensions: Option<&'a [u8]>,
    signed: &'a [u8],
    signature: &'a [u8],
}

impl<'a> CertificationRequest<'a> {
    /// Reads exactly one request. Its signature is not checked yet.
    ///
    /// # Errors
    /// [`CsrError`]; bytes after the request are an error too.
    pub fn parse(der: &'a [u8]) -> Result<Self, CsrError> {
        let mut outer = Reader::new(der);
        let mut request = outer.sequence()?;
        outer.end()?;
        let signed = request.element(Tag::SEQUENCE)?;
        let algorithm = request.element(Tag::SEQUENCE)?;
        let mut algorithm = Reader::new(algorithm.value);
        if algorithm.oid()? != Oid::ECDSA_WITH_SHA256 {
            return Err(CsrError::Algorithm);
        }
        algorithm.end()?;
        let signature = request.octet_aligned_bit_string()?;
        request.end()?;

        let mut info = Reader::new(signed.value);
        if info.small_integer()? != 0 {
            return Err(CsrError::Version);
        }
        let subject = read_name(&mut info)?;
        let key = PublicKey::read(&mut info)?;
        let attributes = info.enter(Tag::context_constructed(0))?;
        info.end()?;
        let mut parsed = Self {
            der,
            subject,
            key,
            challenge_password: None,
            extensions: None,
            signed: signed.whole,
            signature,
        };
        parsed.read_attributes(attributes)?;
        Ok(parsed)
    }

    /// Checks that the request is signed by the key it carries: proof of possession (RFC 2986 §4.2).
    ///
    /// # Errors
    /// [`VerifyError`] of the verifier.
    pub fn check_signature(&self, verifier: &impl Verify) -> Result<(), VerifyError> {
        verifier.verify(&self.key, SignatureAlgorithm::EcdsaSha256, self.signed, self.signature)
    }

    fn read_attributes(&mut self, mut attributes: Reader<'a>) -> Result<(), DerError> {
        while !attributes.is_empty() {
            let mut attribute = attributes.sequence()?;
            let id = attribute.oid()?;
            let mut values = attribute.enter(Tag::SET)?;
            attribute.end()?;
            match id {
                Oid::CHALLENGE_PASSWORD => {
                    let text = values.any()?;
                    if !matches!(text.tag, Tag::UTF8_STRING | Tag::PRINTABLE_STRING | Tag::IA5_STRING) {
                        return Err(DerError::UnexpectedTag(text.tag));
                    }
                    self.challenge_password = Some(text.value);
                }
                Oid::EXTENSION_REQUEST => self.extensions = Some(values.element(Tag::SEQUENCE)?.value),
                _ => continue,
            }
            values.end()?;
        }
        Ok(())
    }
}
