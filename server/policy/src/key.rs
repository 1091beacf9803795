//! Kinds of public key, and which of them can be certified at all.

use core::fmt;

use serde::{Deserialize, Serialize};

/// The kind of a public key that a profile can allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum KeyKind {
    /// ECDSA on secp256r1.
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// ECDSA on secp384r1.
    #[serde(rename = "ecdsa-p384")]
    EcdsaP384,
    /// Ed25519 (RFC 8410).
    #[serde(rename = "ed25519")]
    Ed25519,
    /// RSA, 2048 to 4096 bits.
    #[serde(rename = "rsa")]
    Rsa,
}

impl KeyKind {
    /// The name used in profiles, answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A public key as found in a request, before policy looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WishedKey {
    /// An elliptic curve or Edwards key of a known kind.
    Curve(KeyKind),
    /// An RSA key and the bits of its modulus.
    Rsa {
        /// Bits of the modulus.
        bits: u32,
    },
    /// A kind that no profile can allow, such as secp192r1 or DSA.
    Unknown,
}

/// RSA moduli below this are refused everywhere (CA/Browser BR §6.1.5, NIST SP 800-131A).
pub const RSA_MIN_BITS: u32 = 2048;
/// RSA moduli above this cost a verifier more than a device is worth.
pub const RSA_MAX_BITS: u32 = 4096;
