//! Takes a response off the wire, in pieces of any size, into one lent buffer.
//!
//! The head is gathered in the buffer and read when it is complete; then the body takes its place. Interim
//! responses (100, 103) are read and dropped.

use super::chunked::{Chunked, Step};
use super::fields::{Body, Head, HttpError, status_so_far};

/// Largest head: real EST servers send about 300 bytes, proxies in front of them up to about 2,000.
const MAX_HEAD_BYTES: usize = 4096;

/// Most interim responses before the final one.
const MAX_INTERIM: u8 = 4;

/// How far a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// The response is complete: its head is [`ResponseReader::head`], its body the first `body_len` bytes of the buffer.
    Complete {
        /// Length of the body.
        body_len: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Head,
    Chunks(Chunked),
    Bytes(usize),
    Complete,
}

/// One response under way.
#[derive(Clone, Copy, Debug)]
pub struct ResponseReader {
    part: Part,
    head: Head,
    filled: usize,
    interim: u8,
}

impl Default for ResponseReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ResponseReader {
    /// A reader before the first byte of a response.
    #[must_use]
    pub const fn new() -> Self {
        Self { part: Part::Head, head: Head::UNREAD, filled: 0, interim: 0 }
    }

    /// Takes the next bytes of the connection. `buffer` must be the same memory at each call.
    ///
    /// # Errors
    /// [`HttpError`]; the connection must then be closed. Bytes behind a complete response are
    /// [`HttpError::Unexpected`].
    pub fn feed(&mut self, bytes: &[u8], buffer: &mut [u8]) -> Result<Progress, HttpError> {
        let mut progress = Progress::Partial;
        for &byte in bytes {
            progress = self.push(byte, buffer)?;
        }
        Ok(progress)
    }

    /// The head of a response that is complete.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// Whether nothing of the response has come yet.
    #[must_use]
    pub const fn is_untouched(&self) -> bool {
        matches!(self.part, Part::Head) && self.filled == 0 && self.interim == 0
    }

    /// The status of the final response, once its status line is there. `buffer` as for [`feed`](Self::feed).
    #[must_use]
    pub fn status(&self, buffer: &[u8]) -> Option<u16> {
        match &self.part {
            Part::Head => status_so_far(buffer.get(..self.filled)?).filter(|status| *status >= 200),
            Part::Bytes(_) | Part::Chunks(_) => Some(self.head.status),
            Part::Complete => None,
        }
    }

    fn push(&mut self, byte: u8, buffer: &mut [u8]) -> Result<Progress, HttpError> {
        match &mut self.part {
            Part::Head => self.head_byte(byte, buffer),
            Part::Chunks(chunked) => match chunked.push(byte) {
                Step::Body => self.store(byte, buffer, HttpError::BodyTooLarge),
                Step::End => Ok(self.complete()),
                Step::Framing => Ok(Progress::Partial),
                Step::Error => Err(HttpError::Chunk),
            },
            Part::Bytes(left) => {
                *left -= 1;
                let is_last = *left == 0;
                self.store(byte, buffer, HttpError::BodyTooLarge)?;
                Ok(if is_last { self.complete() } else { Progress::Partial })
            }
            Part::Complete => Err(HttpError::Unexpected),
        }
    }

    fn head_byte(&mut self, byte: u8, buffer: &mut [u8]) -> Result<Progress, HttpError> {
        if self.filled == MAX_HEAD_BYTES {
            return Err(HttpError::HeadTooLarge);
        }
        self.store(byte, buffer, HttpError::HeadTooLarge)?;
        let text = buffer.get(..self.filled).unwrap_or_default();
        if !text.ends_with(b"\r\n\r\n") {
            return Ok(Progress::Partial);
        }
        self.head.read(text)?;
        self.filled = 0;
        let length = match self.head.body {
            _ if self.head.status < 200 => {
                if self.head.status == 101 || self.interim == MAX_INTERIM {
                    return Err(HttpError::TooManyInterim);
                }
                self.interim += 1;
                return Ok(Progress::Partial);
            }
            Body::Chunked => {
                self.part = Part::Chunks(Chunked::new());
                return Ok(Progress::Partial);
            }
            Body::Length(length) => length,
        };
        if length == 0 {
            return Ok(self.complete());
        }
        if length > buffer.len() {
            return Err(HttpError::BodyTooLarge);
        }
        self.part = Part::Bytes(length);
        Ok(Progress::Partial)
    }

    fn store(&mut self, byte: u8, buffer: &mut [u8], full: HttpError) -> Result<Progress, HttpError> {
        *buffer.get_mut(self.filled).ok_or(full)? = byte;
        self.filled += 1;
        Ok(Progress::Partial)
    }

    const fn complete(&mut self) -> Progress {
        self.part = Part::Complete;
        Progress::Complete { body_len: self.filled }
    }
}

#[cfg(test)]
mod tests;
