//! Making, opening and using a ledger.
//!
//! [`Ledger`] is a handle: cloning it is cheap, and the file is closed when the last clone is gone.
//! Opening checks the schema, migrates an older file, and releases what a crash left half done.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use muster_policy::time::UnixTime;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::act::recover;
use crate::committer::{Committer, Job, OpenDatabase, QUEUE_MAX, Shared, submit};
use crate::migration;
use crate::reader::Reader;
use crate::stats::Stats;
use crate::tables::{META_NEWEST_CHANGE, Tables};
use crate::transaction::{Error, Fault, Transaction};

/// Submitters beyond the queue that may wait for a place in it; later ones are told `Overloaded`.
const WAITING_MAX: usize = QUEUE_MAX;
/// Cache when nothing is said: the hot part of the indexes of some 10^5 certificates.
const CACHE_DEFAULT_BYTES: usize = 64 << 20;

/// How a ledger is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Memory for redb's page cache, in bytes; default 64 MiB.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: CACHE_DEFAULT_BYTES }
    }
}

/// Why a ledger can't be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is in use.
    #[error("the ledger {path} is in use by another process (is the server running?)")]
    AlreadyOpen {
        /// The file.
        path: PathBuf,
    },
    /// Its content is damaged.
    #[error("the ledger {path} is broken ({what}); restore a backup")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// There is one already.
    #[error("there is a ledger {path} already")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("the ledger {path} can't be opened: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// There is none.
    #[error("there is no ledger {path} (create one with `muster init`)")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error(
        "the ledger {path} has schema {found}, but this program supports at most {known}: use a newer one"
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema this program knows.
        known: u32,
    },
}

/// The handle of an open ledger.
///
/// Dropping the last clone waits until what is queued is committed and the file is closed.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    // None only while dropping.
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    committer: Option<JoinHandle<()>>,
    waiting: AtomicUsize,
}

impl Ledger {
    /// Makes an empty ledger, readable by its owner only, and opens it.
    ///
    /// # Errors
    /// When the file exists, or can't be made.
    pub fn create(path: &Path, options: Options) -> Result<Self, OpenError> {
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).map_err(
                |error| match error.kind() {
                    std::io::ErrorKind::AlreadyExists => OpenError::Exists { path: path.to_owned() },
                    _ => OpenError::Io { path: path.to_owned(), error },
                },
            )?;
        let database = FileBackend::new(file)
            .and_then(|backend| {
                Database::builder().set_cache_size(options.cache_bytes).create_with_backend(backend)
            })
            .map_err(|error| open_error(path, error))?;
        migration::initialise(&database).map_err(|fault| broken(path, &fault))?;
        sync_directory(path).map_err(|error| OpenError::Io { path: path.to_owned(), error })?;
        Self::start(path, database, opener(path, options))
    }

    /// Opens a ledger, migrates an older one, and releases issuances that a crash cut off.
    ///
    /// After a crash under load redb first verifies the whole file, which takes 2 to 5 seconds per
    /// gigabyte; a ledger that had no commit for a second before the crash opens at once.
    ///
    /// # Errors
    /// In words: missing, in use, of a newer schema, broken.
    pub fn open(path: &Path, options: Options, now: UnixTime) -> Result<Self, OpenError> {
        Self::open_with(path, opener(path, options), now)
    }

    pub(crate) fn open_with(path: &Path, open: OpenDatabase, now: UnixTime) -> Result<Self, OpenError> {
        let database = open()?;
        migration::migrate(&database, migration::MIGRATIONS).map_err(|error| error.at(path))?;
        recover::release_interrupted(&database, now).map_err(|fault| broken(path, &fault))?;
        Self::start(path, database, open)
    }

    fn start(path: &Path, database: Database, open: OpenDatabase) -> Result<Self, OpenError> {
        let newest = newest_change(&database).map_err(|fault| broken(path, &fault))?;
        let shared = Arc::new(Shared::new(database, newest));
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let committer = Committer {
            queue,
            shared: Arc::clone(&shared),
            open,
            path: path.to_owned(),
            open_intents: 0,
            crowd: 0,
            at_rest: false,
            failed_probes: 0,
        };
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || committer.run())
            .map_err(|error| OpenError::Io { path: path.to_owned(), error })?;
        let inner =
            Inner { shared, queue: Some(sender), committer: Some(thread), waiting: AtomicUsize::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Applies a transaction and waits until it is durable.
    ///
    /// Once submitted it is applied, even if the future is dropped. When the queue is full it waits
    /// for a place, unless 4,096 others wait already.
    ///
    /// # Errors
    /// See [`Error`]; but for a refusal the caller can try again.
    pub async fn transact<T: Transaction>(&self, transaction: T) -> Result<T::Output, Error<T::Refused>> {
        let (job, answer) = submit(transaction);
        let place = self.inner.wait_in_line().ok_or(Error::Overloaded)?;
        self.inner.queue()?.send(job).await.map_err(|_| closed())?;
        drop(place);
        answer.await.map_err(|_| closed())?
    }

    /// Applies a transaction if the queue has room; for what may be dropped under load.
    ///
    /// # Errors
    /// [`Error::Overloaded`] at once when the queue is full; else like [`Ledger::transact`].
    pub async fn offer<T: Transaction>(&self, transaction: T) -> Result<T::Output, Error<T::Refused>> {
        let (job, answer) = submit(transaction);
        self.inner.queue()?.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => closed(),
        })?;
        answer.await.map_err(|_| closed())?
    }

    /// [`Ledger::transact`] for threads without a runtime, such as the command line's.
    ///
    /// # Errors
    /// Like [`Ledger::transact`].
    ///
    /// # Panics
    /// Inside an async runtime, where it would block other tasks.
    pub fn transact_blocking<T: Transaction>(&self, transaction: T) -> Result<T::Output, Error<T::Refused>> {
        let (job, answer) = submit(transaction);
        self.inner.queue()?.blocking_send(job).map_err(|_| closed())?;
        answer.blocking_recv().map_err(|_: oneshot::error::RecvError| closed())?
    }

    /// A snapshot of everything committed so far; it never changes and never waits for a writer.
    ///
    /// Keep it short: pages it can see are not reused while it lives.
    ///
    /// # Errors
    /// While the file is being reopened after a failure.
    pub fn reader(&self) -> Result<Reader, Fault> {
        Ok(Reader::new(self.inner.shared.snapshot()?))
    }

    /// Follows the number of the newest change.
    pub fn newest_change(&self) -> watch::Receiver<u64> {
        self.inner.shared.newest_change.subscribe()
    }

    /// What the committer did since the ledger was opened.
    pub fn stats(&self) -> Stats {
        self.inner.shared.figures.snapshot()
    }

    /// How many transactions wait for the committer now.
    pub fn queue_length(&self) -> usize {
        self.inner.queue.as_ref().map_or(0, |queue| queue.max_capacity().saturating_sub(queue.capacity()))
    }
}

