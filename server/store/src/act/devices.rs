//! Devices: importing them, their status, and what people write about them.

use std::collections::{BTreeMap, BTreeSet};

use muster_policy::enrol::DeviceStatus;
use muster_policy::identity::AccountId;
use muster_policy::name::DeviceId;

use crate::act::{By, Rejected, audit, log};
use crate::codec;
use crate::keys;
use crate::record::{Action, ChangeKind, Counters, Device, ImportedDevices, Subjects};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// Most devices in one import; larger files are imported in parts. It bounds how long others wait.
pub const IMPORT_MAX: usize = 10_000;

/// Most devices that the change of an import names: followers read many changes at a time.
const NOTED_MAX: usize = 1_000;

/// What is imported of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceImport {
    /// Its id.
    pub id: DeviceId,
    /// Labels to set.
    pub labels: BTreeMap<String, String>,
    /// Groups to join.
    pub groups: BTreeSet<String>,
    /// The serial number in its manufacturer's certificate.
    pub manufacturer_serial: Option<String>,
    /// For people.
    pub note: Option<String>,
}

/// What an import does to a device that is known already. Its status is never touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExisting {
    /// It is left as it is.
    Keep,
    /// The whole import is refused.
    Refuse,
    /// Imported labels, serial and note win over stored ones, groups are added; nothing is removed.
    Update,
}

/// What an import did with one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportedRow {
    /// It was not known.
    Created,
    /// It is as it was.
    Kept,
    /// It was changed.
    Updated,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// One for each device, in their order.
    pub rows: Vec<ImportedRow>,
    /// Devices that were not known.
    pub created: u64,
    /// Devices that were changed.
    pub updated: u64,
    /// Devices left as they were.
    pub kept: u64,
}

/// Imports devices, all of them or none.
#[derive(Clone, Debug)]
pub struct ImportDevices {
    /// Their owner.
    pub account: AccountId,
    /// At most [`IMPORT_MAX`].
    pub devices: Vec<DeviceImport>,
    /// What to do with known ones.
    pub on_existing: OnExisting,
    /// Who imports.
    pub by: By,
}

impl Transaction for ImportDevices {
    const NAME: &'static str = "import_devices";
    type Output = Imported;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Imported, Failed<Rejected>> {
        if self.devices.len() > IMPORT_MAX {
            return Err(Failed::Refused(Rejected::TooMany { max: IMPORT_MAX }));
        }
        if !tables.contains(TableName::Accounts, &keys::account(self.account))? {
            return Err(Failed::Refused(Rejected::AccountUnknown));
        }
        let mut imported = Imported::default();
        let mut planned = Vec::new();
        let mut ids = BTreeSet::new();
        let mut serials = BTreeMap::new();
        for import in &self.devices {
            if !ids.insert(&import.id) {
                return Err(Failed::Refused(Rejected::Exists("a device named twice in the import")));
            }
            let before: Option<Device> = tables.get(&keys::device(self.account, &import.id))?;
            let after = match (&before, self.on_existing) {
                (Some(_), OnExisting::Refuse) => {
                    return Err(Failed::Refused(Rejected::Exists("a device of the import")));
                }
                (Some(device), OnExisting::Keep) => device.clone(),
                (Some(device), OnExisting::Update) => merged(device.clone(), import),
                (None, _) => merged(Device::new(self.account, import.id.clone(), self.by.at), import),
            };
            check(tables, &after)?;
            if let Some(serial) = &after.manufacturer_serial
                && let Some(other) = serials.insert(serial.clone(), after.id.clone())
            {
                return Err(taken(serial, other));
            }
            match &before {
                None => {
                    imported.created = imported.created.saturating_add(1);
                    imported.rows.push(ImportedRow::Created);
                }
                Some(device) if *device == after => {
                    imported.kept = imported.kept.saturating_add(1);
                    imported.rows.push(ImportedRow::Kept);
                    continue;
                }
                Some(_) => {
                    imported.updated = imported.updated.saturating_add(1);
                    imported.rows.push(ImportedRow::Updated);
                }
            }
            planned.push((before, after));
        }
        self.write(tables, planned, &imported)?;
        Ok(imported)
    }
}

impl ImportDevices {
    fn write(
        &self,
        tables: &mut Tables<'_>,
        planned: Vec<(Option<Device>, Device)>,
        imported: &Imported,
    ) -> Result<(), Fault> {
        if planned.is_empty() {
            return Ok(());
        }
        for (before, after) in &planned {
            store(tables, before.as_ref(), after)?;
        }
        let subjects = Subjects { account: Some(self.account), ..Subjects::default() };
        let Imported { created, updated, kept, .. } = *imported;
        let details = format!("created {created}, updated {updated}, kept {kept}");
        // An import takes nothing away, so a device that was noted still is.
        let is_noted = |device: &Device| device.status != DeviceStatus::Active || !device.groups.is_empty();
        let after = planned.into_iter().map(|(_, after)| after);
        let noted: Vec<_> = after.filter(is_noted).map(|device| device.id).collect();
        let devices = ImportedDevices {
            count: created.saturating_add(updated),
            noted: (noted.len() <= NOTED_MAX).then_some(noted),
        };
        tables.change(self.by.at, Some(self.account), ChangeKind::DevicesImported(devices))?;
        audit(tables, &self.by, Action::DevicesImported, subjects, Some(details))
    }
}

