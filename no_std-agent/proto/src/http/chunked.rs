//! The chunked transfer coding (RFC 9112 §7.1), as a machine over single bytes.
//!
//! Line ends are CRLF only, sizes have at most seven digits, and extensions and trailers are skipped within a
//! budget, so framing cannot keep a device busy without delivering anything.

/// Most bytes of chunk extensions and trailer fields in one body.
const MAX_OVERHEAD_BYTES: u16 = 1024;

/// Most hexadecimal digits in a chunk size: 256 MiB, far over any buffer here.
const MAX_SIZE_DIGITS: u8 = 7;

/// Where in the coding the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    End,
}

/// What one byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A byte of the body.
    Body,
    /// The last byte of the coding.
    End,
    /// Framing.
    Framing,
    /// Against the coding, or over budget.
    Error,
}

/// A chunked body under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunked {
    place: Place,
    size: u32,
    digits: u8,
    overhead_left: u16,
}

impl Chunked {
    pub(super) const fn new() -> Self {
        Self { place: Place::Size, size: 0, digits: 0, overhead_left: MAX_OVERHEAD_BYTES }
    }

    pub(super) fn push(&mut self, byte: u8) -> Step {
        let next = match (self.place, byte) {
            (Place::Size, b'\r') if self.digits > 0 => Some(Place::SizeLineFeed),
            (Place::Size, b';' | b' ' | b'\t') if self.digits > 0 => Some(Place::Extension),
            (Place::Size, digit) => self.size_digit(digit),
            (Place::Extension, b'\r') => Some(Place::SizeLineFeed),
            (Place::Extension, other) => self.skip(other, Place::Extension),
            (Place::SizeLineFeed, b'\n') if self.size == 0 => Some(Place::TrailerStart),
            (Place::SizeLineFeed, b'\n') => Some(Place::Data),
            (Place::Data, _) => {
                self.size -= 1;
                if self.size == 0 {
                    self.place = Place::DataReturn;
                }
                return Step::Body;
            }
            (Place::DataReturn, b'\r') => Some(Place::DataLineFeed),
            (Place::DataLineFeed, b'\n') => {
                self.digits = 0;
                Some(Place::Size)
            }
            (Place::TrailerStart, b'\r') => Some(Place::LastLineFeed),
            (Place::Trailer, b'\r') => Some(Place::TrailerLineFeed),
            (Place::TrailerStart | Place::Trailer, other) => self.skip(other, Place::Trailer),
            (Place::TrailerLineFeed, b'\n') => Some(Place::TrailerStart),
            (Place::LastLineFeed, b'\n') => Some(Place::End),
            _ => None,
        };
        match next {
            Some(Place::End) => Step::End,
            Some(place) => {
                self.place = place;
                Step::Framing
            }
            None => Step::Error,
        }
    }

    fn size_digit(&mut self, digit: u8) -> Option<Place> {
        let value = char::from(digit).to_digit(16)?;
        self.digits += 1;
        self.size = (self.size << 4) | value;
        (self.digits <= MAX_SIZE_DIGITS).then_some(Place::Size)
    }

    fn skip(&mut self, byte: u8, place: Place) -> Option<Place> {
        self.overhead_left = self.overhead_left.checked_sub(1)?;
        (byte != b'\n').then_some(place)
    }
}
