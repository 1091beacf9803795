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

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_proto::enrollment::Slot;

pub use self::export::CURRENT;
pub(crate) use self::export::armoured;
pub use self::slot::{Content, Damage, Kept, KeptPair, Key};

use self::files::{Durability, Folder};
use crate::identity::Identity;

/// A device's store, locked.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    folder: Folder,
    slots: Folder,
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
        let failed = StoreError::at;
        let folder = Folder::make(dir).map_err(failed(dir))?;
        let slots = folder.make_within(Path::new(SLOTS)).map_err(failed(&dir.join(SLOTS)))?;
        let path = dir.join(LOCK);
        let lock = folder.open_file(LOCK).map_err(failed(&path))?;
        match locked(&lock) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), folder, slots, _lock: lock }),
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
        let failed = StoreError::at(&path_of(&self.dir, slot));
        let found = look_into(&self.slots, slot).map_err(&failed)?;
        if matches!(found, Found::Damaged(_)) {
            let name = name_of(slot);
            self.slots.rename(name, &format!("{name}.damaged")).map_err(&failed)?;
        }
        Ok(found)
    }

    /// The key in a slot.
    ///
    /// # Errors
    /// [`StoreError`]; that there is none is [`StoreError::NoKey`].
    pub fn key(&self, slot: Slot) -> Result<Key, StoreError> {
        let path = path_of(&self.dir, slot);
        match look_into(&self.slots, slot).map_err(StoreError::at(&path))? {
            Found::Whole(content) => Ok(content.key),
            Found::Damaged(_) | Found::Empty => Err(StoreError::NoKey(path)),
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
        let failed = StoreError::at(&path_of(&self.dir, slot));
        let bytes = slot::encode(content).map_err(&failed)?;
        self.slots.replace(name_of(slot), &bytes, Durability::Durable).map_err(failed)
    }

    /// Forgets a slot's key and record for good.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn clear(&self, slot: Slot) -> Result<(), StoreError> {
        self.slots.remove(name_of(slot)).map_err(StoreError::at(&path_of(&self.dir, slot)))
    }

    /// Shows the identity in use to other programs, as PEM files.
    ///
    /// # Errors
    /// [`StoreError`]; then they see what they saw before.
    pub fn show(&self, identity: &Identity) -> Result<(), StoreError> {
        export::show(&self.folder, identity).map_err(StoreError::at(&self.dir.join(CURRENT)))
    }
}

/// Looks into a slot and changes nothing; needs no lock, because slots change in one step.
///
/// # Errors
/// [`StoreError`] when the disk does not let it be read.
pub fn look(dir: &Path, slot: Slot) -> Result<Found, StoreError> {
    let failed = StoreError::at(&path_of(dir, slot));
    match Folder::open(dir).and_then(|folder| folder.within(Path::new(SLOTS))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Empty),
        slots => slots.and_then(|slots| look_into(&slots, slot)).map_err(failed),
    }
}

fn look_into(slots: &Folder, slot: Slot) -> io::Result<Found> {
    match slots.read(name_of(slot), SLOT_MAX_BYTES) {
        Ok(None) => Ok(Found::Empty),
        Ok(Some(bytes)) => {
            let bytes = zeroize::Zeroizing::new(bytes);
            Ok(slot::decode(&bytes).map_or_else(Found::Damaged, Found::Whole))
        }
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(Found::Damaged(Damage::Size)),
        Err(error) => Err(error),
    }
}

/// Whether an agent works on this folder.
#[must_use]
pub fn is_locked(dir: &Path) -> bool {
    let lock = Folder::open(dir).and_then(|folder| folder.open_to_read(LOCK));
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
    dir.join(SLOTS).join(name_of(slot))
}

const fn name_of(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "a",
        Slot::B => "b",
    }
}

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Another agent has it.
    #[error("another muster-agent uses {}; stop it, or choose another --dir", .0.display())]
    Locked(PathBuf),
    /// There is no key where one should be.
    #[error("{}: there is no usable key in it", .0.display())]
    NoKey(PathBuf),
}

impl StoreError {
    fn at(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Io { path: path.clone(), error }
    }
}

const LOCK: &str = "lock";
/// A tenth of a second in all: `status` lets go within microseconds.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const SLOTS: &str = "slots";
/// Far more than a chain of five RSA certificates and an RSA key.
const SLOT_MAX_BYTES: u64 = 64 << 10;
