//! Signature verification for the device core, by aws-lc-rs, which remembers the CA's.
//!
//! A real device verifies its CA's certificate once per enrollment, and so does each one here; but a hundred
//! thousand of them on one machine would verify the same signature a hundred thousand times.

use std::sync::{PoisonError, RwLock};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm,
};
use muster_proto::der::Oid;
use muster_proto::x509::{PublicKey, SignatureAlgorithm, Verify, VerifyError};

/// Verifies what aws-lc-rs can: P-256, P-384, Ed25519, and RSA from 2048 bits.
#[derive(Debug, Default)]
pub(super) struct Remembering(RwLock<Vec<Seen>>);

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Verify for Remembering {
    fn verify(
        &self,
        key: &PublicKey<'_>,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        let algorithm = algorithm_for(key, algorithm).ok_or(VerifyError::Unsupported)?;
        let authority = message.windows(CA_TRUE.len()).any(|window| window == CA_TRUE);
        if authority && self.has(key, message, signature) {
            return Ok(());
        }
        UnparsedPublicKey::new(algorithm, key.bits)
            .verify(message, signature)
            .map_err(|_| VerifyError::Invalid)?;
        if authority {
            self.remember(key, message, signature);
        }
        Ok(())
    }
}

impl Remembering {
    fn has(&self, key: &PublicKey<'_>, message: &[u8], signature: &[u8]) -> bool {
        let seen = self.0.read().unwrap_or_else(PoisonError::into_inner);
        seen.iter().any(|seen| seen.key == key.spki && seen.message == message && seen.signature == signature)
    }

    fn remember(&self, key: &PublicKey<'_>, message: &[u8], signature: &[u8]) {
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() == CAPACITY {
            seen.remove(0);
        }
        seen.push(Seen { key: key.spki.to_vec(), message: message.to_vec(), signature: signature.to_vec() });
    }
}

/// The key must be of the kind that the signature algorithm names.
fn algorithm_for(
    key: &PublicKey<'_>,
    algorithm: SignatureAlgorithm,
) -> Option<&'static dyn VerificationAlgorithm> {
    let p256 = key.curve == Some(Oid::SECP256R1);
    let p384 = key.curve == Some(Oid::SECP384R1);
    let rsa = key.algorithm == Oid::RSA_ENCRYPTION;
    match algorithm {
        SignatureAlgorithm::EcdsaSha256 if p256 => Some(&ECDSA_P256_SHA256_ASN1),
        SignatureAlgorithm::EcdsaSha256 if p384 => Some(&ECDSA_P384_SHA256_ASN1),
        SignatureAlgorithm::EcdsaSha384 if p256 => Some(&ECDSA_P256_SHA384_ASN1),
        SignatureAlgorithm::EcdsaSha384 if p384 => Some(&ECDSA_P384_SHA384_ASN1),
        SignatureAlgorithm::Ed25519 if key.algorithm == Oid::ED25519 => Some(&ED25519),
        SignatureAlgorithm::RsaPkcs1Sha256 if rsa => Some(&RSA_PKCS1_2048_8192_SHA256),
        SignatureAlgorithm::RsaPkcs1Sha384 if rsa => Some(&RSA_PKCS1_2048_8192_SHA384),
        _ => None,
    }
}

/// The value of basicConstraints with `cA TRUE`. Only a hint for what to remember: what is remembered is the whole
/// message with key and signature, so a device certificate that holds these octets does no harm.
const CA_TRUE: &[u8] = &[0x03, 0x01, 0x01, 0xff];
/// More than the CAs of any one server, rotation included.
const CAPACITY: usize = 16;
