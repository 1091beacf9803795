//! Which hostnames of a zone accept a CA, as one list (contract §4).
//!
//! PUT replaces the list. Who read it first and sends its ETag as `If-Match` can't overwrite what
//! another wrote meanwhile.

use std::sync::Arc;

use axum::extract::State;
use http::HeaderValue;
use muster_policy::host::HostPattern;
use muster_policy::identity::{AccountId, CaId};
use muster_store::act::{Rejected, SetAssociation};
use muster_store::record::{self, AssociationScope};
use muster_store::{Error as LedgerError, Reader};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::{Outcome, mtls_certificates};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::request::{self, IfMatch, Json, Query, Zone};

/// Where a fault of the id is told.
const POINTER_ID: &str = "/mtls_certificate_id";
/// Most hostnames of one list; each may be a change for the edge.
pub(crate) const HOSTNAMES_MAX: usize = 5_000;

#[derive(Serialize, ToSchema)]
pub(crate) struct AssociationView {
    hostnames: Vec<HostPattern>,
}

const fn scope(zone: &record::Zone) -> AssociationScope {
    AssociationScope::Zone { account: zone.account, zone: zone.id }
}

/// `GET /zones/{zone_id}/certificate_authorities/hostname_associations`
pub(crate) async fn get(State(api): State<Arc<Api>>, Zone(zone): Zone, query: Query) -> Outcome {
    let ca = named_ca(&api, zone.account, query.get("mtls_certificate_id")).await?;
    let hostnames = api.read(move |reader| reader.association(scope(&zone), ca)).await?;
    let tag = tag(&hostnames);
    Ok(Answer::one(&AssociationView { hostnames })?.tagged(tag))
}

fn tag(hostnames: &[HostPattern]) -> HeaderValue {
    let names: Vec<String> = hostnames.iter().map(HostPattern::to_string).collect();
    request::tag(&names.join("\n"))
}

/// The CA that a request names; none for the managed ones.
async fn named_ca(api: &Api, account: AccountId, text: Option<&str>) -> Result<Option<CaId>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let missing = || ApiError::no_certificate().at(POINTER_ID);
    let id: CaId = text.parse().map_err(|_| missing())?;
    let look = move |reader: &Reader| {
        let is_leaf =
            reader.outbound_leaves(account)?.iter().any(|leaf| leaf.id == id && leaf.shown_to.is_none());
        Ok((reader.ca(id)?, is_leaf))
    };
    match api.read(look).await? {
        (_, true) => Err(ApiError::argument(POINTER_ID, "mtls_certificate_id: it is a leaf, not a CA")),
        (Some(ca), false) if ca.account == account && mtls_certificates::is_brought(&ca) => Ok(Some(id)),
        _ => Err(missing()),
    }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = AssociationWanted)]
pub(crate) struct Wanted {
    hostnames: Option<Vec<String>>,
    mtls_certificate_id: Option<String>,
}

/// `PUT /zones/{zone_id}/certificate_authorities/hostname_associations`
pub(crate) async fn set(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    caller: Caller,
    if_match: IfMatch,
    Json(wanted): Json<Wanted>,
) -> Outcome {
    let hostnames = wanted
        .hostnames
        .ok_or_else(|| ApiError::argument("/hostnames", "hostnames: a list is needed, which may be empty"))?;
    let hosts = read_hostnames(&hostnames, "/hostnames")?;
    let ca = named_ca(&api, zone.account, wanted.mtls_certificate_id.as_deref()).await?;
    let scope = scope(&zone);
    let _turn = api.turn().await;
    let now = api.read(move |reader| reader.association(scope, ca)).await?;
    if_match.check(Some(&tag(&now)))?;
    let hostnames = associate(&api, scope, ca, hosts, Some(now), &caller, "/hostnames").await?;
    let tag = tag(&hostnames);
    Ok(Answer::one(&AssociationView { hostnames })?.tagged(tag))
}

/// Reads names into their normal form; each counts once, in the order of its first place.
pub(crate) fn read_hostnames(texts: &[String], pointer: &str) -> Result<Vec<HostPattern>, ApiError> {
    if texts.len() > HOSTNAMES_MAX {
        return Err(ApiError::argument(pointer, format!("at most {HOSTNAMES_MAX} hostnames")));
    }
    let mut names: Vec<HostPattern> = Vec::with_capacity(texts.len());
    let mut seen = std::collections::BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let wrong = |error: &dyn core::fmt::Display| {
            ApiError::argument(format!("{pointer}/{index}"), format!("`{}`: {error}", text.escape_debug()))
        };
        // As SNI carries it; what is ASCII already is read as it stands.
        let ascii = if text.is_ascii() {
            text.clone()
        } else {
            idna::domain_to_ascii(text).map_err(|_| wrong(&"no internationalized domain name (UTS 46)"))?
        };
        let name: HostPattern = ascii.parse().map_err(|error| wrong(&error))?;
        if seen.insert(name.clone()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Carries a list out; a refusal tells which hostname it is about.
pub(crate) async fn associate(
    api: &Api,
    scope: AssociationScope,
    ca: Option<CaId>,
    hosts: Vec<HostPattern>,
    instead_of: Option<Vec<HostPattern>>,
    caller: &Caller,
    pointer: &str,
) -> Result<Vec<HostPattern>, ApiError> {
    let wanted = hosts.clone();
    let set = SetAssociation { scope, ca, hosts, instead_of, by: caller.by(api.now()) };
    api.registrar().ledger().transact(set).await.map_err(|error| match error {
        LedgerError::Refused(Rejected::HostOutsideZone(host)) => {
            let index = wanted.iter().position(|name| *name == host).unwrap_or_default();
            let message =
                format!("{host} does not lie in this zone: it is outside of it, or was made in another one");
            ApiError::argument(format!("{pointer}/{index}"), message)
        }
        other => other.into(),
    })
}
