//! Issued certificates: listed, shown, revoked, reactivated.
//!
//! A revocation is answered when the ledger has it and the CRL lists it. That of many is in `batch`.

pub(crate) mod batch;

use std::sync::Arc;

use axum::extract::State;
use muster_policy::enrol::San;
use muster_policy::identity::{AccountId, CaId, CertificateId, Fingerprint, KeyFingerprint, Serial};
use muster_policy::name::{DeviceId, Label};
use muster_policy::revocation::RevocationReason;
use muster_policy::time::UnixTime;
use muster_store::act::{ReactivateCertificate, RevokeCertificate};
use muster_store::reader::CertificateFilter;
use muster_store::record::{Certificate, CertificateStatus, How};
use muster_store::{Fault, Reader};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::{Outcome, pem};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{Account, Id, Json, Query};

#[derive(Serialize, ToSchema)]
#[schema(as = CertificatesCertificateView)]
pub(crate) struct CertificateView {
    id: CertificateId,
    status: CertificateStatus,
    device: DeviceId,
    profile: Label,
    ca: CaId,
    serial_number: Serial,
    fingerprint_sha256: Fingerprint,
    key_sha256: KeyFingerprint,
    names: Vec<San>,
    not_before: UnixTime,
    not_after: UnixTime,
    renew_at: UnixTime,
    urgent_at: UnixTime,
    issued_at: UnixTime,
    how: How,
    replaces: Option<CertificateId>,
    revoked_at: Option<UnixTime>,
    revocation_reason: Option<RevocationReason>,
    /// The certificate; left out of lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pem: Option<String>,
}

impl CertificateView {
    pub(crate) fn new(certificate: &Certificate, now: UnixTime) -> Self {
        Self {
            id: certificate.id,
            status: certificate.status(now),
            device: certificate.device.clone(),
            profile: certificate.profile.clone(),
            ca: certificate.ca,
            serial_number: certificate.serial,
            fingerprint_sha256: certificate.fingerprint,
            key_sha256: certificate.key_fingerprint,
            names: certificate.sans.clone(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            renew_at: certificate.renewal.renew_at(),
            urgent_at: certificate.renewal.urgent_at(),
            issued_at: certificate.issued_at,
            how: certificate.how,
            replaces: certificate.replaces,
            revoked_at: certificate.revoked.map(|revocation| revocation.at),
            revocation_reason: certificate.revoked.map(|revocation| revocation.reason),
            pem: None,
        }
    }

    pub(crate) fn with_pem(certificate: &Certificate, now: UnixTime) -> Self {
        let pem = Some(pem::encode("CERTIFICATE", &certificate.der));
        Self { pem, ..Self::new(certificate, now) }
    }
}

/// `GET …/certificates?status=&device=&ca=&serial=`
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let filter = CertificateFilter {
        status: query.word("status")?,
        device: query.parse("device")?,
        ca: query.parse("ca")?,
    };
    let now = api.now();
    let view = |certificate: &Certificate| CertificateView::new(certificate, now);
    if let Some(serial) = query.parse::<Serial>("serial")? {
        let found = api.read(move |reader| with_serial(reader, account, serial, &filter, now)).await?;
        let (found, info) = page.cut(found);
        return Answer::list(&found.iter().map(view).collect::<Vec<_>>(), info);
    }
    let paging = page.paging();
    let found = api.read(move |reader| reader.certificates(account, &filter, now, &paging)).await?;
    let views: Vec<CertificateView> = found.items.iter().map(view).collect();
    Answer::list(&views, page.info(&found)?)
}

/// A serial names one certificate of each CA at most.
fn with_serial(
    reader: &Reader,
    account: AccountId,
    serial: Serial,
    filter: &CertificateFilter,
    now: UnixTime,
) -> Result<Vec<Certificate>, Fault> {
    let mut found = Vec::new();
    for ca in reader.cas(account)? {
        found.extend(reader.certificate_by_serial(ca.id, serial)?);
    }
    found.retain(|certificate| {
        filter.status.is_none_or(|status| certificate.status(now) == status)
            && filter.ca.is_none_or(|ca| certificate.ca == ca)
            && filter.device.as_ref().is_none_or(|device| certificate.device == *device)
    });
    Ok(found)
}

/// `GET …/certificates/{id}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(id): Id<CertificateId>,
) -> Outcome {
    let certificate = api.read(move |reader| reader.certificate(account, id)).await?;
    let certificate = certificate.ok_or_else(|| ApiError::not_found("certificate"))?;
    Answer::one(&CertificateView::with_pem(&certificate, api.now()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revoke {
    #[serde(default)]
    reason: RevocationReason,
}

/// `POST …/certificates/{id}/revoke`; one that is revoked keeps its first time and reason.
pub(crate) async fn revoke(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(certificate): Id<CertificateId>,
    caller: Caller,
    Json(Revoke { reason }): Json<Revoke>,
) -> Outcome {
    let by = caller.by(api.now());
    let revoke = RevokeCertificate { account, certificate, reason, by };
    let certificate = api.registrar().ledger().transact(revoke).await?;
    answer_with_new_crl(&api, &certificate).await
}

/// `POST …/certificates/{id}/reactivate`; one that is not revoked stays as it is.
pub(crate) async fn reactivate(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(certificate): Id<CertificateId>,
    caller: Caller,
) -> Outcome {
    let reactivate = ReactivateCertificate { account, certificate, by: caller.by(api.now()) };
    let certificate = api.registrar().ledger().transact(reactivate).await?;
    answer_with_new_crl(&api, &certificate).await
}

async fn answer_with_new_crl(api: &Api, certificate: &Certificate) -> Outcome {
    api.registrar().authority().renew_crl(certificate.ca, api.crl_lifetime()).await?;
    Answer::one(&CertificateView::new(certificate, api.now()))
}
