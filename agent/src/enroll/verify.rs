//! Signature verification for the device core, by aws-lc-rs.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm,
};
use muster_proto::der::Oid;
use muster_proto::x509::{PublicKey, SignatureAlgorithm, Verify, VerifyError};

/// Verifies what aws-lc-rs can: P-256, P-384, Ed25519, and RSA from 2048 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AwsLc;

impl Verify for AwsLc {
    fn verify(
        &self,
        key: &PublicKey<'_>,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), VerifyError> {
        let algorithm = algorithm_for(key, algorithm).ok_or(VerifyError::Unsupported)?;
        UnparsedPublicKey::new(algorithm, key.bits)
            .verify(message, signature)
            .map_err(|_| VerifyError::Invalid)
    }
}

/// The key must be of the kind that the signature algorithm names.
fn algorithm_for(
    key: &PublicKey<'_>,
    algorithm: SignatureAlgorithm,
) -> Option<&'static dyn VerificationAlgorithm> {
    let p256 = key.curve == Some(Oid::SECP256R1);
    let p384 = key.curve == Some(Oid::SECP384R1);
    let rsa = key.algorithm == Oid::RSA_ENCRYPTION;
    match algorithm {
        SignatureAlgorithm::EcdsaSha256 if p256 => Some(&ECDSA_P256_SHA256_ASN1),
        SignatureAlgorithm::EcdsaSha256 if p384 => Some(&ECDSA_P384_SHA256_ASN1),
        SignatureAlgorithm::EcdsaSha384 if p256 => Some(&ECDSA_P256_SHA384_ASN1),
        SignatureAlgorithm::EcdsaSha384 if p384 => Some(&ECDSA_P384_SHA384_ASN1),
        SignatureAlgorithm::Ed25519 if key.algorithm == Oid::ED25519 => Some(&ED25519),
        SignatureAlgorithm::RsaPkcs1Sha256 if rsa => Some(&RSA_PKCS1_2048_8192_SHA256),
        SignatureAlgorithm::RsaPkcs1Sha384 if rsa => Some(&RSA_PKCS1_2048_8192_SHA384),
        _ => None,
    }
}
