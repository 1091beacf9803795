//! P-256 keys that are their own reference, and the signature checks of certificates and TLS, over [`Ec`].

use core::cell::Cell;

use muster_proto::csr::P256Point;
use muster_proto::der::Oid;
use muster_proto::enrollment::Slot;
use muster_proto::sha256;
use muster_proto::x509::{PublicKey, SignatureAlgorithm, Verify, VerifyError};
use rand_core::RngCore;
use zeroize::Zeroize;

use crate::ec::{Ec, Portable, from_der, to_der};
use crate::entropy::{Entropy, generator};
use crate::key::{KeyError, KeyReference, KeyStore, MAX_SIGNATURE_BYTES, Signature, SlotKey};

/// Keys in the identity store itself, for boards without a secure element, by the portable arithmetic.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoftwareKeys;

impl KeyStore for SoftwareKeys {
    fn generate(&mut self, slot: Slot, entropy: &mut impl Entropy) -> Result<SlotKey, KeyError> {
        SoftwareKeysBy(&Portable).generate(slot, entropy)
    }

    fn public(&mut self, reference: &KeyReference) -> Result<P256Point, KeyError> {
        SoftwareKeysBy(&Portable).public(reference)
    }

    fn sign(&mut self, reference: &KeyReference, message: &[u8]) -> Result<Signature, KeyError> {
        SoftwareKeysBy(&Portable).sign(reference, message)
    }

    fn forget(&mut self, reference: &KeyReference) -> Result<(), KeyError> {
        SoftwareKeysBy(&Portable).forget(reference)
    }
}

/// The same by another arithmetic.
#[derive(Clone, Copy)]
pub struct SoftwareKeysBy(pub &'static dyn Ec);

impl KeyStore for SoftwareKeysBy {
    fn generate(&mut self, _: Slot, entropy: &mut impl Entropy) -> Result<SlotKey, KeyError> {
        let mut generator = generator(entropy).map_err(|_| KeyError::NoEntropy)?;
        let mut secret = [0; 32];
        // One number in 2^32 is not below the order (FIPS 186-5 §A.2.2).
        for _ in 0..MAX_DRAWS {
            generator.fill_bytes(&mut secret);
            let Some(point) = self.0.public(&secret) else { continue };
            let reference = KeyReference::new(&secret);
            secret.zeroize();
            return Ok(SlotKey { reference: reference.ok_or(KeyError::Failed)?, point });
        }
        Err(KeyError::Failed)
    }

    fn public(&mut self, reference: &KeyReference) -> Result<P256Point, KeyError> {
        self.0.public(secret(reference)?).ok_or(KeyError::Unknown)
    }

    fn sign(&mut self, reference: &KeyReference, message: &[u8]) -> Result<Signature, KeyError> {
        let signature = self.0.sign(secret(reference)?, &sha256(message));
        let mut place = [0; MAX_SIGNATURE_BYTES];
        let der = to_der(&signature.ok_or(KeyError::Unknown)?, &mut place);
        der.and_then(Signature::new).ok_or(KeyError::Failed)
    }

    fn forget(&mut self, _: &KeyReference) -> Result<(), KeyError> {
        // The store has wiped the pages that held it.
        Ok(())
    }

    fn ec(&self) -> &'static dyn Ec {
        self.0
    }
}

fn secret(reference: &KeyReference) -> Result<&[u8; 32], KeyError> {
    reference.as_bytes().try_into().map_err(|_| KeyError::Unknown)
}

/// Checks ECDSA signatures with P-256 and SHA-256, which is all that Muster's CAs make; others are `Unsupported`.
///
/// The newest good ones are remembered by the hash of key, message and signature. A server's issuing CA is the same
/// each time, and so may be its leaf: each that is known saves a fifth of a handshake. Whether a certificate is valid
/// *now* is not remembered; the path is checked anew each time.
pub struct P256Verifier {
    ec: &'static dyn Ec,
    known: [Cell<[u8; 32]>; KNOWN],
    next: Cell<usize>,
}

impl P256Verifier {
    /// A verifier that remembers nothing yet.
    pub fn new(ec: &'static dyn Ec) -> Self {
        Self { ec, known: [const { Cell::new([0; 32]) }; KNOWN], next: Cell::new(0) }
    }

    /// Checks a signature over `message` with a P-256 key in SEC 1 form. Remembers nothing.
    pub(crate) fn check(&self, point: &[u8], message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        let signature = from_der(signature).ok_or(VerifyError::Invalid)?;
        self.ec.verify(point, &sha256(message), &signature)
    }

    fn remember(&self, proof: [u8; 32]) {
        let next = self.next.get();
        if let Some(place) = self.known.get(next) {
            place.set(proof);
        }
        self.next.set((next + 1) % KNOWN);
    }
}

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
        let point = p256_point(key)?;
        let proof = proof(point, message, signature);
        if self.known.iter().any(|known| known.get() == proof) {
            return Ok(());
        }
        self.check(point, message, signature)?;
        self.remember(proof);
        Ok(())
    }
}

/// Stands for one signature: each part is hashed alone, so that none can run into the next.
// Apart: off the stack before the signature is checked.
#[inline(never)]
fn proof(point: &[u8], message: &[u8], signature: &[u8]) -> [u8; 32] {
    let mut hashes = [0; 96];
    for (place, part) in hashes.chunks_exact_mut(32).zip([point, message, signature]) {
        place.copy_from_slice(&sha256(part));
    }
    sha256(&hashes)
}

/// The SEC 1 form of a certificate's P-256 key. Whether it is on the curve shows when it is used.
pub(crate) fn p256_point<'k>(key: &PublicKey<'k>) -> Result<&'k [u8], VerifyError> {
    if key.algorithm != Oid::EC_PUBLIC_KEY || key.curve != Some(Oid::SECP256R1) {
        return Err(VerifyError::Unsupported);
    }
    Ok(key.bits)
}

/// Two servers' leaves and two issuing CAs.
const KNOWN: usize = 4;
/// More than ever needed from a generator that works.
const MAX_DRAWS: u8 = 8;
