//! What one address may use of a listener: connections at once, and new ones per second.
//!
//! An IPv6 peer is counted by its /64, as one customer has at least that. Entries last no longer
//! than there is something to count.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use muster_arrival::source::source_of;

/// After this many arrivals the buckets that are full again are dropped.
const SWEEP_EVERY: u64 = 16_384;

/// The counts of all sources.
pub(crate) struct Sources {
    /// How many connections each has.
    open: Mutex<HashMap<IpAddr, usize>>,
    arrivals: DefaultKeyedRateLimiter<IpAddr>,
    seen: AtomicU64,
}

impl Sources {
    /// Counts new connections against this rate and burst; zero counts as one.
    pub(crate) fn new(per_s: u32, burst: u32) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(per_s)).allow_burst(at_least_one(burst));
        let arrivals = RateLimiter::keyed(quota);
        Self { open: Mutex::default(), arrivals, seen: AtomicU64::new(0) }
    }

    /// Counts an arrival; false when there were too many.
    pub(crate) fn may_come(&self, peer: IpAddr) -> bool {
        if self.seen.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.arrivals.retain_recent();
        }
        self.arrivals.check_key(&source_of(peer)).is_ok()
    }

    /// Takes one of the source's connections, until the claim is dropped.
    pub(crate) fn claim(self: &Arc<Self>, peer: IpAddr, most: usize) -> Option<Claim> {
        let source = source_of(peer);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = open.entry(source).or_default();
        if *connections >= most {
            return None;
        }
        *connections += 1;
        Some(Claim { sources: Arc::clone(self), source })
    }
}

/// A connection of a source.
pub(crate) struct Claim {
    sources: Arc<Sources>,
    /// The address that it is counted by.
    pub(crate) source: IpAddr,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut open = self.sources.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connections) = open.get_mut(&self.source) {
            *connections -= 1;
            if *connections == 0 {
                open.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_only_its_share_and_gets_it_back() {
        let sources = Arc::new(Sources::new(1, 1));
        let peer: IpAddr = "2001:db8::1".parse().expect("an address");
        let neighbour: IpAddr = "2001:db8::2".parse().expect("an address");
        let claim = sources.claim(peer, 1).expect("free");
        assert!(sources.claim(neighbour, 1).is_none(), "the same /64");
        let stranger = sources.claim("2001:db8:0:1::1".parse().expect("an address"), 1).expect("another");
        drop((claim, stranger));
        assert!(sources.open.lock().expect("not poisoned").is_empty());
        assert!(sources.claim(neighbour, 1).is_some());
    }

    #[test]
    fn arrivals_are_bounded_per_source() {
        let sources = Sources::new(1, 3);
        let peer: IpAddr = "192.0.2.1".parse().expect("an address");
        assert_eq!((0..10).filter(|_| sources.may_come(peer)).count(), 3);
        assert!(sources.may_come("192.0.2.2".parse().expect("an address")));
    }
}
