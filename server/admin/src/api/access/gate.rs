//! From documents to what the edge enforces.
//!
//! A policy that is gone, or names a group that is, keeps out whoever no service policy lets in: what it
//! would have said nobody knows. A text that can't be read is a fault, so that the edge goes on with what
//! it had rather than with less.

use std::collections::{BTreeMap, BTreeSet};

use muster_policy::gate::{self, Condition, Decision, GateWritten, RuleWritten, Visitors, ZoneRules};
use muster_policy::identity::{AccountId, CaId};
use muster_store::record::{Document, DocumentKind};
use muster_store::{Fault, Reader};
use serde::de::DeserializeOwned;

use super::links::{Link, ordered};
use super::{App, Group, Policy, Rule};
use crate::api::access_test::labels::{AppLabel, PolicyLabel};
use crate::api::managed_headers;
use crate::api::rulesets::rules_in_force;

/// What the requests of an account are judged by, as of a snapshot.
///
/// # Errors
/// When the ledger can't be read, or holds a text that is not what its kind says.
pub fn gate(reader: &Reader, account: AccountId) -> Result<GateWritten, Fault> {
    let apps = apps(reader, account)?.into_iter().map(|(app, _)| app).collect();
    let zones = rules_in_force(reader, account)?.into_iter().map(|(zone, rules)| {
        let rules = rules.into_iter();
        let rules = rules.map(|rule| RuleWritten { expression: rule.expression, action: rule.action });
        ZoneRules { zone, rules: rules.collect() }
    });
    let zones = zones.collect();
    let mut untold_zones = BTreeSet::new();
    for document in reader.documents(account, DocumentKind::ManagedHeaders)? {
        let kept: managed_headers::Kept = read(&document)?;
        untold_zones.extend(document.zone.filter(|_| !kept.add_client_certificate_headers));
    }
    Ok(GateWritten { apps, zones, is_shut: false, untold_zones })
}

/// The names of the applications, each at its place in the gate.
///
/// # Errors
/// As [`gate()`].
pub(crate) fn app_labels(reader: &Reader, account: AccountId) -> Result<Vec<AppLabel>, Fault> {
    Ok(apps(reader, account)?.into_iter().map(|(_, label)| label).collect())
}

fn apps(reader: &Reader, account: AccountId) -> Result<Vec<(gate::App, AppLabel)>, Fault> {
    let mut parts = Parts { reader, account, policies: BTreeMap::new(), groups: BTreeMap::new() };
    let mut apps = Vec::new();
    let mut shut = BTreeSet::new();
    for document in reader.documents(account, DocumentKind::AccessApp)? {
        let app: App = read(&document)?;
        let Ok(host) = app.host() else { return Err(unreadable("an application has no hostname")) };
        // It would match no request, and so protect nothing of what it was meant for.
        let Ok(path) = app.path() else {
            shut.insert(host);
            continue;
        };
        let (mut policies, mut labels) = (Vec::new(), Vec::new());
        for link in ordered(&app.policies) {
            let (policy, name) = parts.of_link(&link)?;
            policies.push(policy);
            labels.push(PolicyLabel { id: link.id(), name });
        }
        let label = AppLabel {
            id: Some(document.id),
            name: app.name.clone(),
            domain: app.domain.clone(),
            policies: labels,
        };
        apps.push((gate::App { host, path, policies }, label));
    }
    apps.retain(|(app, _)| !shut.contains(&app.host));
    apps.extend(shut.into_iter().map(|host| {
        let label = AppLabel {
            id: None,
            name: None,
            domain: host.to_string(),
            policies: vec![PolicyLabel::closed()],
        };
        (gate::App { host, path: "/".to_owned(), policies: vec![closed()] }, label)
    }));
    Ok(apps)
}

/// The policies and groups of an account, each read once however often it is named.
struct Parts<'a> {
    reader: &'a Reader,
    account: AccountId,
    policies: BTreeMap<CaId, (gate::Policy, String)>,
    /// None for one that is gone.
    groups: BTreeMap<CaId, Option<Condition>>,
}

impl Parts<'_> {
    /// A policy, and its name.
    fn of_link(&mut self, link: &Link) -> Result<(gate::Policy, String), Fault> {
        match link {
            Link::Named(named) => self.policy(named.id),
            Link::Own(own) => Ok((self.written(&own.policy)?, own.policy.name.clone())),
        }
    }

    fn policy(&mut self, id: CaId) -> Result<(gate::Policy, String), Fault> {
        if let Some(known) = self.policies.get(&id) {
            return Ok(known.clone());
        }
        let policy = match self.reader.document(self.account, DocumentKind::AccessPolicy, id)? {
            Some(document) => {
                let written: Policy = read(&document)?;
                (self.written(&written)?, written.name)
            }
            None => (closed(), PolicyLabel::closed().name),
        };
        self.policies.insert(id, policy.clone());
        Ok(policy)
    }

    fn written(&mut self, written: &Policy) -> Result<gate::Policy, Fault> {
        let include = self.conditions(&written.include)?;
        let (require, exclude) = (self.conditions(&written.require)?, self.conditions(&written.exclude)?);
        let (Some(include), Some(require), Some(exclude)) = (include, require, exclude) else {
            return Ok(closed());
        };
        Ok(gate::Policy { decision: written.decision, visitors: Visitors { include, require, exclude } })
    }

    /// None when a group is gone.
    fn conditions(&mut self, rules: &[Rule]) -> Result<Option<Vec<Condition>>, Fault> {
        rules.iter().map(|rule| self.condition(rule)).collect()
    }

    fn condition(&mut self, rule: &Rule) -> Result<Option<Condition>, Fault> {
        let Rule::Group { id } = rule else { return Ok(plain(rule)) };
        if let Some(known) = self.groups.get(id) {
            return Ok(known.clone());
        }
        let condition = match self.reader.document(self.account, DocumentKind::AccessGroup, *id)? {
            Some(document) => group(&read(&document)?),
            None => None,
        };
        self.groups.insert(*id, condition.clone());
        Ok(condition)
    }
}

/// Means everybody, and lets nobody in.
fn closed() -> gate::Policy {
    let visitors = Visitors { include: vec![Condition::Everyone], ..Visitors::default() };
    gate::Policy { decision: Decision::Deny, visitors }
}

fn group(group: &Group) -> Option<Condition> {
    let of = |rules: &[Rule]| rules.iter().map(plain).collect::<Option<Vec<_>>>();
    let (include, require, exclude) = (of(&group.include)?, of(&group.require)?, of(&group.exclude)?);
    Some(Condition::Group(Box::new(Visitors { include, require, exclude })))
}

/// What is no group; a group holds none.
fn plain(rule: &Rule) -> Option<Condition> {
    Some(match rule {
        Rule::Certificate {} => Condition::Certificate,
        Rule::CommonName { common_name } => Condition::CommonName(common_name.clone()),
        Rule::Everyone {} => Condition::Everyone,
        Rule::Ip { ip } => Condition::Ip(*ip),
        Rule::Group { .. } => return None,
    })
}

/// Reads a document.
///
/// # Errors
/// When its text is not what its kind says.
pub(crate) fn read<T: DeserializeOwned>(document: &Document) -> Result<T, Fault> {
    serde_json::from_str(&document.text).map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(what: &str) -> Fault {
    Fault::Corrupt { table: "documents", what: what.to_owned() }
}
