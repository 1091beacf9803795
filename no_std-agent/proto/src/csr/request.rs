//! Reads a request back (RFC 2986 §4), to take up after a reboot what was stored before it.

use crate::der::{DerError, Oid, Reader, Tag};
use crate::x509::{PublicKey, SignatureAlgorithm, Verify, VerifyError, read_name};

/// Why bytes are not a request as this crate makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsrError {
    /// The structure is not DER, or not a request's.
    Malformed,
    /// Not version 0, the only one there is.
    Version,
    /// Not signed with ECDSA and SHA-256.
    Algorithm,
}

impl From<DerError> for CsrError {
    fn from(_: DerError) -> Self {
        Self::Malformed
    }
}

/// A parsed request; all slices point into the bytes it was parsed from.
#[derive(Clone, Copy, Debug)]
pub struct CertificationRequest<'a> {
    /// The whole encoding.
    pub der: &'a [u8],
    /// The subject's Name, encoded.
    pub subject: &'a [u8],
    /// The key that a certificate is asked for.
    pub key: PublicKey<'a>,
    attributes: Reader<'a>,
    signed: &'a [u8],
    signature: &'a [u8],
}

/// What is asked for in a request beside name and key, as far as it means something here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestedAttributes<'a> {
    /// The text of challengePassword, if there is one.
    pub challenge_password: Option<&'a [u8]>,
    /// The content of the requested Extensions, if any are asked for.
    pub extensions: Option<&'a [u8]>,
}

impl<'a> CertificationRequest<'a> {
    /// Reads exactly one request. Its signature is not checked yet, nor are its attributes read.
    ///
    /// # Errors
    /// [`CsrError`]; bytes after the request are an error too.
    pub fn parse(der: &'a [u8]) -> Result<Self, CsrError> {
        let mut request = Reader::only(der, Tag::SEQUENCE)?;
        let signed = request.whole(Tag::SEQUENCE)?;
        let mut algorithm = request.sequence()?;
        if algorithm.oid()? != Oid::ECDSA_WITH_SHA256 {
            return Err(CsrError::Algorithm);
        }
        algorithm.end()?;
        let signature = request.octet_aligned_bit_string()?;
        request.end()?;

        let mut info = Reader::only(signed, Tag::SEQUENCE)?;
        if info.small_integer()? != 0 {
            return Err(CsrError::Version);
        }
        let subject = read_name(&mut info)?;
        let key = PublicKey::read(&mut info)?;
        let attributes = info.enter(Tag::context_constructed(0))?;
        info.end()?;
        Ok(Self { der, subject, key, attributes, signed, signature })
    }

    /// Checks that the request is signed by the key it carries: proof of possession (RFC 2986 §4.2).
    ///
    /// # Errors
    /// [`VerifyError`] of the verifier.
    pub fn check_signature(&self, verifier: &impl Verify) -> Result<(), VerifyError> {
        verifier.verify(&self.key, SignatureAlgorithm::EcdsaSha256, self.signed, self.signature)
    }

    /// Reads the attributes.
    ///
    /// # Errors
    /// [`DerError`] when they break their syntax.
    pub fn attributes(&self) -> Result<RequestedAttributes<'a>, DerError> {
        let mut attributes = self.attributes;
        let mut found = RequestedAttributes::default();
        while !attributes.is_empty() {
            let mut attribute = attributes.sequence()?;
            let id = attribute.oid()?;
            let mut values = attribute.enter(Tag::SET)?;
            attribute.end()?;
            match id {
                Oid::CHALLENGE_PASSWORD => {
                    let text = values.any()?;
                    if !matches!(text.tag, Tag::UTF8_STRING | Tag::PRINTABLE_STRING | Tag::IA5_STRING) {
                        return Err(DerError);
                    }
                    found.challenge_password = Some(text.value);
                }
                Oid::EXTENSION_REQUEST => found.extensions = Some(values.value(Tag::SEQUENCE)?),
                _ => continue,
            }
            values.end()?;
        }
        Ok(found)
    }
}
