//! Profiles.

use muster_policy::identity::AccountId;
use muster_policy::name::Label;
use muster_policy::profile::ProfileWritten;

use crate::act::{By, Rejected, log};
use crate::keys;
use crate::record::{Action, ChangeKind, Subjects};
use crate::tables::{Record, TableName, Tables};
use crate::transaction::{Failed, Transaction};

impl Record for ProfileWritten {
    const TABLE: TableName = TableName::Profiles;
}

/// Makes a profile or sets it anew; one that does not pass its check is refused.
#[derive(Clone, Debug)]
pub struct SetProfile {
    /// The owner.
    pub account: AccountId,
    /// Its name.
    pub label: Label,
    /// What it says.
    pub written: ProfileWritten,
    /// Who sets it.
    pub by: By,
}

impl Transaction for SetProfile {
    const NAME: &'static str = "set_profile";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        if let Err(error) = self.written.check(self.label.clone()) {
            return Err(Failed::Refused(Rejected::Profile(error)));
        }
        if !tables.contains(TableName::Accounts, &keys::account(self.account))? {
            return Err(Failed::Refused(Rejected::AccountUnknown));
        }
        tables.put(&keys::profile(self.account, &self.label), &self.written)?;
        let subjects = Subjects {
            account: Some(self.account),
            profile: Some(self.label.clone()),
            ..Subjects::default()
        };
        Ok(log(tables, &self.by, Action::ProfileSet, subjects, ChangeKind::ProfileSet(self.label.clone()))?)
    }
}
