//! Importing devices: a JSON array, all of it or nothing.
//!
//! What is wrong is told for every row that is, up to a bound; rows are counted from 0 as JSON pointers
//! do: `/17/id`. What was done is told for every row too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::State;
use muster_policy::identity::{AccountId, CaId};
use muster_policy::name::DeviceId;
use muster_policy::time::UnixTime;
use muster_store::Error as LedgerError;
use muster_store::act::{
    DeviceImport, IMPORT_MAX, ImportDevices, Imported, ImportedRow, OnExisting, Rejected,
};
use muster_store::record::Device;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Manufacturers;
use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::request::{Account, Json, Query};

/// One device of an import.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    id: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    groups: BTreeSet<String>,
    manufacturer_serial: Option<String>,
    manufacturer: Option<CaId>,
    note: Option<String>,
}

/// Wrong rows that are told of; a file that is wrong throughout needs no more.
const WRONG_ROWS_MAX: usize = 100;

#[derive(Serialize, ToSchema)]
pub(crate) struct ImportedView {
    created: u64,
    updated: u64,
    kept: u64,
    /// One for each device, in the order in which they came.
    rows: Vec<RowView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ImportedRowView)]
pub(crate) struct RowView {
    id: DeviceId,
    outcome: &'static str,
}

/// `POST …/devices/import?on_existing=update|keep|refuse`
pub(crate) async fn import(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    caller: Caller,
    query: Query,
    Json(rows): Json<Vec<Row>>,
) -> Outcome {
    let on_existing = match query.get("on_existing") {
        None | Some("update") => OnExisting::Update,
        Some("keep") => OnExisting::Keep,
        Some("refuse") => OnExisting::Refuse,
        Some(_) => return Err(ApiError::argument("/on_existing", "on_existing: update, keep or refuse")),
    };
    if rows.len() > IMPORT_MAX {
        return Err(ApiError::argument("", format!("at most {IMPORT_MAX} devices in one import")));
    }
    let by = caller.by(api.now());
    let devices = check(account, rows, &Manufacturers::read(&api).await?, by.at)?;
    let ids: Vec<DeviceId> = devices.iter().map(|device| device.id.clone()).collect();
    let known: HashMap<String, usize> = devices
        .iter()
        .enumerate()
        .filter_map(|(row, device)| Some((device.manufacturer_serial.clone()?, row)))
        .collect();
    let done = api.registrar().ledger().transact(ImportDevices { account, devices, on_existing, by }).await;
    let imported = done.map_err(|error| match error {
        LedgerError::Refused(Rejected::ManufacturerSerialTaken { serial, device }) => {
            let row = known.get(&serial).copied();
            let error = ApiError::from(Rejected::ManufacturerSerialTaken { serial, device });
            match row {
                Some(row) => error.at(format!("/{row}/manufacturer_serial")),
                None => error,
            }
        }
        other => other.into(),
    })?;
    let Imported { rows, created, updated, kept } = imported;
    let rows = ids.into_iter().zip(rows).map(|(id, row)| RowView { id, outcome: outcome(row) }).collect();
    Answer::one(&ImportedView { created, updated, kept, rows })
}

/// Reads every row into a checked device.
fn check(
    account: AccountId,
    rows: Vec<Row>,
    manufacturers: &Manufacturers,
    now: UnixTime,
) -> Result<Vec<DeviceImport>, ApiError> {
    let mut devices = Vec::with_capacity(rows.len());
    let mut ids: HashMap<DeviceId, usize> = HashMap::new();
    let mut wrong = Vec::new();
    for (number, row) in rows.into_iter().enumerate() {
        match check_row(account, row, manufacturers, now) {
            Err(error) => wrong.push(in_row(number, error)),
            Ok(device) => match ids.insert(device.id.clone(), number) {
                Some(earlier) => {
                    let message = format!("id: {} is in row {earlier} too", device.id);
                    wrong.push(in_row(number, ApiError::argument("/id", message)));
                }
                None => devices.push(device),
            },
        }
        if wrong.len() >= WRONG_ROWS_MAX {
            break;
        }
    }
    if wrong.is_empty() {
        return Ok(devices);
    }
    let also = wrong.split_off(1);
    Err(wrong
        .into_iter()
        .next()
        .map_or_else(|| ApiError::internal("no row"), |first| ApiError { also, ..first }))
}

const fn outcome(row: ImportedRow) -> &'static str {
    match row {
        ImportedRow::Created => "created",
        ImportedRow::Kept => "kept",
        ImportedRow::Updated => "updated",
    }
}

fn check_row(
    account: AccountId,
    row: Row,
    manufacturers: &Manufacturers,
    now: UnixTime,
) -> Result<DeviceImport, ApiError> {
    let id: DeviceId = row.id.parse().map_err(|error| ApiError::argument("/id", format!("id: {error}")))?;
    let serial = row.manufacturer_serial.map(|serial| manufacturers.list(row.manufacturer, &serial));
    let device = Device {
        labels: row.labels,
        groups: row.groups,
        manufacturer_serial: serial.transpose()?,
        note: row.note,
        ..Device::new(account, id, now)
    };
    device.check().map_err(|error| ApiError::argument(format!("/{}", error.field), error.to_string()))?;
    Ok(DeviceImport {
        id: device.id,
        labels: device.labels,
        groups: device.groups,
        manufacturer_serial: device.manufacturer_serial,
        note: device.note,
    })
}

fn in_row(number: usize, error: ApiError) -> ApiError {
    let pointer = format!("/{number}{}", error.pointer.as_deref().unwrap_or_default());
    ApiError { message: format!("row {number}: {}", error.message), ..error }.at(pointer)
}
