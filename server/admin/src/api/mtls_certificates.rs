//! Certificates of the account that were uploaded: CAs to verify with, and leaves to show to others
//! (contract §5).
//!
//! The text is echoed as it came. A key is kept in a file of its own and never answered.

mod upload;

use std::sync::Arc;

use axum::extract::State;
use muster_policy::host::HostMode;
use muster_policy::identity::{AccountId, CaId};
use muster_policy::time::UnixTime;
use muster_store::act::RemoveOutboundLeaf;
use muster_store::record::{Ca, CaKind, CaRole, CaState, OutboundLeaf, UploadKind};
use muster_store::{Fault, Reader};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) use self::upload::{Bundle, NewLeaf, Wanted, add_leaf, forget_key, import_ca, read_name, upload};
use crate::Api;
use crate::api::{Outcome, pem};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::{Order, PageWish};
use crate::request::{Account, Id, Query};
use crate::x509::Facts;

/// wrangler asks for one page only, and takes it for the whole list.
pub(crate) const PER_PAGE_DEFAULT: u32 = 1_000;

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    AccessManaged,
    Custom,
    GatewayManaged,
}

#[derive(Serialize, ToSchema)]
#[schema(as = MtlsCertificateView)]
pub(crate) struct CertificateView {
    id: CaId,
    ca: bool,
    certificates: String,
    expires_on: Option<UnixTime>,
    issuer: String,
    name: Option<String>,
    serial_number: String,
    signature: String,
    #[serde(rename = "type")]
    kind: Kind,
    uploaded_on: UnixTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<UnixTime>,
}

impl CertificateView {
    fn new(id: CaId, ca: bool, text: String, name: Option<String>, kind: Kind, at: UnixTime) -> Self {
        // The fields describe the first certificate of the text.
        let facts = pem::first(&text).and_then(|der| Facts::of(&der)).unwrap_or_default();
        Self {
            id,
            ca,
            certificates: text,
            expires_on: facts.not_after,
            issuer: facts.issuer,
            name,
            serial_number: facts.serial_decimal,
            signature: facts.signature,
            kind,
            uploaded_on: at,
            updated_at: None,
        }
    }

    fn of_ca(ca: &Ca) -> Self {
        let (text, name, kind) = match &ca.upload {
            Some(upload) => (
                upload.pem.clone(),
                upload.name.clone(),
                match upload.kind {
                    UploadKind::Access => Kind::AccessManaged,
                    UploadKind::Custom => Kind::Custom,
                },
            ),
            None => {
                let path = core::iter::once(&ca.certificate_der).chain(&ca.chain);
                let text = pem::certificates(path.map(|der| der.as_slice()));
                (text, Some(ca.title.to_string()), Kind::Custom)
            }
        };
        Self::new(ca.id, true, text, name, kind, ca.created_at)
    }

    fn of_leaf(leaf: OutboundLeaf) -> Self {
        Self::new(leaf.id, false, leaf.pem, leaf.name, Kind::Custom, leaf.uploaded_at)
    }
}

/// Whether a CA was brought along to verify clients with.
pub(crate) fn is_brought(ca: &Ca) -> bool {
    ca.kind == CaKind::Byo
        && matches!(ca.role, CaRole::Devices | CaRole::VerifyOnly)
        && ca.state != CaState::Retired
}

fn all(reader: &Reader, account: AccountId) -> Result<Vec<CertificateView>, Fault> {
    let cas = reader.cas(account)?;
    let mut views: Vec<CertificateView> =
        cas.iter().filter(|ca| is_brought(ca)).map(CertificateView::of_ca).collect();
    // Those for origins are objects of their zones.
    let leaves = reader.outbound_leaves(account)?.into_iter().filter(|leaf| leaf.shown_to.is_none());
    views.extend(leaves.map(CertificateView::of_leaf));
    views.sort_by_key(|view| core::cmp::Reverse((view.uploaded_on, view.id)));
    Ok(views)
}

