//! CAs: listed, shown, made, imported, rotated; what clients should trust; current CRLs.
//!
//! Keys never leave: the view has no key and no path of one. Every CA that can sign has a CRL when
//! the answer that made it is sent.

use std::sync::Arc;

use axum::extract::State;
use muster_enroll::{CaAlgorithm, ImportPlan, Passphrase, Purpose};
use muster_policy::identity::{CaId, Fingerprint, Serial};
use muster_policy::name::Title;
use muster_policy::time::UnixTime;
use muster_store::record::{Ca, CaKind, CaRole, CaState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::foreign::ForeignView;
use crate::api::{Outcome, pem};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::{Order, PageWish};
use crate::request::{Account, Id, Json, Query};

/// A bundle of a dozen RSA-4096 certificates with a key is below 64 KiB.
const BUNDLE_MAX_BYTES: usize = 256 << 10;

#[derive(Serialize, ToSchema)]
pub(crate) struct CaView {
    id: CaId,
    title: Title,
    kind: CaKind,
    role: CaRole,
    state: CaState,
    subject: String,
    serial_number: Serial,
    fingerprint_sha256: Fingerprint,
    not_before: UnixTime,
    not_after: UnixTime,
    /// The CA of ours that signed it.
    issuer: Option<CaId>,
    /// Whether its key is here.
    has_key: bool,
    created_at: UnixTime,
    /// The certificate, then those above it; left out of lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pem: Option<String>,
    /// What is revoked of certificates that it issued elsewhere; left out of lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation: Option<ForeignView>,
}

impl From<&Ca> for CaView {
    fn from(ca: &Ca) -> Self {
        Self {
            id: ca.id,
            title: ca.title.clone(),
            kind: ca.kind,
            role: ca.role,
            state: ca.state,
            subject: ca.subject.clone(),
            serial_number: ca.serial,
            fingerprint_sha256: ca.fingerprint,
            not_before: ca.not_before,
            not_after: ca.not_after,
            issuer: ca.issuer,
            has_key: ca.key_file.is_some(),
            created_at: ca.created_at,
            pem: None,
            revocation: None,
        }
    }
}

impl CaView {
    fn with_pem(ca: &Ca) -> Self {
        let path = core::iter::once(&ca.certificate_der).chain(&ca.chain);
        let pem = pem::certificates(path.map(|der| der.as_slice()));
        Self { pem: Some(pem), ..Self::from(ca) }
    }
}

/// Where a CA stands in lists.
pub(crate) fn place(ca: &Ca) -> String {
    format!("{} {}", ca.created_at, ca.id)
}

/// `GET …/cas`
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let (role, state): (Option<CaRole>, Option<CaState>) = (query.word("role")?, query.word("state")?);
    let mut cas = api.read(move |reader| reader.cas(account)).await?;
    cas.retain(|ca| role.is_none_or(|role| ca.role == role) && state.is_none_or(|state| ca.state == state));
    let (cas, info) = page.cut_sorted(Order::Descending, cas, place);
    Answer::list(&cas.iter().map(CaView::from).collect::<Vec<_>>(), info)
}

/// `GET …/cas/{id}`
pub(crate) async fn get(State(api): State<Arc<Api>>, _: Account, Id(id): Id<CaId>) -> Outcome {
    let view = CaView::with_pem(&known(&api, id).await?);
    Answer::one(&CaView { revocation: Some(ForeignView::of(&api, id).await?), ..view })
}

pub(crate) async fn known(api: &Api, id: CaId) -> Result<Ca, ApiError> {
    let account = api.registrar().account();
    let ca = api.read(move |reader| reader.ca(id)).await?;
    ca.filter(|ca| ca.account == account).ok_or_else(|| ApiError::not_found("CA"))
}

#[derive(Serialize, ToSchema)]
pub(crate) struct RootsView {
    pem: String,
}

