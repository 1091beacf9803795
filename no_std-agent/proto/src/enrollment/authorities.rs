//! The CA certificates that the server named, kept for building chains, and the anchors they must lead to.
//!
//! They come over a connection that may not be verified yet, so none of them is trusted for being here: each is
//! used only below an anchor, or because its SHA-256 is the pinned one.

use super::Trust;
use crate::ShortBuffer;
use crate::x509::{Anchors, Bundle};

/// Lent memory with the certificates of the last cacerts answer.
pub(super) struct Authorities<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Authorities<'a> {
    pub(super) const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Replaces what is here. When it does not fit, what was here stays.
    pub(super) fn replace(&mut self, certificates: &[u8]) -> Result<(), ShortBuffer> {
        self.buffer.get_mut(..certificates.len()).ok_or(ShortBuffer)?.copy_from_slice(certificates);
        self.len = certificates.len();
        Ok(())
    }

    pub(super) fn bundle(&self) -> Bundle<'_> {
        Bundle::new(self.buffer.get(..self.len).unwrap_or_default())
    }

    /// The certificate that a pinned fingerprint stands for; `None` without a fingerprint, or before it came.
    pub(super) fn pinned(&self, trust: &Trust<'_>) -> Option<&[u8]> {
        self.bundle().pinned_by(&anchors(trust))
    }
}

/// The configured trust as anchors.
pub(super) const fn anchors<'t>(trust: &'t Trust<'_>) -> Anchors<'t> {
    match trust {
        Trust::Certificates(certificates) => Anchors { certificates, fingerprint: None },
        Trust::Fingerprint(fingerprint) => Anchors { certificates: &[], fingerprint: Some(fingerprint) },
    }
}
