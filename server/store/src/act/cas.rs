//! CAs, their state, and their revocation lists.

use muster_policy::identity::{AccountId, CaId};

use crate::act::{By, Rejected, foreign, hosts, log};
use crate::codec;
use crate::keys;
use crate::record::{Action, Ca, CaKind, CaRole, CaState, ChangeKind, CrlState, Subjects};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Transaction};

/// Adds a CA to an account.
#[derive(Clone, Debug)]
pub struct AddCa {
    /// The CA.
    pub ca: Ca,
    /// Who adds it.
    pub by: By,
}

impl Transaction for AddCa {
    const NAME: &'static str = "add_ca";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let Ca { id, account, .. } = &self.ca;
        if !tables.contains(TableName::Accounts, &keys::account(*account))? {
            return Err(Failed::Refused(Rejected::AccountUnknown));
        }
        if tables.contains(TableName::Cas, &keys::ca(*id))? {
            return Err(Failed::Refused(Rejected::Exists("the CA")));
        }
        self.refuse_twin(tables)?;
        tables.put(&keys::ca(*id), &self.ca)?;
        let subjects = Subjects { account: Some(*account), ca: Some(*id), ..Subjects::default() };
        Ok(log(tables, &self.by, Action::CaAdded, subjects, ChangeKind::CaAdded(*id))?)
    }
}

impl AddCa {
    /// The same certificate comes through each door once; an import also comes when it is to issue again.
    fn refuse_twin(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        for (_, value) in tables.rows(TableName::Cas, &[], None, usize::MAX)? {
            let ca: Ca = codec::decode(TableName::Cas, &value)?;
            let same_door = match (&ca.upload, &self.ca.upload) {
                (Some(before), Some(upload)) => before.kind == upload.kind,
                (None, None) => (ca.role, ca.state) == (self.ca.role, self.ca.state),
                _ => false,
            };
            if same_door && ca.account == self.ca.account && ca.fingerprint == self.ca.fingerprint {
                return Err(Failed::Refused(Rejected::CertificateExists(ca.id)));
            }
        }
        Ok(())
    }
}

/// Removes a CA that was brought along and only verifies, when no hostname accepts it.
#[derive(Clone, Debug)]
pub struct RemoveCa {
    /// The owner.
    pub account: AccountId,
    /// The CA.
    pub ca: CaId,
    /// Who removes it.
    pub by: By,
}

impl Transaction for RemoveCa {
    const NAME: &'static str = "remove_ca";
    type Output = Ca;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Ca, Failed<Rejected>> {
        let key = keys::ca(self.ca);
        let held: Option<Ca> = tables.get(&key)?;
        let Some(ca) = held.filter(|ca| ca.account == self.account && ca.kind == CaKind::Byo) else {
            return Err(Failed::Refused(Rejected::CaUnknown));
        };
        if ca.role != CaRole::VerifyOnly {
            return Err(Failed::Refused(Rejected::CaInUse("It issues, or proves manufacturers.".to_owned())));
        }
        let accepted_by = hosts::named(tables, |rule| rule.cas.contains(&self.ca))?;
        if !accepted_by.is_empty() {
            return Err(Failed::Refused(Rejected::CaInUse(format!("Hostnames: {accepted_by}"))));
        }
        tables.remove(TableName::Cas, &key)?;
        foreign::forget(tables, self.ca)?;
        let subjects = Subjects { account: Some(ca.account), ca: Some(ca.id), ..Subjects::default() };
        log(tables, &self.by, Action::CaRemoved, subjects, ChangeKind::CaRemoved(ca.id))?;
        Ok(ca)
    }
}

/// Notes that the owner of an uploaded CA changed its name, or its hostnames alone.
#[derive(Clone, Debug)]
pub struct EditUpload {
    /// The owner.
    pub account: AccountId,
    /// The CA.
    pub ca: CaId,
    /// Its name from now on; none keeps it.
    pub name: Option<String>,
    /// Who changes it.
    pub by: By,
}

impl Transaction for EditUpload {
    const NAME: &'static str = "edit_upload";
    type Output = Ca;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Ca, Failed<Rejected>> {
        let key = keys::ca(self.ca);
        let held: Option<Ca> = tables.get(&key)?;
        let Some(mut ca) = held.filter(|ca| ca.account == self.account) else {
            return Err(Failed::Refused(Rejected::CaUnknown));
        };
        let Some(upload) = &mut ca.upload else { return Err(Failed::Refused(Rejected::CaUnknown)) };
        if let Some(name) = &self.name {
            upload.name = Some(name.clone());
        }
        upload.changed_at = Some(self.by.at);
        tables.put(&key, &ca)?;
        let subjects = Subjects { account: Some(ca.account), ca: Some(ca.id), ..Subjects::default() };
        log(tables, &self.by, Action::CaStateSet, subjects, ChangeKind::CaStateSet(ca.id, ca.state))?;
        Ok(ca)
    }
}

/// Sets whether a CA issues, only verifies, or neither; setting what is set changes nothing.
#[derive(Clone, Debug)]
pub struct SetCaState {
    /// The CA.
    pub ca: CaId,
    /// Its state from now on.
    pub state: CaState,
    /// The rollover certificates to hand out from now on; none keeps those it has.
    pub rollover: Option<Vec<serde_bytes::ByteBuf>>,
    /// Who sets it.
    pub by: By,
}

impl Transaction for SetCaState {
    const NAME: &'static str = "set_ca_state";
    type Output = Ca;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Ca, Failed<Rejected>> {
        let key = keys::ca(self.ca);
        let Some(before) = tables.get::<Ca>(&key)? else {
            return Err(Failed::Refused(Rejected::CaUnknown));
        };
        let mut ca = before.clone();
        ca.state = self.state;
        if let Some(rollover) = &self.rollover {
            ca.rollover.clone_from(rollover);
        }
        if ca == before {
            return Ok(ca);
        }
        tables.put(&key, &ca)?;
        let subjects = Subjects { account: Some(ca.account), ca: Some(ca.id), ..Subjects::default() };
        log(tables, &self.by, Action::CaStateSet, subjects, ChangeKind::CaStateSet(ca.id, ca.state))?;
        Ok(ca)
    }
}

/// Stores a CA's new revocation list; its number must be greater than the stored one's.
#[derive(Clone, Debug)]
pub struct StoreCrl {
    /// The CA.
    pub ca: CaId,
    /// The list.
    pub crl: CrlState,
    /// The newest change when what is revoked was read for it.
    pub seen: u64,
    /// Who made it.
    pub by: By,
}

impl Transaction for StoreCrl {
    const NAME: &'static str = "store_crl";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let key = keys::ca(self.ca);
        let Some(ca) = tables.get::<Ca>(&key)? else {
            return Err(Failed::Refused(Rejected::CaUnknown));
        };
        if let Some(stored) = tables.get::<CrlState>(&key)?
            && stored.number >= self.crl.number
        {
            return Err(Failed::Refused(Rejected::CrlNumber { newest: stored.number }));
        }
        tables.put(&key, &self.crl)?;
        let behind = keys::crl_behind(self.ca);
        if tables.meta::<u64>(&behind)?.is_some_and(|since| since <= self.seen) {
            tables.remove(TableName::Meta, behind.as_bytes())?;
        }
        let subjects = Subjects { account: Some(ca.account), ca: Some(ca.id), ..Subjects::default() };
        Ok(log(tables, &self.by, Action::CrlStored, subjects, ChangeKind::CrlStored(ca.id))?)
    }
}
