//! A private key in memory: made, read, written as PKCS#8, used to sign.
//!
//! The only file that handles private keys of aws-lc-rs, which wipes its own copies. What leaves
//! here as bytes is wiped when dropped, and nothing here has a `Debug` that shows it.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use zeroize::Zeroizing;

use crate::signature::SignatureAlgorithm;
use crate::signer::SignError;

/// Kinds of key that can be made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MadeKey {
    EcdsaP256,
    EcdsaP384,
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

/// A private key of a kind that can sign certificates.
pub(crate) enum KeyPair {
    Ecdsa(SignatureAlgorithm, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// The cryptographic library failed: no memory, no entropy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed")]
pub struct CryptoFailure;

/// Bytes that aws-lc-rs takes for no key; the text is its reason.
pub(crate) struct Rejected(pub(crate) &'static str);

impl KeyPair {
    pub(crate) fn generate(kind: MadeKey) -> Result<Self, CryptoFailure> {
        let ecdsa =
            |algorithm, signing| EcdsaKeyPair::generate(signing).map(|pair| Self::Ecdsa(algorithm, pair));
        match kind {
            MadeKey::EcdsaP256 => ecdsa(SignatureAlgorithm::EcdsaP256Sha256, &ECDSA_P256_SHA256_ASN1_SIGNING),
            MadeKey::EcdsaP384 => ecdsa(SignatureAlgorithm::EcdsaP384Sha384, &ECDSA_P384_SHA384_ASN1_SIGNING),
            MadeKey::Rsa2048 => RsaKeyPair::generate(KeySize::Rsa2048).map(Self::Rsa),
            MadeKey::Rsa3072 => RsaKeyPair::generate(KeySize::Rsa3072).map(Self::Rsa),
            MadeKey::Rsa4096 => RsaKeyPair::generate(KeySize::Rsa4096).map(Self::Rsa),
        }
        .map_err(|_| CryptoFailure)
    }

    /// Reads an elliptic curve key, PKCS#8 or SEC 1 (RFC 5915), on either curve.
    pub(crate) fn read_ecdsa(der: &[u8]) -> Result<Self, Rejected> {
        let read = |algorithm, signing: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_private_key_der(signing, der).map(|pair| Self::Ecdsa(algorithm, pair))
        };
        read(SignatureAlgorithm::EcdsaP256Sha256, &ECDSA_P256_SHA256_ASN1_SIGNING)
            .or_else(|_| read(SignatureAlgorithm::EcdsaP384Sha384, &ECDSA_P384_SHA384_ASN1_SIGNING))
            .map_err(|rejected| Rejected(rejected.description_()))
    }

    /// Reads an RSA key from PKCS#8.
    pub(crate) fn read_rsa_pkcs8(der: &[u8]) -> Result<Self, Rejected> {
        RsaKeyPair::from_pkcs8(der).map(Self::Rsa).map_err(|rejected| Rejected(rejected.description_()))
    }

    /// Reads an RSA key from PKCS#1.
    pub(crate) fn read_rsa_pkcs1(der: &[u8]) -> Result<Self, Rejected> {
        RsaKeyPair::from_der(der).map(Self::Rsa).map_err(|rejected| Rejected(rejected.description_()))
    }

    pub(crate) const fn algorithm(&self) -> SignatureAlgorithm {
        match self {
            Self::Ecdsa(algorithm, _) => *algorithm,
            Self::Rsa(_) => SignatureAlgorithm::RsaPkcs1Sha256,
        }
    }

    /// The DER SubjectPublicKeyInfo.
    pub(crate) fn spki_der(&self) -> Result<Vec<u8>, CryptoFailure> {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Ecdsa(_, pair) => pair.public_key().as_der(),
            Self::Rsa(pair) => pair.public_key().as_der(),
        }
        .map_err(|_| CryptoFailure)?;
        Ok(der.as_ref().to_vec())
    }

    /// The DER PrivateKeyInfo (RFC 5208 §5).
    pub(crate) fn pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, CryptoFailure> {
        match self {
            Self::Ecdsa(_, pair) => {
                pair.to_pkcs8v1().map(|document| Zeroizing::new(document.as_ref().to_vec()))
            }
            Self::Rsa(pair) => {
                let der: Result<Pkcs8V1Der<'_>, _> = pair.as_der();
                der.map(|document| Zeroizing::new(document.as_ref().to_vec()))
            }
        }
        .map_err(|_| CryptoFailure)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        const FAILED: SignError = SignError("the cryptographic library failed");
        match self {
            Self::Ecdsa(_, pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| FAILED),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
                    .map_err(|_| FAILED)?;
                Ok(signature)
            }
        }
    }
}
