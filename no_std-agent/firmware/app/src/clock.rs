//! The board's clocks, by embassy-time.

use embassy_time::Timer;
use muster_nostd_agent::clock::Clock;
use muster_proto::time::{Instant, UnixTime};

/// Time since boot; the date is not known until the EST server says it.
#[derive(Clone, Copy, Debug, Default)]
pub struct BoardClock;

impl Clock for BoardClock {
    fn now(&self) -> Instant {
        Instant::from_millis(embassy_time::Instant::now().as_millis())
    }

    fn wall(&self) -> Option<UnixTime> {
        None
    }

    async fn wait_until(&self, at: Instant) {
        // An hour at most, so that a far time does not overflow the timer's ticks; the callers ask again.
        let wait = at.since(self.now()).min(core::time::Duration::from_secs(3600));
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Timer::after(embassy_time::Duration::from_millis(wait_ms)).await;
    }
}
