//! Which devices are about to lapse: the list that an operator reads first.

use core::time::Duration;

use muster_policy::enrol::DeviceStatus;
use muster_policy::identity::{AccountId, CertificateId};
use muster_policy::name::DeviceId;
use muster_policy::time::UnixTime;

use crate::keys;
use crate::reader::page::{between, range};
use crate::reader::{Reader, SCAN_MAX};
use crate::record::{Certificate, Device};
use crate::tables::TableName;
use crate::transaction::Fault;

/// How far from now the end is: a fleet of 300,000 with certificates of 90 days has fewer ends than are
/// looked at within two weeks.
const WITHIN: Duration = Duration::from_secs(7 * 86_400);

/// An active device whose newest certificate has ended, or ends although its renewal is urgent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LapsingDevice {
    /// The device.
    pub device: DeviceId,
    /// Its newest certificate.
    pub certificate: CertificateId,
    /// The end of that.
    pub not_after: UnixTime,
}

/// Devices that are about to lapse, or did within the last week.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lapsing {
    /// Those found, the first to end first.
    pub devices: Vec<LapsingDevice>,
    /// Whether there are certificates that were not looked at.
    pub more: bool,
}

impl Reader {
    /// The active devices that did not renew in time, by the end of what they hold.
    ///
    /// Looks at [`SCAN_MAX`] certificates at most, beginning with those that ended a week ago.
    ///
    /// # Errors
    /// When the file can't be read, or a record is broken.
    pub fn lapsing(&self, account: AccountId, now: UnixTime) -> Result<Lapsing, Fault> {
        let from = keys::time(now.minus(WITHIN));
        let until = keys::time(now.plus(WITHIN));
        let ends = self.table(TableName::Expiry)?;
        let mut lapsing = Lapsing::default();
        for (looked, row) in between(&ends, &from, Some(&until))?.enumerate() {
            if looked >= SCAN_MAX {
                lapsing.more = true;
                break;
            }
            let (key, _) = row?;
            let Some(name) = key.value().get(from.len()..) else { continue };
            if !name.starts_with(account.as_bytes()) {
                continue;
            }
            let Some(certificate) = self.get::<Certificate>(name)? else { continue };
            let is_late = certificate.revoked.is_none() && certificate.renewal.urgent_at() <= now;
            if is_late && self.is_last_of_active(account, &certificate)? {
                lapsing.devices.push(LapsingDevice {
                    device: certificate.device,
                    certificate: certificate.id,
                    not_after: certificate.not_after,
                });
            }
        }
        Ok(lapsing)
    }

    fn is_last_of_active(&self, account: AccountId, certificate: &Certificate) -> Result<bool, Fault> {
        let prefix = keys::device_certificates(account, &certificate.device);
        let index = self.table(TableName::DeviceCertificates)?;
        let Some(newest) = range(&index, &prefix)?.next_back() else { return Ok(false) };
        let (key, _) = newest?;
        if key.value() != keys::device_certificate(account, &certificate.device, certificate.id) {
            return Ok(false);
        }
        let device: Option<Device> = self.get(&keys::device(account, &certificate.device))?;
        Ok(device.is_some_and(|device| device.status == DeviceStatus::Active))
    }
}
