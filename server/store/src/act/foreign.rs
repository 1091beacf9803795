//! Revoking certificates that a CA issued elsewhere: by the CA's own list, or by an operator.

use muster_policy::identity::{AccountId, CaId, Serial};
use muster_policy::revocation::RevocationReason;

use crate::act::revoke::{crl_is_behind, reactivate, revoke};
use crate::act::{By, Rejected, audit};
use crate::codec;
use crate::keys;
use crate::record::{
    Action, Ca, CaRole, Certificate, ChangeKind, Fetched, ForeignCa, ForeignList, ForeignListDer,
    ForeignName, ForeignRevoked, ListFetch, ListSettings, ListSource, Revocation, Subjects,
};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// Most certificates of a CA that operators revoke by name.
pub const FOREIGN_BY_OPERATOR_MAX: u64 = 100_000;
/// Most names that one change tells; of more, followers read everything anew.
pub const FOREIGN_NAMES_MAX: usize = 100;

/// Takes a CA's own list, which was checked, in place of the one before.
///
/// A list of the same number and contents changes nothing.
#[derive(Clone, Debug)]
pub struct TakeList {
    /// The owner.
    pub account: AccountId,
    /// The CA.
    pub ca: CaId,
    /// What is said of the list; `entries` as many as there are in `revoked`.
    pub list: ForeignList,
    /// The list itself.
    pub der: ForeignListDer,
    /// What it revokes; sorted by serial, each once.
    pub revoked: Vec<(Serial, Revocation)>,
    /// Who brought it.
    pub by: By,
}

/// What a list changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListTaken {
    /// What is known of the CA now.
    pub ca: ForeignCa,
    /// How many certificates are revoked that were not.
    pub revoked: u64,
    /// How many are good again.
    pub reinstated: u64,
}

impl Transaction for TakeList {
    const NAME: &'static str = "take_list";
    type Output = ListTaken;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<ListTaken, Failed<Rejected>> {
        let ca = known(tables, self.account, self.ca)?;
        if ca.key_file.is_some() {
            return Err(Failed::Refused(Rejected::ListIsOurs));
        }
        let mut state = state(tables, self.ca)?;
        if let Some(stored) = &state.list {
            if stored.fingerprint == self.list.fingerprint {
                return Ok(ListTaken { ca: state, revoked: 0, reinstated: 0 });
            }
            self.refuse_step_back(stored)?;
        }
        let names = self.merge(tables, &mut state)?;
        state.list = Some(self.list.clone());
        if self.list.source == ListSource::Fetched {
            let at = self.list.taken_at;
            let fetch = ListFetch { at, outcome: Fetched::Taken, message: None, failures: 0 };
            state.last_fetch = Some(fetch);
        }
        let key = keys::ca(self.ca);
        tables.put(&key, &state)?;
        tables.put(&key, &self.der)?;
        let (revoked, reinstated) = (names.revoked, names.reinstated);
        let details = format!(
            "the CA's own list: {} entries, {revoked} newly revoked, {reinstated} good again",
            self.list.entries
        );
        let names = (names.changed.len() <= FOREIGN_NAMES_MAX).then_some(names.changed);
        tables.change(self.by.at, Some(self.account), ChangeKind::ForeignListTaken(self.ca, names))?;
        let subjects = subjects(self.account, self.ca, None);
        audit(tables, &self.by, Action::ForeignListTaken, subjects, Some(details))?;
        Ok(ListTaken { ca: state, revoked, reinstated })
    }
}

/// What became different.
#[derive(Default)]
struct Merged {
    /// At most one more than followers are told one by one.
    changed: Vec<ForeignName>,
    revoked: u64,
    reinstated: u64,
}

impl Merged {
    fn note(&mut self, name: ForeignName) {
        if self.changed.len() <= FOREIGN_NAMES_MAX {
            self.changed.push(name);
        }
    }
}

