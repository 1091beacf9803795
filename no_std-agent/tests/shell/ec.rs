//! Another arithmetic than the portable one, which counts; and what the verifier remembers of its answers.

use std::sync::atomic::{AtomicUsize, Ordering};

use muster_nostd_agent::ec::{Ec, Portable, RawSignature};
use muster_nostd_agent::software::P256Verifier;
use muster_proto::csr::P256Point;
use muster_proto::der::Oid;
use muster_proto::x509::{PublicKey, SignatureAlgorithm, Verify, VerifyError};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};

/// Counts what is asked of it.
pub(crate) struct Counting {
    calls: [AtomicUsize; 3],
    verifies: bool,
}

impl Counting {
    /// Answers as the portable one.
    pub(crate) fn working() -> &'static Self {
        Box::leak(Box::new(Self { calls: Default::default(), verifies: true }))
    }

    /// Takes no signature.
    pub(crate) fn refusing() -> &'static Self {
        Box::leak(Box::new(Self { calls: Default::default(), verifies: false }))
    }

    /// How often it was asked for a public key, a signature, and a check.
    pub(crate) fn calls(&self) -> [usize; 3] {
        self.calls.each_ref().map(|calls| calls.load(Ordering::SeqCst))
    }

    fn count(&self, call: usize) {
        self.calls[call].fetch_add(1, Ordering::SeqCst);
    }
}

impl Ec for Counting {
    fn public(&self, secret: &[u8; 32]) -> Option<P256Point> {
        self.count(0);
        Portable.public(secret)
    }

    fn sign(&self, secret: &[u8; 32], digest: &[u8; 32]) -> Option<RawSignature> {
        self.count(1);
        Portable.sign(secret, digest)
    }

    fn verify(&self, point: &[u8], digest: &[u8; 32], signature: &RawSignature) -> Result<(), VerifyError> {
        self.count(2);
        if self.verifies { Portable.verify(point, digest, signature) } else { Err(VerifyError::Invalid) }
    }
}

#[test]
fn a_good_signature_is_checked_once_and_a_bad_one_each_time() {
    let key = SigningKey::from_slice(&[3; 32]).expect("a key");
    let point = key.verifying_key().to_encoded_point(false);
    let public = PublicKey {
        spki: &[],
        algorithm: Oid::EC_PUBLIC_KEY,
        curve: Some(Oid::SECP256R1),
        bits: point.as_bytes(),
    };
    let backend = Counting::working();
    let verifier = P256Verifier::new(backend);
    let check = |message: &[u8], signature: &DerSignature| {
        verifier.verify(&public, SignatureAlgorithm::EcdsaSha256, message, signature.as_bytes())
    };
    let first: DerSignature = key.sign(b"first");
    for _ in 0..3 {
        assert_eq!(check(b"first", &first), Ok(()));
    }
    assert_eq!(backend.calls()[2], 1);
    for _ in 0..3 {
        assert_eq!(check(b"forged", &first), Err(VerifyError::Invalid));
    }
    assert_eq!(backend.calls()[2], 4);
    let other = SigningKey::from_slice(&[4; 32]).expect("a key");
    let point = other.verifying_key().to_encoded_point(false);
    let theirs = PublicKey { bits: point.as_bytes(), ..public };
    let by_other = verifier.verify(&theirs, SignatureAlgorithm::EcdsaSha256, b"first", first.as_bytes());
    assert_eq!((by_other, backend.calls()[2]), (Err(VerifyError::Invalid), 5));
    // Others take its place, and then it is checked anew.
    for message in [b"2nd", b"3rd", b"4th", b"5th"] {
        assert_eq!(check(message, &key.sign(message)), Ok(()));
    }
    assert_eq!(check(b"first", &first), Ok(()));
    assert_eq!(backend.calls()[2], 10);
    assert_eq!(
        verifier.verify(&public, SignatureAlgorithm::EcdsaSha384, b"", b""),
        Err(VerifyError::Unsupported)
    );
}
