//! The one place of the server that reads the wall clock.
//!
//! Everything else takes `now` as an argument. Tests hand in a clock of their own.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use muster_policy::time::UnixTime;

/// A source of the current time that can be shared.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The machine's wall clock.
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the shell that owns the clock")]
        Self(Arc::new(SystemTime::now))
    }

    /// A clock that a test turns by hand.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The current second.
    pub fn now(&self) -> UnixTime {
        UnixTime::from_secs(i64::try_from(self.unix_millis() / 1000).unwrap_or(i64::MAX))
    }

    /// Milliseconds since the epoch, for ids that sort by age; zero before the epoch.
    pub fn unix_millis(&self) -> u64 {
        let since = (self.0)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
