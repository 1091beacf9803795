//! Strict DER reading over borrowed bytes (X.690 §8, §10, §11).
//!
//! A [`Reader`] is what is left to read; each call takes one element off its front or fails and leaves no
//! half-read value behind. [`Reader::end`] must be called where nothing may follow: unread bytes are an error
//! only there.

use super::{Oid, Tag};
use crate::ascii::decimal;
use crate::time::{CivilTime, UnixTime};

/// Bytes that are not DER (X.690), or not of the structure that is asked for.
///
/// Which rule they break is not said: an error without content is told by the pointer that a value has and it has not,
/// in registers, which makes each of the hundred reads in an image shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DerError;

/// One element: its tag, its content, and its whole encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The identifier octet.
    pub tag: Tag,
    /// The content octets.
    pub value: &'a [u8],
    /// Identifier, length and content.
    pub whole: &'a [u8],
}

/// Bytes that remain to be read as DER elements.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// A reader over the content of the one element with `tag` that `bytes` must be.
    ///
    /// # Errors
    /// As [`Reader::element`], also for bytes behind it.
    pub fn only(bytes: &'a [u8], tag: Tag) -> Result<Self, DerError> {
        let mut outer = Self::new(bytes);
        let inner = outer.enter(tag)?;
        outer.end()?;
        Ok(inner)
    }

    /// Takes the next element, whatever its type.
    ///
    /// # Errors
    /// When the bytes are not one complete DER element of bounded size.
    pub fn any(&mut self) -> Result<Element<'a>, DerError> {
        let (&tag, after_tag) = self.rest.split_first().ok_or(DerError)?;
        if tag & 0x1f == 0x1f {
            return Err(DerError);
        }
        let (length, body) = read_length(after_tag)?;
        let (value, rest) = body.split_at_checked(length).ok_or(DerError)?;
        let whole_length = self.rest.len() - rest.len();
        let whole = self.rest.get(..whole_length).ok_or(DerError)?;
        self.rest = rest;
        Ok(Element { tag: Tag(tag), value, whole })
    }

    /// Takes the next element, which must have `tag`.
    ///
    /// # Errors
    /// As [`Reader::any`], also for another tag.
    pub fn element(&mut self, tag: Tag) -> Result<Element<'a>, DerError> {
        let element = self.any()?;
        if element.tag == tag { Ok(element) } else { Err(DerError) }
    }

    /// Takes the next element, which must have `tag`, and returns its content.
    ///
    /// # Errors
    /// As [`Reader::element`].
    // By far the most called of these: two registers are shorter to return than a whole element.
    #[inline(never)]
    pub fn value(&mut self, tag: Tag) -> Result<&'a [u8], DerError> {
        self.element(tag).map(|element| element.value)
    }

    /// Takes the next element, which must have `tag`, and returns its whole encoding.
    ///
    /// # Errors
    /// As [`Reader::element`].
    #[inline(never)]
    pub fn whole(&mut self, tag: Tag) -> Result<&'a [u8], DerError> {
        self.element(tag).map(|element| element.whole)
    }

    /// Passes over the next element if it has `tag`; reads nothing otherwise.
    ///
    /// # Errors
    /// As [`Reader::any`], once the tag fits.
    pub fn pass_over(&mut self, tag: Tag) -> Result<(), DerError> {
        if self.peek() == Some(tag) { self.any().map(drop) } else { Ok(()) }
    }

    /// Takes the next element, which must have `tag`, and returns a reader over its content.
    ///
    /// # Errors
    /// As [`Reader::element`].
    pub fn enter(&mut self, tag: Tag) -> Result<Self, DerError> {
        self.value(tag).map(Self::new)
    }

    /// Takes a SEQUENCE and returns a reader over its content.
    ///
    /// # Errors
    /// As [`Reader::element`].
    pub fn sequence(&mut self) -> Result<Self, DerError> {
        self.enter(Tag::SEQUENCE)
    }

    /// Takes an OBJECT IDENTIFIER.
    ///
    /// # Errors
    /// As [`Reader::element`], also for padded or cut arcs.
    pub fn oid(&mut self) -> Result<Oid<'a>, DerError> {
        let oid = Oid(self.value(Tag::OID)?);
        if oid.is_well_formed() { Ok(oid) } else { Err(DerError) }
    }

    /// Takes an INTEGER and returns its two's complement content, which is minimal.
    ///
    /// # Errors
    /// As [`Reader::element`], also for padding or no content.
    pub fn integer(&mut self) -> Result<&'a [u8], DerError> {
        let value = self.value(Tag::INTEGER)?;
        match value {
            [] => Err(DerError),
            [0x00, next, ..] if next & 0x80 == 0 => Err(DerError),
            [0xff, next, ..] if next & 0x80 != 0 => Err(DerError),
            _ => Ok(value),
        }
    }

    /// Takes an INTEGER from 0 to 255.
    ///
    /// # Errors
    /// As [`Reader::integer`], also for one outside that range.
    pub fn small_integer(&mut self) -> Result<u8, DerError> {
        match self.integer()? {
            [value] if value & 0x80 == 0 => Ok(*value),
            [0x00, value] => Ok(*value),
            _ => Err(DerError),
        }
    }

    /// Takes a BOOLEAN.
    ///
    /// # Errors
    /// As [`Reader::element`], also for anything but 00 and FF (X.690 §11.1).
    pub fn boolean(&mut self) -> Result<bool, DerError> {
        match self.value(Tag::BOOLEAN)? {
            [0x00] => Ok(false),
            [0xff] => Ok(true),
            _ => Err(DerError),
        }
    }

    /// Takes a BIT STRING and returns the number of unused bits and the bytes that hold the bits.
    ///
    /// # Errors
    /// As [`Reader::element`], also when unused bits are over seven or not zero (X.690 §11.2).
    pub fn bit_string(&mut self) -> Result<(u8, &'a [u8]), DerError> {
        let value = self.value(Tag::BIT_STRING)?;
        let (&unused, bits) = value.split_first().ok_or(DerError)?;
        let mask = match unused {
            0 => 0,
            1..=7 => (1_u8 << unused) - 1,
            _ => return Err(DerError),
        };
        match bits.last() {
            None if unused != 0 => Err(DerError),
            Some(last) if last & mask != 0 => Err(DerError),
            _ => Ok((unused, bits)),
        }
    }

    /// Takes a BIT STRING of whole bytes.
    ///
    /// # Errors
    /// As [`Reader::bit_string`], also when there are unused bits.
    pub fn octet_aligned_bit_string(&mut self) -> Result<&'a [u8], DerError> {
        match self.bit_string()? {
            (0, bits) => Ok(bits),
            _ => Err(DerError),
        }
    }

    /// Takes a certificate's Time: UTCTime for 1950-2049 or GeneralizedTime, in Zulu with seconds and without
    /// fractions (RFC 5280 §4.1.2.5). A UTCTime of 1950-1969 reads as the epoch.
    ///
    /// # Errors
    /// As [`Reader::any`], also for any other form.
    pub fn time(&mut self) -> Result<UnixTime, DerError> {
        let element = self.any()?;
        let time = match element.tag {
            Tag::UTC_TIME => utc_time(element.value),
            Tag::GENERALIZED_TIME => generalized_time(element.value),
            _ => return Err(DerError),
        };
        time.ok_or(DerError)
    }

    /// Fails unless everything was read.
    ///
    /// # Errors
    /// [`DerError`].
    pub const fn end(&self) -> Result<(), DerError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DerError) }
    }

    /// Whether everything was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next element, if there is a byte for it.
    #[must_use]
    pub fn peek(&self) -> Option<Tag> {
        self.rest.first().copied().map(Tag)
    }
}