/// `GET /accounts/{account_id}/mtls_certificates?type=&ca=&name=`
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account, query: Query) -> Outcome {
    let page = PageWish::with_default(&query, PER_PAGE_DEFAULT)?;
    let kinds: Vec<Kind> = query
        .all("type")
        .into_iter()
        .map(|word| serde_json::from_value(serde_json::Value::String(word.to_owned())))
        .collect::<Result<_, _>>()
        .map_err(|error| ApiError::argument("/type", format!("type: {error}")))?;
    let ca: Option<bool> = query.parse("ca")?;
    let mut views = api.read(move |reader| all(reader, account)).await?;
    views.retain(|view| {
        (kinds.is_empty() || kinds.contains(&view.kind))
            && ca.is_none_or(|ca| view.ca == ca)
            && query.get("name").is_none_or(|name| view.name.as_deref() == Some(name))
    });
    let place = |view: &CertificateView| format!("{} {}", view.uploaded_on, view.id);
    let (views, info) = page.cut_sorted(Order::Descending, views, place);
    Answer::list(&views, info)
}

/// `GET /accounts/{account_id}/mtls_certificates/{id}`
pub(crate) async fn get(State(api): State<Arc<Api>>, account: Account, id: OptionalId) -> Outcome {
    Answer::one(&known(&api, account.0, id).await?)
}

async fn known(api: &Api, account: AccountId, id: OptionalId) -> Result<CertificateView, ApiError> {
    let id = id.0.ok_or_else(ApiError::no_certificate)?;
    let views = api.read(move |reader| all(reader, account)).await?;
    views.into_iter().find(|view| view.id == id).ok_or_else(ApiError::no_certificate)
}

/// The id of a path; one that can't be read names nothing, and that is told as for any missing one.
pub(crate) struct OptionalId(pub(crate) Option<CaId>);

impl axum::extract::FromRequestParts<Arc<Api>> for OptionalId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        Ok(Self(Id::<CaId>::from_request_parts(parts, api).await.ok().map(|Id(id)| id)))
    }
}

/// `DELETE /accounts/{account_id}/mtls_certificates/{id}`; refused while a hostname accepts it.
pub(crate) async fn remove(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    id: OptionalId,
    caller: Caller,
) -> Outcome {
    let view = known(&api, account, id).await?;
    let by = caller.by(api.now());
    if view.ca {
        api.registrar().authority().remove_ca(view.id, by).await.map_err(gone)?;
    } else {
        let remove = RemoveOutboundLeaf { account, id: view.id, by };
        let leaf = api.registrar().ledger().transact(remove).await.map_err(gone)?;
        forget_key(&api, &leaf);
    }
    Answer::one(&view)
}

/// One that another removed meanwhile is told as a missing one.
fn gone(error: impl Into<ApiError>) -> ApiError {
    let error = error.into();
    if error.status == http::StatusCode::NOT_FOUND { ApiError::no_certificate() } else { error }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct UseView {
    service: String,
    status: &'static str,
}

/// `GET /accounts/{account_id}/mtls_certificates/{id}/associations`: a line for each hostname.
pub(crate) async fn associations(State(api): State<Arc<Api>>, account: Account, id: OptionalId) -> Outcome {
    let view = known(&api, account.0, id).await?;
    let hosts = api.read(move |reader| reader.hosts(account.0)).await?;
    let uses: Vec<UseView> = hosts
        .into_iter()
        .filter(|host| host.rule.cas.contains(&view.id))
        .map(|host| UseView {
            service: host.rule.host.to_string(),
            status: if host.rule.mode == HostMode::Off { "inactive" } else { "active" },
        })
        .collect();
    let page = PageWish::with_default(&Query::default(), PER_PAGE_DEFAULT)?;
    let (uses, info) = page.cut(uses);
    Answer::list(&uses, info)
}
