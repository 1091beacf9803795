//! A secure element: it gives out handles and signatures, and has one place for each slot's key.

use std::cell::RefCell;
use std::rc::Rc;

use muster_nostd_agent::entropy::Entropy;
use muster_nostd_agent::key::{KeyError, KeyReference, KeyStore, Signature, SlotKey};
use muster_proto::csr::P256Point;
use muster_proto::enrollment::Slot;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};

/// The element of a device; clones are the same element, as it outlives resets.
#[derive(Clone, Default)]
pub(crate) struct Element(Rc<RefCell<Inside>>);

#[derive(Default)]
struct Inside {
    keys: [Option<SigningKey>; 2],
    signatures: usize,
}

impl Element {
    pub(crate) fn signatures(&self) -> usize {
        self.0.borrow().signatures
    }

    /// How many keys it has.
    pub(crate) fn keys(&self) -> usize {
        self.0.borrow().keys.iter().flatten().count()
    }

    fn with<T>(&self, reference: &KeyReference, work: impl FnOnce(&SigningKey) -> T) -> Result<T, KeyError> {
        let [b'h', place] = *reference.as_bytes() else { return Err(KeyError::Unknown) };
        let inside = self.0.borrow();
        inside.keys.get(usize::from(place)).and_then(Option::as_ref).map(work).ok_or(KeyError::Unknown)
    }
}

impl KeyStore for Element {
    fn generate(&mut self, slot: Slot, entropy: &mut impl Entropy) -> Result<SlotKey, KeyError> {
        let mut scalar = [0; 32];
        entropy.fill(&mut scalar).map_err(|_| KeyError::NoEntropy)?;
        let key = SigningKey::from_slice(&scalar).map_err(|_| KeyError::Failed)?;
        let place = u8::from(slot == Slot::B);
        self.0.borrow_mut().keys[usize::from(place)] = Some(key);
        let reference = KeyReference::new(&[b'h', place]).ok_or(KeyError::Failed)?;
        let point = self.public(&reference)?;
        Ok(SlotKey { reference, point })
    }

    fn public(&mut self, reference: &KeyReference) -> Result<P256Point, KeyError> {
        let point = self
            .with(reference, |key| P256Point::new(key.verifying_key().to_encoded_point(false).as_bytes()))?;
        point.ok_or(KeyError::Failed)
    }

    fn sign(&mut self, reference: &KeyReference, message: &[u8]) -> Result<Signature, KeyError> {
        let signature: DerSignature = self.with(reference, |key| key.sign(message))?;
        self.0.borrow_mut().signatures += 1;
        Signature::new(signature.as_bytes()).ok_or(KeyError::Failed)
    }

    fn forget(&mut self, reference: &KeyReference) -> Result<(), KeyError> {
        self.with(reference, |_| ())?;
        self.0.borrow_mut().keys[usize::from(reference.as_bytes()[1])] = None;
        Ok(())
    }
}
