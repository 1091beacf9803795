//! The ledger's changes as the edge wants them: a snapshot first, then what became different.
//!
//! The edge reads no ledger. This file turns records into its entries, in the order of the change log,
//! and always with the state of the newest snapshot: a change that was overtaken by another one says
//! what holds now.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_edge::{
    AccountEntry, CaEntry, CertificateKey, Delta, DeviceEntry, Elsewhere, Event, HostEntry, ListEntry,
    OriginTls, PrintKey, Snapshot, Update,
};
use muster_enroll::{Clock, Registrar};
use muster_policy::gate::GateWritten;
use muster_policy::host::{HostPattern, HostRule};
use muster_policy::identity::{AccountId, CaId};
use muster_policy::name::DeviceId;
use muster_policy::time::UnixTime;
use muster_store::record::{
    Account, Ca, CaRole, CaState, Certificate, ChangeKind, Device, ForeignName, Host, ImportedDevices,
    OutboundLeaf, ShownTo, Zone,
};
use muster_store::{Fault, Ledger, Reader};

use super::certificates::Certificates;

/// Changes read at a time.
const CHANGES_MAX: usize = 1_000;
/// Devices of imports told one by one, at a time; a snapshot of a large fleet takes the edge seconds, in which nothing else
/// comes into force.
const EVENTS_MAX: usize = 20_000;
/// How far an edge's clock may be behind before it needs to hear that an ended certificate was revoked.
const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(86_400);

/// Reads the ledger for the edge; blocks the thread.
pub(crate) struct Feed {
    ledger: Ledger,
    account: AccountId,
    clock: Clock,
    certificates: Certificates,
    /// The gate of the account as it was last read.
    last_gate: Mutex<Option<GateWritten>>,
}

impl Feed {
    pub(super) fn new(registrar: &Arc<Registrar>, certificates: Certificates) -> Self {
        let (ledger, clock) = (registrar.ledger().clone(), registrar.clock().clone());
        Self { ledger, account: registrar.account(), clock, certificates, last_gate: Mutex::default() }
    }

    /// The same for another edge, with certificates of its own.
    pub(super) fn another(&self) -> Self {
        Self {
            ledger: self.ledger.clone(),
            account: self.account,
            clock: self.clock.clone(),
            certificates: self.certificates.another(),
            last_gate: Mutex::default(),
        }
    }

