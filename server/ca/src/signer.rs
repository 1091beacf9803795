//! The seam to a CA's private key: a key file now, a PKCS#11 token later.
//!
//! A signer knows its public key and its one algorithm, and signs messages. Nothing above this
//! trait ever sees a private key.

use crate::signature::SignatureAlgorithm;

/// The key could not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the CA key can't sign: {0}")]
pub struct SignError(pub &'static str);

/// A private key of a CA.
pub trait Signer: Send + Sync {
    /// The algorithm of every signature it makes.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// The DER SubjectPublicKeyInfo of its public key.
    fn spki_der(&self) -> &[u8];

    /// Signs the message; the result is what goes into the signature's BIT STRING.
    ///
    /// # Errors
    /// When the key, or the device that holds it, fails.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}
