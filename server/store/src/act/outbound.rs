//! Leaves that were uploaded to be shown to others: added, and removed.

use muster_policy::identity::{AccountId, CaId};

use crate::act::{By, Rejected, audit};
use crate::codec;
use crate::keys;
use crate::record::{Action, ChangeKind, OutboundLeaf, Subjects};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// Adds a leaf; the same certificate is there once.
#[derive(Clone, Debug)]
pub struct AddOutboundLeaf {
    /// The leaf.
    pub leaf: OutboundLeaf,
    /// Who adds it.
    pub by: By,
}

impl Transaction for AddOutboundLeaf {
    const NAME: &'static str = "add_outbound_leaf";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let OutboundLeaf { id, account, fingerprint, .. } = self.leaf;
        let end = keys::after(account.as_bytes());
        for (_, value) in
            tables.rows(TableName::OutboundLeaves, account.as_bytes(), end.as_deref(), usize::MAX)?
        {
            let leaf: OutboundLeaf = codec::decode(TableName::OutboundLeaves, &value)?;
            if leaf.fingerprint == fingerprint {
                return Err(Failed::Refused(Rejected::CertificateExists(leaf.id)));
            }
        }
        tables.put(&keys::outbound_leaf(account, id), &self.leaf)?;
        Ok(log(tables, &self.by, Action::OutboundLeafAdded, &self.leaf)?)
    }
}

/// Removes a leaf.
#[derive(Clone, Debug)]
pub struct RemoveOutboundLeaf {
    /// The owner.
    pub account: AccountId,
    /// The leaf.
    pub id: CaId,
    /// Who removes it.
    pub by: By,
}

impl Transaction for RemoveOutboundLeaf {
    const NAME: &'static str = "remove_outbound_leaf";
    type Output = OutboundLeaf;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<OutboundLeaf, Failed<Rejected>> {
        let key = keys::outbound_leaf(self.account, self.id);
        let Some(leaf) = tables.get::<OutboundLeaf>(&key)? else {
            return Err(Failed::Refused(Rejected::CertificateUnknown));
        };
        tables.remove(TableName::OutboundLeaves, &key)?;
        log(tables, &self.by, Action::OutboundLeafRemoved, &leaf)?;
        Ok(leaf)
    }
}

fn log(tables: &mut Tables<'_>, by: &By, action: Action, leaf: &OutboundLeaf) -> Result<(), Fault> {
    tables.change(by.at, Some(leaf.account), ChangeKind::OutboundLeafSet(leaf.id))?;
    let subjects = Subjects { account: Some(leaf.account), ..Subjects::default() };
    audit(tables, by, action, subjects, Some(leaf.id.to_string()))
}
