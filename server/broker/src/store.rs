//! The file that retained messages and persistent sessions survive a restart in.
//!
//! Changes gather in a map and one thread commits them, as many as came while it committed the last
//! (group commit). A change that is undone before its commit costs nothing. Each change has a
//! *ticket*; whoever promised something waits until the ticket is durable.
//!
//! redb refuses to go on after an I/O error. So after a commit that failed the file is opened anew, and the same
//! changes are made again: they say what is where, so that twice is as good as once.
//!
//! What is promised: a QoS 1 or 2 message that was acknowledged to its publisher is on disk when it is
//! retained, or queued for a session without a connection; a subscription of a persistent session is
//! on disk when it is acknowledged. What a connected client has not acknowledged is written too, but
//! nobody waits for it: after a crash (not after a stop) the messages of the last commit may be lost.

#[cfg(test)]
pub(crate) mod faulty;

use std::collections::HashMap;
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::watch;
use tracing::{error, warn};

use crate::metrics::Metrics;

/// The file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the broker's file: {0}")]
pub struct StoreError(redb::Error);

// redb has an error type for each operation; all mean the same here.
macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self(error.into())
            }
        }
    )*};
}

from_redb!(
    redb::Error,
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

/// Session id -> session.
const SESSIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sessions.1");
/// Session id and place in its queue -> message.
const MESSAGES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("messages.1");
/// Session id and place -> packet id and stage of a message that was sent and not acknowledged.
const FLIGHTS: TableDefinition<'_, (u64, u64), (u16, u8)> = TableDefinition::new("flights.1");
/// Session id and packet id of a QoS 2 publication that was received and not released.
const RECEIVED: TableDefinition<'_, (u64, u16), ()> = TableDefinition::new("received.1");
/// Account and topic -> retained message.
const RETAINED: TableDefinition<'_, (&[u8; 16], &str), &[u8]> = TableDefinition::new("retained.1");

/// What a change is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Flight(u64, u64),
    Message(u64, u64),
    Received(u64, u16),
    Retained([u8; 16], Box<str>),
    Session(u64),
}

/// What a place holds.
#[derive(Debug)]
enum Value {
    Flight(u16, u8),
    Octets(Vec<u8>),
    Present,
}

/// A moment of the stream of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// The file, or nothing.
#[derive(Debug)]
pub(crate) struct Store(Option<Writer>);

#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    durable: watch::Receiver<Ticket>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    changes: HashMap<Place, Option<Value>>,
    bytes: usize,
    ticket: Ticket,
    is_stopping: bool,
}

/// What was in the file.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) sessions: Vec<(u64, Vec<u8>)>,
    pub(crate) messages: Vec<((u64, u64), Vec<u8>)>,
    pub(crate) flights: Vec<((u64, u64), (u16, u8))>,
    pub(crate) received: Vec<(u64, u16)>,
    pub(crate) retained: Vec<([u8; 16], Vec<u8>)>,
}

/// Changes beyond this wait for the disk: nothing is delivered, and no publisher read, until the last commit is done.
pub(crate) const PENDING_HIGH_BYTES: usize = 16 * 1024 * 1024;
/// What redb keeps of the file in memory. After the start only the pages between a change and the root are read.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Who may read the file.
const FILE_MODE: u32 = 0o600;
/// What a change counts beside its value.
const CHANGE_BYTES: usize = 64;
/// How long the thread waits after a failed commit.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often a commit is tried once the thread is to stop: who stops the process waits, and may end it.
const TRIES_AT_THE_END: u32 = 3;

/// Opens the file; a value so that tests can open a faulty one.
pub(crate) type OpenDatabase = Box<dyn Fn(Opening) -> Result<Database, StoreError> + Send>;

/// Which opening of the file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// After an error. The file must be there: a new one would hold the last changes alone, as if that were all.
    Again,
    /// At the start, which makes it.
    First,
}

/// The thread's hold on the file.
struct File {
    open: OpenDatabase,
    /// None after an error: the next commit opens it.
    database: Option<Database>,
}

impl Store {
    /// Nothing is kept.
    pub(crate) const fn nowhere() -> Self {
        Self(None)
    }

    /// Opens or makes the file and reads it.
    ///
    /// # Errors
    /// When it can't be read or is held by another process.
    pub(crate) fn open(path: &Path, metrics: &Arc<Metrics>) -> Result<(Self, Loaded), StoreError> {
        Self::open_with(opener(path), metrics)
    }