fn merged(mut device: Device, import: &DeviceImport) -> Device {
    device.labels.extend(import.labels.clone());
    device.groups.extend(import.groups.iter().cloned());
    if import.manufacturer_serial.is_some() {
        device.manufacturer_serial.clone_from(&import.manufacturer_serial);
    }
    if import.note.is_some() {
        device.note.clone_from(&import.note);
    }
    device
}

/// Sets a device's status; a retired one stays retired. Setting what is set changes nothing.
#[derive(Clone, Debug)]
pub struct SetDeviceStatus {
    /// The owner.
    pub account: AccountId,
    /// The device.
    pub device: DeviceId,
    /// Its status from now on.
    pub status: DeviceStatus,
    /// Who sets it.
    pub by: By,
}

impl Transaction for SetDeviceStatus {
    const NAME: &'static str = "set_device_status";
    type Output = Device;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Device, Failed<Rejected>> {
        let before = known(tables, self.account, &self.device)?;
        if before.status == self.status {
            return Ok(before);
        }
        if before.status == DeviceStatus::Retired {
            return Err(Failed::Refused(Rejected::DeviceRetired(before.id)));
        }
        Ok(set_status(tables, before, self.status, &self.by)?)
    }
}

/// Most devices whose status is set at once; it bounds how long others wait.
pub const STATUS_MAX: usize = 1_000;

/// What became of one device of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusRow {
    /// It had the status already.
    Had,
    /// It is retired, and stays so.
    Retired,
    /// It has the status now.
    Set,
    /// There is no such device.
    Unknown,
}

/// Sets the status of many devices in one transaction. One that can't be set keeps no other from it.
#[derive(Clone, Debug)]
pub struct SetDevicesStatus {
    /// The owner.
    pub account: AccountId,
    /// The devices, at most [`STATUS_MAX`].
    pub devices: Vec<DeviceId>,
    /// Their status from now on.
    pub status: DeviceStatus,
    /// Who sets it.
    pub by: By,
}

impl Transaction for SetDevicesStatus {
    const NAME: &'static str = "set_devices_status";
    /// One for each device, in their order.
    type Output = Vec<StatusRow>;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Vec<StatusRow>, Failed<Rejected>> {
        if self.devices.len() > STATUS_MAX {
            return Err(Failed::Refused(Rejected::TooMany { max: STATUS_MAX }));
        }
        let mut rows = Vec::with_capacity(self.devices.len());
        for id in &self.devices {
            let before: Option<Device> = tables.get(&keys::device(self.account, id))?;
            rows.push(match before {
                None => StatusRow::Unknown,
                Some(before) if before.status == self.status => StatusRow::Had,
                Some(before) if before.status == DeviceStatus::Retired => StatusRow::Retired,
                Some(before) => {
                    set_status(tables, before, self.status, &self.by)?;
                    StatusRow::Set
                }
            });
        }
        Ok(rows)
    }
}

fn set_status(
    tables: &mut Tables<'_>,
    before: Device,
    status: DeviceStatus,
    by: &By,
) -> Result<Device, Fault> {
    let after = Device { status, status_changed_at: by.at, ..before.clone() };
    store(tables, Some(&before), &after)?;
    log_device(tables, by, Action::DeviceStatusSet, &after)?;
    Ok(after)
}

/// Sets what people write about a device; a field that is none stays as it is.
#[derive(Clone, Debug)]
pub struct SetDevice {
    /// The owner.
    pub account: AccountId,
    /// The device.
    pub device: DeviceId,
    /// All its labels from now on.
    pub labels: Option<BTreeMap<String, String>>,
    /// All its groups from now on.
    pub groups: Option<BTreeSet<String>>,
    /// Its manufacturer's serial from now on, or none.
    pub manufacturer_serial: Option<Option<String>>,
    /// Its note from now on, or none.
    pub note: Option<Option<String>>,
    /// Who sets them.
    pub by: By,
}

impl Transaction for SetDevice {
    const NAME: &'static str = "set_device";
    type Output = Device;
    type Refused = Rejected;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Device, Failed<Rejected>> {
        let before = known(tables, self.account, &self.device)?;
        let mut after = before.clone();
        if let Some(labels) = &self.labels {
            after.labels.clone_from(labels);
        }
        if let Some(groups) = &self.groups {
            after.groups.clone_from(groups);
        }
        if let Some(serial) = &self.manufacturer_serial {
            after.manufacturer_serial.clone_from(serial);
        }
        if let Some(note) = &self.note {
            after.note.clone_from(note);
        }
        if after == before {
            return Ok(after);
        }
        check(tables, &after)?;
        store(tables, Some(&before), &after)?;
        log_device(tables, &self.by, Action::DeviceSet, &after)?;
        Ok(after)
    }
}

