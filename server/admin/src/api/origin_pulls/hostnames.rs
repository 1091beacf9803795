//! Which certificate the origins of single hostnames are shown (contract §7).
//!
//! PUT sets the hostnames that it names and leaves the others. A hostname need not be served yet; one that a
//! wildcard answers for is the wildcard's.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use muster_policy::host::HostPattern;
use muster_policy::identity::{AccountId, CaId};
use muster_policy::time::UnixTime;
use muster_store::act::{PullWish, Rejected, SetOriginPulls};
use muster_store::record::{OriginPull, OutboundLeaf};
use muster_store::{Error as LedgerError, Fault, Reader};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{Status, facts};
use crate::Api;
use crate::api::Outcome;
use crate::api::associations::{HOSTNAMES_MAX, read_hostnames};
use crate::api::mtls_certificates::PER_PAGE_DEFAULT;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{Id, Json, Query, Zone};

/// Where a PUT has its wishes.
const POINTER: &str = "/config";

#[derive(Serialize, ToSchema)]
#[schema(as = OriginPullHostnameView)]
pub(crate) struct HostnameView {
    hostname: HostPattern,
    /// Null when the hostname names no certificate any more.
    enabled: Option<bool>,
    status: Status,
    created_at: Option<UnixTime>,
    updated_at: Option<UnixTime>,
    id: Option<CaId>,
    cert_id: Option<CaId>,
    cert_status: Option<Status>,
    cert_uploaded_on: Option<UnixTime>,
    /// That of the upload: a certificate is not changed.
    cert_updated_at: Option<UnixTime>,
    certificate: Option<String>,
    issuer: Option<String>,
    signature: Option<String>,
    serial_number: Option<String>,
    expires_on: Option<UnixTime>,
}

impl HostnameView {
    /// One that names no certificate any more.
    const fn gone(hostname: HostPattern) -> Self {
        Self {
            hostname,
            enabled: None,
            status: Status::Deleted,
            created_at: None,
            updated_at: None,
            id: None,
            cert_id: None,
            cert_status: None,
            cert_uploaded_on: None,
            cert_updated_at: None,
            certificate: None,
            issuer: None,
            signature: None,
            serial_number: None,
            expires_on: None,
        }
    }

    fn new(pull: OriginPull, leaf: OutboundLeaf) -> Self {
        let facts = facts(&leaf);
        Self {
            enabled: Some(pull.enabled),
            status: Status::Active,
            created_at: Some(pull.created_at),
            updated_at: Some(pull.changed_at),
            id: Some(leaf.id),
            cert_id: Some(leaf.id),
            cert_status: Some(Status::Active),
            cert_uploaded_on: Some(leaf.uploaded_at),
            cert_updated_at: Some(leaf.uploaded_at),
            certificate: Some(leaf.pem),
            issuer: Some(facts.issuer),
            signature: Some(facts.signature),
            serial_number: Some(facts.serial_decimal),
            expires_on: facts.not_after,
            ..Self::gone(pull.host)
        }
    }
}

fn view(reader: &Reader, account: AccountId, pull: OriginPull) -> Result<HostnameView, Fault> {
    let gone = HostnameView::gone(pull.host.clone());
    let leaf = reader.outbound_leaf(account, pull.leaf)?;
    Ok(leaf.map_or(gone, |leaf| HostnameView::new(pull, leaf)))
}

/// `GET /zones/{zone_id}/origin_tls_client_auth/hostnames`, which only we have.
pub(crate) async fn list(State(api): State<Arc<Api>>, Zone(zone): Zone, query: Query) -> Outcome {
    let page = PageWish::with_default(&query, PER_PAGE_DEFAULT)?;
    let read = move |reader: &Reader| {
        let (pulls, info) = page.cut(reader.origin_pulls(zone.id)?);
        let views = pulls.into_iter().map(|pull| view(reader, zone.account, pull));
        Ok((views.collect::<Result<Vec<_>, Fault>>()?, info))
    };
    let (views, info) = api.read(read).await?;
    Answer::list(&views, info)
}

