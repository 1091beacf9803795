//! Whether a certificate would get in at a hostname, and why not: the edge's own decision, asked ahead.

use std::sync::Arc;

use axum::extract::State;
use muster_policy::access::{Circumstances, Holder, News, access};
use muster_policy::enrol::DeviceStatus;
use muster_policy::host::{HostPattern, Protocol};
use muster_policy::identity::{AccountId, CertificateId, Serial};
use muster_policy::name::DeviceId;
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use muster_store::record::{CaRole, CaState, Certificate, ForeignName, Host};
use muster_store::{Fault, Reader};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::Outcome;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::request::{Account, Id, Json};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// The id or the serial of a certificate, or a device, whose newest certificate is meant.
    certificate: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct VerdictView {
    certificate: CertificateId,
    device: DeviceId,
    protocols: Vec<ProtocolView>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ProtocolView {
    protocol: Protocol,
    admitted: bool,
    reason: Option<Reason>,
    message: Option<&'static str>,
}

/// What the decision is made from.
struct Found {
    host: Host,
    certificate: Certificate,
    ca_accepted: bool,
    /// Revoked by its fingerprint, or by its serial before this server knew it.
    revoked_by_name: bool,
    list_closes_at: Option<UnixTime>,
    device: DeviceStatus,
}

/// `POST …/hosts/{host}/test`
pub(crate) async fn test(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(host): Id<HostPattern>,
    Json(Question { certificate }): Json<Question>,
) -> Outcome {
    let found = api.read(move |reader| find(reader, account, &host, &certificate)).await?;
    let found = found.map_err(ApiError::not_found)?;
    let now = api.now();
    let protocols = found.host.rule.protocols.iter().map(|protocol| decide(&found, *protocol, now));
    let protocols = protocols.collect();
    Answer::one(&VerdictView {
        certificate: found.certificate.id,
        device: found.certificate.device,
        protocols,
    })
}

fn find(
    reader: &Reader,
    account: AccountId,
    host: &HostPattern,
    named: &str,
) -> Result<Result<Found, &'static str>, Fault> {
    let Some(host) = reader.host(host)?.filter(|host| host.rule.account == account) else {
        return Ok(Err("hostname"));
    };
    let Some(certificate) = certificate(reader, account, named)? else {
        return Ok(Err("certificate: give the id or serial of one, or a device that has one"));
    };
    let ca = reader.ca(certificate.ca)?.filter(|ca| ca.state != CaState::Retired);
    // A hostname without CAs of its own takes those that issue to devices.
    let ca_accepted = ca.is_some_and(|ca| match ca.role {
        CaRole::Devices => host.rule.accepts_default_cas() || host.rule.cas.contains(&ca.id),
        CaRole::VerifyOnly => host.rule.cas.contains(&ca.id),
        CaRole::Manufacturer | CaRole::Root | CaRole::Services => false,
    });
    let device = reader.device(account, &certificate.device)?;
    let device = device.map_or(DeviceStatus::Active, |device| device.status);
    let names = [ForeignName::Serial(certificate.serial), ForeignName::Fingerprint(certificate.fingerprint)];
    let mut revoked_by_name = false;
    for name in names {
        revoked_by_name |= reader.foreign_revoked(certificate.ca, name)?.is_some();
    }
    let list_closes_at = reader.foreign_ca(certificate.ca)?.closes_at();
    Ok(Ok(Found { host, certificate, ca_accepted, revoked_by_name, list_closes_at, device }))
}

/// The certificate of this id or serial, or the newest of a device.
pub(crate) fn certificate(
    reader: &Reader,
    account: AccountId,
    named: &str,
) -> Result<Option<Certificate>, Fault> {
    if let Ok(id) = named.parse::<CertificateId>()
        && let Some(found) = reader.certificate(account, id)?
    {
        return Ok(Some(found));
    }
    if let Ok(serial) = named.parse::<Serial>() {
        for ca in reader.cas(account)? {
            if let Some(found) = reader.certificate_by_serial(ca.id, serial)? {
                return Ok(Some(found));
            }
        }
    }
    let Ok(device) = named.parse::<DeviceId>() else { return Ok(None) };
    Ok(reader.certificates_of_device(account, &device, 1)?.pop())
}

fn decide(found: &Found, protocol: Protocol, now: UnixTime) -> ProtocolView {
    let certificate = &found.certificate;
    let holder = Holder {
        account: certificate.account,
        ca: certificate.ca,
        anchor: certificate.ca,
        serial: certificate.serial,
        fingerprint: certificate.fingerprint,
        above: Vec::new(),
        device: certificate.device.clone(),
        groups: Default::default(),
        not_after: certificate.not_after,
    };
    let circumstances = Circumstances {
        protocol,
        now,
        // What the ledger says is never old news.
        news: News::Fresh,
        ca_accepted: found.ca_accepted,
        revoked: certificate.revoked.is_some() || found.revoked_by_name,
        list: if found.list_closes_at.is_some_and(|at| at <= now) { News::Stale } else { News::Fresh },
        device: found.device,
    };
    let reason = access(&found.host.rule, Some(&holder), &circumstances).err();
    ProtocolView { protocol, admitted: reason.is_none(), reason, message: reason.map(Reason::sentence) }
}