impl Inner {
    fn queue<R>(&self) -> Result<&mpsc::Sender<Box<dyn Job>>, Error<R>> {
        self.queue.as_ref().ok_or_else(closed)
    }

    fn wait_in_line(&self) -> Option<Place<'_>> {
        let place = Place(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX).then_some(place)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without senders the committer finishes what is queued and closes the file.
        drop(self.queue.take());
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            tracing::error!("the committer of the ledger panicked");
        }
    }
}

/// A place in the line before the queue; given back on drop.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn closed<R>() -> Error<R> {
    Error::Unavailable("the ledger is closed".to_owned())
}

fn newest_change(database: &Database) -> Result<u64, Fault> {
    let transaction = database.begin_write()?;
    let newest = Tables::new(&transaction).meta(META_NEWEST_CHANGE)?.unwrap_or(0);
    transaction.abort()?;
    Ok(newest)
}

fn opener(path: &Path, options: Options) -> OpenDatabase {
    let path = path.to_owned();
    Box::new(move || open_file(&path, options.cache_bytes))
}

pub(crate) fn open_file(path: &Path, cache_bytes: usize) -> Result<Database, OpenError> {
    // redb may panic on a file that something else wrote into (see its `check_integrity_on_open`).
    let opened =
        catch_unwind(AssertUnwindSafe(|| Database::builder().set_cache_size(cache_bytes).open(path)));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(open_error(path, error)),
        Err(_) => {
            Err(OpenError::Broken { path: path.to_owned(), what: "its pages make no sense".to_owned() })
        }
    }
}

pub(crate) fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::AlreadyOpen { path },
        DatabaseError::Storage(StorageError::Io(error)) => match error.kind() {
            std::io::ErrorKind::NotFound => OpenError::Missing { path },
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                OpenError::Broken { path, what: error.to_string() }
            }
            _ => OpenError::Io { path, error },
        },
        other => OpenError::Broken { path, what: other.to_string() },
    }
}

pub(crate) fn broken(path: &Path, fault: &Fault) -> OpenError {
    OpenError::Broken { path: path.to_owned(), what: fault.to_string() }
}

/// Makes a new file's name durable.
pub(crate) fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
}
