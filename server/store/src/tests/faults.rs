//! What happens when something breaks: a transaction, the file, the disk.

use core::convert::Infallible;
use std::fs::OpenOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{BackendError, Database, StorageBackend};

use super::*;
use crate::ledger::open_error;
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// A transaction that breaks a rule, after writing.
enum Rogue {
    Panics,
    RefusesLate,
}

impl Transaction for Rogue {
    const NAME: &'static str = "rogue";
    type Output = ();
    type Refused = &'static str;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<&'static str>> {
        tables.put_raw(TableName::Meta, b"rogue", b"was here")?;
        match self {
            Self::Panics => panic!("a rogue transaction panics"),
            Self::RefusesLate => Err(Failed::Refused("too late")),
        }
    }
}

/// Holds the committer until told to go on, so that a batch gathers behind it.
struct Hold(Arc<AtomicBool>);

impl Transaction for Hold {
    const NAME: &'static str = "hold";
    type Output = ();
    type Refused = Infallible;

    fn apply(&self, _: &mut Tables<'_>) -> Result<(), Failed<Infallible>> {
        while !self.0.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        Ok(())
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

#[test]
fn a_broken_transaction_is_undone_and_its_neighbours_never_notice() {
    let mut rig = Rig::new();
    let go = Arc::new(AtomicBool::new(false));
    runtime().block_on(async {
        let ledger = rig.ledger();
        let release = async {
            // The others are in the queue by now: join! polls in order.
            go.store(true, Ordering::Release);
        };
        let (held, one, panics, late, two, ()) = tokio::join!(
            ledger.transact(Hold(Arc::clone(&go))),
            ledger.transact(begin(1, "a", rig.now)),
            ledger.transact(Rogue::Panics),
            ledger.transact(Rogue::RefusesLate),
            ledger.transact(begin(2, "a", rig.now)),
            release,
        );
        held.expect("held");
        assert_eq!((one.expect("begins"), two.expect("begins")), (Begun::Proceed, Begun::Proceed));
        assert!(matches!(panics, Err(Error::Internal)) && matches!(late, Err(Error::Internal)));
    });
    assert_eq!(rig.ledger().stats().faults, 2);
    rig.complete(&begin(1, "a", rig.now)).expect("completes");
    rig.complete(&begin(2, "a", rig.now)).expect("completes");
    let rogue = rig.ledger().reader().expect("open").meta::<String>("rogue");
    assert!(rogue.expect("reads").is_none());
    rig.check();
}

#[test]
fn a_full_queue_refuses_what_was_only_offered() {
    let rig = Rig::new();
    let go = Arc::new(AtomicBool::new(false));
    runtime().block_on(async {
        let ledger = rig.ledger();
        let hold = ledger.transact(Hold(Arc::clone(&go)));
        let crowd = async {
            let mut crowd: Vec<_> = Vec::new();
            for number in 0..10_000 {
                let mut job = Box::pin(ledger.offer(begin(number, "a", rig.now)));
                let polled =
                    core::future::poll_fn(|context| core::task::Poll::Ready(job.as_mut().poll(context)))
                        .await;
                match polled {
                    core::task::Poll::Ready(answer) => {
                        assert!(matches!(answer, Err(Error::Overloaded)));
                        go.store(true, Ordering::Release);
                        break;
                    }
                    core::task::Poll::Pending => crowd.push(job),
                }
            }
            assert!(crowd.len() >= crate::committer::QUEUE_MAX);
            for job in crowd {
                job.await.expect("what was taken is answered");
            }
        };
        let (held, ()) = tokio::join!(hold, crowd);
        held.expect("held");
    });
    assert!(rig.ledger().stats().largest_batch >= 1_000);
}

/// A file whose writes fail while told so, like a full or broken disk.
#[derive(Debug)]
struct Faulty {
    file: FileBackend,
    broken: Arc<AtomicBool>,
}

impl Faulty {
    fn alive(&self) -> Result<(), BackendError> {
        if self.broken.load(Ordering::Acquire) {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull).into());
        }
        Ok(())
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.alive().map_err(std::io::Error::from)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.alive().map_err(std::io::Error::from)?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.alive().map_err(std::io::Error::from)?;
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), std::io::Error> {
        self.file.close()
    }
}

#[test]
fn a_failing_disk_is_an_error_and_a_mended_one_goes_on() {
    let mut rig = Rig::new();
    rig.issue(1, "a");
    rig.close();
    let broken = Arc::new(AtomicBool::new(false));
    let (path, flag) = (rig.path(), Arc::clone(&broken));
    let open = move || {
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("the file is there");
        let backend = Faulty {
            file: FileBackend::new(file).map_err(|error| open_error(&path, error))?,
            broken: Arc::clone(&flag),
        };
        Database::builder().create_with_backend(backend).map_err(|error| open_error(&path, error))
    };
    rig.ledger = Some(Ledger::open_with(&rig.path(), Box::new(open), rig.now).expect("opens"));

    broken.store(true, Ordering::Release);
    let failed = rig.begin(begin(2, "a", rig.now));
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
    let stats = rig.ledger().stats();
    assert_eq!((stats.failures, stats.is_failing), (1, true));

    broken.store(false, Ordering::Release);
    // Nobody writes, and yet it is found out.
    let deadline = Instant::now() + Duration::from_secs(60);
    while rig.ledger().stats().is_failing {
        assert!(Instant::now() < deadline, "it can be written");
        std::thread::sleep(Duration::from_millis(20));
    }
    rig.issue(3, "a");
    let reader = rig.ledger().reader().expect("open again");
    assert_eq!(reader.counters(ACCOUNT).expect("reads").certificates, 2);
    drop(reader);
    // Whatever became of the failed one, it is whole: its intent is there or not, and is released.
    rig.check();
    assert!(rig.ledger().reader().expect("open").intents().expect("reads").is_empty());
}

#[test]
fn refusals_alone_cost_no_commit() {
    let rig = Rig::new();
    let commits = rig.ledger().stats().commits;
    let unknown = BeginIssue { token: Some(TokenId::new(0, [9; 10])), ..begin(1, "a", rig.now) };
    rig.begin(unknown).expect_err("there is no such token");
    assert_eq!(rig.ledger().stats().commits, commits);
}

#[test]
fn a_record_that_cannot_be_read_is_an_error_of_its_own() {
    struct Spoil;
    impl Transaction for Spoil {
        const NAME: &'static str = "spoil";
        type Output = ();
        type Refused = Infallible;

        fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Infallible>> {
            Ok(tables.put_raw(TableName::Cas, CA.as_bytes(), b"no record")?)
        }
    }
    let mut rig = Rig::new();
    rig.ledger().transact_blocking(Spoil).expect("spoilt");
    assert!(matches!(rig.begin(begin(1, "a", rig.now)), Err(Error::Internal)));
    assert!(matches!(rig.ledger().reader().expect("open").ca(CA), Err(Fault::Corrupt { .. })));
    rig.close();
    Ledger::check(&rig.path()).expect_err("the check finds it");
}
