//! Private keys as PEM text (RFC 7468 §10, §11, and the older forms of OpenSSL).

use der::ErrorKind;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::{Kdf, Parameters};
use pkcs8::pkcs5::scrypt;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, ObjectIdentifier, PrivateKeyInfoRef};
use zeroize::Zeroizing;

use super::{FileKeyError, Passphrase};
use crate::key_pair::{CryptoFailure, KeyPair, Rejected};
use crate::pem_text::{self, Block};

/// Cost of scrypt as log2 N: 16 MiB, the most that OpenSSL 3 opens without being asked to.
const SCRYPT_LOG_N: u8 = 14;
/// Block size of scrypt (RFC 7914 §2).
const SCRYPT_R: u32 = 8;
/// Parallel lanes of scrypt; OWASP's figure for N = 2^14.
const SCRYPT_P: u32 = 5;
/// Costliest scrypt that is opened: 1 GiB, so that a hostile file can't exhaust the machine.
const SCRYPT_MAX_LOG_N: u32 = 20;
/// Largest block size times lanes of scrypt that is opened.
const SCRYPT_MAX_WIDTH: u32 = 128;
/// Most PBKDF2 iterations that are opened; some seconds.
const PBKDF2_MAX_ITERATIONS: u32 = 10_000_000;

/// RFC 3279 §2.3.1.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// RFC 5480 §2.1.1.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// Whether this PEM label is one of a private key.
fn is_key_label(label: &str) -> bool {
    label.ends_with("PRIVATE KEY")
}

pub(super) fn read(text: &str, passphrase: Option<&Passphrase>) -> Result<KeyPair, FileKeyError> {
    read_block(&only_key(text)?, passphrase)
}

/// The one PKCS#8 structure of a text, and whether it was encrypted.
pub(super) fn pkcs8(
    text: &str,
    passphrase: Option<&Passphrase>,
) -> Result<(Zeroizing<Vec<u8>>, bool), FileKeyError> {
    let block = only_key(text)?;
    match block.label.as_str() {
        "PRIVATE KEY" => Ok((block.der, false)),
        "ENCRYPTED PRIVATE KEY" => {
            let passphrase = passphrase.ok_or(FileKeyError::PassphraseNeeded)?;
            Ok((decrypt(&block.der, passphrase)?, true))
        }
        other => Err(FileKeyError::Unsupported(format!("a PEM block named {other}"))),
    }
}

fn only_key(text: &str) -> Result<Block, FileKeyError> {
    let blocks = pem_text::blocks(text).map_err(|error| FileKeyError::Malformed(error.to_string()))?;
    let mut keys = blocks.into_iter().filter(|block| is_key_label(&block.label));
    let only = keys.next().ok_or(FileKeyError::Missing)?;
    if keys.next().is_some() {
        return Err(FileKeyError::Several);
    }
    Ok(only)
}

fn read_block(block: &Block, passphrase: Option<&Passphrase>) -> Result<KeyPair, FileKeyError> {
    // RFC 1421 encryption: MD5 and no integrity; `openssl pkcs8 -topk8` makes PKCS#8 of it.
    if block.is_encrypted_by_headers {
        return Err(FileKeyError::Unsupported("the old OpenSSL key encryption; convert it to PKCS#8".into()));
    }
    let der = block.der.as_slice();
    match block.label.as_str() {
        "PRIVATE KEY" => read_pkcs8(der),
        "ENCRYPTED PRIVATE KEY" => {
            let passphrase = passphrase.ok_or(FileKeyError::PassphraseNeeded)?;
            read_pkcs8(&decrypt(der, passphrase)?)
        }
        "EC PRIVATE KEY" => KeyPair::read_ecdsa(der).map_err(rejected),
        "RSA PRIVATE KEY" => KeyPair::read_rsa_pkcs1(der).map_err(rejected),
        other => Err(FileKeyError::Unsupported(format!("a PEM block named {other}"))),
    }
}

