//! Accounts and zones.

use crate::act::{By, Rejected, log};
use crate::keys;
use crate::record::{Account, Action, ChangeKind, Subjects, Zone};
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