/// `GET …/roots`: what clients should trust, the newest first.
pub(crate) async fn roots(State(api): State<Arc<Api>>, _: Account) -> Outcome {
    let trust = api.registrar().authority().trust();
    Answer::one(&RootsView { pem: pem::certificates(trust.roots.iter().map(Vec::as_slice)) })
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CrlView {
    ca: CaId,
    /// Its CRL number; null when it is longer than 8 octets.
    number: Option<u64>,
    this_update: UnixTime,
    next_update: UnixTime,
    pem: String,
}

/// `GET …/cas/{id}/crl`; of a CA whose key is elsewhere, its own newest that is known here.
///
/// One of ours that is missing or has ended is made first, as no server may run that does.
pub(crate) async fn crl(State(api): State<Arc<Api>>, _: Account, Id(id): Id<CaId>) -> Outcome {
    let ca = known(&api, id).await?;
    let id = ca.id;
    if ca.key_file.is_none() {
        return Answer::one(&foreign_crl(&api, id).await?);
    }
    let now = api.now();
    let mut crl = api.read(move |reader| reader.crl(id)).await?;
    if crl.as_ref().is_none_or(|crl| crl.next_update <= now || crl.this_update > now) {
        api.registrar().authority().renew_crl(id, api.crl_lifetime()).await?;
        crl = api.read(move |reader| reader.crl(id)).await?;
    }
    let crl =
        crl.ok_or_else(|| ApiError::not_found("CRL: the CA has ended, or its certificate has no cRLSign"))?;
    Answer::one(&CrlView {
        ca: id,
        number: Some(crl.number),
        this_update: crl.this_update,
        next_update: crl.next_update,
        pem: pem::encode("X509 CRL", &crl.der),
    })
}

async fn foreign_crl(api: &Api, ca: CaId) -> Result<CrlView, ApiError> {
    let found = api.read(move |reader| Ok((reader.foreign_ca(ca)?.list, reader.foreign_list(ca)?))).await?;
    let (Some(list), Some(der)) = found else {
        return Err(ApiError::not_found(
            "CRL: the key of the CA is elsewhere, and its own CRL is not known here",
        ));
    };
    let mut number = [0; 8];
    let start = number.len().checked_sub(list.number.len());
    if let Some(end) = start.and_then(|start| number.get_mut(start..)) {
        end.copy_from_slice(&list.number);
    }
    Ok(CrlView {
        ca,
        number: start.map(|_| u64::from_be_bytes(number)),
        this_update: list.this_update,
        next_update: list.next_update,
        pem: pem::encode("X509 CRL", &der.0),
    })
}

/// Algorithms of CA keys.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Algorithm {
    #[default]
    EcdsaP256,
    EcdsaP384,
    #[serde(rename = "rsa3072", alias = "rsa-3072")]
    Rsa3072,
}

impl From<Algorithm> for CaAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::EcdsaP256 => Self::EcdsaP256,
            Algorithm::EcdsaP384 => Self::EcdsaP384,
            Algorithm::Rsa3072 => Self::Rsa3072,
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRoot {
    #[serde(default)]
    algorithm: Algorithm,
    /// Though devices that trust the root in force alone can't follow.
    #[serde(default)]
    cut_off: bool,
}

/// `POST …/cas`: a new root with new issuing CAs; the old ones keep verifying.
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    _: Account,
    caller: Caller,
    Json(NewRoot { algorithm, cut_off }): Json<NewRoot>,
) -> Outcome {
    let by = caller.by(api.now());
    let ca = api.registrar().authority().replace_root(algorithm.into(), cut_off, by).await?;
    follow_up(&api).await?;
    Answer::one(&CaView::with_pem(&ca))
}

/// `POST …/cas/{id}/retire`: clients are no longer told to trust a root that was replaced.
pub(crate) async fn retire(
    State(api): State<Arc<Api>>,
    _: Account,
    caller: Caller,
    Id(id): Id<CaId>,
) -> Outcome {
    let ca = api.registrar().authority().retire_root(id, caller.by(api.now())).await?;
    follow_up(&api).await?;
    Answer::one(&CaView::from(&ca))
}

/// Which issuing CA.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Devices,
    Services,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotate {
    role: Role,
    algorithm: Option<Algorithm>,
}

/// `POST …/cas/rotate`: a new issuing CA signs from now on, the old one keeps verifying.
pub(crate) async fn rotate(
    State(api): State<Arc<Api>>,
    _: Account,
    caller: Caller,
    Json(Rotate { role, algorithm }): Json<Rotate>,
) -> Outcome {
    let purpose = match role {
        Role::Devices => Purpose::Devices,
        Role::Services => Purpose::Services,
    };
    let by = caller.by(api.now());
    let ca = api.registrar().authority().rotate(purpose, algorithm.map(Into::into), by).await?;
    follow_up(&api).await?;
    Answer::one(&CaView::with_pem(&ca))
}

/// What an imported CA is for.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Use {
    #[default]
    Devices,
    Manufacturer,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Import {
    pem: String,
    passphrase: Option<String>,
    #[serde(rename = "use", default)]
    purpose: Use,
    name: Option<Title>,
}

/// `POST …/cas/import`
pub(crate) async fn import(
    State(api): State<Arc<Api>>,
    _: Account,
    caller: Caller,
    Json(import): Json<Import>,
) -> Outcome {
    if import.pem.len() > BUNDLE_MAX_BYTES {
        return Err(ApiError::argument("/pem", format!("pem: at most {BUNDLE_MAX_BYTES} bytes")));
    }
    let plan = ImportPlan {
        pem: import.pem,
        passphrase: import.passphrase.map(Passphrase::new),
        manufacturer: import.purpose == Use::Manufacturer,
        title: import.name,
        upload: None,
    };
    let ca = api.registrar().authority().import(plan, caller.by(api.now())).await?;
    follow_up(&api).await?;
    Answer::one(&CaView::with_pem(&ca))
}

/// What new CAs bring with them: their first CRL, and perhaps another TLS certificate for the server.
async fn follow_up(api: &Api) -> Result<(), ApiError> {
    api.registrar().authority().renew_due_crls(api.crl_lifetime()).await?;
    (api.hooks().zones_changed)();
    Ok(())
}
