//! Hostnames: their rules, and their end.

use muster_policy::host::{HostPattern, HostRule};
use muster_policy::identity::AccountId;

use crate::act::{By, Rejected, log};
use crate::codec;
use crate::keys;
use crate::record::{Action, Ca, CaRole, CaState, ChangeKind, Host, OriginTls, Subjects, Zone};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// Sets the whole rule of a hostname, new or not; setting what is set changes nothing.
///
/// A hostname belongs to one account, because SNI knows no accounts, and lies in a zone of it.
#[derive(Clone, Debug)]
pub struct SetHost {
    /// The rule.
    pub rule: HostRule,
    /// How its origins are spoken to.
    pub origin_tls: OriginTls,
    /// What must be stored now, unless it is what is set: none for a new hostname.
    pub instead_of: Option<Host>,
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
        if before != self.instead_of {
            return Err(Failed::Refused(Rejected::RevisionDiffers));
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
pub(super) fn verifies_clients(ca: &Ca) -> bool {
    matches!(ca.role, CaRole::Devices | CaRole::VerifyOnly) && ca.state != CaState::Retired
}

pub(super) fn subjects(account: AccountId, host: &HostPattern) -> Subjects {
    Subjects { account: Some(account), host: Some(host.clone()), ..Subjects::default() }
}

/// Takes a hostname away: the edge answers it no more.
#[derive(Clone, Debug)]
pub struct RemoveHost {
    /// Its owner.
    pub account: AccountId,
    /// The hostname.
    pub host: HostPattern,
    /// What must be stored now, for who read it before; none to remove whatever is there.
    pub instead_of: Option<Host>,
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
        if self.instead_of.as_ref().is_some_and(|expected| *expected != host) {
            return Err(Failed::Refused(Rejected::RevisionDiffers));
        }
        tables.remove(TableName::Hosts, &key)?;
        let subjects = subjects(self.account, &self.host);
        log(tables, &self.by, Action::HostRemoved, subjects, ChangeKind::HostRemoved(self.host.clone()))?;
        Ok(host)
    }
}

/// Sets, for hostnames that are there, whether origins are sent the certificate in headers of its own.
#[derive(Clone, Debug)]
pub struct SetForwarding {
    /// Their owner.
    pub account: AccountId,
    /// Each hostname with what holds for it from now on; others stay as they are.
    pub hosts: Vec<(HostPattern, bool)>,
    /// Who sets it.
    pub by: By,
}

impl Transaction for SetForwarding {
    const NAME: &'static str = "set_forwarding";
    type Output = ();
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let mut changed = Vec::new();
        for (name, forward) in &self.hosts {
            let held: Option<Host> = tables.get(&keys::host(name))?;
            let Some(mut host) = held.filter(|host| host.rule.account == self.account) else {
                return Err(Failed::Refused(Rejected::HostUnknown));
            };
            if host.rule.forward_certificate != *forward {
                host.rule.forward_certificate = *forward;
                host.changed_at = self.by.at;
                changed.push(host);
            }
        }
        for host in changed {
            let name = host.rule.host.clone();
            tables.put(&keys::host(&name), &host)?;
            let subjects = subjects(self.account, &name);
            log(tables, &self.by, Action::HostSet, subjects, ChangeKind::HostSet(name))?;
        }
        Ok(())
    }
}

/// All hostnames, by name; there are as many as an operator sets.
pub(super) fn all(tables: &mut Tables<'_>) -> Result<Vec<Host>, Fault> {
    let rows = tables.rows(TableName::Hosts, &[], None, usize::MAX)?;
    rows.iter().map(|(_, value)| codec::decode(TableName::Hosts, value)).collect()
}

/// The first names of the hostnames whose rules are like this, for people.
pub(super) fn named(tables: &mut Tables<'_>, like: impl Fn(&HostRule) -> bool) -> Result<String, Fault> {
    let hosts = all(tables)?;
    let names: Vec<String> =
        hosts.iter().filter(|host| like(&host.rule)).map(|host| host.rule.host.to_string()).collect();
    Ok(some_of(names))
}

/// The first of many names, and how many more there are.
pub(super) fn some_of(names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let mut text = names.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Names that a message lists.
const NAMED_MAX: usize = 20;
