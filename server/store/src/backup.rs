//! A consistent copy of the ledger while it serves.
//!
//! One snapshot is copied table by table into a new redb file, so the copy is compact and holds the
//! state of one moment. The file appears under its name only when it is complete and on the disk.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Database, Durability};

use crate::ledger::{Ledger, sync_directory};
use crate::tables::TableName;
use crate::transaction::Fault;

/// Rows written in one transaction of the copy; it bounds the memory of uncommitted pages.
const STEP: usize = 20_000;
/// Cache of the copy: it is written once and not read again.
const COPY_CACHE_BYTES: usize = 16 << 20;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The copy's file can't be made or written.
    #[error("the backup {path} can't be written: {what}")]
    Copy {
        /// The file.
        path: PathBuf,
        /// What the system said.
        what: String,
    },
    /// There is a file of this name.
    #[error("there is a file {0} already")]
    Exists(PathBuf),
    /// The ledger can't be read.
    #[error(transparent)]
    Ledger(#[from] Fault),
}

impl Ledger {
    /// Copies the ledger as it is now into the new file `path`, readable by its owner only.
    ///
    /// Takes about a second per 100,000 certificates; others are not held up. Blocks the thread.
    ///
    /// # Errors
    /// When the file exists or can't be written; nothing is left behind then.
    pub fn backup_to(&self, path: &Path) -> Result<(), BackupError> {
        if path.exists() {
            return Err(BackupError::Exists(path.to_owned()));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let done = self.copy_into(&partial).and_then(|()| {
            let failed = |error: std::io::Error| copy_error(path, &error);
            File::open(&partial).and_then(|file| file.sync_all()).map_err(failed)?;
            // A hard link, because a rename would replace a file that appeared meanwhile.
            std::fs::hard_link(&partial, path).map_err(failed)?;
            sync_directory(path).map_err(failed)
        });
        // Whether it worked or not, the second name goes; there is nothing to do about a failure.
        let _ = std::fs::remove_file(&partial);
        done
    }

    fn copy_into(&self, path: &Path) -> Result<(), BackupError> {
        let failed = |error: &dyn core::fmt::Display| copy_error(path, error);
        let _ = std::fs::remove_file(path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(&error))?;
        let backend = FileBackend::new(file).map_err(|error| failed(&error))?;
        let copy = Database::builder()
            .set_cache_size(COPY_CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(|error| failed(&error))?;
        let reader = self.reader()?;
        for table in TableName::ALL {
            let source = reader.table(*table)?;
            let mut rows = source.range::<&[u8]>(..).map_err(Fault::from)?;
            loop {
                let mut writer = copy.begin_write().map_err(|error| failed(&error))?;
                writer.set_durability(Durability::None).map_err(|error| failed(&error))?;
                let mut copied = 0_usize;
                {
                    let mut target = writer.open_table(table.definition()).map_err(|error| failed(&error))?;
                    for row in rows.by_ref().take(STEP) {
                        let (key, value) = row.map_err(Fault::from)?;
                        target.insert(key.value(), value.value()).map_err(|error| failed(&error))?;
                        copied = copied.saturating_add(1);
                    }
                }
                writer.commit().map_err(|error| failed(&error))?;
                if copied < STEP {
                    break;
                }
            }
        }
        // Durable at last; the commits before were not.
        copy.begin_write().map_err(|error| failed(&error))?.commit().map_err(|error| failed(&error))
    }
}

fn copy_error(path: &Path, error: &(impl core::fmt::Display + ?Sized)) -> BackupError {
    BackupError::Copy { path: path.to_owned(), what: error.to_string() }
}
