//! The one place that reads the system's clock.

use std::time::Duration;

/// Time since 1970 by the system's clock; zero if that is set before.
pub(crate) fn unix_now() -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the shell's clock; everything else is handed the time"
    )]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
