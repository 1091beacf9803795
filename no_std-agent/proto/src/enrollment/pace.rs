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
use crate::time::UnixTime;

/// Longest that a Retry-After is obeyed: a mistyped one must not silence a device for years.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Longest wait between two tries that are refused: somebody has to change something first, and who did can wait for
/// some hours, or tell the device.
pub(super) const REFUSED_CEILING: Duration = Duration::from_secs(6 * 3600);

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
    /// The server named a time to wait.
    Told(Duration),
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
    pub(super) usual: Duration,
    /// After refusals in a row.
    pub(super) refused: Duration,
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
    ) -> Duration {
        let before = self.failures;
        self.failures = self.failures.saturating_add(1);
        match setback {
            Setback::Passing => half_spread(doubled(pace.floor, before).min(ceilings.usual), jitter),
            Setback::Lasting => {
                let longest = doubled(ceilings.usual, self.refusals).min(ceilings.refused);
                self.refusals = self.refusals.saturating_add(1);
                half_spread(longest, jitter)
            }
            // All who were told the same wait would return in the same second.
            Setback::Told(wait) => {
                let wait = wait.min(MAX_RETRY_AFTER);
                wait + jitter.up_to((wait / 4).max(pace.floor))
            }
        }
    }
}

fn doubled(wait: Duration, times: u32) -> Duration {
    wait.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
}

/// Between half of `longest` and all of it.
fn half_spread(longest: Duration, jitter: &mut Jitter) -> Duration {
    longest / 2 + jitter.up_to(longest / 2)
}

/// The longest waits at this point of a certificate's life.
///
/// A short-lived certificate needs shorter waits than a fleet-wide ceiling: at most a quarter of what is left, but
/// not less than a sixteenth of its renewal time, or a whole fleet would rush towards a common end.
pub(super) fn ceilings(pace: &Pace, window: Option<&Window>, at: UnixTime) -> Ceilings {
    let under = |longest: Duration, bound: Duration| Ceilings {
        usual: longest.min(bound),
        refused: longest.max(REFUSED_CEILING).min(bound),
    };
    let Some(window) = window else { return under(pace.ceiling.max(pace.floor), Duration::MAX) };
    let longest = if at >= window.urgent_at() { pace.urgent_ceiling } else { pace.ceiling }.max(pace.floor);
    let left = window.expires_at().since(at);
    let bound = if left.is_zero() { Duration::MAX } else { (left / 4).max(window.length() / 16) };
    under(longest, bound)
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

    const CEILINGS: Ceilings = Ceilings { usual: PACE.ceiling, refused: Duration::from_secs(400) };

    #[test]
    fn refusals_in_a_row_come_apart_to_hours_and_only_an_identity_that_works_ends_that() {
        let mut jitter = Jitter::new(1);
        let mut back_off = BackOff::default();
        for longest in [64, 128, 256, 400, 400] {
            let wait = back_off.after(Setback::Lasting, &PACE, CEILINGS, &mut jitter);
            let longest = Duration::from_secs(longest);
            assert!(longest / 2 <= wait && wait <= longest, "{wait:?} of {longest:?}");
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
        assert_eq!(ceilings(&Pace::default(), Some(&brief), at(40)).refused, Duration::from_secs(5));
        let patient = Pace { ceiling: REFUSED_CEILING * 2, ..Pace::default() };
        assert_eq!(ceilings(&patient, None, at(0)).refused, REFUSED_CEILING * 2);
    }

    #[test]
    fn waits_double_from_floor_to_ceiling_and_keep_half_their_spread() {
        let mut jitter = Jitter::new(1);
        let mut back_off = BackOff::default();
        for longest in [4, 8, 16, 32, 64, 64, 64] {
            let wait = back_off.after(Setback::Passing, &PACE, CEILINGS, &mut jitter);
            let longest = Duration::from_secs(longest);
            assert!(longest / 2 <= wait && wait <= longest, "{wait:?} of {longest:?}");
        }
        back_off.reset();
        assert!(back_off.after(Setback::Passing, &PACE, CEILINGS, &mut jitter) <= PACE.floor);
    }

    #[test]
    fn thousands_of_failures_do_not_overflow() {
        let mut jitter = Jitter::new(1);
        let mut back_off = BackOff { failures: u32::MAX - 1, refusals: u32::MAX - 1 };
        for _ in 0..3 {
            let wait = back_off.after(Setback::Passing, &PACE, CEILINGS, &mut jitter);
            assert!(wait <= PACE.ceiling);
            assert!(back_off.after(Setback::Lasting, &PACE, CEILINGS, &mut jitter) <= CEILINGS.refused);
        }
    }

    #[test]
    fn the_server_s_wait_is_never_cut_and_those_who_were_told_the_same_come_apart() {
        let mut jitter = Jitter::new(1);
        let told = Setback::Told(Duration::from_secs(60));
        let waits: Vec<Duration> =
            (0..100).map(|_| BackOff::default().after(told, &PACE, CEILINGS, &mut jitter)).collect();
        assert!(waits.iter().all(|wait| (60..=75).contains(&wait.as_secs())));
        assert!(waits.iter().filter(|wait| wait.as_secs() == 60).count() < 20);
        let endless = Setback::Told(Duration::MAX);
        assert!(BackOff::default().after(endless, &PACE, CEILINGS, &mut jitter) <= MAX_RETRY_AFTER * 2);
    }

    #[test]
    fn a_short_life_shortens_the_ceiling_but_not_without_end() {
        let at = UnixTime::from_secs;
        let window = Window::new(at(7200), at(9600), at(12_000)).expect("in order");
        let pace =
            Pace { ceiling: Duration::from_secs(900), urgent_ceiling: Duration::from_secs(800), ..PACE };
        let usual = |window, time| ceilings(&pace, window, at(time)).usual;
        assert_eq!(usual(Some(&window), 7200), Duration::from_secs(900));
        assert_eq!(usual(Some(&window), 10_000), Duration::from_secs(500));
        assert_eq!(usual(Some(&window), 11_999), Duration::from_secs(300));
        assert_eq!(usual(Some(&window), 12_001), Duration::from_secs(800));
        assert_eq!(usual(None, 0), Duration::from_secs(900));
    }
}
