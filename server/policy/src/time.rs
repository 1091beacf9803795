//! A point in time, in whole seconds since 1970-01-01T00:00:00Z.
//!
//! X.509 dates carry no fractions (RFC 5280 §4.1.2.5), so neither does policy. In human-readable
//! formats it is RFC 3339, in binary formats an integer.

use core::fmt;
use core::time::Duration;

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time with a resolution of one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(i64);

impl UnixTime {
    /// The last point that RFC 5280 can write: 9999-12-31T23:59:59Z, "no well-defined end" (§4.1.2.5).
    pub const MAX: Self = Self(253_402_300_799);
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// The point `seconds` after the epoch, held inside the years 1970 to 9999.
    pub const fn from_secs(seconds: i64) -> Self {
        if seconds < 0 {
            Self::EPOCH
        } else if seconds > Self::MAX.0 {
            Self::MAX
        } else {
            Self(seconds)
        }
    }

    /// Reads RFC 3339 text.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        OffsetDateTime::parse(text, &Rfc3339).ok().map(|at| Self::from_secs(at.unix_timestamp()))
    }

    /// Seconds since the epoch.
    pub const fn as_secs(self) -> i64 {
        self.0
    }

    /// This point moved later, at most to [`UnixTime::MAX`].
    pub fn plus(self, span: Duration) -> Self {
        Self::from_secs(self.0.saturating_add(i64::try_from(span.as_secs()).unwrap_or(i64::MAX)))
    }

    /// This point moved earlier, at most to [`UnixTime::EPOCH`].
    pub fn minus(self, span: Duration) -> Self {
        Self::from_secs(self.0.saturating_sub(i64::try_from(span.as_secs()).unwrap_or(i64::MAX)))
    }

    /// The span from `earlier` to this point; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same point for crates that speak `time`.
    pub fn to_offset_date_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.0).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl From<OffsetDateTime> for UnixTime {
    fn from(at: OffsetDateTime) -> Self {
        Self::from_secs(at.unix_timestamp())
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_offset_date_time().format(&Rfc3339).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl Serialize for UnixTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for UnixTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
        } else {
            i64::deserialize(deserializer).map(Self::from_secs)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_inside_the_years_x509_can_write() {
        assert_eq!(UnixTime::from_secs(-1), UnixTime::EPOCH);
        assert_eq!(UnixTime::MAX.plus(Duration::MAX), UnixTime::MAX);
        assert_eq!(UnixTime::EPOCH.minus(Duration::from_secs(1)), UnixTime::EPOCH);
        assert_eq!(UnixTime::MAX.to_string(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn reads_what_it_writes() {
        let at = UnixTime::from_secs(1_800_000_000);
        assert_eq!(UnixTime::parse_rfc3339(&at.to_string()), Some(at));
        let json = serde_json::to_string(&at).expect("a time is text");
        assert_eq!(serde_json::from_str::<UnixTime>(&json).expect("and text is a time"), at);
    }
}
