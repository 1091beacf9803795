//! A place for one identity's chain in lent memory, and what is known about it.

use super::{Pair, Slot, Window};
use crate::ShortBuffer;
use crate::time::UnixTime;
use crate::x509::{Bundle, Certificate, Moment};

/// Memory for a chain, empty or with one in it.
pub(super) struct Shelf<'a> {
    buffer: &'a mut [u8],
    label: Option<Label>,
}

/// What is known about a chain without reading it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) slot: Slot,
    pub(super) generation: u32,
    pub(super) window: Window,
    chain_len: usize,
}

impl<'a> Shelf<'a> {
    pub(super) const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, label: None }
    }

    /// Puts a chain, given as its certificates, over what is here.
    pub(super) fn fill(
        &mut self,
        slot: Slot,
        generation: u32,
        window: Window,
        chain: &mut dyn Iterator<Item = &[u8]>,
    ) -> Result<(), ShortBuffer> {
        self.label = None;
        let mut chain_len: usize = 0;
        for certificate in chain {
            let end = chain_len + certificate.len();
            self.buffer.get_mut(chain_len..end).ok_or(ShortBuffer)?.copy_from_slice(certificate);
            chain_len = end;
        }
        self.label = Some(Label { slot, generation, window, chain_len });
        Ok(())
    }

    pub(super) const fn clear(&mut self) {
        self.label = None;
    }

    pub(super) const fn label(&self) -> Option<&Label> {
        self.label.as_ref()
    }

    pub(super) fn slot(&self) -> Option<Slot> {
        self.label.map(|label| label.slot)
    }

    pub(super) fn window(&self) -> Option<Window> {
        self.label.map(|label| label.window)
    }

    pub(super) fn chain(&self) -> Bundle<'_> {
        let chain_len = self.label.map_or(0, |label| label.chain_len);
        Bundle::new(self.buffer.get(..chain_len).unwrap_or_default())
    }

    pub(super) fn leaf(&self) -> Option<Certificate<'_>> {
        self.chain().iter().next().and_then(Certificate::readable)
    }

    /// Whether the identity's time is certainly over.
    pub(super) fn is_over(&self, moment: Moment) -> bool {
        let (Moment::Known(at) | Moment::NotBefore(at)) = moment;
        self.label.is_some_and(|label| label.window.expires_at() < at)
    }

    /// The record of this identity.
    pub(super) fn pair<'s>(&'s self, anchor: &'s [u8], saved_at: UnixTime) -> Option<Pair<'s>> {
        let label = self.label?;
        Some(Pair {
            slot: label.slot,
            generation: label.generation,
            chain: self.chain(),
            anchor,
            window: label.window,
            saved_at,
        })
    }
}
