//! Lays out a request and completes it with a signature that was made elsewhere.
//!
//! The part to be signed is written to the end of the buffer and then moved to a fixed offset, so that the outer
//! header fits in front and the signature behind without moving it again.

use crate::ShortBuffer;
use crate::der::{Oid, Reader, Tag, Writer};
use crate::x509::Extension;

/// Room in front of the signed part for the outer SEQUENCE's header.
const HEADER_BYTES: usize = 4;

/// Longest `Ecdsa-Sig-Value` of P-256: two INTEGERs of 33 octets (RFC 3279 §2.2.3).
const MAX_SIGNATURE_BYTES: usize = 72;

/// A P-256 public key as an uncompressed point (SEC 1 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct P256Point([u8; 65]);

impl P256Point {
    /// Takes `04 || x || y`; `None` for another form. Whether it is on the curve is for whoever made the key.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let point: [u8; 65] = bytes.try_into().ok()?;
        point.starts_with(&[0x04]).then_some(Self(point))
    }

    /// `04 || x || y`.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 65] {
        &self.0
    }

    pub(crate) fn write_spki(&self, writer: &mut Writer<'_>) {
        writer.nested(Tag::SEQUENCE, |info| {
            info.bit_string(&self.0);
            info.nested(Tag::SEQUENCE, |algorithm| {
                algorithm.oid(Oid::SECP256R1);
                algorithm.oid(Oid::EC_PUBLIC_KEY);
            });
        });
    }
}

/// The subject of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// One commonName, as UTF8String.
    CommonName(&'a str),
    /// A Name as it is encoded already: a renewal repeats its certificate's (RFC 7030 §4.2.2).
    Encoded(&'a [u8]),
}

/// What a request may carry beside name and key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// challengePassword: the TLS channel binding in base64 (RFC 7030 §3.5), or a secret.
    pub challenge_password: Option<&'a str>,
    /// Extensions to ask for (RFC 2985 §5.4.2).
    pub extensions: &'a [Extension<'a>],
}

/// A request that lies in a buffer and waits for its signature.
#[derive(Clone, Copy, Debug)]
pub struct Draft {
    signed_len: usize,
}

impl Draft {
    /// Lays out a request in `buffer`.
    ///
    /// # Errors
    /// [`ShortBuffer`].
    pub fn write(
        buffer: &mut [u8],
        subject: Subject<'_>,
        key: &P256Point,
        attributes: &Attributes<'_>,
    ) -> Result<Self, ShortBuffer> {
        let mut writer = Writer::new(buffer);
        writer.nested(Tag::SEQUENCE, |info| {
            info.nested(Tag::context_constructed(0), |set| write_attributes(set, attributes));
            key.write_spki(info);
            write_subject(info, subject);
            info.element(Tag::INTEGER, &[0]);
        });
        let signed_len = writer.finish()?;
        let start = buffer.len() - signed_len;
        if start < HEADER_BYTES {
            return Err(ShortBuffer);
        }
        buffer.copy_within(start.., HEADER_BYTES);
        Ok(Self { signed_len })
    }

    /// The bytes to be signed with ECDSA and SHA-256.
    #[must_use]
    pub fn message<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        buffer.get(HEADER_BYTES..HEADER_BYTES + self.signed_len).unwrap_or_default()
    }

    /// Completes the request in the same buffer with a DER `Ecdsa-Sig-Value` and returns the
    /// length of the request, which begins where the buffer begins.
    ///
    /// # Errors
    /// [`SignatureError::NotASignature`] when the bytes are not one, [`SignatureError::ShortBuffer`].
    pub fn sign(self, buffer: &mut [u8], signature: &[u8]) -> Result<usize, SignatureError> {
        if !is_signature(signature) {
            return Err(SignatureError::NotASignature);
        }
        // Written into scratch of its own, because the writer fills from the end and the request does not end there.
        let mut scratch = [0; MAX_SIGNATURE_BYTES + SIGNATURE_FRAME_BYTES];
        let mut tail = Writer::new(&mut scratch);
        tail.bit_string(signature);
        tail.nested(Tag::SEQUENCE, |algorithm| algorithm.oid(Oid::ECDSA_WITH_SHA256));
        let tail_len = tail.finish()?;
        let tail = scratch.get(scratch.len() - tail_len..).ok_or(ShortBuffer)?;

        let body_end = HEADER_BYTES + self.signed_len;
        buffer.get_mut(body_end..body_end + tail_len).ok_or(ShortBuffer)?.copy_from_slice(tail);
        let body_len = self.signed_len + tail_len;
        let mut header = Writer::new(buffer.get_mut(..HEADER_BYTES).ok_or(ShortBuffer)?);
        header.header(Tag::SEQUENCE, body_len);
        let header_len = header.finish()?;
        buffer.copy_within(HEADER_BYTES - header_len..body_end + tail_len, 0);
        Ok(header_len + body_len)
    }
}

