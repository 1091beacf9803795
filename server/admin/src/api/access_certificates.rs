//! Access certificates and the settings of hostnames (contract §6): a view on uploaded CAs and on the
//! rules of hostnames, for those who know them by these names.
//!
//! In an account all its hostnames are meant, in a zone those of the zone.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use muster_policy::host::{HostMode, HostPattern};
use muster_policy::identity::{CaId, Fingerprint};
use muster_policy::time::UnixTime;
use muster_store::act::{EditUpload, Rejected, SetForwarding};
use muster_store::record::{AssociationScope, Ca, Host, Upload, UploadKind};
use muster_store::{Error as LedgerError, Fault, Reader};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::associations::{associate, read_hostnames};
use crate::api::mtls_certificates::{Bundle, OptionalId, import_ca, read_name};
use crate::api::{Outcome, cas};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::{Order, PageWish};
use crate::request::{Json, Query, Scope};

/// What the API we follow has for this list.
const PER_PAGE_DEFAULT: u32 = 25;
/// Where faults of hostnames are told.
const POINTER_HOSTNAMES: &str = "/associated_hostnames";

#[derive(Serialize, ToSchema)]
pub(crate) struct AccessCertificateView {
    id: CaId,
    name: String,
    associated_hostnames: Vec<HostPattern>,
    expires_on: UnixTime,
    fingerprint: Fingerprint,
    created_at: UnixTime,
    updated_at: UnixTime,
}

impl AccessCertificateView {
    fn read(reader: &Reader, scope: AssociationScope, ca: &Ca) -> Result<Self, Fault> {
        let name = ca.upload.as_ref().and_then(|upload| upload.name.clone());
        let changed_at = ca.upload.as_ref().and_then(|upload| upload.changed_at);
        Ok(Self {
            id: ca.id,
            name: name.unwrap_or_else(|| ca.title.to_string()),
            associated_hostnames: reader.association(scope, Some(ca.id))?,
            expires_on: ca.not_after,
            fingerprint: ca.fingerprint,
            created_at: ca.created_at,
            updated_at: changed_at.unwrap_or(ca.created_at),
        })
    }
}

fn is_access(ca: &Ca, scope: AssociationScope) -> bool {
    ca.account == scope.account() && ca.upload.as_ref().is_some_and(|found| found.kind == UploadKind::Access)
}

async fn known(api: &Api, scope: AssociationScope, id: OptionalId) -> Result<Ca, ApiError> {
    let id = id.0.ok_or_else(ApiError::no_access_certificate)?;
    let found = api.read(move |reader| reader.ca(id)).await?;
    found.filter(|ca| is_access(ca, scope)).ok_or_else(ApiError::no_access_certificate)
}

async fn view(api: &Api, scope: AssociationScope, ca: Ca) -> Result<AccessCertificateView, ApiError> {
    api.read(move |reader| AccessCertificateView::read(reader, scope, &ca)).await
}

/// `GET /{scope}/access/certificates`
pub(crate) async fn list(State(api): State<Arc<Api>>, Scope(scope): Scope, query: Query) -> Outcome {
    let page = PageWish::with_default(&query, PER_PAGE_DEFAULT)?;
    let read = move |reader: &Reader| {
        let mut cas = reader.cas(scope.account())?;
        cas.retain(|ca| is_access(ca, scope));
        let (cas, info) = page.cut_sorted(Order::Descending, cas, cas::place);
        let views: Result<Vec<_>, Fault> =
            cas.iter().map(|ca| AccessCertificateView::read(reader, scope, ca)).collect();
        Ok((views?, info))
    };
    let (views, info) = api.read(read).await?;
    Answer::list(&views, info)
}

/// `GET /{scope}/access/certificates/{id}`
pub(crate) async fn get(State(api): State<Arc<Api>>, Scope(scope): Scope, id: OptionalId) -> Outcome {
    let ca = known(&api, scope, id).await?;
    Answer::one(&view(&api, scope, ca).await?)
}

#[derive(Deserialize, ToSchema)]
#[schema(as = AccessCertificateWanted)]
pub(crate) struct Wanted {
    certificate: Option<String>,
    name: Option<String>,
    associated_hostnames: Option<Vec<String>>,
}

