//! What the machine asks for that needs no network: keys, signatures and storage.

use embedded_storage::nor_flash::NorFlash;
use muster_proto::csr::P256Point;
use muster_proto::enrollment::{Input, Output, Record, Slot};

use crate::entropy::Entropy;
use crate::key::{KeyStore, Signature, SlotKey};
use crate::store::{IdentityStore, Item, StoreError};

/// The keys of the two slots, as the store has them.
#[derive(Default)]
pub(super) struct Slots {
    a: Option<SlotKey>,
    b: Option<SlotKey>,
}

impl Slots {
    /// Takes a slot's key from the store, and returns its record. A key that no longer is the one that was stored (an
    /// element's, replaced right before a power cut) is passed over with its record.
    ///
    /// # Errors
    /// As [`IdentityStore::load`].
    // Once in an image, for both slots.
    #[inline(never)]
    pub(super) fn load<'s, F: NorFlash>(
        &mut self,
        slot: Slot,
        store: &mut IdentityStore<F>,
        keys: &mut impl KeyStore,
        scratch: &'s mut [u8],
    ) -> Result<Option<Record<'s>>, StoreError<F::Error>> {
        let Some(Item::Key { key, record, .. }) = store.load(slot, scratch)? else { return Ok(None) };
        if keys.public(&key.reference) != Ok(key.point) {
            return Ok(None);
        }
        self.put(slot, Some(key));
        Ok(record)
    }

    pub(super) const fn key(&self, slot: Slot) -> Option<&SlotKey> {
        match slot {
            Slot::A => self.a.as_ref(),
            Slot::B => self.b.as_ref(),
        }
    }

    fn put(&mut self, slot: Slot, key: Option<SlotKey>) -> Option<SlotKey> {
        let place = match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        };
        core::mem::replace(place, key)
    }
}

/// What is needed for it.
pub(super) struct Local<'l, F, K, E> {
    pub(super) store: &'l mut IdentityStore<F>,
    pub(super) keys: &'l mut K,
    pub(super) entropy: &'l mut E,
    pub(super) slots: &'l mut Slots,
}

/// What the machine is told then.
pub(super) enum Answer {
    Failure,
    Key(P256Point),
    Nothing,
    Signature(Signature),
    Stored,
}

impl Answer {
    pub(super) fn input(&self) -> Option<Input<'_>> {
        match self {
            Self::Failure => Some(Input::LocalFailure),
            Self::Key(point) => Some(Input::KeyReady(*point)),
            Self::Nothing => None,
            Self::Signature(signature) => Some(Input::Signed(signature.as_ref())),
            Self::Stored => Some(Input::Stored),
        }
    }
}

impl<F: NorFlash, K: KeyStore, E: Entropy> Local<'_, F, K, E> {
    /// Does what `output` asks for, if it is one of these. `scratch` holds one item of the store.
    pub(super) fn answer(&mut self, output: &Output<'_>, scratch: &mut [u8]) -> Answer {
        match output {
            Output::MakeKey(slot) => self.make_key(*slot, scratch),
            Output::Retire(slot) => self.retire(*slot, scratch),
            Output::Sign { slot, message } => {
                let key = self.slots.key(*slot);
                let signature = key.and_then(|key| self.keys.sign(&key.reference, message).ok());
                signature.map_or(Answer::Failure, Answer::Signature)
            }
            Output::Store(record) => self.put_record(record, scratch),
            _ => Answer::Nothing,
        }
    }

    /// The key is in the store before it is used, and the one before it is forgotten only then.
    fn make_key(&mut self, slot: Slot, scratch: &mut [u8]) -> Answer {
        let Ok(key) = self.keys.generate(slot, self.entropy) else { return Answer::Failure };
        let item = Item::Key { slot, key, record: None };
        if self.store.put(&item, scratch).is_err() {
            return Answer::Failure;
        }
        let Item::Key { key, .. } = item else { return Answer::Failure };
        let point = key.point;
        let reference = key.reference.clone();
        if let Some(before) = self.slots.put(slot, Some(key))
            && before.reference.as_bytes() != reference.as_bytes()
        {
            // Nothing refers to it any more; an element that keeps it wastes a place and no more.
            let _ = self.keys.forget(&before.reference);
        }
        Answer::Key(point)
    }

    fn put_record(&mut self, record: &Record<'_>, scratch: &mut [u8]) -> Answer {
        let slot = record.slot();
        let Some(key) = self.slots.key(slot).cloned() else { return Answer::Failure };
        let item = Item::Key { slot, key, record: Some(*record) };
        match self.store.put(&item, scratch) {
            Ok(()) => Answer::Stored,
            Err(_) => Answer::Failure,
        }
    }

    /// Fails without harm: the slot is still there after a reset, and is retired again.
    fn retire(&mut self, slot: Slot, scratch: &mut [u8]) -> Answer {
        if self.store.empty(slot, scratch).is_ok()
            && let Some(key) = self.slots.put(slot, None)
        {
            let _ = self.keys.forget(&key.reference);
        }
        Answer::Nothing
    }
}
