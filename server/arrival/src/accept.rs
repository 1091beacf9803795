//! What accept can fail with.

use std::io;
use std::time::Duration;

/// How long a loop pauses when the system has no file descriptor left.
pub const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Whether it was the peer that went away before it was accepted; then there is nothing to wait for.
pub fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
