//! What is due later: the ends of sessions, and wills with a delay.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::hub::Space;
use super::session::Session;
use crate::clock::Millis;

/// Names a timer, to cancel it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey(pub(crate) Millis, u64);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The session ends.
    SessionEnds,
    /// The delayed will is published.
    WillFires,
}

/// Something due.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) space: Arc<Space>,
    pub(crate) session: Arc<Session>,
    pub(crate) event: Event,
}

/// All timers.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    timers: Mutex<Table>,
    /// Rings when a timer was added that is before all others.
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    due: BTreeMap<TimerKey, Due>,
    made: u64,
}

impl Timers {
    pub(crate) fn add(&self, at: Millis, due: Due) -> TimerKey {
        let mut table = self.table();
        table.made = table.made.saturating_add(1);
        let key = TimerKey(at, table.made);
        table.due.insert(key, due);
        if table.due.first_key_value().is_some_and(|(first, _)| *first == key) {
            self.changed.notify_one();
        }
        key
    }

    pub(crate) fn cancel(&self, key: Option<TimerKey>) {
        if let Some(key) = key {
            self.table().due.remove(&key);
        }
    }

    pub(crate) fn next_at(&self) -> Option<Millis> {
        self.table().due.first_key_value().map(|(key, _)| key.0)
    }

    /// Takes the first timer that is due.
    pub(crate) fn take(&self, now: Millis) -> Option<Due> {
        let mut table = self.table();
        let entry = table.due.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
