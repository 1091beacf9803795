//! Devices that are about to be lost, or just were: their newest certificate ends, and they don't renew.

use std::sync::Arc;

use axum::extract::State;
use muster_policy::identity::CertificateId;
use muster_policy::name::DeviceId;
use muster_policy::time::UnixTime;
use muster_store::reader::LapsingDevice;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Api;
use crate::api::Outcome;
use crate::envelope::Answer;
use crate::request::Account;

/// How many devices are named.
const NAMED_MAX: usize = 100;

#[derive(Serialize, ToSchema)]
pub(crate) struct LapsingView {
    count: usize,
    /// Whether there may be others that were not looked at.
    more: bool,
    /// The first to end.
    devices: Vec<DeviceView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LapsingDeviceView)]
pub(crate) struct DeviceView {
    device: DeviceId,
    certificate: CertificateId,
    not_after: UnixTime,
}

impl From<LapsingDevice> for DeviceView {
    fn from(found: LapsingDevice) -> Self {
        Self { device: found.device, certificate: found.certificate, not_after: found.not_after }
    }
}

/// `GET …/lapsing`
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account) -> Outcome {
    let now = api.now();
    let found = api.read(move |reader| reader.lapsing(account, now)).await?;
    Answer::one(&LapsingView {
        count: found.devices.len(),
        more: found.more,
        devices: found.devices.into_iter().take(NAMED_MAX).map(DeviceView::from).collect(),
    })
}
