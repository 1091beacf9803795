//! Looks at TLS record headers before embedded-tls does, and ends a connection on those that hurt it.
//!
//! Only the five cleartext bytes can be seen here (RFC 8446 §5.1, §5.2), and they are enough for this:
//! - an encrypted record must be longer than its 16-byte tag: of an empty inner plaintext embedded-tls unwraps the
//!   content type that is not there, a panic that needs no authentication;
//! - after the ServerHello nothing is in the clear but one change_cipher_spec: embedded-tls takes a handshake
//!   message in the clear at any time, and after the handshake it panics on one, and would believe a close_notify;
//! - a record that does not fit the receive memory ends the connection before it is read.
//!
//! What is behind the encryption is for [`cipher`](super::cipher) to see. It is told here whether the handshake is
//! over: the first thing that the client sends after the server's hello is its answer to the whole of the server's
//! flight, and embedded-tls reads no record before it needs it.

use core::fmt;

use embedded_io::{Error, ErrorKind, ErrorType, Read, Write};

/// A transport of which the records that it delivers are screened.
pub(super) struct Screened<IO> {
    io: IO,
    max_record_bytes: usize,
    stage: Stage,
    place: Place,
    /// The client has answered the server's flight: what comes now is not of the handshake.
    answered: bool,
}

/// What the server may send in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// ServerHello or an alert.
    Hello,
    /// One change_cipher_spec for the sake of middleboxes (RFC 8446 §D.4).
    Compatibility,
    /// Nothing.
    Protected,
}

/// Where in a record the next byte is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Header { header: [u8; HEADER_BYTES], len: usize },
    Body { left: usize },
}

impl<IO> Screened<IO> {
    pub(super) const fn new(io: IO, max_record_bytes: usize) -> Self {
        Self { io, max_record_bytes, stage: Stage::Hello, place: Place::BEGIN, answered: false }
    }

    pub(super) fn into_inner(self) -> IO {
        self.io
    }

    /// Puts [`AFTER_HANDSHAKE`] where the version is, in a piece of a header that begins at `begin`.
    fn mark(&self, begin: usize, piece: &mut [u8]) {
        if self.answered {
            for (place, mark) in piece.iter_mut().zip(HEADER_MARK.iter().skip(begin)) {
                *place = mark.unwrap_or(*place);
            }
        }
    }

    /// Takes bytes that were read, which lie in one part of a record.
    fn advance(&mut self, bytes: &[u8]) -> Result<(), RecordRefused> {
        match &mut self.place {
            Place::Body { left } => *left = left.saturating_sub(bytes.len()),
            Place::Header { header, len } => {
                let end = *len + bytes.len();
                header.get_mut(*len..end).ok_or(RecordRefused)?.copy_from_slice(bytes);
                *len = end;
                if end == HEADER_BYTES {
                    let [content_type, _, _, high, low] = *header;
                    let left = usize::from(u16::from_be_bytes([high, low]));
                    self.judge(content_type, left)?;
                    self.place = Place::Body { left };
                }
            }
        }
        if matches!(self.place, Place::Body { left: 0 }) {
            self.place = Place::BEGIN;
        }
        Ok(())
    }

    /// The deadline between two records costs nothing; within one, what was read of it is lost.
    const fn failed(&self, kind: ErrorKind) -> ScreenError {
        match self.place {
            Place::Header { len: 0, .. } => ScreenError(kind),
            _ => given_up(kind),
        }
    }

    fn judge(&mut self, content_type: u8, len: usize) -> Result<(), RecordRefused> {
        self.stage = match (self.stage, content_type) {
            (Stage::Hello, HANDSHAKE) if len > 0 => Stage::Compatibility,
            (Stage::Hello, ALERT) if len == ALERT_BYTES => Stage::Hello,
            (Stage::Compatibility, CHANGE_CIPHER_SPEC) if len == 1 => Stage::Protected,
            (Stage::Compatibility | Stage::Protected, APPLICATION_DATA) if len > TAG_BYTES => {
                Stage::Protected
            }
            _ => return Err(RecordRefused),
        };
        if len > self.max_record_bytes { Err(RecordRefused) } else { Ok(()) }
    }
}

impl Place {
    const BEGIN: Self = Self::Header { header: [0; HEADER_BYTES], len: 0 };
}

