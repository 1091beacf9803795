//! Many certificates, revoked at once.
//!
//! All in one transaction, and one new list for each CA. A certificate or device that is not there is
//! told in its row, and keeps no other from being revoked.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use muster_policy::identity::{CaId, CertificateId};
use muster_policy::name::DeviceId;
use muster_policy::revocation::RevocationReason;
use muster_policy::time::UnixTime;
use muster_store::act::{REVOKE_MAX, RevokeCertificates, RevokeWhich, RevokedRow};
use muster_store::record::Certificate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::CertificateView;
use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::request::{Account, Json};

/// Either certificates, or devices: then all of theirs that are active.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeMany {
    /// At most 1,000.
    #[serde(default)]
    certificates: Vec<CertificateId>,
    /// At most 1,000, with 1,000 active certificates in all.
    #[serde(default)]
    devices: Vec<DeviceId>,
    #[serde(default)]
    reason: RevocationReason,
}

#[derive(Default, Serialize, ToSchema)]
pub(crate) struct RevokedManyView {
    revoked: u64,
    was_revoked: u64,
    unknown: u64,
    /// One for each certificate in the order in which they came, and for each device that is unknown.
    rows: Vec<RowView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RevokedRowView)]
pub(crate) struct RowView {
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<CertificateId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateView>,
}

/// `POST …/certificates/revoke`
pub(crate) async fn revoke(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    caller: Caller,
    Json(RevokeMany { certificates, devices, reason }): Json<RevokeMany>,
) -> Outcome {
    let bounded = |number: usize| number <= REVOKE_MAX;
    let which = match (certificates.is_empty(), devices.is_empty()) {
        (false, true) if bounded(certificates.len()) => RevokeWhich::Certificates(certificates),
        (true, false) if bounded(devices.len()) => RevokeWhich::Devices(devices),
        (false, true) | (true, true) => {
            let message = format!("certificates: 1 to {REVOKE_MAX}, or name devices");
            return Err(ApiError::argument("/certificates", message));
        }
        (true, false) => return Err(ApiError::argument("/devices", format!("devices: 1 to {REVOKE_MAX}"))),
        (false, false) => {
            return Err(ApiError::argument("/devices", "give either certificates or devices"));
        }
    };
    let by = caller.by(api.now());
    let rows = api.registrar().ledger().transact(RevokeCertificates { account, which, reason, by }).await?;
    // Those that were revoked too: the list of an earlier try may be what is missing.
    let cas: BTreeSet<CaId> = rows.iter().filter_map(stored).map(|certificate| certificate.ca).collect();
    api.registrar().authority().renew_crls(&cas, api.crl_lifetime()).await?;
    Answer::one(&RevokedManyView::new(rows, api.now()))
}

fn stored(row: &RevokedRow) -> Option<&Certificate> {
    match row {
        RevokedRow::CertificateUnknown(_) | RevokedRow::DeviceUnknown(_) => None,
        RevokedRow::Revoked(certificate) | RevokedRow::WasRevoked(certificate) => Some(certificate),
    }
}

impl RevokedManyView {
    fn new(rows: Vec<RevokedRow>, now: UnixTime) -> Self {
        let mut view = Self::default();
        for row in &rows {
            let (outcome, number) = match row {
                RevokedRow::Revoked(_) => ("revoked", &mut view.revoked),
                RevokedRow::WasRevoked(_) => ("was-revoked", &mut view.was_revoked),
                _ => ("unknown", &mut view.unknown),
            };
            *number = number.saturating_add(1);
            let certificate = stored(row);
            view.rows.push(RowView {
                outcome,
                id: match row {
                    RevokedRow::CertificateUnknown(id) => Some(*id),
                    _ => certificate.map(|certificate| certificate.id),
                },
                device: match row {
                    RevokedRow::DeviceUnknown(device) => Some(device.clone()),
                    _ => certificate.map(|certificate| certificate.device.clone()),
                },
                certificate: certificate.map(|certificate| CertificateView::new(certificate, now)),
            });
        }
        view
    }
}
