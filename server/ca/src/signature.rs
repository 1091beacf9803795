//! Signature algorithms: the three a CA signs with, and how a signature by anyone is verified.
//!
//! Verifying takes its table from rustls-webpki, so that a request, a chain and a TLS handshake
//! accept the same algorithms: ECDSA and RSA with SHA-2, Ed25519; never SHA-1 or MD5.

use rustls_pki_types::{AlgorithmIdentifier, alg_id};

use crate::subject_key::SubjectKey;
use crate::tlv;

/// What a CA key signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// ecdsa-with-SHA256 by a P-256 key (RFC 5758 §3.2).
    EcdsaP256Sha256,
    /// ecdsa-with-SHA384 by a P-384 key (RFC 5758 §3.2).
    EcdsaP384Sha384,
    /// sha256WithRSAEncryption (RFC 4055 §5).
    RsaPkcs1Sha256,
}

impl SignatureAlgorithm {
    /// The DER AlgorithmIdentifier.
    pub fn identifier_der(self) -> Vec<u8> {
        let contents: AlgorithmIdentifier = match self {
            Self::EcdsaP256Sha256 => alg_id::ECDSA_SHA256,
            Self::EcdsaP384Sha384 => alg_id::ECDSA_SHA384,
            Self::RsaPkcs1Sha256 => alg_id::RSA_PKCS1_SHA256,
        };
        tlv::element(tlv::SEQUENCE, &[contents.as_ref()])
    }

    /// The same algorithm for rcgen, which writes it into what is to be signed.
    pub(crate) fn rcgen(self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::EcdsaP256Sha256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::EcdsaP384Sha384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::RsaPkcs1Sha256 => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// The algorithm is SHA-1, MD5, or one nobody knows.
    #[error("signed with a weak or unknown algorithm")]
    Weak,
    /// The signature does not belong to this message and this key.
    #[error("the signature is wrong")]
    Wrong,
}

/// Verifies a signature whose algorithm is given by the contents of a DER AlgorithmIdentifier.
///
/// # Errors
/// [`SignatureFault::Weak`] before any work is done, [`SignatureFault::Wrong`] for all the rest.
pub(crate) fn verify(
    key: &SubjectKey,
    algorithm: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureFault> {
    let (key_algorithm, public_key) = key.parts().map_err(|_| SignatureFault::Wrong)?;
    let mut known = webpki::ALL_VERIFICATION_ALGS
        .iter()
        .filter(|candidate| candidate.signature_alg_id().as_ref() == algorithm)
        .peekable();
    if known.peek().is_none() {
        return Err(SignatureFault::Weak);
    }
    known
        .find(|candidate| candidate.public_key_alg_id().as_ref() == key_algorithm)
        .ok_or(SignatureFault::Wrong)?
        .verify_signature(public_key, message, signature)
        .map_err(|_| SignatureFault::Wrong)
}