/// `GET /zones/{zone_id}/origin_tls_client_auth/hostnames/{hostname}`
pub(crate) async fn get(State(api): State<Arc<Api>>, Zone(zone): Zone, Id(host): Id<HostPattern>) -> Outcome {
    let read = move |reader: &Reader| {
        let pull = reader.origin_pull(zone.id, &host)?;
        pull.map(|pull| view(reader, zone.account, pull)).transpose()
    };
    let found = api.read(read).await?;
    Answer::one(&found.ok_or_else(|| ApiError::not_found("hostname with a certificate for its origins"))?)
}

#[derive(Deserialize, ToSchema)]
#[schema(as = OriginPullHostnamesWanted)]
pub(crate) struct Wanted {
    config: Option<Vec<Wish>>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = OriginPullHostnameWanted)]
struct Wish {
    hostname: Option<String>,
    /// The certificate; the one before where it is left out.
    cert_id: Option<String>,
    /// Null takes the certificate away.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<bool>)]
    enabled: Option<Option<bool>>,
}

/// Tells null from what is left out.
fn said<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<bool>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// `PUT /zones/{zone_id}/origin_tls_client_auth/hostnames`
pub(crate) async fn set(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    caller: Caller,
    Json(wanted): Json<Wanted>,
) -> Outcome {
    let needed =
        || ApiError::argument(POINTER, "config: a list of hostnames with their certificates is needed");
    let config = wanted.config.ok_or_else(needed)?;
    if config.len() > HOSTNAMES_MAX {
        return Err(ApiError::argument(POINTER, format!("config: at most {HOSTNAMES_MAX} hostnames")));
    }
    let mut wishes = Vec::with_capacity(config.len());
    let mut seen = BTreeSet::new();
    for (index, wish) in config.iter().enumerate() {
        let at = |name: &str| format!("{POINTER}/{index}/{name}");
        let host = hostname(wish, &at("hostname"))?;
        if !seen.insert(host.clone()) {
            return Err(ApiError::argument(at("hostname"), format!("hostname: {host} is there twice")));
        }
        wishes.push((host, pull_wish(wish, &at)?));
    }
    let set = SetOriginPulls {
        account: zone.account,
        zone: zone.id,
        wishes: wishes.clone(),
        by: caller.by(api.now()),
    };
    let now = api.registrar().ledger().transact(set).await.map_err(|error| refused(error, &wishes))?;
    let read = move |reader: &Reader| {
        let views = now.into_iter().zip(wishes).map(|(pull, (host, _))| match pull {
            Some(pull) => view(reader, zone.account, pull),
            None => Ok(HostnameView::gone(host)),
        });
        views.collect::<Result<Vec<_>, Fault>>()
    };
    Answer::one(&api.read(read).await?)
}

fn hostname(wish: &Wish, pointer: &str) -> Result<HostPattern, ApiError> {
    let needed = || ApiError::argument(pointer, "hostname: a hostname is needed");
    let text = wish.hostname.clone().ok_or_else(needed)?;
    let names = read_hostnames(&[text], pointer).map_err(|error| error.at(pointer))?;
    names.into_iter().next().ok_or_else(needed)
}

fn pull_wish(wish: &Wish, at: &impl Fn(&str) -> String) -> Result<PullWish, ApiError> {
    let needed = || ApiError::argument(at("enabled"), "enabled: true, false or null is needed");
    let Some(enabled) = wish.enabled.ok_or_else(needed)? else { return Ok(PullWish::Nothing) };
    let unknown = |_| no_certificate().at(at("cert_id"));
    let text = wish.cert_id.as_deref().filter(|text| !text.is_empty());
    Ok(PullWish::Shown { leaf: text.map(str::parse).transpose().map_err(unknown)?, enabled })
}

fn no_certificate() -> ApiError {
    ApiError::not_found("certificate for origins of hostnames in this zone")
}

/// Tells which of the hostnames a refusal is about.
fn refused(error: LedgerError<Rejected>, wishes: &[(HostPattern, PullWish)]) -> ApiError {
    match error {
        LedgerError::Refused(Rejected::HostOutsideZone(host)) => {
            let index = wishes.iter().position(|(name, _)| *name == host).unwrap_or_default();
            let message = format!("{host} does not lie in this zone");
            ApiError::argument(format!("{POINTER}/{index}/hostname"), message)
        }
        LedgerError::Refused(Rejected::CertificateUnknown) => no_certificate().at(POINTER),
        LedgerError::Refused(rejected @ Rejected::TooMany { .. }) => ApiError::from(rejected).at(POINTER),
        other => other.into(),
    }
}
