//! From documents to what the edge enforces.
//!
//! A policy that is gone, or names a group that is, keeps out whoever no service policy lets in: what it
//! would have said nobody knows. A text that can't be read is a fault, so that the edge goes on with what
//! it had rather than with less.

use muster_policy::gate::{self, Condition, Decision, GateWritten, RuleWritten, Visitors, ZoneRules};
use muster_policy::identity::{AccountId, CaId};
use muster_store::record::{Document, DocumentKind};
use muster_store::{Fault, Reader};
use serde::de::DeserializeOwned;

use super::{App, Group, Policy, Rule};
use crate::api::rulesets::Ruleset;

/// What the requests of an account are judged by, as of a snapshot.
///
/// # Errors
/// When the ledger can't be read, or holds a text that is not what its kind says.
pub fn gate(reader: &Reader, account: AccountId) -> Result<GateWritten, Fault> {
    let mut apps = Vec::new();
    for document in reader.documents(account, DocumentKind::AccessApp)? {
        let app: App = read(&document)?;
        let Ok((host, path)) = app.place() else { return Err(unreadable("an application has no place")) };
        let mut links = app.policies.clone();
        links.sort_by_key(|link| match link {
            super::Link::Placed { precedence, .. } => precedence.unwrap_or(u32::MAX),
            super::Link::Id(_) => u32::MAX,
        });
        let policies: Result<Vec<_>, Fault> =
            links.iter().map(|link| policy(reader, account, link.id())).collect();
        apps.push(gate::App { host, path, policies: policies? });
    }
    let mut zones = Vec::new();
    for document in reader.documents(account, DocumentKind::Ruleset)? {
        let Some(zone) = document.zone else { continue };
        let ruleset: Ruleset = read(&document)?;
        let rules = ruleset.rules.into_iter().filter(|rule| rule.enabled);
        let rules = rules.map(|rule| RuleWritten { expression: rule.expression, action: rule.action });
        zones.push(ZoneRules { zone, rules: rules.collect() });
    }
    Ok(GateWritten { apps, zones })
}

fn policy(reader: &Reader, account: AccountId, id: CaId) -> Result<gate::Policy, Fault> {
    let Some(document) = reader.document(account, DocumentKind::AccessPolicy, id)? else {
        return Ok(closed());
    };
    let written: Policy = read(&document)?;
    let [include, require, exclude] = [&written.include, &written.require, &written.exclude]
        .map(|rules| conditions(reader, account, rules));
    let (Some(include), Some(require), Some(exclude)) = (include?, require?, exclude?) else {
        return Ok(closed());
    };
    Ok(gate::Policy { decision: written.decision, visitors: Visitors { include, require, exclude } })
}

/// Means everybody, and lets nobody in.
fn closed() -> gate::Policy {
    let visitors = Visitors { include: vec![Condition::Everyone], ..Visitors::default() };
    gate::Policy { decision: Decision::Deny, visitors }
}

/// None when a group is gone.
fn conditions(reader: &Reader, account: AccountId, rules: &[Rule]) -> Result<Option<Vec<Condition>>, Fault> {
    rules.iter().map(|rule| condition(reader, account, rule)).collect()
}

fn condition(reader: &Reader, account: AccountId, rule: &Rule) -> Result<Option<Condition>, Fault> {
    let Rule::Group { id } = rule else { return Ok(plain(rule)) };
    match reader.document(account, DocumentKind::AccessGroup, *id)? {
        Some(document) => Ok(group(&read(&document)?)),
        None => Ok(None),
    }
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

fn read<T: DeserializeOwned>(document: &Document) -> Result<T, Fault> {
    serde_json::from_str(&document.text).map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(what: &str) -> Fault {
    Fault::Corrupt { table: "documents", what: what.to_owned() }
}
