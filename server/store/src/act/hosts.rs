//! Hostnames: their rules, and their end.

use muster_policy::host::{HostPattern, HostRule};
use muster_policy::identity::AccountId;

use crate::act::{By, Rejected, log};
use crate::keys;
use crate::record::{Action, Ca, CaRole, CaState, ChangeKind, Host, OriginTls, Subjects, Zone};
use crate::tables::Tables;
use crate::transaction::{Failed, Transaction};

/// Sets the whole rule of a hostname, new or not; setting what is set changes nothing.
///
/// A hostname belongs to one account, because SNI knows no accounts, and lies in a zone of it.
#[derive(Clone, Debug)]
pub struct SetHost {
    /// The rule.
    pub rule: HostRule,
    /// How its origins are spoken to.
    pub origin_tls: OriginTls,
    /// Who sets it.
    pub by: By,
}

impl Transaction for SetHost {
    const NAME: &'static str = "set_host";
    type Output = Host;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Host, Failed<Rejected>> {
        let rule = &self.rule;
        let zone: Option<Zone> = tables.get(&keys::zone(rule.zone))?;
        let contains = |zone: &Zone| zone.account == rule.account && rule.host.is_within(&zone.name);
        if !zone.as_ref().is_some_and(contains) {
            return Err(Failed::Refused(Rejected::HostOutsideZone(rule.host.clone())));
        }
        for id in &rule.cas {
            let ca: Option<Ca> = tables.get(&keys::ca(*id))?;
            if !ca.is_some_and(|ca| ca.account == rule.account && verifies_clients(&ca)) {
                return Err(Failed::Refused(Rejected::CaUnknown));
            }
        }
        let key = keys::host(&rule.host);
        let before: Option<Host> = tables.get(&key)?;
        if let Some(before) = &before {
            if before.rule.account != rule.account {
                return Err(Failed::Refused(Rejected::Exists("the hostname")));
            }
            if before.rule == *rule && before.origin_tls == self.origin_tls {
                return Ok(before.clone());
            }
        }
        let at = self.by.at;
        let created_at = before.map_or(at, |before| before.created_at);
        let origin_tls = self.origin_tls.clone();
        let host = Host { rule: rule.clone(), origin_tls, created_at, changed_at: at };
        tables.put(&key, &host)?;
        let subjects = subjects(rule.account, &rule.host);
        log(tables, &self.by, Action::HostSet, subjects, ChangeKind::HostSet(rule.host.clone()))?;
        Ok(host)
    }
}

/// Whether client certificates can be verified with a CA at the edge.
fn verifies_clients(ca: &Ca) -> bool {
    matches!(ca.role, CaRole::Devices | CaRole::VerifyOnly) && ca.state != CaState::Retired
}

fn subjects(account: AccountId, host: &HostPattern) -> Subjects {
    Subjects { account: Some(account), host: Some(host.clone()), ..Subjects::default() }
}

/// Takes a hostname away: the edge answers it no more.
#[derive(Clone, Debug)]
pub struct RemoveHost {
    /// Its owner.
    pub account: AccountId,
    /// The hostname.
    pub host: HostPattern,
    /// Who removes it.
    pub by: By,
}

impl Transaction for RemoveHost {
    const NAME: &'static str = "remove_host";
    type Output = Host;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Host, Failed<Rejected>> {
        let key = keys::host(&self.host);
        let held: Option<Host> = tables.get(&key)?;
        let Some(host) = held.filter(|host| host.rule.account == self.account) else {
            return Err(Failed::Refused(Rejected::HostUnknown));
        };
        tables.remove(crate::tables::TableName::Hosts, &key)?;
        let subjects = subjects(self.account, &self.host);
        log(tables, &self.by, Action::HostRemoved, subjects, ChangeKind::HostRemoved(self.host.clone()))?;
        Ok(host)
    }
}
