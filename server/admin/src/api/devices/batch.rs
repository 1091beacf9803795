//! The status of many devices, set at once.
//!
//! All in one transaction. A device that can't be set (it is unknown, or retired for good) is told in
//! its row, and keeps no other from being set.

use std::sync::Arc;

use axum::extract::State;
use muster_policy::enrol::DeviceStatus;
use muster_policy::name::DeviceId;
use muster_store::act::{STATUS_MAX, SetDevicesStatus, StatusRow};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::request::{Account, Json};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusOfMany {
    /// At most 1,000.
    devices: Vec<DeviceId>,
    status: DeviceStatus,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct StatusOfManyView {
    set: usize,
    had: usize,
    failed: usize,
    /// One for each device, in the order in which they came.
    rows: Vec<RowView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = DeviceStatusRowView)]
pub(crate) struct RowView {
    id: DeviceId,
    outcome: &'static str,
}

/// `PATCH …/devices`
pub(crate) async fn set_status(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    caller: Caller,
    Json(StatusOfMany { devices, status }): Json<StatusOfMany>,
) -> Outcome {
    if !(1..=STATUS_MAX).contains(&devices.len()) {
        return Err(ApiError::argument("/devices", format!("devices: 1 to {STATUS_MAX}")));
    }
    let set = SetDevicesStatus { account, devices: devices.clone(), status, by: caller.by(api.now()) };
    let rows = api.registrar().ledger().transact(set).await?;
    let number = |wanted| rows.iter().filter(|row| **row == wanted).count();
    let view = StatusOfManyView {
        set: number(StatusRow::Set),
        had: number(StatusRow::Had),
        failed: number(StatusRow::Retired).saturating_add(number(StatusRow::Unknown)),
        rows: devices.into_iter().zip(&rows).map(|(id, row)| RowView { id, outcome: outcome(row) }).collect(),
    };
    Answer::one(&view)
}

const fn outcome(row: &StatusRow) -> &'static str {
    match row {
        StatusRow::Had => "had",
        StatusRow::Retired => "retired",
        StatusRow::Set => "set",
        StatusRow::Unknown => "unknown",
    }
}
