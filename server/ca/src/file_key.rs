//! A CA key that lives in a file: read from any common form, written as PKCS#8.
//!
//! A file written here has mode 0600, is complete or absent after a crash, never replaces another
//! file, and is encrypted when a passphrase is given (RFC 8018 PBES2: scrypt, AES-256-CBC). The
//! only module in this crate that touches the file system.

use core::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::key_pair::{CryptoFailure, KeyPair, MadeKey};
use crate::signature::SignatureAlgorithm;
use crate::signer::{SignError, Signer};

pub mod secret;
#[cfg(test)]
mod tests;
mod text;

/// Largest key file that is read; an encrypted RSA-4096 key is below 4 KiB.
const KEY_FILE_MAX_BYTES: u64 = 64 * 1024;

/// What kind of key a managed CA gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384,
    /// RSA with 3072 bits and SHA-256.
    Rsa3072,
}

/// A secret text that protects a key file; wiped when dropped, never shown.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes over the text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Why a private key can't be had from a text or file, or not be written.
#[derive(Debug, thiserror::Error)]
pub enum FileKeyError {
    /// The cryptographic library failed.
    #[error(transparent)]
    Crypto(#[from] CryptoFailure),
    /// The file can't be read or written.
    #[error("key file {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// There is no private key in the text.
    #[error("there is no private key in the PEM text")]
    Missing,
    /// There is more than one private key in the text.
    #[error("there is more than one private key in the PEM text")]
    Several,
    /// The text or the key in it is malformed; it says how.
    #[error("the private key is malformed: {0}")]
    Malformed(String),
    /// The key is encrypted, and no passphrase was given.
    #[error("the private key is encrypted: a passphrase is needed")]
    PassphraseNeeded,
    /// The passphrase does not open the key.
    #[error("the passphrase does not open the private key")]
    PassphraseWrong,
    /// The key, or its encryption, is of a kind that is not supported; it says which.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The key is too weak to sign certificates.
    #[error("the private key is too weak: RSA below 2048 bits")]
    Weak,
}

/// A private key of a CA, in memory.
pub struct FileKey {
    pair: KeyPair,
    spki_der: Vec<u8>,
}

impl FileKey {
    /// Makes a fresh key.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate(algorithm: CaAlgorithm) -> Result<Self, CryptoFailure> {
        let kind = match algorithm {
            CaAlgorithm::EcdsaP256 => MadeKey::EcdsaP256,
            CaAlgorithm::EcdsaP384 => MadeKey::EcdsaP384,
            CaAlgorithm::Rsa3072 => MadeKey::Rsa3072,
        };
        Self::from_pair(KeyPair::generate(kind)?)
    }

    /// Reads the one private key of a PEM text: PKCS#8, plain or encrypted, SEC 1, or PKCS#1.
    ///
    /// # Errors
    /// When there is none or several, the key is malformed, weak or of another kind, or the
    /// passphrase is missing or wrong.
    pub fn read_pem(text: &str, passphrase: Option<&Passphrase>) -> Result<Self, FileKeyError> {
        Ok(Self::from_pair(text::read(text, passphrase)?)?)
    }

    /// Reads a file as [`FileKey::read_pem`] reads a text.
    ///
    /// # Errors
    /// Those of [`FileKey::read_pem`], and when the file can't be read.
    pub fn read_file(path: &Path, passphrase: Option<&Passphrase>) -> Result<Self, FileKeyError> {
        let failed = |error| FileKeyError::File { path: path.to_owned(), error };
        let mut text = Zeroizing::new(String::new());
        File::open(path)
            .and_then(|file| file.take(KEY_FILE_MAX_BYTES).read_to_string(&mut text))
            .map_err(failed)?;
        Self::read_pem(&text, passphrase)
    }

    /// Writes the key as PKCS#8 PEM to a new file of mode 0600, encrypted when a passphrase is given.
    ///
    /// When this returns, file and name are on disk.
    ///
    /// # Errors
    /// When the file exists already - a CA's key is never overwritten - or can't be written.
    pub fn write_file(&self, path: &Path, passphrase: Option<&Passphrase>) -> Result<(), FileKeyError> {
        let text = text::write(&self.pair.pkcs8_der()?, passphrase)?;
        write_new(path, text.as_bytes()).map_err(|error| FileKeyError::File { path: path.to_owned(), error })
    }

    /// The key as PKCS#8, for whoever has to hand it on; wiped when dropped.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, CryptoFailure> {
        self.pair.pkcs8_der()
    }

    fn from_pair(pair: KeyPair) -> Result<Self, CryptoFailure> {
        let spki_der = pair.spki_der()?;
        Ok(Self { pair, spki_der })
    }
}

impl Signer for FileKey {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.pair.algorithm()
    }

    fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.pair.sign(message)
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey").field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

/// All of the file or none of it: a temporary file (mode 0600) is filled, synced and given its name.
fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let (mut file, directory) = temporary(path)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    directory.sync_all()
}

/// A temporary file beside the one that is to be, and their directory: the name is on disk only when that is.
fn temporary(path: &Path) -> io::Result<(NamedTempFile, File)> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((NamedTempFile::new_in(directory)?, File::open(directory)?))
}
