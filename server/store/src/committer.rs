//! The one thread that writes: it gathers what waits into one commit, then answers all of it.
//!
//! A batch is applied in the order of arrival inside one redb transaction with one fsync. When a
//! transaction breaks a rule (it refuses after writing, meets a broken record after writing, or
//! panics) the batch is undone and applied again without it, so its neighbours never notice; that is
//! why `Transaction::apply` takes `&self`. When the file can't be written the whole batch fails, and
//! the file is opened anew before the next one, because redb refuses to go on after an I/O error.
//!
//! Commits under load have one phase: one fsync, and after a crash redb verifies the whole file, which
//! takes seconds per gigabyte. So when the load pauses, one more commit stores what redb needs to
//! skip that (its quick-repair): a ledger that was at rest when its machine died opens at once. After a commit that
//! failed, the same commit is the probe of whether the file can be written again: whoever looks whether the server is
//! ready sends nothing meanwhile that would find out.

use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::Wake;
use std::thread::Thread;

use redb::{Database, Durability, ReadableDatabase};
use tokio::sync::{mpsc, oneshot, watch};

use crate::ledger::OpenError;
use crate::reader::Snapshot;
use crate::stats::Figures;
use crate::tables::Tables;
use crate::transaction::{Error, Failed, Fault, Transaction};

/// Most transactions in one commit; the size up to which redb was measured to gain.
pub(crate) const BATCH_MAX: usize = 1_024;
/// Longest queue before the committer; then submitters wait.
pub(crate) const QUEUE_MAX: usize = 4 * BATCH_MAX;
/// With less than this free on the disk nothing is written: redb can't go on reading after a write
/// that failed for lack of space, so the failure must not happen. A batch of 1,024 issuances writes
/// about 10 MiB of pages, and a growing file is extended by its own size only in sparse form.
pub(crate) const DISK_RESERVE_BYTES: u64 = 32 << 20;
/// How long a batch waits for others: most of a commit's cost does not depend on how much is in it, and
/// those who were answered with the last commit come again with the next step of their work, which
/// takes some 100 microseconds of a core each. It waits while the batch grows, for 20 ms at most. In a crowd steps
/// are long, as each wakes a thread.
const LINGER_STEP: Duration = Duration::from_micros(200);
const LINGER_LONG_STEP: Duration = Duration::from_micros(600);
const LINGER_MAX: Duration = Duration::from_millis(20);
/// After a batch of so many it is a crowd, and waits until nobody comes: how many there are is not known, as
/// some are always on their way.
const CROWD: usize = 8;
/// So many steps in a row that brought nothing end the wait: whoever was expected is gone.
const LINGER_IDLE_STEPS: u32 = 2;
/// After a pause of so many steps, a second in all, the file is put at rest. Steps, because a wake-up
/// that comes late from an earlier job ends one of them early.
const PAUSE_STEP: Duration = Duration::from_millis(250);
const PAUSE_STEPS: u32 = 4;
/// While the file can't be written, pauses of so many steps, five seconds, are between two probes of it.
const PROBE_STEPS: u32 = 20;
/// How often they double: opening the file anew may be work, in which nobody can read it.
const PROBE_DOUBLINGS: u32 = 2;
/// How often, and how long apart, reopening is tried at once after a failure.
const REOPEN_TRIES: u32 = 3;
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// Opens the file again; a value so that tests can open a faulty one.
pub(crate) type OpenDatabase = Box<dyn Fn() -> Result<Database, OpenError> + Send>;

/// What the committer shares with readers.
pub(crate) struct Shared {
    database: RwLock<Option<Database>>,
    /// What all readers see until the next commit: beginning a redb transaction and opening its tables costs as
    /// much as what most of them read.
    snapshot: Mutex<Option<Arc<Snapshot>>>,
    pub(crate) figures: Figures,
    pub(crate) newest_change: watch::Sender<u64>,
}

impl Shared {
    pub(crate) fn new(database: Database, newest_change: u64) -> Self {
        Self {
            database: RwLock::new(Some(database)),
            snapshot: Mutex::default(),
            figures: Figures::default(),
            newest_change: watch::Sender::new(newest_change),
        }
    }

