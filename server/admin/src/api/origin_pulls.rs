//! Certificates that the edge shows the origins of a zone, or of single hostnames in it (contract §7).
//!
//! A hostname's own certificate goes before the zone's; of several of the zone the newest is shown. While the
//! zone shows a certificate and has none, that of the account is shown, if there is one. A key is kept in a
//! file of its own and never answered.

pub(crate) mod hostnames;

use std::sync::Arc;

use axum::extract::State;
use muster_policy::identity::{CaId, ZoneId};
use muster_policy::time::UnixTime;
use muster_store::act::{EditZone, RemoveOutboundLeaf};
use muster_store::record::{self, OutboundLeaf, ShownTo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::Api;
use crate::api::mtls_certificates::{Bundle, NewLeaf, OptionalId, PER_PAGE_DEFAULT, add_leaf, forget_key};
use crate::api::{Outcome, pem};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::{Order, PageWish};
use crate::request::{Json, Query, Zone};
use crate::x509::Facts;

/// Which certificates a route is about.
pub(crate) trait Level: Send + Sync + 'static {
    /// Those of a zone.
    fn of(zone: ZoneId) -> ShownTo;
}

/// Certificates that hostnames name.
pub(crate) struct OfHostnames;

impl Level for OfHostnames {
    fn of(zone: ZoneId) -> ShownTo {
        ShownTo::Hostnames(zone)
    }
}

/// Certificates of all hostnames of the zone that name none.
pub(crate) struct OfZone;

impl Level for OfZone {
    fn of(zone: ZoneId) -> ShownTo {
        ShownTo::Zone(zone)
    }
}

/// What of a certificate or an association is in force; a change is, before it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = OriginPullStatus)]
pub(crate) enum Status {
    Active,
    Deleted,
}

#[derive(Serialize, ToSchema)]
#[schema(as = OriginPullCertificateView)]
pub(crate) struct CertificateView {
    id: CaId,
    certificate: String,
    issuer: String,
    signature: String,
    serial_number: String,
    expires_on: Option<UnixTime>,
    uploaded_on: UnixTime,
    status: Status,
    /// Of a zone's certificate: whether the zone shows one.
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
}

impl CertificateView {
    fn new(leaf: OutboundLeaf, zone: &record::Zone, status: Status) -> Self {
        let facts = facts(&leaf);
        Self {
            id: leaf.id,
            certificate: leaf.pem,
            issuer: facts.issuer,
            signature: facts.signature,
            serial_number: facts.serial_decimal,
            expires_on: facts.not_after,
            uploaded_on: leaf.uploaded_at,
            status,
            enabled: matches!(leaf.shown_to, Some(ShownTo::Zone(_))).then_some(zone.shows_certificate),
        }
    }
}

/// What the first certificate of a leaf's text says.
fn facts(leaf: &OutboundLeaf) -> Facts {
    pem::first(&leaf.pem).and_then(|der| Facts::of(&der)).unwrap_or_default()
}

#[derive(Deserialize, ToSchema)]
#[schema(as = OriginPullCertificateWanted)]
pub(crate) struct Wanted {
    certificate: Option<String>,
    #[schema(value_type = Option<String>)]
    private_key: Option<Zeroizing<String>>,
}

/// The certificate of a path; one that is for others looks missing.
async fn find<L: Level>(
    api: &Api,
    zone: &record::Zone,
    OptionalId(id): OptionalId,
) -> Result<OutboundLeaf, ApiError> {
    let (account, shown_to) = (zone.account, L::of(zone.id));
    let missing = || ApiError::not_found("certificate");
    let id = id.ok_or_else(missing)?;
    let found = api.read(move |reader| reader.outbound_leaf(account, id)).await?;
    found.filter(|leaf| leaf.shown_to == Some(shown_to)).ok_or_else(missing)
}