    /// Everything as it is now.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub(super) fn snapshot(&self) -> Result<Snapshot, Fault> {
        let reader = self.ledger.reader()?;
        let now = self.now();
        let mut revoked = Vec::new();
        reader.for_each_revoked(self.account, |entry| {
            if entry.not_after.plus(CLOCK_BEHIND_MAX) >= now {
                revoked.push(CertificateKey { ca: entry.ca, serial: entry.serial });
            }
        })?;
        let cas = reader.cas(self.account)?;
        let elsewhere = elsewhere(&reader, &cas, &mut revoked)?;
        Ok(Snapshot {
            change: reader.newest_change()?,
            made_at: now,
            accounts: match reader.account(self.account)? {
                Some(account) => vec![self.account_entry(&reader, account)?],
                None => Vec::new(),
            },
            cas: cas.iter().filter_map(ca_entry).collect(),
            hosts: reader
                .hosts(self.account)?
                .into_iter()
                .map(|host| self.host_entry(&reader, host))
                .collect::<Result<_, _>>()?,
            revoked,
            devices: self.noted_devices(&reader)?,
            elsewhere,
        })
    }

    /// What changed after `at`; a whole snapshot when that is more than can be told one by one.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub(super) fn since(&self, at: u64) -> Result<Update, Fault> {
        let reader = self.ledger.reader()?;
        let changes = reader.changes_since(at, CHANGES_MAX)?;
        let mut change = at;
        let mut events = Vec::new();
        // However often they changed, they are told once, as they are now.
        let mut account_changed = false;
        let mut zones = BTreeSet::new();
        for entry in changes {
            change = entry.number;
            match entry.kind {
                ChangeKind::DevicesImported(ImportedDevices { noted: Some(noted), .. })
                    if events.len().saturating_add(noted.len()) <= EVENTS_MAX =>
                {
                    for id in noted {
                        events.extend(self.device_event(&reader, &id)?);
                    }
                }
                ChangeKind::DevicesImported(_) | ChangeKind::ForeignListTaken(_, None) => {
                    return Ok(Update::Snapshot(Box::new(self.snapshot()?)));
                }
                ChangeKind::ForeignListTaken(ca, Some(names)) => {
                    for name in names {
                        events.push(foreign_standing(&reader, ca, name)?);
                    }
                    let closes_at = reader.foreign_ca(ca)?.closes_at();
                    events.push(Event::List(ListEntry { ca, closes_at }));
                }
                ChangeKind::ForeignRevocationSet(ca, name) => {
                    events.push(foreign_standing(&reader, ca, name)?);
                }
                ChangeKind::CaAdded(id) | ChangeKind::CaStateSet(id, _) => {
                    events.extend(reader.ca(id)?.as_ref().and_then(ca_entry).map(Event::Ca));
                }
                ChangeKind::DocumentSet(..) => account_changed = true,
                ChangeKind::CaRemoved(id) => {
                    events.push(Event::CaRemoved(id));
                    events.push(Event::List(ListEntry { ca: id, closes_at: None }));
                }
                ChangeKind::ZoneSet(zone) => drop(zones.insert(zone)),
                ChangeKind::CertificateReactivated(id) | ChangeKind::CertificateRevoked(id) => {
                    events.extend(reader.certificate(self.account, id)?.map(|found| standing(&found)));
                }
                ChangeKind::DeviceSet(id, _) => {
                    events.extend(self.device_event(&reader, &id)?);
                }
                ChangeKind::HostSet(host) | ChangeKind::HostRemoved(host) => {
                    // It may have been set again since.
                    events.push(self.host_event(&reader, &host)?.unwrap_or_else(|| self.gone(host)));
                }
                // It need not be served yet.
                ChangeKind::OriginPullSet(host) => events.extend(self.host_event(&reader, &host)?),
                ChangeKind::OutboundLeafSet(leaf) => self.certificates.forget_leaf(leaf),
                _ => {}
            }
        }
        if account_changed {
            events.extend(self.account_event(&reader)?);
        }
        if !zones.is_empty() {
            let hosts =
                reader.hosts(self.account)?.into_iter().filter(|host| zones.contains(&host.rule.zone));
            for host in hosts {
                events.push(Event::Host(Box::new(self.host_entry(&reader, host)?)));
            }
        }
        Ok(Update::Delta(Delta { from: at, change, made_at: self.now(), events }))
    }

    /// The hostnames that get another certificate now, and the account when what origins are shown is
    /// another one, as events without a change.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub(super) fn due_certificates(&self, at: u64) -> Result<Option<Update>, Fault> {
        let (due, outbound_is_due) = (self.certificates.due(), self.certificates.outbound_is_due());
        if due.is_empty() && !outbound_is_due {
            return Ok(None);
        }
        let reader = self.ledger.reader()?;
        let mut events = Vec::new();
        if outbound_is_due {
            events.extend(self.account_event(&reader)?);
        }
        for host in due {
            events.extend(self.host_event(&reader, &host)?);
        }
        Ok(Some(Update::Delta(Delta { from: at, change: at, made_at: self.now(), events })))
    }

    fn now(&self) -> UnixTime {
        self.clock.now()
    }

    fn gone(&self, host: HostPattern) -> Event {
        self.certificates.forget(&host);
        Event::HostRemoved(host)
    }

    fn device_event(&self, reader: &Reader, id: &DeviceId) -> Result<Option<Event>, Fault> {
        Ok(reader.device(self.account, id)?.map(|device| Event::Device(entry_of(device))))
    }

    fn host_event(&self, reader: &Reader, host: &HostPattern) -> Result<Option<Event>, Fault> {
        let held = reader.host(host)?.filter(|held| held.rule.account == self.account);
        let entry = held.map(|held| self.host_entry(reader, held)).transpose()?;
        Ok(entry.map(|entry| Event::Host(Box::new(entry))))
    }

    /// The rule as it is now, also where there is no certificate to go with it: an older rule may demand
    /// less. So a hostname of a paused zone is there without: taken away, it would be the wildcard's of the
    /// zone around it.
    fn host_entry(&self, reader: &Reader, host: Host) -> Result<HostEntry, Fault> {
        let zone = reader.zone(host.rule.zone)?;
        let certificate = if zone.as_ref().is_some_and(|zone| zone.paused) {
            self.certificates.forget(&host.rule.host);
            None
        } else {
            self.certificates.of(&host.rule.host)
        };
        let shown = shown_to_origins(reader, &host.rule, zone.as_ref())?;
        let tls = host.origin_tls;
        let origin_tls = OriginTls {
            anchors: tls.cas,
            server_name: tls.name,
            identify: match shown {
                Shown::Account => true,
                Shown::AsHostSays => tls.identify,
                Shown::Leaf(_) => false,
            },
            identity: match shown {
                Shown::Leaf(leaf) => Some(self.certificates.of_leaf(&leaf)),
                Shown::Account | Shown::AsHostSays => None,
            },
        };
        Ok(HostEntry { rule: host.rule, certificate, origin_tls })
    }

    fn account_event(&self, reader: &Reader) -> Result<Option<Event>, Fault> {
        let account = reader.account(self.account)?;
        let entry = account.map(|account| self.account_entry(reader, account)).transpose()?;
        Ok(entry.map(Event::Account))
    }

    fn account_entry(&self, reader: &Reader, account: Account) -> Result<AccountEntry, Fault> {
        let outbound = if account.id == self.account { self.certificates.outbound() } else { None };
        let gate = self.gate(reader, account.id)?;
        Ok(AccountEntry { id: account.id, trust_domain: account.trust_domain, outbound, gate })
    }

    /// The gate as it is now. While a document can't be read, the gate before, or a shut one: revocations that
    /// come with it are told all the same.
    fn gate(&self, reader: &Reader, account: AccountId) -> Result<GateWritten, Fault> {
        let mut last = self.last_gate.lock().unwrap_or_else(PoisonError::into_inner);
        match muster_admin::gate(reader, account) {
            Ok(gate) => Ok(last.insert(gate).clone()),
            Err(fault @ Fault::Corrupt { .. }) => {
                tracing::error!(%fault, is_shut = last.is_none(), "rules and Access stay as they were");
                Ok(last.clone().unwrap_or_else(|| GateWritten { is_shut: true, ..GateWritten::default() }))
            }
            Err(fault) => Err(fault),
        }
    }

    /// The devices that are not plain active ones.
    fn noted_devices(&self, reader: &Reader) -> Result<Vec<DeviceEntry>, Fault> {
        let mut noted = Vec::new();
        reader.for_each_device(self.account, |device| {
            let entry = entry_of(device);
            if !entry.is_plain() {
                noted.push(entry);
            }
        })?;
        Ok(noted)
    }
}

