//! What is held against certificates and devices, for a look-up on each handshake and request.
//!
//! Never a CRL: rustls-webpki hashes the whole of it on each handshake. A million revoked
//! certificates are a million keys of 16 octets in a sharded hash set; a change touches one shard
//! for one insertion, so revoking copies nothing and holds nobody up.

use std::collections::BTreeSet;
use std::sync::Arc;

use dashmap::{DashMap, DashSet};
use muster_policy::access::Above;
use muster_policy::enrol::DeviceStatus;
use muster_policy::identity::{AccountId, CaId, Fingerprint};
use muster_policy::name::DeviceId;
use muster_policy::time::UnixTime;

use crate::snapshot::{CertificateKey, DeviceEntry, Elsewhere, ListEntry, PrintKey};
use crate::tls::issuers::Issuers;

/// The first half of SHA-256 over CA and serial, or CA and fingerprint, which is longer. Two certificates with one digest would be revoked
/// together; among 2^40 of them that has a chance of 2^-49.
type Digest = [u8; 16];

/// The revoked certificates and the devices that are not plain active ones.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    revoked: DashSet<Digest>,
    devices: DashMap<(AccountId, DeviceId), DeviceFacts>,
    /// When CAs close because their own lists end.
    closes_at: DashMap<CaId, UnixTime>,
}

/// A certificate, by all that it can be revoked by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf<'a> {
    pub(crate) key: CertificateKey,
    pub(crate) fingerprint: Fingerprint,
    /// The CAs that share name and key with its CA.
    pub(crate) twins: &'a [CaId],
}

/// A certificate and the CAs above it, each by what it can be revoked by.
pub(crate) fn judged<'a>(
    key: CertificateKey,
    fingerprint: Fingerprint,
    above: &'a [Above],
    issuers: &'a Issuers,
) -> impl Iterator<Item = Leaf<'a>> + Clone {
    let above = above.iter().map(|ca| (CertificateKey { ca: ca.ca, serial: ca.serial }, ca.fingerprint));
    core::iter::once((key, fingerprint)).chain(above).map(|(key, fingerprint)| Leaf {
        key,
        fingerprint,
        twins: issuers.twins(key.ca),
    })
}

impl Leaf<'_> {
    fn cas(&self) -> impl Iterator<Item = CaId> {
        core::iter::once(self.key.ca).chain(self.twins.iter().copied())
    }
}

/// The state of a device and the groups it is in.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceFacts {
    pub(crate) status: DeviceStatus,
    pub(crate) groups: Arc<BTreeSet<String>>,
}

impl Standing {
    pub(crate) fn new(revoked: &[CertificateKey], devices: &[DeviceEntry], elsewhere: &Elsewhere) -> Self {
        let standing = Self {
            revoked: DashSet::with_capacity(revoked.len()),
            devices: DashMap::with_capacity(devices.len()),
            closes_at: DashMap::new(),
        };
        elsewhere.prints.iter().for_each(|key| standing.revoke_print(key));
        elsewhere.lists.iter().for_each(|entry| standing.set_list(entry));
        revoked.iter().for_each(|key| standing.revoke(key));
        devices.iter().for_each(|entry| standing.set_device(entry));
        standing
    }

    pub(crate) fn revoke(&self, key: &CertificateKey) {
        self.revoked.insert(digest(key));
    }

    pub(crate) fn reactivate(&self, key: &CertificateKey) {
        self.revoked.remove(&digest(key));
    }

    pub(crate) fn revoke_print(&self, key: &PrintKey) {
        self.revoked.insert(print_digest(key));
    }

    pub(crate) fn reactivate_print(&self, key: &PrintKey) {
        self.revoked.remove(&print_digest(key));
    }

    /// Sets when a CA closes for want of a newer list.
    pub(crate) fn set_list(&self, entry: &ListEntry) {
        match entry.closes_at {
            Some(at) => drop(self.closes_at.insert(entry.ca, at)),
            None => drop(self.closes_at.remove(&entry.ca)),
        }
    }

    /// Whether the own list of its CA, or of one that shares name and key, is past its end.
    pub(crate) fn is_closed(&self, leaf: &Leaf<'_>, now: UnixTime) -> bool {
        leaf.cas().any(|ca| self.closes_at.get(&ca).is_some_and(|at| *at <= now))
    }

    /// How many CAs are closed.
    pub(crate) fn closed_count(&self, now: UnixTime) -> usize {
        self.closes_at.iter().filter(|entry| *entry.value() <= now).count()
    }

    /// Sets what is known of a device; a plain active one needs no entry.
    pub(crate) fn set_device(&self, entry: &DeviceEntry) {
        let key = (entry.account, entry.device.clone());
        if entry.is_plain() {
            self.devices.remove(&key);
        } else {
            let facts = DeviceFacts { status: entry.status, groups: Arc::new(entry.groups.clone()) };
            self.devices.insert(key, facts);
        }
    }

    /// Whether it is revoked, by its CA or by one of those that share its name and key.
    pub(crate) fn is_revoked(&self, leaf: &Leaf<'_>) -> bool {
        leaf.cas().any(|ca| {
            let by_print = || PrintKey { ca, fingerprint: leaf.fingerprint };
            self.revoked.contains(&digest(&CertificateKey { ca, ..leaf.key }))
                || self.revoked.contains(&print_digest(&by_print()))
        })
    }

