//! The two clocks of a board: one that only runs forward, and one that may know the date.

use muster_proto::time::{Instant, UnixTime};

/// The board's time.
pub trait Clock {
    /// Milliseconds since any origin, usually boot. Never goes back.
    fn now(&self) -> Instant;

    /// Wall time, if the board has an RTC or has asked a time server; `None` if it has not. It need not be right:
    /// the machine sets it straight by the EST server's date. Read at start and by `Device::clock_was_set`.
    fn wall(&self) -> Option<UnixTime>;
}
