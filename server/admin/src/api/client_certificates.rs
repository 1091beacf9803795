//! Client certificates of the managed CA, zone by zone (contract §3).
//!
//! A certificate belongs to the zone it was made in and is good on every hostname of the account that
//! accepts the managed CA. `pending_*` lasts until the edge of this process goes by the change, which is
//! before the next answer. Each POST makes a certificate of its own, from the same request too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use muster_enroll::{Csr, Identified, KeySource, Order, Outcome as Issue, decode_request};
use muster_policy::enrol::SubjectAttribute;
use muster_policy::identity::{AccountId, CaId, CertificateId, Fingerprint, Serial};
use muster_policy::reason::{Reason, Refusal};
use muster_policy::revocation::RevocationReason;
use muster_policy::time::UnixTime;
use muster_store::act::{ReactivateCertificate, RevokeCertificate};
use muster_store::record::{self, Certificate, ChangeKind, ClientRequest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::{Outcome, pem, signing};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{Id, Json, Query, Zone};
use crate::x509::Facts;

/// Longest life of a client certificate, in days: 15 years, as the API we follow has it.
const VALIDITY_MAX_DAYS: u32 = 5_475;
/// Longest text of a request, as of what EST takes (16 KiB); it is kept as it came.
const CSR_MAX_BYTES: usize = 16 << 10;
const DAY: Duration = Duration::from_secs(86_400);
/// Changes that the edge may be behind; of one that is further behind, all counts as done.
const BEHIND_MAX: usize = 1_000;

/// The words of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Active,
    PendingReactivation,
    PendingRevocation,
    Revoked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StatusFilter {
    All,
    Active,
    PendingReactivation,
    PendingRevocation,
    Revoked,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Authority {
    id: CaId,
    name: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ClientCertificateView {
    id: CertificateId,
    certificate: String,
    certificate_authority: Authority,
    common_name: String,
    country: String,
    state: String,
    location: String,
    organization: String,
    organizational_unit: String,
    csr: String,
    issued_on: UnixTime,
    expires_on: UnixTime,
    validity_days: u32,
    serial_number: Serial,
    signature: String,
    ski: String,
    fingerprint_sha256: Fingerprint,
    status: Status,
}

impl ClientCertificateView {
    fn new(certificate: &Certificate, client: &ClientRequest, status: Status) -> Self {
        let facts = Facts::of(&certificate.der).unwrap_or_default();
        let named = |oid: &str| named(&client.subject, oid);
        Self {
            id: certificate.id,
            certificate: pem::encode("CERTIFICATE", &certificate.der),
            certificate_authority: Authority {
                id: certificate.ca,
                name: format!("Muster Managed CA for account {}", certificate.account),
            },
            common_name: named("2.5.4.3"),
            country: named("2.5.4.6"),
            state: named("2.5.4.8"),
            location: named("2.5.4.7"),
            organization: named("2.5.4.10"),
            organizational_unit: named("2.5.4.11"),
            csr: client.csr.clone(),
            issued_on: certificate.not_after.minus(DAY.saturating_mul(client.validity_days)),
            expires_on: certificate.not_after,
            validity_days: client.validity_days,
            serial_number: certificate.serial,
            signature: facts.signature,
            ski: facts.ski,
            fingerprint_sha256: certificate.fingerprint,
            status,
        }
    }
}

/// An attribute of the subject, or nothing.
fn named(subject: &[SubjectAttribute], oid: &str) -> String {
    subject.iter().find(|attribute| attribute.oid == oid).map(|found| found.text.clone()).unwrap_or_default()
}

/// The certificates whose last change the edge does not go by yet.
struct Pending(BTreeSet<CertificateId>);

impl Pending {
    async fn read(api: &Api) -> Result<Self, ApiError> {
        let Some(edge) = &api.hooks().edge_is_at else { return Ok(Self(BTreeSet::new())) };
        let at = *edge.borrow();
        if at >= *api.registrar().ledger().newest_change().borrow() {
            return Ok(Self(BTreeSet::new()));
        }
        let changes = api.read(move |reader| reader.changes_since(at, BEHIND_MAX)).await?;
        let pending = changes.into_iter().filter_map(|change| match change.kind {
            ChangeKind::CertificateReactivated(id) | ChangeKind::CertificateRevoked(id) => Some(id),
            _ => None,
        });
        Ok(Self(pending.collect()))
    }

    fn status(&self, certificate: &Certificate) -> Status {
        match (certificate.revoked.is_some(), self.0.contains(&certificate.id)) {
            (true, true) => Status::PendingRevocation,
            (true, false) => Status::Revoked,
            (false, true) => Status::PendingReactivation,
            (false, false) => Status::Active,
        }
    }

    fn view(&self, certificate: &Certificate) -> Option<ClientCertificateView> {
        let client = certificate.client.as_ref()?;
        Some(ClientCertificateView::new(certificate, client, self.status(certificate)))
    }
}

/// `GET /zones/{zone_id}/client_certificates`
pub(crate) async fn list(State(api): State<Arc<Api>>, Zone(zone): Zone, query: Query) -> Outcome {
    let page = PageWish::with_offset(&query)?;
    let status = query.word::<StatusFilter>("status")?.unwrap_or(StatusFilter::All);
    let pending = Pending::read(&api).await?;
    if matches!(status, StatusFilter::PendingReactivation | StatusFilter::PendingRevocation) {
        let wanted = if status == StatusFilter::PendingRevocation {
            Status::PendingRevocation
        } else {
            Status::PendingReactivation
        };
        let found = waiting(&api, &zone, &pending).await?;
        let views = found.iter().filter_map(|certificate| pending.view(certificate));
        let (views, info) = page.cut(views.filter(|view| view.status == wanted).collect());
        return Answer::list(&views, info);
    }
    let revoked = match status {
        StatusFilter::Active => Some(false),
        StatusFilter::Revoked => Some(true),
        _ => None,
    };
    let paging = page.paging();
    let found = api.read(move |reader| reader.client_certificates(&zone, revoked, &paging)).await?;
    let views: Vec<_> = found.items.iter().filter_map(|certificate| pending.view(certificate)).collect();
    Answer::list(&views, page.info(&found)?)
}

/// The certificates of a zone that wait for the edge, newest first.
async fn waiting(api: &Api, zone: &record::Zone, pending: &Pending) -> Result<Vec<Certificate>, ApiError> {
    let (account, zone, ids) = (zone.account, zone.id, pending.0.clone());
    api.read(move |reader| {
        let mut found = Vec::new();
        for id in ids.into_iter().rev() {
            found.extend(reader.certificate(account, id)?);
        }
        found.retain(|certificate| certificate.client.as_ref().is_some_and(|client| client.zone == zone));
        Ok(found)
    })
    .await
}

/// `GET /zones/{zone_id}/client_certificates/{id}`
pub(crate) async fn get(State(api): State<Arc<Api>>, Zone(zone): Zone, Id(id): Id<CertificateId>) -> Outcome {
    let certificate = known(&api, &zone, id).await?;
    answer(&certificate, Pending::read(&api).await?.status(&certificate))
}

/// A certificate of this zone; through another zone it is not there.
async fn known(api: &Api, zone: &record::Zone, id: CertificateId) -> Result<Certificate, ApiError> {
    let account = zone.account;
    let found = api.read(move |reader| reader.certificate(account, id)).await?;
    let own = found.filter(|found| found.client.as_ref().is_some_and(|client| client.zone == zone.id));
    own.ok_or_else(|| ApiError::not_found("client certificate"))
}

fn answer(certificate: &Certificate, status: Status) -> Outcome {
    let client = certificate.client.as_ref().ok_or_else(|| ApiError::not_found("client certificate"))?;
    Answer::one(&ClientCertificateView::new(certificate, client, status))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ClientWanted)]
pub(crate) struct Wanted {
    csr: Option<String>,
    validity_days: Option<u32>,
}

/// `POST /zones/{zone_id}/client_certificates`
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    caller: Caller,
    Json(wanted): Json<Wanted>,
) -> Outcome {
    let text = wanted.csr.ok_or_else(|| ApiError::argument("/csr", "csr: a PEM request is needed"))?;
    check_text(&text)?;
    let days = wanted.validity_days.filter(|days| (1..=VALIDITY_MAX_DAYS).contains(days));
    let days = days.ok_or_else(|| validity(format!("a whole number from 1 to {VALIDITY_MAX_DAYS}")))?;
    check_end(&api, days)?;
    let order = order(&api, &zone, &caller, text, days).map_err(about_csr)?;
    match api.registrar().issue(order).await.map_err(about_csr)? {
        Issue::Issued(issued) => answer(&issued.certificate, Status::Active),
        // What an operator asks for needs nobody else's leave.
        Issue::Waiting => Err(ApiError::internal("a client certificate waits for approval")),
    }
}

/// Refuses a text that would be kept, and listed, for good beside its request.
fn check_text(text: &str) -> Result<(), ApiError> {
    if text.len() > CSR_MAX_BYTES {
        return Err(ApiError::argument("/csr", format!("csr: at most {CSR_MAX_BYTES} bytes")));
    }
    let behind = text.split_once("-----END ").and_then(|(_, end)| end.split_once("-----"));
    if behind.is_some_and(|(_, rest)| !rest.trim().is_empty()) {
        return Err(ApiError::argument("/csr", "csr: something follows the END line"));
    }
    Ok(())
}

fn validity(must: String) -> ApiError {
    ApiError::argument("/validity_days", format!("validity_days: {must}"))
}

/// A certificate that ended with its CA would be shorter than it says.
fn check_end(api: &Api, days: u32) -> Result<(), ApiError> {
    let trust = api.registrar().authority().trust();
    let issuing =
        trust.issuing.as_ref().ok_or_else(|| ApiError::conflict("the account has no issuing CA"))?;
    let (now, end) = (api.now(), issuing.issuer.certificate().not_after());
    if now.plus(DAY.saturating_mul(days)) <= end {
        return Ok(());
    }
    let most = end.since(now).as_secs() / DAY.as_secs();
    Err(validity(format!("at most {most}, because the CA that issues ends at {end}")))
}

fn order(api: &Api, zone: &record::Zone, caller: &Caller, text: String, days: u32) -> Result<Order, Refusal> {
    let csr_der = decode_request(text.as_bytes())?;
    let csr = Csr::parse(&csr_der)?;
    let device = signing::named_device(csr.wish())?;
    let mut profile = signing::profile(api, None)?;
    profile.lifetime = DAY.saturating_mul(days);
    let once = muster_enroll::random().ok_or_else(|| Refusal::new(Reason::LedgerUnavailable, "/"))?;
    let identified = Identified::client(device, caller.actor.clone(), once);
    let subject = csr.wish().subject.clone();
    let client = ClientRequest { zone: zone.id, csr: text, subject, validity_days: days };
    let client = Some(Box::new(client));
    Ok(Order { csr, csr_der, identified, profile, key: KeySource::Device, source: None, client })
}

/// Every refusal here is about the request for a certificate.
fn about_csr(refusal: Refusal) -> ApiError {
    ApiError::from(refusal).at("/csr")
}

/// `DELETE /zones/{zone_id}/client_certificates/{id}`; one that is revoked stays as it is.
pub(crate) async fn revoke(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    Id(id): Id<CertificateId>,
    caller: Caller,
) -> Outcome {
    let before = known(&api, &zone, id).await?;
    let revoke = RevokeCertificate {
        account: zone.account,
        certificate: id,
        reason: RevocationReason::Unspecified,
        by: caller.by(api.now()),
    };
    let certificate = api.registrar().ledger().transact(revoke).await?;
    api.registrar().authority().renew_crl(certificate.ca, api.crl_lifetime()).await?;
    let status = if before.revoked.is_some() { Status::Revoked } else { Status::PendingRevocation };
    answer(&certificate, status)
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ClientEdit)]
pub(crate) struct Edit {
    #[serde(default)]
    reactivate: Option<bool>,
}

/// `PATCH /zones/{zone_id}/client_certificates/{id}`; without `reactivate` nothing changes.
pub(crate) async fn edit(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    Id(id): Id<CertificateId>,
    caller: Caller,
    Json(edit): Json<Edit>,
) -> Outcome {
    let before = known(&api, &zone, id).await?;
    if edit.reactivate != Some(true) || before.revoked.is_none() {
        return answer(&before, Pending::read(&api).await?.status(&before));
    }
    let account: AccountId = zone.account;
    let reactivate = ReactivateCertificate { account, certificate: id, by: caller.by(api.now()) };
    let certificate = api.registrar().ledger().transact(reactivate).await?;
    api.registrar().authority().renew_crl(certificate.ca, api.crl_lifetime()).await?;
    answer(&certificate, Status::PendingReactivation)
}
