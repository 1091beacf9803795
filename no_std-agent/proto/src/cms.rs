//! The certs-only CMS message ("degenerate PKCS#7") of EST answers (RFC 7030 §4.1.3, RFC 5652 §5.1).
//!
//! Only this shape is read: SignedData of version 1 over no content, with certificates and without signers. BER
//! with indefinite lengths is refused. The order of the certificates carries no meaning, so it is not checked.

use crate::der::{DerError, Oid, Reader, Tag};
use crate::x509::Bundle;

/// Most certificates in one message. A CA answers with its chain and, in a rollover, three more.
pub const MAX_CERTIFICATES: usize = 16;

/// Why bytes are not a certs-only message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmsError {
    /// There is no certificate in it.
    Empty,
    /// It encapsulates content.
    HasContent,
    /// It is signed; nothing here would check those signatures.
    HasSigners,
    /// The structure is not DER, or not a certs-only message's.
    Malformed,
    /// Not SignedData.
    NotSignedData,
    /// More than [`MAX_CERTIFICATES`].
    TooMany,
}

impl From<DerError> for CmsError {
    fn from(_: DerError) -> Self {
        Self::Malformed
    }
}

/// Reads a certs-only message and returns its certificates, which are not parsed yet.
///
/// # Errors
/// [`CmsError`]; bytes after the message are an error too.
pub fn certificates(message: &[u8]) -> Result<Bundle<'_>, CmsError> {
    let mut content_info = Reader::only(message, Tag::SEQUENCE)?;
    if content_info.oid()? != Oid::SIGNED_DATA {
        return Err(CmsError::NotSignedData);
    }
    let explicit = content_info.value(Tag::context_constructed(0))?;
    content_info.end()?;
    let mut signed_data = Reader::only(explicit, Tag::SEQUENCE)?;

    // Version 1, or 3 where a server counts attribute certificates that are not there (RFC 5652 §5.1).
    signed_data.small_integer()?;
    signed_data.value(Tag::SET)?;
    let mut encapsulated = signed_data.sequence()?;
    encapsulated.oid()?;
    if !encapsulated.is_empty() {
        return Err(CmsError::HasContent);
    }
    if signed_data.peek() != Some(Tag::context_constructed(0)) {
        return Err(CmsError::Empty);
    }
    let set = signed_data.value(Tag::context_constructed(0))?;
    signed_data.pass_over(Tag::context_constructed(1))?;
    if !signed_data.enter(Tag::SET)?.is_empty() {
        return Err(CmsError::HasSigners);
    }
    signed_data.end()?;
    check_set(set)?;
    Ok(Bundle::new(set))
}

/// Checks that the set holds nothing but certificates by their outermost tag, and not too many.
fn check_set(content: &[u8]) -> Result<(), CmsError> {
    let mut certificates = Reader::new(content);
    let mut count = 0;
    while !certificates.is_empty() {
        certificates.value(Tag::SEQUENCE)?;
        count += 1;
        if count > MAX_CERTIFICATES {
            return Err(CmsError::TooMany);
        }
    }
    if count == 0 { Err(CmsError::Empty) } else { Ok(()) }
}