    /// The same with a way of its own to open the file, again and again.
    pub(crate) fn open_with(
        open: OpenDatabase,
        metrics: &Arc<Metrics>,
    ) -> Result<(Self, Loaded), StoreError> {
        let database = open(Opening::First)?;
        let loaded = Loaded::read(&database)?;
        let shared = Arc::new(Shared { pending: Mutex::default(), wake: Condvar::new() });
        let (done, durable) = watch::channel(Ticket::default());
        let (inner, metrics) = (Arc::clone(&shared), Arc::clone(metrics));
        let thread = std::thread::Builder::new()
            .name("broker-store".to_owned())
            .spawn(move || inner.write_all(File { open, database: Some(database) }, &done, &metrics))
            .map_err(|error| StoreError(redb::Error::Io(error)))?;
        let writer = Writer { shared, durable, thread: Mutex::new(Some(thread)) };
        Ok((Self(Some(writer)), loaded))
    }

    /// Whether anything is kept.
    pub(crate) const fn keeps(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn put_session(&self, id: u64, value: &impl serde::Serialize) -> Ticket {
        self.put(Place::Session(id), value)
    }

    /// Removes a session and all that belongs to it. Its id never comes again.
    pub(crate) fn remove_session(&self, id: u64) -> Ticket {
        self.change(Place::Session(id), None)
    }

    pub(crate) fn put_message(&self, session: u64, place: u64, value: &impl serde::Serialize) -> Ticket {
        self.put(Place::Message(session, place), value)
    }

    pub(crate) fn remove_message(&self, session: u64, place: u64) -> Ticket {
        self.change(Place::Message(session, place), None)
    }

    /// A message got a packet id, or came to another stage; the numbers of stages are the caller's.
    pub(crate) fn put_flight(&self, session: u64, place: u64, packet_id: u16, stage: u8) -> Ticket {
        self.change(Place::Flight(session, place), Some(Value::Flight(packet_id, stage)))
    }

    pub(crate) fn remove_flight(&self, session: u64, place: u64) -> Ticket {
        self.change(Place::Flight(session, place), None)
    }

    pub(crate) fn put_received(&self, session: u64, packet_id: u16) -> Ticket {
        self.change(Place::Received(session, packet_id), Some(Value::Present))
    }

    pub(crate) fn remove_received(&self, session: u64, packet_id: u16) -> Ticket {
        self.change(Place::Received(session, packet_id), None)
    }

    pub(crate) fn put_retained(
        &self,
        account: &[u8; 16],
        topic: &str,
        value: &impl serde::Serialize,
    ) -> Ticket {
        self.put(Place::Retained(*account, topic.into()), value)
    }

    pub(crate) fn remove_retained(&self, account: &[u8; 16], topic: &str) -> Ticket {
        self.change(Place::Retained(*account, topic.into()), None)
    }

    /// Waits until the ticket's change is on disk.
    pub(crate) async fn durable(&self, ticket: Ticket) {
        if let Some(writer) = &self.0 {
            // The sender lives as long as the thread; when it is gone, so is the broker.
            let _ = writer.durable.clone().wait_for(|done| *done >= ticket).await;
        }
    }

    /// Waits while too much waits for the disk.
    ///
    /// Whoever adds much asks each time before it adds a part, and does not wait between the two: then what is beyond
    /// the bound is a part of each thread's at most, however many add at once.
    pub(crate) async fn room(&self) {
        while let Some(ticket) = self.congestion() {
            self.durable(ticket).await;
        }
    }

    /// Whether the ticket's change is on disk.
    pub(crate) fn is_durable(&self, ticket: Ticket) -> bool {
        self.0.as_ref().is_none_or(|writer| *writer.durable.borrow() >= ticket)
    }

    /// What to wait for before more is taken in, when too much waits for the disk.
    pub(crate) fn congestion(&self) -> Option<Ticket> {
        let pending = self.0.as_ref()?.shared.pending();
        // After the end nothing waits: nothing is written any more.
        (pending.bytes > PENDING_HIGH_BYTES && !pending.is_stopping).then_some(pending.ticket)
    }

    #[cfg(test)]
    pub(crate) fn pending_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |writer| writer.shared.pending().bytes)
    }

    /// Writes all that waits and ends the thread.
    pub(crate) fn close(&self) {
        let Some(writer) = &self.0 else { return };
        writer.shared.pending().is_stopping = true;
        writer.shared.wake.notify_one();
        let thread = writer.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            error!("the thread of the broker's file panicked");
        }
    }

    fn put(&self, place: Place, value: &impl serde::Serialize) -> Ticket {
        if self.0.is_none() {
            return Ticket::default();
        }
        match rmp_serde::to_vec(value) {
            Ok(octets) => self.change(place, Some(Value::Octets(octets))),
            Err(error) => {
                // Only a bug makes a value that can't be encoded.
                error!(%error, ?place, "a value of the broker's file can't be encoded");
                Ticket::default()
            }
        }
    }

    fn change(&self, place: Place, value: Option<Value>) -> Ticket {
        let Some(writer) = &self.0 else { return Ticket::default() };
        let mut pending = writer.shared.pending();
        pending.ticket.0 = pending.ticket.0.saturating_add(1);
        let octets = match &value {
            Some(Value::Octets(octets)) => octets.len(),
            Some(Value::Flight(..) | Value::Present) | None => 0,
        };
        let octets = CHANGE_BYTES.saturating_add(octets);
        pending.bytes = pending.bytes.saturating_add(octets);
        pending.changes.insert(place, value);
        writer.shared.wake.notify_one();
        pending.ticket
    }
}