/// Why a signature does not complete a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// Not a DER `Ecdsa-Sig-Value` for a curve of 256 bits.
    NotASignature,
    /// The request does not fit the buffer.
    ShortBuffer,
}

impl From<ShortBuffer> for SignatureError {
    fn from(_: ShortBuffer) -> Self {
        Self::ShortBuffer
    }
}

/// BIT STRING header with its count of unused bits, and the AlgorithmIdentifier.
const SIGNATURE_FRAME_BYTES: usize = 16;

fn write_subject(writer: &mut Writer<'_>, subject: Subject<'_>) {
    let name = match subject {
        Subject::Encoded(name) => return writer.bytes(name),
        Subject::CommonName(name) => name,
    };
    writer.nested(Tag::SEQUENCE, |names| {
        names.nested(Tag::SET, |set| {
            set.nested(Tag::SEQUENCE, |attribute| {
                attribute.element(Tag::UTF8_STRING, name.as_bytes());
                attribute.oid(Oid::COMMON_NAME);
            });
        });
    });
}

/// Writes the SET OF attributes, which DER orders by their encodings (X.690 §11.6).
fn write_attributes(set: &mut Writer<'_>, attributes: &Attributes<'_>) {
    let before = set.written();
    write_password(set, attributes.challenge_password);
    let password_len = set.written() - before;
    write_extension_request(set, attributes.extensions);
    set.order_last_two(set.written() - before - password_len, password_len);
}

fn write_password(set: &mut Writer<'_>, password: Option<&str>) {
    let Some(password) = password else { return };
    set.nested(Tag::SEQUENCE, |attribute| {
        attribute.nested(Tag::SET, |values| values.element(Tag::UTF8_STRING, password.as_bytes()));
        attribute.oid(Oid::CHALLENGE_PASSWORD);
    });
}

fn write_extension_request(set: &mut Writer<'_>, extensions: &[Extension<'_>]) {
    if extensions.is_empty() {
        return;
    }
    set.nested(Tag::SEQUENCE, |attribute| {
        attribute.nested(Tag::SET, |values| {
            values.nested(Tag::SEQUENCE, |list| {
                for extension in extensions.iter().rev() {
                    write_extension(list, extension);
                }
            });
        });
        attribute.oid(Oid::EXTENSION_REQUEST);
    });
}

fn write_extension(list: &mut Writer<'_>, extension: &Extension<'_>) {
    list.nested(Tag::SEQUENCE, |fields| {
        fields.element(Tag::OCTET_STRING, extension.value);
        if extension.critical {
            fields.element(Tag::BOOLEAN, &[0xff]);
        }
        fields.oid(extension.id);
    });
}

/// Whether `bytes` are two positive INTEGERs of at most 33 octets in a SEQUENCE.
fn is_signature(bytes: &[u8]) -> bool {
    fn read(bytes: &[u8]) -> Result<bool, crate::der::DerError> {
        let mut pair = Reader::only(bytes, Tag::SEQUENCE)?;
        let (r, s) = (pair.integer()?, pair.integer()?);
        pair.end()?;
        let positive = |n: &[u8]| n.len() <= 33 && n.first().is_some_and(|b| b & 0x80 == 0) && n != [0];
        Ok(positive(r) && positive(s))
    }
    bytes.len() <= MAX_SIGNATURE_BYTES && read(bytes).unwrap_or(false)
}
