//! A disk for tests: it fails or stalls for as long as it is told to.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use super::{OpenDatabase, Opening, StoreError};

/// What the disk does with what is written to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Health {
    Fails,
    Stalls,
    #[default]
    Works,
}

/// A disk that is told how it does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<(Mutex<Health>, Condvar)>);

impl Disk {
    pub(crate) fn now(&self, health: Health) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = health;
        self.0.1.notify_all();
    }

    /// Opens a file on this disk, as often as it is called.
    pub(crate) fn opener(&self, path: &Path) -> OpenDatabase {
        let (disk, path) = (self.clone(), path.to_owned());
        Box::new(move |opening| {
            let is_made = opening == Opening::First;
            let file = OpenOptions::new().read(true).write(true).create(is_made).truncate(false).open(&path);
            let file = FileBackend::new(file.map_err(|error| StoreError(redb::Error::Io(error)))?)?;
            Ok(Database::builder().create_with_backend(Faulty { file, disk: disk.clone() })?)
        })
    }

    /// Waits while it stalls.
    fn wait(&self) -> Result<(), Error> {
        let (health, changed) = &*self.0;
        let health = health.lock().unwrap_or_else(PoisonError::into_inner);
        let stalls = |health: &mut Health| *health == Health::Stalls;
        match *changed.wait_while(health, stalls).unwrap_or_else(PoisonError::into_inner) {
            Health::Works => Ok(()),
            _ => Err(ErrorKind::StorageFull.into()),
        }
    }
}

#[derive(Debug)]
struct Faulty {
    file: FileBackend,
    disk: Disk,
}

impl StorageBackend for Faulty {
    fn len(&self) -> Result<u64, Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.disk.wait()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.disk.wait()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.disk.wait()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), Error> {
        self.file.close()
    }
}