fn opener(path: &Path) -> OpenDatabase {
    let path = path.to_owned();
    Box::new(move |opening| {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        Ok(match opening {
            Opening::Again => builder.open(&path)?,
            Opening::First => builder.create_with_backend(FileBackend::new(own_file(&path)?)?)?,
        })
    })
}

/// Opens or makes the file for its owner alone: messages are in it as they were sent.
fn own_file(path: &Path) -> Result<std::fs::File, StoreError> {
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path);
    // One that was there before may be open to others.
    let restricted = opened.and_then(|file| {
        if file.metadata()?.permissions().mode() & 0o777 != FILE_MODE {
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        }
        Ok(file)
    });
    restricted.map_err(|error| StoreError(redb::Error::Io(error)))
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: commits what waits, again and again, until it is told to stop and nothing waits.
    fn write_all(&self, mut file: File, done: &watch::Sender<Ticket>, metrics: &Metrics) {
        loop {
            let (changes, ticket) = {
                let mut pending = self.pending();
                while pending.changes.is_empty() && !pending.is_stopping {
                    pending = self.wake.wait(pending).unwrap_or_else(PoisonError::into_inner);
                }
                if pending.changes.is_empty() {
                    return;
                }
                pending.bytes = 0;
                (core::mem::take(&mut pending.changes), pending.ticket)
            };
            let mut tries_left = TRIES_AT_THE_END;
            while let Err(error) = file.commit(&changes) {
                warn!(%error, "the broker's file can't be written; trying again");
                metrics.store_failures.up();
                if self.pending().is_stopping {
                    tries_left = tries_left.saturating_sub(1);
                    if tries_left == 0 {
                        error!(changes = changes.len(), "the last changes are not in the broker's file");
                        return;
                    }
                }
                std::thread::sleep(RETRY_AFTER);
            }
            metrics.store_commits.up();
            // Nobody may be waiting.
            let _ = done.send_replace(ticket);
        }
    }
}

impl File {
    fn commit(&mut self, changes: &HashMap<Place, Option<Value>>) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.open)(Opening::Again)?,
        };
        commit(&database, changes)?;
        // It stays open only if all went well: the old handle holds the file's lock.
        self.database = Some(database);
        Ok(())
    }
}