fn known(tables: &mut Tables<'_>, account: AccountId, id: &DeviceId) -> Result<Device, Failed<Rejected>> {
    tables
        .get(&keys::device(account, id))?
        .ok_or_else(|| Failed::Refused(Rejected::DeviceUnknown(id.clone())))
}

/// Checks the bounds, and that no other device lists the manufacturer's serial.
fn check(tables: &mut Tables<'_>, device: &Device) -> Result<(), Failed<Rejected>> {
    if let Err(error) = device.check() {
        return Err(Failed::Refused(Rejected::DeviceText { device: device.id.clone(), error }));
    }
    let Some(serial) = &device.manufacturer_serial else { return Ok(()) };
    let key = keys::manufacturer_serial(device.account, serial);
    match tables.get_raw(TableName::ManufacturerSerials, &key)? {
        Some(owner) if owner != device.id.as_str().as_bytes() => {
            let owner = String::from_utf8_lossy(&owner).parse().map_err(|_| corrupt_owner())?;
            Err(taken(serial, owner))
        }
        _ => Ok(()),
    }
}

fn taken(serial: &str, device: DeviceId) -> Failed<Rejected> {
    Failed::Refused(Rejected::ManufacturerSerialTaken { serial: serial.to_owned(), device })
}

fn corrupt_owner() -> Fault {
    Fault::Corrupt {
        table: TableName::ManufacturerSerials.as_str(),
        what: "the owner is no device id".to_owned(),
    }
}

/// Writes a device with its index and counters.
pub(super) fn store(tables: &mut Tables<'_>, before: Option<&Device>, after: &Device) -> Result<(), Fault> {
    let old_serial = before.and_then(|device| device.manufacturer_serial.as_ref());
    if old_serial != after.manufacturer_serial.as_ref() {
        if let Some(serial) = old_serial {
            let key = keys::manufacturer_serial(after.account, serial);
            // In an import another device may have taken it over just before.
            if tables.get_raw(TableName::ManufacturerSerials, &key)?.as_deref()
                == Some(after.id.as_str().as_bytes())
            {
                tables.remove(TableName::ManufacturerSerials, &key)?;
            }
        }
        if let Some(serial) = &after.manufacturer_serial {
            let key = keys::manufacturer_serial(after.account, serial);
            tables.put_raw(TableName::ManufacturerSerials, &key, after.id.as_str().as_bytes())?;
        }
    }
    let old_status = before.map(|device| device.status);
    if old_status != Some(after.status) {
        tables.count(after.account, |counters| {
            if let Some(status) = old_status {
                let number = counter(counters, status);
                *number = number.saturating_sub(1);
            }
            let number = counter(counters, after.status);
            *number = number.saturating_add(1);
        })?;
        list_inactive(tables, before, after)?;
    }
    tables.put(&keys::device(after.account, &after.id), after)
}

/// Keeps the index of the devices that are not active.
fn list_inactive(tables: &mut Tables<'_>, before: Option<&Device>, after: &Device) -> Result<(), Fault> {
    let key = keys::device(after.account, &after.id);
    match inactive_octet(after.status) {
        Some(octet) => tables.put_raw(TableName::InactiveDevices, &key, &[octet]),
        None if before.is_none() => Ok(()),
        None => tables.remove(TableName::InactiveDevices, &key).map(drop),
    }
}

/// How the index of the devices that are not active tells a status; none for the active ones.
pub(crate) const fn inactive_octet(status: DeviceStatus) -> Option<u8> {
    match status {
        DeviceStatus::Active => None,
        DeviceStatus::Retired => Some(b'r'),
        DeviceStatus::Suspended => Some(b's'),
    }
}

/// Writes the index of the devices that are not active.
pub(crate) fn build_inactive(tables: &mut Tables<'_>) -> Result<(), Fault> {
    let mut from = Vec::new();
    loop {
        let rows = tables.rows(TableName::Devices, &from, None, BUILD_STEP)?;
        for (_, value) in &rows {
            list_inactive(tables, None, &codec::decode(TableName::Devices, value)?)?;
        }
        let Some((last, _)) = rows.into_iter().next_back() else { return Ok(()) };
        from = last;
        from.push(0);
    }
}

/// Rows read at a time.
const BUILD_STEP: usize = 1_000;

/// The counter of the devices with a status.
pub(super) const fn counter(counters: &mut Counters, status: DeviceStatus) -> &mut u64 {
    match status {
        DeviceStatus::Active => &mut counters.devices_active,
        DeviceStatus::Suspended => &mut counters.devices_suspended,
        DeviceStatus::Retired => &mut counters.devices_retired,
    }
}

fn log_device(tables: &mut Tables<'_>, by: &By, action: Action, device: &Device) -> Result<(), Fault> {
    let subjects =
        Subjects { account: Some(device.account), device: Some(device.id.clone()), ..Subjects::default() };
    log(tables, by, action, subjects, ChangeKind::DeviceSet(device.id.clone(), device.status))
}
