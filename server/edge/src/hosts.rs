//! The doors: one per hostname rule, found by one function for SNI and Host alike.
//!
//! All doors of one change are an immutable value; a change makes a new one off the hot path and
//! swaps it. Doors that a change does not touch are carried over as they are, so a change of one
//! hostname builds one door.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use muster_policy::gate::Gate;
use muster_policy::host::{HostPattern, HostRule};
use muster_policy::identity::{AccountId, CaId};
use muster_policy::name::Hostname;
use rustls::ServerConfig;
use rustls::sign::CertifiedKey;

use crate::http::origin::{OriginMaker, Origins};
use crate::snapshot::{AccountEntry, CaEntry, Event, Fault, HostEntry};
use crate::tls::anchors::{AnchorSet, Ca};
use crate::tls::config::{ConfigMaker, ListenerKind};
use crate::tls::issuers::Issuers;

/// Everything behind one hostname rule.
pub(crate) struct Door {
    pub(crate) rule: HostRule,
    pub(crate) anchors: Arc<AnchorSet>,
    pub(crate) origins: Arc<Origins>,
    pub(crate) gate: Arc<Gate>,
    certified_key: Arc<CertifiedKey>,
    https: Option<Arc<ServerConfig>>,
    mqtt: Option<Arc<ServerConfig>>,
}

impl Door {
    /// The configuration for a listener; `None` when the hostname speaks nothing there.
    pub(crate) const fn config(&self, kind: ListenerKind) -> Option<&Arc<ServerConfig>> {
        match kind {
            ListenerKind::Https => self.https.as_ref(),
            ListenerKind::Mqtt => self.mqtt.as_ref(),
        }
    }
}

/// What doors are made with.
pub(crate) struct DoorMaker {
    pub(crate) tls: ConfigMaker,
    pub(crate) origins: OriginMaker,
}

/// An account, with its outbound certificate loaded.
pub(crate) struct Account {
    pub(crate) entry: AccountEntry,
    pub(crate) outbound: Option<Arc<CertifiedKey>>,
    pub(crate) gate: Arc<Gate>,
}

/// All doors, and what they were made of.
#[derive(Default)]
pub(crate) struct Doors {
    exact: HashMap<Hostname, Arc<Door>>,
    /// By the parent of the wildcard label.
    wildcard: HashMap<Hostname, Arc<Door>>,
    /// Exact names whose own rule can't be served. No wildcard answers in their place: its rule may
    /// demand less.
    shut: HashSet<Hostname>,
    accounts: BTreeMap<AccountId, Arc<Account>>,
    cas: BTreeMap<CaId, Arc<Ca>>,
    issuers: BTreeMap<AccountId, Arc<Issuers>>,
    ask_packets: bool,
    /// What could not be used of the update that these doors come from.
    faults: Vec<Fault>,
}

impl Doors {
    /// Makes all doors anew. What can't be used is left out, and named by [`Doors::faults`].
    pub(crate) fn new(
        maker: &DoorMaker,
        accounts: &[AccountEntry],
        cas: &[CaEntry],
        hosts: &[HostEntry],
    ) -> Self {
        let mut doors = Self::default();
        for account in accounts {
            doors.set_account(maker, account);
        }
        for ca in cas {
            doors.set_ca(ca);
        }
        doors.issuers = Issuers::by_account(&doors.cas);
        let mut sets = AnchorSets::default();
        for host in hosts {
            let door = doors.open(maker, host, &mut sets);
            doors.put(&host.rule.host, door);
        }
        doors
    }

    /// These doors after some changes. What can't be used is left out, and named by [`Doors::faults`].
    pub(crate) fn after(&self, maker: &DoorMaker, events: &[Event]) -> Self {
        let mut doors = Self {
            exact: self.exact.clone(),
            wildcard: self.wildcard.clone(),
            shut: self.shut.clone(),
            accounts: self.accounts.clone(),
            cas: self.cas.clone(),
            issuers: BTreeMap::new(),
            ask_packets: self.ask_packets,
            faults: Vec::new(),
        };
        let mut touched = BTreeSet::new();
        let mut hosts = Vec::new();
        for event in events {
            match event {
                Event::Account(entry) => {
                    touched.insert(entry.id);
                    doors.set_account(maker, entry);
                }
                Event::Ca(entry) => {
                    touched.insert(entry.account);
                    touched.extend(doors.cas.get(&entry.id).map(|ca| ca.entry.account));
                    doors.set_ca(entry);
                }
                Event::CaRemoved(id) => touched.extend(doors.cas.remove(id).map(|ca| ca.entry.account)),
                Event::Host(entry) => hosts.push(&**entry),
                Event::HostRemoved(pattern) => {
                    hosts.retain(|entry| entry.rule.host != *pattern);
                    doors.remove(pattern);
                }
                Event::Device(_)
                | Event::List(_)
                | Event::PrintReactivated(_)
                | Event::PrintRevoked(_)
                | Event::Reactivated(_)
                | Event::Revoked(_) => {}
            }
        }
        doors.issuers = Issuers::by_account(&doors.cas);
        // Sets are shared with the doors that stay, where their CAs are the same as before.
        let mut sets = AnchorSets::of(self.doors().filter(|door| !touched.contains(&door.rule.account)));
        let of_touched: Vec<_> =
            doors.doors().filter(|door| touched.contains(&door.rule.account)).cloned().collect();
        for door in of_touched {
            let reopened = doors.reopen(maker, &door, &mut sets);
            doors.put(&door.rule.host, reopened);
        }
        for host in hosts {
            let door = doors.open(maker, host, &mut sets);
            doors.put(&host.rule.host, door);
        }
        doors
    }

