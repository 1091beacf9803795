//! The head of a response, once it is complete: the few fields that decide something.
//!
//! Everything is copied into small values, because the buffer that held the head will take the body. What could
//! be read in two ways is refused: two different lengths, a length beside a transfer coding, folded lines, bare
//! line feeds, white space before a colon (RFC 9112 §5, §6.3).

use super::date::parse_http_date;
use super::renewal::{Steering, parse_renewal};
use crate::ascii::{self, decimal};
use crate::time::UnixTime;

/// Why bytes are not a response that can be read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// The body is larger than the buffer lent for it, or than its declared size.
    BodyTooLarge,
    /// The chunked coding is broken or wastes too much.
    Chunk,
    /// A field line that breaks the syntax.
    Field,
    /// Its length is missing, doubled or contradicted, so the end of the body is unknown.
    Framing,
    /// The head is larger than its limit or than the buffer.
    HeadTooLarge,
    /// The status line is not one of HTTP/1.0 or 1.1.
    StatusLine,
    /// Too many interim (1xx) responses, or a switch of protocols.
    TooManyInterim,
    /// Bytes came that belong to no response.
    Unexpected,
}

/// How long to wait before asking again (RFC 9110 §10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// Not before this time by the server's clock.
    At(UnixTime),
    /// This many seconds.
    Seconds(u32),
}

/// How the body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// In chunks.
    Chunked,
    /// This many bytes.
    Length(usize),
}

/// Media types that EST answers with (RFC 7030 §3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// `application/csrattrs`.
    CsrAttributes,
    /// Anything else, or a field that is no media type.
    Other,
    /// `application/pkcs7-mime`, whatever its parameters.
    Pkcs7,
    /// No such field.
    Unsaid,
}

/// What a response's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status code, 100 to 599.
    pub status: u16,
    /// How the body is delimited.
    pub body: Body,
    /// The server closes the connection after this response.
    pub closes: bool,
    /// The media type of the body.
    pub content_type: ContentType,
    /// The server's time.
    pub date: Option<UnixTime>,
    /// When to ask again.
    pub retry_after: Option<RetryAfter>,
    /// When to renew.
    pub steering: Steering,
}

impl Head {
    /// Before there is one.
    pub(super) const UNREAD: Self = Self {
        status: 0,
        body: Body::Length(0),
        closes: false,
        content_type: ContentType::Unsaid,
        date: None,
        retry_after: None,
        steering: Steering { renew_at: None, urgent_at: None },
    };

    /// Reads a head, the bytes up to and including the empty line, over what is here.
    ///
    /// # Errors
    /// [`HttpError`] of the first thing that is wrong.
    // In place: a head is large enough that each copy is a call.
    pub(super) fn read(&mut self, head: &[u8]) -> Result<(), HttpError> {
        let lines = head.strip_suffix(b"\r\n\r\n").ok_or(HttpError::Field)?;
        let (status_line, mut rest) = split_line(lines);
        *self = Self::UNREAD;
        (self.status, self.closes) = read_status_line(status_line)?;
        let mut framing = Framing::default();
        while let Some(bytes) = rest {
            let (line, next) = split_line(bytes);
            self.read_field(line, &mut framing)?;
            rest = next;
        }
        self.body = framing.body(self.status)?;
        Ok(())
    }

