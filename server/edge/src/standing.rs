//! What is held against certificates and devices, for a look-up on each handshake and request.
//!
//! Never a CRL: rustls-webpki hashes the whole of it on each handshake. A million revoked
//! certificates are a million keys of 16 octets in a sharded hash set; a change touches one shard
//! for one insertion, so revoking copies nothing and holds nobody up.

use std::collections::BTreeSet;
use std::sync::Arc;

use dashmap::{DashMap, DashSet};
use muster_policy::enrol::DeviceStatus;
use muster_policy::identity::{AccountId, CaId};
use muster_policy::name::DeviceId;

use crate::snapshot::{CertificateKey, DeviceEntry};

/// The first half of SHA-256 over CA and serial. Two certificates with one digest would be revoked
/// together; among 2^40 of them that has a chance of 2^-49.
type Digest = [u8; 16];

/// The revoked certificates and the devices that are not plain active ones.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    revoked: DashSet<Digest>,
    devices: DashMap<(AccountId, DeviceId), DeviceFacts>,
}

/// The state of a device and the groups it is in.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceFacts {
    pub(crate) status: DeviceStatus,
    pub(crate) groups: Arc<BTreeSet<String>>,
}

impl Standing {
    pub(crate) fn new(revoked: &[CertificateKey], devices: &[DeviceEntry]) -> Self {
        let standing = Self {
            revoked: DashSet::with_capacity(revoked.len()),
            devices: DashMap::with_capacity(devices.len()),
        };
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
    pub(crate) fn is_revoked(&self, key: &CertificateKey, twins: &[CaId]) -> bool {
        let of_twin = |ca: &CaId| self.revoked.contains(&digest(&CertificateKey { ca: *ca, ..*key }));
        self.revoked.contains(&digest(key)) || twins.iter().any(of_twin)
    }

    pub(crate) fn device(&self, account: AccountId, device: &DeviceId) -> DeviceFacts {
        self.devices.get(&(account, device.clone())).map(|facts| facts.clone()).unwrap_or_default()
    }

    pub(crate) fn revoked_count(&self) -> usize {
        self.revoked.len()
    }
}

fn digest(key: &CertificateKey) -> Digest {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(key.ca.as_bytes());
    context.update(key.serial.as_bytes());
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

    #[test]
    fn a_serial_is_revoked_in_its_own_ca_alone_and_until_taken_back() {
        let standing = Standing::new(&[key(1, 7)], &[]);
        assert!(standing.is_revoked(&key(1, 7), &[]));
        assert!(!standing.is_revoked(&key(2, 7), &[]) && !standing.is_revoked(&key(1, 8), &[]));
        assert!(standing.is_revoked(&key(2, 7), &[CaId::from_bytes([1; 16])]));
        standing.reactivate(&key(1, 7));
        standing.revoke(&key(1, 8));
        assert!(!standing.is_revoked(&key(1, 7), &[]) && standing.is_revoked(&key(1, 8), &[]));
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
        let standing = Standing::new(&[], std::slice::from_ref(&entry));
        assert_eq!(standing.device(account, &device).status, DeviceStatus::Suspended);
        assert_eq!(standing.device(AccountId::from_bytes([2; 16]), &device).status, DeviceStatus::Active);
        (entry.status, entry.groups) = (DeviceStatus::Active, BTreeSet::new());
        standing.set_device(&entry);
        assert!(standing.devices.is_empty());
    }
}