    /// The door that a name leads to: the exact one, or that of the wildcard for its first label.
    ///
    /// The name is taken as a peer wrote it: case and one trailing dot make no difference.
    pub(crate) fn resolve(&self, name: &str) -> Option<&Arc<Door>> {
        let name: Hostname = name.parse().ok()?;
        if let Some(door) = self.exact.get(&name) {
            return Some(door);
        }
        if self.shut.contains(&name) {
            return None;
        }
        let (_, parent) = name.as_str().split_once('.')?;
        self.wildcard.get(&parent.parse::<Hostname>().ok()?)
    }

    /// Whether rules of any account ask what each packet of MQTT has of its own.
    pub(crate) const fn ask_packets(&self) -> bool {
        self.ask_packets
    }

    /// All CAs that share name and key with this one; none when it has them for itself.
    pub(crate) fn twins(&self, ca: CaId) -> Vec<CaId> {
        let account = self.cas.get(&ca).map(|ca| ca.entry.account);
        let issuers = account.and_then(|account| self.issuers.get(&account));
        issuers.map(|issuers| issuers.twins(ca).to_vec()).unwrap_or_default()
    }

    /// The CAs of an account; none of one that is not known.
    pub(crate) fn issuers(&self, account: AccountId) -> Arc<Issuers> {
        self.issuers.get(&account).cloned().unwrap_or_default()
    }

    /// Whether the CA is one of the account's that vouches for somebody.
    pub(crate) fn vouches(&self, account: AccountId, ca: CaId) -> bool {
        self.cas.get(&ca).is_some_and(|ca| ca.entry.account == account && ca.entry.vouches)
    }

