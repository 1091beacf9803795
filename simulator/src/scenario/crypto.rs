//! Keys and signatures of the model: hashes in the place of curves.
//!
//! In virtual time nobody attacks the cryptography, and a month of a hundred thousand devices would spend its time on
//! it. A key is a point made of hashes, and a signature is a hash over point and message in the form of ECDSA, so that
//! the device core and the X.509 codecs see what they always see. Everything follows from seeds.

use muster_proto::csr::P256Point;
use muster_proto::der::Oid;
use muster_proto::x509::{PublicKey, SignatureAlgorithm, Verify, VerifyError};
use rcgen::PublicKeyData;
use sha2::{Digest as _, Sha256};

/// A key of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModelKey([u8; 65]);

/// Checks signatures of the model.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModelVerifier;

impl ModelKey {
    /// The key of a seed and a number.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut point = [4; 65];
        let (_, coordinates) = point.split_at_mut(1);
        for (half, name) in coordinates.chunks_mut(32).zip([b'x', b'y']) {
            let mut hash = Sha256::new();
            hash.update([name]);
            hash.update(seed.to_be_bytes());
            hash.update(number.to_be_bytes());
            half.copy_from_slice(&hash.finalize());
        }
        Self(point)
    }

    /// As the device core takes it.
    pub(super) fn point(&self) -> Option<P256Point> {
        P256Point::new(&self.0)
    }

    /// An `Ecdsa-Sig-Value` of the model.
    pub(super) fn signature(&self, message: &[u8]) -> Vec<u8> {
        signature(&self.0, message)
    }
}

fn signature(point: &[u8], message: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(point);
    hash.update(message);
    let mut r: [u8; 32] = hash.finalize().into();
    // Positive, and with no zero in front: always of one length.
    let [first, ..] = &mut r;
    *first = *first & 0x3f | 0x40;
    let mut der = vec![0x30, 37, 0x02, 32];
    der.extend(r);
    der.extend([0x02, 1, 1]);
    der
}

impl Verify for ModelVerifier {
    fn verify(
        &self,
        key: &PublicKey<'_>,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        claimed: &[u8],
    ) -> Result<(), VerifyError> {
        if algorithm != SignatureAlgorithm::EcdsaSha256 || key.curve != Some(Oid::SECP256R1) {
            return Err(VerifyError::Unsupported);
        }
        if signature(key.bits, message) == claimed { Ok(()) } else { Err(VerifyError::Invalid) }
    }
}

impl PublicKeyData for ModelKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for ModelKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.signature(message))
    }
}

/// A point to be certified.
pub(super) struct Point<'p>(pub(super) &'p [u8]);

impl PublicKeyData for Point<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}