/// Reads a definite, minimal length of at most two octets and returns it with the bytes behind it.
fn read_length(bytes: &[u8]) -> Result<(usize, &[u8]), DerError> {
    let (&first, rest) = bytes.split_first().ok_or(DerError)?;
    match (first, rest) {
        (0x00..=0x7f, _) => Ok((usize::from(first), rest)),
        // 0x80 is the indefinite form of BER.
        (0x80, _) => Err(DerError),
        (0x81, [length, rest @ ..]) if *length >= 0x80 => Ok((usize::from(*length), rest)),
        (0x82, [high, low, rest @ ..]) if *high != 0 => {
            Ok((usize::from(u16::from_be_bytes([*high, *low])), rest))
        }
        (0x81, []) | (0x82, [] | [_]) => Err(DerError),
        (0x81 | 0x82, _) => Err(DerError),
        _ => Err(DerError),
    }
}

fn utc_time(text: &[u8]) -> Option<UnixTime> {
    let (year, rest) = text.split_at_checked(2)?;
    let year = decimal(year)?;
    if (50..70).contains(&year) {
        // Before the epoch: certainly past, which is all that a not-before in these years can mean here.
        civil(1970, rest).map(|_| UnixTime::default())
    } else {
        civil(if year < 50 { 2000 + year } else { 1900 + year }, rest)
    }
}

