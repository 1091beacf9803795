//! Work on keys and files, which waits for the disk and so is not done where connections are served.

use std::sync::Arc;

use muster_proto::csr::P256Point;
use muster_proto::enrollment::Slot;

use super::key;
use crate::identity::Identity;
use crate::settings::TrustRoots;
use crate::store::{Kept, Store};

/// One thing to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Forget key and record.
    Clear(Slot),
    /// Make a key and store it.
    MakeKey(Slot),
    /// Show the identity in use to other programs.
    Show(Arc<Identity>),
    /// Sign with the slot's key.
    Sign(Slot, Vec<u8>),
    /// Store a record beside its key.
    Store(Slot, Kept),
}

/// How it went.
#[derive(Debug)]
pub(super) enum Done {
    /// What the device core waits for could not be done; with words about it.
    Failed(String),
    /// The key is stored.
    Key(P256Point),
    /// The identity in use is shown.
    Shown,
    /// The signature, DER.
    Signature(Vec<u8>),
    /// The record is stored; with the identity, if it is one.
    Stored(Slot, Option<Identity>),
    /// The device core waits for nothing here.
    Tidied,
    /// Showing failed; with words about it. Other programs see what they saw before.
    Unshown(String),
    /// Tidying failed; with words about it. Nothing depends on it.
    Untidy(String),
}

impl Job {
    /// Whether the device core does not wait for it.
    pub(super) const fn is_tidying(&self) -> bool {
        matches!(self, Self::Clear(_) | Self::Show(_))
    }

    /// Does it; blocks.
    pub(super) fn run(self, store: &Store, roots: &TrustRoots) -> Done {
        match self {
            Self::MakeKey(slot) => {
                let Some((key, point)) = key::make() else {
                    return Done::Failed("the system's random number generator failed".to_owned());
                };
                store.put_key(slot, key).map_or_else(failed, |()| Done::Key(point))
            }
            Self::Sign(slot, message) => match store.key(slot) {
                Ok(key) => key::sign(&key, &message)
                    .map_or_else(|| Done::Failed("the key is not P-256".to_owned()), Done::Signature),
                Err(error) => failed(error),
            },
            Self::Store(slot, record) => match store.put_record(slot, record) {
                Ok(content) => Done::Stored(slot, Identity::from_content(&content, roots)),
                Err(error) => failed(error),
            },
            Self::Clear(slot) => ended(store.clear(slot), Done::Tidied, Done::Untidy),
            Self::Show(identity) => ended(store.show(&identity), Done::Shown, Done::Unshown),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is the last use of the error")]
fn failed(error: crate::store::StoreError) -> Done {
    Done::Failed(error.to_string())
}

fn ended(done: Result<(), crate::store::StoreError>, well: Done, badly: fn(String) -> Done) -> Done {
    done.map_or_else(|error| badly(error.to_string()), |()| well)
}
