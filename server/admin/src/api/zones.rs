//! Zones (contract §2).
//!
//! Every field that SDKs take for granted is there; what Muster has no idea of (plans, name servers)
//! is empty.

mod filter;

use std::sync::Arc;

use axum::extract::State;
use muster_policy::identity::{AccountId, ZoneId};
use muster_policy::name::Hostname;
use muster_policy::time::UnixTime;
use muster_store::act::{AddZone, EditZone, Rejected, RemoveZone};
use muster_store::record::ZoneKind;
use muster_store::{Error as LedgerError, record};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use self::filter::Filter;
use crate::Api;
use crate::api::{Outcome, accounts, mtls_certificates};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{Json, Query, Zone};

/// Most name servers that a zone tells of.
const NAME_SERVERS_MAX: usize = 16;

#[derive(Serialize, ToSchema)]
pub(crate) struct ZoneView {
    id: ZoneId,
    name: Hostname,
    account: Owner,
    status: &'static str,
    #[serde(rename = "type")]
    kind: ZoneKind,
    paused: bool,
    created_on: UnixTime,
    modified_on: UnixTime,
    activated_on: UnixTime,
    development_mode: u8,
    meta: Value,
    name_servers: [&'static str; 0],
    original_name_servers: Option<Value>,
    original_dnshost: Option<Value>,
    original_registrar: Option<Value>,
    owner: Value,
    plan: Value,
    permissions: [&'static str; 0],
    vanity_name_servers: Vec<Hostname>,
}

#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct Owner {
    id: AccountId,
    name: String,
}

impl ZoneView {
    fn new(zone: record::Zone, owner: &Owner) -> Self {
        Self {
            id: zone.id,
            name: zone.name,
            account: owner.clone(),
            status: "active",
            kind: zone.kind,
            paused: zone.paused,
            created_on: zone.created_at,
            modified_on: zone.modified_at.unwrap_or(zone.created_at),
            activated_on: zone.created_at,
            development_mode: 0,
            meta: json!({}),
            name_servers: [],
            original_name_servers: None,
            original_dnshost: None,
            original_registrar: None,
            owner: json!({}),
            plan: json!({}),
            permissions: [],
            vanity_name_servers: zone.vanity_name_servers,
        }
    }
}

async fn owner(api: &Api) -> Result<Owner, ApiError> {
    let account = accounts::own(api).await?;
    Ok(Owner { id: account.id, name: account.name.to_string() })
}

/// `GET /zones`
pub(crate) async fn list(State(api): State<Arc<Api>>, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let filter = Filter::from_query(&query)?;
    let owner = owner(&api).await?;
    let account = owner.id;
    let mut zones = api.read(move |reader| reader.zones(account)).await?;
    zones.retain(|zone| filter.matches(zone, &owner));
    filter.sort(&mut zones);
    let (zones, info) = page.cut(zones);
    let views: Vec<ZoneView> = zones.into_iter().map(|zone| ZoneView::new(zone, &owner)).collect();
    Answer::list(&views, info)
}

/// `GET /zones/{zone_id}`
pub(crate) async fn get(State(api): State<Arc<Api>>, Zone(zone): Zone) -> Outcome {
    Answer::one(&ZoneView::new(zone, &owner(&api).await?))
}

/// Fields that are not there stay.
#[derive(Deserialize, ToSchema)]
#[schema(as = ZoneEdit)]
pub(crate) struct Edit {
    paused: Option<bool>,
    #[serde(rename = "type")]
    kind: Option<ZoneKind>,
    vanity_name_servers: Option<Vec<Hostname>>,
}

/// `PATCH /zones/{zone_id}`
pub(crate) async fn edit(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    caller: Caller,
    Json(edit): Json<Edit>,
) -> Outcome {
    if edit.vanity_name_servers.as_ref().is_some_and(|names| names.len() > NAME_SERVERS_MAX) {
        let message = format!("vanity_name_servers: at most {NAME_SERVERS_MAX}");
        return Err(ApiError::argument("/vanity_name_servers", message));
    }
    let edit = EditZone {
        account: zone.account,
        zone: zone.id,
        paused: edit.paused,
        kind: edit.kind,
        shows_certificate: None,
        vanity_name_servers: edit.vanity_name_servers,
        by: caller.by(api.now()),
    };
    let zone = api.registrar().ledger().transact(edit).await?;
    Answer::one(&ZoneView::new(zone, &owner(&api).await?))
}

#[derive(Serialize, ToSchema)]
#[schema(as = ZoneRemoved)]
pub(crate) struct Removed {
    id: ZoneId,
}

/// `DELETE /zones/{zone_id}`; refused while hostnames lie in it.
pub(crate) async fn remove(State(api): State<Arc<Api>>, Zone(zone): Zone, caller: Caller) -> Outcome {
    let remove = RemoveZone { account: zone.account, zone: zone.id, by: caller.by(api.now()) };
    let leaves = api.registrar().ledger().transact(remove).await?;
    leaves.iter().for_each(|leaf| mtls_certificates::forget_key(&api, leaf));
    (api.hooks().zones_changed)();
    Answer::one(&Removed { id: zone.id })
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct NewZone {
    account: Option<AccountReference>,
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<ZoneKind>,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct AccountReference {
    id: Option<String>,
}

/// `POST /zones`; the server's own TLS certificate then names `est.ZONE` too.
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(wanted): Json<NewZone>,
) -> Outcome {
    let owner = owner(&api).await?;
    let named = wanted.account.and_then(|account| account.id);
    if named.is_some_and(|id| id.parse() != Ok(owner.id)) {
        return Err(ApiError::no_route_to("account").at("/account/id"));
    }
    let name = wanted.name.ok_or_else(|| ApiError::argument("/name", "name: a DNS name is needed"))?;
    let name: Hostname =
        name.parse().map_err(|error| ApiError::argument("/name", format!("name: {error}")))?;
    let by = caller.by(api.now());
    let id =
        ZoneId::from_bytes(muster_enroll::random().ok_or_else(|| ApiError::internal("no random numbers"))?);
    let zone = record::Zone {
        kind: wanted.kind.unwrap_or_default(),
        ..record::Zone::new(id, owner.id, name, by.at)
    };
    let added = api.registrar().ledger().transact(AddZone { zone: zone.clone(), by }).await;
    added.map_err(|error| match error {
        LedgerError::Refused(Rejected::Exists(_)) => {
            ApiError::conflict(format!("the zone {} exists already", zone.name)).at("/name")
        }
        other => other.into(),
    })?;
    (api.hooks().zones_changed)();
    Answer::one(&ZoneView::new(zone, &owner))
}
