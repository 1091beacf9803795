//! The CA certificates that the server named, kept for building chains, and the anchors they must lead to.
//!
//! After a change of root a server names roots, their issuing CAs, and what ties the roots to one another (RFC 7030
//! §4.1.3). A small device has room for those that can be part of a path of its own, and keeps no others.
//!
//! They come over a connection that may not be verified yet, so none of them is trusted for being here: each is
//! used only below an anchor, or because its SHA-256 is the pinned one.

use super::Trust;
use crate::ShortBuffer;
use crate::x509::{Anchors, Bundle, Certificate};

/// Lent memory with the certificates of the last cacerts answer.
pub(super) struct Authorities<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Authorities<'a> {
    pub(super) const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Replaces what is here by those that may lead to `anchors`. When they do not fit, what was here stays.
    pub(super) fn replace(&mut self, named: Bundle<'_>, anchors: &Anchors<'_>) -> Result<(), ShortBuffer> {
        let useful = || named.iter().filter(|der| may_lead(der, &named, anchors));
        let len = useful().map(<[u8]>::len).sum();
        let mut rest = self.buffer.get_mut(..len).ok_or(ShortBuffer)?;
        for der in useful() {
            let (place, behind) = rest.split_at_mut_checked(der.len()).ok_or(ShortBuffer)?;
            place.copy_from_slice(der);
            rest = behind;
        }
        self.len = len;
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

/// Whether a path to one of `anchors` may go over `der`: not if it is an anchor's own name and key by another's word, and
/// not if it is signed in a name that is no anchor's by that name.
fn may_lead(der: &[u8], named: &Bundle<'_>, anchors: &Anchors<'_>) -> bool {
    if anchors.pins(der) {
        return true;
    }
    let Some(certificate) = Certificate::readable(der) else { return false };
    let mut is_anchors_name = false;
    let pinned = named.pinned_by(anchors);
    for der in anchors.certificates.iter().copied().chain(pinned) {
        let Some(anchor) = Certificate::readable(der) else { continue };
        if anchor.subject == certificate.subject {
            if anchor.key.bits == certificate.key.bits {
                return false;
            }
            is_anchors_name = true;
        }
    }
    is_anchors_name || !certificate.is_self_issued()
}

/// The configured trust as anchors.
pub(super) const fn anchors<'t>(trust: &'t Trust<'_>) -> Anchors<'t> {
    match trust {
        Trust::Certificates(certificates) => Anchors { certificates, fingerprint: None },
        Trust::Fingerprint(fingerprint) => Anchors { certificates: &[], fingerprint: Some(fingerprint) },
    }
}
