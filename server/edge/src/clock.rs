//! The one place of the edge that reads the wall clock.
//!
//! Everything else takes `now` as an argument. Tests hand in a clock of their own, and TLS judges
//! certificates by the same one.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use muster_policy::time::UnixTime;
use rustls::pki_types;
use rustls::time_provider::TimeProvider;

/// A source of the current time that can be shared.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixTime + Send + Sync>);

impl Clock {
    /// The machine's wall clock.
    pub fn system() -> Self {
        Self::from_fn(|| {
            #[expect(clippy::disallowed_methods, reason = "this is the shell that owns the clock")]
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            UnixTime::EPOCH.plus(since)
        })
    }

    /// A clock that a test turns by hand, or one that the caller has already.
    pub fn from_fn(now: impl Fn() -> UnixTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The current second.
    pub fn now(&self) -> UnixTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<pki_types::UnixTime> {
        Some(to_pki(self.now()))
    }
}

/// The same point for crates that speak `rustls`.
pub(crate) fn to_pki(at: UnixTime) -> pki_types::UnixTime {
    pki_types::UnixTime::since_unix_epoch(at.since(UnixTime::EPOCH))
}
