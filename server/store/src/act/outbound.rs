//! Leaves that were uploaded to be shown to others: added, and removed.

use muster_policy::identity::{AccountId, CaId};

use crate::act::{By, Rejected, accounts, audit, origin_pulls};
use crate::codec;
use crate::keys;
use crate::record::{Action, ChangeKind, OutboundLeaf, ShownTo, Subjects, Zone};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// Most leaves of an account: each is looked at when one is added, and for what an origin is shown.
pub const OUTBOUND_LEAVES_MAX: usize = 1_000;

/// Adds a leaf; the same certificate is there once for the same origins.
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
        let OutboundLeaf { id, account, fingerprint, shown_to, .. } = self.leaf;
        if let Some(shown_to) = shown_to {
            accounts::own_zone(tables, account, shown_to.zone())?;
        }
        let leaves = all(tables, account)?;
        let same = |leaf: &&OutboundLeaf| leaf.fingerprint == fingerprint && leaf.shown_to == shown_to;
        if let Some(leaf) = leaves.iter().find(same) {
            return Err(Failed::Refused(Rejected::CertificateExists(leaf.id)));
        }
        if leaves.len() >= OUTBOUND_LEAVES_MAX {
            return Err(Failed::Refused(Rejected::TooMany { max: OUTBOUND_LEAVES_MAX }));
        }
        tables.put(&keys::outbound_leaf(account, id), &self.leaf)?;
        Ok(log(tables, &self.by, Action::OutboundLeafAdded, &self.leaf)?)
    }
}

/// Removes a leaf that no hostname names.
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
        if let Some(ShownTo::Hostnames(zone)) = leaf.shown_to {
            let naming = origin_pulls::named(tables, zone, leaf.id)?;
            if !naming.is_empty() {
                return Err(Failed::Refused(Rejected::CaInUse(naming)));
            }
        }
        tables.remove(TableName::OutboundLeaves, &key)?;
        log(tables, &self.by, Action::OutboundLeafRemoved, &leaf)?;
        Ok(leaf)
    }
}

/// Removes what the origins of a zone that goes are shown; the leaves that it had.
pub(super) fn remove_of_zone(tables: &mut Tables<'_>, zone: &Zone) -> Result<Vec<OutboundLeaf>, Fault> {
    for pull in origin_pulls::all(tables, zone.id)? {
        tables.remove(TableName::OriginPulls, &keys::origin_pull(zone.id, &pull.host))?;
    }
    let mut leaves = all(tables, zone.account)?;
    leaves.retain(|leaf| leaf.shown_to.is_some_and(|shown_to| shown_to.zone() == zone.id));
    for leaf in &leaves {
        tables.remove(TableName::OutboundLeaves, &keys::outbound_leaf(zone.account, leaf.id))?;
    }
    Ok(leaves)
}

fn all(tables: &mut Tables<'_>, account: AccountId) -> Result<Vec<OutboundLeaf>, Fault> {
    let end = keys::after(account.as_bytes());
    let rows = tables.rows(TableName::OutboundLeaves, account.as_bytes(), end.as_deref(), usize::MAX)?;
    rows.iter().map(|(_, value)| codec::decode(TableName::OutboundLeaves, value)).collect()
}

fn log(tables: &mut Tables<'_>, by: &By, action: Action, leaf: &OutboundLeaf) -> Result<(), Fault> {
    tables.change(by.at, Some(leaf.account), ChangeKind::OutboundLeafSet(leaf.id))?;
    let zone = leaf.shown_to.map(ShownTo::zone);
    if let Some(ShownTo::Zone(id)) = leaf.shown_to {
        let zone: Option<Zone> = tables.get(&keys::zone(id))?;
        // Its origins are shown another one now.
        if zone.is_some_and(|zone| zone.shows_certificate) {
            tables.change(by.at, Some(leaf.account), ChangeKind::ZoneSet(id))?;
        }
    }
    let subjects = Subjects { account: Some(leaf.account), zone, ..Subjects::default() };
    audit(tables, by, action, subjects, Some(leaf.id.to_string()))
}
