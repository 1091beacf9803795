//! The wall clock of the carrying half: it is a shell, and certificates end by the wall clock.

use std::time::{Duration, SystemTime};

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "the agent is a shell; this is its one clock for certificates")]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

/// How long until `end`; nothing once it has passed.
pub(super) fn left_until(end: SystemTime) -> Duration {
    end.duration_since(now()).unwrap_or_default()
}
