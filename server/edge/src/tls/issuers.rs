//! Which CA issued a leaf, as the ledger names it, whichever anchor the leaf was verified with.
//!
//! What is revoked is named by CA and serial. A hostname may accept a CA above the one that issued, or a
//! second copy of its certificate under another id; a leaf that comes by either is the same leaf. So the
//! issuer is found by its name and key among all CAs of the account, accepted here or not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use muster_policy::identity::{AccountId, CaId};
use rustls::pki_types::TrustAnchor;

use super::anchors::Ca;

/// The CAs of one account by what their leaves name them by.
#[derive(Debug, Default)]
pub(crate) struct Issuers {
    /// By subject and key; those that issue come first.
    by_key: HashMap<(Vec<u8>, Vec<u8>), Vec<CaId>>,
    /// Of CAs that share name and key with others, all of them.
    twins: BTreeMap<CaId, Vec<CaId>>,
    /// The CAs that vouch for nobody any more.
    retired: BTreeSet<CaId>,
}

impl Issuers {
    /// Those of each account.
    pub(crate) fn by_account(known: &BTreeMap<CaId, Arc<Ca>>) -> BTreeMap<AccountId, Arc<Self>> {
        let mut accounts: BTreeMap<AccountId, Self> = BTreeMap::new();
        let is_default = |ca: &&Arc<Ca>| ca.entry.is_default;
        for ca in known.values().filter(is_default).chain(known.values().filter(|ca| !is_default(ca))) {
            accounts.entry(ca.entry.account).or_default().add(ca);
        }
        accounts.into_iter().map(|(account, issuers)| (account, Arc::new(issuers.with_twins()))).collect()
    }

    /// The CAs of this name and key, those that issue first.
    ///
    /// None when all of them are retired: they vouch for nobody, whoever vouches for them.
    pub(crate) fn of(&self, issuer: &TrustAnchor<'_>) -> Option<&[CaId]> {
        let key = (issuer.subject.to_vec(), issuer.subject_public_key_info.to_vec());
        let found = self.by_key.get(&key).map(Vec::as_slice).unwrap_or_default();
        let all_retired = !found.is_empty() && found.iter().all(|ca| self.retired.contains(ca));
        (!all_retired).then_some(found)
    }

    /// All CAs that share name and key with this one; none when it has them for itself.
    pub(crate) fn twins(&self, ca: CaId) -> &[CaId] {
        self.twins.get(&ca).map(Vec::as_slice).unwrap_or_default()
    }

    fn add(&mut self, ca: &Ca) {
        let id = ca.entry.id;
        if !ca.entry.vouches {
            self.retired.insert(id);
        }
        for anchor in ca.anchors() {
            let key = (anchor.subject.to_vec(), anchor.subject_public_key_info.to_vec());
            let same = self.by_key.entry(key).or_default();
            if !same.contains(&id) {
                same.push(id);
            }
        }
    }

    fn with_twins(mut self) -> Self {
        for same in self.by_key.values().filter(|same| same.len() > 1) {
            for id in same {
                self.twins.entry(*id).or_default().extend(same);
            }
        }
        self
    }
}
