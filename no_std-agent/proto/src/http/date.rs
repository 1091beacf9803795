//! IMF-fixdate, the one form of HTTP date that is sent today (RFC 9110 §5.6.7).
//!
//! The two obsolete forms carry a two-digit year or no zone; a device that sets its clock by this does without.

use crate::ascii::decimal;
use crate::time::{CivilTime, UnixTime};

/// What is the same in all of them.
const FORM: &[u8; 29] = b"???, ?? ??? ???? ??:??:?? GMT";

const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

const DAYS: &[u8; 21] = b"MonTueWedThuFriSatSun";

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT`; `None` for any other form. The day's name is not compared with the date.
#[must_use]
pub fn parse_http_date(text: &[u8]) -> Option<UnixTime> {
    let fits = |(form, byte): (&u8, &u8)| *form == b'?' || form == byte;
    if text.len() != FORM.len() || !FORM.iter().zip(text).all(fits) {
        return None;
    }
    number_of(text.get(..3)?, DAYS)?;
    let month = number_of(text.get(8..11)?, MONTHS)?;
    let two = |at: usize| decimal(text.get(at..at + 2)?);
    let (day, hour, minute, second) = (two(5)?, two(17)?, two(20)?, two(23)?);
    // A leap second has no Unix time of its own; it reads as the second before.
    let second = if second == 60 { 59 } else { second };
    CivilTime { year: decimal(text.get(12..16)?)?, month, day, hour, minute, second }.to_unix()
}

/// Which of some names of three letters it is, counted from 1.
fn number_of(name: &[u8], names: &[u8]) -> Option<u32> {
    (1..).zip(names.chunks_exact(3)).find(|(_, known)| *known == name).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_9110_reads() {
        assert_eq!(
            parse_http_date(b"Sun, 06 Nov 1994 08:49:37 GMT").map(UnixTime::as_secs),
            Some(784_111_777)
        );
    }

    #[test]
    fn other_forms_do_not() {
        assert_eq!(parse_http_date(b"Sunday, 06-Nov-94 08:49:37 GMT"), None);
        assert_eq!(parse_http_date(b"Sun Nov  6 08:49:37 1994"), None);
        assert_eq!(parse_http_date(b"Sun, 06 Nov 1994 08:49:37 UTC"), None);
        assert_eq!(parse_http_date(b"Sun, 31 Nov 1994 08:49:37 GMT"), None);
        assert_eq!(parse_http_date(b"Sun, 6 Nov 1994 08:49:37 GMT"), None);
        assert_eq!(parse_http_date(b"Sun, 06 Now 1994 08:49:37 GMT"), None);
        assert_eq!(parse_http_date(b"Son, 06 Nov 1994 08:49:37 GMT"), None);
        assert_eq!(parse_http_date(b"Sun, 06 Nov 1994 08:4a:37 GMT"), None);
        assert_eq!(parse_http_date(b"Sun, 06 Nov 1994 08:49:37 GMT "), None);
        assert_eq!(parse_http_date(b""), None);
    }
}