    /// Everything that was committed so far.
    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>, Fault> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(Fault::NotOpen)?;
        let mut newest = self.newest_snapshot();
        if let Some(snapshot) = &*newest {
            return Ok(Arc::clone(snapshot));
        }
        let snapshot = Arc::new(Snapshot::new(database.begin_read()?));
        *newest = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// The next reader gets a new snapshot.
    fn forget_snapshot(&self) {
        *self.newest_snapshot() = None;
    }

    fn newest_snapshot(&self) -> MutexGuard<'_, Option<Arc<Snapshot>>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, database: Option<Database>) {
        let mut held = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // It would keep the file open.
        self.forget_snapshot();
        *held = database;
    }

    fn is_open(&self) -> bool {
        self.database.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// A transaction on its way, whatever its type.
pub(crate) trait Job: Send {
    /// Applies it and keeps the outcome for later.
    fn run(&mut self, tables: &mut Tables<'_>) -> Verdict;
    /// Hands the outcome to the submitter.
    fn answer(self: Box<Self>);
    /// Tells the submitter that nothing came of it.
    fn fail(self: Box<Self>, failure: Failure);
}

/// What a run means for the batch.
pub(crate) enum Verdict {
    /// The outcome is kept; the batch goes on.
    Kept,
    /// The transaction wrote and failed; the batch must be undone.
    Broken(String),
    /// The file failed.
    Storage(Fault),
}

/// Why nothing came of a job.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Internal,
    Unavailable(String),
}

/// A transaction and who waits for it.
struct Pending<T: Transaction> {
    transaction: T,
    outcome: Option<Outcome<T>>,
    reply: oneshot::Sender<Outcome<T>>,
}

/// What a submitter is told.
pub(crate) type Outcome<T> = Result<<T as Transaction>::Output, Error<<T as Transaction>::Refused>>;

/// Makes a job of a transaction, and the place where its answer will appear.
pub(crate) fn submit<T: Transaction>(transaction: T) -> (Box<dyn Job>, oneshot::Receiver<Outcome<T>>) {
    let (reply, answer) = oneshot::channel();
    (Box::new(Pending { transaction, outcome: None, reply }), answer)
}

impl<T: Transaction> Job for Pending<T> {
    fn run(&mut self, tables: &mut Tables<'_>) -> Verdict {
        tables.begin_job();
        let result = catch_unwind(AssertUnwindSafe(|| self.transaction.apply(tables)));
        let broken = |why: String| Verdict::Broken(format!("{}: {why}", T::NAME));
        let outcome = match result {
            Err(_) => return broken("it panicked".to_owned()),
            Ok(Ok(output)) => Ok(output),
            Ok(Err(Failed::Refused(refused))) => {
                if tables.job_wrote() {
                    return broken(format!("it refused after writing: {refused:?}"));
                }
                Err(Error::Refused(refused))
            }
            Ok(Err(Failed::Fault(fault @ Fault::Corrupt { .. }))) => {
                if tables.job_wrote() {
                    return broken(fault.to_string());
                }
                tracing::error!(transaction = T::NAME, %fault, "a record of the ledger is broken");
                Err(Error::Internal)
            }
            Ok(Err(Failed::Fault(fault))) => return Verdict::Storage(fault),
        };
        self.outcome = Some(outcome);
        Verdict::Kept
    }

    fn answer(self: Box<Self>) {
        let Self { outcome, reply, .. } = *self;
        // Nobody waiting any more is no fault: the change is made all the same.
        let _ = reply.send(outcome.unwrap_or(Err(Error::Internal)));
    }

    fn fail(self: Box<Self>, failure: Failure) {
        let _ = self.reply.send(Err(match failure {
            Failure::Internal => Error::Internal,
            Failure::Unavailable(why) => Error::Unavailable(why),
        }));
    }
}

/// The committer's side of the queue.
pub(crate) struct Committer {
    pub(crate) queue: mpsc::Receiver<Box<dyn Job>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) open: OpenDatabase,
    /// Where the file is, to ask how much room is left.
    pub(crate) path: PathBuf,
    /// Issuances begun and neither completed nor abandoned yet.
    pub(crate) open_intents: i64,
    /// How many transactions the last batches had: the most, which a fourth of is forgotten with each batch.
    pub(crate) crowd: usize,
    /// Whether the last commit left the file so that it opens at once after a crash.
    pub(crate) at_rest: bool,
    /// How often in a row it was found that the file can't be written, with nobody asking.
    pub(crate) failed_probes: u32,
}