/// `GET /zones/{zone_id}/origin_tls_client_auth`, and the same of hostnames.
pub(crate) async fn list<L: Level>(State(api): State<Arc<Api>>, Zone(zone): Zone, query: Query) -> Outcome {
    let page = PageWish::with_default(&query, PER_PAGE_DEFAULT)?;
    let (account, shown_to) = (zone.account, L::of(zone.id));
    let mut leaves = api.read(move |reader| reader.outbound_leaves(account)).await?;
    leaves.retain(|leaf| leaf.shown_to == Some(shown_to));
    let (leaves, info) = page.cut_sorted(Order::Descending, leaves, |leaf| leaf.id.to_string());
    let views: Vec<CertificateView> =
        leaves.into_iter().map(|leaf| CertificateView::new(leaf, &zone, Status::Active)).collect();
    Answer::list(&views, info)
}

/// `POST /zones/{zone_id}/origin_tls_client_auth`, and the same of hostnames.
pub(crate) async fn upload<L: Level>(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    caller: Caller,
    Json(wanted): Json<Wanted>,
) -> Outcome {
    let needed = |name: &str| ApiError::argument(format!("/{name}"), format!("{name}: PEM text is needed"));
    let text = wanted.certificate.ok_or_else(|| needed("certificate"))?;
    let key = wanted.private_key.ok_or_else(|| needed("private_key"))?;
    let pointer = "/certificate";
    let bundle = Bundle::read(&text, pointer)?;
    let (key, shown_to) = (Some(key.as_str()), Some(L::of(zone.id)));
    let new = NewLeaf { account: zone.account, bundle, name: None, key, shown_to, pointer };
    let leaf = add_leaf(&api, new, &caller).await?;
    Answer::one(&CertificateView::new(leaf, &zone, Status::Active))
}

/// `GET /zones/{zone_id}/origin_tls_client_auth/{id}`, and the same of hostnames.
pub(crate) async fn get<L: Level>(State(api): State<Arc<Api>>, Zone(zone): Zone, id: OptionalId) -> Outcome {
    let leaf = find::<L>(&api, &zone, id).await?;
    Answer::one(&CertificateView::new(leaf, &zone, Status::Active))
}

/// `DELETE /zones/{zone_id}/origin_tls_client_auth/{id}`, and the same of hostnames; refused while one names it.
pub(crate) async fn remove<L: Level>(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    caller: Caller,
    id: OptionalId,
) -> Outcome {
    let leaf = find::<L>(&api, &zone, id).await?;
    let remove = RemoveOutboundLeaf { account: zone.account, id: leaf.id, by: caller.by(api.now()) };
    let leaf = api.registrar().ledger().transact(remove).await?;
    forget_key(&api, &leaf);
    Answer::one(&CertificateView::new(leaf, &zone, Status::Deleted))
}

#[derive(Serialize, ToSchema)]
#[schema(as = OriginPullSettings)]
pub(crate) struct SettingsView {
    enabled: bool,
}

/// `GET /zones/{zone_id}/origin_tls_client_auth/settings`
pub(crate) async fn settings(Zone(zone): Zone) -> Outcome {
    Answer::one(&SettingsView { enabled: zone.shows_certificate })
}

#[derive(Deserialize, ToSchema)]
#[schema(as = OriginPullSettingsWanted)]
pub(crate) struct SettingsWanted {
    enabled: Option<bool>,
}

/// `PUT /zones/{zone_id}/origin_tls_client_auth/settings`
pub(crate) async fn set_settings(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    caller: Caller,
    Json(wanted): Json<SettingsWanted>,
) -> Outcome {
    let needed = || ApiError::argument("/enabled", "enabled: true or false is needed");
    let edit = EditZone {
        account: zone.account,
        zone: zone.id,
        paused: None,
        kind: None,
        shows_certificate: Some(wanted.enabled.ok_or_else(needed)?),
        vanity_name_servers: None,
        by: caller.by(api.now()),
    };
    let zone = api.registrar().ledger().transact(edit).await?;
    Answer::one(&SettingsView { enabled: zone.shows_certificate })
}
