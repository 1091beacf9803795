//! A secret that is no key of a CA, kept as those are: PEM of PKCS#8, encrypted when a passphrase is given.
//!
//! PKCS#8 holds keys of any algorithm (RFC 5958 §2); this one is a key of HMAC with SHA-256
//! (RFC 8018 appendix B.1.2). A file of the bare octets, as older versions wrote it, is read too.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use pkcs8::der::Encode as _;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::spki::AlgorithmIdentifierRef;
use pkcs8::{ObjectIdentifier, PrivateKeyInfoRef};
use zeroize::Zeroizing;

use super::{FileKeyError, KEY_FILE_MAX_BYTES, Passphrase, temporary, text};
use crate::key_pair::CryptoFailure;

/// RFC 8018 appendix B.1.2.
const HMAC_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.9");

/// Octets of a secret.
pub const SECRET_BYTES: usize = 32;

/// A secret of a file; wiped when dropped.
pub type Secret = Zeroizing<[u8; SECRET_BYTES]>;

/// Reads a secret. A file that is less protected than it can be now is replaced by one that is as much.
///
/// # Errors
/// When the file can't be read or replaced, holds no secret, or its passphrase is missing or wrong.
/// [`FileKeyError::File`] of the kind `NotFound` says that there is no file.
pub fn open(path: &Path, passphrase: Option<&Passphrase>) -> Result<Secret, FileKeyError> {
    let mut octets = Zeroizing::new(Vec::new());
    File::open(path)
        .and_then(|file| file.take(KEY_FILE_MAX_BYTES).read_to_end(&mut octets))
        .map_err(|error| failed(path, error))?;
    if let Ok(bare) = <[u8; SECRET_BYTES]>::try_from(octets.as_slice()) {
        let secret = Zeroizing::new(bare);
        replace(path, &secret, passphrase)?;
        return Ok(secret);
    }
    let text = core::str::from_utf8(&octets).map_err(|_| FileKeyError::Missing)?;
    let (der, was_encrypted) = text::pkcs8(text, passphrase)?;
    let info = PrivateKeyInfoRef::try_from(der.as_slice())
        .map_err(|error| FileKeyError::Malformed(error.to_string()))?;
    if info.algorithm.oid != HMAC_WITH_SHA256 {
        return Err(FileKeyError::Unsupported(format!("secrets of the kind {}", info.algorithm.oid)));
    }
    let secret = info.private_key.as_bytes().try_into().map(Zeroizing::new);
    let secret = secret.map_err(|_| FileKeyError::Malformed(format!("not {SECRET_BYTES} octets")))?;
    if passphrase.is_some() && !was_encrypted {
        replace(path, &secret, passphrase)?;
    }
    Ok(secret)
}

/// Writes a secret to a file of mode 0600 that there was not; file and name are on disk afterwards.
///
/// # Errors
/// When there is such a file, or it can't be written.
pub fn write_new(path: &Path, secret: &Secret, passphrase: Option<&Passphrase>) -> Result<(), FileKeyError> {
    super::write_new(path, pem(secret, passphrase)?.as_bytes()).map_err(|error| failed(path, error))
}

/// The old file is there until the new one is whole on disk.
fn replace(path: &Path, secret: &Secret, passphrase: Option<&Passphrase>) -> Result<(), FileKeyError> {
    let contents = pem(secret, passphrase)?;
    let write = || -> io::Result<()> {
        let (mut file, directory) = temporary(path)?;
        file.write_all(contents.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        directory.sync_all()
    };
    write().map_err(|error| failed(path, error))
}

fn pem(secret: &Secret, passphrase: Option<&Passphrase>) -> Result<Zeroizing<String>, FileKeyError> {
    let key = OctetStringRef::new(secret.as_slice()).map_err(|_| CryptoFailure)?;
    let algorithm = AlgorithmIdentifierRef { oid: HMAC_WITH_SHA256, parameters: None };
    let der =
        PrivateKeyInfoRef::new(algorithm, key).to_der().map(Zeroizing::new).map_err(|_| CryptoFailure)?;
    text::write(&der, passphrase)
}

fn failed(path: &Path, error: io::Error) -> FileKeyError {
    FileKeyError::File { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn given(text: &str) -> Passphrase {
        Passphrase::new(text.to_owned())
    }

    #[test]
    fn a_secret_reads_back_and_with_a_passphrase_opens_to_that_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, secret) = (folder.path().join("x.key"), Zeroizing::new([7; SECRET_BYTES]));
        assert!(
            matches!(open(&path, None), Err(FileKeyError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound)
        );
        write_new(&path, &secret, Some(&given("correct horse"))).expect("written");
        assert!(write_new(&path, &secret, None).is_err(), "never overwritten");
        let written = std::fs::read(&path).expect("read");
        assert!(written.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        assert!(!written.windows(SECRET_BYTES).any(|part| part == secret.as_slice()));
        assert_eq!(open(&path, Some(&given("correct horse"))).expect("opens"), secret);
        assert!(matches!(open(&path, None), Err(FileKeyError::PassphraseNeeded)));
        assert!(matches!(open(&path, Some(&given("x"))), Err(FileKeyError::PassphraseWrong)));
        assert_eq!(std::fs::read(&path).expect("read"), written, "left as it was");
    }

    #[test]
    fn a_plain_file_is_replaced_by_one_that_is_as_protected_as_can_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, bare) = (folder.path().join("x.key"), [9; SECRET_BYTES]);
        std::fs::write(&path, bare).expect("written");
        assert_eq!(*open(&path, None).expect("opens"), bare);
        let plain = std::fs::read_to_string(&path).expect("text");
        assert!(plain.starts_with("-----BEGIN PRIVATE KEY-----"), "{plain}");
        assert_eq!(*open(&path, Some(&given("late"))).expect("opens"), bare);
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{text}");
        assert_eq!(*open(&path, Some(&given("late"))).expect("opens"), bare);
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!((mode & 0o777, folder.path().read_dir().expect("lists").count()), (0o600, 1));
        std::fs::write(&path, bare).expect("written");
        assert_eq!(*open(&path, Some(&given("late"))).expect("opens"), bare);
        assert!(!std::fs::read(&path).expect("read").windows(SECRET_BYTES).any(|part| part == bare));
    }

    #[test]
    fn what_is_no_secret_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.key");
        let key = super::super::FileKey::generate(super::super::CaAlgorithm::EcdsaP256).expect("a key");
        key.write_file(&path, None).expect("written");
        assert!(matches!(open(&path, None), Err(FileKeyError::Unsupported(_))));
        for wrong in [
            &b""[..],
            b"short",
            &[0xff; 40],
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            std::fs::write(&path, wrong).expect("written");
            assert!(open(&path, None).is_err());
            assert_eq!(std::fs::read(&path).expect("read"), wrong);
        }
    }
}
