//! Devices.

use std::collections::{BTreeMap, BTreeSet};

use muster_policy::enrol::DeviceStatus;
use muster_policy::identity::AccountId;
use muster_policy::name::DeviceId;
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::tables::{Record, TableName};

/// Most labels of a device; enough for inventories, small enough for a list of 1,000 devices.
pub const DEVICE_LABELS_MAX: usize = 32;
/// Most groups of a device.
pub const DEVICE_GROUPS_MAX: usize = 32;
/// Longest label name, label value, group, manufacturer serial and note.
pub const DEVICE_TEXT_MAX_BYTES: usize = 256;

/// A device of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its owner.
    pub account: AccountId,
    /// Its id.
    pub id: DeviceId,
    /// Whether it may enroll and connect.
    pub status: DeviceStatus,
    /// Name -> value, at most [`DEVICE_LABELS_MAX`].
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// At most [`DEVICE_GROUPS_MAX`].
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// The serialNumber in its manufacturer's certificate (IEEE 802.1AR §8.6); in one device only.
    #[serde(default)]
    pub manufacturer_serial: Option<String>,
    /// When it became known.
    pub created_at: UnixTime,
    /// When its status was last set.
    pub status_changed_at: UnixTime,
    /// For people.
    #[serde(default)]
    pub note: Option<String>,
}

/// Text of a device that is out of its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {must}")]
pub struct DeviceTextError {
    /// Which field.
    pub field: &'static str,
    /// What it must be.
    pub must: &'static str,
}

impl Device {
    /// A device that is known by its id only.
    pub const fn new(account: AccountId, id: DeviceId, now: UnixTime) -> Self {
        Self {
            account,
            id,
            status: DeviceStatus::Active,
            labels: BTreeMap::new(),
            groups: BTreeSet::new(),
            manufacturer_serial: None,
            created_at: now,
            status_changed_at: now,
            note: None,
        }
    }

    /// Checks the bounds of everything people write.
    ///
    /// # Errors
    /// Names the first field out of its bounds.
    pub fn check(&self) -> Result<(), DeviceTextError> {
        if self.labels.len() > DEVICE_LABELS_MAX {
            return Err(DeviceTextError { field: "labels", must: "at most 32" });
        }
        if self.groups.len() > DEVICE_GROUPS_MAX {
            return Err(DeviceTextError { field: "groups", must: "at most 32" });
        }
        if !self.labels.iter().all(|(name, value)| is_name(name) && is_text(value)) {
            return Err(DeviceTextError { field: "labels", must: TEXT_MUST });
        }
        if !self.groups.iter().all(|group| is_name(group)) {
            return Err(DeviceTextError { field: "groups", must: TEXT_MUST });
        }
        if !self.manufacturer_serial.as_deref().is_none_or(is_name) {
            return Err(DeviceTextError { field: "manufacturer_serial", must: TEXT_MUST });
        }
        if !self.note.as_deref().is_none_or(is_text) {
            return Err(DeviceTextError { field: "note", must: TEXT_MUST });
        }
        Ok(())
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && is_text(text)
}

fn is_text(text: &str) -> bool {
    text.len() <= DEVICE_TEXT_MAX_BYTES && !text.chars().any(char::is_control)
}

const TEXT_MUST: &str = "1 to 256 bytes without control characters";

impl Record for Device {
    const TABLE: TableName = TableName::Devices;
}
