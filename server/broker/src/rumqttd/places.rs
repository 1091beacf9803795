//! Who is connected under which client id: a client that comes again takes its own place, and nobody else's.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_policy::identity::AccountId;
use tokio::sync::oneshot;

use crate::gate::Owner;
use crate::wire::Code;

/// Whose a connection is.
pub(super) type Whose = (AccountId, Owner);

/// The places of all clients.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    by_owner: HashMap<Whose, HashMap<String, Holder>>,
}

#[derive(Debug)]
struct Holder {
    number: u64,
    replace: oneshot::Sender<()>,
}

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    pub(super) whose: Whose,
    client_id: String,
    /// Unlike that of any other connection of this process.
    pub(super) number: u64,
    /// Comes true when the client took its place from another connection.
    pub(super) replaced: oneshot::Receiver<()>,
}

impl Places {
    /// Takes a place, from an earlier connection of the same client if there is one.
    ///
    /// # Errors
    /// The code of the refusal when the owner has `most` others.
    pub(super) fn take(self: &Arc<Self>, whose: Whose, client_id: &str, most: usize) -> Result<Place, Code> {
        let mut state = self.lock();
        let number = state.next;
        state.next = number.wrapping_add(1);
        let owned = state.by_owner.entry(whose.clone()).or_default();
        if owned.len() >= most && !owned.contains_key(client_id) {
            return Err(Code::QUOTA_EXCEEDED);
        }
        let (replace, replaced) = oneshot::channel();
        if let Some(earlier) = owned.insert(client_id.to_owned(), Holder { number, replace }) {
            // It may have ended by itself.
            let _ = earlier.replace.send(());
        }
        let places = Arc::clone(self);
        Ok(Place { places, whose, client_id: client_id.to_owned(), number, replaced })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        let Entry::Occupied(mut owned) = state.by_owner.entry(self.whose.clone()) else { return };
        let clients = owned.get_mut();
        if clients.get(&self.client_id).is_some_and(|holder| holder.number == self.number) {
            clients.remove(&self.client_id);
        }
        if clients.is_empty() {
            owned.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_over_given_back_and_counted() {
        let places = Arc::new(Places::default());
        let whose = (AccountId::from_bytes([1; 16]), Owner::Device("meter".into()));
        let mut first = places.take(whose.clone(), "meter", 2).expect("a place");
        let second = places.take(whose.clone(), "meter", 2).expect("its own place");
        assert_eq!(first.replaced.try_recv(), Ok(()));
        let _third = places.take(whose.clone(), "meter/2", 2).expect("another");
        assert_eq!(places.take(whose.clone(), "meter/3", 2).err(), Some(Code::QUOTA_EXCEEDED));
        // The first no longer holds what it gives back.
        drop(first);
        assert!(places.take(whose.clone(), "meter/3", 2).is_err());
        drop(second);
        assert!(places.take(whose, "meter/3", 2).is_ok());
    }
}
