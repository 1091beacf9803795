//! The folder of the CA keys.
//!
//! One file a CA, named for its id, 0600, encrypted when a passphrase is given.

use std::path::PathBuf;

use muster_ca::file_key::{FileKey, FileKeyError, Passphrase};
use muster_policy::identity::CaId;

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
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Reads the key of a record.
    pub(crate) fn read(&self, name: &str) -> Result<FileKey, FileKeyError> {
        FileKey::read_file(&self.folder.join(name), self.passphrase.as_ref())
    }
}
