//! A public key as it stands in a request or a certificate: its exact bytes and what they are.
//!
//! The bytes of the SubjectPublicKeyInfo are kept, because the fingerprint that binds tokens and
//! renewals is taken over them (RFC 5280 §4.1.2.7). Parameters must be in the one form that RFC
//! 3279 §2.3.1, RFC 5480 §2.1.1 and RFC 8410 §3 give, else the key is of an unknown kind.

use aws_lc_rs::digest;
use der::asn1::{AnyRef, BitStringRef, UintRef};
use der::{Decode, Sequence};
use muster_policy::identity::KeyFingerprint;
use muster_policy::key::{KeyKind, RSA_MAX_BITS, RSA_MIN_BITS, WishedKey};
use rustls_pki_types::alg_id;

/// Octets of a key identifier (RFC 7093 §2 method 1: the leftmost 160 bits of SHA-256).
pub const KEY_ID_BYTES: usize = 20;

/// Smallest RSA exponent that is certified (NIST SP 800-56B rev. 2 §6.2: above 2^16).
const RSA_EXPONENT_MIN: u64 = 65_537;
/// Most octets of an RSA exponent; a larger one makes verifying as slow as signing.
const RSA_EXPONENT_MAX_BYTES: usize = 4;
/// First octet of an uncompressed curve point, the form every verifier reads (RFC 5480 §2.2).
const POINT_UNCOMPRESSED: u8 = 0x04;

/// A public key: the DER SubjectPublicKeyInfo, its fingerprint, its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectKey {
    spki_der: Vec<u8>,
    fingerprint: KeyFingerprint,
    wished: WishedKey,
    key_id: [u8; KEY_ID_BYTES],
}

/// Bytes that are not a SubjectPublicKeyInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a DER SubjectPublicKeyInfo")]
pub struct SubjectKeyError;

#[derive(Sequence)]
struct Spki<'a> {
    algorithm: AnyRef<'a>,
    subject_public_key: BitStringRef<'a>,
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

impl SubjectKey {
    /// Reads a DER SubjectPublicKeyInfo. A key of an unknown kind is one, with [`WishedKey::Unknown`].
    ///
    /// # Errors
    /// When the bytes are not exactly one SubjectPublicKeyInfo.
    pub fn parse(spki_der: &[u8]) -> Result<Self, SubjectKeyError> {
        let (algorithm, public_key) = parts(spki_der)?;
        let (hash, key_hash) =
            (digest::digest(&digest::SHA256, spki_der), digest::digest(&digest::SHA256, public_key));
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(hash.as_ref());
        let mut key_id = [0; KEY_ID_BYTES];
        key_id.copy_from_slice(key_hash.as_ref().get(..KEY_ID_BYTES).unwrap_or_default());
        Ok(Self {
            spki_der: spki_der.to_vec(),
            fingerprint: KeyFingerprint::from_bytes(fingerprint),
            wished: kind_of(algorithm, public_key),
            key_id,
        })
    }

    /// The SubjectPublicKeyInfo, exactly as given.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub const fn fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }

    /// What kind of key it is.
    pub const fn wished(&self) -> WishedKey {
        self.wished
    }

    /// The key identifier that certificates of this key carry (RFC 7093 §2 method 1).
    pub const fn key_id(&self) -> &[u8; KEY_ID_BYTES] {
        &self.key_id
    }

    /// Whether the key is of a known kind and strong enough to be used anywhere.
    pub const fn is_strong(&self) -> bool {
        match self.wished {
            WishedKey::Curve(_) => true,
            WishedKey::Rsa { bits } => bits >= RSA_MIN_BITS && bits <= RSA_MAX_BITS,
            WishedKey::Unknown => false,
        }
    }

    /// Contents of the AlgorithmIdentifier, and the octets of the key.
    pub(crate) fn parts(&self) -> Result<(&[u8], &[u8]), SubjectKeyError> {
        parts(&self.spki_der)
    }
}

fn parts(spki_der: &[u8]) -> Result<(&[u8], &[u8]), SubjectKeyError> {
    let spki = Spki::from_der(spki_der).map_err(|_| SubjectKeyError)?;
    let public_key = spki.subject_public_key.as_bytes().ok_or(SubjectKeyError)?;
    Ok((spki.algorithm.value(), public_key))
}

fn kind_of(algorithm: &[u8], public_key: &[u8]) -> WishedKey {
    let is_point = |coordinate_bytes: usize| {
        public_key.len() == 2 * coordinate_bytes + 1 && public_key.first() == Some(&POINT_UNCOMPRESSED)
    };
    if algorithm == alg_id::ECDSA_P256.as_ref() && is_point(32) {
        WishedKey::Curve(KeyKind::EcdsaP256)
    } else if algorithm == alg_id::ECDSA_P384.as_ref() && is_point(48) {
        WishedKey::Curve(KeyKind::EcdsaP384)
    } else if algorithm == alg_id::ED25519.as_ref() && public_key.len() == 32 {
        WishedKey::Curve(KeyKind::Ed25519)
    } else if algorithm == alg_id::RSA_ENCRYPTION.as_ref() {
        rsa_kind(public_key).unwrap_or(WishedKey::Unknown)
    } else {
        WishedKey::Unknown
    }
}

fn rsa_kind(public_key: &[u8]) -> Option<WishedKey> {
    let key = RsaPublicKey::from_der(public_key).ok()?;
    let exponent = key.exponent.as_bytes();
    if exponent.len() > RSA_EXPONENT_MAX_BYTES {
        return None;
    }
    let exponent = exponent.iter().fold(0_u64, |value, octet| (value << 8) | u64::from(*octet));
    if exponent < RSA_EXPONENT_MIN || exponent % 2 == 0 {
        return None;
    }
    let modulus = key.modulus.as_bytes();
    let bits =
        u32::try_from(modulus.len()).ok()?.checked_mul(8)?.checked_sub(modulus.first()?.leading_zeros())?;
    Some(WishedKey::Rsa { bits })
}
