//! The head of a response, once it is complete: the few fields that decide something.
//!
//! Everything is copied into small values, because the buffer that held the head will take the body. What could
//! be read in two ways is refused: two different lengths, a length beside a transfer coding, folded lines, bare
//! line feeds, white space before a colon (RFC 9112 §5, §6.3).

use super::date::parse_http_date;
use super::renewal::{Steering, parse_renewal};
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
    pub steering: Option<Steering>,
}

impl Head {
    /// Reads a head: the bytes up to and including the empty line.
    ///
    /// # Errors
    /// [`HttpError`] of the first thing that is wrong.
    pub fn parse(head: &[u8]) -> Result<Self, HttpError> {
        let lines = head.strip_suffix(b"\r\n\r\n").ok_or(HttpError::Field)?;
        let (status_line, mut rest) = split_line(lines);
        let (status, closes) = read_status_line(status_line)?;
        let mut fields = Fields { closes, ..Fields::default() };
        while let Some(bytes) = rest {
            let (line, next) = split_line(bytes);
            fields.read(line)?;
            rest = next;
        }
        Ok(Self {
            status,
            body: fields.body(status)?,
            closes: fields.closes,
            content_type: fields.content_type.unwrap_or(ContentType::Unsaid),
            date: fields.date,
            retry_after: fields.retry_after,
            steering: fields.steering,
        })
    }
}

#[derive(Default)]
struct Fields {
    length: Option<usize>,
    chunked: bool,
    closes: bool,
    content_type: Option<ContentType>,
    date: Option<UnixTime>,
    retry_after: Option<RetryAfter>,
    steering: Option<Steering>,
}

impl Fields {
    fn read(&mut self, line: &[u8]) -> Result<(), HttpError> {
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
            let length = decimal(value).ok_or(HttpError::Framing)?;
            if self.length.is_some_and(|earlier| earlier != length) {
                return Err(HttpError::Framing);
            }
            self.length = Some(length);
        } else if is("transfer-encoding") {
            // Any coding but one `chunked` would have to be undone.
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HttpError::Framing);
            }
            self.chunked = true;
        } else if is("connection") {
            self.closes |=
                value.split(|byte| *byte == b',').any(|o| o.trim_ascii().eq_ignore_ascii_case(b"close"));
        } else if is("content-encoding") && !value.eq_ignore_ascii_case(b"identity") {
            return Err(HttpError::Framing);
        } else if is("content-type") {
            self.content_type = Some(read_content_type(value));
        } else if is("date") {
            self.date = parse_http_date(value);
        } else if is("retry-after") {
            self.retry_after = read_retry_after(value);
        } else if is("muster-renewal") {
            self.steering = parse_renewal(value);
        }
        Ok(())
    }

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
        let seconds = decimal(value).and_then(|seconds| u32::try_from(seconds).ok());
        return Some(RetryAfter::Seconds(seconds.unwrap_or(u32::MAX)));
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

fn decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_usize, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a field value or reason phrase may hold: no control characters but tab (RFC 9110 §5.5).
const fn is_text_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}