impl TakeList {
    fn refuse_step_back(&self, stored: &ForeignList) -> Result<(), Failed<Rejected>> {
        let rank = |list: &ForeignList| (list.number.len(), list.number.to_vec());
        if rank(&self.list) <= rank(stored) {
            let number = hex::encode(&stored.number);
            return Err(Failed::Refused(Rejected::ListNumber { newest: format!("0x{number}") }));
        }
        if self.list.this_update < stored.this_update {
            return Err(Failed::Refused(Rejected::ListOlder { newest: stored.this_update }));
        }
        Ok(())
    }

    /// Makes what the stored entries say of lists what this list says.
    fn merge(&self, tables: &mut Tables<'_>, state: &mut ForeignCa) -> Result<Merged, Fault> {
        let prefix = keys::ca(self.ca);
        let end = keys::after(&prefix);
        let mut merged = Merged::default();
        for (key, value) in tables.rows(TableName::ForeignRevoked, &prefix, end.as_deref(), usize::MAX)? {
            let entry: ForeignRevoked = codec::decode(TableName::ForeignRevoked, &value)?;
            let ForeignName::Serial(serial) = entry.name else { continue };
            let listed = self.revoked.binary_search_by_key(&serial, |(serial, _)| *serial);
            if entry.by_list.is_none() || listed.is_ok() {
                continue;
            }
            if entry.by_operator.is_some() {
                tables.put(&key, &ForeignRevoked { by_list: None, ..entry })?;
            } else {
                tables.remove(TableName::ForeignRevoked, &key)?;
                state.revoked = state.revoked.saturating_sub(1);
                merged.reinstated = merged.reinstated.saturating_add(1);
                merged.note(entry.name);
            }
        }
        for (serial, revocation) in &self.revoked {
            let name = ForeignName::Serial(*serial);
            let key = keys::foreign(self.ca, name);
            let stored: Option<ForeignRevoked> = tables.get(&key)?;
            if stored.is_some_and(|stored| stored.by_list == Some(*revocation)) {
                continue;
            }
            let by_operator = stored.and_then(|stored| stored.by_operator);
            let entry = ForeignRevoked { ca: self.ca, name, by_list: Some(*revocation), by_operator };
            tables.put(&key, &entry)?;
            if stored.is_none() {
                state.revoked = state.revoked.saturating_add(1);
                merged.revoked = merged.revoked.saturating_add(1);
                merged.note(name);
            }
        }
        Ok(merged)
    }
}

/// Revokes a certificate of a CA by what names it there, whoever issued it.
///
/// One that the ledger issued is revoked as any; one that is revoked keeps its first time and reason.
#[derive(Clone, Debug)]
pub struct RevokeNamed {
    /// The owner.
    pub account: AccountId,
    /// The CA.
    pub ca: CaId,
    /// The certificate.
    pub name: ForeignName,
    /// Why (RFC 5280 §5.3.1).
    pub reason: RevocationReason,
    /// Who revokes it, and when.
    pub by: By,
}

/// What a name stood for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A certificate that was issued elsewhere.
    Foreign(ForeignRevoked),
    /// One that was issued here.
    Issued(Box<Certificate>),
}