/// What the queue had.
enum Received {
    Closed,
    Job(Box<dyn Job>),
    /// Nothing for about a second, or for five to twenty while the file can't be written.
    Pause,
}

/// Wakes the committer when something is in the queue.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

enum Attempt {
    Committed { opened_intents: i64 },
    Broken(usize, String),
    Failed(Fault),
}

impl Committer {
    /// Works until every sender is gone, then closes the file.
    pub(crate) fn run(mut self) {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            let first = match self.receive(&waker) {
                Received::Closed => break,
                Received::Job(job) => job,
                Received::Pause => {
                    self.rest();
                    continue;
                }
            };
            let mut batch = vec![first];
            self.fill(&mut batch);
            self.linger(&mut batch);
            self.crowd = batch.len().max(self.crowd.saturating_sub(self.crowd.div_ceil(4)));
            self.commit(batch);
        }
        self.shared.replace(None);
    }

    fn receive(&mut self, waker: &Waker) -> Received {
        let mut context = Context::from_waker(waker);
        let pause = if self.shared.figures.is_failing() {
            PROBE_STEPS << self.failed_probes.min(PROBE_DOUBLINGS)
        } else {
            PAUSE_STEPS
        };
        let mut steps = 0;
        loop {
            match self.queue.poll_recv(&mut context) {
                Poll::Ready(Some(job)) => return Received::Job(job),
                Poll::Ready(None) => return Received::Closed,
                Poll::Pending if self.at_rest => std::thread::park(),
                Poll::Pending if steps == pause => return Received::Pause,
                Poll::Pending => {
                    std::thread::park_timeout(PAUSE_STEP);
                    steps = steps.saturating_add(1);
                }
            }
        }
    }

    /// Makes a commit of nothing that spares the next start the verification of the file, or finds out that the file
    /// can't be written.
    fn rest(&mut self) {
        let rested = self.ready().and_then(|()| self.commit_nothing().map_err(|fault| fault.to_string()));
        self.at_rest = rested.is_ok();
        let Err(why) = rested else {
            self.failed_probes = 0;
            return self.shared.figures.rested();
        };
        self.failed_probes = self.failed_probes.saturating_add(1);
        // Else it was said.
        if !self.shared.figures.is_failing() {
            tracing::error!(%why, "the ledger's file can't be written");
        }
        self.shared.figures.could_not_rest();
    }

    fn commit_nothing(&self) -> Result<(), Fault> {
        let committed = {
            let database = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
            let database = database.as_ref().ok_or(Fault::NotOpen)?;
            self.shared.forget_snapshot();
            database.begin_write().map_err(Fault::from).and_then(|mut transaction| {
                transaction.set_quick_repair(true);
                Ok(transaction.commit()?)
            })
        };
        if committed.is_err() {
            self.reopen();
        }
        committed
    }

    fn fill(&mut self, batch: &mut Vec<Box<dyn Job>>) {
        while batch.len() < BATCH_MAX
            && let Ok(job) = self.queue.try_recv()
        {
            batch.push(job);
        }
    }

    /// Waits a little for those who are likely to come: who was in the last batches, and who is signing.
    /// Alone, the last batch was of one, and nobody is waited for.
    fn linger(&mut self, batch: &mut Vec<Box<dyn Job>>) {
        let signing = usize::try_from(self.open_intents).unwrap_or(0);
        let known = self.crowd.max(signing);
        let (expected, step) =
            if known < CROWD { (known, LINGER_STEP) } else { (BATCH_MAX, LINGER_LONG_STEP) };
        let (mut idle, mut waited) = (0, Duration::ZERO);
        while batch.len() < expected && idle < LINGER_IDLE_STEPS && waited < LINGER_MAX {
            let before = batch.len();
            std::thread::sleep(step);
            waited = waited.saturating_add(step);
            self.fill(batch);
            idle = if batch.len() == before { idle.saturating_add(1) } else { 0 };
        }
    }

    fn commit(&mut self, mut batch: Vec<Box<dyn Job>>) {
        if let Err(why) = self.ready() {
            self.failed();
            return fail_all(batch, &why);
        }
        while !batch.is_empty() {
            match self.attempt(&mut batch) {
                Attempt::Committed { opened_intents } => {
                    self.at_rest = false;
                    self.open_intents = self.open_intents.saturating_add(opened_intents).max(0);
                    batch.into_iter().for_each(|job| job.answer());
                    return;
                }
                Attempt::Broken(index, why) => {
                    tracing::error!(%why, "a transaction of the ledger is broken and was undone");
                    self.shared.figures.faulted();
                    batch.remove(index).fail(Failure::Internal);
                }
                Attempt::Failed(fault) => {
                    tracing::error!(%fault, "the ledger's file can't be written");
                    self.failed();
                    fail_all(batch, &fault.to_string());
                    self.reopen();
                    return;
                }
            }
        }
    }

    /// Notes that a batch could not be written; from then on pauses are used to find out when it could.
    fn failed(&mut self) {
        self.shared.figures.failed();
        self.at_rest = false;
    }

    /// Makes sure that the file is open and has room to grow.
    fn ready(&self) -> Result<(), String> {
        if !self.shared.is_open() {
            self.reopen();
        }
        match rustix::fs::statvfs(&self.path) {
            Ok(disk) if disk.f_bavail.saturating_mul(disk.f_frsize) < DISK_RESERVE_BYTES => {
                Err("the disk is full".to_owned())
            }
            // A file system that can't say is found out by writing.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn attempt(&self, batch: &mut [Box<dyn Job>]) -> Attempt {
        let database = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = database.as_ref() else { return Attempt::Failed(Fault::NotOpen) };
        let mut transaction = match database.begin_write() {
            Ok(transaction) => transaction,
            Err(error) => return Attempt::Failed(error.into()),
        };
        if let Err(error) = transaction.set_durability(Durability::Immediate) {
            return Attempt::Failed(Fault::Corrupt { table: "catalogue", what: error.to_string() });
        }
        let mut tables = Tables::new(&transaction);
        for (index, job) in batch.iter_mut().enumerate() {
            match job.run(&mut tables) {
                Verdict::Kept => {}
                Verdict::Broken(why) => {
                    drop(tables);
                    return match transaction.abort() {
                        Ok(()) => Attempt::Broken(index, why),
                        Err(error) => Attempt::Failed(error.into()),
                    };
                }
                Verdict::Storage(fault) => return Attempt::Failed(fault),
            }
        }
        let (wrote, opened_intents) = (tables.batch_wrote(), tables.opened_intents());
        let result = tables.finish().and_then(|newest| {
            // Refusals alone need no fsync.
            if wrote {
                // A snapshot that lives during a commit makes redb put off the use of freed pages, and one from
                // before it must not be handed out once the commit is answered.
                self.shared.forget_snapshot();
                let committed = transaction.commit();
                self.shared.forget_snapshot();
                committed?
            } else {
                transaction.abort()?
            }
            Ok(newest)
        });
        match result {
            Ok(newest) => {
                self.shared.figures.committed(batch.len(), wrote);
                if let Some(number) = newest {
                    self.shared.newest_change.send_replace(number);
                }
                Attempt::Committed { opened_intents }
            }
            Err(fault) => Attempt::Failed(fault),
        }
    }

    fn reopen(&self) {
        // The old handle holds the file's lock, so it goes first; open snapshots end with it.
        self.shared.replace(None);
        for _ in 0..REOPEN_TRIES {
            match (self.open)() {
                Ok(database) => return self.shared.replace(Some(database)),
                Err(error) => tracing::error!(%error, "the ledger can't be reopened yet"),
            }
            std::thread::sleep(REOPEN_PAUSE);
        }
    }
}

fn fail_all(batch: Vec<Box<dyn Job>>, why: &str) {
    for job in batch {
        job.fail(Failure::Unavailable(why.to_owned()));
    }
}
