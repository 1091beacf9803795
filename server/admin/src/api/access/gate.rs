//! From documents to what the edge enforces.
//!
//! What a document names and is gone counts as a condition that never holds; a text that can't be read
//! is a fault, so that the edge goes on with what it had rather than with less.

use muster_policy::gate::{self, Condition, GateWritten, RuleWritten, Visitors, ZoneRules};
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
        apps.push(gate::App { host, path, policies: policies?.into_iter().flatten().collect() });
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

fn policy(reader: &Reader, account: AccountId, id: CaId) -> Result<Option<gate::Policy>, Fault> {
    let Some(document) = reader.document(account, DocumentKind::AccessPolicy, id)? else { return Ok(None) };
    let written: Policy = read(&document)?;
    let visitors = Visitors {
        include: conditions(reader, account, &written.include)?,
        require: conditions(reader, account, &written.require)?,
        exclude: conditions(reader, account, &written.exclude)?,
    };
    Ok(Some(gate::Policy { decision: written.decision, visitors }))
}

fn conditions(reader: &Reader, account: AccountId, rules: &[Rule]) -> Result<Vec<Condition>, Fault> {
    rules.iter().map(|rule| condition(reader, account, rule)).collect()
}

fn condition(reader: &Reader, account: AccountId, rule: &Rule) -> Result<Condition, Fault> {
    Ok(match rule {
        Rule::Certificate {} => Condition::Certificate,
        Rule::CommonName { common_name } => Condition::CommonName(common_name.clone()),
        Rule::Everyone {} => Condition::Everyone,
        Rule::Ip { ip } => Condition::Ip(*ip),
        Rule::Group { id } => match reader.document(account, DocumentKind::AccessGroup, *id)? {
            Some(document) => group(&read(&document)?),
            None => Condition::Nobody,
        },
    })
}

/// Groups hold no groups, so this goes no deeper.
fn group(group: &Group) -> Condition {
    let of = |rules: &[Rule]| rules.iter().map(plain).collect();
    let visitors =
        Visitors { include: of(&group.include), require: of(&group.require), exclude: of(&group.exclude) };
    Condition::Group(Box::new(visitors))
}

fn plain(rule: &Rule) -> Condition {
    match rule {
        Rule::Certificate {} => Condition::Certificate,
        Rule::CommonName { common_name } => Condition::CommonName(common_name.clone()),
        Rule::Everyone {} => Condition::Everyone,
        Rule::Ip { ip } => Condition::Ip(*ip),
        Rule::Group { .. } => Condition::Nobody,
    }
}

fn read<T: DeserializeOwned>(document: &Document) -> Result<T, Fault> {
    serde_json::from_str(&document.text).map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(what: &str) -> Fault {
    Fault::Corrupt { table: "documents", what: what.to_owned() }
}