fn commit(database: &Database, changes: &HashMap<Place, Option<Value>>) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    {
        let mut sessions = transaction.open_table(SESSIONS)?;
        let mut messages = transaction.open_table(MESSAGES)?;
        let mut flights = transaction.open_table(FLIGHTS)?;
        let mut received = transaction.open_table(RECEIVED)?;
        let mut retained = transaction.open_table(RETAINED)?;
        for (place, value) in changes {
            let octets = match value {
                Some(Value::Octets(octets)) => Some(octets.as_slice()),
                _ => None,
            };
            match (place, octets, value) {
                (Place::Session(id), Some(octets), _) => drop(sessions.insert(id, octets)?),
                (Place::Session(id), None, _) => drop(sessions.remove(id)?),
                (Place::Message(id, at), Some(octets), _) => drop(messages.insert((*id, *at), octets)?),
                (Place::Message(id, at), None, _) => drop(messages.remove((*id, *at))?),
                (Place::Flight(id, at), _, Some(Value::Flight(packet, stage))) => {
                    drop(flights.insert((*id, *at), (*packet, *stage))?);
                }
                (Place::Flight(id, at), ..) => drop(flights.remove((*id, *at))?),
                (Place::Received(id, packet), _, Some(_)) => drop(received.insert((*id, *packet), ())?),
                (Place::Received(id, packet), ..) => drop(received.remove((*id, *packet))?),
                (Place::Retained(account, topic), Some(octets), _) => {
                    drop(retained.insert((account, topic.as_ref()), octets)?);
                }
                (Place::Retained(account, topic), None, _) => {
                    drop(retained.remove((account, topic.as_ref()))?);
                }
            }
        }
        // After all else, for a session's messages may be among the changes.
        for (place, value) in changes {
            if let (Place::Session(id), None) = (place, value) {
                messages.retain_in((*id, 0)..=(*id, u64::MAX), |_, _| false)?;
                flights.retain_in((*id, 0)..=(*id, u64::MAX), |_, _| false)?;
                received.retain_in((*id, 0)..=(*id, u16::MAX), |_, ()| false)?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

impl Loaded {
    fn read(database: &Database) -> Result<Self, StoreError> {
        // Makes the tables, so that reading finds them.
        commit(database, &HashMap::new())?;
        let transaction = database.begin_read()?;
        let mut loaded = Self::default();
        for row in transaction.open_table(SESSIONS)?.iter()? {
            let (id, value) = row?;
            loaded.sessions.push((id.value(), value.value().to_vec()));
        }
        for row in transaction.open_table(MESSAGES)?.iter()? {
            let (place, value) = row?;
            loaded.messages.push((place.value(), value.value().to_vec()));
        }
        for row in transaction.open_table(FLIGHTS)?.iter()? {
            let (place, value) = row?;
            loaded.flights.push((place.value(), value.value()));
        }
        for row in transaction.open_table(RECEIVED)?.iter()? {
            loaded.received.push(row?.0.value());
        }
        for row in transaction.open_table(RETAINED)?.iter()? {
            let (place, value) = row?;
            loaded.retained.push((*place.value().0, value.value().to_vec()));
        }
        Ok(loaded)
    }
}

#[cfg(test)]
mod tests {
    use super::faulty::{Disk, Health};
    use super::*;

    #[tokio::test]
    async fn what_is_durable_is_read_again_and_sessions_take_all_of_theirs_along() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("broker.redb");
        let metrics = Arc::new(Metrics::default());
        let (store, loaded) = Store::open(&path, &metrics).expect("opens");
        assert!(loaded.sessions.is_empty());
        store.put_session(1, &"one");
        store.put_message(1, 7, &"message");
        store.put_received(1, 9);
        store.put_message(2, 7, &"other");
        let ticket = store.put_retained(&[1; 16], "a/b", &"kept");
        store.durable(ticket).await;
        assert!(store.is_durable(ticket));
        store.put_message(1, 8, &"late");
        store.remove_session(1);
        drop(store);
        let (store, loaded) = Store::open(&path, &metrics).expect("opens again");
        assert!(loaded.sessions.is_empty() && loaded.received.is_empty());
        assert_eq!((loaded.messages.len(), loaded.retained.len()), (1, 1));
        assert_eq!(loaded.messages[0].0, (2, 7));
        drop(store);
    }

    #[tokio::test]
    async fn an_error_of_the_disk_is_over_when_the_disk_is_well_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, metrics) = (folder.path().join("broker.redb"), Arc::new(Metrics::default()));
        let disk = Disk::default();
        let (store, _) = Store::open_with(disk.opener(&path), &metrics).expect("opens");
        disk.now(Health::Fails);
        let ticket = store.put_retained(&[1; 16], "a", &"kept");
        while metrics.store_failures.value() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!store.is_durable(ticket));
        disk.now(Health::Works);
        let mended = tokio::time::timeout(Duration::from_secs(20), store.durable(ticket)).await;
        assert!(mended.is_ok(), "it tries for ever");
        // A stop that meets an error loses nothing either.
        disk.now(Health::Fails);
        store.put_retained(&[1; 16], "b", &"kept");
        let failures = metrics.store_failures.value();
        while metrics.store_failures.value() == failures {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let closing = tokio::task::spawn_blocking(move || drop(store));
        disk.now(Health::Works);
        closing.await.expect("no panic");
        let (_store, loaded) = Store::open(&path, &metrics).expect("opens again");
        assert_eq!(loaded.retained.len(), 2);
    }

    #[test]
    fn the_file_is_its_owners_alone_and_becomes_so_if_it_was_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, metrics) = (folder.path().join("broker.redb"), Arc::new(Metrics::default()));
        let mode = || std::fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        drop(Store::open(&path, &metrics).expect("opens"));
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("set");
        drop(Store::open(&path, &metrics).expect("opens again"));
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn a_file_that_is_gone_is_not_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("broker.redb");
        assert!(File { open: opener(&path), database: None }.commit(&HashMap::new()).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn a_disk_that_stays_broken_does_not_keep_a_process_from_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, metrics) = (folder.path().join("broker.redb"), Arc::new(Metrics::default()));
        let disk = Disk::default();
        let (store, _) = Store::open_with(disk.opener(&path), &metrics).expect("opens");
        disk.now(Health::Fails);
        store.put_retained(&[1; 16], "a", &"lost");
        store.close();
        assert!(metrics.store_failures.value() >= u64::from(TRIES_AT_THE_END));
    }
}
