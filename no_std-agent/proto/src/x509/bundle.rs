//! Certificates one after another: the content of a CMS certificate set, and how a chain is kept in one buffer.

use super::{Certificate, CertificateError};
use crate::der::{Reader, Tag};

/// Encoded certificates, concatenated. Iterating yields each one's bytes and ends at the first that is no element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bundle<'a>(&'a [u8]);

impl<'a> Bundle<'a> {
    /// Takes concatenated certificates as they are; what is not a SEQUENCE ends the iteration.
    #[must_use]
    pub const fn new(certificates: &'a [u8]) -> Self {
        Self(certificates)
    }

    /// The concatenated bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The encoded certificates in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let mut reader = Reader::new(self.0);
        core::iter::from_fn(move || reader.whole(Tag::SEQUENCE).ok())
    }

    /// The first certificate: the leaf, where the bundle is a chain.
    ///
    /// # Errors
    /// [`CertificateError`] when there is none or it does not parse.
    pub fn first(&self) -> Result<Certificate<'a>, CertificateError> {
        let mut reader = Reader::new(self.0);
        Certificate::parse(reader.whole(Tag::SEQUENCE)?)
    }
}
