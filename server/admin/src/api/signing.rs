//! Signing a request by hand, through the same pipeline as every enrollment; or only explaining it.
//!
//! With `dry_run` nothing is signed or stored: the answer says what would be issued, or the code,
//! the field and the sentence of the refusal.

use std::sync::Arc;

use axum::extract::State;
use muster_enroll::{Csr, Identified, KeySource, Order, Outcome as Issue, decode_request};
use muster_policy::enrol::{Grant, OID_COMMON_NAME, San, Wish};
use muster_policy::identity::KeyFingerprint;
use muster_policy::name::{DeviceId, Label};
use muster_policy::profile::Profile;
use muster_policy::reason::{Reason, Refusal};
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::Outcome;
use crate::api::certificates::CertificateView;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::request::{Account, Json};

/// Where a refusal speaks of the common name.
const FIELD_CN: &str = "/csr/subject/CN";

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sign {
    /// PKCS#10 as PEM, or as base64 of DER.
    csr: String,
    /// The device; else the common name of the request.
    device: Option<DeviceId>,
    /// The profile; else the default one.
    profile: Option<Label>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct IssuedView {
    #[serde(flatten)]
    certificate: CertificateView,
    /// What was asked for and not granted.
    dropped: Vec<String>,
}

/// What becomes of a request: a certificate, or with `dry_run` what would become of it.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SignedView {
    Issued(Box<IssuedView>),
    WouldIssue(GrantView),
    WouldRefuse(RefusalView),
}

/// What would be issued.
#[derive(Serialize, ToSchema)]
pub(crate) struct GrantView {
    would_issue: bool,
    device: DeviceId,
    profile: Label,
    key_sha256: KeyFingerprint,
    names: Vec<San>,
    not_before: UnixTime,
    not_after: UnixTime,
    renew_at: UnixTime,
    urgent_at: UnixTime,
    names_crl: bool,
    dropped: Vec<String>,
}

/// Why nothing would be issued.
#[derive(Serialize, ToSchema)]
pub(crate) struct RefusalView {
    would_issue: bool,
    #[schema(value_type = String)]
    code: Reason,
    field: &'static str,
    sentence: &'static str,
    detail: Option<String>,
}

/// `POST …/certificates/sign`
pub(crate) async fn sign(
    State(api): State<Arc<Api>>,
    _: Account,
    caller: Caller,
    Json(sign): Json<Sign>,
) -> Outcome {
    let dry_run = sign.dry_run;
    let order = match order(&api, sign, &caller) {
        Ok(order) => order,
        Err(refusal) => return refuse(refusal, dry_run),
    };
    if dry_run {
        return match api.registrar().rehearse(&order) {
            Ok(grant) => Answer::one(&SignedView::WouldIssue(GrantView::from(&grant))),
            Err(refusal) => refuse(refusal, dry_run),
        };
    }
    match api.registrar().issue(order).await? {
        Issue::Issued(issued) => {
            let certificate = CertificateView::with_pem(&issued.certificate, api.now());
            let view = IssuedView { certificate, dropped: issued.dropped };
            Answer::one(&SignedView::Issued(Box::new(view)))
        }
        // Who signs by hand has agreed already, so the pipeline never waits for it.
        Issue::Waiting => Err(ApiError::internal("a request signed by hand waits for approval")),
    }
}

fn order(api: &Api, sign: Sign, caller: &Caller) -> Result<Order, Refusal> {
    let csr_der = decode_request(sign.csr.as_bytes())?;
    let csr = Csr::parse(&csr_der)?;
    let device = sign.device.map_or_else(|| named_device(csr.wish()), Ok)?;
    let profile = profile(api, sign.profile)?;
    let identified = Identified::operator(device, caller.actor.clone());
    Ok(Order { csr, csr_der, identified, profile, key: KeySource::Device, source: None, client: None })
}

pub(super) fn profile(api: &Api, label: Option<Label>) -> Result<Profile, Refusal> {
    let label = label.unwrap_or_else(|| api.registrar().default_profile().clone());
    let found = api.registrar().profile(&label)?;
    found.ok_or_else(|| Refusal::new(Reason::ProfileUnknown, "/profile").with_detail(&label))
}

/// The device that a request names.
pub(super) fn named_device(wish: &Wish) -> Result<DeviceId, Refusal> {
    let mut names = wish.subject.iter().filter(|attribute| attribute.oid == OID_COMMON_NAME);
    let name = names.next().ok_or_else(|| Refusal::new(Reason::SubjectEmpty, FIELD_CN))?;
    name.text.parse().map_err(|_| Refusal::new(Reason::NameMalformed, FIELD_CN).with_detail(&name.text))
}

fn refuse(refusal: Refusal, dry_run: bool) -> Outcome {
    if !dry_run {
        return Err(refusal.into());
    }
    Answer::one(&SignedView::WouldRefuse(RefusalView {
        would_issue: false,
        code: refusal.reason,
        field: refusal.field,
        sentence: refusal.reason.sentence(),
        detail: refusal.detail,
    }))
}

impl From<&Grant> for GrantView {
    fn from(grant: &Grant) -> Self {
        Self {
            would_issue: true,
            device: grant.device().clone(),
            profile: grant.profile().clone(),
            key_sha256: grant.key_fingerprint(),
            names: grant.sans().to_vec(),
            not_before: grant.not_before(),
            not_after: grant.not_after(),
            renew_at: grant.renewal().renew_at(),
            urgent_at: grant.renewal().urgent_at(),
            names_crl: grant.names_crl(),
            dropped: grant.dropped().to_vec(),
        }
    }
}
