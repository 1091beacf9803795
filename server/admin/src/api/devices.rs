//! Devices: listed, shown with their certificates, edited. The import is in `import`, the status of
//! many in `batch`.

mod batch;
mod import;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use muster_policy::enrol::DeviceStatus;
use muster_policy::identity::{AccountId, CaId};
use muster_policy::name::DeviceId;
use muster_policy::time::UnixTime;
use muster_store::act::{SetDevice, SetDeviceStatus};
use muster_store::reader::DeviceFilter;
use muster_store::record;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

pub(crate) use self::batch::{StatusOfMany, StatusOfManyView, set_status};
pub(crate) use self::import::{ImportedView, Row, import};
use crate::Api;
use crate::api::Outcome;
use crate::api::certificates::CertificateView;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{Account, Id, Json, Query};

/// Certificates shown with a device; all of them are in the list of certificates.
const CERTIFICATES_SHOWN: usize = 100;

/// A device.
#[derive(Serialize, ToSchema)]
#[schema(as = DevicesDeviceView)]
pub(crate) struct DeviceView {
    id: DeviceId,
    status: DeviceStatus,
    labels: BTreeMap<String, String>,
    groups: BTreeSet<String>,
    /// The CA of the manufacturer under which the serial is listed.
    manufacturer: Option<String>,
    manufacturer_serial: Option<String>,
    note: Option<String>,
    created_at: UnixTime,
    status_changed_at: UnixTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificates: Option<Vec<CertificateView>>,
}

impl From<record::Device> for DeviceView {
    fn from(device: record::Device) -> Self {
        // Stored as `CA/SERIAL`, see `muster_enroll::manufacturer_serial`.
        let listed = device.manufacturer_serial.as_deref().and_then(|listed| listed.split_once('/'));
        Self {
            id: device.id,
            status: device.status,
            labels: device.labels,
            groups: device.groups,
            manufacturer: listed.map(|(ca, _)| ca.to_owned()),
            manufacturer_serial: listed.map(|(_, serial)| serial.to_owned()),
            note: device.note,
            created_at: device.created_at,
            status_changed_at: device.status_changed_at,
            certificates: None,
        }
    }
}

/// `GET …/devices`
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let filter = DeviceFilter {
        status: query.word("status")?,
        prefix: query.get("prefix").map(str::to_owned),
        group: query.get("group").map(str::to_owned),
    };
    let paging = page.paging();
    let found = api.read(move |reader| reader.devices(account, &filter, &paging)).await?;
    let info = page.info(&found)?;
    let views: Vec<DeviceView> = found.items.into_iter().map(DeviceView::from).collect();
    Answer::list(&views, info)
}

/// `GET …/devices/{id}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(id): Id<DeviceId>,
) -> Outcome {
    Answer::one(&shown(&api, account, id).await?)
}

async fn shown(api: &Api, account: AccountId, id: DeviceId) -> Result<DeviceView, ApiError> {
    let found = api
        .read(move |reader| {
            let certificates = reader.certificates_of_device(account, &id, CERTIFICATES_SHOWN)?;
            Ok((reader.device(account, &id)?, certificates))
        })
        .await?;
    let (Some(device), certificates) = found else { return Err(ApiError::not_found("device")) };
    let now = api.now();
    let certificates =
        certificates.iter().map(|certificate| CertificateView::new(certificate, now)).collect();
    Ok(DeviceView { certificates: Some(certificates), ..device.into() })
}

/// What is to change; what is not there stays, and `null` empties.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DevicesEdit)]
pub(crate) struct Edit {
    status: Option<DeviceStatus>,
    labels: Option<BTreeMap<String, String>>,
    groups: Option<BTreeSet<String>>,
    manufacturer: Option<CaId>,
    #[serde(default, deserialize_with = "present")]
    manufacturer_serial: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    note: Option<Option<String>>,
}

/// Keeps `null` apart from a field that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Edit {
    const fn sets_fields(&self) -> bool {
        self.labels.is_some()
            || self.groups.is_some()
            || self.manufacturer_serial.is_some()
            || self.note.is_some()
    }
}

/// `PATCH …/devices/{id}`
pub(crate) async fn edit(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(device): Id<DeviceId>,
    caller: Caller,
    Json(edit): Json<Edit>,
) -> Outcome {
    let id = device.clone();
    let before = api.read(move |reader| reader.device(account, &id)).await?;
    let before = before.ok_or_else(|| ApiError::not_found("device"))?;
    // Looked at before the first change, so that a request is not half carried out.
    if before.status == DeviceStatus::Retired && edit.status.is_some_and(|to| to != DeviceStatus::Retired) {
        return Err(ApiError::conflict(format!("the device {device} is retired for good")).at("/status"));
    }
    let by = caller.by(api.now());
    let ledger = api.registrar().ledger();
    if edit.sets_fields() {
        let manufacturer_serial = match edit.manufacturer_serial {
            Some(Some(serial)) => {
                Some(Some(Manufacturers::read(&api).await?.list(edit.manufacturer, &serial)?))
            }
            other => other,
        };
        let set = SetDevice {
            account,
            device: device.clone(),
            labels: edit.labels,
            groups: edit.groups,
            manufacturer_serial,
            note: edit.note,
            by: by.clone(),
        };
        ledger.transact(set).await?;
    }
    if let Some(status) = edit.status {
        ledger.transact(SetDeviceStatus { account, device: device.clone(), status, by }).await?;
    }
    Answer::one(&shown(&api, account, device).await?)
}

/// The CAs under which serials can be listed.
pub(super) struct Manufacturers(Vec<CaId>);

impl Manufacturers {
    pub(super) async fn read(api: &Api) -> Result<Self, ApiError> {
        Ok(Self(api.registrar().authority().trust().manufacturers.iter().map(|ca| ca.id).collect()))
    }

    /// The form in which a serial is stored: under its manufacturer, or the only one there is.
    pub(super) fn list(&self, manufacturer: Option<CaId>, serial: &str) -> Result<String, ApiError> {
        let ca = match (manufacturer, self.0.as_slice()) {
            (Some(ca), known) if known.contains(&ca) => ca,
            (None, [only]) => *only,
            (Some(ca), _) => {
                return Err(ApiError::argument(
                    "/manufacturer",
                    format!("{ca} is no manufacturer's CA here"),
                ));
            }
            (None, []) => {
                let message =
                    "there is no manufacturer's CA; import it first (`muster ca import --use manufacturer`)";
                return Err(ApiError::argument("/manufacturer_serial", message));
            }
            (None, _) => {
                return Err(ApiError::argument(
                    "/manufacturer",
                    "name one: there are several manufacturers' CAs",
                ));
            }
        };
        if serial.is_empty() {
            return Err(ApiError::argument("/manufacturer_serial", "manufacturer_serial: not empty"));
        }
        Ok(muster_enroll::manufacturer_serial(ca, serial))
    }
}
