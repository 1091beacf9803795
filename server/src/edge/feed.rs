//! The ledger's changes as the edge wants them: a snapshot first, then what became different.
//!
//! The edge reads no ledger. This file turns records into its entries, in the order of the change log,
//! and always with the state of the newest snapshot: a change that was overtaken by another one says
//! what holds now.

use std::sync::Arc;

use muster_edge::{
    AccountEntry, CaEntry, CertificateKey, Delta, DeviceEntry, Event, HostEntry, OriginTls, Snapshot, Update,
};
use muster_enroll::{Clock, Registrar};
use muster_policy::enrol::DeviceStatus;
use muster_policy::host::HostPattern;
use muster_policy::identity::AccountId;
use muster_policy::time::UnixTime;
use muster_store::record::{Account, Ca, CaRole, CaState, Certificate, ChangeKind, Device, Host};
use muster_store::{Fault, Ledger, Reader};

use super::certificates::Certificates;

/// Changes read at a time.
const CHANGES_MAX: usize = 1_000;

/// Reads the ledger for the edge; blocks the thread.
pub(super) struct Feed {
    ledger: Ledger,
    account: AccountId,
    clock: Clock,
    certificates: Certificates,
}

impl Feed {
    pub(super) fn new(registrar: &Arc<Registrar>, certificates: Certificates) -> Self {
        let (ledger, clock) = (registrar.ledger().clone(), registrar.clock().clone());
        Self { ledger, account: registrar.account(), clock, certificates }
    }

    /// Everything as it is now.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub(super) fn snapshot(&self) -> Result<Snapshot, Fault> {
        let reader = self.ledger.reader()?;
        let mut revoked = Vec::new();
        reader.for_each_revoked(self.account, |entry| {
            revoked.push(CertificateKey { ca: entry.ca, serial: entry.serial });
        })?;
        let cas = reader.cas(self.account)?;
        Ok(Snapshot {
            change: reader.newest_change()?,
            made_at: self.clock.now(),
            accounts: reader
                .account(self.account)?
                .map_or(Ok(Vec::new()), |account| account_entry(&reader, account).map(|entry| vec![entry]))?,
            cas: cas.iter().filter_map(ca_entry).collect(),
            hosts: reader
                .hosts(self.account)?
                .into_iter()
                .filter(|host| is_answered(&reader, host))
                .filter_map(|host| self.host_entry(host))
                .collect(),
            revoked,
            devices: self.noted_devices(&reader)?,
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
        for entry in changes {
            change = entry.number;
            match entry.kind {
                ChangeKind::DevicesImported(_) => return Ok(Update::Snapshot(Box::new(self.snapshot()?))),
                ChangeKind::CaAdded(id) | ChangeKind::CaStateSet(id, _) => {
                    events.extend(reader.ca(id)?.and_then(|ca| ca_event(&ca)));
                }
                ChangeKind::DocumentSet(..) => {
                    let account = reader.account(self.account)?;
                    let entry = account.map(|account| account_entry(&reader, account)).transpose()?;
                    events.extend(entry.map(Event::Account));
                }
                ChangeKind::CaRemoved(id) => events.push(Event::CaRemoved(id)),
                ChangeKind::ZoneSet(zone) => {
                    for host in reader.hosts(self.account)? {
                        if host.rule.zone == zone {
                            let name = host.rule.host;
                            events.push(self.host_event(&reader, &name)?.unwrap_or_else(|| self.gone(name)));
                        }
                    }
                }
                ChangeKind::CertificateReactivated(id) | ChangeKind::CertificateRevoked(id) => {
                    events.extend(reader.certificate(self.account, id)?.map(|found| standing(&found)));
                }
                ChangeKind::DeviceSet(id, _) => {
                    events.extend(
                        reader.device(self.account, &id)?.map(|device| Event::Device(entry_of(device))),
                    );
                }
                ChangeKind::HostSet(host) | ChangeKind::HostRemoved(host) => {
                    // It may have been set again since, or its zone is paused.
                    events.push(self.host_event(&reader, &host)?.unwrap_or_else(|| self.gone(host)));
                }
                _ => {}
            }
        }
        Ok(Update::Delta(Delta { from: at, change, made_at: self.now(), events }))
    }

    /// The hostnames that get another certificate now, as events without a change.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub(super) fn due_certificates(&self, at: u64) -> Result<Option<Update>, Fault> {
        let due = self.certificates.due();
        if due.is_empty() {
            return Ok(None);
        }
        let reader = self.ledger.reader()?;
        let mut events = Vec::new();
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

    fn host_event(&self, reader: &Reader, host: &HostPattern) -> Result<Option<Event>, Fault> {
        let held = reader.host(host)?.filter(|held| held.rule.account == self.account);
        let held = held.filter(|held| is_answered(reader, held));
        Ok(held.and_then(|held| self.host_entry(held)).map(|entry| Event::Host(Box::new(entry))))
    }

    /// None when there is no certificate for it; the log says why.
    fn host_entry(&self, host: Host) -> Option<HostEntry> {
        match self.certificates.of(&host.rule.host) {
            Ok(certificate) => {
                Some(HostEntry { rule: host.rule, certificate, origin_tls: OriginTls::default() })
            }
            Err(error) => {
                tracing::error!(host = %host.rule.host, %error, "a hostname has no usable server certificate");
                None
            }
        }
    }

    /// The devices that are not plain active ones.
    fn noted_devices(&self, reader: &Reader) -> Result<Vec<DeviceEntry>, Fault> {
        let mut noted = Vec::new();
        reader.for_each_device(self.account, |device| {
            if device.status != DeviceStatus::Active || !device.groups.is_empty() {
                noted.push(entry_of(device));
            }
        })?;
        Ok(noted)
    }
}

fn account_entry(reader: &Reader, account: Account) -> Result<AccountEntry, Fault> {
    let gate = muster_admin::gate(reader, account.id)?;
    Ok(AccountEntry { id: account.id, trust_domain: account.trust_domain, outbound: None, gate })
}

/// Nothing of a paused zone is; one that can't be read is not paused as far as anybody knows.
fn is_answered(reader: &Reader, host: &Host) -> bool {
    !reader.zone(host.rule.zone).ok().flatten().is_some_and(|zone| zone.paused)
}

fn entry_of(device: Device) -> DeviceEntry {
    DeviceEntry { account: device.account, device: device.id, status: device.status, groups: device.groups }
}

fn standing(certificate: &Certificate) -> Event {
    let key = CertificateKey { ca: certificate.ca, serial: certificate.serial };
    if certificate.revoked.is_some() { Event::Revoked(key) } else { Event::Reactivated(key) }
}

/// What the edge is told of a CA; nothing of those that vouch for no client.
fn ca_event(ca: &Ca) -> Option<Event> {
    match (ca.role, ca_entry(ca)) {
        (_, Some(entry)) => Some(Event::Ca(entry)),
        (CaRole::Devices | CaRole::VerifyOnly, None) => Some(Event::CaRemoved(ca.id)),
        (CaRole::Manufacturer | CaRole::Root | CaRole::Services, None) => None,
    }
}

fn ca_entry(ca: &Ca) -> Option<CaEntry> {
    let is_default = match ca.role {
        CaRole::Devices => true,
        CaRole::VerifyOnly => false,
        CaRole::Manufacturer | CaRole::Root | CaRole::Services => return None,
    };
    (ca.state != CaState::Retired).then(|| CaEntry {
        id: ca.id,
        account: ca.account,
        certificates: vec![ca.certificate_der.clone()],
        is_default,
    })
}
