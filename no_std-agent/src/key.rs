//! The seam to private keys: in software, or in a secure element that never gives them away.
//!
//! The identity store keeps a [`KeyReference`] and never looks into it: for a software key it is the key, for an
//! element a handle. The public half is kept beside it, so that a handle whose key was replaced after the item was
//! written (a power cut between the two) is noticed at start instead of signing for the wrong certificate.

use core::fmt;

use heapless::Vec;
use muster_proto::csr::P256Point;
use muster_proto::enrollment::Slot;
use zeroize::Zeroize;

use crate::ec::{Ec, Portable};
use crate::entropy::Entropy;

/// Longest reference: a P-256 scalar, or an element's handle with a check value.
pub const MAX_REFERENCE_BYTES: usize = 48;

/// Longest `Ecdsa-Sig-Value` of P-256: two INTEGERs of 33 octets (RFC 3279 §2.2.3).
pub const MAX_SIGNATURE_BYTES: usize = 72;

/// Makes P-256 keys and signs with them.
///
/// Not async: TLS asks for its signature in the middle of a handshake. An element on a slow bus blocks for the
/// tens of milliseconds that a software signature would take too.
pub trait KeyStore {
    /// Makes a key for `slot`. May replace a key that was made for this slot before, never that of the other one.
    ///
    /// # Errors
    /// [`KeyError`]; a key that was there before may be lost, as the caller no longer needs it.
    fn generate(&mut self, slot: Slot, entropy: &mut impl Entropy) -> Result<SlotKey, KeyError>;

    /// The public half of the key that `reference` stands for.
    ///
    /// # Errors
    /// [`KeyError::Unknown`] when there is no such key.
    fn public(&mut self, reference: &KeyReference) -> Result<P256Point, KeyError>;

    /// Signs: ECDSA over SHA-256 of `message`.
    ///
    /// # Errors
    /// [`KeyError`].
    fn sign(&mut self, reference: &KeyReference, message: &[u8]) -> Result<Signature, KeyError>;

    /// Destroys a key for which no item is stored any more.
    ///
    /// # Errors
    /// [`KeyError`]; the caller goes on, as nothing refers to the key.
    fn forget(&mut self, reference: &KeyReference) -> Result<(), KeyError>;

    /// What checks the signatures of others. Asked once, when a device starts.
    fn ec(&self) -> &'static dyn Ec {
        &Portable
    }
}

/// A key and its public half.
#[derive(Clone, Debug)]
pub struct SlotKey {
    /// What finds the private key.
    pub reference: KeyReference,
    /// The public key.
    pub point: P256Point,
}

/// What finds a private key again, or is it. Wiped when dropped, never shown by `Debug`.
#[derive(Clone)]
pub struct KeyReference(Vec<u8, MAX_REFERENCE_BYTES>);

impl KeyReference {
    /// Takes the bytes; `None` for none or more than [`MAX_REFERENCE_BYTES`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        Vec::from_slice(bytes).ok().map(Self)
    }

    /// The bytes, for the key store alone.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for KeyReference {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for KeyReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyReference")
    }
}

/// An ECDSA signature in DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature(Vec<u8, MAX_SIGNATURE_BYTES>);

impl Signature {
    /// Takes an encoded `Ecdsa-Sig-Value`; `None` when it is longer than one of P-256 can be.
    #[must_use]
    pub fn new(der: &[u8]) -> Option<Self> {
        Vec::from_slice(der).ok().map(Self)
    }

    /// No signature: what TLS sends when there is none, and every server refuses.
    pub(crate) const fn missing() -> Self {
        Self(Vec::new())
    }
}

impl AsRef<[u8]> for Signature {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Why a key cannot be made or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The element or the arithmetic failed.
    Failed,
    /// There was no entropy.
    NoEntropy,
    /// The reference stands for no key.
    Unknown,
}