fn generalized_time(text: &[u8]) -> Option<UnixTime> {
    let (year, rest) = text.split_at_checked(4)?;
    civil(decimal(year)?, rest)
}

/// Reads `MMDDhhmmssZ`.
fn civil(year: u32, rest: &[u8]) -> Option<UnixTime> {
    let Some((digits, b"Z")) = rest.split_at_checked(10) else { return None };
    let two = |at: usize| decimal(digits.get(at..at + 2)?);
    CivilTime { year, month: two(0)?, day: two(2)?, hour: two(4)?, minute: two(6)?, second: two(8)? }
        .to_unix()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(bytes: &[u8]) -> Result<Element<'_>, DerError> {
        Reader::new(bytes).any()
    }

    #[test]
    fn only_minimal_definite_lengths_are_read() {
        assert_eq!(any(&[0x04, 0x01, 0xaa]).map(|e| e.value), Ok([0xaa].as_slice()));
        assert_eq!(any(&[0x30, 0x80, 0x00, 0x00]), Err(DerError));
        assert_eq!(any(&[0x04, 0x81, 0x01, 0xaa]), Err(DerError));
        assert_eq!(any(&[0x04, 0x82, 0x00, 0x01, 0xaa]), Err(DerError));
        assert_eq!(any(&[0x04, 0x83, 0x01, 0x00, 0x00]), Err(DerError));
        assert_eq!(any(&[0x04, 0xff]), Err(DerError));
        assert_eq!(any(&[0x04, 0x82, 0x01]), Err(DerError));
        assert_eq!(any(&[0x04, 0x81]), Err(DerError));
        assert_eq!(any(&[0x04, 0x02, 0xaa]), Err(DerError));
        assert_eq!(any(&[]), Err(DerError));
        assert_eq!(any(&[0x1f, 0x01, 0x00]), Err(DerError));
    }

    #[test]
    fn values_have_one_encoding() {
        assert_eq!(Reader::new(&[0x02, 0x02, 0x00, 0x7f]).integer(), Err(DerError));
        assert_eq!(Reader::new(&[0x02, 0x02, 0xff, 0x80]).integer(), Err(DerError));
        assert_eq!(Reader::new(&[0x02, 0x00]).integer(), Err(DerError));
        assert_eq!(Reader::new(&[0x02, 0x02, 0x00, 0x80]).small_integer(), Ok(128));
        assert_eq!(Reader::new(&[0x02, 0x01, 0x80]).small_integer(), Err(DerError));
        assert_eq!(Reader::new(&[0x01, 0x01, 0x01]).boolean(), Err(DerError));
        assert_eq!(Reader::new(&[0x03, 0x02, 0x04, 0x08]).bit_string(), Err(DerError));
        assert_eq!(Reader::new(&[0x03, 0x01, 0x01]).bit_string(), Err(DerError));
        assert_eq!(Reader::new(&[0x03, 0x02, 0x03, 0x08]).bit_string(), Ok((3, [0x08].as_slice())));
        assert_eq!(Reader::new(&[0x06, 0x02, 0x2a, 0x86]).oid(), Err(DerError));
        assert_eq!(Reader::new(&[0x06, 0x02, 0x80, 0x01]).oid(), Err(DerError));
        assert_eq!(Reader::new(&[0x06, 0x00]).oid(), Err(DerError));
    }

    #[test]
    fn times_are_zulu_with_seconds() {
        let read = |bytes: &[u8]| Reader::new(bytes).time().map(UnixTime::as_secs);
        assert_eq!(read(b"\x17\x0d260101000000Z"), Ok(1_767_225_600));
        assert_eq!(read(b"\x18\x0f20260101000000Z"), Ok(1_767_225_600));
        assert_eq!(read(b"\x17\x0d510101000000Z"), Ok(0));
        assert_eq!(read(b"\x17\x0b2601010000Z"), Err(DerError));
        assert_eq!(read(b"\x17\x0d260101000000+"), Err(DerError));
        assert_eq!(read(b"\x18\x1120260101000000.5Z"), Err(DerError));
        assert_eq!(read(b"\x17\x0d261301000000Z"), Err(DerError));
    }

    #[test]
    fn trailing_bytes_show_at_the_end() {
        let mut reader = Reader::new(&[0x05, 0x00, 0x05]);
        assert!(reader.element(Tag::NULL).is_ok());
        assert_eq!(reader.end(), Err(DerError));
    }
}