    /// What could not be used of the update that these doors come from.
    pub(crate) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.exact.len() + self.wildcard.len()
    }

    fn doors(&self) -> impl Iterator<Item = &Arc<Door>> {
        self.exact.values().chain(self.wildcard.values())
    }

    fn set_account(&mut self, maker: &DoorMaker, entry: &AccountEntry) {
        let outbound = entry.outbound.as_ref().and_then(|identity| {
            let loaded = maker.tls.certified_key(identity);
            // Its hostnames go on without: origins that insist refuse, which is the account's to see.
            loaded
                .inspect_err(
                    |fault| tracing::warn!(account = %entry.id, fault, "outbound certificate unusable"),
                )
                .ok()
                .map(Arc::new)
        });
        self.accounts.insert(
            entry.id,
            Arc::new(Account { entry: entry.clone(), outbound, gate: Arc::new(Gate::new(&entry.gate)) }),
        );
        self.ask_packets = self.accounts.values().any(|account| account.gate.asks_packets());
    }

    fn set_ca(&mut self, entry: &CaEntry) {
        match Ca::new(entry.clone()) {
            Ok(ca) => drop(self.cas.insert(entry.id, Arc::new(ca))),
            Err(fault) => {
                self.cas.remove(&entry.id);
                self.faults.push(fault);
            }
        }
    }

    /// Hangs a door. One that can't be made leaves its hostname without, and shut: the old one has a rule
    /// that holds no more.
    fn put(&mut self, pattern: &HostPattern, door: Result<Arc<Door>, Fault>) {
        match door {
            Ok(door) => {
                self.remove(pattern);
                self.map(pattern).insert(pattern.name().clone(), door);
            }
            Err(fault) => {
                self.remove(pattern);
                if !pattern.is_wildcard() {
                    self.shut.insert(pattern.name().clone());
                }
                self.faults.push(fault);
            }
        }
    }

    fn remove(&mut self, pattern: &HostPattern) {
        if !pattern.is_wildcard() {
            self.shut.remove(pattern.name());
        }
        self.map(pattern).remove(pattern.name());
    }

    const fn map(&mut self, pattern: &HostPattern) -> &mut HashMap<Hostname, Arc<Door>> {
        if pattern.is_wildcard() { &mut self.wildcard } else { &mut self.exact }
    }

    fn open(&self, maker: &DoorMaker, entry: &HostEntry, sets: &mut AnchorSets) -> Result<Arc<Door>, Fault> {
        let fault = |fault: String| Fault::Host { host: entry.rule.host.clone(), fault };
        let account = self.account(&entry.rule)?;
        let certificate = entry
            .certificate
            .as_ref()
            .ok_or_else(|| fault("it has no usable server certificate, or its zone is paused".to_owned()))?;
        let certified_key = Arc::new(maker.tls.certified_key(certificate).map_err(fault)?);
        let own = own_identity(maker, entry);
        let origins =
            maker.origins.origins(&entry.rule.origins, &entry.origin_tls, own, account).map_err(fault)?;
        self.assemble(maker, entry.rule.clone(), certified_key, Arc::new(origins), sets)
    }

    /// The same door, of the same hostname, with the CAs and the account as they are now.
    fn reopen(&self, maker: &DoorMaker, door: &Door, sets: &mut AnchorSets) -> Result<Arc<Door>, Fault> {
        let origins = door.origins.of(self.account(&door.rule)?);
        self.assemble(maker, door.rule.clone(), Arc::clone(&door.certified_key), origins, sets)
    }

    fn account(&self, rule: &HostRule) -> Result<&Arc<Account>, Fault> {
        self.accounts.get(&rule.account).ok_or_else(|| Fault::Host {
            host: rule.host.clone(),
            fault: "its account is not in the snapshot".to_owned(),
        })
    }

    fn assemble(
        &self,
        maker: &DoorMaker,
        rule: HostRule,
        certified_key: Arc<CertifiedKey>,
        origins: Arc<Origins>,
        sets: &mut AnchorSets,
    ) -> Result<Arc<Door>, Fault> {
        let fault = |fault: String| Fault::Host { host: rule.host.clone(), fault };
        let account = self.account(&rule)?;
        let anchors = sets.get(self, &rule, account);
        let gate = Arc::clone(&account.gate);
        let https = maker.tls.config(&rule, ListenerKind::Https, &anchors, &certified_key).map_err(fault)?;
        let mqtt = maker.tls.config(&rule, ListenerKind::Mqtt, &anchors, &certified_key).map_err(fault)?;
        Ok(Arc::new(Door { rule, anchors, origins, gate, certified_key, https, mqtt }))
    }

    /// The CAs that a rule accepts: those it names, and the default ones of its account if it does.
    fn wanted(&self, rule: &HostRule) -> BTreeSet<CaId> {
        let mut wanted = rule.cas.clone();
        if rule.accepts_default_cas() {
            let own = self.cas.values().filter(|ca| ca.entry.is_default && ca.entry.account == rule.account);
            wanted.extend(own.map(|ca| ca.entry.id));
        }
        wanted
    }
}

/// The hostname's own certificate for its origins. While it can't be used they are shown none, and those that
/// insist refuse, which is the account's to see.
fn own_identity(maker: &DoorMaker, entry: &HostEntry) -> Option<Arc<CertifiedKey>> {
    let loaded = maker.tls.certified_key(entry.origin_tls.identity.as_ref()?);
    loaded
        .inspect_err(|fault| {
            tracing::warn!(host = %entry.rule.host, fault, "the certificate for its origins is unusable");
        })
        .ok()
        .map(Arc::new)
}

/// The sets of anchors in use, one per account and set of CAs.
#[derive(Default)]
struct AnchorSets(BTreeMap<(AccountId, BTreeSet<CaId>), Arc<AnchorSet>>);

impl AnchorSets {
    fn of<'a>(doors: impl Iterator<Item = &'a Arc<Door>>) -> Self {
        Self(
            doors
                .map(|door| ((door.anchors.account, door.anchors.cas.clone()), Arc::clone(&door.anchors)))
                .collect(),
        )
    }

    fn get(&mut self, doors: &Doors, rule: &HostRule, account: &Account) -> Arc<AnchorSet> {
        let mut wanted = doors.wanted(rule);
        let counts = |ca: &Arc<Ca>| ca.entry.account == rule.account && ca.entry.vouches;
        wanted.retain(|id| doors.cas.get(id).is_some_and(counts));
        let key = (rule.account, wanted);
        if let Some(set) = self.0.get(&key) {
            return Arc::clone(set);
        }
        let domain = account.entry.trust_domain.clone();
        let issuers = doors.issuers.get(&rule.account).cloned().unwrap_or_default();
        let set = Arc::new(AnchorSet::new(rule.account, domain, &key.1, &doors.cas, issuers));
        self.0.insert(key, Arc::clone(&set));
        set
    }
}

#[cfg(test)]
mod tests;
