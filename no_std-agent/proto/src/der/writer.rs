//! DER writing from the back to the front of a lent buffer.
//!
//! The last element is written first, so every length is known when its header is written and nothing is moved
//! or measured twice. Calls therefore come in the reverse of the order in which a reader will see the elements.
//! Whether all of it fitted is asked once, at the end.

use super::{Oid, Tag};
use crate::ShortBuffer;

/// A buffer that fills from its end. After something that does not fit nothing more is written, and
/// [`finish`](Self::finish) says so.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    start: usize,
    is_short: bool,
}

impl<'a> Writer<'a> {
    /// A writer whose output will end at the end of `buffer`.
    #[must_use]
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        let start = buffer.len();
        Self { buffer, start, is_short: false }
    }

    /// Puts `bytes` in front of what is there.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let start = self.start.checked_sub(bytes.len()).filter(|_| !self.is_short);
        match start.and_then(|start| self.buffer.get_mut(start..self.start)) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.start -= bytes.len();
            }
            None => self.is_short = true,
        }
    }

    /// Puts an element with this content in front of what is there.
    pub fn element(&mut self, tag: Tag, value: &[u8]) {
        self.nested(tag, |writer| writer.bytes(value));
    }

    /// Puts an element in front of what is there; `content` writes what is inside, last part first. A content of over
    /// 65,535 bytes does not fit anywhere.
    pub fn nested(&mut self, tag: Tag, content: impl FnOnce(&mut Self)) {
        let end = self.start;
        content(self);
        self.header(tag, end - self.start);
    }

    /// Puts an OBJECT IDENTIFIER in front of what is there.
    pub fn oid(&mut self, oid: Oid<'_>) {
        self.element(Tag::OID, oid.0);
    }

    /// Puts a BIT STRING of whole bytes in front of what is there.
    pub fn bit_string(&mut self, bits: &[u8]) {
        self.nested(Tag::BIT_STRING, |writer| {
            writer.bytes(bits);
            writer.bytes(&[0]);
        });
    }

    /// Orders the two elements written last by their encodings, as a SET OF needs (X.690 §11.6). The one in
    /// front has `front` bytes, the one behind it `back`.
    pub(crate) fn order_last_two(&mut self, front: usize, back: usize) {
        let Some(both) = self.buffer.get_mut(self.start..self.start + front + back) else { return };
        if both.split_at_checked(front).is_some_and(|(first, second)| second < first) {
            both.rotate_left(front);
        }
    }

    /// Bytes written so far.
    pub(crate) const fn written(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Bytes written, which are the last ones of the buffer.
    ///
    /// # Errors
    /// [`ShortBuffer`] when something did not fit.
    pub const fn finish(self) -> Result<usize, ShortBuffer> {
        if self.is_short { Err(ShortBuffer) } else { Ok(self.written()) }
    }

    /// Puts identifier and length octets in front of `length` bytes of content.
    // Once in an image, as it is called for each element.
    #[inline(never)]
    pub(crate) fn header(&mut self, tag: Tag, length: usize) {
        let Ok(length) = u16::try_from(length) else {
            self.is_short = true;
            return;
        };
        match length.to_be_bytes() {
            [0, low] if low < 0x80 => self.bytes(&[tag.0, low]),
            [0, low] => self.bytes(&[tag.0, 0x81, low]),
            [high, low] => self.bytes(&[tag.0, 0x82, high, low]),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::der::Reader;

    fn write(size: usize, value: &[u8]) -> Result<Vec<u8>, ShortBuffer> {
        let mut buffer = vec![0; size];
        let mut writer = Writer::new(&mut buffer);
        writer.element(Tag::OCTET_STRING, value);
        let written = writer.finish()?;
        Ok(buffer.split_off(size - written))
    }

    #[test]
    fn what_is_written_reads_back_at_every_length_form() {
        for length in [0, 1, 127, 128, 255, 256, 4000, 65_535] {
            let value = vec![7; length];
            let der = write(70_000, &value).expect("fits");
            let mut reader = Reader::new(&der);
            assert_eq!(reader.element(Tag::OCTET_STRING).expect("one element").value, value);
            assert_eq!(reader.end(), Ok(()));
        }
    }

    #[test]
    fn a_short_buffer_is_an_error_at_every_size() {
        let value = [7; 200];
        for size in 0..203 {
            assert_eq!(write(size, &value), Err(ShortBuffer));
        }
        assert!(write(203, &value).is_ok());
        assert_eq!(write(70_000, &[0; 65_536]), Err(ShortBuffer));
    }

    #[test]
    fn nothing_is_written_after_what_did_not_fit() {
        let mut buffer = [7; 4];
        let mut writer = Writer::new(&mut buffer);
        writer.nested(Tag::SEQUENCE, |inside| {
            inside.bytes(&[0; 5]);
            inside.bytes(&[1]);
        });
        assert_eq!(writer.finish(), Err(ShortBuffer));
        assert_eq!(buffer, [7; 4]);
    }
}
