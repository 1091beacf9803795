//! Keys made for devices that can't make their own (serverkeygen, RFC 7030 §4.4), and for our servers.
//!
//! The key leaves once, as PKCS#8, and is wiped with the value: keys of devices are never kept.

use core::fmt;

use muster_policy::key::{KeyKind, WishedKey};
use zeroize::Zeroizing;

use crate::key_pair::{CryptoFailure, KeyPair, MadeKey};
use crate::subject_key::SubjectKey;

/// A fresh private key.
pub struct GeneratedKey {
    pair: KeyPair,
    subject_key: SubjectKey,
}

/// Why no key was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeygenError {
    /// The cryptographic library failed.
    #[error(transparent)]
    Failed(#[from] CryptoFailure),
    /// Keys of this kind or size are not made here; made are P-256, P-384, RSA 2048, 3072 and 4096.
    #[error("keys of this kind or size are not made here")]
    Unsupported,
}

impl GeneratedKey {
    /// Makes a key like the wished one: the same kind, and the same size.
    ///
    /// # Errors
    /// When keys of this kind or size are not made here, or the cryptographic library fails.
    pub fn generate(wished: &WishedKey) -> Result<Self, KeygenError> {
        let kind = match wished {
            WishedKey::Curve(KeyKind::EcdsaP256) => MadeKey::EcdsaP256,
            WishedKey::Curve(KeyKind::EcdsaP384) => MadeKey::EcdsaP384,
            WishedKey::Rsa { bits: 2048 } => MadeKey::Rsa2048,
            WishedKey::Rsa { bits: 3072 } => MadeKey::Rsa3072,
            WishedKey::Rsa { bits: 4096 } => MadeKey::Rsa4096,
            WishedKey::Curve(_) | WishedKey::Rsa { .. } | WishedKey::Unknown => {
                return Err(KeygenError::Unsupported);
            }
        };
        let pair = KeyPair::generate(kind)?;
        let subject_key = SubjectKey::parse(&pair.spki_der()?).map_err(|_| CryptoFailure)?;
        Ok(Self { pair, subject_key })
    }

    /// The public key.
    pub const fn subject_key(&self) -> &SubjectKey {
        &self.subject_key
    }

    /// What kind of key it is.
    pub const fn wished_key(&self) -> WishedKey {
        self.subject_key.wished()
    }

    /// The DER PrivateKeyInfo (RFC 5208 §5).
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, CryptoFailure> {
        self.pair.pkcs8_der()
    }
}

impl fmt::Debug for GeneratedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeneratedKey").field("subject_key", &self.subject_key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_key_is_the_wished_one_and_never_shown() {
        let wished = WishedKey::Curve(KeyKind::EcdsaP384);
        let key = GeneratedKey::generate(&wished).expect("is made");
        assert_eq!(key.wished_key(), wished);
        let hidden = hex::encode(key.pkcs8_der().expect("encodes").as_slice());
        assert!(!format!("{key:?}").contains(&hidden) && !format!("{key:?}").contains("pair"));
    }

    #[test]
    fn keys_of_other_kinds_are_not_made() {
        for wished in [WishedKey::Unknown, WishedKey::Curve(KeyKind::Ed25519), WishedKey::Rsa { bits: 1024 }]
        {
            assert!(matches!(GeneratedKey::generate(&wished), Err(KeygenError::Unsupported)));
        }
    }
}
