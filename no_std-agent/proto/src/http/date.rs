//! IMF-fixdate, the one form of HTTP date that is sent today (RFC 9110 §5.6.7).
//!
//! The two obsolete forms carry a two-digit year or no zone; a device that sets its clock by this does without.

use crate::time::{CivilTime, UnixTime};

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

const DAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT`; `None` for any other form. The day's name is not compared with the date.
#[must_use]
pub fn parse_http_date(text: &[u8]) -> Option<UnixTime> {
    let (day_name, rest) = text.split_first_chunk::<3>()?;
    if !DAYS.contains(&day_name) {
        return None;
    }
    let rest = rest.strip_prefix(b", ")?;
    let (day, rest) = number::<2>(rest)?;
    let (month, rest) = rest.strip_prefix(b" ")?.split_first_chunk::<3>()?;
    let month = (1..).zip(MONTHS).find(|(_, name)| *name == month)?.0;
    let (year, rest) = number::<4>(rest.strip_prefix(b" ")?)?;
    let (hour, rest) = number::<2>(rest.strip_prefix(b" ")?)?;
    let (minute, rest) = number::<2>(rest.strip_prefix(b":")?)?;
    let (second, rest) = number::<2>(rest.strip_prefix(b":")?)?;
    if rest != b" GMT" {
        return None;
    }
    // A leap second has no Unix time of its own; it reads as the second before.
    CivilTime { year, month, day, hour, minute, second: if second == 60 { 59 } else { second } }.to_unix()
}

fn number<const DIGITS: usize>(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<DIGITS>()?;
    let value = digits.iter().try_fold(0_u32, |value, digit| {
        digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0'))
    })?;
    Some((value, rest))
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
        assert_eq!(parse_http_date(b""), None);
    }
}
