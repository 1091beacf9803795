//! The folder of the CA keys, and of secrets that are kept as those are.
//!
//! One file a CA, named for its id, 0600, encrypted when a passphrase is given.

use std::io::ErrorKind;
use std::path::PathBuf;

use muster_ca::file_key::secret::{self, Secret};
use muster_ca::file_key::{FileKey, FileKeyError, Passphrase};
use muster_policy::identity::CaId;
use zeroize::Zeroizing;

use super::AuthorityError;
use crate::secret::random;

/// Where CA keys are kept, and the passphrase that protects them.
pub struct KeyFolder {
    folder: PathBuf,
    passphrase: Option<Passphrase>,
}

impl KeyFolder {
    /// Names a folder that exists.
    pub const fn new(folder: PathBuf, passphrase: Option<Passphrase>) -> Self {
        Self { folder, passphrase }
    }

    /// Writes a new key; returns its file name for the record. The file is durable afterwards.
    pub(crate) fn write(&self, ca: CaId, key: &FileKey) -> Result<String, FileKeyError> {
        let name = format!("{ca}.key");
        key.write_file(&self.folder.join(&name), self.passphrase.as_ref())?;
        Ok(name)
    }

    /// Removes a key; one that is gone is no error.
    pub(crate) fn remove(&self, name: &str) -> std::io::Result<()> {
        match std::fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// A secret that is kept beside the CA keys and as they are; made when there is none yet.
    pub(crate) fn secret(&self, name: &str) -> Result<Secret, AuthorityError> {
        let path = self.folder.join(name);
        match secret::open(&path, self.passphrase.as_ref()) {
            Err(FileKeyError::File { error, .. }) if error.kind() == ErrorKind::NotFound => {
                let made = Zeroizing::new(random().ok_or(AuthorityError::NoRandom)?);
                secret::write_new(&path, &made, self.passphrase.as_ref())?;
                Ok(made)
            }
            opened => Ok(opened?),
        }
    }

    /// Reads the key of a record.
    pub(crate) fn read(&self, name: &str) -> Result<FileKey, FileKeyError> {
        FileKey::read_file(&self.folder.join(name), self.passphrase.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use muster_ca::file_key::CaAlgorithm;

    use super::*;

    #[test]
    fn a_key_lies_encrypted_and_opens_with_the_passphrase_alone() {
        let temp = tempfile::tempdir().expect("a folder");
        let folder = |passphrase: Option<&str>| {
            KeyFolder::new(temp.path().to_owned(), passphrase.map(|text| Passphrase::new(text.to_owned())))
        };
        let key = FileKey::generate(CaAlgorithm::EcdsaP256).expect("a key");
        let name = folder(Some("open")).write(CaId::from_bytes([1; 16]), &key).expect("written");
        let text = std::fs::read_to_string(temp.path().join(&name)).expect("there");
        assert!(text.contains("ENCRYPTED PRIVATE KEY"), "{text}");
        let read = folder(Some("open")).read(&name).expect("opened");
        assert_eq!(read.pkcs8_der().expect("encodes"), key.pkcs8_der().expect("encodes"));
        for wrong in [None, Some("shut")] {
            assert!(folder(wrong).read(&name).is_err(), "{wrong:?}");
        }
        folder(None).remove(&name).expect("removed");
        folder(None).remove(&name).expect("gone already");
    }
}
