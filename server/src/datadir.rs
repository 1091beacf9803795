//! The data directory: which file lies where, and who may read it.
//!
//! ```text
//! DIR/muster.toml      configuration
//! DIR/ledger.redb      the ledger
//! DIR/keys/CA_ID.key   CA keys, 0600, encrypted when a passphrase is given
//! DIR/keys/webhooks.key   what the keys that webhooks are signed with are made of, likewise
//! DIR/ca.pem           the account root: what clients trust
//! DIR/tls/est.pem      chain and key of the EST server certificate that the services CA made, 0600
//! DIR/tls/hosts/NAME.pem   likewise of each hostname of the edge; NAME.crt and NAME.key go before it
//! DIR/tls/outbound.crt, outbound.key   what origins are shown that ask for a client certificate, from an operator
//! DIR/edge/            the edge's last known good snapshot, 0700; with broker.redb all that an edge of its own has
//! DIR/broker.redb      retained messages and persistent sessions of the MQTT broker, 0600
//! DIR/.init/, DIR/.backup/   what `muster init` makes, until it is all there, and what a backup is made of
//! DIR/serving.json     while a server runs: its admin address and a token for local commands, 0600
//! ```
//! The directory itself is 0700: whoever reads it owns the account.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The name of the file that the keys of webhooks are made of, among the CA keys.
pub const WEBHOOKS_KEY: &str = "webhooks.key";

/// The data directory.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// Names a directory; nothing is read or made.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Makes the directory with its parts, readable by its owner alone.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn create(&self) -> io::Result<()> {
        for directory in [self.0.clone(), self.keys(), self.tls(), self.host_tls()] {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        Ok(())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.0.join("muster.toml")
    }

    /// The ledger.
    pub fn ledger(&self) -> PathBuf {
        self.0.join("ledger.redb")
    }

    /// The folder of the CA keys.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// What the keys that webhooks are signed with are made of.
    pub fn webhooks_key(&self) -> PathBuf {
        self.keys().join(WEBHOOKS_KEY)
    }

    /// The account root, PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// The folder of the server's own TLS files.
    pub fn tls(&self) -> PathBuf {
        self.0.join("tls")
    }

    /// Chain and key of the EST server certificate made here.
    pub fn est_tls(&self) -> PathBuf {
        self.tls().join("est.pem")
    }

    /// Chains and keys of the edge's hostnames.
    pub fn host_tls(&self) -> PathBuf {
        self.tls().join("hosts")
    }

    /// Chain and key of the client certificate that origins are shown.
    pub fn outbound_tls(&self) -> [PathBuf; 2] {
        ["outbound.crt", "outbound.key"].map(|name| self.tls().join(name))
    }

    /// The edge's last known good snapshot.
    pub fn edge_snapshot(&self) -> PathBuf {
        self.0.join("edge")
    }

    /// Retained messages and persistent sessions of the MQTT broker.
    pub fn broker(&self) -> PathBuf {
        self.0.join("broker.redb")
    }

    /// How local commands reach a running server.
    pub fn serving(&self) -> PathBuf {
        self.0.join("serving.json")
    }
}

/// Whom a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// The owner alone: 0600.
    Owner,
    /// Everybody: 0644.
    World,
}

/// Writes a whole file or nothing: temporary file, fsync, rename, fsync of the folder.
///
/// # Errors
/// When the file system refuses; then the old file, if any, is untouched.
pub fn write_file(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::other("not a file name"))?;
    let temporary = folder.join(format!(".{}.new", name.to_string_lossy()));
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::World => 0o644,
    };
    // A leftover of a crash would keep its own mode.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_and_folders_have_the_mode_they_need() {
        let temp = tempfile::tempdir().expect("a folder");
        let dir = DataDir::new(temp.path().join("data"));
        dir.create().expect("made");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.keys()), 0o700);
        write_file(&dir.serving(), b"x", Readers::Owner).expect("written");
        write_file(&dir.ca_file(), b"x", Readers::World).expect("written");
        write_file(&dir.ca_file(), b"y", Readers::World).expect("replaced");
        assert_eq!((mode(&dir.serving()), mode(&dir.ca_file())), (0o600, 0o644));
        assert_eq!(std::fs::read(dir.ca_file()).expect("there"), b"y");
    }
}
