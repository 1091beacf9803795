//! Zones (contract §2).
//!
//! Every field that SDKs take for granted is there; what Muster has no idea of (plans, name servers)
//! is empty.

use std::sync::Arc;

use axum::extract::State;
use muster_policy::identity::{AccountId, ZoneId};
use muster_policy::name::Hostname;
use muster_policy::time::UnixTime;
use muster_store::act::{AddZone, Rejected};
use muster_store::{Error as LedgerError, record};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Api;
use crate::api::{Outcome, accounts};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{Json, Query};

#[derive(Serialize)]
struct ZoneView {
    id: ZoneId,
    name: Hostname,
    account: Owner,
    status: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
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
}

#[derive(Clone, Serialize)]
struct Owner {
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
            kind: "full",
            paused: false,
            created_on: zone.created_at,
            modified_on: zone.created_at,
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
    let owner = owner(&api).await?;
    let account = owner.id;
    let mut zones = api.read(move |reader| reader.zones(account)).await?;
    if let Some(name) = query.get("name") {
        let name = name.to_ascii_lowercase();
        zones.retain(|zone| zone.name.as_str() == name);
    }
    // A filter by another account, or by a status that no zone has, finds nothing.
    let other = query.get("account.id").is_some_and(|id| id.parse() != Ok(account))
        || query.get("account.name").is_some_and(|name| name != owner.name)
        || query.get("status").is_some_and(|status| status != "active");
    if other {
        zones.clear();
    }
    let (zones, info) = page.cut(zones);
    let views: Vec<ZoneView> = zones.into_iter().map(|zone| ZoneView::new(zone, &owner)).collect();
    Answer::list(&views, info)
}

/// `GET /zones/{id}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Outcome {
    let missing = || ApiError::no_route_to("zone");
    let id: ZoneId = id.parse().map_err(|_| missing())?;
    let owner = owner(&api).await?;
    let account = owner.id;
    let zone = api.read(move |reader| reader.zone(id)).await?;
    let zone = zone.filter(|zone| zone.account == account).ok_or_else(missing)?;
    Answer::one(&ZoneView::new(zone, &owner))
}

#[derive(Deserialize)]
pub(crate) struct NewZone {
    account: Option<AccountReference>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct AccountReference {
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
    let zone = record::Zone { id, account: owner.id, name, created_at: by.at };
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
