//! How much the applications of an account weigh, in conditions: what the edge has to hold, and may have to
//! ask for one request.
//!
//! A policy counts once for each application that names it, and a group once for each rule. Counted before a
//! document is stored, with it in the place of what is there.

use std::collections::BTreeMap;

use muster_policy::identity::CaId;
use muster_store::record::{Document, DocumentKind};
use muster_store::{Fault, Reader};

use super::gate::read;
use super::links::Link;
use super::{App, Group, Policy, Rule};

/// Counts the conditions of an account once this document is stored. What can't be read has none.
///
/// # Errors
/// When the ledger can't be read.
pub(super) fn conditions_with(reader: &Reader, next: &Document) -> Result<usize, Fault> {
    let mut apps = reader.documents(next.account, DocumentKind::AccessApp)?;
    apps.retain(|app| app.id != next.id);
    apps.extend((next.kind == DocumentKind::AccessApp).then(|| next.clone()));
    let mut weights = Weights { reader, next, policies: BTreeMap::new(), groups: BTreeMap::new() };
    let links = apps.iter().filter_map(|app| read::<App>(app).ok()).flat_map(|app| app.policies);
    links.map(|link| weights.link(&link)).try_fold(0, |sum: usize, weight| Ok(sum.saturating_add(weight?)))
}

/// What is counted already.
struct Weights<'a> {
    reader: &'a Reader,
    next: &'a Document,
    policies: BTreeMap<CaId, usize>,
    groups: BTreeMap<CaId, usize>,
}

impl Weights<'_> {
    fn link(&mut self, link: &Link) -> Result<usize, Fault> {
        match link {
            Link::Named(named) => self.policy(named.id),
            Link::Own(own) => self.rules(&own.policy),
        }
    }

    fn policy(&mut self, id: CaId) -> Result<usize, Fault> {
        if let Some(known) = self.policies.get(&id) {
            return Ok(*known);
        }
        let policy = self.document(DocumentKind::AccessPolicy, id)?;
        let policy = policy.and_then(|document| read(&document).ok());
        let weight = policy.map_or(Ok(0), |policy| self.rules(&policy))?;
        self.policies.insert(id, weight);
        Ok(weight)
    }

    fn rules(&mut self, policy: &Policy) -> Result<usize, Fault> {
        let mut weight = 0_usize;
        for rule in [&policy.include, &policy.require, &policy.exclude].into_iter().flatten() {
            let of_rule = match rule {
                Rule::Group { id } => self.group(*id)?,
                Rule::Certificate {} | Rule::CommonName { .. } | Rule::Everyone {} | Rule::Ip { .. } => 1,
            };
            weight = weight.saturating_add(of_rule);
        }
        Ok(weight)
    }

    /// With one for the group itself.
    fn group(&mut self, id: CaId) -> Result<usize, Fault> {
        if let Some(known) = self.groups.get(&id) {
            return Ok(*known);
        }
        let group = self.document(DocumentKind::AccessGroup, id)?;
        let group = group.and_then(|document| read(&document).ok());
        let of = |group: Group| [group.include, group.require, group.exclude].iter().flatten().count();
        let weight = group.map_or(0, of).saturating_add(1);
        self.groups.insert(id, weight);
        Ok(weight)
    }

    fn document(&self, kind: DocumentKind, id: CaId) -> Result<Option<Document>, Fault> {
        if (kind, id) == (self.next.kind, self.next.id) {
            return Ok(Some(self.next.clone()));
        }
        self.reader.document(self.next.account, kind, id)
    }
}
