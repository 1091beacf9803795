//! The board's clocks, by embassy-time.

use embassy_time::TICK_HZ;
use muster_nostd_agent::clock::Clock;
use muster_proto::time::{Instant, UnixTime};

/// Time since boot; the date is not known until the EST server says it.
#[derive(Clone, Copy, Debug, Default)]
pub struct BoardClock;

impl Clock for BoardClock {
    // Once in the image: a board's ticks are not milliseconds.
    #[inline(never)]
    fn now(&self) -> Instant {
        Instant::from_millis(embassy_time::Instant::now().as_millis())
    }

    fn wall(&self) -> Option<UnixTime> {
        None
    }
}

/// The first tick of embassy-time at which it is `at`.
pub(crate) const fn ticks(at: Instant) -> u64 {
    at.as_millis().saturating_mul(TICK_HZ).div_ceil(1000)
}
