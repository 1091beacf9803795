//! Figures of the committer, for metrics.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the committer did since the ledger was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Commits that reached the disk; each is at least one fsync.
    pub commits: u64,
    /// Transactions answered, refused ones too.
    pub jobs: u64,
    /// Most transactions in one batch.
    pub largest_batch: u64,
    /// Batches in which nothing was written, so that no commit was needed.
    pub unwritten_batches: u64,
    /// Commits of nothing, made in a pause so that the file opens at once after a crash.
    pub rests: u64,
    /// Batches that failed because the file could not be written.
    pub failures: u64,
    /// Whether the last commit failed, and none reached the disk since. While nobody writes it is tried every few seconds.
    pub is_failing: bool,
    /// Transactions that broke a rule of the ledger's code.
    pub faults: u64,
}

#[derive(Default)]
pub(crate) struct Figures {
    commits: AtomicU64,
    jobs: AtomicU64,
    largest_batch: AtomicU64,
    unwritten_batches: AtomicU64,
    rests: AtomicU64,
    failures: AtomicU64,
    is_failing: AtomicBool,
    faults: AtomicU64,
}

impl Figures {
    pub(crate) fn committed(&self, jobs: usize, wrote: bool) {
        let jobs = u64::try_from(jobs).unwrap_or(u64::MAX);
        self.jobs.fetch_add(jobs, Ordering::Relaxed);
        self.largest_batch.fetch_max(jobs, Ordering::Relaxed);
        if wrote { &self.commits } else { &self.unwritten_batches }.fetch_add(1, Ordering::Relaxed);
        if wrote {
            self.is_failing.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn rested(&self) {
        self.rests.fetch_add(1, Ordering::Relaxed);
        self.is_failing.store(false, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.could_not_rest();
    }

    /// A commit of nothing failed, and with it nobody's transaction.
    pub(crate) fn could_not_rest(&self) {
        self.is_failing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    pub(crate) fn faulted(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            commits: self.commits.load(Ordering::Relaxed),
            jobs: self.jobs.load(Ordering::Relaxed),
            largest_batch: self.largest_batch.load(Ordering::Relaxed),
            unwritten_batches: self.unwritten_batches.load(Ordering::Relaxed),
            rests: self.rests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            is_failing: self.is_failing(),
            faults: self.faults.load(Ordering::Relaxed),
        }
    }
}
