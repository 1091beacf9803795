//! Keeps the last known good state behind what is in force, by a thread of its own.
//!
//! Nothing that is in force waits for a disk: updates wait here, in their order, until they are written. While a
//! snapshot is written, which of a large fleet takes many seconds, later ones become one: a snapshot takes the place of
//! all before it, and a delta is added to the one before. When that one grows beyond [`EVENTS_MAX`] it is let go, and
//! like after a write that failed the state is an older one until a snapshot comes, which [`Keeper::asks`] asks for.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_policy::time::UnixTime;

use crate::lkg::LastKnownGoodError;
use crate::snapshot::{Delta, Snapshot, Update};

/// Events that may wait; some 10 MiB of devices.
const EVENTS_MAX: usize = 50_000;
/// How long after it asked for a snapshot, to have the state whole again, it asks for another: a disk that is full stays
/// so for a while, and a snapshot of a large fleet is work.
const RETRY_AFTER: Duration = Duration::from_secs(300);
/// How long what waits may be written when the edge ends; then it is given up.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the giving up may take: it is looked for between two entries.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// Where updates wait to be kept. Without its owner, what waits is written, and then the thread ends.
pub(crate) struct Keeper(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    gives_up: AtomicBool,
}

#[derive(Default)]
struct Queue {
    /// Is kept before `delta`, which builds on it.
    snapshot: Option<Box<Snapshot>>,
    delta: Option<Delta>,
    /// Whether no delta can be kept until there is a snapshot.
    lacks: bool,
    /// When a snapshot was asked for; none after something was kept.
    asked_at: Option<UnixTime>,
    is_closed: bool,
    /// Whether the thread has ended, and let go of what it kept the state in.
    is_done: bool,
}

