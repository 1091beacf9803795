//! Accounts and zones.

use muster_policy::identity::{AccountId, ZoneId};
use muster_policy::name::Hostname;

use crate::act::{By, Rejected, hosts, log, outbound};
use crate::keys;
use crate::record::{Account, Action, ChangeKind, OutboundLeaf, Subjects, Zone, ZoneKind};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Transaction};

/// Makes an account.
#[derive(Clone, Debug)]
pub struct CreateAccount {
    /// The account.
    pub account: Account,
    /// Who makes it.
    pub by: By,
}

impl Transaction for CreateAccount {
    const NAME: &'static str = "create_account";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let key = keys::account(self.account.id);
        if tables.contains(TableName::Accounts, &key)? {
            return Err(Failed::Refused(Rejected::Exists("the account")));
        }
        tables.put(&key, &self.account)?;
        let subjects = Subjects { account: Some(self.account.id), ..Subjects::default() };
        Ok(log(tables, &self.by, Action::AccountCreated, subjects, ChangeKind::AccountCreated)?)
    }
}

/// Adds a zone to an account; a domain is a zone once, whatever the account.
#[derive(Clone, Debug)]
pub struct AddZone {
    /// The zone.
    pub zone: Zone,
    /// Who adds it.
    pub by: By,
}

impl Transaction for AddZone {
    const NAME: &'static str = "add_zone";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let Zone { id, account, name, .. } = &self.zone;
        if !tables.contains(TableName::Accounts, &keys::account(*account))? {
            return Err(Failed::Refused(Rejected::AccountUnknown));
        }
        if tables.contains(TableName::ZoneNames, &keys::zone_name(name))?
            || tables.contains(TableName::Zones, &keys::zone(*id))?
        {
            return Err(Failed::Refused(Rejected::Exists("the zone")));
        }
        tables.put(&keys::zone(*id), &self.zone)?;
        tables.put_raw(TableName::ZoneNames, &keys::zone_name(name), id.as_bytes())?;
        let subjects = Subjects { account: Some(*account), zone: Some(*id), ..Subjects::default() };
        Ok(log(tables, &self.by, Action::ZoneAdded, subjects, ChangeKind::ZoneAdded(*id))?)
    }
}

/// Sets fields of a zone; what is none stays.
#[derive(Clone, Debug)]
pub struct EditZone {
    /// The owner.
    pub account: AccountId,
    /// The zone.
    pub zone: ZoneId,
    /// Whether its hostnames are not answered.
    pub paused: Option<bool>,
    /// How its DNS is served.
    pub kind: Option<ZoneKind>,
    /// Whether origins are shown a certificate.
    pub shows_certificate: Option<bool>,
    /// Its name servers as told.
    pub vanity_name_servers: Option<Vec<Hostname>>,
    /// Who sets it.
    pub by: By,
}

impl Transaction for EditZone {
    const NAME: &'static str = "edit_zone";
    type Output = Zone;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Zone, Failed<Rejected>> {
        let before = own_zone(tables, self.account, self.zone)?;
        let mut zone = before.clone();
        zone.paused = self.paused.unwrap_or(zone.paused);
        zone.kind = self.kind.unwrap_or(zone.kind);
        zone.shows_certificate = self.shows_certificate.unwrap_or(zone.shows_certificate);
        if let Some(names) = &self.vanity_name_servers {
            zone.vanity_name_servers.clone_from(names);
        }
        if zone == before {
            return Ok(zone);
        }
        zone.modified_at = Some(self.by.at);
        tables.put(&keys::zone(zone.id), &zone)?;
        let subjects = subjects(&zone);
        log(tables, &self.by, Action::ZoneSet, subjects, ChangeKind::ZoneSet(zone.id))?;
        Ok(zone)
    }
}

/// Removes a zone without hostnames, with what its origins are shown; answers the leaves that went with it,
/// so that their key files can go. Client certificates made in it stay what they are.
#[derive(Clone, Debug)]
pub struct RemoveZone {
    /// The owner.
    pub account: AccountId,
    /// The zone.
    pub zone: ZoneId,
    /// Who removes it.
    pub by: By,
}

impl Transaction for RemoveZone {
    const NAME: &'static str = "remove_zone";
    type Output = Vec<OutboundLeaf>;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Vec<OutboundLeaf>, Failed<Rejected>> {
        let zone = own_zone(tables, self.account, self.zone)?;
        let lying_in = hosts::named(tables, |rule| rule.zone == zone.id)?;
        if !lying_in.is_empty() {
            return Err(Failed::Refused(Rejected::ZoneInUse(lying_in)));
        }
        tables.remove(TableName::Zones, &keys::zone(zone.id))?;
        tables.remove(TableName::ZoneNames, &keys::zone_name(&zone.name))?;
        let leaves = outbound::remove_of_zone(tables, &zone)?;
        let subjects = subjects(&zone);
        log(tables, &self.by, Action::ZoneRemoved, subjects, ChangeKind::ZoneRemoved(zone.id))?;
        Ok(leaves)
    }
}

pub(super) fn own_zone(
    tables: &mut Tables<'_>,
    account: AccountId,
    id: ZoneId,
) -> Result<Zone, Failed<Rejected>> {
    let zone: Option<Zone> = tables.get(&keys::zone(id))?;
    zone.filter(|zone| zone.account == account).ok_or(Failed::Refused(Rejected::ZoneUnknown))
}

fn subjects(zone: &Zone) -> Subjects {
    Subjects { account: Some(zone.account), zone: Some(zone.id), ..Subjects::default() }
}