struct RecordRefused;

impl<IO: Read> Read for Screened<IO> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        // Never past the end of a header or a record, so that each header is judged before anyone acts on it.
        let left = match self.place {
            Place::Header { len, .. } => HEADER_BYTES - len,
            Place::Body { left } => left,
        };
        let wanted = left.min(buffer.len());
        let place = buffer.get_mut(..wanted).unwrap_or_default();
        let read = self.io.read(place).map_err(|error| self.failed(error.kind()))?;
        let begin = match self.place {
            Place::Header { len, .. } => Some(len),
            Place::Body { .. } => None,
        };
        let piece = place.get_mut(..read).unwrap_or_default();
        self.advance(piece).map_err(|_| ScreenError(ErrorKind::InvalidData))?;
        if let Some(begin) = begin {
            self.mark(begin, piece);
        }
        Ok(read)
    }
}

impl<IO: Write> Write for Screened<IO> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.answered |= self.stage != Stage::Hello;
        self.io.write(bytes).map_err(|error| given_up(error.kind()))
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        self.io.flush().map_err(|error| given_up(error.kind()))
    }
}

impl<IO> ErrorType for Screened<IO> {
    type Error = ScreenError;
}

/// A record that is not all here, or not all sent, at the deadline.
const fn given_up(kind: ErrorKind) -> ScreenError {
    ScreenError(match kind {
        ErrorKind::TimedOut => GIVEN_UP,
        kind => kind,
    })
}

/// How the deadline within a record is told.
pub(super) const GIVEN_UP: ErrorKind = ErrorKind::Interrupted;

/// The transport's error; `TimedOut` only if nothing is lost by it, and [`GIVEN_UP`] otherwise; `InvalidData` for a
/// record that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScreenError(ErrorKind);

impl Error for ScreenError {
    fn kind(&self) -> ErrorKind {
        self.0
    }
}

impl fmt::Display for ScreenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl core::error::Error for ScreenError {}

const HEADER_BYTES: usize = 5;

/// Stands for the version in the header of a record that came after the handshake. No record is sent with it.
pub(super) const AFTER_HANDSHAKE: [u8; 2] = [0xff, 0xff];

const HEADER_MARK: [Option<u8>; HEADER_BYTES] =
    [None, Some(AFTER_HANDSHAKE[0]), Some(AFTER_HANDSHAKE[1]), None, None];

/// The AES-GCM tag. An inner plaintext has at least its content type (RFC 8446 §5.2), so a record is longer.
const TAG_BYTES: usize = 16;

const ALERT_BYTES: usize = 2;

