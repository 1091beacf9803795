//! Points in time, with the unit in the type.
//!
//! [`Instant`] is the shell's monotonic clock in milliseconds since any origin it likes (usually boot);
//! [`UnixTime`] is wall time in seconds since 1970-01-01T00:00:00Z. They are different types, so that a
//! deadline can never be compared with a certificate's date. Nothing here reads a clock. A span is a `Duration` for
//! whoever sets one, and `Millis` for whoever reckons with it.
//! Calendar conversion follows the proleptic Gregorian calendar without leap seconds (RFC 5280 §4.1.2.5).

use core::time::Duration;

/// A point on the shell's monotonic clock, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Later than every deadline: there is nothing to wait for but the shell's own answer.
    pub const NEVER: Self = Self(u64::MAX);

    /// The point `millis` milliseconds after the shell's origin.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the shell's origin.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This point moved by `span`; stops at [`Instant::NEVER`].
    #[must_use]
    // Once in an image, as are the other sums and differences here.
    #[inline(never)]
    pub fn plus(self, span: Duration) -> Self {
        self.after(Millis::of(span))
    }

    /// This point moved by `span`; stops at [`Instant::NEVER`].
    #[inline(never)]
    pub(crate) const fn after(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// Time from `earlier` to this point; zero when `earlier` is not earlier.
    #[must_use]
    #[inline(never)]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Time from `earlier` to this point; zero when `earlier` is not earlier.
    pub(crate) const fn millis_since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// Wall time in whole seconds since the Unix epoch; times before it do not exist here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

/// 2026-11-24: no clock is right that reads an earlier time (one without a battery begins at 1970). For
/// [`Config::built_at`](crate::enrollment::Config::built_at).
pub const EARLIEST_WALL_TIME: UnixTime = UnixTime::from_secs(1_795_478_400);

impl UnixTime {
    /// The second `secs` after the epoch.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs)
    }

    /// Seconds since the epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// This time moved later by `span`, whole seconds only.
    #[must_use]
    pub const fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.as_secs()))
    }

    /// Time from `earlier` to this one; zero when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// The same moment in the calendar; the last second of the year 9999 for all after it.
    #[must_use]
    pub fn civil(self) -> CivilTime {
        let secs = self.0.min(LAST_SECOND);
        let mut day = u32::try_from(secs / SECONDS_PER_DAY).unwrap_or_default();
        let of_day = u32::try_from(secs % SECONDS_PER_DAY).unwrap_or_default();
        // Counted and not reckoned: some dozens of years are soon over, and it is a third of the code.
        let mut year = 1970;
        while day >= days_in_year(year) {
            day -= days_in_year(year);
            year += 1;
        }
        let mut month = 1;
        while day >= days_in_month(year, month) {
            day -= days_in_month(year, month);
            month += 1;
        }
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        CivilTime { year, month, day: day + 1, hour, minute, second }
    }

    /// This time moved later by `span`, whole seconds only.
    #[inline(never)]
    pub(crate) const fn after(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0 / 1000))
    }

    /// Time from `earlier` to this one; zero when `earlier` is not earlier.
    #[inline(never)]
    pub(crate) const fn millis_since(self, earlier: Self) -> Millis {
        Millis::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// A span in whole milliseconds. The seconds and nanoseconds of `Duration` are several times the code on a processor of
/// 32 bits, and nothing here is that fine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Millis(u64);

impl Millis {
    pub(crate) const ZERO: Self = Self(0);
    pub(crate) const MAX: Self = Self(u64::MAX);

    /// As much of `span` as fits.
    #[inline(never)]
    pub(crate) fn of(span: Duration) -> Self {
        let whole = Self::from_secs(span.as_secs());
        Self(whole.0.saturating_add(span.subsec_millis().into()))
    }

    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub(crate) const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    pub(crate) const fn as_millis(self) -> u64 {
        self.0
    }

    /// Both one after the other.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// One of `parts` equal parts, which are not zero.
    pub(crate) const fn part(self, parts: u64) -> Self {
        Self(self.0 / parts)
    }

    /// So many hundredths, rounded down to whole ones first.
    pub(crate) const fn percent(self, hundredths: u64) -> Self {
        Self((self.0 / 100).saturating_mul(hundredths))
    }

    /// Doubled so many times; stops at [`Millis::MAX`].
    pub(crate) fn doubled(self, times: u32) -> Self {
        (0..times.min(u64::BITS)).fold(self, |span, _| span.and(span))
    }
}

/// A calendar date and time of day in UTC, as certificates and HTTP write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CivilTime {
    /// From 1970 to 9999.
    pub year: u32,
    /// From 1.
    pub month: u32,
    /// From 1.
    pub day: u32,
    /// From 0 to 23.
    pub hour: u32,
    /// From 0 to 59.
    pub minute: u32,
    /// From 0 to 59.
    pub second: u32,
}

