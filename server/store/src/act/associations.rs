//! Which hostnames accept the certificates of a CA: set as a whole list, all of it or nothing.

use std::collections::BTreeSet;

use muster_policy::host::{DefaultCas, HostMode, HostPattern, HostRule};
use muster_policy::identity::CaId;

use crate::act::{By, Rejected, hosts, log};
use crate::codec;
use crate::keys;
use crate::record::{Action, Association, AssociationScope, Ca, ChangeKind, Host, OriginTls, Zone};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// Makes exactly these hostnames of a scope accept a CA.
///
/// A hostname that is new demands a certificate. One that no CA is left for lets nobody in, and is
/// removed when it leads to no origin: it was made by an association then, and nothing is behind it.
#[derive(Clone, Debug)]
pub struct SetAssociation {
    /// Whose hostnames.
    pub scope: AssociationScope,
    /// The CA; none for the managed ones of the account.
    pub ca: Option<CaId>,
    /// The hostnames, each once.
    pub hosts: Vec<HostPattern>,
    /// The list that must hold now, for who read it before; none to replace whatever is there.
    pub instead_of: Option<Vec<HostPattern>>,
    /// Who sets it.
    pub by: By,
}

impl Transaction for SetAssociation {
    const NAME: &'static str = "set_association";
    type Output = Vec<HostPattern>;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Vec<HostPattern>, Failed<Rejected>> {
        self.check_ca(tables)?;
        let held = hosts::all(tables)?;
        let key = keys::association(self.scope, self.ca);
        let order: Association = tables.get(&key)?.unwrap_or_default();
        let now = in_order(&order, self.scope, self.ca, &held);
        if self.instead_of.as_ref().is_some_and(|expected| *expected != now) {
            return Err(Failed::Refused(Rejected::RevisionDiffers));
        }
        let changes = self.changes(tables, &held)?;
        for (before, rule) in changes {
            self.write(tables, before, rule)?;
        }
        if order.hosts != self.hosts {
            tables.put(&key, &Association { hosts: self.hosts.clone() })?;
        }
        Ok(self.hosts.clone())
    }
}

