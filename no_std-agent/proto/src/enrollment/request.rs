//! The certification request under way: key known, then drafted, signed, stored.
//!
//! Once stored it does not change: a repeated request has the same bytes, by which a server recognises it. Only
//! a bound request is signed anew for another connection, because its binding names the connection.

use super::{Config, Shelf, Slot};
use crate::ShortBuffer;
use crate::base64;
use crate::csr::{Attributes, CertificationRequest, Draft, P256Point, SignatureError, Subject};
use crate::der::Oid;
use crate::x509::{Extension, common_name};

/// TLS exporter value of RFC 9266.
pub(super) type ChannelBinding = [u8; 32];

/// Lent memory for one request.
pub(super) struct Desk<'a> {
    buffer: &'a mut [u8],
    work: Option<Work>,
}

#[derive(Clone, Copy)]
struct Work {
    slot: Slot,
    key: P256Point,
    binding: Option<ChannelBinding>,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Bare,
    Drafted(Draft),
    Signed(usize),
    Stored(usize),
}

/// What has to be done next to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Key,
    Signature,
    Storing,
    Nothing,
}

impl<'a> Desk<'a> {
    pub(super) const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, work: None }
    }

    /// Takes up a request that was stored before a reboot. `false` when it is not one of ours.
    pub(super) fn restore(&mut self, slot: Slot, csr: &[u8], device: &str) -> bool {
        let Ok(parsed) = CertificationRequest::parse(csr) else { return false };
        if common_name(parsed.subject) != Some(device) {
            return false;
        }
        let Some(key) = P256Point::new(parsed.key.bits) else { return false };
        let Some(place) = self.buffer.get_mut(..csr.len()) else { return false };
        place.copy_from_slice(csr);
        self.work = Some(Work { slot, key, binding: None, stage: Stage::Stored(csr.len()) });
        true
    }

    pub(super) const fn forget(&mut self) {
        self.work = None;
    }

    pub(super) const fn begin(&mut self, slot: Slot, key: P256Point) {
        self.work = Some(Work { slot, key, binding: None, stage: Stage::Bare });
    }

    /// What is missing before the request can be sent with this binding.
    pub(super) fn need(&self, binding: Option<ChannelBinding>) -> Need {
        match &self.work {
            None => Need::Key,
            Some(work) if binding.is_some() && work.binding != binding => Need::Signature,
            Some(work) => match work.stage {
                Stage::Bare | Stage::Drafted(_) => Need::Signature,
                Stage::Signed(_) => Need::Storing,
                Stage::Stored(_) => Need::Nothing,
            },
        }
    }

    /// Lays out what is to be signed: the subject and names of the certificate to be replaced, or our own.
    pub(super) fn draft(
        &mut self,
        config: &Config<'_>,
        current: &Shelf<'_>,
        binding: Option<ChannelBinding>,
    ) -> Result<(), ShortBuffer> {
        let Some(work) = &mut self.work else { return Ok(()) };
        let leaf = current.leaf();
        let names = leaf.and_then(|leaf| leaf.extensions.subject_alt_name);
        let names = names.map(|value| [Extension { id: Oid::SUBJECT_ALT_NAME, critical: false, value }]);
        let text = binding.as_ref().map(binding_text);
        let attributes = Attributes {
            challenge_password: text.as_ref().and_then(|text| core::str::from_utf8(text).ok()),
            extensions: names.as_ref().map_or(&[], |names| names.as_slice()),
        };
        let subject = match leaf {
            Some(leaf) => Subject::Encoded(leaf.subject),
            None => Subject::CommonName(config.identity.device()),
        };
        let draft = Draft::write(self.buffer, subject, &work.key, &attributes)?;
        work.binding = binding;
        work.stage = Stage::Drafted(draft);
        Ok(())
    }

    pub(super) fn sign(&mut self, signature: &[u8]) -> Result<(), SignatureError> {
        if let Some(Work { stage, .. }) = &mut self.work
            && let Stage::Drafted(draft) = *stage
        {
            *stage = Stage::Signed(draft.sign(self.buffer, signature)?);
        }
        Ok(())
    }

    pub(super) const fn stored(&mut self) {
        if let Some(Work { stage, .. }) = &mut self.work
            && let Stage::Signed(len) = *stage
        {
            *stage = Stage::Stored(len);
        }
    }

    pub(super) fn slot(&self) -> Option<Slot> {
        self.work.as_ref().map(|work| work.slot)
    }

    pub(super) fn key(&self) -> Option<&P256Point> {
        self.work.as_ref().map(|work| &work.key)
    }

    pub(super) const fn is_stored(&self) -> bool {
        matches!(self.work, Some(Work { stage: Stage::Stored(_), .. }))
    }

    /// The part to be signed, while there is one.
    pub(super) fn message(&self) -> &[u8] {
        match &self.work {
            Some(Work { stage: Stage::Drafted(draft), .. }) => draft.message(self.buffer),
            _ => &[],
        }
    }

    /// The signed request; empty before it is signed.
    pub(super) fn csr(&self) -> &[u8] {
        match &self.work {
            Some(Work { stage: Stage::Signed(len) | Stage::Stored(len), .. }) => {
                self.buffer.get(..*len).unwrap_or_default()
            }
            _ => &[],
        }
    }
}

/// Base64 of 32 bytes.
fn binding_text(binding: &ChannelBinding) -> [u8; 44] {
    let mut text = [0; 44];
    let mut groups = text.chunks_exact_mut(4);
    let mut emit = |group: &[u8; 4]| {
        if let Some(place) = groups.next() {
            place.copy_from_slice(group);
        }
    };
    let mut encoder = base64::Encoder::new();
    encoder.push(binding, &mut emit);
    encoder.finish(&mut emit);
    text
}