fn read_pkcs8(der: &[u8]) -> Result<KeyPair, FileKeyError> {
    let info =
        PrivateKeyInfoRef::try_from(der).map_err(|error| FileKeyError::Malformed(error.to_string()))?;
    match info.algorithm.oid {
        RSA_ENCRYPTION => KeyPair::read_rsa_pkcs8(der).map_err(rejected),
        EC_PUBLIC_KEY => KeyPair::read_ecdsa(der).map_err(rejected),
        other => Err(FileKeyError::Unsupported(format!("keys of the kind {other}"))),
    }
}

fn rejected(Rejected(reason): Rejected) -> FileKeyError {
    match reason {
        "TooSmall" => FileKeyError::Weak,
        "WrongAlgorithm" => FileKeyError::Unsupported("an elliptic curve other than P-256 and P-384".into()),
        other => FileKeyError::Malformed(other.to_owned()),
    }
}

fn decrypt(der: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, FileKeyError> {
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(der).map_err(unread)?;
    let EncryptionScheme::Pbes2(parameters) = &encrypted.encryption_algorithm else {
        return Err(FileKeyError::Unsupported("a key encryption other than PBES2".into()));
    };
    check_cost(&parameters.kdf)?;
    // CBC has no integrity: a wrong passphrase shows as bad padding, or as bytes that are no key.
    let opened =
        parameters.decrypt(passphrase.as_bytes(), encrypted.encrypted_data.as_bytes()).map_err(|error| {
            match error {
                pkcs8::pkcs5::Error::UnsupportedAlgorithm { oid } => {
                    FileKeyError::Unsupported(format!("a key encryption with {oid}"))
                }
                _ => FileKeyError::PassphraseWrong,
            }
        })?;
    let opened = Zeroizing::new(opened);
    PrivateKeyInfoRef::try_from(opened.as_slice()).map_err(|_| FileKeyError::PassphraseWrong)?;
    Ok(opened)
}

/// An algorithm that the crate does not know is not a malformed file.
fn unread(error: pkcs8::Error) -> FileKeyError {
    if let pkcs8::Error::Asn1(inner) = &error
        && let ErrorKind::OidUnknown { oid } = inner.kind()
    {
        return FileKeyError::Unsupported(format!("a key encryption with {oid}"));
    }
    FileKeyError::Malformed(error.to_string())
}

fn check_cost(kdf: &Kdf) -> Result<(), FileKeyError> {
    let affordable = match kdf {
        Kdf::Pbkdf2(parameters) => (1..=PBKDF2_MAX_ITERATIONS).contains(&parameters.iteration_count),
        Kdf::Scrypt(parameters) => {
            let width =
                u32::from(parameters.block_size).saturating_mul(u32::from(parameters.parallelization));
            parameters.cost_parameter.is_power_of_two()
                && parameters.cost_parameter.trailing_zeros() <= SCRYPT_MAX_LOG_N
                && (1..=SCRYPT_MAX_WIDTH).contains(&width)
        }
        _ => false,
    };
    if affordable { Ok(()) } else { Err(FileKeyError::Unsupported("the cost of its key encryption".into())) }
}

pub(super) fn write(
    pkcs8: &[u8],
    passphrase: Option<&Passphrase>,
) -> Result<Zeroizing<String>, FileKeyError> {
    let info = PrivateKeyInfoRef::try_from(pkcs8).map_err(|_| CryptoFailure)?;
    let document = match passphrase {
        None => pkcs8::SecretDocument::try_from(info),
        Some(passphrase) => info.encrypt_with_params(fresh_parameters()?, passphrase.as_bytes()),
    };
    let label = if passphrase.is_some() { "ENCRYPTED PRIVATE KEY" } else { "PRIVATE KEY" };
    let text =
        document.map_err(|_| CryptoFailure)?.to_pem(label, LineEnding::LF).map_err(|_| CryptoFailure)?;
    Ok(text)
}

fn fresh_parameters() -> Result<Parameters, CryptoFailure> {
    let mut salt = [0; 16];
    let mut iv = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| CryptoFailure)?;
    aws_lc_rs::rand::fill(&mut iv).map_err(|_| CryptoFailure)?;
    let cost = scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P).map_err(|_| CryptoFailure)?;
    Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).map_err(|_| CryptoFailure)
}
