//! How far the edges go by the ledger: that of this process, and those in others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The edges that follow.
pub(crate) struct Edges {
    seats: Mutex<Seats>,
    slowest: watch::Sender<u64>,
}

#[derive(Default)]
struct Seats {
    last_id: u64,
    at: BTreeMap<u64, u64>,
}

impl Edges {
    /// None yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { seats: Mutex::default(), slowest: watch::Sender::new(u64::MAX) })
    }

    /// The change that all of them go by; the largest number while there is none.
    pub(crate) fn slowest(&self) -> watch::Receiver<u64> {
        self.slowest.subscribe()
    }

    /// One more, that goes by this change.
    pub(super) fn seat(self: &Arc<Self>, at: u64) -> Seat {
        let id = self.change(|seats| {
            seats.last_id += 1;
            seats.at.insert(seats.last_id, at);
            seats.last_id
        });
        Seat { edges: Arc::clone(self), id }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Seats) -> T) -> T {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let done = change(&mut seats);
        self.slowest.send_replace(seats.at.values().min().copied().unwrap_or(u64::MAX));
        done
    }
}

/// An edge's place among those that follow; given up when dropped.
pub(super) struct Seat {
    edges: Arc<Edges>,
    id: u64,
}

impl Seat {
    /// It goes by this change now.
    pub(super) fn is_at(&self, change: u64) {
        self.edges.change(|seats| seats.at.insert(self.id, change));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.edges.change(|seats| seats.at.remove(&self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_in_force_when_the_slowest_goes_by_it() {
        let edges = Edges::new();
        let slowest = edges.slowest();
        assert_eq!(*slowest.borrow(), u64::MAX);
        let (first, second) = (edges.seat(3), edges.seat(5));
        assert_eq!(*slowest.borrow(), 3);
        first.is_at(7);
        assert_eq!(*slowest.borrow(), 5);
        drop(second);
        assert_eq!(*slowest.borrow(), 7);
    }
}
