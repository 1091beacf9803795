//! Time as the broker counts it: milliseconds since 1970, advanced by the runtime's clock.
//!
//! The wall clock is read once, by whoever starts the broker. After that only the monotonic clock
//! counts, so that a clock that is set does not end sessions, and tests can turn time by hand.

use muster_policy::time::UnixTime;
use tokio::time::{Duration, Instant};

/// Milliseconds since 1970.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub(crate) struct Millis(u64);

impl Millis {
    pub(crate) const fn plus_seconds(self, seconds: u32) -> Self {
        // A u32 of seconds fits a u64 of milliseconds.
        Self(self.0.saturating_add((seconds as u64).saturating_mul(1000)))
    }

    /// Seconds until `later`, rounded up; zero when it is past.
    pub(crate) fn seconds_until(self, later: Self) -> u32 {
        u32::try_from(later.0.saturating_sub(self.0).div_ceil(1000)).unwrap_or(u32::MAX)
    }
}

/// The broker's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started_at: Millis,
    base: Instant,
}

impl Clock {
    pub(crate) fn new(now: UnixTime) -> Self {
        let now_s = u64::try_from(now.as_secs()).unwrap_or_default();
        Self { started_at: Millis(now_s.saturating_mul(1000)), base: Instant::now() }
    }

    pub(crate) fn now(&self) -> Millis {
        let elapsed = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX);
        Millis(self.started_at.0.saturating_add(elapsed))
    }

    /// The runtime's instant of a time.
    pub(crate) fn instant(&self, at: Millis) -> Instant {
        let after = Duration::from_millis(at.0.saturating_sub(self.started_at.0));
        self.base.checked_add(after).unwrap_or_else(|| self.base + FAR)
    }
}

/// A year: nothing waits longer at one go.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
