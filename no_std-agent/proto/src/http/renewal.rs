//! The `Muster-Renewal` field: when the server would like to see this device again.
//!
//! It is a Dictionary of RFC 9651 with Dates, e.g. `renew-at=@1767225600, urgent-at=@1768225600`. Members and
//! parameters of other names and types are parsed as the RFC says and passed over. A field that does not parse is
//! ignored as a whole (RFC 9651 §4.2); whether the times fit the certificate is decided where they are used.

use crate::ascii;
use crate::time::UnixTime;

/// Times that a server asks for, unchecked against any certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// When to renew.
    pub renew_at: Option<UnixTime>,
    /// From when on renewal is urgent.
    pub urgent_at: Option<UnixTime>,
}

/// Most digits of a structured Integer or Date (RFC 9651 §3.3.1).
const MAX_INTEGER_DIGITS: usize = 15;

/// Reads one field value; `None` when it is not a Dictionary.
#[must_use]
#[inline(never)]
pub fn parse_renewal(field: &[u8]) -> Option<Steering> {
    let mut text = Text(field.trim_ascii());
    let mut steering = Steering::default();
    while !text.0.is_empty() {
        let key = text.key()?;
        let date = if text.take(b'=') { text.member()? } else { None };
        text.parameters()?;
        match key {
            b"renew-at" => steering.renew_at = date,
            b"urgent-at" => steering.urgent_at = date,
            _ => {}
        }
        text.skip_while(is_blank);
        if text.0.is_empty() {
            break;
        }
        if !text.take(b',') {
            return None;
        }
        text.skip_while(is_blank);
        if text.0.is_empty() {
            // A trailing comma (RFC 9651 §4.2.2 step 2.10).
            return None;
        }
    }
    Some(steering)
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

const fn is_space(byte: u8) -> bool {
    byte == b' '
}

const fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

/// What is left of the field.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// An Item or Inner List behind a `=`; the value if it is a Date after the epoch.
    fn member(&mut self) -> Option<Option<UnixTime>> {
        if !self.take(b'(') {
            return self.bare_item();
        }
        loop {
            self.skip_while(is_space);
            if self.take(b')') {
                return Some(None);
            }
            self.bare_item()?;
            self.parameters()?;
            if !matches!(self.0.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.skip_while(is_space);
            self.key()?;
            if self.take(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        self.0.first().filter(|first| first.is_ascii_lowercase() || **first == b'*')?;
        Some(self.skip_while(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.' | b'*')
        }))
    }

    fn bare_item(&mut self) -> Option<Option<UnixTime>> {
        let (&first, rest) = self.0.split_first()?;
        match first {
            b'@' => {
                self.0 = rest;
                return self.date();
            }
            b'-' | b'0'..=b'9' => self.number()?,
            b'"' => self.quoted(rest)?,
            b'%' => self.quoted(rest.strip_prefix(b"\"")?)?,
            b':' => {
                self.0 = rest;
                self.skip_while(|byte| ascii::is_alphanumeric_or(byte, b"+/="));
                self.take(b':').then_some(())?;
            }
            b'?' => self.0 = rest.strip_prefix(b"0").or_else(|| rest.strip_prefix(b"1"))?,
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                self.skip_while(|byte| ascii::is_alphanumeric_or(byte, b"!#$%&'*+-.^_`|~:/"));
            }
            _ => return None,
        }
        Some(None)
    }

    /// A Date without its `@`: an Integer of seconds. Before the epoch counts as no date for us.
    fn date(&mut self) -> Option<Option<UnixTime>> {
        let negative = self.take(b'-');
        let digits = self.skip_while(is_digit);
        if digits.is_empty() || digits.len() > MAX_INTEGER_DIGITS || self.0.first() == Some(&b'.') {
            return None;
        }
        let seconds = digits.iter().fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0'));
        Some((!negative).then_some(UnixTime::from_secs(seconds)))
    }

    /// An Integer or Decimal (RFC 9651 §4.2.4): at most 15 digits, or 12 before and 3 behind the point.
    fn number(&mut self) -> Option<()> {
        self.take(b'-');
        let whole = self.skip_while(is_digit).len();
        if !self.take(b'.') {
            return (1..=MAX_INTEGER_DIGITS).contains(&whole).then_some(());
        }
        let fraction = self.skip_while(is_digit).len();
        ((1..=12).contains(&whole) && (1..=3).contains(&fraction)).then_some(())
    }

    /// A String or Display String, from behind its opening quote to behind its closing one.
    fn quoted(&mut self, text: &'a [u8]) -> Option<()> {
        let mut bytes = text.iter().enumerate();
        while let Some((at, &byte)) = bytes.next() {
            match byte {
                b'"' => {
                    self.0 = text.get(at + 1..)?;
                    return Some(());
                }
                b'\\' => {
                    bytes.next().filter(|(_, escaped)| matches!(escaped, b'"' | b'\\'))?;
                }
                0x20..0x7f => {}
                _ => return None,
            }
        }
        None
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((&first, rest)) if first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    // Once in an image, whatever is accepted.
    #[inline(never)]
    fn skip_while(&mut self, accept: fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !accept(*byte)).unwrap_or(self.0.len());
        let (skipped, rest) = self.0.split_at_checked(end).unwrap_or((self.0, &[]));
        self.0 = rest;
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(field: &str) -> Option<(Option<u64>, Option<u64>)> {
        let steering = parse_renewal(field.as_bytes())?;
        Some((steering.renew_at.map(UnixTime::as_secs), steering.urgent_at.map(UnixTime::as_secs)))
    }

    #[test]
    fn both_times_are_read_in_any_order_and_spacing() {
        let both = Some((Some(1_767_225_600), Some(1_768_225_600)));
        assert_eq!(times("renew-at=@1767225600, urgent-at=@1768225600"), both);
        assert_eq!(times(" urgent-at=@1768225600\t,\trenew-at=@1767225600 "), both);
        assert_eq!(times("renew-at=@1, renew-at=@1767225600,urgent-at=@1768225600;why=load"), both);
    }

    #[test]
    fn members_of_other_names_and_types_are_passed_over() {
        let field = "a, b=?0, c=\"x, \\\"y\\\"\", d=:aGk=:, e=(1 \"two\";x=3 tok), f=-1.5, g=%\"f%c3\", renew-at=@7, h=*t/x";
        assert_eq!(times(field), Some((Some(7), None)));
        assert_eq!(times("renew-at=7"), Some((None, None)));
        assert_eq!(times("renew-at=@-7"), Some((None, None)));
        assert_eq!(times(""), Some((None, None)));
    }

    #[test]
    fn a_field_that_breaks_the_syntax_is_no_field() {
        for field in [
            "renew-at=@7,",
            "renew-at=@",
            "renew-at=@1.5",
            "renew-at=@1234567890123456",
            "Renew-At=@7",
            "renew-at=@7 urgent-at=@8",
            "renew-at=@7, x=\"open",
            "renew-at=@7, x=(1",
            "renew-at=@7, x=?2",
            "renew-at=@7, x=1.",
            "renew-at =@7",
            "=@7",
        ] {
            assert_eq!(times(field), None, "{field}");
        }
    }
}