/// Which certificate the origins of a hostname are shown.
enum Shown {
    /// The account's.
    Account,
    /// The account's, if the hostname says so.
    AsHostSays,
    /// One that was uploaded for the hostname or its zone.
    Leaf(Box<OutboundLeaf>),
}

/// The hostname's own leaf goes before the zone's, and that before the account's.
fn shown_to_origins(reader: &Reader, rule: &HostRule, zone: Option<&Zone>) -> Result<Shown, Fault> {
    let pull = reader.origin_pull(rule.zone, &rule.host)?.filter(|pull| pull.enabled);
    if let Some(pull) = pull
        && let Some(leaf) = reader.outbound_leaf(rule.account, pull.leaf)?
    {
        return Ok(Shown::Leaf(Box::new(leaf)));
    }
    if zone.is_none_or(|zone| !zone.shows_certificate) {
        return Ok(Shown::AsHostSays);
    }
    let mut newest_first = reader.outbound_leaves(rule.account)?.into_iter();
    let of_zone = newest_first.find(|leaf| leaf.shown_to == Some(ShownTo::Zone(rule.zone)));
    Ok(of_zone.map_or(Shown::Account, |leaf| Shown::Leaf(Box::new(leaf))))
}

fn entry_of(device: Device) -> DeviceEntry {
    DeviceEntry { account: device.account, device: device.id, status: device.status, groups: device.groups }
}

fn standing(certificate: &Certificate) -> Event {
    let key = CertificateKey { ca: certificate.ca, serial: certificate.serial };
    if certificate.revoked.is_some() { Event::Revoked(key) } else { Event::Reactivated(key) }
}

/// What is revoked of certificates that were issued elsewhere; serials join the others.
fn elsewhere(reader: &Reader, cas: &[Ca], revoked: &mut Vec<CertificateKey>) -> Result<Elsewhere, Fault> {
    let mut elsewhere = Elsewhere::default();
    for ca in cas {
        let ca = ca.id;
        reader.for_each_foreign_revoked(ca, |entry| match entry.name {
            ForeignName::Fingerprint(fingerprint) => elsewhere.prints.push(PrintKey { ca, fingerprint }),
            ForeignName::Serial(serial) => revoked.push(CertificateKey { ca, serial }),
        })?;
        let closes_at = reader.foreign_ca(ca)?.closes_at();
        elsewhere.lists.extend(closes_at.map(|at| ListEntry { ca, closes_at: Some(at) }));
    }
    Ok(elsewhere)
}

fn foreign_standing(reader: &Reader, ca: CaId, name: ForeignName) -> Result<Event, Fault> {
    let is_revoked = reader.foreign_revoked(ca, name)?.is_some();
    Ok(match (name, is_revoked) {
        (ForeignName::Fingerprint(fingerprint), true) => Event::PrintRevoked(PrintKey { ca, fingerprint }),
        (ForeignName::Fingerprint(fingerprint), false) => {
            Event::PrintReactivated(PrintKey { ca, fingerprint })
        }
        (ForeignName::Serial(serial), true) => Event::Revoked(CertificateKey { ca, serial }),
        (ForeignName::Serial(serial), false) => Event::Reactivated(CertificateKey { ca, serial }),
    })
}

/// What the edge is told of a CA; nothing of those that never vouch for a client.
fn ca_entry(ca: &Ca) -> Option<CaEntry> {
    let is_default = match ca.role {
        CaRole::Devices => true,
        CaRole::VerifyOnly => false,
        CaRole::Manufacturer | CaRole::Root | CaRole::Services => return None,
    };
    let vouches = ca.state != CaState::Retired;
    Some(CaEntry {
        id: ca.id,
        account: ca.account,
        certificates: vec![ca.certificate_der.clone()],
        is_default: is_default && vouches,
        vouches,
    })
}
