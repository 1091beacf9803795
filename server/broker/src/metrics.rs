//! What the broker counts. Counters are read as a snapshot; whoever shows them names them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::serve::Ended;

// A table of alike counters.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// The broker's counters, alive.
        #[derive(Debug, Default)]
        pub(crate) struct Metrics {
            $(pub(crate) $name: Counter,)*
            ended: Mutex<BTreeMap<&'static str, u64>>,
        }

        /// The broker's counters at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
            /// Connections that ended, by [`Ended::label`].
            pub ended: BTreeMap<&'static str, u64>,
        }

        impl Metrics {
            pub(crate) fn snapshot(&self) -> Snapshot {
                Snapshot {
                    $($name: self.$name.value(),)*
                    ended: self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                }
            }
        }
    };
}

counters! {
    /// Connections that are served now.
    connections;
    /// Sessions, connected or not.
    sessions;
    /// Subscriptions of all sessions.
    subscriptions;
    /// Retained messages.
    retained;
    /// PUBLISH packets from clients that the rules allowed.
    published;
    /// PUBLISH packets from clients that the rules refused.
    publish_refused;
    /// SUBSCRIBE filters that were refused.
    subscribe_refused;
    /// PUBLISH packets to clients.
    delivered;
    /// PUBLISH packets that rules kept from clients.
    deliver_refused;
    /// QoS 0 messages dropped because their client was slow.
    dropped_qos0;
    /// QoS 1 and 2 messages dropped or refused because a queue was full.
    dropped_full;
    /// Messages that no client got in their time.
    dropped_expired;
    /// Messages larger than their client takes.
    dropped_too_large;
    /// Retained messages refused because there were too many.
    retained_refused;
    /// Retained messages that a subscription did not get, for their sender may publish there no more.
    retained_withheld;
    /// Sessions taken over by a new connection of their client.
    taken_over;
    /// Wills that were published.
    wills;
    /// Transactions of the file that reached the disk.
    store_commits;
    /// Transactions of the file that failed and were tried again.
    store_failures;
}

/// A number that goes up, or up and down.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn up(&self) {
        self.add(1);
    }

    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// One more for as long as the result lives, however it ends.
    pub(crate) fn while_held(&self) -> Held<'_> {
        self.up();
        Held(self)
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of a counter.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Counter);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.down();
    }
}

impl Metrics {
    pub(crate) fn ended(&self, ended: Ended) {
        let mut counts = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(ended.label()).or_default() += 1;
    }
}