impl CivilTime {
    /// The same moment as Unix time; `None` when a field is out of range or the year is before 1970.
    pub(crate) fn to_unix(self) -> Option<UnixTime> {
        let in_range = (1970..=9999).contains(&self.year)
            && (1..=12).contains(&self.month)
            && (1..=days_in_month(self.year, self.month)).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
            && self.second < 60;
        if !in_range {
            return None;
        }
        let days = u64::from(days_before(self.year, self.month)) + u64::from(self.day - 1);
        let of_day = u64::from(self.hour * 3600 + self.minute * 60 + self.second);
        Some(UnixTime(days * SECONDS_PER_DAY + of_day))
    }
}

/// The validity period of a certificate, both ends included (RFC 5280 §4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second at which it is valid.
    pub not_before: UnixTime,
    /// Last second at which it is valid.
    pub not_after: UnixTime,
}

impl Validity {
    /// Whether `at` lies inside, both ends included.
    #[must_use]
    pub fn contains(&self, at: UnixTime) -> bool {
        self.not_before <= at && at <= self.not_after
    }

    /// The period in which both are valid; may be empty (`not_before > not_after`).
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }

    /// Length from start to end.
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        self.not_after.since(self.not_before)
    }
}

const SECONDS_PER_DAY: u64 = 86_400;
/// 9999-12-31T23:59:59Z, the last that a certificate can say (RFC 5280 §4.1.2.5).
const LAST_SECOND: u64 = 253_402_300_799;

const fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_in_year(year: u32) -> u32 {
    if is_leap(year) { 366 } else { 365 }
}

const fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the epoch to the first of `month` in `year` (which is 1970 or later).
fn days_before(year: u32, month: u32) -> u32 {
    let last = year - 1;
    let leap_days = (last / 4 - last / 100 + last / 400) - (1969 / 4 - 1969 / 100 + 1969 / 400);
    let in_year: u32 = (1..month).map(|m| days_in_month(year, m)).sum();
    (year - 1970) * 365 + leap_days + in_year
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(year: u32, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> Option<u64> {
        CivilTime { year, month, day, hour, minute, second }.to_unix().map(UnixTime::as_secs)
    }

    #[test]
    fn known_dates_convert() {
        assert_eq!(unix(1970, 1, 1, 0, 0, 0), Some(0));
        assert_eq!(unix(2000, 2, 29, 12, 0, 0), Some(951_825_600));
        assert_eq!(unix(2026, 1, 1, 0, 0, 0), Some(1_767_225_600));
        assert_eq!(unix(2049, 12, 31, 23, 59, 59), Some(2_524_607_999));
        assert_eq!(unix(9999, 12, 31, 23, 59, 59), Some(253_402_300_799));
    }

    #[test]
    fn impossible_dates_are_none() {
        assert_eq!(unix(2025, 2, 29, 0, 0, 0), None);
        assert_eq!(unix(2100, 2, 29, 0, 0, 0), None);
        assert_eq!(unix(2026, 13, 1, 0, 0, 0), None);
        assert_eq!(unix(2026, 4, 31, 0, 0, 0), None);
        assert_eq!(unix(2026, 1, 1, 24, 0, 0), None);
        assert_eq!(unix(1969, 12, 31, 23, 59, 59), None);
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut expected = 0;
        for year in 1970..2101 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    assert_eq!(unix(year, month, day, 0, 0, 0), Some(expected));
                    let civil = UnixTime(expected + 3661).civil();
                    assert_eq!(civil, CivilTime { year, month, day, hour: 1, minute: 1, second: 1 });
                    expected += SECONDS_PER_DAY;
                }
            }
        }
    }

    #[test]
    fn the_calendar_ends_with_the_year_9999() {
        let last = CivilTime { year: 9999, month: 12, day: 31, hour: 23, minute: 59, second: 59 };
        assert_eq!(UnixTime(LAST_SECOND).civil(), last);
        assert_eq!(UnixTime(u64::MAX).civil(), last);
    }

    #[test]
    fn instants_stop_at_never() {
        assert_eq!(Instant::NEVER.plus(Duration::from_secs(1)), Instant::NEVER);
        assert_eq!(Instant::from_millis(5).since(Instant::from_millis(9)), Duration::ZERO);
    }
}