    #[inline(never)]
    fn read_field(&mut self, line: &[u8], framing: &mut Framing) -> Result<(), HttpError> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(HttpError::Field)?;
        let (name, value) = line.split_at_checked(colon).ok_or(HttpError::Field)?;
        let value = value.strip_prefix(b":").unwrap_or_default().trim_ascii();
        if name.is_empty()
            || !name.iter().copied().all(is_token_byte)
            || !value.iter().copied().all(is_text_byte)
        {
            return Err(HttpError::Field);
        }
        let is = |field: &str| name.eq_ignore_ascii_case(field.as_bytes());
        if is("content-length") {
            let length =
                decimal(value).and_then(|length| usize::try_from(length).ok()).ok_or(HttpError::Framing)?;
            if framing.length.is_some_and(|earlier| earlier != length) {
                return Err(HttpError::Framing);
            }
            framing.length = Some(length);
        } else if is("transfer-encoding") {
            // Any coding but one `chunked` would have to be undone.
            if framing.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HttpError::Framing);
            }
            framing.chunked = true;
        } else if is("connection") {
            self.closes |=
                value.split(|byte| *byte == b',').any(|o| o.trim_ascii().eq_ignore_ascii_case(b"close"));
        } else if is("content-encoding") && !value.eq_ignore_ascii_case(b"identity") {
            return Err(HttpError::Framing);
        } else if is("content-type") {
            self.content_type = read_content_type(value);
        } else if is("date") {
            self.date = parse_http_date(value);
        } else if is("retry-after") {
            self.retry_after = read_retry_after(value);
        } else if is("muster-renewal") {
            self.steering = parse_renewal(value).unwrap_or_default();
        }
        Ok(())
    }
}

/// What says where the body ends.
#[derive(Default)]
struct Framing {
    length: Option<usize>,
    chunked: bool,
}

impl Framing {
    fn body(&self, status: u16) -> Result<Body, HttpError> {
        match (self.length, self.chunked) {
            // RFC 9110 §6.4.1: these have no body, whatever the fields say.
            _ if status < 200 || status == 204 || status == 304 => Ok(Body::Length(0)),
            (Some(length), false) => Ok(Body::Length(length)),
            (None, true) => Ok(Body::Chunked),
            // Delimited by the end of the connection: a cut would look like the end.
            _ => Err(HttpError::Framing),
        }
    }
}

/// The status of a head of which the end may be missing; `None` before the whole status line is there.
pub(super) fn status_so_far(head: &[u8]) -> Option<u16> {
    let (line, rest) = split_line(head);
    rest.and_then(|_| read_status_line(line).ok()).map(|(status, _)| status)
}

/// The status, and whether the connection closes by default.
fn read_status_line(line: &[u8]) -> Result<(u16, bool), HttpError> {
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(HttpError::StatusLine)?;
    let (&minor, rest) = rest.split_first().ok_or(HttpError::StatusLine)?;
    let [b' ', hundreds @ b'1'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9', reason @ ..] = rest else {
        return Err(HttpError::StatusLine);
    };
    let reason_fits = reason.is_empty() || reason.first() == Some(&b' ');
    if !matches!(minor, b'0' | b'1') || !reason_fits || !reason.iter().copied().all(is_text_byte) {
        return Err(HttpError::StatusLine);
    }
    let digit = |byte: u8| u16::from(byte - b'0');
    Ok((digit(*hundreds) * 100 + digit(*tens) * 10 + digit(*ones), minor == b'0'))
}

fn read_content_type(value: &[u8]) -> ContentType {
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/pkcs7-mime") {
        ContentType::Pkcs7
    } else if essence.eq_ignore_ascii_case(b"application/csrattrs") {
        ContentType::CsrAttributes
    } else {
        ContentType::Other
    }
}

fn read_retry_after(value: &[u8]) -> Option<RetryAfter> {
    if value.first()?.is_ascii_digit() {
        // A number too large to hold means "very long", not "at once".
        if !value.iter().all(u8::is_ascii_digit) {
            return None;
        }
        return Some(RetryAfter::Seconds(decimal(value).unwrap_or(u32::MAX)));
    }
    parse_http_date(value).map(RetryAfter::At)
}

/// The bytes up to the first CRLF, and those behind it.
fn split_line(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    bytes
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .and_then(|end| Some((bytes.get(..end)?, bytes.get(end + 2..))))
        .unwrap_or((bytes, None))
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    ascii::is_alphanumeric_or(byte, b"!#$%&'*+-.^_`|~")
}

/// What a field value or reason phrase may hold: no control characters but tab (RFC 9110 §5.5).
const fn is_text_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}
