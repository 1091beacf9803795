//! P-256 in software: keys that are their own reference, and the signature checks of certificates and TLS.
//!
//! The same `p256` that embedded-tls links for its key exchange, so the curve's code is there once. Signatures are
//! deterministic (RFC 6979): a weak entropy source costs a key when it is made, not each time it signs.

use muster_proto::csr::P256Point;
use muster_proto::der::Oid;
use muster_proto::enrollment::Slot;
use muster_proto::x509::{PublicKey, SignatureAlgorithm, Verify, VerifyError};
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use zeroize::Zeroize;

use crate::entropy::{Entropy, generator};
use crate::key::{KeyError, KeyReference, KeyStore, Signature, SlotKey};

/// Keys in the identity store itself, for boards without a secure element.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoftwareKeys;

impl KeyStore for SoftwareKeys {
    fn generate(&mut self, _: Slot, entropy: &mut impl Entropy) -> Result<SlotKey, KeyError> {
        let mut generator = generator(entropy).map_err(|_| KeyError::NoEntropy)?;
        let key = SigningKey::random(&mut generator);
        let mut scalar = key.to_bytes();
        let reference = KeyReference::new(&scalar);
        scalar.zeroize();
        Ok(SlotKey { reference: reference.ok_or(KeyError::Failed)?, point: point(&key)? })
    }

    fn public(&mut self, reference: &KeyReference) -> Result<P256Point, KeyError> {
        point(&signing_key(reference)?)
    }

    fn sign(&mut self, reference: &KeyReference, message: &[u8]) -> Result<Signature, KeyError> {
        let signature: DerSignature =
            signing_key(reference)?.try_sign(message).map_err(|_| KeyError::Failed)?;
        Signature::new(signature.as_bytes()).ok_or(KeyError::Failed)
    }

    fn forget(&mut self, _: &KeyReference) -> Result<(), KeyError> {
        // The store has wiped the pages that held it.
        Ok(())
    }
}

fn signing_key(reference: &KeyReference) -> Result<SigningKey, KeyError> {
    SigningKey::from_slice(reference.as_bytes()).map_err(|_| KeyError::Unknown)
}

fn point(key: &SigningKey) -> Result<P256Point, KeyError> {
    P256Point::new(key.verifying_key().to_encoded_point(false).as_bytes()).ok_or(KeyError::Failed)
}

/// Checks ECDSA signatures with P-256 and SHA-256, which is all that Muster's CAs make; others are `Unsupported`.
#[derive(Clone, Copy, Debug, Default)]
pub struct P256Verifier;

impl Verify for P256Verifier {
    fn verify(
        &self,
        key: &PublicKey<'_>,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        if algorithm != SignatureAlgorithm::EcdsaSha256 {
            return Err(VerifyError::Unsupported);
        }
        let signature = DerSignature::from_bytes(signature).map_err(|_| VerifyError::Invalid)?;
        verifying_key(key)?.verify(message, &signature).map_err(|_| VerifyError::Invalid)
    }
}

/// The P-256 key of a certificate.
pub(crate) fn verifying_key(key: &PublicKey<'_>) -> Result<VerifyingKey, VerifyError> {
    if key.algorithm != Oid::EC_PUBLIC_KEY || key.curve != Some(Oid::SECP256R1) {
        return Err(VerifyError::Unsupported);
    }
    VerifyingKey::from_sec1_bytes(key.bits).map_err(|_| VerifyError::Invalid)
}