impl SetAssociation {
    fn check_ca(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Rejected>> {
        let Some(id) = self.ca else { return Ok(()) };
        let ca: Option<Ca> = tables.get(&keys::ca(id))?;
        let fit = ca.is_some_and(|ca| ca.account == self.scope.account() && hosts::verifies_clients(&ca));
        if fit { Ok(()) } else { Err(Failed::Refused(Rejected::CaUnknown)) }
    }

    /// What becomes of each hostname that changes: the rule before, and the rule after.
    fn changes(
        &self,
        tables: &mut Tables<'_>,
        held: &[Host],
    ) -> Result<Vec<(Option<Host>, HostRule)>, Failed<Rejected>> {
        let zones = zones(tables, self.scope)?;
        let mut changes = Vec::new();
        for name in &self.hosts {
            let before = held.iter().find(|host| host.rule.host == *name);
            if before.is_some_and(|host| host.rule.account != self.scope.account()) {
                return Err(Failed::Refused(Rejected::Exists("the hostname")));
            }
            // A hostname stays in the zone in which it was made, also when a nearer one is added.
            let rule = before.map(|host| host.rule.clone()).or_else(|| made(name, &zones));
            let Some(rule) = rule.filter(|rule| lies_in(rule, self.scope)) else {
                return Err(Failed::Refused(Rejected::HostOutsideZone(name.clone())));
            };
            let after = accepting(rule, self.ca, before.is_none());
            if before.is_none_or(|host| host.rule != after) {
                changes.push((before.cloned(), after));
            }
        }
        for host in held {
            let dropped = lies_in(&host.rule, self.scope)
                && accepts(&host.rule, self.ca)
                && !self.hosts.contains(&host.rule.host);
            if dropped {
                changes.push((Some(host.clone()), refusing(host.rule.clone(), self.ca)));
            }
        }
        Ok(changes)
    }

    fn write(&self, tables: &mut Tables<'_>, before: Option<Host>, rule: HostRule) -> Result<(), Fault> {
        let key = keys::host(&rule.host);
        let (name, subjects) = (rule.host.clone(), hosts::subjects(rule.account, &rule.host));
        if rule.cas.is_empty() && !rule.accepts_default_cas() && rule.origins.is_empty() {
            tables.remove(TableName::Hosts, &key)?;
            return log(tables, &self.by, Action::HostRemoved, subjects, ChangeKind::HostRemoved(name));
        }
        let at = self.by.at;
        let (origin_tls, created_at) = before
            .map_or_else(|| (OriginTls::default(), at), |before| (before.origin_tls, before.created_at));
        tables.put(&key, &Host { rule, origin_tls, created_at, changed_at: at })?;
        log(tables, &self.by, Action::HostSet, subjects, ChangeKind::HostSet(name))
    }
}

/// The hostnames of a scope that accept a CA: those that were given in their order, then the others.
pub(crate) fn in_order(
    order: &Association,
    scope: AssociationScope,
    ca: Option<CaId>,
    held: &[Host],
) -> Vec<HostPattern> {
    let mut left: BTreeSet<&HostPattern> = held
        .iter()
        .filter(|host| lies_in(&host.rule, scope) && accepts(&host.rule, ca))
        .map(|host| &host.rule.host)
        .collect();
    let mut names: Vec<HostPattern> = order.hosts.iter().filter(|name| left.remove(name)).cloned().collect();
    names.extend(left.into_iter().cloned());
    names
}

/// A rule for a hostname that has none, in its nearest zone: one may lie in another.
fn made(name: &HostPattern, zones: &[Zone]) -> Option<HostRule> {
    let within = zones.iter().filter(|zone| name.is_within(&zone.name));
    let zone = within.max_by_key(|zone| zone.name.as_str().len())?;
    Some(HostRule::new(name.clone(), zone.account, zone.id))
}

fn lies_in(rule: &HostRule, scope: AssociationScope) -> bool {
    rule.account == scope.account()
        && match scope {
            AssociationScope::Account(_) => true,
            AssociationScope::Zone { zone, .. } => rule.zone == zone,
        }
}

fn accepts(rule: &HostRule, ca: Option<CaId>) -> bool {
    rule.mode != HostMode::Off && ca.map_or_else(|| rule.accepts_default_cas(), |ca| rule.cas.contains(&ca))
}

fn accepting(mut rule: HostRule, ca: Option<CaId>, is_new: bool) -> HostRule {
    // What a hostname without demands would accept was never asked for.
    let had_default = !is_new && rule.mode != HostMode::Off && rule.accepts_default_cas();
    match ca {
        Some(ca) => {
            rule.cas.insert(ca);
            rule.default_cas = if had_default { DefaultCas::Always } else { DefaultCas::Never };
        }
        None if rule.cas.is_empty() => rule.default_cas = DefaultCas::IfNoneNamed,
        None => rule.default_cas = DefaultCas::Always,
    }
    if rule.mode == HostMode::Off {
        rule.mode = HostMode::Require;
    }
    rule
}

fn refusing(mut rule: HostRule, ca: Option<CaId>) -> HostRule {
    let keeps_default = ca.is_some() && rule.accepts_default_cas();
    if let Some(ca) = ca {
        rule.cas.remove(&ca);
    }
    rule.default_cas = if keeps_default { DefaultCas::Always } else { DefaultCas::Never };
    rule
}

/// The zones of an account; there are as many as an operator adds.
fn zones(tables: &mut Tables<'_>, scope: AssociationScope) -> Result<Vec<Zone>, Fault> {
    let rows = tables.rows(TableName::Zones, &[], None, usize::MAX)?;
    let mut zones: Vec<Zone> =
        rows.iter().map(|(_, value)| codec::decode(TableName::Zones, value)).collect::<Result<_, Fault>>()?;
    zones.retain(|zone| zone.account == scope.account());
    Ok(zones)
}
