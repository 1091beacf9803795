//! How soon to try again: exponential, with floor, ceiling and jitter, and never before the server allows.
//!
//! Every wait is spread over at least half its length, so devices that failed together do not come back together.
//! A refusal waits for the ceiling at once: the server has decided, and asking faster changes nothing. Refusal after
//! refusal the wait doubles on from there, up to [`REFUSED_CEILING`]: a revoked device must not knock for ever. Only
//! an identity that works ends that: a new certificate alone is none, or one that is refused would be replaced again
//! and again.

use core::time::Duration;

use super::Window;
use crate::jitter::Jitter;
use crate::time::{Millis, UnixTime};

/// Longest that a Retry-After is obeyed: a mistyped one must not silence a device for years.
pub(super) const MAX_RETRY_AFTER_S: u32 = 24 * 3600;

/// Longest wait between two tries that are refused: somebody has to change something first, and who did can wait for
/// some hours, or tell the device.
pub(super) const REFUSED_CEILING: Millis = Millis::from_secs(6 * 3600);

/// Bounds for waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The first wait after a failure, at most; it doubles with each further one. More than zero.
    pub floor: Duration,
    /// The longest wait between two tries. Those that are refused one after the other come apart further.
    pub ceiling: Duration,
    /// The longest wait once renewal is urgent or the certificate is over.
    pub urgent_ceiling: Duration,
    /// Over how long a fleet that boots together spreads its first connections. Zero for an operator's command.
    pub spread: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            floor: Duration::from_secs(5),
            ceiling: Duration::from_secs(15 * 60),
            urgent_ceiling: Duration::from_secs(5 * 60),
            spread: Duration::from_secs(2 * 60),
        }
    }
}

/// How a try ended, as far as waiting depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setback {
    /// It may work at any moment.
    Passing,
    /// It will not work until somebody changes something.
    Lasting,
    /// The server named a time to wait, in seconds.
    Told(u32),
}

/// Counts failures in a row, and refusals whatever failed between them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
    refusals: u32,
}

/// The longest waits at one point of a certificate's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ceilings {
    /// After a failure, and after the first refusal.
    pub(super) usual: Millis,
    /// After refusals in a row.
    pub(super) refused: Millis,
}

impl BackOff {
    /// The server did what it was asked for.
    pub(super) const fn answered(&mut self) {
        self.failures = 0;
    }

    /// A new identity works, or somebody has changed something.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
        self.refusals = 0;
    }

    /// The wait after one more failure, under `ceilings`.
    pub(super) fn after(
        &mut self,
        setback: Setback,
        pace: &Pace,
        ceilings: Ceilings,
        jitter: &mut Jitter,
    ) -> Millis {
        let floor = Millis::of(pace.floor);
        let before = self.failures;
        self.failures = self.failures.saturating_add(1);
        match setback {
            Setback::Passing => half_spread(floor.doubled(before).min(ceilings.usual), jitter),
            Setback::Lasting => {
                let longest = ceilings.usual.doubled(self.refusals).min(ceilings.refused);
                self.refusals = self.refusals.saturating_add(1);
                half_spread(longest, jitter)
            }
            // All who were told the same wait would return in the same second.
            Setback::Told(seconds) => {
                let wait = Millis::from_secs(seconds.min(MAX_RETRY_AFTER_S).into());
                wait.and(jitter.up_to(wait.part(4).max(floor)))
            }
        }
    }
}

/// Between half of `longest` and all of it.
fn half_spread(longest: Millis, jitter: &mut Jitter) -> Millis {
    let half = longest.part(2);
    half.and(jitter.up_to(half))
}