impl Keeper {
    /// Starts the thread. `keep` writes an update, and is to give up when its flag says so.
    ///
    /// # Errors
    /// When the system has no thread.
    pub(crate) fn start(
        keep: impl FnMut(&Update, &AtomicBool) -> Result<(), LastKnownGoodError> + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            gives_up: AtomicBool::new(false),
        });
        let end = End(Arc::clone(&shared));
        std::thread::Builder::new().name("edge-keeper".to_owned()).spawn(move || end.0.run(keep))?;
        Ok(Self(shared))
    }

    /// Takes an update that is in force, to keep it. To be called in the order in which they came into force.
    pub(crate) fn give(&self, update: Update) {
        let mut queue = self.0.lock();
        if !queue.is_closed && !queue.is_done {
            queue.add(update);
            self.0.changed.notify_all();
        }
    }

    /// Whether a snapshot is asked for, to have the state whole again. Says so once, and again after [`RETRY_AFTER`].
    pub(crate) fn asks(&self, now: UnixTime) -> bool {
        let mut queue = self.0.lock();
        let asks = queue.lacks && queue.asked_at.is_none_or(|at| now >= at.plus(RETRY_AFTER));
        if asks {
            queue.asked_at = Some(now);
        }
        asks
    }

    /// Waits until what there is was written, or for some seconds; what is under way then is given up, which leaves
    /// no state or an older one. Takes nothing any more. Blocks the thread.
    pub(crate) fn finish(&self) {
        let mut queue = self.0.lock();
        queue.is_closed = true;
        self.0.changed.notify_all();
        let queue = self.0.wait_until_done(queue, FINISH_TIMEOUT);
        if !queue.is_done {
            tracing::warn!("the last known good state is not kept: writing it takes too long");
            self.0.gives_up.store(true, Ordering::Relaxed);
            drop(self.0.wait_until_done(queue, GIVE_UP_TIMEOUT));
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}

impl Shared {
    fn run(&self, mut keep: impl FnMut(&Update, &AtomicBool) -> Result<(), LastKnownGoodError>) {
        while let Some(update) = self.next() {
            let kept = keep(&update, &self.gives_up);
            self.lock().kept(&kept);
        }
    }

    /// The next update to be kept; none when there will be no more.
    fn next(&self) -> Option<Update> {
        let waits = |queue: &mut Queue| queue.is_empty() && !queue.is_closed;
        let mut queue = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        if self.gives_up.load(Ordering::Relaxed) { None } else { queue.take() }
    }

    fn wait_until_done<'a>(&self, queue: MutexGuard<'a, Queue>, timeout: Duration) -> MutexGuard<'a, Queue> {
        let waits = |queue: &mut Queue| !queue.is_done;
        let waited = self.changed.wait_timeout_while(queue, timeout, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn add(&mut self, update: Update) {
        match update {
            Update::Snapshot(snapshot) => {
                (self.snapshot, self.delta, self.lacks) = (Some(snapshot), None, false);
            }
            Update::Delta(_) if self.lacks => {}
            Update::Delta(delta) => self.add_delta(delta),
        }
    }

    fn add_delta(&mut self, delta: Delta) {
        let Some(before) = &mut self.delta else {
            self.delta = Some(delta);
            return;
        };
        if before.events.len().saturating_add(delta.events.len()) > EVENTS_MAX {
            self.lack("too much waits to be written");
            return;
        }
        before.events.extend(delta.events);
        (before.change, before.made_at) = (delta.change, delta.made_at);
    }

    fn take(&mut self) -> Option<Update> {
        self.snapshot.take().map(Update::Snapshot).or_else(|| self.delta.take().map(Update::Delta))
    }

    const fn is_empty(&self) -> bool {
        self.snapshot.is_none() && self.delta.is_none()
    }

    fn kept(&mut self, kept: &Result<(), LastKnownGoodError>) {
        match kept {
            Ok(()) if !self.lacks => self.asked_at = None,
            // Nothing is lacked once the snapshot that waits is kept.
            Err(error) if self.snapshot.is_none() => self.lack(error),
            Ok(()) | Err(_) => {}
        }
    }

    fn lack(&mut self, why: impl fmt::Display) {
        (self.delta, self.lacks) = (None, true);
        // Else it was said.
        if self.asked_at.is_none() && !self.is_closed {
            tracing::warn!(%why, "the last known good state can't be kept; asking for everything anew");
        }
    }
}

/// Tells that the thread has ended, however it did.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lock().is_done = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use muster_policy::identity::{CaId, Serial};

    use super::*;
    use crate::snapshot::{CertificateKey, Event};

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn snapshot(change: u64) -> Update {
        Update::Snapshot(Box::new(Snapshot {
            change,
            made_at: NOW,
            accounts: Vec::new(),
            cas: Vec::new(),
            hosts: Vec::new(),
            revoked: Vec::new(),
            devices: Vec::new(),
            elsewhere: Default::default(),
        }))
    }

    fn delta(from: u64, change: u64, events: usize) -> Update {
        let serial = Serial::from_bytes(&[7]).expect("a serial");
        let key = CertificateKey { ca: CaId::from_bytes([1; 16]), serial };
        Update::Delta(Delta { from, change, made_at: NOW, events: vec![Event::Revoked(key); events] })
    }

    /// What was kept: the change before, the change after, and events; a snapshot has none before.
    type Kept = (Option<u64>, u64, usize);

    /// A keeper whose disk is as slow as the test wants: each write waits for its outcome.
    struct Rig {
        keeper: Keeper,
        begun: Receiver<Kept>,
        outcomes: SyncSender<Result<(), LastKnownGoodError>>,
    }

    impl Rig {
        fn new() -> Self {
            let (begin, begun) = sync_channel(8);
            let (outcomes, outcome) = sync_channel(8);
            let keep = move |update: &Update, gives_up: &AtomicBool| {
                let told = match update {
                    Update::Snapshot(snapshot) => (None, snapshot.change, 0),
                    Update::Delta(delta) => (Some(delta.from), delta.change, delta.events.len()),
                };
                begin.send(told).expect("listened to");
                loop {
                    if let Ok(outcome) = outcome.recv_timeout(Duration::from_millis(1)) {
                        return outcome;
                    }
                    if gives_up.load(Ordering::Relaxed) {
                        return Err(LastKnownGoodError::GivenUp);
                    }
                }
            };
            Self { keeper: Keeper::start(keep).expect("a thread"), begun, outcomes }
        }

        fn begins(&self) -> Kept {
            self.begun.recv_timeout(Duration::from_secs(30)).expect("a write")
        }

        fn ends(&self, outcome: Result<(), LastKnownGoodError>) {
            self.outcomes.send(outcome).expect("it writes");
        }

        /// The outcome is known a moment after it was given.
        fn asks_soon(&self, now: UnixTime) {
            while !self.keeper.asks(now) {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn what_waits_for_a_slow_disk_is_kept_in_its_order_and_at_once() {
        let rig = Rig::new();
        rig.keeper.give(snapshot(1));
        assert_eq!(rig.begins(), (None, 1, 0));
        // Nobody waits for the write.
        rig.keeper.give(delta(1, 2, 1));
        rig.keeper.give(delta(2, 2, 0));
        rig.keeper.give(delta(2, 5, 2));
        rig.ends(Ok(()));
        assert_eq!(rig.begins(), (Some(1), 5, 3));
        rig.keeper.give(delta(5, 6, 1));
        rig.keeper.give(snapshot(7));
        rig.keeper.give(delta(7, 8, 1));
        rig.ends(Ok(()));
        assert_eq!(rig.begins(), (None, 7, 0), "what is in it is not written before");
        rig.ends(Ok(()));
        assert_eq!(rig.begins(), (Some(7), 8, 1));
        rig.ends(Ok(()));
        rig.keeper.finish();
        assert!(!rig.keeper.asks(NOW), "nothing is missing");
    }

    #[test]
    fn after_a_write_that_failed_a_snapshot_is_asked_for_and_not_again_at_once() {
        let rig = Rig::new();
        rig.keeper.give(delta(1, 2, 1));
        assert_eq!(rig.begins(), (Some(1), 2, 1));
        rig.keeper.give(delta(2, 3, 1));
        rig.ends(Err(LastKnownGoodError::Entry));
        rig.asks_soon(NOW);
        assert!(!rig.keeper.asks(NOW));
        // It would be kept without what failed: the change that certificates are renewed at is the one before.
        rig.keeper.give(delta(3, 3, 1));
        rig.keeper.give(snapshot(3));
        assert_eq!(rig.begins(), (None, 3, 0));
        rig.ends(Err(LastKnownGoodError::Entry));
        // The disk may still be full.
        rig.asks_soon(NOW.plus(RETRY_AFTER));
        rig.keeper.give(snapshot(3));
        assert_eq!(rig.begins(), (None, 3, 0));
        rig.keeper.give(delta(3, 4, 1));
        rig.ends(Ok(()));
        assert_eq!(rig.begins(), (Some(3), 4, 1));
        rig.ends(Ok(()));
        rig.keeper.finish();
        assert!(!rig.keeper.asks(NOW.plus(RETRY_AFTER * 3)), "nothing is missing");
    }

    #[test]
    fn more_than_may_wait_is_let_go_and_a_snapshot_asked_for() {
        let rig = Rig::new();
        rig.keeper.give(snapshot(1));
        assert_eq!(rig.begins(), (None, 1, 0));
        rig.keeper.give(delta(1, 2, EVENTS_MAX));
        assert!(!rig.keeper.asks(NOW));
        rig.keeper.give(delta(2, 3, 1));
        assert!(rig.keeper.asks(NOW), "while it is still written");
        rig.keeper.give(snapshot(3));
        rig.ends(Ok(()));
        assert_eq!(rig.begins(), (None, 3, 0));
        rig.ends(Ok(()));
        rig.keeper.finish();
    }

    #[test]
    fn what_takes_too_long_at_the_end_is_given_up() {
        let rig = Rig::new();
        rig.keeper.give(snapshot(1));
        rig.keeper.give(delta(1, 2, 1));
        assert_eq!(rig.begins(), (None, 1, 0));
        rig.keeper.finish();
        assert!(rig.keeper.0.lock().is_done);
        assert!(rig.begun.try_recv().is_err(), "nothing is begun after that");
        rig.keeper.give(delta(2, 3, 1));
    }
}
