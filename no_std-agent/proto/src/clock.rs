//! What the device believes about wall time, which may be unknown and may jump.
//!
//! There is always a floor: the build's date, then the newest time that was stored, then each `Date` of an
//! authenticated server. Time never reads lower. A set clock runs on with the monotonic one. The shell's clock
//! (RTC, SNTP) may set it to anything above the floor, forwards or backwards: going forward too far causes at
//! most an early renewal, in whose course the server's date puts it right. When a server's dates are wrong by such
//! an unproven time, the time is dropped and the floor judges: a device with a dead RTC battery must not be worse off
//! than one without an RTC.

use crate::time::{Instant, UnixTime};
use crate::x509::Moment;

/// Wall time as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    floor: UnixTime,
    set: Option<Setting>,
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    since: Instant,
    wall: UnixTime,
    by: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Server,
    Shell,
}

impl WallClock {
    pub(crate) const fn new(floor: UnixTime) -> Self {
        Self { floor, set: None }
    }

    /// Takes a time that was true once: no later moment can be before it.
    pub(crate) fn raise_floor(&mut self, floor: UnixTime) {
        self.floor = self.floor.max(floor);
    }

    /// Takes the shell's wall time; says whether it was believed.
    pub(crate) fn set_by_shell(&mut self, wall: UnixTime, now: Instant) -> bool {
        let believed = wall >= self.floor;
        if believed {
            self.set = Some(Setting { since: now, wall, by: Source::Shell });
        }
        believed
    }

    /// Takes the time of a server whose certificate was verified. A date below the floor sets the floor.
    pub(crate) fn set_by_server(&mut self, date: UnixTime, now: Instant) {
        self.raise_floor(date);
        self.set = Some(Setting { since: now, wall: self.floor, by: Source::Server });
    }

    /// Drops a time that no server has confirmed.
    pub(crate) fn doubt(&mut self) {
        self.set = self.set.filter(|setting| setting.by == Source::Server);
    }

    pub(crate) const fn is_set(&self) -> bool {
        self.set.is_some()
    }

    pub(crate) fn read(&self, now: Instant) -> Moment {
        self.set.map_or(Moment::NotBefore(self.floor), |setting| {
            Moment::Known(setting.wall.after(now.millis_since(setting.since)).max(self.floor))
        })
    }

    /// What may be stored as a floor for the next boot: only what was proven. The shell's time is not: stored, a
    /// wrong one could never be taken back.
    pub(crate) const fn floor(&self) -> UnixTime {
        self.floor
    }

    /// The present time as far as it is known, or else the floor.
    pub(crate) fn at_least(&self, now: Instant) -> UnixTime {
        match self.read(now) {
            Moment::Known(time) | Moment::NotBefore(time) => time,
        }
    }

    /// When the monotonic clock will stand at `wall`: never, while wall time is unknown.
    pub(crate) fn instant_of(&self, wall: UnixTime, now: Instant) -> Instant {
        match self.read(now) {
            Moment::Known(present) => now.after(wall.millis_since(present)),
            Moment::NotBefore(_) => Instant::NEVER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: UnixTime = UnixTime::from_secs(1000);

    fn millis(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn time_is_unknown_but_not_below_the_floor_at_first() {
        let clock = WallClock::new(FLOOR);
        assert_eq!(clock.read(millis(9_000_000)), Moment::NotBefore(FLOOR));
        assert_eq!(clock.instant_of(UnixTime::from_secs(2000), millis(0)), Instant::NEVER);
    }

    #[test]
    fn a_set_clock_runs_on() {
        let mut clock = WallClock::new(FLOOR);
        assert!(clock.set_by_shell(UnixTime::from_secs(2000), millis(500)));
        assert_eq!(clock.read(millis(10_500)), Moment::Known(UnixTime::from_secs(2010)));
        assert_eq!(clock.instant_of(UnixTime::from_secs(2010), millis(500)), millis(10_500));
        assert_eq!(clock.instant_of(UnixTime::from_secs(1500), millis(500)), millis(500));
    }

    #[test]
    fn the_shell_cannot_go_below_what_a_server_said() {
        let mut clock = WallClock::new(FLOOR);
        assert!(!clock.set_by_shell(UnixTime::from_secs(999), millis(0)));
        assert!(!clock.is_set());
        clock.set_by_server(UnixTime::from_secs(5000), millis(0));
        assert!(!clock.set_by_shell(UnixTime::from_secs(4999), millis(0)));
        assert!(clock.set_by_shell(UnixTime::from_secs(90_000), millis(0)));
        clock.set_by_server(UnixTime::from_secs(5010), millis(0));
        assert_eq!(clock.read(millis(0)), Moment::Known(UnixTime::from_secs(5010)));
    }

    #[test]
    fn only_an_unproven_time_is_dropped_in_doubt() {
        let mut clock = WallClock::new(FLOOR);
        clock.set_by_server(UnixTime::from_secs(2000), millis(0));
        clock.doubt();
        assert!(clock.is_set());
        assert!(clock.set_by_shell(UnixTime::from_secs(9000), millis(0)));
        clock.doubt();
        assert_eq!(clock.read(millis(0)), Moment::NotBefore(UnixTime::from_secs(2000)));
    }

    #[test]
    fn what_the_shell_says_never_becomes_a_floor() {
        let mut clock = WallClock::new(FLOOR);
        assert!(clock.set_by_shell(UnixTime::from_secs(9000), millis(0)));
        assert_eq!(clock.floor(), FLOOR);
        clock.set_by_server(UnixTime::from_secs(2000), millis(0));
        assert_eq!(clock.floor(), UnixTime::from_secs(2000));
    }

    #[test]
    fn a_server_behind_the_floor_does_not_turn_time_back() {
        let mut clock = WallClock::new(FLOOR);
        clock.set_by_server(UnixTime::from_secs(10), millis(0));
        assert_eq!(clock.read(millis(0)), Moment::Known(FLOOR));
    }
}