/// `POST /{scope}/access/certificates`
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    caller: Caller,
    Json(wanted): Json<Wanted>,
) -> Outcome {
    let needed = |field: &str| ApiError::argument(format!("/{field}"), format!("{field}: it is needed"));
    let text = wanted.certificate.ok_or_else(|| needed("certificate"))?;
    let name = read_name(wanted.name)?.ok_or_else(|| needed("name"))?;
    let hosts = read_hostnames(&wanted.associated_hostnames.unwrap_or_default(), POINTER_HOSTNAMES)?;
    let bundle = Bundle::read(&text, "/certificate")?;
    let upload =
        Upload { kind: UploadKind::Access, name: Some(name), pem: bundle.text.clone(), changed_at: None };
    let _turn = api.turn().await;
    let ca = import_ca(&api, &bundle, upload, &caller, "/certificate").await?;
    if !hosts.is_empty() {
        let associated = associate(&api, scope, Some(ca.id), hosts, None, &caller, POINTER_HOSTNAMES).await;
        if let Err(error) = associated {
            // All of it or nothing.
            api.registrar().authority().remove_ca(ca.id, caller.by(api.now())).await?;
            return Err(error);
        }
    }
    Ok(Answer::one(&view(&api, scope, ca).await?)?.created())
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct Update {
    associated_hostnames: Option<Vec<String>>,
    name: Option<String>,
}

/// `PUT /{scope}/access/certificates/{id}`
pub(crate) async fn update(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    id: OptionalId,
    caller: Caller,
    Json(update): Json<Update>,
) -> Outcome {
    let _turn = api.turn().await;
    let ca = known(&api, scope, id).await?;
    let message = "associated_hostnames: a list is needed, which may be empty";
    let names = update.associated_hostnames.ok_or_else(|| ApiError::argument(POINTER_HOSTNAMES, message))?;
    let hosts = read_hostnames(&names, POINTER_HOSTNAMES)?;
    let name = read_name(update.name)?;
    associate(&api, scope, Some(ca.id), hosts, None, &caller, POINTER_HOSTNAMES).await?;
    let edit = EditUpload { account: scope.account(), ca: ca.id, name, by: caller.by(api.now()) };
    let ca = api.registrar().ledger().transact(edit).await?;
    Answer::one(&view(&api, scope, ca).await?)
}

#[derive(Serialize, ToSchema)]
#[schema(as = AccessCertificateRemoved)]
pub(crate) struct Removed {
    id: CaId,
}

/// `DELETE /{scope}/access/certificates/{id}`; refused while hostnames accept it.
pub(crate) async fn remove(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    id: OptionalId,
    caller: Caller,
) -> Outcome {
    let ca = known(&api, scope, id).await?;
    api.registrar().authority().remove_ca(ca.id, caller.by(api.now())).await?;
    Answer::one(&Removed { id: ca.id })
}

#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct Setting {
    hostname: String,
    china_network: bool,
    client_certificate_forwarding: bool,
}

/// `GET /{scope}/access/certificates/settings`: the hostnames that ask for certificates.
pub(crate) async fn settings(State(api): State<Arc<Api>>, Scope(scope): Scope, query: Query) -> Outcome {
    let page = PageWish::with_default(&query, 1_000)?;
    let settings = read_settings(&api, scope).await?;
    let (settings, info) = page.cut_sorted(Order::Ascending, settings, |setting| setting.hostname.clone());
    Answer::list(&settings, info)
}

async fn read_settings(api: &Api, scope: AssociationScope) -> Result<Vec<Setting>, ApiError> {
    let mut hosts = api.read(move |reader| reader.hosts(scope.account())).await?;
    hosts.retain(|host| host.rule.mode != HostMode::Off && lies_in(host, scope));
    let setting = |host: Host| Setting {
        hostname: host.rule.host.to_string(),
        china_network: false,
        client_certificate_forwarding: host.rule.forward_certificate,
    };
    Ok(hosts.into_iter().map(setting).collect())
}

fn lies_in(host: &Host, scope: AssociationScope) -> bool {
    match scope {
        AssociationScope::Account(_) => true,
        AssociationScope::Zone { zone, .. } => host.rule.zone == zone,
    }
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct Settings {
    settings: Option<Vec<Setting>>,
}

/// `PUT /{scope}/access/certificates/settings`: for the hostnames it names, all of them or none.
pub(crate) async fn set_settings(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    caller: Caller,
    Json(wanted): Json<Settings>,
) -> Outcome {
    let settings =
        wanted.settings.ok_or_else(|| ApiError::argument("/settings", "settings: a list is needed"))?;
    let _turn = api.turn().await;
    let there: BTreeSet<String> =
        read_settings(&api, scope).await?.into_iter().map(|setting| setting.hostname).collect();
    let mut hosts = Vec::with_capacity(settings.len());
    for (index, setting) in settings.iter().enumerate() {
        let pointer = |field: &str| format!("/settings/{index}/{field}");
        if setting.china_network {
            let message = "china_network: there is no such network here";
            return Err(ApiError::argument(pointer("china_network"), message));
        }
        let host: HostPattern = setting
            .hostname
            .parse()
            .map_err(|error| ApiError::argument(pointer("hostname"), format!("hostname: {error}")))?;
        if !there.contains(&host.to_string()) {
            let message = format!("{host} asks for no certificates; associate it with a CA first");
            return Err(ApiError::argument(pointer("hostname"), message));
        }
        hosts.push((host, setting.client_certificate_forwarding));
    }
    let named: BTreeSet<String> = hosts.iter().map(|(host, _)| host.to_string()).collect();
    let set = SetForwarding { account: scope.account(), hosts, by: caller.by(api.now()) };
    api.registrar().ledger().transact(set).await.map_err(|error| match error {
        LedgerError::Refused(Rejected::HostUnknown) => {
            ApiError::argument("/settings", "a hostname was removed meanwhile")
        }
        other => other.into(),
    })?;
    let mut now = read_settings(&api, scope).await?;
    now.retain(|now| named.contains(&now.hostname));
    Answer::one(&now)
}