/// Content types of RFC 8446 §5.1.
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    /// Delivers at most `step` bytes at a time.
    struct Dripping<'b> {
        bytes: &'b [u8],
        step: usize,
    }

    impl ErrorType for Dripping<'_> {
        type Error = core::convert::Infallible;
    }

    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
            let len = self.step.min(buffer.len()).min(self.bytes.len());
            buffer[..len].copy_from_slice(&self.bytes[..len]);
            self.bytes = &self.bytes[len..];
            Ok(len)
        }
    }

    /// The same with a half for writing, which takes all.
    struct Duplex<'b>(Dripping<'b>);

    impl ErrorType for Duplex<'_> {
        type Error = core::convert::Infallible;
    }

    impl Read for Duplex<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
            self.0.read(buffer)
        }
    }

    impl Write for Duplex<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> Result<(), Self::Error> {
            Ok(())
        }
    }

    /// How many bytes come through before the end, or before a refusal.
    fn passed(bytes: &[u8], step: usize) -> Result<usize, usize> {
        let mut screened = Screened::new(Dripping { bytes, step }, 64);
        let mut total = 0;
        loop {
            match screened.read(&mut [0; 100]) {
                Ok(0) => return Ok(total),
                Ok(read) => total += read,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidData);
                    return Err(total);
                }
            }
        }
    }

    const HELLO: [u8; 7] = [22, 3, 3, 0, 2, 0, 0];
    const COMPATIBILITY: [u8; 6] = [20, 3, 3, 0, 1, 1];
    const DATA: [u8; 22] = [23, 3, 3, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    fn check(records: &[&[u8]], expected: Result<usize, usize>) {
        let mut bytes = [0; 200];
        let mut len = 0;
        for record in records {
            bytes[len..len + record.len()].copy_from_slice(record);
            len += record.len();
        }
        for step in 1..40 {
            let found = passed(&bytes[..len], step);
            // A refused header's own bytes may have come through in part, but never its last one.
            match expected {
                Ok(_) => assert_eq!(found, expected, "{step}"),
                Err(before) => assert!(found.is_err_and(|at| (before..before + 5).contains(&at)), "{step}"),
            }
        }
    }

    #[test]
    fn an_orderly_handshake_passes() {
        check(&[&HELLO, &COMPATIBILITY, &DATA, &DATA], Ok(57));
        check(&[&HELLO, &DATA, &DATA], Ok(51));
        check(&[&[21, 3, 3, 0, 2, 2, 40]], Ok(7));
    }

    #[test]
    fn records_after_the_client_s_answer_say_so_however_they_are_cut() {
        for step in 1..30 {
            let mut bytes = [0; HELLO.len() + 2 * DATA.len()];
            bytes[..HELLO.len()].copy_from_slice(&HELLO);
            bytes[HELLO.len()..][..DATA.len()].copy_from_slice(&DATA);
            bytes[HELLO.len() + DATA.len()..].copy_from_slice(&DATA);
            let mut screened = Screened::new(Duplex(Dripping { bytes: &bytes, step }), 64);
            let read = |screened: &mut Screened<Duplex<'_>>, len: usize| {
                let mut record = [0; DATA.len()];
                screened.read_exact(&mut record[..len]).expect("sound records");
                record
            };
            screened.write(b"hello").expect("sent");
            assert_eq!(read(&mut screened, HELLO.len())[..HELLO.len()], HELLO);
            assert_eq!(read(&mut screened, DATA.len()), DATA, "still the handshake");
            screened.write(b"finished").expect("sent");
            let mut marked = DATA;
            marked[1..3].copy_from_slice(&AFTER_HANDSHAKE);
            assert_eq!(read(&mut screened, DATA.len()), marked, "{step}");
        }
    }

    #[test]
    fn an_encrypted_record_without_content_is_refused() {
        for len in [0, 1, 16] {
            check(&[&HELLO, &[23, 3, 3, 0, len, 0]], Err(7));
        }
    }

    #[test]
    fn nothing_is_in_the_clear_after_the_hello() {
        check(&[&HELLO, &HELLO], Err(7));
        check(&[&HELLO, &[21, 3, 3, 0, 2, 1, 0]], Err(7));
        check(&[&HELLO, &DATA, &HELLO], Err(29));
        check(&[&HELLO, &DATA, &COMPATIBILITY], Err(29));
        check(&[&HELLO, &COMPATIBILITY, &COMPATIBILITY], Err(13));
        check(&[&COMPATIBILITY], Err(0));
        check(&[&DATA], Err(0));
    }

    /// Delivers these bytes and is silent then, for ever.
    struct Silent<'b>(Dripping<'b>);

    impl ErrorType for Silent<'_> {
        type Error = ErrorKind;
    }

    impl Read for Silent<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
            let Ok(read) = self.0.read(buffer);
            if read == 0 { Err(ErrorKind::TimedOut) } else { Ok(read) }
        }
    }

    #[test]
    fn the_deadline_between_two_records_is_told_from_the_one_within() {
        let whole = [&HELLO[..], &DATA].concat();
        for len in 0..=whole.len() {
            let mut screened = Screened::new(Silent(Dripping { bytes: &whole[..len], step: 3 }), 64);
            let error = loop {
                if let Err(error) = screened.read(&mut [0; 100]) {
                    break error.kind();
                }
            };
            let is_between = [0, HELLO.len(), whole.len()].contains(&len);
            assert_eq!(error, if is_between { ErrorKind::TimedOut } else { GIVEN_UP }, "{len}");
        }
    }

    #[test]
    fn a_record_beyond_the_memory_is_refused() {
        check(&[&HELLO, &[23, 3, 3, 0, 65, 0]], Err(7));
        check(&[&[22, 3, 3, 0xff, 0xff, 0]], Err(0));
        check(&[&[22, 3, 3, 0, 0, 0]], Err(0));
        check(&[&[24, 3, 3, 0, 4, 0]], Err(0));
    }
}