    pub(crate) fn device(&self, account: AccountId, device: &DeviceId) -> DeviceFacts {
        self.devices.get(&(account, device.clone())).map(|facts| facts.clone()).unwrap_or_default()
    }

    pub(crate) fn revoked_count(&self) -> usize {
        self.revoked.len()
    }
}

fn digest(key: &CertificateKey) -> Digest {
    digest_of(key.ca, key.serial.as_bytes())
}

fn print_digest(key: &PrintKey) -> Digest {
    digest_of(key.ca, key.fingerprint.as_bytes())
}

fn digest_of(ca: CaId, name: &[u8]) -> Digest {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(ca.as_bytes());
    context.update(name);
    let whole = context.finish();
    let mut digest = Digest::default();
    digest.iter_mut().zip(whole.as_ref()).for_each(|(octet, value)| *octet = *value);
    digest
}

#[cfg(test)]
mod tests {
    use muster_policy::identity::Serial;

    use super::*;

    fn key(ca: u8, serial: u8) -> CertificateKey {
        let serial = Serial::from_bytes(&[serial]).expect("a serial");
        CertificateKey { ca: CaId::from_bytes([ca; 16]), serial }
    }

    /// Each has the fingerprint of its serial.
    fn leaf(ca: u8, serial: u8, twins: &[CaId]) -> Leaf<'_> {
        Leaf { key: key(ca, serial), fingerprint: Fingerprint::from_bytes([serial; 32]), twins }
    }

    #[test]
    fn a_serial_is_revoked_in_its_own_ca_alone_and_until_taken_back() {
        let standing = Standing::new(&[key(1, 7)], &[], &Elsewhere::default());
        assert!(standing.is_revoked(&leaf(1, 7, &[])));
        assert!(!standing.is_revoked(&leaf(2, 7, &[])) && !standing.is_revoked(&leaf(1, 8, &[])));
        assert!(standing.is_revoked(&leaf(2, 7, &[CaId::from_bytes([1; 16])])));
        standing.reactivate(&key(1, 7));
        standing.revoke(&key(1, 8));
        assert!(!standing.is_revoked(&leaf(1, 7, &[])) && standing.is_revoked(&leaf(1, 8, &[])));
    }

    #[test]
    fn a_fingerprint_is_revoked_in_its_own_ca_alone_and_until_taken_back() {
        let ca = CaId::from_bytes([1; 16]);
        let print = PrintKey { ca, fingerprint: Fingerprint::from_bytes([7; 32]) };
        let elsewhere = Elsewhere { prints: vec![print], lists: Vec::new() };
        let standing = Standing::new(&[], &[], &elsewhere);
        assert!(standing.is_revoked(&leaf(1, 7, &[])) && standing.is_revoked(&leaf(2, 7, &[ca])));
        assert!(!standing.is_revoked(&leaf(2, 7, &[])) && !standing.is_revoked(&leaf(1, 8, &[])));
        standing.reactivate_print(&print);
        assert!(!standing.is_revoked(&leaf(1, 7, &[])));
    }

    #[test]
    fn a_ca_closes_when_its_list_ends_and_opens_with_the_next() {
        let ca = CaId::from_bytes([1; 16]);
        let entry = |at: Option<i64>| ListEntry { ca, closes_at: at.map(UnixTime::from_secs) };
        let elsewhere = Elsewhere { prints: Vec::new(), lists: vec![entry(Some(100))] };
        let standing = Standing::new(&[], &[], &elsewhere);
        let is_closed = |leaf: &Leaf<'_>, now| standing.is_closed(leaf, UnixTime::from_secs(now));
        assert!(!is_closed(&leaf(1, 7, &[]), 99) && is_closed(&leaf(1, 7, &[]), 100));
        assert!(is_closed(&leaf(2, 7, &[ca]), 100) && !is_closed(&leaf(2, 7, &[]), 100));
        assert_eq!(standing.closed_count(UnixTime::from_secs(100)), 1);
        standing.set_list(&entry(Some(200)));
        assert!(!is_closed(&leaf(1, 7, &[]), 100) && is_closed(&leaf(1, 7, &[]), 200));
        standing.set_list(&entry(None));
        assert!(!is_closed(&leaf(1, 7, &[]), 300));
    }

    #[test]
    fn a_device_is_active_and_alone_unless_something_is_known_of_it() {
        let account = AccountId::from_bytes([1; 16]);
        let device: DeviceId = "meter-1".parse().expect("an id");
        let mut entry = DeviceEntry {
            account,
            device: device.clone(),
            status: DeviceStatus::Suspended,
            groups: ["north".to_owned()].into(),
        };
        let standing = Standing::new(&[], std::slice::from_ref(&entry), &Elsewhere::default());
        assert_eq!(standing.device(account, &device).status, DeviceStatus::Suspended);
        assert_eq!(standing.device(AccountId::from_bytes([2; 16]), &device).status, DeviceStatus::Active);
        (entry.status, entry.groups) = (DeviceStatus::Active, BTreeSet::new());
        standing.set_device(&entry);
        assert!(standing.devices.is_empty());
    }
}