/// The longest waits at this point of a certificate's life.
///
/// A short-lived certificate needs shorter waits than a fleet-wide ceiling: at most a quarter of what is left, but
/// not less than a sixteenth of its renewal time, or a whole fleet would rush towards a common end.
pub(super) fn ceilings(pace: &Pace, window: Option<&Window>, at: UnixTime) -> Ceilings {
    let (mut longest, mut bound) = (pace.ceiling, Millis::MAX);
    if let Some(window) = window {
        if at >= window.urgent_at() {
            longest = pace.urgent_ceiling;
        }
        let left = window.expires_at().millis_since(at);
        if left > Millis::ZERO {
            bound = left.part(4).max(window.length().part(16));
        }
    }
    let longest = Millis::of(longest.max(pace.floor));
    Ceilings { usual: longest.min(bound), refused: longest.max(REFUSED_CEILING).min(bound) }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    const PACE: Pace = Pace {
        floor: Duration::from_secs(4),
        ceiling: Duration::from_secs(64),
        urgent_ceiling: Duration::from_secs(16),
        spread: Duration::ZERO,
    };

    const fn secs(secs: u64) -> Millis {
        Millis::from_secs(secs)
    }

    const CEILINGS: Ceilings = Ceilings { usual: secs(64), refused: secs(400) };

    #[test]
    fn refusals_in_a_row_come_apart_to_hours_and_only_an_identity_that_works_ends_that() {
        let mut jitter = Jitter::new(1);
        let mut back_off = BackOff::default();
        for longest in [64, 128, 256, 400, 400] {
            let wait = back_off.after(Setback::Lasting, &PACE, CEILINGS, &mut jitter);
            let longest = secs(longest);
            assert!(longest.part(2) <= wait && wait <= longest, "{wait:?} of {longest:?}");
            // That the server was away between two refusals changes nothing about them.
            assert!(back_off.after(Setback::Passing, &PACE, CEILINGS, &mut jitter) <= CEILINGS.usual);
        }
        back_off.answered();
        assert!(back_off.after(Setback::Lasting, &PACE, CEILINGS, &mut jitter) > CEILINGS.usual);
        back_off.reset();
        assert!(back_off.after(Setback::Lasting, &PACE, CEILINGS, &mut jitter) <= CEILINGS.usual);
    }

    #[test]
    fn a_refused_device_still_asks_some_times_before_its_certificate_ends() {
        let at = UnixTime::from_secs;
        let day = 86_400;
        let window = Window::new(at(54 * day), at(75 * day), at(90 * day)).expect("in order");
        let refused = |time| ceilings(&Pace::default(), Some(&window), at(time)).refused;
        assert_eq!(refused(54 * day), REFUSED_CEILING);
        assert_eq!(refused(90 * day + 1), REFUSED_CEILING, "over");
        let brief = Window::new(at(40), at(50), at(60)).expect("in order");
        assert_eq!(ceilings(&Pace::default(), Some(&brief), at(40)).refused, secs(5));
        let patient = Pace { ceiling: Duration::from_secs(12 * 3600), ..Pace::default() };
        assert_eq!(ceilings(&patient, None, at(0)).refused, secs(12 * 3600));
    }

    #[test]
    fn waits_double_from_floor_to_ceiling_and_keep_half_their_spread() {
        let mut jitter = Jitter::new(1);
        let mut back_off = BackOff::default();
        for longest in [4, 8, 16, 32, 64, 64, 64] {
            let wait = back_off.after(Setback::Passing, &PACE, CEILINGS, &mut jitter);
            let longest = secs(longest);
            assert!(longest.part(2) <= wait && wait <= longest, "{wait:?} of {longest:?}");
        }
        back_off.reset();
        assert!(back_off.after(Setback::Passing, &PACE, CEILINGS, &mut jitter) <= secs(4));
    }

    #[test]
    fn thousands_of_failures_do_not_overflow() {
        let mut jitter = Jitter::new(1);
        let mut back_off = BackOff { failures: u32::MAX - 1, refusals: u32::MAX - 1 };
        for _ in 0..3 {
            let wait = back_off.after(Setback::Passing, &PACE, CEILINGS, &mut jitter);
            assert!(wait <= secs(64));
            assert!(back_off.after(Setback::Lasting, &PACE, CEILINGS, &mut jitter) <= CEILINGS.refused);
        }
    }

    #[test]
    fn the_server_s_wait_is_never_cut_and_those_who_were_told_the_same_come_apart() {
        let mut jitter = Jitter::new(1);
        let told = Setback::Told(60);
        let waits: Vec<Millis> =
            (0..100).map(|_| BackOff::default().after(told, &PACE, CEILINGS, &mut jitter)).collect();
        assert!(waits.iter().all(|wait| (60_000..=75_000).contains(&wait.as_millis())));
        assert!(waits.iter().filter(|wait| wait.as_millis() < 61_000).count() < 20);
        let endless = Setback::Told(u32::MAX);
        assert!(BackOff::default().after(endless, &PACE, CEILINGS, &mut jitter) <= secs(2 * 24 * 3600));
    }

    #[test]
    fn a_short_life_shortens_the_ceiling_but_not_without_end() {
        let at = UnixTime::from_secs;
        let window = Window::new(at(7200), at(9600), at(12_000)).expect("in order");
        let pace =
            Pace { ceiling: Duration::from_secs(900), urgent_ceiling: Duration::from_secs(800), ..PACE };
        let usual = |window, time| ceilings(&pace, window, at(time)).usual;
        assert_eq!(usual(Some(&window), 7200), secs(900));
        assert_eq!(usual(Some(&window), 10_000), secs(500));
        assert_eq!(usual(Some(&window), 11_999), secs(300));
        assert_eq!(usual(Some(&window), 12_001), secs(800));
        assert_eq!(usual(None, 0), secs(900));
    }
}
