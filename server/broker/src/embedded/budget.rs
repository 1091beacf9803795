//! What all sessions of one device hold together: it is bounded, whatever number of client ids they have.
//!
//! Whatever is held carries its [`Charge`], which ends with it: however something goes, it is given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::topic::Subscribed;

/// What the sessions of one device hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget {
    pub(super) filters: Tally,
    pub(super) queued: Tally,
}

/// How many octets are held.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<AtomicUsize>);

/// Octets that are held for as long as this lives.
#[derive(Debug)]
pub(crate) struct Charge {
    tally: Tally,
    bytes: usize,
}

/// What a level of a filter costs beside its text, if no other filter has it: a node of the index with room for one
/// below it. 1000 filters of 201 levels were measured to take 107 MB.
const LEVEL_BYTES: usize = 512;

impl Tally {
    /// Charges octets, unless more than so many would be held.
    pub(super) fn charge(&self, bytes: usize, most: usize) -> Option<Charge> {
        let fitting = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= most);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fitting).ok()?;
        Some(Charge { tally: self.clone(), bytes })
    }

    /// Charges octets of what the file held, whatever quota there is by now.
    pub(super) fn restore(&self, bytes: usize) -> Charge {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Charge { tally: self.clone(), bytes }
    }
}

impl Charge {
    /// Gives the octets back before the end.
    pub(super) fn give_back(&mut self) {
        self.tally.0.fetch_sub(core::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// What a filter is charged for: its text is in the session and in the index.
pub(super) fn filter_bytes(filter: &Subscribed) -> usize {
    let share = filter.share.as_ref().map_or(0, |share| share.len());
    let text = filter.filter.as_str().len().saturating_add(share);
    text.saturating_mul(2).saturating_add(filter.filter.levels().count().saturating_mul(LEVEL_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_had_again() {
        let budget = Budget::default();
        let other = budget.clone();
        let mut first = budget.queued.charge(60, 100).expect("room");
        assert!(other.queued.charge(41, 100).is_none());
        let second = other.queued.charge(40, 100).expect("room");
        first.give_back();
        drop(first);
        assert!(budget.queued.charge(61, 100).is_none());
        drop(second);
        let restored = budget.queued.restore(200);
        assert!(budget.queued.charge(1, 100).is_none());
        drop(restored);
        assert!(budget.queued.charge(100, 100).is_some());
    }
}
