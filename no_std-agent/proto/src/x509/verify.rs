//! The seam to signature verification: the caller brings the arithmetic, this crate says what to verify.
//!
//! A trait, because real devices differ here: a software curve, a secure element, or the host's library.

use crate::der::{DerError, Oid, Reader, Tag};

/// A subject public key as a certificate carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey<'a> {
    /// The whole SubjectPublicKeyInfo.
    pub spki: &'a [u8],
    /// The algorithm's identifier.
    pub algorithm: Oid<'a>,
    /// The named curve of an EC key.
    pub curve: Option<Oid<'a>>,
    /// The key bits: for EC the encoded point, for RSA the RSAPublicKey structure.
    pub bits: &'a [u8],
}

impl<'a> PublicKey<'a> {
    /// Reads a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
    ///
    /// # Errors
    /// [`DerError`] when it is not one; EC keys must name their curve (RFC 5480 §2.1.1).
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DerError> {
        let spki = reader.whole(Tag::SEQUENCE)?;
        let mut inside = Reader::only(spki, Tag::SEQUENCE)?;
        let mut identifier = inside.sequence()?;
        let algorithm = identifier.oid()?;
        let curve = if algorithm == Oid::EC_PUBLIC_KEY {
            let curve = identifier.oid()?;
            Some(curve)
        } else {
            // Parameters of any kind, but one value and nothing behind it.
            if !identifier.is_empty() {
                identifier.any()?;
            }
            None
        };
        identifier.end()?;
        let bits = inside.octet_aligned_bit_string()?;
        inside.end()?;
        Ok(Self { spki, algorithm, curve, bits })
    }
}

/// Signature algorithms that may sign a certificate here. Nothing with SHA-1 or MD5 has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// ecdsa-with-SHA256 (RFC 5758 §3.2).
    EcdsaSha256,
    /// ecdsa-with-SHA384.
    EcdsaSha384,
    /// Ed25519 (RFC 8410 §3).
    Ed25519,
    /// sha256WithRSAEncryption, PKCS#1 v1.5 (RFC 4055 §5).
    RsaPkcs1Sha256,
    /// sha384WithRSAEncryption.
    RsaPkcs1Sha384,
}

impl SignatureAlgorithm {
    /// The algorithm of an AlgorithmIdentifier; `None` if it has no name here or odd parameters.
    pub(super) fn from_identifier(identifier: &[u8]) -> Option<Self> {
        let mut reader = Reader::only(identifier, Tag::SEQUENCE).ok()?;
        let algorithm = Self::from_oid(reader.oid().ok()?)?;
        let null_parameters = matches!(algorithm, Self::RsaPkcs1Sha256 | Self::RsaPkcs1Sha384);
        if null_parameters && !reader.value(Tag::NULL).ok()?.is_empty() {
            return None;
        }
        reader.end().ok()?;
        Some(algorithm)
    }

    /// The algorithm that `id` stands for, if it has a name here.
    pub(crate) fn from_oid(id: Oid<'_>) -> Option<Self> {
        // A table and not a match: each arm of that would be a comparison of its own in an image.
        const NAMES: [(Oid<'_>, SignatureAlgorithm); 5] = [
            (Oid::ECDSA_WITH_SHA256, SignatureAlgorithm::EcdsaSha256),
            (Oid::ECDSA_WITH_SHA384, SignatureAlgorithm::EcdsaSha384),
            (Oid::ED25519, SignatureAlgorithm::Ed25519),
            (Oid::RSA_WITH_SHA256, SignatureAlgorithm::RsaPkcs1Sha256),
            (Oid::RSA_WITH_SHA384, SignatureAlgorithm::RsaPkcs1Sha384),
        ];
        NAMES.iter().find(|(name, _)| *name == id).map(|(_, algorithm)| *algorithm)
    }
}

/// Checks signatures. Implemented by the shell over whatever its board or host offers.
pub trait Verify {
    /// Checks that `signature` over `message` was made with `key`.
    ///
    /// ECDSA signatures are DER `Ecdsa-Sig-Value`. The implementation must itself refuse keys that do not fit
    /// the algorithm, points off the curve, and key sizes it holds for weak.
    ///
    /// # Errors
    /// [`VerifyError`]; anything but `Ok` means that the message must not be trusted.
    fn verify(
        &self,
        key: &PublicKey<'_>,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError>;
}

impl<V: Verify + ?Sized> Verify for &V {
    fn verify(
        &self,
        key: &PublicKey<'_>,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        (**self).verify(key, algorithm, message, signature)
    }
}

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// The signature is not by this key over this message.
    Invalid,
    /// This verifier does not know the algorithm, the curve or the key size.
    Unsupported,
}
