//! What the origins of single hostnames are shown: set for several at once, all of it or nothing.

use muster_policy::host::HostPattern;
use muster_policy::identity::{AccountId, CaId, ZoneId};

use crate::act::{By, Rejected, accounts, audit, hosts};
use crate::codec;
use crate::keys;
use crate::record::{Action, ChangeKind, OriginPull, OutboundLeaf, ShownTo, Subjects};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// Most hostnames of a zone that name a leaf.
pub const ORIGIN_PULLS_MAX: usize = 5_000;

/// What is wanted for the origins of a hostname.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullWish {
    /// The hostname names no leaf any more.
    Nothing,
    /// It names one.
    Shown {
        /// The leaf; none for the one that it names already.
        leaf: Option<CaId>,
        /// Whether the leaf is shown.
        enabled: bool,
    },
}

/// Sets what the origins of hostnames are shown; those that are not named stay as they are.
#[derive(Clone, Debug)]
pub struct SetOriginPulls {
    /// The owner of the zone.
    pub account: AccountId,
    /// The zone.
    pub zone: ZoneId,
    /// Each hostname, once, with what is wanted.
    pub wishes: Vec<(HostPattern, PullWish)>,
    /// Who sets it.
    pub by: By,
}

impl Transaction for SetOriginPulls {
    const NAME: &'static str = "set_origin_pulls";
    /// For each wish what holds now; none where nothing is named.
    type Output = Vec<Option<OriginPull>>;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Vec<Option<OriginPull>>, Failed<Rejected>> {
        let zone = accounts::own_zone(tables, self.account, self.zone)?;
        let mut held = Vec::with_capacity(self.wishes.len());
        // Nothing is written before every wish was found good.
        for (host, wish) in &self.wishes {
            if !host.is_within(&zone.name) {
                return Err(Failed::Refused(Rejected::HostOutsideZone(host.clone())));
            }
            let before: Option<OriginPull> = tables.get(&keys::origin_pull(zone.id, host))?;
            held.push((self.wanted(tables, host, wish, before.as_ref())?, before));
        }
        let more = held.iter().filter(|(after, before)| after.is_some() && before.is_none()).count();
        if more > 0 && all(tables, zone.id)?.len().saturating_add(more) > ORIGIN_PULLS_MAX {
            return Err(Failed::Refused(Rejected::TooMany { max: ORIGIN_PULLS_MAX }));
        }
        for ((host, _), (after, before)) in self.wishes.iter().zip(&held) {
            if after != before {
                self.write(tables, host, after.as_ref())?;
            }
        }
        Ok(held.into_iter().map(|(after, _)| after).collect())
    }
}

impl SetOriginPulls {
    fn wanted(
        &self,
        tables: &mut Tables<'_>,
        host: &HostPattern,
        wish: &PullWish,
        before: Option<&OriginPull>,
    ) -> Result<Option<OriginPull>, Failed<Rejected>> {
        let PullWish::Shown { leaf, enabled } = *wish else { return Ok(None) };
        let unknown = || Failed::Refused(Rejected::CertificateUnknown);
        let leaf = leaf.or_else(|| before.map(|before| before.leaf)).ok_or_else(unknown)?;
        let found: Option<OutboundLeaf> = tables.get(&keys::outbound_leaf(self.account, leaf))?;
        if found.is_none_or(|found| found.shown_to != Some(ShownTo::Hostnames(self.zone))) {
            return Err(unknown());
        }
        let (zone, host, at) = (self.zone, host.clone(), self.by.at);
        Ok(Some(match before {
            Some(before) if before.leaf == leaf && before.enabled == enabled => before.clone(),
            Some(before) => OriginPull { leaf, enabled, changed_at: at, ..before.clone() },
            None => OriginPull { zone, host, leaf, enabled, created_at: at, changed_at: at },
        }))
    }

    fn write(
        &self,
        tables: &mut Tables<'_>,
        host: &HostPattern,
        pull: Option<&OriginPull>,
    ) -> Result<(), Fault> {
        let key = keys::origin_pull(self.zone, host);
        match pull {
            Some(pull) => tables.put(&key, pull)?,
            None => drop(tables.remove(TableName::OriginPulls, &key)?),
        }
        tables.change(self.by.at, Some(self.account), ChangeKind::OriginPullSet(host.clone()))?;
        let subjects = Subjects { zone: Some(self.zone), ..hosts::subjects(self.account, host) };
        let details = pull.map_or_else(
            || "none".to_owned(),
            |pull| format!("{}{}", pull.leaf, if pull.enabled { "" } else { ", disabled" }),
        );
        audit(tables, &self.by, Action::OriginPullSet, subjects, Some(details))
    }
}

/// The hostnames of a zone that name a leaf, by name.
pub(super) fn all(tables: &mut Tables<'_>, zone: ZoneId) -> Result<Vec<OriginPull>, Fault> {
    let end = keys::after(zone.as_bytes());
    let rows = tables.rows(TableName::OriginPulls, zone.as_bytes(), end.as_deref(), usize::MAX)?;
    rows.iter().map(|(_, value)| codec::decode(TableName::OriginPulls, value)).collect()
}

/// The first hostnames that name this leaf, for people.
pub(super) fn named(tables: &mut Tables<'_>, zone: ZoneId, leaf: CaId) -> Result<String, Fault> {
    let pulls = all(tables, zone)?;
    let names: Vec<String> =
        pulls.iter().filter(|pull| pull.leaf == leaf).map(|pull| pull.host.to_string()).collect();
    Ok(hosts::some_of(names))
}