impl Transaction for RevokeNamed {
    const NAME: &'static str = "revoke_named";
    type Output = Named;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Named, Failed<Rejected>> {
        known(tables, self.account, self.ca)?;
        if let Some(mut certificate) = issued(tables, self.ca, self.name)? {
            revoke(tables, &mut certificate, self.reason, &self.by)?;
            return Ok(Named::Issued(Box::new(certificate)));
        }
        let key = keys::foreign(self.ca, self.name);
        let stored: Option<ForeignRevoked> = tables.get(&key)?;
        if let Some(stored) = stored.filter(|stored| stored.by_operator.is_some()) {
            return Ok(Named::Foreign(stored));
        }
        let mut state = state(tables, self.ca)?;
        if state.by_operator >= FOREIGN_BY_OPERATOR_MAX {
            let max = usize::try_from(FOREIGN_BY_OPERATOR_MAX).unwrap_or(usize::MAX);
            return Err(Failed::Refused(Rejected::TooMany { max }));
        }
        state.by_operator = state.by_operator.saturating_add(1);
        if stored.is_none() {
            state.revoked = state.revoked.saturating_add(1);
        }
        let by_operator = Some(Revocation { at: self.by.at, reason: self.reason });
        let by_list = stored.and_then(|stored| stored.by_list);
        let entry = ForeignRevoked { ca: self.ca, name: self.name, by_list, by_operator };
        tables.put(&key, &entry)?;
        tables.put(&keys::ca(self.ca), &state)?;
        self.log(tables)?;
        Ok(Named::Foreign(entry))
    }
}

impl RevokeNamed {
    fn log(&self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        log_named(tables, (self.account, self.ca), self.name, Action::ForeignRevoked, &self.by)
    }
}

/// Takes back what an operator said of a certificate; the CA's own list goes on saying what it says.
#[derive(Clone, Debug)]
pub struct ReinstateNamed {
    /// The owner.
    pub account: AccountId,
    /// The CA.
    pub ca: CaId,
    /// The certificate.
    pub name: ForeignName,
    /// Who takes it back, and when.
    pub by: By,
}

impl Transaction for ReinstateNamed {
    const NAME: &'static str = "reinstate_named";
    type Output = Named;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Named, Failed<Rejected>> {
        known(tables, self.account, self.ca)?;
        if let Some(mut certificate) = issued(tables, self.ca, self.name)? {
            reactivate(tables, &mut certificate, &self.by)?;
            return Ok(Named::Issued(Box::new(certificate)));
        }
        let key = keys::foreign(self.ca, self.name);
        let Some(mut entry) = tables.get::<ForeignRevoked>(&key)? else {
            return Err(Failed::Refused(Rejected::CertificateUnknown));
        };
        if entry.by_operator.take().is_none() {
            return Err(Failed::Refused(Rejected::ListedByCa));
        }
        let mut state = state(tables, self.ca)?;
        state.by_operator = state.by_operator.saturating_sub(1);
        if entry.by_list.is_some() {
            tables.put(&key, &entry)?;
        } else {
            tables.remove(TableName::ForeignRevoked, &key)?;
            state.revoked = state.revoked.saturating_sub(1);
        }
        tables.put(&keys::ca(self.ca), &state)?;
        log_named(tables, (self.account, self.ca), self.name, Action::ForeignReinstated, &self.by)?;
        Ok(Named::Foreign(entry))
    }
}

/// Sets how the list of a CA becomes known, and what happens without a fresh one.
#[derive(Clone, Debug)]
pub struct SetListSettings {
    /// The owner.
    pub account: AccountId,
    /// The CA.
    pub ca: CaId,
    /// From now on.
    pub settings: ListSettings,
    /// Who sets them.
    pub by: By,
}

impl Transaction for SetListSettings {
    const NAME: &'static str = "set_list_settings";
    type Output = ForeignCa;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<ForeignCa, Failed<Rejected>> {
        let ca = known(tables, self.account, self.ca)?;
        if ca.key_file.is_some() {
            return Err(Failed::Refused(Rejected::ListIsOurs));
        }
        let mut state = state(tables, self.ca)?;
        if state.settings == self.settings {
            return Ok(state);
        }
        state.settings.clone_from(&self.settings);
        tables.put(&keys::ca(self.ca), &state)?;
        let kind = ChangeKind::ForeignListTaken(self.ca, Some(Vec::new()));
        tables.change(self.by.at, Some(self.account), kind)?;
        let details = format!(
            "fetched from {}; without a fresh list: {}",
            self.settings.url.as_deref().unwrap_or("nowhere"),
            match self.settings.when_stale {
                muster_policy::host::WhenStale::Closed => "closed",
                muster_policy::host::WhenStale::Open => "open",
            }
        );
        let subjects = subjects(self.account, self.ca, None);
        audit(tables, &self.by, Action::ListSettingsSet, subjects, Some(details))?;
        Ok(state)
    }
}

