//! The one place that reads the system's clock, and how far the clocks of devices are off it.

use std::sync::{Mutex, PoisonError};
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

/// The clocks of devices; one that is not told of is right.
#[derive(Debug, Default)]
pub(crate) struct Clocks(Mutex<Vec<Off>>);

/// How far a device's time is off, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Off {
    /// What its board's clock says, and so the device after a reboot.
    board: i64,
    /// What it believes at present: a server may have put it right.
    believed: i64,
}

impl Clocks {
    /// Of so many devices.
    pub(crate) fn new(devices: u32) -> Self {
        Self(Mutex::new(vec![Off::default(); devices as usize]))
    }

    /// How far the time is off that a device believes, in seconds.
    pub(crate) fn off(&self, number: u32) -> i64 {
        self.with(number, |off| off.believed).unwrap_or_default()
    }

    /// Seconds since 1970 as a device believes.
    pub(crate) fn unix_now(&self, number: u32) -> u64 {
        unix_now().as_secs().saturating_add_signed(self.off(number))
    }

    /// The board's clock is this far off from now on.
    pub(crate) fn skew(&self, number: u32, seconds: i64) {
        self.with(number, |off| *off = Off { board: seconds, believed: seconds });
    }

    /// A device knows nothing but what its board says.
    pub(crate) fn reboot(&self, number: u32) {
        self.with(number, |off| off.believed = off.board);
    }

    /// A device believes this time now. What is off by the time of a message alone is not counted as off.
    pub(crate) fn believe(&self, number: u32, unix_s: u64) {
        let seconds = unix_s.cast_signed().saturating_sub(unix_now().as_secs().cast_signed());
        self.with(number, |off| {
            if off.board != 0 {
                off.believed = seconds;
            }
        });
    }

    fn with<T>(&self, number: u32, act: impl FnOnce(&mut Off) -> T) -> Option<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(number as usize).map(act)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_until_it_is_put_right_and_again_after_a_reboot() {
        let clocks = Clocks::new(2);
        clocks.skew(1, -3600);
        clocks.skew(7, 5);
        assert_eq!((clocks.off(0), clocks.off(1), clocks.off(7)), (0, -3600, 0));
        assert!(clocks.unix_now(1) <= unix_now().as_secs() - 3600);
        clocks.believe(1, unix_now().as_secs());
        assert!((-2..=2).contains(&clocks.off(1)));
        clocks.reboot(1);
        assert_eq!(clocks.off(1), -3600);
    }
}
