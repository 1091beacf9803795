//! The store: two slots for keys with their certificates, under one folder that one agent at a time may write.
//!
//! ```text
//! DIR/lock              held while an agent works on the folder
//! DIR/slots/a, b        key with certificate or request, one atomic item each
//! DIR/slots/a.damaged   a slot that could not be read, set aside
//! DIR/current/          the identity in use as PEM, see `export`
//! ```
//! The folder is 0700 and its files are 0600: whoever reads them is the device.

mod export;
pub(crate) mod files;
mod slot;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_proto::enrollment::Slot;

pub use self::export::CURRENT;
pub(crate) use self::export::armoured;
pub use self::slot::{Content, Damage, Kept, KeptPair, Key};

use self::files::Durability;
use crate::identity::Identity;

/// A device's store, locked.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Held as long as the store is; the system lets go of it when the process dies.
    _lock: File,
}

/// What is in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It can't be read.
    Damaged(Damage),
    /// Nothing.
    Empty,
    /// A key, and what belongs to it.
    Whole(Content),
}

impl Store {
    /// Opens a store, and makes it if there is none.
    ///
    /// # Errors
    /// [`StoreError`]; above all that another agent has it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let failed = |path: &Path| StoreError::at(path);
        files::make_folder(&dir.join(SLOTS)).map_err(failed(dir))?;
        let path = dir.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed(&path))?;
        files::belong(&lock, dir).map_err(failed(&path))?;
        match locked(&lock) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked(dir.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(&path)(error)),
        }
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads a slot; a damaged one is set aside, so that it is met once.
    ///
    /// # Errors
    /// [`StoreError`] when the disk does not let it be read, which says nothing about its content.
    pub fn take_stock(&self, slot: Slot) -> Result<Found, StoreError> {
        let found = look(&self.dir, slot)?;
        if matches!(found, Found::Damaged(_)) {
            let path = path_of(&self.dir, slot);
            let aside = path.with_extension("damaged");
            std::fs::rename(&path, &aside).map_err(StoreError::at(&path))?;
            files::sync_folder_of(&path).map_err(StoreError::at(&path))?;
        }
        Ok(found)
    }

    /// The key in a slot.
    ///
    /// # Errors
    /// [`StoreError`]; that there is none is [`StoreError::NoKey`].
    pub fn key(&self, slot: Slot) -> Result<Key, StoreError> {
        match look(&self.dir, slot)? {
            Found::Whole(content) => Ok(content.key),
            Found::Damaged(_) | Found::Empty => Err(StoreError::NoKey(path_of(&self.dir, slot))),
        }
    }

    /// Puts a key into a slot, over whatever is there; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`]; then the slot is as before.
    pub fn put_key(&self, slot: Slot, key: Key) -> Result<(), StoreError> {
        self.put(slot, &Content { key, record: None })
    }

    /// Puts a record beside the slot's key, over the record that is there; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`]; then the slot is as before.
    pub fn put_record(&self, slot: Slot, record: Kept) -> Result<Content, StoreError> {
        let content = Content { key: self.key(slot)?, record: Some(record) };
        self.put(slot, &content)?;
        Ok(content)
    }

    /// Puts a whole content into a slot, over whatever is there; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`]; then the slot is as before.
    pub fn put(&self, slot: Slot, content: &Content) -> Result<(), StoreError> {
        let path = path_of(&self.dir, slot);
        let bytes = slot::encode(content).map_err(StoreError::at(&path))?;
        files::replace(&path, &bytes, Durability::Durable).map_err(StoreError::at(&path))
    }

    /// Forgets a slot's key and record for good.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn clear(&self, slot: Slot) -> Result<(), StoreError> {
        let path = path_of(&self.dir, slot);
        files::remove(&path).map_err(StoreError::at(&path))
    }

    /// Shows the identity in use to other programs, as PEM files.
    ///
    /// # Errors
    /// [`StoreError`]; then they see what they saw before.
    pub fn show(&self, identity: &Identity) -> Result<(), StoreError> {
        export::show(&self.dir, identity).map_err(StoreError::at(&self.dir.join(CURRENT)))
    }
}

/// Looks into a slot and changes nothing; needs no lock, because slots change in one step.
///
/// # Errors
/// [`StoreError`] when the disk does not let it be read.
pub fn look(dir: &Path, slot: Slot) -> Result<Found, StoreError> {
    let path = path_of(dir, slot);
    match files::read(&path, SLOT_MAX_BYTES) {
        Ok(None) => Ok(Found::Empty),
        Ok(Some(bytes)) => {
            let bytes = zeroize::Zeroizing::new(bytes);
            Ok(slot::decode(&bytes).map_or_else(Found::Damaged, Found::Whole))
        }
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(Found::Damaged(Damage::Size)),
        Err(error) => Err(StoreError::at(&path)(error)),
    }
}

/// Whether an agent works on this folder.
#[must_use]
pub fn is_locked(dir: &Path) -> bool {
    let lock = File::open(dir.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Takes the lock; looks again a few times, because [`is_locked`] holds it for a moment too.
fn locked(lock: &File) -> Result<(), TryLockError> {
    for _ in 1..LOCK_TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            done => return done,
        }
    }
    lock.try_lock()
}

fn path_of(dir: &Path, slot: Slot) -> PathBuf {
    dir.join(SLOTS).join(match slot {
        Slot::A => "a",
        Slot::B => "b",
    })
}

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another agent has it.
    #[error("another muster-agent works on {}; stop it, or choose another --dir", .0.display())]
    Locked(PathBuf),
    /// There is no key where one should be.
    #[error("{}: there is no usable key in it", .0.display())]
    NoKey(PathBuf),
}

impl StoreError {
    fn at(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }
}

const LOCK: &str = "lock";
/// A tenth of a second in all: `status` lets go within microseconds.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const SLOTS: &str = "slots";
/// Far more than a chain of five RSA certificates and an RSA key.
const SLOT_MAX_BYTES: u64 = 64 << 10;
