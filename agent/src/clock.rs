//! The one place of the agent that reads clocks.
//!
//! The device core gets two: one that only runs forward, and wall time as the system believes it, which
//! may be wrong or jump. All else takes times as arguments.

use std::time::{Duration, SystemTime};

use muster_proto::time::{Instant, UnixTime};

/// Both clocks, counted from one origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    /// Starts counting now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }

    /// The forward clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::default().plus(self.origin.elapsed())
    }

    /// The same point for the timers of the runtime; `at` may lie centuries ahead.
    #[must_use]
    pub fn deadline(&self, at: Instant) -> tokio::time::Instant {
        // Later than any process lives, and no overflow.
        let ahead = at.since(self.now()).min(CENTURY);
        tokio::time::Instant::now() + ahead
    }

    /// Wall time as the system believes it.
    #[must_use]
    pub fn wall(&self) -> UnixTime {
        #[expect(clippy::disallowed_methods, reason = "this is the shell that owns the clock")]
        let now = SystemTime::now();
        UnixTime::from_secs(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs())
    }
}

const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