/// Notes how a fetch of a CA's list went; one that was taken is noted by [`TakeList`].
///
/// It is in no log: nobody gets in or stays out by it.
#[derive(Clone, Debug)]
pub struct NoteFetch {
    /// The owner.
    pub account: AccountId,
    /// The CA.
    pub ca: CaId,
    /// How it went.
    pub fetch: ListFetch,
}

impl Transaction for NoteFetch {
    const NAME: &'static str = "note_fetch";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        known(tables, self.account, self.ca)?;
        let mut state = state(tables, self.ca)?;
        state.last_fetch = Some(self.fetch.clone());
        tables.put(&keys::ca(self.ca), &state)?;
        Ok(())
    }
}

/// Removes all that is known of the revocations of a CA.
pub(super) fn forget(tables: &mut Tables<'_>, ca: CaId) -> Result<(), Fault> {
    let prefix = keys::ca(ca);
    let end = keys::after(&prefix);
    for (key, _) in tables.rows(TableName::ForeignRevoked, &prefix, end.as_deref(), usize::MAX)? {
        tables.remove(TableName::ForeignRevoked, &key)?;
    }
    tables.remove(TableName::ForeignCas, &prefix)?;
    tables.remove(TableName::ForeignLists, &prefix)?;
    Ok(())
}

/// A CA whose certificates prove somebody; of the others nobody asks what is revoked here.
fn known(tables: &mut Tables<'_>, account: AccountId, id: CaId) -> Result<Ca, Failed<Rejected>> {
    let found: Option<Ca> = tables.get(&keys::ca(id))?;
    let Some(ca) = found.filter(|ca| ca.account == account) else {
        return Err(Failed::Refused(Rejected::CaUnknown));
    };
    match ca.role {
        CaRole::Devices | CaRole::Manufacturer | CaRole::VerifyOnly => Ok(ca),
        CaRole::Root | CaRole::Services => Err(Failed::Refused(Rejected::CaNotOfClients)),
    }
}

fn state(tables: &mut Tables<'_>, ca: CaId) -> Result<ForeignCa, Fault> {
    Ok(tables.get(&keys::ca(ca))?.unwrap_or_default())
}

fn issued(tables: &mut Tables<'_>, ca: CaId, name: ForeignName) -> Result<Option<Certificate>, Fault> {
    let ForeignName::Serial(serial) = name else { return Ok(None) };
    match tables.get_raw(TableName::Serials, &keys::serial(ca, serial))? {
        Some(key) => tables.get(&key),
        None => Ok(None),
    }
}

fn log_named(
    tables: &mut Tables<'_>,
    (account, ca): (AccountId, CaId),
    name: ForeignName,
    action: Action,
    by: &By,
) -> Result<(), Fault> {
    tables.change(by.at, Some(account), ChangeKind::ForeignRevocationSet(ca, name))?;
    if known(tables, account, ca).is_ok_and(|ca| ca.key_file.is_some()) {
        crl_is_behind(tables, ca)?;
    }
    let details = match name {
        ForeignName::Fingerprint(fingerprint) => Some(format!("SHA-256 {fingerprint}")),
        ForeignName::Serial(_) => None,
    };
    audit(tables, by, action, subjects(account, ca, Some(name)), details)
}

fn subjects(account: AccountId, ca: CaId, name: Option<ForeignName>) -> Subjects {
    let serial = match name {
        Some(ForeignName::Serial(serial)) => Some(serial),
        _ => None,
    };
    Subjects { account: Some(account), ca: Some(ca), serial, ..Subjects::default() }
}
