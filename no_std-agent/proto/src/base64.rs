//! Base64 as EST carries it: RFC 4648 §4 with padding, RFC 8951 §3.
//!
//! Encoding is unwrapped and goes through a [`Encoder`] that keeps at most two bytes, so that a request can be
//! written in pieces of any size. Decoding happens in place in the buffer that received the text; CR, LF, space
//! and tab are skipped anywhere, and every other deviation (base64url letters, missing padding, text after
//! padding, stray bits) is an error.

/// Why text is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base64Error {
    /// A byte that is neither of the alphabet, nor padding, nor white space.
    Alphabet,
    /// Padding is missing, too long, or followed by more text.
    Padding,
    /// The unused bits before the padding are not zero, so two texts would mean the same bytes.
    StrayBits,
}

/// Length of the encoding of `bytes` bytes; `None` if that does not fit a `usize`.
#[must_use]
pub const fn encoded_len(bytes: usize) -> Option<usize> {
    bytes.div_ceil(3).checked_mul(4)
}

/// An encoder that is fed in parts and hands each group of four characters to `emit`.
#[derive(Debug, Default)]
pub struct Encoder {
    held: [u8; 2],
    held_len: u8,
}

impl Encoder {
    /// An encoder at the start of a text.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Encodes `bytes`; the last one or two may be kept back for the next call.
    pub fn push(&mut self, bytes: &[u8], emit: &mut dyn FnMut(&[u8; 4])) {
        for &byte in bytes {
            match self.held_len {
                0 => self.held = [byte, 0],
                1 => self.held = [self.held[0], byte],
                _ => {
                    emit(&group([self.held[0], self.held[1], byte]));
                    self.held_len = 0;
                    continue;
                }
            }
            self.held_len += 1;
        }
    }

    /// Ends the text: writes the last group with its padding, if there is one.
    pub fn finish(self, emit: &mut dyn FnMut(&[u8; 4])) {
        let [first, second] = self.held;
        match self.held_len {
            0 => {}
            1 => {
                let [a, b, _, _] = group([first, 0, 0]);
                emit(&[a, b, PAD, PAD]);
            }
            _ => {
                let [a, b, c, _] = group([first, second, 0]);
                emit(&[a, b, c, PAD]);
            }
        }
    }
}

/// Decodes the text in `buffer` over itself and returns the bytes, which begin where the text began.
///
/// # Errors
/// [`Base64Error`] for anything that is not padded standard base64 with optional white space.
pub fn decode_in_place(buffer: &mut [u8]) -> Result<&mut [u8], Base64Error> {
    let mut written = 0;
    let mut group = Group::default();
    for read in 0..buffer.len() {
        let Some(&byte) = buffer.get(read) else { break };
        if matches!(byte, b'\r' | b'\n' | b' ' | b'\t') {
            continue;
        }
        let Some((bytes, count)) = group.push(byte)? else { continue };
        // At most three bytes are written for four that were read, so writing never overtakes reading.
        for value in bytes.iter().take(count) {
            if let Some(place) = buffer.get_mut(written) {
                *place = *value;
            }
            written += 1;
        }
    }
    group.end()?;
    buffer.get_mut(..written).ok_or(Base64Error::Padding)
}

/// Four characters on their way to become up to three bytes.
#[derive(Default)]
struct Group {
    bits: u32,
    characters: u8,
    padding: u8,
    ended: bool,
}

impl Group {
    fn push(&mut self, byte: u8) -> Result<Option<([u8; 3], usize)>, Base64Error> {
        if self.ended {
            return Err(Base64Error::Padding);
        }
        if byte == PAD {
            if self.characters < 2 {
                return Err(Base64Error::Padding);
            }
            self.padding += 1;
        } else {
            let value = value_of(byte).ok_or(Base64Error::Alphabet)?;
            if self.padding > 0 {
                return Err(Base64Error::Padding);
            }
            self.bits = (self.bits << 6) | u32::from(value);
            self.characters += 1;
        }
        if self.characters + self.padding < 4 {
            return Ok(None);
        }
        let [_, a, b, c] = (self.bits << (6 * u32::from(self.padding))).to_be_bytes();
        let (count, stray) = match self.padding {
            0 => (3, 0),
            1 => (2, c),
            _ => (1, b | c),
        };
        if stray != 0 {
            return Err(Base64Error::StrayBits);
        }
        *self = Self { ended: self.padding > 0, ..Self::default() };
        Ok(Some(([a, b, c], count)))
    }

    const fn end(&self) -> Result<(), Base64Error> {
        if self.characters == 0 { Ok(()) } else { Err(Base64Error::Padding) }
    }
}

fn group(bytes: [u8; 3]) -> [u8; 4] {
    let [a, b, c] = bytes;
    let bits = (u32::from(a) << 16) | (u32::from(b) << 8) | u32::from(c);
    [18, 12, 6, 0].map(|shift| {
        let index = usize::try_from((bits >> shift) & 0x3f).unwrap_or(0);
        ALPHABET.get(index).copied().unwrap_or(PAD)
    })
}

const fn value_of(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PAD: u8 = b'=';

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn encode(parts: &[&[u8]]) -> Vec<u8> {
        let mut text = Vec::new();
        let mut encoder = Encoder::new();
        for part in parts {
            encoder.push(part, &mut |group| text.extend_from_slice(group));
        }
        encoder.finish(&mut |group| text.extend_from_slice(group));
        text
    }

    fn decode(text: &[u8]) -> Result<Vec<u8>, Base64Error> {
        let mut buffer = text.to_vec();
        decode_in_place(&mut buffer).map(|bytes| bytes.to_vec())
    }

    #[test]
    fn agrees_with_the_vectors_of_rfc_4648_section_10() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(&[bytes.as_bytes()]), text.as_bytes());
            assert_eq!(decode(text.as_bytes()).as_deref(), Ok(bytes.as_bytes()));
        }
    }

    #[test]
    fn skips_white_space_anywhere() {
        assert_eq!(decode(b" Z\tg\r\n=\n= \r\n").as_deref(), Ok(b"f".as_slice()));
    }

    #[test]
    fn refuses_what_is_not_strict() {
        assert_eq!(decode(b"Zm9"), Err(Base64Error::Padding));
        assert_eq!(decode(b"Zg="), Err(Base64Error::Padding));
        assert_eq!(decode(b"Z==="), Err(Base64Error::Padding));
        assert_eq!(decode(b"===="), Err(Base64Error::Padding));
        assert_eq!(decode(b"Zg==Zg=="), Err(Base64Error::Padding));
        assert_eq!(decode(b"Zg=g"), Err(Base64Error::Padding));
        assert_eq!(decode(b"Zh=="), Err(Base64Error::StrayBits));
        assert_eq!(decode(b"Zm9-"), Err(Base64Error::Alphabet));
        assert_eq!(decode(b"Zm9\0"), Err(Base64Error::Alphabet));
    }

    proptest! {
        #[test]
        fn what_is_encoded_in_any_parts_decodes_again(bytes: Vec<u8>, cut: prop::sample::Index) {
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            let text = encode(&[head, tail]);
            prop_assert_eq!(Some(text.len()), encoded_len(bytes.len()));
            prop_assert_eq!(decode(&text), Ok(bytes));
        }

        #[test]
        fn accepted_text_is_the_only_text_for_its_bytes(text in "[A-Za-z0-9+/=]{0,24}") {
            if let Ok(bytes) = decode(text.as_bytes()) {
                prop_assert_eq!(encode(&[&bytes]), text.as_bytes());
            }
        }
    }
}
